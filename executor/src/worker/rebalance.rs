//! Partitions come and go: assigned ones start at the group's committed offsets, revoked ones take along what
//! waits of them.
//!
//! ```text
//! Assigned ─▶ arrivals ─ tables whole ─▶ assignment.add ─▶ consumer.start
//! Revoked  ─▶ pending calls end ─▶ last commit ─▶ let_go     while this member still owns them
//! Lost     ─▶ let_go                                         another member may own them already
//! ```
//!
//! *Architecture invariant:* after `let_go` this worker commits nothing of the partitions, and no event of
//! them waits anywhere in it.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::{Stopped, Worker};
use crate::broker::{BrokerError, Change};
use crate::code::Code;
use crate::config::Guarantee;
use crate::event::message::{Event, TopicPartition};

impl<C: Code> Worker<C> {
    /// Acts on a change of this member's partitions.
    ///
    /// # Errors
    ///
    /// Those of the consumer; topics that have changed so that the worker must stop.
    pub(super) fn change(&mut self, change: Change) -> Result<(), Stopped> {
        self.group.count(&change, self.shared.clock.now());
        match change {
            Change::Assigned(names) => {
                self.look_at_partitions(&names)?;
                names.iter().for_each(|name| self.restore.want(name));
                self.arrivals.come(names);
                self.take_over()
            }
            Change::Revoked(names) => {
                // This member owns the partitions until `let_go` acknowledges the change: a commit still counts.
                self.await_calls_of(&names)?;
                let committed = self.flush()?;
                if !committed {
                    warn!(
                        "partitions are revoked before all their events were committed: their next owner runs those again"
                    );
                }
                self.let_go(&names, committed)
            }
            // Another member may own these already, so nothing of them can be committed any more.
            Change::Lost(names) => self.let_go(&names, false),
        }
    }

    /// Gives partitions up to another member. Unless everything was `committed`, what is not may no longer be
    /// committed by this worker, and the partitions that stay here start over. The order matters: first the
    /// open transaction ends, then what waits is dropped, and only then the group may give the partitions to
    /// another member.
    fn let_go(&mut self, names: &[TopicPartition], committed: bool) -> Result<(), Stopped> {
        // With an unknown outcome nothing is decided yet: `settle` starts over when the answer is there.
        let is_clear = committed || self.delivery.abandon(self.shared.clock.as_ref());
        self.give_up(names)?;
        self.consumer.release(names)?;
        if !committed && is_clear && self.config.guarantee == Guarantee::ExactlyOnce {
            self.start_over()?;
        }
        Ok(())
    }

    /// Lets pending calls that hold events of these partitions end, for at most `revoke_wait_max`. Their side
    /// effects outside of Kafka have happened already, so letting them end saves the next owner from doing
    /// them again.
    fn await_calls_of(&mut self, names: &[TopicPartition]) -> Result<(), Stopped> {
        let asked =
            |event: &Event| names.iter().any(|name| name.partition == event.partition && name.topic == event.topic);
        let deadline = self.shared.clock.now() + self.config.bounds.revoke_wait_max;
        while self.dataflow.readers.iter().any(|reader| reader.stage.borrow().awaits_for(&asked))
            && self.shared.clock.now() < deadline
        {
            self.shared.code.borrow_mut().turn(Duration::from_millis(10), None);
            if self.units_of_epoch() == 0 {
                // A call that has ended may go on when the last transaction is committed.
                self.delivery.wait();
            }
            self.run_epoch(false);
            self.deliver(self.urgency())?;
        }
        Ok(())
    }

    /// Starts assigned partitions whose tables are restored. A broker that does not answer is asked again at
    /// the next turn.
    ///
    /// # Errors
    ///
    /// Those that do not pass: an offset past the end, more readers than a topic may have, a consumer that
    /// failed.
    pub(super) fn take_over(&mut self) -> Result<(), Stopped> {
        // A commit with an unknown outcome may hold writes to tables of a partition that comes back: restored
        // before the outcome is known, a table would lack them.
        let now = self.shared.clock.now();
        let names = if self.delivery.is_outcome_unknown() { Vec::new() } else { self.take_ready(now) };
        if names.is_empty() {
            return self.start_partitions();
        }
        match self.start_on(&names) {
            Err(BrokerError::Retriable(why)) => self.wait_to_start(names, &why, now),
            left => {
                self.arrivals.started();
                let left = left?;
                if !left.is_empty() {
                    info!(topic = %left[0].topic, partition = left[0].partition, partitions = left.len(), "partitions wait for a leader, this one first");
                    self.arrivals.wait_for_leaders(left, now + self.config.bounds.unblock_after);
                }
            }
        }
        // The assignment knows the partitions now: a start that fails is retried without asking for offsets
        // again.
        self.start_partitions()
    }

