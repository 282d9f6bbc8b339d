//! The in-memory log: a real connector with topics, partitions, groups and transactions.
//!
//! It serves `--local` runs, tests and, with the faulty clients of [`sim`], the simulator. What
//! a reader sees is what a `read_committed` reader of Kafka sees: records of an open transaction hide
//! what comes after them, aborted ones never show, and each marker takes an offset.

mod admin;
mod changelog;
mod consumer;
mod coordinator;
mod group;
mod producer;
pub mod sim;
mod topic;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kaspr_ir::topics::{TOPIC_NAME_RULE, is_topic_name};

use crate::broker::partitioner::partition_for;
use crate::broker::{BrokerError, Committed};
use crate::event::message::{Event, Header, TopicName, TopicPartition};
use crate::event::shown;
use crate::wake::Bell;
use coordinator::Coordinator;
use group::Group;
use topic::{Stored, Topic};

pub use admin::LogAdmin;
pub use changelog::LogChangelog;
pub use consumer::LogConsumer;
pub use coordinator::Commit;
pub use producer::LogProducer;

/// The largest record that a topic of the log takes: Kafka's default `max.message.bytes`.
pub const MESSAGE_BYTES_MAX: usize = 1_048_588;

/// Brings records into the log while it is polled: the inputs of a local run.
pub trait Feed {
    /// Appends what has come, waiting at most `wait` for the first. Gives how many records came.
    fn pump(&mut self, log: &Log, wait: Duration) -> Result<usize, BrokerError>;

    /// Rings this bell from now on when something has come, and once at least for what came before.
    fn rings(&mut self, bell: &Arc<Bell>);
}

/// A record to append.
#[derive(Clone, Debug, Default)]
pub struct NewRecord {
    /// `None`: the key decides, null keys take turns.
    pub partition: Option<i32>,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// `None`: a null key.
    pub key: Option<Bytes>,
    /// `None`: a tombstone.
    pub value: Option<Bytes>,
    /// The headers, in order.
    pub headers: Vec<Header>,
}

/// A handle on a log. All handles of a log see the same records.
#[derive(Clone)]
pub struct Log {
    state: Rc<RefCell<State>>,
}

struct State {
    topics: BTreeMap<TopicName, Topic>,
    groups: BTreeMap<String, Group>,
    coordinator: Coordinator,
    /// Every commit since the last look, where a test looks.
    journal: Option<Vec<Commit>>,
    default_partitions: i32,
    auto_create: bool,
    members: u64,
}

impl Log {
    /// An empty log. Topics that are not created get `default_partitions` on their first use.
    pub fn new(default_partitions: i32) -> Log {
        let state = State {
            topics: BTreeMap::new(),
            groups: BTreeMap::new(),
            coordinator: Coordinator::default(),
            journal: None,
            default_partitions: default_partitions.max(1),
            auto_create: true,
            members: 0,
        };
        Log { state: Rc::new(RefCell::new(state)) }
    }

    /// A log whose topics exist only when they are created.
    pub fn without_auto_create(self) -> Log {
        self.state.borrow_mut().auto_create = false;
        self
    }

    /// Creates a topic; an existing one stays as it is.
    pub fn create(&self, name: &str, partitions: i32) {
        let mut state = self.state.borrow_mut();
        state.topics.entry(name.into()).or_insert_with(|| Topic::new(partitions));
        state.rebalance_all();
    }

    /// Gives a topic more partitions.
    pub fn grow(&self, name: &str, partitions: i32) {
        let mut state = self.state.borrow_mut();
        if let Some(topic) = state.topics.get_mut(name) {
            topic.grow(partitions);
        }
        state.rebalance_all();
    }

    /// A member of a group. It joins when it subscribes.
    pub fn consumer(&self, group: &str, instance: Option<&str>) -> LogConsumer {
        let mut state = self.state.borrow_mut();
        state.members += 1;
        let member = format!("member-{}", state.members);
        LogConsumer::new(self.clone(), group, member, instance)
    }

    /// A producer, transactional where it has an id.
    pub fn producer(&self, transactional_id: Option<&str>) -> LogProducer {
        LogProducer::new(self.clone(), transactional_id)
    }

