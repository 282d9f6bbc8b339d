//! Standings of a worker's readers, and what holds them: the content of the stall report and the status.
//!
//! A reader's cause is looked for from the inside out: first its own stage and window, then the delivery,
//! then a queue of another reader that has paused the partition, and at last the broker. The first that
//! applies is reported.

use std::collections::BTreeMap;
use std::time::Duration;

use kaspr_ir::plan::TableId;
use serde_json::{Value, json};

use super::Worker;
use crate::assignment::ReaderPosition;
use crate::broker::GroupMetadata;
use crate::code::Code;
use crate::config::failpoint::HOLD;
use crate::event::message::{TopicName, TopicPartition};
use crate::status::Reading;
use crate::status::counters::EventCounts;
use crate::status::figures::UnitTimes;
use crate::status::snapshot::{PartitionStatus, Partitions, RestoringTable, Snapshot, State, TableFigures};
use crate::status::stall::{Cause, Standing, Subject};
use crate::tables::restore::Restoring;

impl<C: Code> Worker<C> {
    /// Reports stalls if a look is due. A look costs a question to each stage, so it is not made every turn.
    pub(super) fn report_stalls(&mut self) {
        let now = self.shared.clock.now();
        if !self.stalls.is_due(now) {
            return;
        }
        let standings = self.standings();
        for notice in self.stalls.look(now, standings) {
            notice.log();
        }
    }

    /// One standing per reader and partition, per partition that has not started, and one for the commits.
    fn standings(&self) -> Vec<Standing> {
        let mut standings: Vec<Standing> = self.readings().into_iter().map(Reading::into_standing).collect();
        standings.extend(self.arrivals.names().iter().map(|partition| {
            let (position, cause) = self.start_cause(partition);
            // A partition that has not started always waits, whatever its end: any lag but 0 says so.
            Standing { subject: Subject::Start(partition.clone()), position, lag: 1, cause: Some(cause) }
        }));
        let commits = self.shared.counters.borrow().commits;
        standings.push(Standing {
            subject: Subject::Commits,
            position: commits.cast_signed(),
            // Without effects on their way, commits that do not come are no stall.
            lag: u64::from(!self.delivery.is_idle()),
            cause: Some(Cause::Acknowledgement),
        });
        standings
    }

    /// The cause for which a partition has not started, and how far that has come.
    fn start_cause(&self, partition: &TopicPartition) -> (i64, Cause) {
        match self.restore.holds(partition) {
            Some(Restoring { table, percent, at, .. }) => (at, Cause::Restoring { table, percent }),
            None => (0, Cause::Transaction { id: None }),
        }
    }

    /// One reading per partition and reader, including partitions that have not started.
    fn readings(&self) -> Vec<Reading> {
        let reading = |at: ReaderPosition| {
            let high = self.consumer.known_end(&at.partition);
            // An end that is not known is no reason to report a stall: the client learns it with the first fetch.
            let waits = at.taken > at.done || high.is_some_and(|high| high > at.taken);
            let cause = waits.then(|| self.cause(&at)).flatten();
            let ReaderPosition { partition, reader, taken, done, committed } = at;
            Reading { partition, reader, taken, done, committed, high, cause }
        };
        self.positions().into_iter().map(reading).collect()
    }

    /// `None`: the stage cannot say what the event waits for.
    fn cause(&self, at: &ReaderPosition) -> Option<Cause> {
        let ReaderPosition { partition, reader, .. } = at;
        let number = self.shared.slots.borrow_mut().number(&partition.topic, partition.partition);
        if at.taken > at.done {
            return self.holds(reader, number);
        }
        if self.delivery.is_full(&self.dataflow.staged) {
            return Some(Cause::Acknowledgement);
        }
        // A partition is paused as a whole, so a reader that is done may wait for one with a full queue.
        let others = self.dataflow.readers.iter().map(|other| other.name.as_str()).filter(|other| other != reader);
        let queued = self.shared.queued.borrow().get(number).copied().unwrap_or(0);
        // The lower bound, since a paused partition stays so until its queue has fallen to there.
        let is_paused = queued > self.config.bounds.queued_bytes_low;
        let full = others.into_iter().find(|other| is_paused && self.holds(other, number).is_some());
        Some(full.map_or(Cause::Broker, |other| Cause::Behind { reader: other.to_owned() }))
    }

