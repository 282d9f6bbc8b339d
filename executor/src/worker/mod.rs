//! A worker: one thread that owns a dataflow, a consumer, a producer and the tables of its
//! partitions, and turns in *epochs*: poll, give, step until the frontier has passed, commit.
//!
//! One turn, in its order:
//!
//! ```text
//! look at topics ─▶ sleep and poll ─▶ give ─▶ restore tables ─▶ partitions come or go ─▶ run the epoch
//!   counts.rs         poll.rs                  restoring.rs      rebalance.rs            epoch.rs
//!
//! ─▶ mend the store ─▶ pause and resume ─▶ halted? ─▶ commit or abort ─▶ report stalls, publish
//!     restoring.rs      poll.rs                       commit.rs           standing.rs
//! ```
//!
//! The worker's own state lies in parts that know nothing of each other: `Sleep` and `Intake` (poll),
//! `Arrivals` (partitions before their start), `Pace` with `Redo` (how much user code runs between two
//! commits), `Restarts` (warnings given). The rest belongs to other rooms, and the worker calls them in
//! order.
//!
//! *Architecture invariant:* an epoch has ended, and the frontier has passed it, before anything of it is
//! committed or given up.
//!
//! Answers to common questions: an event is refused as already taken in [`Assignment::take`], dropped after a
//! failure in `stage/failing.rs`, and dropped for a rebalance in `rebalance.rs`; its effects are committed in
//! [`crate::delivery`]; its dead letter is staged in `stage/failing.rs` like any record.

mod arrivals;
mod commit;
mod counts;
mod epoch;
mod group;
mod pace;
mod poll;
mod rebalance;
mod redo;
mod restarts;
mod restoring;
mod standing;
mod start;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use crate::assignment::{Assignment, ReaderPosition};
use crate::broker::{BrokerError, Committed, Consumer};
use crate::check::counts::Counts;
use crate::code::Code;
use crate::config::{Config, Guarantee};
use crate::dataflow::Dataflow;
use crate::delivery::Delivery;
use crate::event::failure::FailureRecord;
use crate::event::message::TopicPartition;
use crate::event::shown::{self, SHOWN_BYTES_MAX, Shown};
use crate::guard::Guard;
use crate::stage::shared::Shared;
use crate::status::board::Board;
use crate::status::counters::SharedCounters;
use crate::status::stall::Stalls;
use crate::tables::restore::Restore;
use crate::tables::store::StoreError;
use arrivals::Arrivals;
use group::Group;
use pace::Pace;
use poll::{Intake, Sleep};
use restarts::Restarts;
pub use start::Parts;

/// The reason for which a worker stopped. The caller ends the process with it: what is committed stays, and
/// everything else runs again at the next start or at another member.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// The broker, or the client that talks to it, failed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Tables cannot be read, or cannot be written and no changelog could restore them.
    #[error("tables cannot be used: {0}")]
    Store(#[from] StoreError),
    /// Topics no longer have as many partitions as the tables that depend on them: a start would be refused.
    #[error("{0}")]
    Topics(String),
    /// An event failed in a place whose policy is `halt`. Everything complete before it is committed.
    #[error(
        "halted: agent \"{}\": operation \"{}\" failed on {}/{}@{}: {}: {}\n  --> {}",
        .0.agent, .0.operation, .0.topic, .0.partition, .0.offset, shown::name(&.0.kind),
        Shown(&.0.message, SHOWN_BYTES_MAX), .0.at
    )]
    Halted(Box<FailureRecord>),
}

/// The outcome of one turn. The caller, a way to run, decides by it whether to report, to look at the ends,
/// or to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Events that came from the broker.
    pub polled: usize,
    /// True if something was committed.
    pub committed: bool,
}

/// One worker. Made by [`crate::run::assemble`], ended by [`Worker::close`].
pub struct Worker<C: Code> {
    config: Config,
    /// Services and bookkeeping that stages hold too.
    shared: Rc<Shared<C>>,
    consumer: Box<dyn Consumer>,
    sleep: Sleep,
    /// Polled events on their way to readers.
    intake: Intake,
    /// The rendered plan: stages, windows, and the staged effects.
    dataflow: Dataflow<C>,
    assignment: Assignment,
    /// Assigned partitions that have not started.
    arrivals: Arrivals,
    pace: Pace,
    /// The way of staged effects to the broker.
    delivery: Delivery,
    /// The way of tables back from their changelogs.
    restore: Restore,
    /// Warnings on offsets and tables that do not belong together.
    restarts: Restarts,
    /// Topics that tables depend on.
    counts: Counts,
    /// The mark of the event that runs, for the next process.
    guard: Guard,
    /// The partitions that make no progress, as of the last look.
    stalls: Stalls,
    /// The place of snapshots, where a port is served.
    board: Option<Arc<Board>>,
    /// Moves of the group's partitions.
    group: Group,
    /// The time since which something complete waits for its commit.
    commits_wait: Option<Duration>,
}

