//! The worker's partitions: which readers read them, and how far each has come.
//!
//! Start, abort and takeover are one move: the consumer starts at the committed offset, and each
//! reader accepts only offsets at or past its own position, which stands in the offset's metadata.

pub mod ledger;

use std::collections::{BTreeMap, BTreeSet};

use kaspr_ir::plan::{Plan, ReaderId, Topics};
use kaspr_ir::topics::TOPIC_READERS_MAX;
use regex::Regex;
use tracing::info;

use crate::assignment::ledger::{Ledger, Slots};
use crate::broker::position::{METADATA_BYTES_MAX, Metadata, NameHash, lead_max};
use crate::broker::{BrokerError, Committed, Consumer, OffsetCommit, Watermarks};
use crate::config::{Config, From};
use crate::event::effects::Progress;
use crate::event::message::{TopicName, TopicPartition};

/// A reader, as far as positions need it.
struct Reader {
    name: String,
    hash: NameHash,
    topics: Reads,
}

/// Which topics a reader reads.
pub enum Reads {
    /// These.
    Names(Vec<String>),
    /// Those whose whole name matches.
    Pattern(Regex),
}

impl Reads {
    /// What a plan says of it.
    pub fn of(topics: &Topics) -> Reads {
        match topics {
            Topics::Names(names) => Reads::Names(names.clone()),
            Topics::Pattern(pattern) => Reads::Pattern(whole(pattern)),
        }
    }

    /// Whether it reads this one.
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

/// A partition that is this worker's.
struct Assigned {
    name: TopicPartition,
    /// One per reader of the topic.
    readers: Vec<Reading>,
    partitions_at_start: i32,
    set: NameHash,
    /// What stands in the group now, as far as this worker knows.
    committed: Option<Committed>,
    paused: bool,
    /// The consumer gives its events from the right offset on. Until then none is accepted.
    started: bool,
    /// The farthest that its readers may be ahead of the slowest.
    lead_max: i64,
    /// The offset of an event that waits until the slowest reader has come closer.
    waiting: Option<i64>,
}

impl Assigned {
    /// True if readers that complete the event at this offset would be too far ahead of the slowest. A
    /// commit that takes their progress takes all that the slowest had done when the event was taken.
    fn is_too_far(&self, offset: i64) -> bool {
        let done = self.readers.iter().map(|reading| reading.ledger.done()).min();
        self.lead_max < i64::MAX && done.is_some_and(|done| offset - done >= self.lead_max)
    }
}

/// One reader in one partition.
struct Reading {
    reader: usize,
    ledger: Ledger,
    /// `done` at the end of the last epoch that a commit has taken.
    committing: i64,
    /// Where a successor would begin.
    committed: i64,
}

/// The group's commits in partitions that came, as far as warnings and later tries need them.
#[derive(Debug, Default)]
pub struct Takeover {
    /// Topics of which it has read something.
    pub read: BTreeSet<TopicName>,
    /// Topics without any commit of it.
    pub without_commits: BTreeSet<TopicName>,
    /// Topics with a commit that this product has not made, and one such partition and offset.
    pub foreign: BTreeMap<TopicName, (i32, i64)>,
    /// Partitions that no broker leads at the moment: they have not been taken over.
    pub leaderless: Vec<TopicPartition>,
}

impl Takeover {
    /// Notes what the group had committed in a partition.
    fn note(&mut self, name: &TopicPartition, committed: &Committed, is_ours: bool, ends: Watermarks) {
        if !is_ours {
            self.foreign.insert(name.topic.clone(), (name.partition, committed.offset));
        }
        if committed.offset > ends.low {
            self.read.insert(name.topic.clone());
        }
    }
}

/// All partitions of a worker, by number.
pub struct Assignment {
    readers: Vec<Reader>,
    partitions: BTreeMap<usize, Assigned>,
    transactional_id: String,
    from: From,
}

impl Assignment {
    /// No partitions yet.
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

