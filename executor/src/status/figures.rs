//! Figures of metrics that no step of a plan counts: how long things took, and how they ended.
//!
//! Plain integers and histograms of the worker, as [`Counters`](super::counters::Counters) are.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::serving::KINDS_MAX;

/// Bounds of durations in seconds: from a millisecond to five minutes.
pub const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
/// Bounds of the reference runtime's latencies, in milliseconds.
pub const OLD_WIDE: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 100.0, 1000.0,
    5000.0, 10000.0,
];
/// Bounds of those of its latencies that have the usual ones.
pub const OLD_USUAL: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// A histogram with fixed bounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Histogram {
    bounds: Cow<'static, [f64]>,
    /// Values up to each bound and above the one before it; the last are above all bounds.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    /// An empty histogram with these upper bounds, which rise.
    pub fn new(bounds: &'static [f64]) -> Histogram {
        Histogram { bounds: Cow::Borrowed(bounds), counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    /// Counts a value `times` times: it stands for others that were not looked at.
    pub fn observe(&mut self, value: f64, times: u64) {
        // A value that equals a bound belongs below it: the bounds of Prometheus are inclusive.
        let at = self.bounds.partition_point(|bound| *bound < value);
        self.counts[at] += times;
        self.sum += value * times as f64;
    }

    /// Adds the values of a histogram with the same bounds.
    pub fn add(&mut self, other: &Histogram) {
        debug_assert_eq!(self.bounds, other.bounds, "buckets mean the same");
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, other)| *count += other);
        self.sum += other.sum;
    }

    /// The sum of all values.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// The number of values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Upper bounds, each with the number of values in its own bucket. The last bound is infinite.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        // Each bucket by itself: what writes the page adds up those below it.
        bounds.zip(self.counts.iter().copied()).collect()
    }
}

/// A duration in the two forms that metrics have.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Timed {
    /// In seconds.
    pub seconds: Histogram,
    /// In milliseconds, with bounds of the reference runtime.
    pub old_ms: Histogram,
}

impl Timed {
    fn new(old: &'static [f64]) -> Timed {
        Timed { seconds: Histogram::new(SECONDS), old_ms: Histogram::new(old) }
    }

    /// Counts a duration, `times` times.
    pub fn observe(&mut self, time: Duration, times: u64) {
        self.seconds.observe(time.as_secs_f64(), times);
        self.old_ms.observe(time.as_secs_f64() * 1000.0, times);
    }
}

/// Ends of transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// Transactions that took place.
    pub committed: u64,
    /// Transactions of which nothing counts.
    pub aborted: u64,
    /// Transactions whose outcome had to be asked for. Each is one of the others, too, once the answer is there.
    pub unknown: u64,
}

/// Figures of the way of effects to the broker. Part of a delivery.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeliveryFigures {
    /// Ends of transactions.
    pub outcomes: Outcomes,
    /// From the beginning of a transaction to its end, committed ones.
    pub transactions: Timed,
    /// From the beginning of a transaction to the acknowledgement of all its records.
    pub sends: Timed,
    /// From there to its end.
    pub commits: Timed,
    /// Producers that another one has replaced.
    pub recycled: u64,
}

impl Default for DeliveryFigures {
    fn default() -> DeliveryFigures {
        DeliveryFigures {
            outcomes: Outcomes::default(),
            transactions: Timed::new(OLD_WIDE),
            sends: Timed::new(OLD_WIDE),
            commits: Timed::new(OLD_WIDE),
            recycled: 0,
        }
    }
}

/// Figures of a member of a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupFigures {
    /// Changes that assigned partitions.
    pub assigned: u64,
    /// Changes that revoked partitions.
    pub revoked: u64,
    /// Changes in which partitions were lost.
    pub lost: u64,
    /// From the first change until all partitions run.
    pub rebalances: Timed,
}

impl Default for GroupFigures {
    fn default() -> GroupFigures {
        GroupFigures { assigned: 0, revoked: 0, lost: 0, rebalances: Timed::new(OLD_USUAL) }
    }
}

/// Durations of units of a reader, from a sample of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UnitTimes(pub Timed);

impl Default for UnitTimes {
    fn default() -> UnitTimes {
        UnitTimes(Timed::new(OLD_WIDE))
    }
}

/// Counts by agent, operation and kind of failure. Kinds after the first [`KINDS_MAX`] of an operation are one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ByKind(BTreeMap<String, BTreeMap<String, BTreeMap<String, u64>>>);

impl ByKind {
    /// The kind of those that are not named.
    pub const OTHER: &'static str = "other";

    /// Counts one.
    pub fn count(&mut self, agent: &str, operation: &str, kind: &str) {
        let kinds = self.0.entry(agent.to_owned()).or_default().entry(operation.to_owned()).or_default();
        // Kinds are names of exception classes, and user code can make classes without end.
        let kind = if kinds.contains_key(kind) || kinds.len() < KINDS_MAX { kind } else { ByKind::OTHER };
        *kinds.entry(kind.to_owned()).or_insert(0) += 1;
    }

    /// Agent, operation, kind and count.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &str, u64)> {
        let operations = self.0.iter().flat_map(|(agent, operations)| operations.iter().map(move |of| (agent, of)));
        operations.flat_map(|(agent, (operation, kinds))| {
            kinds.iter().map(move |(kind, count)| (agent.as_str(), operation.as_str(), kind.as_str(), *count))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_the_first_bucket_that_holds_it() {
        let mut histogram = Histogram::new(&[1.0, 2.0]);
        [(0.5, 1), (1.0, 1), (1.5, 2), (9.0, 1)].iter().for_each(|&(value, times)| histogram.observe(value, times));
        assert_eq!(histogram.buckets(), [(1.0, 2), (2.0, 2), (f64::INFINITY, 1)]);
        assert_eq!((histogram.count(), histogram.sum()), (5, 13.5));
    }

    #[test]
    fn a_duration_is_counted_in_both_units() {
        let mut timed = Timed::new(OLD_USUAL);
        timed.observe(Duration::from_millis(5), 1);
        assert_eq!((timed.seconds.sum(), timed.old_ms.sum()), (0.005, 5.0));
    }

    #[test]
    fn kinds_that_come_late_are_one() {
        let mut kinds = ByKind::default();
        (0..30).for_each(|number| kinds.count("a", "o", &format!("E{number:02}")));
        kinds.count("a", "o", "E00");
        kinds.count("a", "p", "E29");
        let counts: BTreeMap<_, _> =
            kinds.iter().map(|(_, operation, kind, count)| ((operation, kind), count)).collect();
        assert_eq!(counts.len(), 22);
        assert_eq!((counts[&("o", "E00")], counts[&("o", "other")], counts[&("p", "E29")]), (2, 10, 1));
    }
}