impl<C: Code> Worker<C> {
    /// Runs one epoch. Waits for events at most `wait`, and less if something is due earlier. User code runs
    /// for the epoch's budget at most, plus the rest of the call that is running when it is over.
    ///
    /// # Errors
    ///
    /// The worker is over: drop it, or [`Worker::close`] it after [`Stopped::Halted`].
    pub fn turn(&mut self, wait: Duration) -> Result<Turn, Stopped> {
        // First, because a stop for changed topics must come before their events are given to a reader.
        self.look_at_topics()?;
        let (change, polled) = self.take_events(wait)?;
        self.sleep.is_eager = change.is_some() || polled > 0 && !self.consumer.rings_for_rest();
        if change.is_some() && polled > 0 {
            // The events just given enter their stages, but no call begins: revoked partitions take along
            // what waits in a stage, so nothing may still be on its way to one.
            self.run_epoch(false);
        }
        // Before partitions start: one whose last table became whole just now starts in this turn.
        self.restore_tables()?;
        match change {
            Some(change) => self.change(change)?,
            None => self.take_over()?,
        }
        if polled > 0 || self.wants_epoch() {
            self.run_epoch(true);
        }
        // Before failures count: a damaged store may be the only cause of one.
        self.mend_unread()?;
        self.ease_pressure()?;
        // Everything complete before the event that halts is committed; the event itself is not.
        if let Some(failure) = self.dataflow.halted() {
            self.flush()?;
            self.dataflow.count_halted();
            return Err(Stopped::Halted(Box::new(failure)));
        }
        if self.config.guarantee == Guarantee::AtLeastOnce {
            let follows = self.wait_until_due(Duration::MAX).is_zero();
            self.delivery.gather(follows);
        }
        let committed = self.deliver(self.urgency())? | self.end_transaction()?;
        self.sleep.is_eager |= committed;
        if self.sleep.is_eager || polled > 0 {
            self.sleep.active = self.shared.clock.now();
        }
        // After the commit: its writes are in the changelogs then, and the store that did not take them may
        // go.
        self.mend_tables()?;
        self.report_stalls();
        self.shared.flood.borrow_mut().tell(self.shared.clock.now());
        self.publish();
        Ok(Turn { polled, committed })
    }

    /// The offsets that the group has committed in these partitions. Asks the broker; `None` for a partition
    /// without a commit.
    pub fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, Stopped> {
        Ok(self.consumer.committed(partitions)?)
    }

    /// Lets open windows hand over what they hold, in an epoch of its own, because the input has ended.
    /// Batches that are not full come early then, as if their time were over.
    pub fn hand_over_windows(&mut self) -> Result<(), Stopped> {
        self.dataflow.hand_over.set(true);
        let turned = self.turn(Duration::ZERO);
        self.dataflow.hand_over.set(false);
        turned.map(drop)
    }

    /// True if everything up to the ends of the partitions is complete and committed, except for open
    /// windows.
    ///
    /// # Errors
    ///
    /// The errors of the questions to the consumer.
    pub fn is_drained(&mut self) -> Result<bool, Stopped> {
        let quiet = self.is_settled() && self.dataflow.staged.borrow().is_empty() && self.delivery.is_idle();
        Ok(quiet && self.assignment.is_polled(self.consumer.as_mut())?)
    }

    /// True if nothing waits in any stage. Windows are not stages: see [`Worker::has_open_windows`].
    pub fn is_settled(&self) -> bool {
        self.dataflow.readers.iter().all(|reader| reader.stage.borrow().is_empty())
    }

    /// True if a window holds events.
    pub fn has_open_windows(&self) -> bool {
        self.dataflow.readers.iter().any(|reader| reader.window.as_ref().is_some_and(|w| !w.borrow().is_empty()))
    }

    /// Commits what is complete, drops events that wait (they are read again later) and leaves the group.
    /// Does not wait for calls that run: [`Worker::drain`] does, before it.
    ///
    /// # Errors
    ///
    /// The last commit or the leave failed. What was committed stays.
    pub fn close(mut self) -> Result<SharedCounters, Stopped> {
        // The next owner begins at the committed positions: an open transaction would hold it up until its
        // timeout.
        if !self.flush()? {
            self.delivery.abandon(self.shared.clock.as_ref());
        }
        let names: Vec<_> = self.assignment.names().cloned().collect();
        self.give_up(&names)?;
        self.consumer.close()?;
        self.shared.flood.borrow_mut().tell_all();
        info!("left the group");
        Ok(self.shared.counters.clone())
    }

    /// True if an await is pending in any reader. Its event's positions stay open until it ends.
    pub fn awaits(&self) -> bool {
        self.dataflow.readers.iter().any(|reader| reader.stage.borrow().awaits())
    }

    /// Bytes of the events that wait in the fullest partition, over all readers. For tests that look at the
    /// bound.
    pub fn queued_most(&self) -> usize {
        self.shared.queued.borrow().iter().copied().max().unwrap_or(0)
    }

    /// True while a commit is under way and its outcome is not known yet.
    pub fn is_committing(&self) -> bool {
        self.delivery.is_sending()
    }

    /// Takes the failures whose records were committed since the last call.
    pub fn take_failures(&mut self) -> Vec<FailureRecord> {
        self.delivery.take_failures()
    }

    /// The position of each reader in each of its partitions.
    pub fn positions(&self) -> Vec<ReaderPosition> {
        self.assignment.positions()
    }

    /// The position of the slowest reader of each partition. All offsets before it are complete in every
    /// reader, though perhaps not committed.
    pub fn complete(&self) -> BTreeMap<TopicPartition, i64> {
        let mut complete = BTreeMap::new();
        for at in self.positions() {
            let least = complete.entry(at.partition).or_insert(at.done);
            *least = at.done.min(*least);
        }
        complete
    }
}
