//! From staged effects to the broker: complete epochs are committed, all of their effects or none.
//!
//! A commit takes whole epochs, oldest first. Exactly-once: their records, changelogs, offsets and
//! positions are one transaction. At-least-once: records leave when their epoch is complete, or
//! milliseconds later while the worker is busy, and changelogs and offsets follow. The next epochs run while records are in flight.
//!
//! A transaction that cannot be committed is *aborted*: everything staged goes with it, and the worker starts
//! over from the committed positions. If the outcome of a commit is *unknown*, a new producer first fences
//! the old one's late requests; then the stable committed offsets show whether it took place.
//!
//! The life of one commit, over as many turns as the broker needs. No step blocks the worker except the last
//! calls into the client:
//!
//! ```text
//! take_epochs ─▶ begin ─▶ send … send ─▶ in flight 0 ─▶ end_transaction ─▶ apply
//!                  │                                         │
//!                  └── any error ─▶ recover ─▶ undo: abort, start over
//!                                      └─────▶ settle: was it committed? ─▶ apply or forget
//! ```
//!
//! | step | a crash right after it |
//! |---|---|
//! | records sent | the coordinator aborts the transaction; a successor runs the events again |
//! | offsets sent | the same: offsets in an open transaction do not count |
//! | transaction committed | everything counts; the store on the disk catches up from the changelog |
//! | applied | nothing is left to do |
//!
//! Each step has a failpoint of its name, at which the delivery tests end the process. The worker calls
//! [`Delivery::turn`] at the end of each of its turns; `docs/delivery.md` describes the same from the user's
//! side.

mod generation;
mod outcome;
mod room;

use std::cell::RefCell;
use std::time::Duration;

use kaspr_ir::plan::{Plan, TableId};
use tracing::{debug, info, warn};

use crate::assignment::Assignment;
use crate::broker::{BrokerError, Consumer, GroupMetadata, Producer};
use crate::clock::Clock;
use crate::config::failpoint::Failpoint;
use crate::config::{Bounds, Config, Guarantee};
use crate::event::effects::{Effects, Progress, StagedEpochs};
use crate::event::failure::FailureRecord;
use crate::event::message::{TopicName, TopicPartition};
use crate::status::counters::Counters;
use crate::status::figures::DeliveryFigures;
use crate::tables::store::ChangelogPosition;
use crate::tables::{Tables, changelog};
use generation::Generation;
use outcome::Question;
use room::Room;

/// Tries of a start to reach its producer's coordinator, each as long as the client waits.
const INIT_TRIES: u32 = 3;

/// The urgency of a commit. The worker's pace decides it anew each turn (`Pace::urgency`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// It begins when it is due: an interval after the last, or as soon as enough is staged.
    WhenDue,
    /// It begins now, if no other is under way: what is complete must not wait.
    Now,
    /// It begins as soon as enough is staged, however long after the last: code that waited for that runs first.
    WhenFull,
}

/// The outcome of a turn of the delivery. The worker acts on it at once: `Undone` sends it back to the
/// committed positions before the next event runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// Nothing that the worker must act on.
    Nothing,
    /// A commit is done.
    Committed,
    /// The transaction was aborted and everything staged is dropped: the worker starts over from the
    /// committed positions.
    Undone {
        /// The reason.
        why: String,
        /// The progress that the transaction would have committed. Empty if the next try differs anyway,
        /// because a producer takes over that makes smaller batches.
        progress: Vec<Progress>,
        /// The record that the broker refuses: one of the aborted events must fail.
        refused: Option<Refused>,
    },
}

/// A record that the broker does not take. An abort alone never fails an event; this does, once the event
/// stands alone in its transaction: see `Redo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The kind of the failure.
    pub kind: &'static str,
    /// The broker's reason.
    pub why: String,
    /// True if the broker will never take it, however often it is sent.
    pub is_certain: bool,
}

