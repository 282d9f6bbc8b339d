//! A member of a group that gets news late, asks in vain, and may be expelled without knowing it.
//!
//! What can go wrong here and goes wrong in Kafka too: a rebalance shows late, a question has no answer, committed
//! offsets are hidden by an open transaction, the session ends and the client learns of it seconds later, and the
//! client gives no member id. It never gives an event twice or out of order without a seek.
//!
//! ```text
//! joined ─ expelled ─▶ goes on, perhaps nameless ─ hears of it ─▶ Change::Lost ─ release ─▶ joins under a new id
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Fault, Life, World};
use crate::broker::log::group::Step;
use crate::broker::{BrokerError, Change, Committed, Consumer, GroupMetadata, OffsetCommit, Subscription, Watermarks};
use crate::clock::Clock;
use crate::event::message::{Event, TopicPartition};

/// Longest wait for committed offsets. As the connector to Kafka has it.
const COMMITTED_WAIT_MS: u64 = 500;

/// The place from which a partition is read.
///
/// Made when the partition is assigned, dropped when it is released.
#[derive(Debug)]
struct Reading {
    /// `None`: it stands still since it came.
    next: Option<i64>,
    /// True between a pause and the next resume or start.
    paused: bool,
}

/// The consumer of a simulated worker.
///
/// Between the end of a session and the client's knowledge of it, `member` names a member that the group does not
/// have: its commits must be refused by the group, not by the client.
pub struct SimConsumer {
    world: World,
    life: Life,
    group: String,
    /// The id of the same worker's producer, by which others know whether it is alive.
    transactional_id: String,
    topics: Vec<Subscription>,
    /// This client's name in the group; empty before it has joined and after it has lost its place.
    member: String,
    /// The newest generation that the client has heard of.
    generation: i32,
    /// The time at which the worker learns that its session is over: until then it goes on.
    hears_at: Option<Duration>,
    /// The client itself knows already, and gives no member id.
    is_nameless: bool,
    readings: BTreeMap<TopicPartition, Reading>,
    /// The partition that is read first at the next poll: they take turns.
    turn: usize,
}

impl SimConsumer {
    /// A consumer that has not joined yet.
    pub fn new(world: &World, life: &Life, group: &str, transactional_id: &str) -> SimConsumer {
        SimConsumer {
            world: world.clone(),
            life: life.clone(),
            group: group.to_owned(),
            transactional_id: transactional_id.to_owned(),
            topics: Vec::new(),
            member: String::new(),
            generation: 0,
            hears_at: None,
            is_nameless: false,
            readings: BTreeMap::new(),
            turn: 0,
        }
    }

    /// Fails, in some cases, after a time of `most_ms` at most: the caller must ask again.
    fn unanswered(&self, what: &str, most_ms: u64) -> Result<(), BrokerError> {
        if self.world.hits(Fault::Unanswered) {
            self.world.takes(1, most_ms);
            return Err(BrokerError::Retriable(format!("{what}: no answer in time")));
        }
        Ok(())
    }

    /// Joins under a member id that no client had before, and divides the group's partitions.
    fn join(&mut self) -> Result<(), BrokerError> {
        self.member = self.world.member(&self.life, &self.transactional_id);
        self.life.member.replace(self.member.clone());
        let mut state = self.world.log.state.borrow_mut();
        let group = state.groups.entry(self.group.clone()).or_default();
        group.join(&self.member, &self.topics).map_err(|error| BrokerError::Fatal(error.to_string()))?;
        state.rebalance(&self.group);
        self.generation = state.groups[&self.group].generation(&self.member).unwrap_or(0);
        drop(state);
        self.world.note(|| format!("{} joins", self.member));
        Ok(())
    }

    /// The group's decision, if the client hears of it.
    ///
    /// It may be late by any number of polls. A member that has been expelled first loses its partitions, then
    /// joins.
    fn change(&mut self) -> Result<Option<Change>, BrokerError> {
        if self.world.hits(Fault::Deaf) {
            return Ok(None);
        }
        if !self.member.is_empty() {
            let mut state = self.world.log.state.borrow_mut();
            let group = state.groups.get_mut(&self.group).expect("it was joined");
            if let Some(generation) = group.generation(&self.member) {
                self.generation = generation;
                let step = group.step(&self.member);
                drop(state);
                return Ok(step.map(|step| self.follow(step)));
            }
            drop(state);
            if !self.hears_of_its_end() {
                return Ok(None);
            }
            self.world.note(|| format!("{} learns that its session is over", self.member));
            (self.member, self.generation) = (String::new(), -1);
            if !self.readings.is_empty() {
                return Ok(Some(Change::Lost(self.readings.keys().cloned().collect())));
            }
        }
        // It joins again only when the worker has released what it lost.
        if self.readings.is_empty() {
            self.join()?;
        }
        Ok(None)
    }

