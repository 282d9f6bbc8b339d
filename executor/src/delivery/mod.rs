//! From staged effects to the broker: complete epochs are committed, all of their effects or none.
//!
//! A commit takes whole epochs, oldest first. Exactly-once: their records, changelogs, offsets and
//! positions are one transaction. At-least-once: records leave as soon as their epoch is complete,
//! and changelogs and offsets follow. The next epochs run while records are in flight.
//!
//! A transaction that cannot be committed is *aborted*: everything staged goes with it, and the worker starts
//! over from the committed positions. If the outcome of a commit is *unknown*, a new producer first fences
//! the old one's late requests; then the stable committed offsets show whether it took place.

mod generation;
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
use crate::tables::store::ChangelogPosition;
use crate::tables::{Tables, changelog};
use generation::Generation;
use room::Room;

/// The most takeovers in a row by other producers with this worker's `transactional.id` before it gives way.
const FENCED_MAX: u32 = 2;

/// Tries of a start to reach its producer's coordinator, each as long as the client waits.
const INIT_TRIES: u32 = 3;

/// The urgency of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// It begins when it is due: an interval after the last, or as soon as enough is staged.
    WhenDue,
    /// It begins now, if no other is under way: what is complete must not wait.
    Now,
    /// It begins as soon as enough is staged, however long after the last: code that waited for that runs first.
    WhenFull,
}

/// The outcome of a turn of the delivery.
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

/// A record that the broker does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The kind of the failure.
    pub kind: &'static str,
    /// The broker's reason.
    pub why: String,
    /// True if the broker will never take it, however often it is sent.
    pub is_certain: bool,
}

/// The kind of failure of an event whose record the broker rejected several times, for a reason that is not
/// known to concern records.
const REJECTED_KIND: &str = "Topic";

/// The next step to learn the outcome of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// A new producer must take over first.
    Replace,
    /// The committed offsets must be asked.
    Ask,
}

/// The sending end of a worker.
pub struct Delivery {
    producer: Box<dyn Producer>,
    guarantee: Guarantee,
    interval: Duration,
    bounds: Bounds,
    /// Topics of the tables' changelogs, by table; empty if none are kept.
    changelogs: Vec<TopicName>,
    room: Room,
    last_commit: Duration,
    /// The next commit. At-least-once, its records are sent already, before its offsets are known.
    open: Generation,
    /// The commit under way, and the time at which it began.
    closing: Option<(Generation, Duration)>,
    doubt: Option<Doubt>,
    /// True if partitions were given up while an outcome was unknown: everything staged after that
    /// transaction must go, whatever its outcome.
    abandoned: bool,
    /// True if requests of the producer may still arrive late: a new producer takes its place before the next
    /// transaction.
    stale: bool,
    /// The number of times that another producer took over since the last commit.
    fenced: u32,
    failpoint: Failpoint,
    failures: Vec<FailureRecord>,
}

