//! The end of a turn: what is complete is committed, or it is aborted and done again.
//!
//! *An abort* (`Delivered::Undone`) is undone in this order: what was to be committed is noted for
//! [`Redo`](super::redo::Redo), staged effects and the overlay are dropped, readers go back with their stages
//! and windows, and the consumer starts again at the committed positions. Only then may an event run.

use std::time::Duration;

use tracing::warn;

use super::{Stopped, Worker};
use crate::code::{Code, Fault};
use crate::config::Guarantee;
use crate::delivery::{Around, Delivered, Delivery, Refused, Urgency};
use crate::event::effects::Progress;
use crate::event::message::Event;

impl<C: Code> Worker<C> {
    /// Moves what is on its way to the broker. Returns true if a commit has taken place.
    pub(super) fn deliver(&mut self, urgency: Urgency) -> Result<bool, Stopped> {
        Ok(self.delivered(urgency)? == Delivered::Committed)
    }

    /// The urgency of the next commit, as the pace has it now.
    pub(super) fn urgency(&self) -> Urgency {
        self.pace.urgency(self.shared.clock.now(), self.is_busy())
    }

    /// As [`Worker::deliver`], with the outcome: aborted work is already set back when it returns.
    fn delivered(&mut self, urgency: Urgency) -> Result<Delivered, Stopped> {
        // A store that could not be read has given user code wrong state, so nothing staged may be committed.
        if self.mend_unread()? {
            return Ok(Delivered::Nothing);
        }
        let (delivery, mut around) = self.around();
        let delivered = delivery.turn(&mut around, urgency)?;
        match &delivered {
            Delivered::Undone { why, progress, refused } => {
                warn!(error = %why, "aborted: everything since the last commit runs again");
                self.undone(progress, refused.as_ref())?;
            }
            Delivered::Committed => {
                self.commits_wait = None;
                self.pace.ended(self.delivery.began(), self.shared.clock.now());
                self.leave_parts();
                self.forget_poison();
            }
            Delivered::Nothing => {}
        }
        Ok(delivered)
    }

    /// Ends an open transaction before more of slow user code runs, if the broker answers in time. A
    /// transaction has the timeout of its client, and user code may outlast it. Returns true if something was
    /// committed.
    pub(super) fn end_transaction(&mut self) -> Result<bool, Stopped> {
        // Bounded: a broker that is away must not keep events from running that need it for nothing yet.
        let clock = self.shared.clock.clone();
        let (mut committed, deadline) = (false, clock.now() + self.config.bounds.slow_code);
        while self.pace.is_slow(clock.now())
            && self.delivery.is_sending()
            && self.may_commit()
            && clock.now() < deadline
        {
            self.delivery.wait();
            committed |= self.deliver(Urgency::WhenDue)?;
        }
        Ok(committed)
    }

    /// Commits everything that is complete. Returns false if the broker took too long, or this worker may not
    /// commit. Used when partitions are given up, when the worker halts, and at its end.
    pub fn flush(&mut self) -> Result<bool, Stopped> {
        let deadline = self.shared.clock.now() + self.config.bounds.flush_wait_max;
        loop {
            // After an abort, too, nothing is left to commit: the events run again.
            self.deliver(Urgency::Now)?;
            if self.delivery.is_idle() && self.dataflow.staged.borrow().is_empty() {
                return Ok(true);
            }
            if !self.may_commit() || self.shared.clock.now() >= deadline {
                return Ok(false);
            }
            self.delivery.wait();
        }
    }

    /// True if this worker may commit: with transactions, only a member of the group may. A worker that was
    /// fenced out of its group must not wait for a commit that never comes.
    fn may_commit(&self) -> bool {
        self.config.guarantee == Guarantee::AtLeastOnce || self.consumer.group().is_member()
    }

    /// Lets calls that have begun end, without taking events. Events that wait for a retry or in a window
    /// come again. Call it before the last [`Worker::flush`]. Waits at most `drain_wait_max`.
    pub fn drain(&mut self) -> Result<(), Stopped> {
        let deadline = self.shared.clock.now() + self.config.bounds.drain_wait_max;
        while self.shared.clock.now() < deadline {
            let busy = self.dataflow.readers.iter().any(|reader| reader.stage.borrow().is_busy());
            if !busy && !self.awaits() {
                break;
            }
            if !busy {
                self.shared.code.borrow_mut().turn(Duration::from_millis(10), None);
            } else if self.units_of_epoch() == 0 {
                // One by one, the next unit may begin once the last is committed.
                self.delivery.wait();
            }
            // Calls may begin: a unit whose first call has ended needs the others to be complete.
            self.run_epoch(true);
            self.deliver(self.urgency())?;
        }
        Ok(())
    }

