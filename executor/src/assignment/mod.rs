//! Assignment of a worker: its partitions, the readers of each, and how far each reader has come.
//!
//! Start, abort and takeover are one move: the consumer starts at the committed offset, and each reader
//! accepts only offsets at or past its own position, which is written in the offset's metadata.

mod commits;
pub mod ledger;
pub mod slots;
mod takeover;

use std::collections::BTreeMap;

use kaspr_ir::plan::{Plan, ReaderId, Topics};
use regex::Regex;
use tracing::info;

use crate::assignment::ledger::Ledger;
use crate::broker::position::NameHash;
use crate::broker::{BrokerError, Committed, Consumer, Watermarks};
use crate::config::{Config, From};
use crate::event::effects::Progress;
use crate::event::message::TopicPartition;
pub use takeover::Takeover;

/// The part of a reader that positions need.
struct Reader {
    name: String,
    hash: NameHash,
    topics: Reads,
}

/// The topics that a reader reads.
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
    fn reads(&self, topic: &str) -> bool {
        self.topics.reads(topic)
    }
}

/// A partition that this worker owns.
struct Assigned {
    name: TopicPartition,
    /// One entry per reader of the topic.
    readers: Vec<Reading>,
    partitions_at_start: i32,
    set: NameHash,
    /// The group's commit, as far as this worker knows.
    committed: Option<Committed>,
    paused: bool,
    /// True if the consumer delivers its events from the right offset on. Until then no reader accepts any.
    started: bool,
    /// The farthest that its readers may be ahead of the slowest.
    lead_max: i64,
    /// The offset of an event that waits until the slowest reader has come closer.
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
struct Reading {
    reader: usize,
    ledger: Ledger,
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

/// All partitions of a worker, by number.
pub struct Assignment {
    readers: Vec<Reader>,
    partitions: BTreeMap<usize, Assigned>,
    transactional_id: String,
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

    /// Starts the consumer at the positions of the readers, for each partition that stands still.
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
        consumer.start(&starts)?;
        for assigned in self.partitions.values_mut().filter(|assigned| is_due(assigned)) {
            (assigned.started, assigned.paused, assigned.waiting) = (true, false, None);
        }
        Ok(())
    }

    /// True if a partition stands still until [`Assignment::start`] succeeds.
    pub fn is_waiting(&self) -> bool {
        self.partitions.values().any(|assigned| !assigned.started)
    }

    /// Takes readers back to their committed positions in all their partitions: those that completed
    /// something not committed, and those in `also`. Returns true for each that goes back. The partitions
    /// must be started again.
    pub fn go_back(&mut self, also: &[bool]) -> Vec<bool> {
        let mut back = also.to_vec();
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

    /// Gives partitions up.
    pub fn remove(&mut self, numbers: &[usize]) {
        for number in numbers {
            self.partitions.remove(number);
        }
    }

    /// Gives the event at this offset to the readers that accept it; each accepts it once.
    pub fn take(&mut self, number: usize, offset: i64, mut accepted_by: impl FnMut(usize)) {
        let Some(assigned) = self.partitions.get_mut(&number).filter(|assigned| assigned.started) else {
            return;
        };
        if assigned.is_too_far(offset) {
            info!(topic = %assigned.name.topic, partition = assigned.name.partition, offset, "waits: the slowest of its readers is too far behind");
            (assigned.started, assigned.waiting) = (false, Some(offset));
            return;
        }
        for reading in &mut assigned.readers {
            if reading.ledger.take(offset) {
                accepted_by(reading.reader);
            }
        }
    }

    /// Notes what an epoch has completed.
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
    pub fn is_polled(&self, consumer: &mut dyn Consumer) -> Result<bool, BrokerError> {
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
    pub fn back_pressure(
        &mut self,
        queued: &[usize],
        (high, low): (usize, usize),
        full: bool,
    ) -> (Vec<TopicPartition>, Vec<TopicPartition>) {
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for (&number, assigned) in &mut self.partitions {
            let bytes = queued.get(number).copied().unwrap_or(0);
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

    /// The partitions, in order of their numbers.
    pub fn names(&self) -> impl Iterator<Item = &TopicPartition> {
        self.partitions.values().map(|assigned| &assigned.name)
    }

    /// The committed positions, with reader and number of the partition.
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

    /// The position of each reader in each of its partitions.
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