    /// Learns, late for some members, that the session is over.
    ///
    /// The delay is drawn once for each session that ends: none, a moment, or seconds.
    fn hears_of_its_end(&mut self) -> bool {
        let now = self.world.clock.now();
        let (world, is_nameless) = (&self.world, &mut self.is_nameless);
        let hears_at = *self.hears_at.get_or_insert_with(|| {
            *is_nameless = world.hits(Fault::Nameless) || world.draw(|seed| seed.hits(300));
            now + world.draw(|seed| *seed.pick(&[Duration::ZERO, Duration::from_millis(400), Duration::from_secs(5)]))
        });
        if hears_at <= now {
            (self.hears_at, self.is_nameless) = (None, false);
        }
        hears_at <= now
    }

    /// Takes the group's decision over, and hands it on as the worker sees it.
    fn follow(&mut self, step: Step) -> Change {
        let names = |names: &[TopicPartition]| names.iter().map(|name| format!(" {name}")).collect::<String>();
        match step {
            Step::Take(partitions) => {
                self.world.note(|| format!("{} gets{}", self.member, names(&partitions)));
                for partition in &partitions {
                    self.readings.insert(partition.clone(), Reading { next: None, paused: false });
                }
                Change::Assigned(partitions)
            }
            Step::GiveUp(partitions) => {
                self.world.note(|| format!("{} must give up{}", self.member, names(&partitions)));
                Change::Revoked(partitions)
            }
        }
    }

    /// Takes what is there from partitions that have been started and not paused.
    fn read(&mut self, max: usize, into: &mut Vec<Event>) {
        let state = self.world.log.state.borrow();
        let count = self.readings.len();
        self.turn = self.turn.wrapping_add(1);
        let first = if count == 0 { 0 } else { self.turn % count };
        let names: Vec<_> = self.readings.keys().cloned().collect();
        for name in names[first..].iter().chain(&names[..first]) {
            let reading = self.readings.get_mut(name).expect("its name was just listed");
            let (Some(next), false) = (reading.next, reading.paused) else { continue };
            let Some(topic) = state.topics.get(&name.topic) else { continue };
            reading.next = Some(topic.read(&name.topic, name.partition, next, max - into.len(), into));
            if into.len() == max {
                return;
            }
        }
    }
}

impl Consumer for SimConsumer {
    fn subscribe(&mut self, topics: &[Subscription]) -> Result<(), BrokerError> {
        self.world.step(&self.life, "its subscription")?;
        self.topics = topics.to_vec();
        self.join()
    }

    fn poll(&mut self, wait: Duration, max: usize, into: &mut Vec<Event>) -> Result<Option<Change>, BrokerError> {
        self.world.step(&self.life, "a poll")?;
        if let Some(change) = self.change()? {
            return Ok(Some(change));
        }
        // Any number, so that a poll may end between any two events.
        let max = self.world.draw(|seed| 1 + seed.below(max));
        self.read(max, into);
        if into.is_empty() {
            // An idle poll waits out its time: nothing here would wake a worker that sleeps elsewhere.
            self.world.passes(wait);
        }
        Ok(None)
    }

    /// Fails between two partitions too: some have started then, and the worker starts all of them again.
    fn start(&mut self, at: &[(TopicPartition, i64)]) -> Result<(), BrokerError> {
        self.world.step(&self.life, "a seek")?;
        for (partition, offset) in at {
            // Some partitions are sought when the answer for another does not come.
            self.unanswered("the seek", 1000)?;
            let reading = self.readings.get_mut(partition);
            let reading = reading.ok_or_else(|| BrokerError::Fatal(format!("{partition} is not assigned")))?;
            (reading.next, reading.paused) = (Some(*offset), false);
        }
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        for partition in partitions {
            if let Some(reading) = self.readings.get_mut(partition) {
                reading.paused = true;
            }
        }
        Ok(())
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        for partition in partitions {
            if let Some(reading) = self.readings.get_mut(partition) {
                reading.paused = false;
            }
        }
        Ok(())
    }

    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.readings.get(partition)?.next
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, BrokerError> {
        self.world.step(&self.life, "a question for offsets")?;
        self.unanswered("the committed offsets", COMMITTED_WAIT_MS)?;
        let state = self.world.log.state.borrow();
        let group = state.groups.get(&self.group);
        let unstable = partitions.iter().find(|partition| group.is_some_and(|group| !group.is_stable(partition)));
        // The broker does not answer until the transaction is decided: the client waits out its time.
        if let Some(partition) = unstable {
            drop(state);
            self.world.takes(COMMITTED_WAIT_MS, COMMITTED_WAIT_MS);
            return Err(BrokerError::Retriable(format!(
                "an open transaction hides the committed offset of {partition}"
            )));
        }
        Ok(partitions.iter().map(|partition| group.and_then(|group| group.committed(partition))).collect())
    }

