//! Standings of a worker's readers, and what holds them: the content of the stall report and the status.
//!
//! A reader's cause is looked for from the inside out: first its own stage and window, then the delivery,
//! then a queue of another reader that has paused the partition, and at last the broker. The first that
//! applies is reported.

use serde_json::Value;

use super::Worker;
use crate::assignment::ReaderPosition;
use crate::code::Code;
use crate::status::stall::{Cause, Standing, Subject};
use crate::status::{Reading, Status};
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
            let restoring = self.restore.holds(partition);
            let (position, cause) = match restoring {
                Some(Restoring { table, percent, at, .. }) => (at, Cause::Restoring { table, percent }),
                None => (0, Cause::Transaction { id: None }),
            };
            Standing { subject: Subject::Start(partition.clone()), position, lag: 1, cause: Some(cause) }
        }));
        let commits = self.shared.counters.borrow().commits;
        standings.push(Standing {
            subject: Subject::Commits,
            position: commits.cast_signed(),
            lag: u64::from(!self.delivery.is_idle()),
            cause: Some(Cause::Acknowledgement),
        });
        standings
    }

    /// One reading per partition and reader, including partitions that have not started.
    fn readings(&self) -> Vec<Reading> {
        let reading = |at: ReaderPosition| {
            let high = self.consumer.known_end(&at.partition);
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
    /// the moment of the call: see [`Status`].
    pub fn status(&self) -> Value {
        let counters = self.shared.counters.borrow();
        let recent = self.shared.recent.borrow();
        let now = self.shared.clock.wall_ms();
        Status { config: &self.config, now_ms: now, counters: &counters, readings: self.readings(), recent: &recent }
            .to_json()
    }
}