/// The sending end of a worker. Made at the start of a worker and dropped with it. It owns the producer;
/// everything else that a commit touches comes with each turn as [`Around`]. With `question` set, `closing`
/// is the generation in question, and nothing begins before the answer.
pub struct Delivery {
    producer: Box<dyn Producer>,
    guarantee: Guarantee,
    /// The time from the beginning of one commit to that of the next (`--commit-interval`).
    interval: Duration,
    bounds: Bounds,
    /// Topics of the tables' changelogs, by table; empty if none are kept.
    changelogs: Vec<TopicName>,
    /// The bytes that the next transaction may hold.
    room: Room,
    /// The time at which the last commit began, by the worker's clock.
    last_commit: Duration,
    /// True if records may wait for those of the next turn (at-least-once).
    gathers: bool,
    /// The time at which records were last handed over (at-least-once).
    handed_over: Duration,
    /// The next commit. At-least-once, its records are sent before its offsets are known.
    open: Generation,
    /// The commit under way, and the time at which it began.
    closing: Option<(Generation, Duration)>,
    question: Option<Question>,
    /// True if partitions were given up while an outcome was unknown: everything staged after that
    /// transaction must go, whatever its outcome.
    abandoned: bool,
    /// True if requests of the producer may still arrive late: a new producer takes its place before the next
    /// transaction.
    stale: bool,
    /// The number of times that another producer took over since the last commit.
    fenced: u32,
    failpoint: Failpoint,
    /// Failures whose commit is applied, until the worker fetches them for `--failures`.
    failures: Vec<FailureRecord>,
    figures: DeliveryFigures,
}

/// The parts of a worker that a delivery needs at a turn. They are borrowed anew each turn, because other
/// parts of the worker use them in between.
pub struct Around<'a> {
    /// Effects of complete epochs.
    pub staged: &'a StagedEpochs,
    /// Positions.
    pub assignment: &'a mut Assignment,
    /// The consumer, for the member whose offsets are committed.
    pub consumer: &'a mut dyn Consumer,
    /// Tables that take the writes of a commit.
    pub tables: &'a RefCell<Tables>,
    /// The table of counters.
    pub counters: &'a RefCell<Counters>,
    /// Tells the time.
    pub clock: &'a dyn Clock,
}

impl Delivery {
    /// Starts a delivery with nothing on its way. Exactly-once, this fences every earlier producer of the
    /// same `transactional.id` and ends its open transaction, which may take as long as the coordinator
    /// needs.
    ///
    /// # Errors
    ///
    /// The error of the last of [`INIT_TRIES`] tries to reach the coordinator; any other error at once.
    pub fn start(mut producer: Box<dyn Producer>, plan: &Plan, config: &Config) -> Result<Delivery, BrokerError> {
        if config.guarantee == Guarantee::ExactlyOnce {
            init(producer.as_mut())?;
        }
        let names = plan.tables.iter().map(|table| changelog(&config.app, &table.name).as_str().into());
        Ok(Delivery {
            producer,
            guarantee: config.guarantee,
            interval: config.commit_interval,
            changelogs: if config.keeps_changelogs { names.collect() } else { Vec::new() },
            room: Room::new(config.bounds.staged_bytes_max, config.bounds.transaction_timeout),
            bounds: config.bounds.clone(),
            last_commit: Duration::ZERO,
            gathers: false,
            handed_over: Duration::ZERO,
            open: Generation::default(),
            closing: None,
            question: None,
            abandoned: false,
            stale: false,
            fenced: 0,
            failpoint: config.failpoint.clone(),
            failures: Vec::new(),
            figures: DeliveryFigures::default(),
        })
    }

    /// Moves what is on its way; begins a commit when it is due. Does not wait for acknowledgements: what is
    /// not there yet is found at a later turn.
    ///
    /// # Errors
    ///
    /// Exactly-once, only errors that end the worker; all others become [`Delivered::Undone`], a question for
    /// the outcome, or a later try. At-least-once, every error ends the worker: the records since the last
    /// commit are sent again after its restart.
    pub fn turn(&mut self, around: &mut Around<'_>, urgency: Urgency) -> Result<Delivered, BrokerError> {
        let turned = match self.question {
            Some(question) => self.settle(question, around),
            None => self.advance(around, urgency),
        };
        match turned {
            Err(error) if self.guarantee == Guarantee::ExactlyOnce => self.recover(error, around),
            turned => turned,
        }
    }

    /// Says whether the worker's next turn follows at once: then records may be gathered.
    pub fn gather(&mut self, gathers: bool) {
        self.gathers = gathers;
    }

    /// Takes the steps that are possible now, in their order: acknowledgements, records, a new commit, its
    /// end.
    fn advance(&mut self, around: &mut Around<'_>, urgency: Urgency) -> Result<Delivered, BrokerError> {
        self.producer.poll(Duration::ZERO)?;
        let mut is_sent = true;
        if self.guarantee == Guarantee::AtLeastOnce {
            is_sent = self.send_at_once(around)?;
        }
        if self.closing.is_none() && (urgency == Urgency::Now || self.is_due(around, urgency)) {
            self.begin(around)?;
        }
        let finished = self.finish(around)?;
        // Other acknowledgements can wait for the next turn: each that wakes the worker costs one.
        self.producer.listens(self.closing.is_some() || !is_sent);
        Ok(finished)
    }