    /// Takes partitions over: their readers are where the group has come to. They must be started then.
    /// Those that no broker leads at the moment are left out, and the answer names them.
    pub fn add(
        &mut self,
        names: &[TopicPartition],
        counts: &BTreeMap<TopicName, i32>,
        slots: &mut Slots,
        consumer: &mut dyn Consumer,
    ) -> Result<Takeover, BrokerError> {
        let committed = consumer.committed(names)?;
        let mut takeover = Takeover::default();
        let (mut came, mut producers) = (Vec::with_capacity(names.len()), BTreeSet::new());
        let strangers = self.counts_at_start(names, &committed, counts, consumer, &mut takeover)?;
        let ends = consumer.ends(names)?;
        let firsts = self.first_offsets(names, &ends, &committed, consumer)?;
        for (((name, committed), ends), first) in names.iter().zip(committed).zip(ends).zip(firsts) {
            let (Some(ends), Some(first)) = (ends, first) else {
                takeover.leaderless.push(name.clone());
                continue;
            };
            let metadata = committed.as_ref().and_then(|committed| Metadata::decode(&committed.metadata));
            let offset = match &committed {
                Some(committed) => {
                    takeover.note(name, committed, metadata.is_some(), ends);
                    ends.within(name, committed.offset)?
                }
                // It came after the group had begun on its topic: nothing of it may be passed over.
                None if strangers.get(&name.topic).is_some_and(|&count| name.partition >= count) => ends.low,
                None => first,
            };
            let readers = self.readers.iter().filter(|reader| reader.reads(&name.topic)).count();
            if readers > TOPIC_READERS_MAX {
                return Err(too_many(name, readers));
            }
            producers.extend(metadata.as_ref().map(|metadata| metadata.transactional_id.clone()));
            let count = strangers.get(&name.topic).or(counts.get(&name.topic)).copied().unwrap_or(0);
            let assigned = self.assigned(name, offset, committed, metadata, count);
            info!(topic = %name.topic, partition = name.partition, offset, "started");
            came.push((slots.number(&name.topic, name.partition), assigned));
        }
        // What is asked for again must not have begun.
        self.partitions.extend(came);
        producers.retain(|id| !id.is_empty() && *id != self.transactional_id);
        consumer.end_gone(producers);
        Ok(takeover)
    }

    /// Topics of which some partition has no commit and another has one: how many partitions they
    /// had when the group began on them.
    fn counts_at_start(
        &self,
        names: &[TopicPartition],
        committed: &[Option<Committed>],
        counts: &BTreeMap<TopicName, i32>,
        consumer: &mut dyn Consumer,
        takeover: &mut Takeover,
    ) -> Result<BTreeMap<TopicName, i32>, BrokerError> {
        let mut found = BTreeMap::new();
        for (name, _) in names.iter().zip(committed).filter(|(_, committed)| committed.is_none()) {
            if found.contains_key(&name.topic) || takeover.without_commits.contains(&name.topic) {
                continue;
            }
            let count = counts.get(&name.topic).copied().unwrap_or(0);
            let all: Vec<_> = (0..count).map(|partition| TopicPartition::new(name.topic.clone(), partition)).collect();
            let committed = consumer.committed(&all)?;
            if committed.iter().all(Option::is_none) {
                takeover.without_commits.insert(name.topic.clone());
            }
            let known = committed.iter().flatten().find_map(|committed| Metadata::decode(&committed.metadata));
            if let Some(metadata) = known {
                found.insert(name.topic.clone(), metadata.partitions_at_start);
            }
        }
        Ok(found)
    }

    /// Lets the consumer begin where the readers of a partition are, wherever that has not been done.
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

    /// Some partition stands still until [`Assignment::start`] succeeds.
    pub fn is_waiting(&self) -> bool {
        self.partitions.values().any(|assigned| !assigned.started)
    }

    /// Readers that completed something which is not committed go back to their committed positions
    /// in all their partitions, and so do the readers in `also`; true for each that does. The partitions must be started again.
    pub fn go_back(&mut self, also: &[bool]) -> Vec<bool> {
        let mut back = also.to_vec();
        for reading in self.partitions.values().flat_map(|assigned| &assigned.readers) {
            back[reading.reader] |= reading.ledger.done() != reading.committed;
        }
        for assigned in self.partitions.values_mut() {
            for reading in assigned.readers.iter_mut().filter(|reading| back[reading.reader]) {
                reading.ledger = Ledger::at(reading.committed);
                reading.committing = reading.committed;
                (assigned.started, assigned.waiting) = (false, None);
            }
        }
        back
    }

