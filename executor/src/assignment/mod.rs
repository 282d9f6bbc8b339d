//! Assignment of a worker: its partitions, the readers of each, and how far each reader has come.
//!
//! Start, abort and takeover are one move: the consumer starts at the committed offset, and each reader
//! accepts only offsets at or past its own position, which is written in the offset's metadata.
//!
//! The life of a partition here: [`Assignment::add`] takes it over at the group's offset,
//! [`Assignment::start`] lets the consumer deliver, [`Assignment::take`] and [`Assignment::complete`] move
//! its ledgers, [`Assignment::go_back`] returns them after an abort, and [`Assignment::remove`] ends it. Only
//! the worker calls these, from its one thread.
//!
//! ```text
//! partition orders/3, two readers, committed offset 40 with metadata "audit is 3 ahead"
//!   reader orders  accepts 40, 41, 42, 43, …
//!   reader audit   accepts              43, …   it had done 40 to 42 before
//! ```
//!
//! *Architecture invariant:* an event reaches each of its readers once, however often the consumer reads it:
//! the mark `taken` refuses it after that.

mod commits;
pub mod ledger;
pub mod slots;
mod takeover;

use std::collections::BTreeMap;
use std::ops::Range;

use kaspr_ir::plan::{Plan, ReaderId, Topics};
use regex::Regex;
use tracing::info;

use crate::assignment::ledger::Ledger;
use crate::broker::position::NameHash;
use crate::broker::{BrokerError, Committed, Consumer, Watermarks};
use crate::config::{Config, From};
use crate::event::effects::Progress;
use crate::event::message::{Event, TopicPartition};
pub use takeover::Takeover;

/// The part of a reader that positions need. Made once from the plan: readers never change while a worker
/// runs.
struct Reader {
    /// The name of its first agent.
    name: String,
    /// The name as metadata has it.
    hash: NameHash,
    topics: Reads,
}

/// The topics that a reader reads. The executor's own reading of a plan's topics, for the group's
/// subscription, for tables and for checks alike.
pub enum Reads {
    /// Topics with these names.
    Names(Vec<String>),
    /// Topics whose whole name matches.
    Pattern(Regex),
}

impl Reads {
    /// The topics that a plan names, or their pattern.
    pub fn of(topics: &Topics) -> Reads {
        match topics {
            Topics::Names(names) => Reads::Names(names.clone()),
            Topics::Pattern(pattern) => Reads::Pattern(whole(pattern)),
        }
    }

    /// True if the reader reads this topic.
    pub fn reads(&self, topic: &str) -> bool {
        match self {
            Reads::Names(names) => names.iter().any(|name| name == topic),
            Reads::Pattern(pattern) => pattern.is_match(topic),
        }
    }
}

impl Reader {
    /// See [`Reads::reads`].
    fn reads(&self, topic: &str) -> bool {
        self.topics.reads(topic)
    }
}

/// A partition that this worker owns. It exists from the takeover until the partition is given up.
struct Assigned {
    name: TopicPartition,
    /// One entry per reader of the topic.
    readers: Vec<Reading>,
    /// The topic's partition count when the group began on it. It travels in the metadata, so that a
    /// partition that is added later starts at its beginning.
    partitions_at_start: i32,
    /// The hash of the set of readers that this plan has for the topic.
    set: NameHash,
    /// The group's commit, as far as this worker knows.
    committed: Option<Committed>,
    /// True if the consumer was asked to stop fetching it, because too much waits.
    paused: bool,
    /// True if the consumer delivers its events from the right offset on. Until then no reader accepts any.
    started: bool,
    /// The farthest that its readers may be ahead of the slowest.
    lead_max: i64,
    /// The offset of an event that waits until the slowest reader has come closer. The partition has not
    /// `started` while this is set.
    waiting: Option<i64>,
}

impl Assigned {
    /// True if readers that complete the event at this offset would be too far ahead of the slowest. It is
    /// enough to ask when the event is taken: a commit of their progress also has everything that the slowest
    /// had done then.
    fn is_too_far(&self, offset: i64) -> bool {
        let done = self.readers.iter().map(|reading| reading.ledger.done()).min();
        self.lead_max < i64::MAX && done.is_some_and(|done| offset - done >= self.lead_max)
    }
}

/// One reader in one partition.
///
/// `reader` is an index into the readers of the assignment, the same as in the plan.
struct Reading {
    reader: usize,
    ledger: Ledger,
    /// The part of the run that it has accepted, while a run is given.
    accepted: Range<usize>,
}

/// The position of a reader in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderPosition {
    /// The partition.
    pub partition: TopicPartition,
    /// The name of the reader's agent.
    pub reader: String,
    /// The next offset to take.
    pub taken: i64,
    /// The next offset that is not complete.
    pub done: i64,
    /// The next offset that is not committed.
    pub committed: i64,
}