    /// Reads changelogs.
    pub fn changelog(&self) -> LogChangelog {
        LogChangelog::new(self.clone())
    }

    /// Knows the log's topics.
    pub fn admin(&self) -> LogAdmin {
        LogAdmin::new(self.clone())
    }

    /// Appends a committed record; gives where it went. An unknown topic is created, if Kafka could
    /// have one of its name.
    pub fn append(&self, topic: &TopicName, record: NewRecord) -> Result<(i32, i64), BrokerError> {
        let mut state = self.state.borrow_mut();
        state.ensure(topic);
        let stored = state.topics.get_mut(topic);
        let stored = stored.ok_or_else(|| BrokerError::Fatal(no_topic(topic)))?;
        let partitions = stored.count();
        let partition = record
            .partition
            .unwrap_or_else(|| partition_for(record.key.as_deref(), partitions, stored.turn(record.key.is_none())));
        if !(0..partitions).contains(&partition) {
            return Err(BrokerError::Fatal(format!(
                "the topic \"{topic}\" has no partition {partition}: it has {partitions}"
            )));
        }
        let offset = stored.append(partition, Stored::appended(record));
        Ok((partition, offset))
    }

    /// Committed records of a partition from an offset on, and the offset after the last.
    pub fn read(&self, topic: &TopicName, partition: i32, from: i64, max: usize) -> (Vec<Event>, i64) {
        let state = self.state.borrow();
        let mut events = Vec::new();
        let next = match state.topics.get(topic) {
            Some(stored) => stored.read(topic, partition, from, max, &mut events),
            None => from,
        };
        (events, next)
    }

    /// As [`Log::read`], but only records that producers sent, none that were appended.
    pub fn read_sent(&self, topic: &TopicName, partition: i32, from: i64, max: usize) -> (Vec<Event>, i64) {
        let state = self.state.borrow();
        let mut events = Vec::new();
        let next = match state.topics.get(topic) {
            Some(stored) => stored.read_if(topic, partition, from, max, Stored::is_sent, &mut events),
            None => from,
        };
        (events, next)
    }

    /// Names and partition counts of all topics, sorted by name.
    pub fn topics(&self) -> Vec<(TopicName, i32)> {
        self.state.borrow().topics.iter().map(|(name, topic)| (name.clone(), topic.count())).collect()
    }

    /// The offset that a group has committed for a partition.
    pub fn committed(&self, group: &str, partition: &TopicPartition) -> Option<Committed> {
        self.state.borrow().groups.get(group)?.committed(partition)
    }

    /// Drops the records of a partition before an offset; offsets stay.
    pub fn forget_before(&self, partition: &TopicPartition, offset: i64) {
        if let Some(topic) = self.state.borrow_mut().topics.get_mut(&partition.topic) {
            topic.forget_before(partition.partition, offset);
        }
    }
}

impl State {
    /// Creates a topic on its first use; none with a name that Kafka cannot hold.
    fn ensure(&mut self, name: &TopicName) {
        if !self.topics.contains_key(name) && is_topic_name(name) {
            self.topics.insert(name.clone(), Topic::new(self.default_partitions));
            self.rebalance_all();
        }
    }

    /// A new topic may be one that a group reads.
    fn rebalance_all(&mut self) {
        let topics: Vec<_> = self.topics.iter().map(|(name, topic)| (name.clone(), topic.count())).collect();
        for group in self.groups.values_mut() {
            group.rebalance(&topics);
        }
    }

    /// Divides the partitions of one group.
    fn rebalance(&mut self, group: &str) {
        let topics: Vec<_> = self.topics.iter().map(|(name, topic)| (name.clone(), topic.count())).collect();
        if let Some(group) = self.groups.get_mut(group) {
            group.rebalance(&topics);
        }
    }
}

/// A name that no topic of the log has.
fn no_topic(name: &str) -> String {
    format!("\"{}\" is not the name of a topic: Kafka takes {TOPIC_NAME_RULE}", shown::name(name))
}

#[cfg(test)]
mod tests;
