//! The families of partitions, whose number is bounded: a worker with many has sums, and one with many topics
//! names the first of them.

use std::collections::{BTreeMap, BTreeSet};

use super::rows::{Labels, Writer, labels};
use crate::config::serving::{PARTITIONS_MAX, TOPICS_MAX};
use crate::status::counters::OTHER_TOPIC;
use crate::status::snapshot::{PartitionStatus, Snapshot};

/// The number of partitions that are summed.
const ALL: &str = "all";

/// The row of a partition's figures: its own, or one that it shares with others.
pub(super) struct Places<'a> {
    named: BTreeSet<&'a str>,
    are_summed: bool,
}

impl<'a> Places<'a> {
    /// The places of the partitions of a snapshot.
    pub(super) fn of(snapshot: &'a Snapshot) -> Places<'a> {
        let topics: BTreeSet<&str> = snapshot.assignment.keys().map(String::as_str).collect();
        let count: usize = snapshot.assignment.values().map(BTreeSet::len).sum();
        // The first by name, so that every page names the same topics as long as the assignment stays.
        Places { named: topics.into_iter().take(TOPICS_MAX).collect(), are_summed: count > PARTITIONS_MAX }
    }

    /// The name of a topic, or that of all topics which have none here.
    pub(super) fn topic<'t>(&self, topic: &'t str) -> &'t str {
        if self.named.contains(topic) { topic } else { OTHER_TOPIC }
    }

    /// The labels of a partition.
    fn labels(&self, topic: &str, partition: i32) -> Labels {
        let is_summed = self.are_summed || !self.named.contains(topic);
        let number = if is_summed { ALL.to_owned() } else { partition.to_string() };
        vec![("topic", self.topic(topic).to_owned()), ("partition", number)]
    }

    /// Puts figures at the places of their partitions; those of one place become one.
    pub(super) fn gather(
        &self,
        snapshot: &Snapshot,
        figure: impl Fn(&PartitionStatus) -> Option<f64>,
        join: fn(f64, f64) -> f64,
    ) -> BTreeMap<Labels, f64> {
        let mut gathered = BTreeMap::new();
        for partition in &snapshot.partitions {
            if let Some(figure) = figure(partition) {
                put(&mut gathered, self.labels(&partition.topic, partition.partition), figure, join);
            }
        }
        gathered
    }
}

fn put(gathered: &mut BTreeMap<Labels, f64>, at: Labels, figure: f64, join: fn(f64, f64) -> f64) {
    gathered.entry(at).and_modify(|known| *known = join(*known, figure)).or_insert(figure);
}

/// The sum of two figures.
pub(super) fn sum(one: f64, other: f64) -> f64 {
    one + other
}

/// Seconds since the oldest event that is not complete was made. 0 where nothing waits; `None`: the events that
/// wait were not fetched yet.
fn lag_seconds(partition: &PartitionStatus, now_ms: i64) -> Option<f64> {
    match partition.oldest_ms {
        // A producer's clock may run ahead of this machine's.
        Some(oldest) => Some((now_ms - oldest).max(0) as f64 / 1000.0),
        None => (partition.lag() == 0).then_some(0.0),
    }
}

/// Writes them.
pub(super) fn write(snapshot: &Snapshot, writer: &mut Writer) {
    let places = Places::of(snapshot);
    let ends = places.gather(snapshot, |partition| partition.high.map(|high| high as f64), sum);
    writer.gauges("kaspr_partition_end_offset", "The end of a partition, as the client last heard of it", ends);
    let committed = places.gather(snapshot, |partition| partition.committed().map(|committed| committed as f64), sum);
    writer.gauges("kaspr_partition_committed_offset", "The offset that the group has committed", committed);
    let lags = places.gather(snapshot, |partition| Some(partition.lag() as f64), sum);
    writer.gauges("kaspr_partition_lag_records", "Offsets up to the end that the slowest reader has not done", lags);
    let now_ms = snapshot.timestamp_ms;
    // Ages do not add up: several partitions in one row are as old as the oldest of them.
    let ages = places.gather(snapshot, |partition| lag_seconds(partition, now_ms), f64::max);
    writer.gauges("kaspr_partition_lag_seconds", "Age of the oldest event that is not complete", ages);
    let help = "Offsets up to the end that a reader has not done";
    writer.gauges("kaspr_reader_lag_records", help, reader_lags(snapshot, &places));
    let mut assigned = BTreeMap::new();
    for (topic, partitions) in &snapshot.assignment {
        put(&mut assigned, labels([("topic", places.topic(topic))]), partitions.len() as f64, sum);
    }
    writer.gauges("kaspr_assigned_partitions", "Partitions that the group has assigned", assigned);
    let mut queued = BTreeMap::new();
    for partition in &snapshot.partitions {
        let at = labels([("topic", places.topic(&partition.topic))]);
        put(&mut queued, at, partition.queued_bytes as f64, sum);
    }
    writer.gauges("kaspr_queued_bytes", "Bytes of events that wait in readers", queued);
}

fn reader_lags(snapshot: &Snapshot, places: &Places<'_>) -> BTreeMap<Labels, f64> {
    let mut lags = BTreeMap::new();
    for partition in &snapshot.partitions {
        for reader in &partition.readers {
            let mut at = places.labels(&partition.topic, partition.partition);
            at.push(("reader", reader.reader.clone()));
            put(&mut lags, at, reader.lag as f64, sum);
        }
    }
    lags
}