/// All partitions of a worker, by number. The numbers are those of [`slots::Slots`], and stay the same when a
/// partition leaves and comes back.
pub struct Assignment {
    readers: Vec<Reader>,
    partitions: BTreeMap<usize, Assigned>,
    /// Written into the metadata of every commit: a successor finds there whose transaction may still be
    /// open.
    transactional_id: String,
    /// The beginning in topics without commits (`--from`).
    from: From,
}

impl Assignment {
    /// Makes an assignment without partitions.
    pub fn new(plan: &Plan, config: &Config) -> Assignment {
        let readers = plan.readers.iter().map(|reader| {
            let name = plan[reader.agents[0]].name.clone();
            Reader { hash: NameHash::of(&name), name, topics: Reads::of(&reader.topics) }
        });
        Assignment {
            readers: readers.collect(),
            partitions: BTreeMap::new(),
            transactional_id: config.transactional_id.clone(),
            from: config.from,
        }
    }

    /// Starts the consumer at the positions of the readers, for each partition that stands still. Includes
    /// new partitions, those that go back after an abort, and those that waited for their slowest reader and
    /// need not any more. Each is fetched from the least `taken` of its readers; the others refuse what they
    /// have taken.
    ///
    /// # Errors
    ///
    /// The errors of [`Consumer::start`]. No partition counts as started then, and the next call tries all of them
    /// again.
    pub fn start(&mut self, consumer: &mut dyn Consumer) -> Result<(), BrokerError> {
        let is_due = |assigned: &Assigned| {
            !assigned.started && !assigned.waiting.is_some_and(|offset| assigned.is_too_far(offset))
        };
        let waiting = || self.partitions.values().filter(|assigned| is_due(assigned));
        let first = |assigned: &Assigned| assigned.readers.iter().map(|reading| reading.ledger.taken()).min();
        let starts: Vec<_> =
            waiting().map(|assigned| (assigned.name.clone(), first(assigned).unwrap_or_default())).collect();
        if starts.is_empty() {
            return Ok(());
        }
        // From this call on nothing comes that was fetched before. So events may be taken again.
        consumer.start(&starts)?;
        for assigned in self.partitions.values_mut().filter(|assigned| is_due(assigned)) {
            // A start also lifts the client's pause, so the mark has to go with it: the next look at the queues
            // sets both again.
            (assigned.started, assigned.paused, assigned.waiting) = (true, false, None);
        }
        Ok(())
    }

    /// True if a partition stands still until [`Assignment::start`] succeeds.
    pub fn is_waiting(&self) -> bool {
        self.partitions.values().any(|assigned| !assigned.started)
    }

    /// True if a partition stands still that waits for no reader of its own: the broker has not let it start.
    pub fn has_unstarted(&self) -> bool {
        self.partitions.values().any(|assigned| !assigned.started && assigned.waiting.is_none())
    }

    /// Takes readers back to their committed positions in all their partitions: those that completed
    /// something not committed, and those in `also`. Returns true for each that goes back. The partitions
    /// must be started again. Both arguments and answer are indexed by reader. A reader that is not ahead
    /// keeps what waits in it: it has nothing of an aborted transaction.
    pub fn go_back(&mut self, also: &[bool]) -> Vec<bool> {
        let mut back = also.to_vec();
        // A reader goes back in all its partitions at once: its stage is cleared as a whole.
        for reading in self.partitions.values().flat_map(|assigned| &assigned.readers) {
            back[reading.reader] |= reading.ledger.is_ahead();
        }
        for assigned in self.partitions.values_mut() {
            for reading in assigned.readers.iter_mut().filter(|reading| back[reading.reader]) {
                reading.ledger.go_back();
                (assigned.started, assigned.waiting) = (false, None);
            }
        }
        back
    }

    /// Gives partitions up. Numbers that are not here are passed over.
    pub fn remove(&mut self, numbers: &[usize]) {
        for number in numbers {
            self.partitions.remove(number);
        }
    }

    /// Gives events of a partition, in the order of their offsets, to the readers that accept them: each reader
    /// accepts an event once, and so of these all from some event on. Events of a partition that is not here, or
    /// has not started, are dropped: they were fetched before the partition stood still, and they come again once
    /// it has started.
    pub fn take(&mut self, number: usize, events: &[Event], mut accepted_by: impl FnMut(usize, Range<usize>)) {
        // Dropped here, and read again: see above. No event is lost by it, because no ledger has moved.
        let Some(assigned) = self.partitions.get_mut(&number).filter(|assigned| assigned.started) else {
            return;
        };
        assigned.readers.iter_mut().for_each(|reading| reading.accepted = 0..0);
        for (at, offset) in events.iter().map(|event| event.offset).enumerate() {
            // The partition stands still here. `start` takes it up again when the slowest reader has come closer.
            if assigned.is_too_far(offset) {
                info!(topic = %assigned.name.topic, partition = assigned.name.partition, offset, "waits: the slowest of its readers is too far behind");
                (assigned.started, assigned.waiting) = (false, Some(offset));
                break;
            }
            for reading in &mut assigned.readers {
                if reading.ledger.take(offset) {
                    let start = if reading.accepted.is_empty() { at } else { reading.accepted.start };
                    reading.accepted = start..at + 1;
                }
            }
        }
        for reading in assigned.readers.iter().filter(|reading| !reading.accepted.is_empty()) {
            accepted_by(reading.reader, reading.accepted.clone());
        }
    }