    /// The offset at which a group begins that has committed nothing in a partition; `None`: no broker leads it.
    fn first_offsets(
        &self,
        names: &[TopicPartition],
        ends: &[Option<Watermarks>],
        committed: &[Option<Committed>],
        consumer: &mut dyn Consumer,
    ) -> Result<Vec<Option<i64>>, BrokerError> {
        let timestamp_ms = match self.from {
            From::Earliest => return Ok(ends.iter().map(|ends| Some((*ends)?.low)).collect()),
            From::Latest => return Ok(ends.iter().map(|ends| Some((*ends)?.high)).collect()),
            From::Timestamp(timestamp_ms) => timestamp_ms,
        };
        match committed.iter().all(Option::is_some) {
            true => Ok(ends.iter().map(|ends| Some((*ends)?.low)).collect()),
            false => consumer.offsets_at(names, timestamp_ms),
        }
    }

    fn assigned(
        &self,
        name: &TopicPartition,
        offset: i64,
        committed: Option<Committed>,
        metadata: Option<Metadata>,
        count: i32,
    ) -> Assigned {
        let reads = || self.readers.iter().enumerate().filter(|(_, reader)| reader.reads(&name.topic));
        let set = NameHash::of_all(reads().map(|(_, reader)| reader.name.as_str()));
        if metadata.as_ref().is_some_and(|metadata| metadata.readers != set) {
            info!(topic = %name.topic, "the readers of the topic have changed: a new reader starts at the committed offset");
        }
        let ahead = |reader: &Reader| {
            metadata.as_ref().and_then(|metadata| metadata.ahead.get(&reader.hash)).copied().unwrap_or(0)
        };
        // Readers stand where they stood before the commit, but not before `offset`: retention may have
        // passed the slowest of them since, and the others not.
        let stood = committed.as_ref().map_or(offset, |committed| committed.offset);
        let readers = reads().map(|(number, reader)| {
            let position = offset.max(stood + ahead(reader));
            Reading { reader: number, ledger: Ledger::at(position), committing: position, committed: position }
        });
        let readers: Vec<_> = readers.collect();
        Assigned {
            name: name.clone(),
            lead_max: lead_max(readers.len(), &self.transactional_id),
            waiting: None,
            readers,
            partitions_at_start: metadata.as_ref().map_or(count, |metadata| metadata.partitions_at_start),
            set,
            committed,
            paused: false,
            started: false,
        }
    }

    /// Gives partitions up.
    pub fn remove(&mut self, numbers: &[usize]) {
        for number in numbers {
            self.partitions.remove(number);
        }
    }

    /// Readers that accept the event at this offset; each accepts it once.
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

    /// Notes what a commit takes.
    pub fn commit_takes(&mut self, progress: &Progress) {
        if let Some(reading) = self.reading(progress) {
            reading.committing = progress.done;
        }
    }

    fn reading(&mut self, progress: &Progress) -> Option<&mut Reading> {
        let assigned = self.partitions.get_mut(&progress.partition)?;
        assigned.readers.iter_mut().find(|reading| reading.reader == progress.reader.index())
    }

    /// Passes over markers and compacted offsets where nothing waits, so that no lag of 1 stays. Where a
    /// partition must still go back, the consumer's position is not the readers'.
    pub fn pass_markers(&mut self, consumer: &dyn Consumer) {
        for assigned in self.partitions.values_mut().filter(|assigned| assigned.started) {
            let Some(position) = consumer.position(&assigned.name).filter(|&next| !assigned.is_too_far(next - 1))
            else {
                continue;
            };
            for reading in &mut assigned.readers {
                if reading.committing == reading.ledger.done() && reading.ledger.pass(position) {
                    reading.committing = position;
                }
            }
        }
    }

