//! The families of this program, but for those of partitions.

use super::super::Worker;
use super::rows::{Labels, Writer, labels};
use super::{Collected, Measured};
use crate::status::counters::StepCounters;
use crate::status::figures::ByKind;
use crate::status::report::Report;
use crate::status::snapshot::{Snapshot, State, TableFigures};
use crate::status::stall::{Cause, UNKNOWN_CAUSE};

/// A family with a series for each thing of a kind: its name, its help, and the figure.
type Column<T> = (&'static str, &'static str, fn(&T) -> f64);

/// Writes them.
pub(super) fn write(collected: &Collected, measured: &Measured, writer: &mut Writer) {
    let snapshot = measured.worker.snapshot();
    state(collected, &measured.worker, writer);
    events(snapshot, writer);
    operations(snapshot, writer);
    delivery(measured.worker.report(), writer);
    group(snapshot, writer);
    tables(snapshot, writer);
}

fn truth(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

fn state(collected: &Collected, worker: &Worker, writer: &mut Writer) {
    let (facts, snapshot) = (&collected.facts, worker.snapshot());
    let build = labels([
        ("version", facts.version),
        ("revision", &facts.revision),
        ("python", &facts.python),
        ("librdkafka", &facts.librdkafka),
    ]);
    writer.gauges("kaspr_build_info", "Versions of the program, of its plan and of what is built in", [(build, 1.0)]);
    // Every state has a series: one that just disappeared would keep its last value in many a query.
    let states = State::ALL.map(|state| (labels([("state", state.name())]), truth(state == worker.state)));
    writer.gauges("kaspr_state", "1 for the state of the worker", states);
    writer.gauge("kaspr_ready", "1 while all partitions of the worker run", truth(worker.state.is_ready()));
    writer.gauge("kaspr_leader", "1 if the worker leads its app", truth(snapshot.is_leader));
    if let Some(disk) = &collected.disk {
        let help = "1 if the state dir can be written, and keeps the worker's state";
        writer.gauge("kaspr_state_dir_writable", help, truth(disk.fault_for(worker).is_none()));
    }
    let help = "Time since the last turn of the worker's thread";
    writer.gauge("kaspr_turn_age_seconds", help, worker.report().turn_age.as_secs_f64());
    let help = "Time in which the worker's thread was awake";
    writer.counter("kaspr_worker_busy_seconds", help, snapshot.busy.as_secs_f64());
    let help = "Time in which the worker's thread waited for events";
    writer.counter("kaspr_worker_idle_seconds", help, snapshot.idle.as_secs_f64());
    let help = "Processes of the worker that its supervisor has started again";
    writer.counter("kaspr_worker_restarts", help, worker.member.restarts as f64);
    let stalled = Cause::KINDS.into_iter().chain([UNKNOWN_CAUSE]);
    let stalled = stalled.map(|cause| {
        let count = snapshot.stalled.get(cause).copied().unwrap_or(0);
        (labels([("cause", cause)]), count as f64)
    });
    writer.gauges("kaspr_stalled_partitions", "Partitions that stand still for longer than stallAfter", stalled);
}

fn events(snapshot: &Snapshot, writer: &mut Writer) {
    let rows = |count: fn(&crate::status::counters::EventCounts) -> u64| {
        let rows = snapshot.events.iter();
        rows.map(move |((reader, topic), counts)| {
            (labels([("reader", reader), ("topic", topic)]), count(counts) as f64)
        })
    };
    writer.counters("kaspr_events", "Events taken from topics, by reader", rows(|counts| counts.taken));
    let help = "Events complete and committed, failed ones among them";
    writer.counters("kaspr_events_completed", help, rows(|counts| counts.completed));
    let times = snapshot.unit_times.iter().map(|(reader, times)| (labels([("reader", reader)]), &times.0.seconds));
    let help = "Time from the beginning of an event or batch to its end, of one in 16";
    writer.histograms("kaspr_event_duration_seconds", help, times);
}

fn operations(snapshot: &Snapshot, writer: &mut Writer) {
    let steps = &snapshot.counters.steps;
    let of = |step: &StepCounters| labels([("agent", &step.agent), ("operation", &step.operation)]);
    let columns: [Column<StepCounters>; 5] = [
        ("kaspr_operation_in", "Values that came, of complete events", |step| step.passed.taken as f64),
        ("kaspr_operation_out", "Values that went on, of complete events", |step| step.passed.given as f64),
        ("kaspr_operation_filtered", "Values that were held back", |step| step.passed.filtered as f64),
        ("kaspr_operation_failed", "Events that failed here for good", |step| step.passed.failed as f64),
        ("kaspr_operation_seconds", "Time in user code, from a sample", |step| step.time.as_secs_f64()),
    ];
    for (name, help, column) in columns {
        writer.counters(name, help, steps.iter().map(|step| (of(step), column(step))));
    }
    let by_kind = |kinds: &ByKind| {
        let row = |(agent, operation, kind, count)| {
            (labels([("agent", agent), ("operation", operation), ("kind", kind)]), count as f64)
        };
        kinds.iter().map(row).collect::<Vec<(Labels, f64)>>()
    };
    writer.counters("kaspr_failures", "Events that failed for good", by_kind(&snapshot.counters.failed_by_kind));
    let help = "Tries that failed and are followed by another one";
    writer.counters("kaspr_retries", help, by_kind(&snapshot.counters.retried_by_kind));
}

fn delivery(report: &Report, writer: &mut Writer) {
    let snapshot = &report.snapshot;
    let topics = &snapshot.counters.by_topic;
    let records = topics.iter().map(|(topic, counts)| (labels([("topic", topic)]), counts.records as f64));
    writer.counters("kaspr_records_sent", "Records committed, dead letters not among them", records);
    // Without this, every topic would have a second series that stays 0.
    let dead_letters = topics.iter().filter(|(_, counts)| counts.dead_letters > 0);
    let dead_letters = dead_letters.map(|(topic, counts)| (labels([("topic", topic)]), counts.dead_letters as f64));
    writer.counters("kaspr_dead_letters", "Dead letters committed", dead_letters);
    let (figures, outcomes) = (&snapshot.delivery, snapshot.delivery.outcomes);
    let outcomes = [("committed", outcomes.committed), ("aborted", outcomes.aborted), ("unknown", outcomes.unknown)];
    let outcomes = outcomes.map(|(outcome, count)| (labels([("outcome", outcome)]), count as f64));
    writer.counters("kaspr_transactions", "Ends of transactions; an unknown one counts again as what it was", outcomes);
    let help = "Time from the beginning of a transaction to its commit";
    writer.histograms("kaspr_transaction_duration_seconds", help, [(Labels::new(), &figures.transactions.seconds)]);
    let help = "Time for which complete events have waited for their commit; 0 where none waits";
    writer.gauge("kaspr_commit_age_seconds", help, report.commit_age().as_secs_f64());
    let help = "Producers that were replaced, because requests of theirs might arrive late";
    writer.counter("kaspr_producers_recycled", help, figures.recycled as f64);
}

fn group(snapshot: &Snapshot, writer: &mut Writer) {
    let figures = &snapshot.group;
    let kinds = [("assigned", figures.assigned), ("revoked", figures.revoked), ("lost", figures.lost)];
    let kinds = kinds.map(|(kind, count)| (labels([("kind", kind)]), count as f64));
    writer.counters("kaspr_rebalances", "Changes of the worker's partitions", kinds);
    let help = "Time from the first change of partitions until all of them run";
    writer.histograms("kaspr_rebalance_duration_seconds", help, [(Labels::new(), &figures.rebalances.seconds)]);
}

fn tables(snapshot: &Snapshot, writer: &mut Writer) {
    let of = |figures: &TableFigures| labels([("table", &figures.table)]);
    let tables = &snapshot.tables;
    let ratios = tables.iter().filter_map(|figures| Some((of(figures), figures.ratio?)));
    writer.gauges("kaspr_table_restore_ratio", "Share of the table's partitions here that is restored", ratios);
    let keys = tables.iter().filter_map(|figures| Some((of(figures), figures.keys? as f64)));
    writer.gauges("kaspr_table_keys", "Committed keys of the table in the partitions here", keys);
    let columns: [Column<TableFigures>; 4] = [
        ("kaspr_table_restored_records", "Records read from the changelog to restore the table", |t| t.restored as f64),
        ("kaspr_table_reads", "Keys that were read", |t| t.reads as f64),
        ("kaspr_table_writes", "Writes that are committed, deletions not among them", |t| t.writes as f64),
        ("kaspr_table_deletes", "Deletions that are committed", |t| t.deletes as f64),
    ];
    for (name, help, column) in columns {
        writer.counters(name, help, tables.iter().map(|figures| (of(figures), column(figures))));
    }
}