    /// Notes what an epoch has completed. Called when the frontier has passed the epoch, before any commit
    /// can take its effects.
    pub fn complete(&mut self, progress: &Progress) {
        if let Some(reading) = self.reading(progress) {
            reading.ledger.complete(progress.done);
        }
    }

    fn reading(&mut self, progress: &Progress) -> Option<&mut Reading> {
        let assigned = self.partitions.get_mut(&progress.partition)?;
        assigned.readers.iter_mut().find(|reading| reading.reader == progress.reader.index())
    }

    /// True if everything up to the ends of the partitions has been polled.
    ///
    /// # Errors
    ///
    /// The errors of the questions to the consumer.
    pub fn is_polled(&self, consumer: &mut dyn Consumer) -> Result<bool, BrokerError> {
        // A partition that waits for its slowest reader dropped an event on arrival, so the consumer's position
        // runs ahead of the truth.
        if self.partitions.values().any(|assigned| assigned.waiting.is_some()) {
            return Ok(false);
        }
        let names: Vec<_> = self.names().cloned().collect();
        let ends = consumer.ends(&names)?;
        let is_polled = |(name, ends): (&TopicPartition, Option<Watermarks>)| {
            let position = consumer.position(name);
            ends.is_some_and(|ends| position.is_some_and(|position| position >= ends.high))
        };
        Ok(names.iter().zip(ends).all(is_polled))
    }

    /// Returns the partitions to pause (their queue passed `high`, or everything is `full`) and those to
    /// resume (their queue fell to `low`).
    ///
    /// `queued` has the waiting bytes by number of the partition. Each partition is named at most once, and
    /// only when its state changes. Between the two marks nothing changes, so that a queue near one mark does
    /// not pause and resume in turns.
    pub fn back_pressure(
        &mut self,
        queued: &[usize],
        (high, low): (usize, usize),
        full: bool,
    ) -> (Vec<TopicPartition>, Vec<TopicPartition>) {
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for (&number, assigned) in &mut self.partitions {
            let bytes = queued.get(number).copied().unwrap_or(0);
            // Effects of all partitions leave in one commit, so a worker that is full pauses all of them.
            if !assigned.paused && (full || bytes >= high) {
                assigned.paused = true;
                pause.push(assigned.name.clone());
            } else if assigned.paused && !full && bytes <= low {
                assigned.paused = false;
                resume.push(assigned.name.clone());
            }
        }
        (pause, resume)
    }

    /// The numbers of paused partitions.
    pub fn paused(&self) -> impl Iterator<Item = usize> {
        self.partitions.iter().filter(|(_, assigned)| assigned.paused).map(|(&number, _)| number)
    }

    /// The partitions, in order of their numbers.
    pub fn names(&self) -> impl Iterator<Item = &TopicPartition> {
        self.partitions.values().map(|assigned| &assigned.name)
    }

    /// The committed positions, with reader and number of the partition. A copy per partition: call it after
    /// a commit, not for each event.
    pub fn committed_positions(&self) -> impl Iterator<Item = (ReaderId, usize, i64)> {
        let of = |(&number, assigned): (&usize, &Assigned)| {
            let position = move |reading: &Reading| {
                let reader = u32::try_from(reading.reader).expect("a plan counts readers in u32");
                (ReaderId(reader), number, reading.ledger.committed())
            };
            assigned.readers.iter().map(position).collect::<Vec<_>>()
        };
        self.partitions.iter().flat_map(of)
    }

    /// The position of each reader in each of its partitions. In order of the partitions' numbers, and of the
    /// plan's readers within one.
    pub fn positions(&self) -> Vec<ReaderPosition> {
        let of = |assigned: &Assigned, reading: &Reading| ReaderPosition {
            partition: assigned.name.clone(),
            reader: self.readers[reading.reader].name.clone(),
            taken: reading.ledger.taken(),
            done: reading.ledger.done(),
            committed: reading.ledger.committed(),
        };
        let partitions = self.partitions.values();
        partitions.flat_map(|assigned| assigned.readers.iter().map(move |reading| of(assigned, reading))).collect()
    }
}

/// Makes a pattern that must match the whole of a topic's name. The compiler has checked it.
fn whole(pattern: &str) -> Regex {
    Regex::new(&format!("^(?:{pattern})$")).unwrap_or_else(|_| Regex::new("^$").expect("it is well-formed"))
}
