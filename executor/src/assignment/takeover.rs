//! Takeover of partitions: the group's committed offset in each, and the offset at which each reader goes on.
//!
//! | the group's commit | a reader begins at |
//! |---|---|
//! | of this product | the offset, plus the reader's distance in the metadata |
//! | of another program | the offset, which the log mentions |
//! | none here, but in others of the topic | the beginning, if the partition came later than the group; else as below |
//! | none in the topic | `--from` |
//!
//! Retention may have deleted that offset: then the first that is left counts, for each reader that stood
//! before it.

use std::collections::{BTreeMap, BTreeSet};

use kaspr_ir::topics::TOPIC_READERS_MAX;
use tracing::info;

use super::ledger::Ledger;
use super::slots::Slots;
use super::{Assigned, Assignment, Reader, Reading};
use crate::broker::position::{NameHash, lead_max};
use crate::broker::{BrokerError, Committed, Consumer, Watermarks};
use crate::config::From;
use crate::event::message::{TopicName, TopicPartition};

/// The group's commits in partitions that came, as far as warnings and later tries need them. Made by
/// [`Assignment::add`] and read by the worker, which warns where tables and offsets do not belong together.
#[derive(Debug, Default)]
pub struct Takeover {
    /// Topics in which the group has read something.
    pub read: BTreeSet<TopicName>,
    /// Topics in which the group has no commit at all.
    pub without_commits: BTreeSet<TopicName>,
    /// Topics with a commit of another program, and one such partition and offset.
    pub foreign: BTreeMap<TopicName, (i32, i64)>,
    /// Partitions that no broker leads at the moment: they have not been taken over.
    pub leaderless: Vec<TopicPartition>,
}

impl Takeover {
    /// Notes what the group had committed in a partition.
    ///
    /// `is_ours` is true for a commit with metadata of this product. `ends` are the partition's ends now.
    fn note(&mut self, name: &TopicPartition, committed: &Committed, is_ours: bool, ends: Watermarks) {
        if !is_ours {
            self.foreign.insert(name.topic.clone(), (name.partition, committed.offset));
        }
        // A commit at the beginning says only that the group was here, not that it has read an event.
        if committed.offset > ends.low {
            self.read.insert(name.topic.clone());
        }
    }
}

impl Assignment {
    /// Takes partitions over: their readers stand at the group's positions, and the partitions must be
    /// started next. Partitions that no broker leads at the moment are left out; the answer names them.
    ///
    /// `counts` has the current partition count of each topic. Asks the broker for committed offsets, ends
    /// and, where a time was given, for the offsets of that time: each one question for all partitions.
    ///
    /// # Errors
    ///
    /// Any error of these questions, an offset past the end of its partition, or too many readers. No
    /// partition is added then.
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
        debug_assert!(
            committed.len() == names.len() && ends.len() == names.len() && firsts.len() == names.len(),
            "the consumer answers for each partition, in order"
        );
        for (((name, committed), ends), first) in names.iter().zip(committed).zip(ends).zip(firsts) {
            // Its ends come from its leader: without one, not even the beginning is known.
            let (Some(ends), Some(first)) = (ends, first) else {
                takeover.leaderless.push(name.clone());
                continue;
            };
            let metadata = committed.as_ref().and_then(|committed| committed.metadata.as_ref());
            let offset = match &committed {
                Some(committed) => {
                    takeover.note(name, committed, metadata.is_some(), ends);
                    ends.within(name, committed.offset)?
                }
                // The partition was added after the group had begun on its topic: none of its events may be
                // skipped.
                None if strangers.get(&name.topic).is_some_and(|&count| name.partition >= count) => ends.low,
                None => first,
            };
            // The compiler counts what it can; a pattern may match more readers than it saw.
            let readers = self.readers.iter().filter(|reader| reader.reads(&name.topic)).count();
            if readers > TOPIC_READERS_MAX {
                return Err(too_many(name, readers));
            }
            producers.extend(metadata.map(|metadata| metadata.transactional_id.clone()));
            let count = strangers.get(&name.topic).or(counts.get(&name.topic)).copied().unwrap_or(0);
            let assigned = self.assigned(name, offset, committed, count);
            info!(topic = %name.topic, partition = name.partition, offset, "started");
            came.push((slots.number(&name.topic, name.partition), assigned));
        }
        // Added last: if a question above fails, all of them are asked for again, so none may have begun.
        self.partitions.extend(came);
        producers.retain(|id| !id.is_empty() && *id != self.transactional_id);
        // What they left open hides later records of the same topics. Their names come from the commits just
        // read.
        consumer.end_gone(producers);
        Ok(takeover)
    }

    /// Returns, for topics with commits in some of their partitions but not in all, how many partitions they
    /// had when the group began on them. Asks for the offsets of whole topics, once per topic, and only for
    /// topics of which a partition came without a commit. Notes topics without any commit in `takeover`.
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
            let known = committed.iter().flatten().find_map(|committed| committed.metadata.as_ref());
            if let Some(metadata) = known {
                found.insert(name.topic.clone(), metadata.partitions_at_start);
            }
        }
        Ok(found)
    }

    /// Returns the offset at which a group without a commit in a partition begins; `None` if no broker leads
    /// it.
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
        // No partition needs the offset of that time, so the question is saved. The value is not used then.
        match committed.iter().all(Option::is_some) {
            true => Ok(ends.iter().map(|ends| Some((*ends)?.low)).collect()),
            false => consumer.offsets_at(names, timestamp_ms),
        }
    }

    /// `offset` is the committed offset, or the one at which a group without a commit begins, after
    /// retention; `count` the topic's partition count at the group's start, used where no metadata has it.
    fn assigned(&self, name: &TopicPartition, offset: i64, committed: Option<Committed>, count: i32) -> Assigned {
        let metadata = committed.as_ref().and_then(|committed| committed.metadata.as_ref());
        let reads = || self.readers.iter().enumerate().filter(|(_, reader)| reader.reads(&name.topic));
        let set = NameHash::of_all(reads().map(|(_, reader)| reader.name.as_str()));
        if metadata.is_some_and(|metadata| metadata.readers != set) {
            info!(topic = %name.topic, "the readers of the topic have changed: a new reader starts at the committed offset");
        }
        let ahead =
            |reader: &Reader| metadata.and_then(|metadata| metadata.ahead.get(&reader.hash)).copied().unwrap_or(0);
        // Readers go on where they stood at the commit, but not before `offset`: retention may since have
        // passed the slowest of them, and not the others.
        let stood = committed.as_ref().map_or(offset, |committed| committed.offset);
        let readers = reads().map(|(number, reader)| {
            let position = offset.max(stood + ahead(reader));
            Reading { reader: number, ledger: Ledger::at(position), accepted: 0..0 }
        });
        let readers: Vec<_> = readers.collect();
        Assigned {
            name: name.clone(),
            lead_max: lead_max(readers.len(), &self.transactional_id),
            // Not started: no reader may accept an event before the consumer delivers from the right offset.
            waiting: None,
            readers,
            partitions_at_start: metadata.map_or(count, |metadata| metadata.partitions_at_start),
            set,
            committed,
            paused: false,
            started: false,
        }
    }
}

/// The error for a topic with more readers than one topic may have.
fn too_many(name: &TopicPartition, readers: usize) -> BrokerError {
    BrokerError::Fatal(format!(
        "the topic \"{}\" has {readers} readers, and at most {TOPIC_READERS_MAX} agents can read one topic: let one read it for others, which read its channel",
        name.topic
    ))
}