    /// The cause inside of a reader: its stage, or its window. `number` is the partition's.
    fn holds(&self, reader: &str, number: usize) -> Option<Cause> {
        let run = self.dataflow.readers.iter().find(|run| run.name == reader)?;
        let in_window = || run.window.as_ref().and_then(|window| window.borrow().holds(number));
        run.stage.borrow().holds(number).or_else(in_window)
    }

    /// True if another thread asked for the status since the last call. The signal thread asks; the worker
    /// answers between two turns.
    pub fn is_asked(&self) -> bool {
        self.shared.watch.take_asked()
    }

    /// Everything that an operator asks of a running worker: counters, positions, recent failures. Built at
    /// the moment of the call: see [`Snapshot`].
    pub fn status(&self) -> Value {
        json!({ "status": self.snapshot().to_json() })
    }

    /// Publishes a snapshot if one is due, and acts on what readers of the last one have asked for.
    pub(super) fn publish(&mut self) {
        let Some(board) = self.board.clone() else { return };
        // A test of the server stops the thread here for good, between two turns.
        self.config.failpoint.pass(HOLD);
        let now = self.shared.clock.now();
        if self.group.is_moving() && self.state() == State::Running {
            self.group.rests(now);
        }
        if !self.delivery.is_idle() || !self.dataflow.staged.borrow().is_empty() {
            self.commits_wait.get_or_insert(now);
        }
        if board.take_rebalance() {
            self.consumer.stir();
        }
        if board.turned() {
            board.publish(self.published());
        }
    }

    /// A snapshot for the readers of a board: only they have keys counted.
    pub fn published(&self) -> Snapshot {
        let mut snapshot = self.snapshot();
        let keys = self.shared.tables.borrow().keys(snapshot.tables.len());
        snapshot.tables.iter_mut().zip(keys).for_each(|(figures, keys)| figures.keys = keys);
        snapshot
    }

    /// The worker as it stands between two turns.
    fn snapshot(&self) -> Snapshot {
        let state = self.state();
        let names = self.assignment.names().chain(self.arrivals.names());
        let now = self.shared.clock.now();
        let (busy, idle) = self.sleep.busy_and_idle(now);
        let restoring = self.restore.progress().into_iter();
        Snapshot {
            app: self.config.app.clone(),
            worker: self.config.transactional_id.clone(),
            timestamp_ms: self.shared.clock.wall_ms(),
            state,
            why: self.why_not_ready(state),
            is_leader: false,
            generation: Some(self.consumer.group()).filter(GroupMetadata::is_member).map(|group| group.generation),
            assignment: by_topic(names.map(|name| (&name.topic, name.partition))),
            changelogs: by_topic(self.restore.held()),
            partitions: self.partitions(),
            restoring: restoring
                .map(|Restoring { table, partition, percent, .. }| RestoringTable { table, partition, percent })
                .collect(),
            stalled: self.stalls.stalled(),
            busy,
            idle,
            delivery: self.delivery.figures().clone(),
            group: self.group.figures().clone(),
            commit_age: self.commits_wait.map_or(Duration::ZERO, |since| now.saturating_sub(since)),
            events: self.event_counts(),
            unit_times: self.unit_times(),
            clients: self.consumer.clients(),
            tables: self.table_figures(),
            given_up: self.shared.tables.borrow().given_up().map(ToString::to_string),
            counters: self.shared.counters.borrow().clone(),
            failures: self.shared.recent.borrow().failures(),
        }
    }