    /// Sends records in order, those of the commit under way first (at-least-once). A busy worker gathers those of the
    /// next commit for a moment: under load each request to the broker costs as much as many records.
    ///
    /// False if the producer's queue is full.
    fn send_at_once(&mut self, around: &mut Around<'_>) -> Result<bool, BrokerError> {
        self.take_epochs(around);
        let (now, now_ms) = (around.clock.now(), around.clock.wall_ms());
        let clear = match &mut self.closing {
            Some((closing, _)) => closing.send(self.producer.as_mut(), &self.changelogs, now_ms)?,
            None => true,
        };
        if clear && self.gathers && now < self.handed_over + self.bounds.gather_max {
            return Ok(true);
        }
        self.handed_over = now;
        Ok(clear && self.open.send(self.producer.as_mut(), &self.changelogs, now_ms)?)
    }

    /// True if an interval has passed since the last commit began, or enough is staged to fill a transaction.
    fn is_due(&self, around: &Around<'_>, urgency: Urgency) -> bool {
        if urgency != Urgency::WhenFull && around.clock.now() >= self.last_commit + self.interval {
            return true;
        }
        let (bytes, records) = staged(around.staged);
        self.open.bytes + bytes >= self.epoch_bytes_max()
            || self.open.records + records >= self.bounds.staged_records_max
    }

    /// Takes complete epochs, oldest first; for a transaction no more than it has room for.
    fn take_epochs(&mut self, around: &mut Around<'_>) {
        let mut staged = around.staged.borrow_mut();
        // Whole epochs only: an epoch's effects were computed from one another, so a commit may not cut it.
        while let Some(epoch) = staged.first_entry() {
            let bytes: usize = epoch.get().iter().map(Effects::size).sum();
            // An epoch that is larger than the room goes alone: otherwise it could never be committed.
            let fits = self.open.effects.is_empty() || self.open.bytes + bytes <= self.room.bytes();
            if self.guarantee == Guarantee::ExactlyOnce && !fits {
                return;
            }
            for effects in epoch.remove() {
                // From here on the ledger's mark `committing` has it: the offsets of this commit are read
                // from there.
                for progress in &effects.progress {
                    around.assignment.commit_takes(progress);
                }
                self.open.take(effects);
            }
        }
    }

    /// Begins a commit with everything that is complete, or does nothing if nothing has changed since the
    /// last.
    ///
    /// Exactly-once, only a member of the group begins: the broker could not check the offsets of anyone
    /// else. The offsets are fixed here. Events that complete while the records are in flight move `done`,
    /// and must not be committed without their effects.
    fn begin(&mut self, around: &mut Around<'_>) -> Result<(), BrokerError> {
        let is_exact = self.guarantee == Guarantee::ExactlyOnce;
        if is_exact && !around.consumer.group().is_member() {
            return Ok(());
        }
        // Between two transactions is the only moment at which the producer can be replaced without losing
        // one.
        if is_exact && self.stale {
            self.producer.init_transactions()?;
            self.stale = false;
            self.figures.recycled += 1;
        }
        self.take_epochs(around);
        // With nothing staged, `done` may jump over transaction markers. With something staged it may not:
        // the offset would claim records whose effects are in no commit yet.
        if around.staged.borrow().is_empty() {
            around.assignment.pass_markers(around.consumer);
        }
        let offsets = around.assignment.offsets()?;
        if self.open.effects.is_empty() && offsets.is_empty() {
            // `last_commit` stays as it is, so the first event after a quiet time does not wait for an
            // interval.
            return Ok(());
        }
        debug_assert!(self.closing.is_none(), "one commit is under way at a time");
        let next = Generation::new(self.open.number + 1);
        let mut generation = std::mem::replace(&mut self.open, next);
        generation.offsets = offsets;
        if !self.changelogs.is_empty() {
            generation.gather_changes();
        }
        self.last_commit = around.clock.now();
        // Set before `begin`: if that call fails, `recover` must find a transaction to abort.
        self.closing = Some((generation, self.last_commit));
        self.failpoint.pass("begin");
        if is_exact { self.producer.begin() } else { Ok(()) }
    }