    fn ends(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Watermarks>>, BrokerError> {
        self.unanswered("the ends", 5000)?;
        let state = self.world.log.state.borrow();
        let ends = |partition: &TopicPartition| {
            let topic = state.topics.get(&partition.topic);
            let ends = topic.and_then(|topic| topic.watermarks(partition.partition));
            ends.map(Some).ok_or_else(|| BrokerError::Fatal(format!("the partition {partition} does not exist")))
        };
        partitions.iter().map(ends).collect()
    }

    fn offsets_at(
        &mut self,
        partitions: &[TopicPartition],
        timestamp_ms: i64,
    ) -> Result<Vec<Option<i64>>, BrokerError> {
        self.unanswered("the offsets of a time", 5000)?;
        let state = self.world.log.state.borrow();
        let offset = |partition: &TopicPartition| {
            let topic = state.topics.get(&partition.topic);
            let found = topic.and_then(|topic| topic.offset_at(partition.partition, timestamp_ms));
            found.map(Some).ok_or_else(|| BrokerError::Fatal(format!("the partition {partition} does not exist")))
        };
        partitions.iter().map(offset).collect()
    }

    fn commit(&mut self, offsets: &[OffsetCommit]) -> Result<bool, BrokerError> {
        self.world.step(&self.life, "a commit of offsets")?;
        // The identity as the client knows it at this moment: old, or none at all.
        let (group, mut state) = (self.group(), self.world.log.state.borrow_mut());
        if !state.groups.entry(self.group.clone()).or_default().admits(&group) {
            // As UNKNOWN_MEMBER_ID and ILLEGAL_GENERATION: offsets of a member that has been replaced.
            return Err(BrokerError::Abort(format!("{} is no member of this generation", self.member)));
        }
        state.commit_offsets(&self.group, offsets);
        Ok(true)
    }

    /// The producers that committed last are fenced, but never this worker's own.
    fn unblock(&mut self, partitions: &[TopicPartition]) {
        let state = self.world.log.state.borrow();
        let committed = |partition: &TopicPartition| state.groups.get(&self.group)?.committed(partition);
        let metadata = partitions.iter().filter_map(|partition| committed(partition)?.metadata);
        let ids: BTreeSet<_> = metadata.map(|metadata| metadata.transactional_id).collect();
        // Its own id is left alone: a takeover would abort what this worker has open.
        ids.iter().filter(|id| !id.is_empty() && **id != self.transactional_id).for_each(|id| self.world.succeed(id));
    }

    fn end_gone(&mut self, producers: BTreeSet<String>) {
        let is_gone = |id: &&String| !self.world.is_alive(&self.group, id);
        producers.iter().filter(is_gone).for_each(|id| self.world.succeed(id));
    }

    fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        self.world.step(&self.life, "a release")?;
        for partition in partitions {
            self.readings.remove(partition);
        }
        if let Some(group) = self.world.log.state.borrow_mut().groups.get_mut(&self.group) {
            group.release(&self.member, partitions);
        }
        // A process that dies here has given its partitions up and not learnt of it.
        self.world.step(&self.life, "the end of a release")
    }

    /// The newest generation that the client has heard of, which may not be the group's any more.
    fn group(&self) -> GroupMetadata {
        // Generation -1 and no name, as librdkafka gives them while the client is no member.
        let is_nameless = self.member.is_empty() || self.is_nameless || self.world.hits(Fault::Nameless);
        let (generation, member) =
            if is_nameless { (-1, String::new()) } else { (self.generation, self.member.clone()) };
        GroupMetadata { group: self.group.clone(), generation, member, instance: None }
    }

    fn close(&mut self) -> Result<(), BrokerError> {
        self.world.expel(&self.group, &self.member);
        Ok(())
    }
}