    /// What to commit now: partitions whose readers have come further than the group knows.
    ///
    /// Metadata that Kafka would refuse is never sent: it cannot come about but where a commit of an earlier
    /// plan had fewer readers, further ahead than this plan lets them come.
    pub fn offsets(&self) -> Result<Vec<OffsetCommit>, BrokerError> {
        let mut offsets = Vec::new();
        for assigned in self.partitions.values() {
            let Some(offset) = assigned.readers.iter().map(|reading| reading.committing).min() else {
                continue;
            };
            let ahead = assigned.readers.iter().filter(|reading| reading.committing > offset);
            let metadata = Metadata {
                transactional_id: self.transactional_id.clone(),
                partitions_at_start: assigned.partitions_at_start,
                readers: assigned.set,
                ahead: ahead.map(|reading| (self.readers[reading.reader].hash, reading.committing - offset)).collect(),
            };
            let committed = Committed { offset, metadata: metadata.encode() };
            if committed.metadata.len() > METADATA_BYTES_MAX {
                return Err(too_large(&assigned.name, &metadata, committed.metadata.len()));
            }
            if assigned.committed.as_ref() != Some(&committed) {
                offsets.push(OffsetCommit { partition: assigned.name.clone(), committed });
            }
        }
        Ok(offsets)
    }

    /// Notes what was committed.
    pub fn committed(&mut self, offsets: &[OffsetCommit]) {
        let by_name: BTreeMap<&TopicPartition, &Committed> =
            offsets.iter().map(|offset| (&offset.partition, &offset.committed)).collect();
        for assigned in self.partitions.values_mut() {
            let Some(&committed) = by_name.get(&assigned.name) else { continue };
            let metadata = Metadata::decode(&committed.metadata);
            for reading in &mut assigned.readers {
                let hash = self.readers[reading.reader].hash;
                let ahead = metadata.as_ref().and_then(|metadata| metadata.ahead.get(&hash)).copied();
                reading.committed = committed.offset + ahead.unwrap_or(0);
            }
            assigned.committed = Some(committed.clone());
        }
    }

    /// Everything up to the ends of the partitions has been polled.
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

    /// Partitions to pause (their queue passed `high`, or nothing may come at all) and to resume
    /// (it fell below `low`).
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

    /// Readers with the numbers of their partitions and the positions that are committed.
    pub fn committed_positions(&self) -> impl Iterator<Item = (ReaderId, usize, i64)> {
        let of = |(&number, assigned): (&usize, &Assigned)| {
            let position = move |reading: &Reading| {
                let reader = u32::try_from(reading.reader).expect("a plan counts readers in u32");
                (ReaderId(reader), number, reading.committed)
            };
            assigned.readers.iter().map(position).collect::<Vec<_>>()
        };
        self.partitions.iter().flat_map(of)
    }

    /// Per partition and reader: its name, next offset to take, next offset not complete.
    pub fn positions(&self) -> Vec<(TopicPartition, String, i64, i64)> {
        let mut positions = Vec::new();
        for assigned in self.partitions.values() {
            for reading in &assigned.readers {
                let name = self.readers[reading.reader].name.clone();
                positions.push((assigned.name.clone(), name, reading.ledger.taken(), reading.ledger.done()));
            }
        }
        positions
    }
}

/// More readers than one topic may have.
fn too_many(name: &TopicPartition, readers: usize) -> BrokerError {
    BrokerError::Fatal(format!(
        "the topic \"{}\" has {readers} readers, and at most {TOPIC_READERS_MAX} agents can read one topic: let one read it for others, which read its channel",
        name.topic
    ))
}

fn too_large(name: &TopicPartition, metadata: &Metadata, bytes: usize) -> BrokerError {
    BrokerError::Fatal(format!(
        "the positions of {} readers of {name} would take {bytes} bytes in the metadata of its offset, and Kafka takes {METADATA_BYTES_MAX}: start the plan that committed last until its slowest reader has come closer",
        metadata.ahead.len() + 1
    ))
}

/// A pattern that must match the whole of a topic's name. The compiler has judged it.
fn whole(pattern: &str) -> Regex {
    Regex::new(&format!("^(?:{pattern})$")).unwrap_or_else(|_| Regex::new("^$").expect("it is well-formed"))
}