    /// Commits once everything of the commit under way is acknowledged. Returns [`Delivered::Nothing`] until
    /// then.
    fn finish(&mut self, around: &mut Around<'_>) -> Result<Delivered, BrokerError> {
        let Some((closing, began)) = &mut self.closing else {
            return Ok(Delivered::Nothing);
        };
        if !closing.send(self.producer.as_mut(), &self.changelogs, around.clock.wall_ms())? {
            return Ok(Delivered::Nothing);
        }
        if !std::mem::replace(&mut closing.is_sent, true) {
            self.failpoint.pass("sent");
        }
        // The client would wait for these inside the commit, and the worker with it: so they are awaited
        // here.
        if self.producer.in_flight(closing.number) > 0 {
            return Ok(Delivered::Nothing);
        }
        // Durable from here, at-least-once: every output and every table write is acknowledged. The offsets
        // follow, and a crash in between repeats these events.
        self.failpoint.pass("delivered");
        // Asked now: if the outcome is unknown, another producer takes over, and it knows no positions.
        closing.positions.append(&mut changelog_positions(self.producer.as_mut(), &self.changelogs));
        if closing.records > 0 && self.guarantee == Guarantee::ExactlyOnce {
            self.room.delivered(closing.bytes, around.clock.now() - *began);
        }
        let committed = match self.guarantee {
            Guarantee::ExactlyOnce => self.commit_transaction(around)?,
            Guarantee::AtLeastOnce => self.commit_offsets(around)?,
        };
        Ok(if committed { self.apply(around) } else { Delivered::Nothing })
    }

    /// Commits the transaction with the offsets of the group's member. Returns false if this worker is no
    /// member at the moment: the transaction stays open until it is one again, or until its partitions are
    /// lost.
    fn commit_transaction(&mut self, around: &mut Around<'_>) -> Result<bool, BrokerError> {
        let (closing, _) = self.closing.as_ref().expect("a commit is under way");
        let group = around.consumer.group();
        if !closing.offsets.is_empty() && !group.is_member() {
            // Without a member id, the broker would take the offsets unchecked, even if another member now
            // owns the partitions.
            return Ok(false);
        }
        let (before, began) = (around.clock.now(), self.closing.as_ref().map_or(Duration::ZERO, |(_, began)| *began));
        let committed = self.end_transaction(&group);
        if committed.is_ok() {
            self.figures.sends.observe(before - began, 1);
            self.figures.commits.observe(around.clock.now() - before, 1);
        }
        // The client may have repeated a slow call, whatever came of it, and the first copy may arrive when
        // the next transaction is open. A new producer fences that copy.
        self.stale |= around.clock.now() - before >= self.bounds.slow_call;
        committed.map(|()| true)
    }

    /// Puts the offsets into the transaction and ends it. The only place at which effects of an event become
    /// durable, exactly-once.
    fn end_transaction(&mut self, group: &GroupMetadata) -> Result<(), BrokerError> {
        let (closing, _) = self.closing.as_ref().expect("a commit is under way");
        self.producer.send_offsets(&closing.offsets, group)?;
        self.failpoint.pass("offsets");
        self.producer.commit()?;
        // Durable from here: records, positions, and table writes as records of their changelogs.
        self.failpoint.pass("committed");
        Ok(())
    }

    /// Commits the offsets outside of a transaction (at-least-once). Returns true once the group has them, or
    /// once they are given up because the group has moved on.
    ///
    /// All records and changelog entries of the generation are acknowledged by now, and so durable: a crash
    /// before this call repeats them, and none after it is lost.
    fn commit_offsets(&mut self, around: &mut Around<'_>) -> Result<bool, BrokerError> {
        let (closing, _) = self.closing.as_mut().expect("a commit is under way");
        if closing.offsets.is_empty() {
            return Ok(true);
        }
        match around.consumer.commit(&closing.offsets) {
            Err(BrokerError::Retriable(why)) => {
                debug!(error = %why, "offsets are not committed yet");
                Ok(false)
            }
            Err(BrokerError::Abort(why)) => {
                warn!(error = %why, "offsets were not committed, so their events may come again");
                closing.offsets.clear();
                Ok(true)
            }
            committed => committed,
        }
    }

    /// Applies a commit that has taken place to positions, tables, counters and failure records. Everything
    /// here is memory, or a copy that a changelog could fill again. So a crash in the middle loses nothing: a
    /// successor reads the committed offsets and the changelogs.
    fn apply(&mut self, around: &mut Around<'_>) -> Delivered {
        let (closing, began) = self.closing.take().expect("a commit was under way");
        self.fenced = 0;
        if self.guarantee == Guarantee::ExactlyOnce {
            self.figures.outcomes.committed += 1;
            self.figures.transactions.observe(around.clock.now().saturating_sub(began), 1);
        }
        // A commit brings the ledgers and the store to the same point in one call, so no event runs between
        // the two.
        around.assignment.committed(&closing.offsets);
        let (mut tables, mut counters) = (around.tables.borrow_mut(), around.counters.borrow_mut());
        let writes: Vec<&[_]> = closing.effects.iter().map(Effects::writes).collect();
        tables.commit(&writes, &closing.positions);
        for mut effects in closing.effects {
            counters.count_committed(&effects);
            self.failures.append(&mut effects.failures);
        }
        counters.commits += 1;
        self.failpoint.pass("applied");
        Delivered::Committed
    }