/// The parts of a worker that a delivery needs at a turn.
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
    /// Starts a delivery with nothing on its way.
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
            open: Generation::default(),
            closing: None,
            doubt: None,
            abandoned: false,
            stale: false,
            fenced: 0,
            failpoint: config.failpoint.clone(),
            failures: Vec::new(),
        })
    }

    /// Moves what is on its way; begins a commit when it is due.
    pub fn turn(&mut self, around: &mut Around<'_>, urgency: Urgency) -> Result<Delivered, BrokerError> {
        let turned = match self.doubt {
            Some(doubt) => self.settle(doubt, around),
            None => self.advance(around, urgency),
        };
        match turned {
            Err(error) if self.guarantee == Guarantee::ExactlyOnce => self.recover(error, around),
            turned => turned,
        }
    }

    fn advance(&mut self, around: &mut Around<'_>, urgency: Urgency) -> Result<Delivered, BrokerError> {
        self.producer.poll(Duration::ZERO)?;
        if self.guarantee == Guarantee::AtLeastOnce {
            self.send_at_once(around)?;
        }
        if self.closing.is_none() && (urgency == Urgency::Now || self.is_due(around, urgency)) {
            self.begin(around)?;
        }
        self.finish(around)
    }

    /// Sends records in order, those of the commit under way first (at-least-once).
    fn send_at_once(&mut self, around: &mut Around<'_>) -> Result<(), BrokerError> {
        self.take_epochs(around);
        let now_ms = around.clock.wall_ms();
        let clear = match &mut self.closing {
            Some((closing, _)) => closing.send(self.producer.as_mut(), &self.changelogs, now_ms)?,
            None => true,
        };
        if clear {
            self.open.send(self.producer.as_mut(), &self.changelogs, now_ms)?;
        }
        Ok(())
    }

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
        while let Some(epoch) = staged.first_entry() {
            let bytes: usize = epoch.get().iter().map(Effects::size).sum();
            // An epoch that is larger than the room goes alone: otherwise it could never be committed.
            let fits = self.open.effects.is_empty() || self.open.bytes + bytes <= self.room.bytes();
            if self.guarantee == Guarantee::ExactlyOnce && !fits {
                return;
            }
            for effects in epoch.remove() {
                for progress in &effects.progress {
                    around.assignment.commit_takes(progress);
                }
                self.open.take(effects);
            }
        }
    }

    fn begin(&mut self, around: &mut Around<'_>) -> Result<(), BrokerError> {
        let is_exact = self.guarantee == Guarantee::ExactlyOnce;
        if is_exact && !around.consumer.group().is_member() {
            return Ok(());
        }
        if is_exact && self.stale {
            self.producer.init_transactions()?;
            self.stale = false;
        }
        self.take_epochs(around);
        if around.staged.borrow().is_empty() {
            around.assignment.pass_markers(around.consumer);
        }
        let offsets = around.assignment.offsets()?;
        if self.open.effects.is_empty() && offsets.is_empty() {
            // `last_commit` stays as it is, so the first event after a quiet time does not wait for an
            // interval.
            return Ok(());
        }
        let next = Generation::new(self.open.number + 1);
        let mut generation = std::mem::replace(&mut self.open, next);
        generation.offsets = offsets;
        if !self.changelogs.is_empty() {
            generation.gather_changes();
        }
        self.last_commit = around.clock.now();
        self.closing = Some((generation, self.last_commit));
        self.failpoint.pass("begin");
        if is_exact { self.producer.begin() } else { Ok(()) }
    }

    /// Commits once everything of the commit under way is acknowledged.
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
        if self.producer.in_flight(closing.number) > 0 {
            return Ok(Delivered::Nothing);
        }
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

    fn commit_transaction(&mut self, around: &mut Around<'_>) -> Result<bool, BrokerError> {
        let (closing, _) = self.closing.as_ref().expect("a commit is under way");
        let group = around.consumer.group();
        if !closing.offsets.is_empty() && !group.is_member() {
            // Without a member id, the broker would take the offsets unchecked, even if another member now
            // owns the partitions.
            return Ok(false);
        }
        let before = around.clock.now();
        let committed = self.end_transaction(&group);
        // The client may have repeated a slow call, whatever came of it, and the first copy may arrive when
        // the next transaction is open. A new producer fences that copy.
        self.stale |= around.clock.now() - before >= self.bounds.slow_call;
        committed.map(|()| true)
    }

    fn end_transaction(&mut self, group: &GroupMetadata) -> Result<(), BrokerError> {
        let (closing, _) = self.closing.as_ref().expect("a commit is under way");
        self.producer.send_offsets(&closing.offsets, group)?;
        self.failpoint.pass("offsets");
        self.producer.commit()?;
        // Durable from here: records, positions, and table writes as records of their changelogs.
        self.failpoint.pass("committed");
        Ok(())
    }

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

    /// Applies a commit that has taken place to positions, tables, counters and failure records.
    fn apply(&mut self, around: &mut Around<'_>) -> Delivered {
        let (closing, _) = self.closing.take().expect("a commit was under way");
        self.fenced = 0;
        around.assignment.committed(&closing.offsets);
        let (mut tables, mut counters) = (around.tables.borrow_mut(), around.counters.borrow_mut());
        let writes: Vec<&[_]> = closing.effects.iter().map(|effects| effects.writes.as_slice()).collect();
        tables.commit(&writes, &closing.positions);
        for mut effects in closing.effects {
            counters.count_committed(&effects);
            self.failures.append(&mut effects.failures);
        }
        counters.commits += 1;
        self.failpoint.pass("applied");
        Delivered::Committed
    }

    /// Decides what an error means for the transaction.
    fn recover(&mut self, error: BrokerError, around: &mut Around<'_>) -> Result<Delivered, BrokerError> {
        match error {
            BrokerError::Abort(why) => {
                self.room.timed_out();
                Ok(self.undo(why, None, around.clock))
            }
            BrokerError::Refused { kind, why } => {
                Ok(self.undo(why.clone(), Some(Refused { kind, why, is_certain: true }), around.clock))
            }
            BrokerError::Rejected(why) => {
                let refused = Refused { kind: REJECTED_KIND, why: why.clone(), is_certain: false };
                Ok(self.undo(why, Some(refused), around.clock))
            }
            BrokerError::Indefinite(why) => {
                info!(error = %why, "the outcome of the transaction is unknown");
                self.doubt = Some(Doubt::Replace);
                Ok(Delivered::Nothing)
            }
            BrokerError::Fenced(why) => {
                // Once is no proof of another worker: the broker also fences a producer whose transaction timed
                // out, and every other fatal error of the client ends here too.
                self.fenced += 1;
                if self.fenced > FENCED_MAX {
                    return Err(BrokerError::Fatal(format!("another worker runs under this one's name: {why}")));
                }
                warn!(error = %why, "the producer must be replaced");
                self.doubt = Some(Doubt::Replace);
                Ok(Delivered::Nothing)
            }
            BrokerError::Retriable(why) => {
                debug!(error = %why, "the commit waits");
                Ok(Delivered::Nothing)
            }
            fatal @ (BrokerError::Fatal(_) | BrokerError::Group(_)) => Err(fatal),
        }
    }

    /// Learns the outcome of a transaction for which it is unknown.
    fn settle(&mut self, doubt: Doubt, around: &mut Around<'_>) -> Result<Delivered, BrokerError> {
        if doubt == Doubt::Replace {
            self.producer.init_transactions()?;
            (self.stale, self.doubt) = (false, Some(Doubt::Ask));
        }
        let Some((closing, _)) = &self.closing else {
            self.doubt = None;
            return Ok(Delivered::Nothing);
        };
        // One offset is enough to ask for: a transaction commits all of its offsets or none.
        let Some(sent) = closing.offsets.first() else {
            self.doubt = None;
            return Ok(self.forget("none of its partitions is left".to_owned(), None));
        };
        let found = around.consumer.committed(std::slice::from_ref(&sent.partition))?;
        self.doubt = None;
        // A window may keep the offset where it is while the metadata changes: so both are compared.
        if found.first().and_then(Option::as_ref) == Some(&sent.committed) {
            info!("the transaction was committed");
            let abandoned = std::mem::take(&mut self.abandoned);
            let committed = self.apply(around);
            return Ok(if abandoned { self.forget("partitions were given up".to_owned(), None) } else { committed });
        }
        Ok(self.forget("it was not committed".to_owned(), None))
    }

    /// Aborts the transaction under way and forgets everything staged in it or after it.
    fn undo(&mut self, why: String, refused: Option<Refused>, clock: &dyn Clock) -> Delivered {
        if self.closing.is_some() {
            let before = clock.now();
            if let Err(error) = self.producer.abort() {
                debug!(%error, "the transaction could not be aborted");
                self.stale = true;
            }
            self.stale |= clock.now() - before >= self.bounds.slow_call || self.producer.is_outdated();
        }
        self.forget(why, refused)
    }

    fn forget(&mut self, why: String, refused: Option<Refused>) -> Delivered {
        let undone = self.closing.take().map(|(closing, _)| closing.effects).unwrap_or_default();
        let progress = undone.iter().flat_map(|effects| &effects.progress).copied();
        let progress = progress.filter(|_| !self.producer.is_outdated()).collect();
        self.abandoned = false;
        self.open = Generation::new(self.open.number + 1);
        // Changelog positions of aborted records belong to no commit.
        drop(self.producer.written());
        Delivered::Undone { why, progress, refused }
    }

    /// Gives up everything not committed, because partitions change hands (exactly-once). If the outcome of a
    /// transaction is unknown, returns false: the worker starts over later, when the outcome shows from
    /// where.
    pub fn abandon(&mut self, clock: &dyn Clock) -> bool {
        if self.guarantee == Guarantee::AtLeastOnce {
            return true;
        }
        if self.is_in_doubt() {
            self.abandoned = true;
            return false;
        }
        self.undo(String::new(), None, clock);
        true
    }

    /// True if the outcome of the last transaction is unknown.
    pub fn is_in_doubt(&self) -> bool {
        self.doubt.is_some()
    }

    /// Waits a millisecond for acknowledgements.
    pub fn wait(&mut self) {
        self.producer.wait(Duration::from_millis(1));
    }

    /// Gives up the offsets of partitions that this worker no longer owns.
    pub fn give_up(&mut self, names: &[TopicPartition]) {
        if let Some((closing, _)) = &mut self.closing {
            closing.offsets.retain(|offset| !names.contains(&offset.partition));
        }
    }

    /// True if as much as may wait for acknowledgement waits already: no more events should come.
    pub fn is_full(&self, staged_epochs: &StagedEpochs) -> bool {
        let closing = self.closing.as_ref().map_or((0, 0), |(closing, _)| (closing.bytes, closing.records));
        let (bytes, records) = staged(staged_epochs);
        self.open.bytes + closing.0 + bytes >= 2 * self.bounds.staged_bytes_max
            || self.open.records + closing.1 + records >= 2 * self.bounds.staged_records_max
    }

    /// Bytes of effects that one epoch may add, so that it fits into a transaction.
    pub fn epoch_bytes_max(&self) -> usize {
        match self.guarantee {
            Guarantee::ExactlyOnce => self.room.bytes(),
            Guarantee::AtLeastOnce => self.bounds.staged_bytes_max,
        }
    }

    /// True if nothing is on its way.
    pub fn is_idle(&self) -> bool {
        self.closing.is_none() && self.open.effects.is_empty() && self.doubt.is_none()
    }

    /// The time at which the last commit began.
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

    /// Takes the failures whose records were committed since the last call.
    pub fn take_failures(&mut self) -> Vec<FailureRecord> {
        std::mem::take(&mut self.failures)
    }
}

/// Takes the positions of the changelogs that have taken records since the last call.
fn changelog_positions(producer: &mut dyn Producer, changelogs: &[TopicName]) -> Vec<ChangelogPosition> {
    let position = |(at, offset): (TopicPartition, i64)| {
        let table = changelogs.iter().position(|topic| *topic == at.topic)?;
        let table = TableId(u32::try_from(table).expect("a plan counts tables in u32"));
        Some(ChangelogPosition { table, partition: at.partition, offset })
    };
    producer.written().into_iter().filter_map(position).collect()
}

/// Makes the producer ready for transactions. The coordinator may first have to end the transaction of an
/// earlier producer.
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