    /// Puts back partitions whose committed offsets are not known yet. If that lasts, the cause may be an
    /// open transaction of a member that is gone, so it is aborted. Kafka does not answer for the offsets of
    /// a partition while a transaction over them is open (KIP-447).
    fn wait_to_start(&mut self, names: Vec<TopicPartition>, why: &str, now: Duration) {
        debug!(error = %why, "partitions wait to be started");
        if self.arrivals.have_waited(now, self.config.bounds.unblock_after) {
            info!(error = %why, "partitions wait to be started");
            // Asked once more: the answer may have come in the meantime, and unblocking disturbs other
            // members.
            if self.consumer.committed(&names).is_err() {
                info!("aborting open transactions of members that are gone");
                self.consumer.unblock(&names);
            }
        }
        self.arrivals.put_back(names);
    }

    /// Takes out the assigned partitions whose tables are restored. Some of them may wait a moment for the
    /// others: see [`Arrivals`](super::arrivals::Arrivals).
    fn take_ready(&mut self, now: Duration) -> Vec<TopicPartition> {
        let restore = &self.restore;
        self.arrivals.take_ready(now, self.config.bounds.start_wait_max, |name| restore.is_ready(name))
    }

    /// Takes partitions over. Returns those that no broker leads at the moment. The counts of partitions are
    /// asked for first, since they go into the metadata of the first commit.
    fn start_on(&mut self, names: &[TopicPartition]) -> Result<Vec<TopicPartition>, BrokerError> {
        let mut counts = BTreeMap::new();
        for name in names {
            if !counts.contains_key(&name.topic) {
                let count = self.shared.directory.partitions(&name.topic)?;
                counts.insert(name.topic.clone(), count.unwrap_or(0));
            }
        }
        let takeover = {
            let mut slots = self.shared.slots.borrow_mut();
            self.assignment.add(names, &counts, &mut slots, self.consumer.as_mut())?
        };
        self.warn_of_restarts(&takeover);
        Ok(takeover.leaderless)
    }

    /// Starts the consumer on partitions that stand still. A broker that does not answer is asked again at
    /// the next turn. Also lets partitions go on that waited for their slowest reader, or went back after an
    /// abort.
    pub(super) fn start_partitions(&mut self) -> Result<(), Stopped> {
        match self.assignment.start(self.consumer.as_mut()) {
            Err(BrokerError::Retriable(why)) => {
                info!(error = %why, "partitions wait to be started");
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Drops queues, windows and awaits of partitions that this worker no longer owns. Dropped events are
    /// read again by the next owner, from the committed positions. Called for a rebuild of tables too, where
    /// the next owner is this worker.
    pub(super) fn give_up(&mut self, names: &[TopicPartition]) -> Result<(), Stopped> {
        let numbers: Vec<usize> = {
            let mut slots = self.shared.slots.borrow_mut();
            names.iter().map(|name| slots.number(&name.topic, name.partition)).collect()
        };
        let gone = |number: usize| numbers.contains(&number);
        for reader in &self.dataflow.readers {
            if let Some(window) = &reader.window {
                window.borrow_mut().drop_partitions(&gone);
            }
            reader.stage.borrow_mut().drop_partitions(&gone);
        }
        let mut queued = self.shared.queued.borrow_mut();
        for &number in &numbers {
            if let Some(bytes) = queued.get_mut(number) {
                *bytes = 0;
            }
        }
        self.assignment.remove(&numbers);
        // What these partitions had to commit is another member's now.
        self.commits_wait = None;
        // A commit under way keeps its records and loses these offsets: in a transaction the two stand or
        // fall together, so the caller has flushed or abandoned it before, or its outcome is unknown.
        self.delivery.give_up(names);
        self.arrivals.drop(names);
        let left = self.assignment.names().chain(self.arrivals.names());
        Ok(self.restore.release(names, left, &mut self.shared.tables.borrow_mut())?)
    }
}