    /// Waits a millisecond for acknowledgements. Short, because the caller loops and looks at the clock, the
    /// group and the outcome in between.
    pub fn wait(&mut self) {
        self.producer.wait(Duration::from_millis(1));
    }

    /// Gives up the offsets of partitions that this worker no longer owns. Their next owner commits its own.
    /// Sent after the partitions are gone, these could take that owner back.
    pub fn give_up(&mut self, names: &[TopicPartition]) {
        if let Some((closing, _)) = &mut self.closing {
            closing.offsets.retain(|offset| !names.contains(&offset.partition));
        }
    }

    /// True if as much as may wait for acknowledgement waits already: no more events should come. Twice the
    /// bounds: one generation in flight and one that gathers, as large as either may be.
    pub fn is_full(&self, staged_epochs: &StagedEpochs) -> bool {
        let closing = self.closing.as_ref().map_or((0, 0), |(closing, _)| (closing.bytes, closing.records));
        let (bytes, records) = staged(staged_epochs);
        self.open.bytes + closing.0 + bytes >= 2 * self.bounds.staged_bytes_max
            || self.open.records + closing.1 + records >= 2 * self.bounds.staged_records_max
    }

    /// Bytes of effects that one epoch may add, so that it fits into a transaction. A stage looks at it
    /// before each unit and leaves the rest to the next epoch.
    pub fn epoch_bytes_max(&self) -> usize {
        match self.guarantee {
            Guarantee::ExactlyOnce => self.room.bytes(),
            Guarantee::AtLeastOnce => self.bounds.staged_bytes_max,
        }
    }

    /// True if nothing is on its way.
    pub fn is_idle(&self) -> bool {
        self.closing.is_none() && self.open.effects.is_empty() && self.question.is_none()
    }

    /// The time at which the last commit began. Zero before the first.
    pub fn began(&self) -> Duration {
        self.last_commit
    }

    /// The time at which the next commit is due.
    pub fn next_commit(&self) -> Duration {
        self.last_commit + self.interval
    }

    /// True while a commit is under way.
    pub fn is_sending(&self) -> bool {
        self.closing.is_some()
    }

    /// Ends of transactions so far.
    pub fn figures(&self) -> &DeliveryFigures {
        &self.figures
    }

    /// Takes the failures whose records were committed since the last call.
    pub fn take_failures(&mut self) -> Vec<FailureRecord> {
        std::mem::take(&mut self.failures)
    }
}

/// Takes the positions of the changelogs that have taken records since the last call. A position is the
/// offset after the last record of this generation in that partition. Topics other than changelogs are not
/// tracked, and would be passed over.
fn changelog_positions(producer: &mut dyn Producer, changelogs: &[TopicName]) -> Vec<ChangelogPosition> {
    let position = |(at, offset): (TopicPartition, i64)| {
        let table = changelogs.iter().position(|topic| *topic == at.topic)?;
        let table = TableId(u32::try_from(table).expect("a plan counts tables in u32"));
        Some(ChangelogPosition { table, partition: at.partition, offset })
    };
    producer.written().into_iter().filter_map(position).collect()
}

/// Makes the producer ready for transactions. The coordinator may first have to end the transaction of an
/// earlier producer. The coordinator of a transactional id answers `CONCURRENT_TRANSACTIONS` until the old
/// transaction has ended, which the client reports as a passing error after its own timeout.
fn init(producer: &mut dyn Producer) -> Result<(), BrokerError> {
    for _ in 1..INIT_TRIES {
        match producer.init_transactions() {
            Err(BrokerError::Retriable(why)) => info!(error = %why, "the producer waits for its coordinator"),
            done => return done,
        }
    }
    producer.init_transactions()
}

/// Bytes and records that are staged.
fn staged(epochs: &StagedEpochs) -> (usize, usize) {
    let epochs = epochs.borrow();
    let all = epochs.values().flatten();
    all.fold((0, 0), |(bytes, records), effects| (bytes + effects.size(), records + effects.outgoing_count()))
}