    /// Events by the names of their reader and topic.
    fn event_counts(&self) -> Vec<((String, String), EventCounts)> {
        let (counters, slots) = (self.shared.counters.borrow(), self.shared.slots.borrow());
        let mut counts = Vec::new();
        for (reader, partitions) in self.dataflow.readers.iter().zip(&counters.by_partition) {
            let mut topics: BTreeMap<&str, EventCounts> = BTreeMap::new();
            for (number, count) in partitions.iter().enumerate().filter(|(_, count)| count.taken > 0) {
                topics.entry(&slots.name(number).topic).or_default().add(*count);
            }
            counts.extend(topics.into_iter().map(|(topic, count)| ((reader.name.clone(), topic.to_owned()), count)));
        }
        counts
    }

    /// Durations of units, by the names of their readers.
    fn unit_times(&self) -> Vec<(String, UnitTimes)> {
        let counters = self.shared.counters.borrow();
        let readers = self.dataflow.readers.iter().map(|reader| reader.name.clone());
        readers.zip(counters.unit_times.iter().cloned()).collect()
    }

    /// Reads, writes and restorations of tables, by their names.
    fn table_figures(&self) -> Vec<TableFigures> {
        let tables = self.shared.tables.borrow();
        let of = |(table, name): (TableId, &str)| {
            let (reads, writes, deletes) = tables.counts(table);
            let (restored, ratio) = (self.restore.restored(table), self.restore.ratio(table));
            TableFigures { table: name.to_owned(), reads, writes, deletes, restored, ratio, keys: None }
        };
        self.restore.names().map(of).collect()
    }

    fn state(&self) -> State {
        if !self.consumer.has_assignment() {
            if self.consumer.kept_out().is_some() { State::Loading } else { State::Joining }
        } else if !self.arrivals.is_empty() || self.assignment.has_unstarted() {
            State::Restoring
        } else {
            State::Running
        }
    }

    /// The reason for which the worker is not ready: of several partitions that of the first.
    fn why_not_ready(&self, state: State) -> Option<String> {
        match state {
            State::Joining => Some("waiting for the group to assign partitions".to_owned()),
            State::Restoring => Some(match self.arrivals.names().first() {
                Some(name) => format!("{name} has not started: {}", self.start_cause(name).1),
                None => format!("partitions have not started: {}", Cause::Broker),
            }),
            State::Loading => self.consumer.kept_out().map(str::to_owned),
            State::Running | State::Stopping | State::Idle => None,
        }
    }

    /// The partitions that have started, sorted, each with its readers.
    fn partitions(&self) -> Vec<PartitionStatus> {
        let mut partitions: BTreeMap<TopicPartition, PartitionStatus> = BTreeMap::new();
        let queued = self.shared.queued.borrow();
        for reading in self.readings() {
            let name = reading.partition.clone();
            let number = self.shared.slots.borrow_mut().number(&name.topic, name.partition);
            let oldest_ms = self.oldest(&reading.reader, number).filter(|_| reading.taken > reading.done);
            let known = partitions.entry(name).or_insert_with_key(|name| PartitionStatus {
                topic: name.topic.to_string(),
                partition: name.partition,
                high: None,
                queued_bytes: queued.get(number).copied().unwrap_or(0),
                oldest_ms: None,
                readers: Vec::new(),
            });
            known.high = known.high.or(reading.high);
            known.oldest_ms = known.oldest_ms.into_iter().chain(oldest_ms).min();
            known.readers.push(reading.into_status());
        }
        partitions.into_values().collect()
    }

    /// The timestamp of the oldest event of a partition that waits in a reader.
    fn oldest(&self, reader: &str, number: usize) -> Option<i64> {
        let run = self.dataflow.readers.iter().find(|run| run.name == reader)?;
        let in_window = run.window.as_ref().and_then(|window| window.borrow().oldest(number));
        run.stage.borrow().oldest(number).into_iter().chain(in_window).min()
    }
}

/// Partitions by the names of their topics.
fn by_topic<'a>(names: impl Iterator<Item = (&'a TopicName, i32)>) -> Partitions {
    let mut partitions = Partitions::new();
    for (topic, partition) in names {
        match partitions.get_mut(&**topic) {
            Some(known) => drop(known.insert(partition)),
            None => drop(partitions.insert(topic.to_string(), [partition].into())),
        }
    }
    partitions
}
