//! The names of the reference runtime, so that dashboards made for it go on: spelling, units and labels as they
//! are there.
//!
//! Families that say nothing about this program have no series here: its scheduler's, its assignor's, counts by
//! stream and by name, and memory of the machine.

use super::partitions::{Places, sum};
use super::rows::{Labels, Writer, labels};
use super::{Collected, Measured};
use crate::status::figures::{Histogram, OLD_WIDE};
use crate::status::snapshot::{Snapshot, State};

/// Writes them.
pub(super) fn write(collected: &Collected, measured: &Measured, writer: &mut Writer) {
    let (snapshot, state) = (measured.worker.snapshot(), measured.worker.state);
    app(collected, measured, writer);
    messages(snapshot, writer);
    sent(snapshot, writer);
    events(snapshot, writer);
    moves(snapshot, state, writer);
    machine(measured, writer);
}

fn app(collected: &Collected, measured: &Measured, writer: &mut Writer) {
    let info = labels([("group_id", &collected.app), ("kaspr_version", collected.facts.version), ("kms_enabled", "0")]);
    if let Some(began) = measured.worker.report().process.and_then(|process| process.began_seconds) {
        writer.gauges("kaspr_app_info", "Application info", [(info, began)]);
    }
    let health = match measured.worker.state {
        State::Loading => -1.0,
        State::Running | State::Idle | State::Stopping => 0.0,
        State::Joining => 1.0,
        State::Restoring => 2.0,
    };
    writer.gauge("kaspr_health", "Current state of application.", health);
}

fn messages(snapshot: &Snapshot, writer: &mut Writer) {
    writer.counter("kaspr_messages_received", "Total messages received", snapshot.counters.events as f64);
    let mut topics = std::collections::BTreeMap::new();
    for ((_, topic), counts) in &snapshot.events {
        *topics.entry(topic.as_str()).or_insert(0) += counts.taken;
    }
    let topics = topics.into_iter().map(|(topic, count)| (labels([("topic", topic)]), count as f64));
    writer.counters("kaspr_messages_received_per_topic", "Messages received per topic", topics);
    let places = Places::of(snapshot);
    // The last offset that was received.
    let last = places.gather(
        snapshot,
        |partition| {
            let taken = partition.readers.iter().map(|reader| reader.taken).max()?;
            // `taken` is the next offset: before the first event there is no last one.
            (taken > 0).then(|| (taken - 1) as f64)
        },
        sum,
    );
    let help = "Messages received per topic/partition";
    writer.gauges("kaspr_messages_received_per_topics_partition", help, last);
    let ends = places.gather(snapshot, |partition| partition.high.map(|high| high as f64), sum);
    writer.gauges("kaspr_topic_partition_end_offset", "Offset ends per topic/partition", ends);
    let committed = places.gather(snapshot, |partition| partition.committed().map(|committed| committed as f64), sum);
    // Misspelt as in the reference runtime, here and below: dashboards ask for these very names.
    writer.gauges("kaspr_topic_partition_offset_commited", "Offset commited per topic/partition", committed);
}

fn sent(snapshot: &Snapshot, writer: &mut Writer) {
    let topics = snapshot.counters.by_topic.iter();
    let topics = topics.map(|(topic, counts)| {
        (labels([("topic", &format!("topic.{topic}"))]), (counts.records + counts.dead_letters) as f64)
    });
    writer.counters("kaspr_topic_messages_sent", "Total messages sent per topic", topics);
    let all = snapshot.counters.records + snapshot.counters.dead_letters;
    writer.counter("kaspr_total_sent_messages", "Total messages sent", all as f64);
    let aborted = snapshot.delivery.outcomes.aborted as f64;
    writer.counter("kaspr_total_error_messages_sent", "Transactions that were aborted", aborted);
    let (sends, commits) = (&snapshot.delivery.sends.old_ms, &snapshot.delivery.commits.old_ms);
    let help = "Producer send latency in ms, once a transaction";
    writer.histograms("kaspr_producer_send_latency", help, [(Labels::new(), sends)]);
    let help = "Consumer commit latency in ms, once a transaction";
    writer.histograms("kaspr_consumer_commit_latency", help, [(Labels::new(), commits)]);
}

fn events(snapshot: &Snapshot, writer: &mut Writer) {
    let mut runtime = Histogram::new(OLD_WIDE);
    snapshot.unit_times.iter().for_each(|(_, times)| runtime.add(&times.0.old_ms));
    writer.histograms("kaspr_events_runtime_ms", "Events runtime in ms", [(Labels::new(), &runtime)]);
    writer.counter("kaspr_total_events", "Total events received", snapshot.counters.events as f64);
    let active = snapshot.counters.events.saturating_sub(snapshot.counters.ended()) as f64;
    writer.gauge("kaspr_total_active_events", "Total active events", active);
    writer.gauge("kaspr_active_messages", "Total active messages", active);
    let operations = snapshot.tables.iter().flat_map(|table| {
        let name = format!("table.{}", table.table);
        [("keys_retrieved", table.reads), ("keys_updated", table.writes), ("keys_deleted", table.deletes)]
            .map(|(operation, count)| (labels([("table", &name), ("operation", operation)]), count as f64))
    });
    writer.counters("kaspr_table_operations", "Total table operations", operations);
    let keys = snapshot.tables.iter().filter_map(|table| {
        let name = format!("table.{}", table.table);
        Some((labels([("table", &name)]), table.keys? as f64))
    });
    writer.gauges("kaspr_table_key_count", "Total keys in table", keys);
}

fn moves(snapshot: &Snapshot, state: State, writer: &mut Writer) {
    let is = |is_so: bool| f64::from(u8::from(is_so));
    writer.gauge("kaspr_total_rebalances", "Total rebalances", is(state == State::Joining));
    let recovering = is(state == State::Restoring);
    writer.gauge("kaspr_total_rebalances_recovering", "Total rebalances recovering", recovering);
    let help = "Rebalance finished latency in ms";
    writer.histograms("kaspr_rebalance_done_latency", help, [(Labels::new(), &snapshot.group.rebalances.old_ms)]);
}

fn machine(measured: &Measured, writer: &mut Writer) {
    if let Some(percent) = measured.cpu_percent {
        writer.gauge("kaspr_cpu_utiliztion_percent", "CPU usage.", percent);
    }
    if let Some(process) = &measured.worker.report().process {
        writer.gauge("kaspr_resident_memory_total", "Total resident memory used.", process.resident_bytes);
    }
}

/// Writes those that are of the pod, however many workers it has.
pub(super) fn write_of_pod(collected: &Collected, writer: &mut Writer) {
    let codes = collected.requests.by_code().into_iter();
    let codes = codes.map(|(code, count)| (labels([("status_code", &code.to_string())]), count as f64));
    writer.counters("kaspr_http_status_codes", "Total http_status code", codes);
    let help = "Http response latency in ms";
    writer.histograms("kaspr_http_latency", help, [(Labels::new(), collected.requests.old_ms())]);
    if let Some((all, free)) = collected.disk.as_ref().and_then(|disk| disk.space) {
        writer.gauge("kaspr_disk_space_total", "Disk space total bytes", all);
        writer.gauge("kaspr_disk_space_used", "Disk space used bytes", all - free);
        writer.gauge("kaspr_disk_space_free", "Disk space free bytes", free);
    }
}