    /// Ends the running in parts once all that a refused transaction would have completed is committed.
    /// Called after each commit; does nothing unless work is done in parts.
    fn leave_parts(&mut self) {
        let committed: Vec<_> = match self.pace.is_in_parts() {
            true => self.assignment.committed_positions().collect(),
            false => Vec::new(),
        };
        self.pace.redo.committed(|Progress { reader, partition, done, .. }| {
            committed.iter().any(|(of, at, position)| (of, at) == (reader, partition) && position < done)
        });
    }

    /// Forgets refused and poison events whose failures are committed. Their offsets never come again, so the
    /// list stays short.
    fn forget_poison(&mut self) {
        let mut poison = self.shared.poison.borrow_mut();
        if !poison.is_empty() || poison.has_suspects() {
            for (reader, partition, offset) in self.assignment.committed_positions() {
                poison.passed(reader, partition, offset);
            }
        }
    }

    /// Does everything since the last commit again. If the broker refuses a record, it runs in smaller and
    /// smaller parts: so the unit whose record it is stands alone at last, and fails.
    ///
    /// `progress` is what the aborted transaction would have completed; it is empty if the next try differs
    /// anyway, because its batches are smaller.
    fn undone(&mut self, progress: &[Progress], refused: Option<&Refused>) -> Result<(), Stopped> {
        // Counted before the readers go back: the committed positions are the beginning of what runs again.
        let events = self.events_up_to(progress);
        let is_cause = self.pace.redo.undone(progress, events, refused);
        if refused.is_some() || self.pace.redo.is_repeated() {
            // The limits of the topics are looked up again when the records are staged again.
            self.shared.directory.forget();
        }
        if let Some(Refused { kind, why, .. }) = refused.filter(|_| is_cause) {
            let mut poison = self.shared.poison.borrow_mut();
            // It stood alone, so the last offset before each `done` is its own.
            for Progress { reader, partition, done, .. } in progress.iter().copied() {
                poison.refuse(reader, partition, done - 1, Fault::new(kind, why));
            }
        }
        self.start_over()
    }

    /// The most events that can have led to this progress: offsets without an event count too. An upper bound
    /// is enough: parts are halves of it.
    fn events_up_to(&self, progress: &[Progress]) -> usize {
        let missing = |(reader, partition, position): (_, _, i64)| {
            let of = progress.iter().filter(|progress| (progress.reader, progress.partition) == (reader, partition));
            of.map(|progress| progress.done - position).max().unwrap_or(0)
        };
        let missing: i64 = self.assignment.committed_positions().map(missing).sum();
        usize::try_from(missing).unwrap_or(1)
    }

    /// Starts over after an abort: staged effects are dropped, readers that had completed some of them go
    /// back to their committed positions with all that waits in them, and pending awaits run again.
    ///
    /// # Errors
    ///
    /// The consumer could not be started; a broker that does not answer is asked again at the next turn
    /// instead.
    pub(super) fn start_over(&mut self) -> Result<(), Stopped> {
        self.dataflow.staged.borrow_mut().clear();
        // An event that halts runs again: it may have seen state that was aborted.
        let halted: Vec<bool> =
            self.dataflow.readers.iter().map(|reader| reader.stage.borrow().halted().is_some()).collect();
        self.shared.tables.borrow_mut().abort();
        let back = self.assignment.go_back(&halted);
        // What waits in the stages goes with the ledgers: an event left there would complete before its turn.
        for (reader, goes_back) in self.dataflow.readers.iter().zip(back) {
            let mut stage = reader.stage.borrow_mut();
            if goes_back {
                stage.clear();
                if let Some(window) = &reader.window {
                    window.borrow_mut().clear();
                }
            } else {
                // A pending call may have read table writes that were aborted. Its event keeps its place and
                // runs again.
                stage.cancel_awaits();
            }
        }
        self.count_queued();
        self.start_partitions()?;
        // Readers that did not go back may already hold as many bytes as allowed: pause them now, so that no
        // more events come, however often other readers start over.
        self.ease_pressure()
    }

    /// Recounts the bytes that wait of each partition. Stages and windows were cleared without saying what
    /// they held.
    fn count_queued(&mut self) {
        let mut queued = self.shared.queued.borrow_mut();
        queued.iter_mut().for_each(|bytes| *bytes = 0);
        let mut count = |event: &Event| queued[event.slot] += event.size();
        for reader in &self.dataflow.readers {
            reader.stage.borrow().waiting().for_each(&mut count);
            if let Some(window) = &reader.window {
                window.borrow().waiting().for_each(&mut count);
            }
        }
    }

    /// Borrows the delivery and, apart from it, the parts that it needs.
    fn around(&mut self) -> (&mut Delivery, Around<'_>) {
        let around = Around {
            staged: &self.dataflow.staged,
            assignment: &mut self.assignment,
            consumer: self.consumer.as_mut(),
            tables: &self.shared.tables,
            counters: &self.shared.counters,
            clock: self.shared.clock.as_ref(),
        };
        (&mut self.delivery, around)
    }
}
