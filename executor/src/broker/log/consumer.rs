//! A member of a group that reads the log.
//!
//! It sees the log as it is at the moment of each poll. A change of its group comes before any events, one step at
//! a poll: partitions to give up, then partitions to take. Dropping it leaves the group.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::broker::log::group::Step;
use crate::broker::log::{Feed, Log};
use crate::broker::{BrokerError, Change, Committed, Consumer, GroupMetadata, OffsetCommit, Subscription, Watermarks};
use crate::event::message::{Event, TopicPartition};
use crate::wake::Bell;

/// A consumer of the in-memory log.
///
/// Partitions in `positions` have been started; an assigned one that is missing there stands still. `paused` may
/// name partitions that have not started.
pub struct LogConsumer {
    log: Log,
    group: String,
    member: String,
    instance: Option<String>,
    /// The inputs of a local run; `None`: records come by [`Log::append`] and from producers alone.
    feed: Option<Box<dyn Feed>>,
    /// The next offset to read, of each partition that has started.
    positions: BTreeMap<TopicPartition, i64>,
    paused: BTreeSet<TopicPartition>,
    /// The partition that is read first at the next poll: they take turns.
    turn: usize,
}

impl LogConsumer {
    pub(super) fn new(log: Log, group: &str, member: String, instance: Option<&str>) -> LogConsumer {
        LogConsumer {
            log,
            group: group.to_owned(),
            member,
            instance: instance.map(str::to_owned),
            feed: None,
            positions: BTreeMap::new(),
            paused: BTreeSet::new(),
            turn: 0,
        }
    }

    /// Adds a feed: polls bring in what it has, and wait on it.
    pub fn with_feed(mut self, feed: Box<dyn Feed>) -> LogConsumer {
        self.feed = Some(feed);
        self
    }

    /// Takes what is there, of one partition after the other until `max` is reached. Another partition is first each
    /// time, so that one with much to read does not starve the rest.
    fn read(&mut self, max: usize, into: &mut Vec<Event>) {
        let state = self.log.state.borrow();
        let count = self.positions.len();
        self.turn = self.turn.wrapping_add(1);
        let first = if count == 0 { 0 } else { self.turn % count };
        let names: Vec<_> = self.positions.keys().cloned().collect();
        for name in names[first..].iter().chain(&names[..first]) {
            debug_assert!(into.len() <= max, "no more is read than there is room for");
            let left = max - into.len();
            if left == 0 {
                return;
            }
            if self.paused.contains(name) {
                continue;
            }
            // A position may be given for a topic that was never created: it stays where it is.
            let Some(topic) = state.topics.get(&name.topic) else {
                continue;
            };
            let position = self.positions.get_mut(name).expect("its name was just listed");
            *position = topic.read(&name.topic, name.partition, *position, left, into);
        }
    }

    /// Asks the group for this member's next step: it is made at the same moment.
    fn step(&mut self) -> Option<Change> {
        let mut state = self.log.state.borrow_mut();
        let step = state.groups.get_mut(&self.group)?.step(&self.member)?;
        Some(match step {
            Step::Take(partitions) => Change::Assigned(partitions),
            Step::GiveUp(partitions) => Change::Revoked(partitions),
        })
    }
}

impl Consumer for LogConsumer {
    fn subscribe(&mut self, topics: &[Subscription]) -> Result<(), BrokerError> {
        // Created before the member joins: its partitions are then there at the first poll.
        let mut state = self.log.state.borrow_mut();
        if state.auto_create {
            for topic in topics {
                if let Subscription::Topic(name) = topic {
                    state.ensure(name);
                }
            }
        }
        let group = state.groups.entry(self.group.clone()).or_default();
        group.join(&self.member, topics).map_err(|error| BrokerError::Fatal(error.to_string()))?;
        state.rebalance(&self.group);
        Ok(())
    }

    fn poll(&mut self, wait: Duration, max: usize, into: &mut Vec<Event>) -> Result<Option<Change>, BrokerError> {
        // Alone, and before anything is read that the change may be about.
        if let Some(change) = self.step() {
            return Ok(Some(change));
        }
        // The feed brings no more than is read, so records that are ahead stay where they are.
        self.read(max, into);
        if into.len() < max
            && let Some(feed) = &mut self.feed
        {
            // With something to hand over there is nothing to wait for.
            let wait = if into.is_empty() { wait } else { Duration::ZERO };
            feed.pump(&self.log, wait)?;
            self.read(max, into);
        }
        Ok(None)
    }

    fn start(&mut self, at: &[(TopicPartition, i64)]) -> Result<(), BrokerError> {
        for (partition, offset) in at {
            self.positions.insert(partition.clone(), *offset);
            self.paused.remove(partition);
        }
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        self.paused.extend(partitions.iter().cloned());
        Ok(())
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        for partition in partitions {
            self.paused.remove(partition);
        }
        Ok(())
    }

    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.positions.get(partition).copied()
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, BrokerError> {
        Ok(partitions.iter().map(|partition| self.log.committed(&self.group, partition)).collect())
    }

    fn ends(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Watermarks>>, BrokerError> {
        let state = self.log.state.borrow();
        let ends = |partition: &TopicPartition| {
            let topic = state.topics.get(&partition.topic);
            let ends = topic.and_then(|topic| topic.watermarks(partition.partition));
            ends.map(Some).ok_or_else(|| unknown(partition))
        };
        partitions.iter().map(ends).collect()
    }

    fn known_end(&self, partition: &TopicPartition) -> Option<i64> {
        let state = self.log.state.borrow();
        Some(state.topics.get(&partition.topic)?.watermarks(partition.partition)?.high)
    }

    fn offsets_at(
        &mut self,
        partitions: &[TopicPartition],
        timestamp_ms: i64,
    ) -> Result<Vec<Option<i64>>, BrokerError> {
        let state = self.log.state.borrow();
        let offset = |partition: &TopicPartition| {
            let topic = state.topics.get(&partition.topic);
            let offset = topic.and_then(|topic| topic.offset_at(partition.partition, timestamp_ms));
            offset.map(Some).ok_or_else(|| unknown(partition))
        };
        partitions.iter().map(offset).collect()
    }

    fn commit(&mut self, offsets: &[OffsetCommit]) -> Result<bool, BrokerError> {
        let mut state = self.log.state.borrow_mut();
        let group = state.groups.entry(self.group.clone()).or_default();
        // The generation itself is not compared: on one thread no rebalance comes between a poll and a commit.
        if group.generation(&self.member).is_none() {
            return Err(BrokerError::Abort(format!("{} is no member of {}", self.member, self.group)));
        }
        group.commit(offsets);
        Ok(true)
    }

    fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        for partition in partitions {
            self.positions.remove(partition);
            self.paused.remove(partition);
        }
        if let Some(group) = self.log.state.borrow_mut().groups.get_mut(&self.group) {
            group.release(&self.member, partitions);
        }
        Ok(())
    }

    fn group(&self) -> GroupMetadata {
        let state = self.log.state.borrow();
        let generation = state.groups.get(&self.group).and_then(|group| group.generation(&self.member));
        GroupMetadata {
            group: self.group.clone(),
            generation: generation.unwrap_or(0),
            member: self.member.clone(),
            instance: self.instance.clone(),
        }
    }

    fn rings(&mut self, bell: &Arc<Bell>) -> bool {
        self.feed.as_mut().is_some_and(|feed| {
            // Without a feed nothing can come while the worker sleeps: it is the only thread that writes.
            feed.rings(bell);
            true
        })
    }

    fn close(&mut self) -> Result<(), BrokerError> {
        let mut state = self.log.state.borrow_mut();
        if let Some(group) = state.groups.get_mut(&self.group) {
            // Its partitions go to the others as soon as they are divided below.
            group.leave(&self.member);
        }
        state.rebalance(&self.group);
        Ok(())
    }
}

impl Drop for LogConsumer {
    /// Leaves the group at once, also when its process dies: the log has no session timeout.
    fn drop(&mut self) {
        // If the log is being changed right now, it is ending too.
        if let Ok(mut state) = self.log.state.try_borrow_mut() {
            if let Some(group) = state.groups.get_mut(&self.group) {
                group.leave(&self.member);
            }
            state.rebalance(&self.group);
        }
    }
}

fn unknown(partition: &TopicPartition) -> BrokerError {
    BrokerError::Fatal(format!("the partition {partition} does not exist"))
}
