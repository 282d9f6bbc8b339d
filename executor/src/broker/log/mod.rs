//! The in-memory log: a real connector with topics, partitions, groups and transactions.
//!
//! It serves `--local` runs, tests and, with the faulty clients of [`sim`], the simulator. What
//! a reader sees is what a `read_committed` reader of Kafka sees: records of an open transaction hide
//! what comes after them, aborted ones never show, and each marker takes an offset.
//!
//! ```text
//! Log (handle) ─▶ State ─┬─ topics: partitions, each a list of records and markers       topic
//!                        ├─ groups: members, their partitions, committed offsets         group
//!                        └─ coordinator: transactional ids, epochs, open transactions    coordinator
//! ```
//!
//! The clients ([`LogConsumer`], [`LogProducer`], [`LogChangelog`], [`LogAdmin`]) hold a handle each and change the
//! state at once, in the call: nothing is on its way, so nothing is lost or late. There is no thread, no timer and
//! no disk; the log goes with its last handle. Offsets begin at 0 and have no gaps but those of
//! [`Log::forget_before`].

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
///
/// Polled by the [`LogConsumer`] that it was given to, when it has read what the log holds.
pub trait Feed {
    /// Appends what has come, waiting at most `wait` for the first. Gives how many records came.
    ///
    /// An error ends the run: a file that cannot be read, for example.
    fn pump(&mut self, log: &Log, wait: Duration) -> Result<usize, BrokerError>;

    /// Rings this bell from now on when something has come, and once at least for what came before.
    fn rings(&mut self, bell: &Arc<Bell>);
}

/// A record to append.
///
/// The default is a record with a null key and no value, at the time 0.
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
///
/// A log belongs to one thread. No call keeps the state borrowed beyond its end, and none holds it while a [`Feed`]
/// is pumped, which appends to the same log.
#[derive(Clone)]
pub struct Log {
    state: Rc<RefCell<State>>,
}

/// Everything that brokers of a cluster would keep.
struct State {
    topics: BTreeMap<TopicName, Topic>,
    groups: BTreeMap<String, Group>,
    coordinator: Coordinator,
    /// Every commit since the last look, where a test looks.
    journal: Option<Vec<Commit>>,
    /// Partitions of a topic that is created on its first use; at least 1.
    default_partitions: i32,
    /// True if a topic that is named by a client is created.
    auto_create: bool,
    /// Members so far, for names that no member had before.
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
    ///
    /// Fewer than one partition count as one. Groups that read it by a pattern get its partitions at their next
    /// polls.
    pub fn create(&self, name: &str, partitions: i32) {
        let mut state = self.state.borrow_mut();
        state.topics.entry(name.into()).or_insert_with(|| Topic::new(partitions));
        state.rebalance_all();
    }

    /// Gives a topic more partitions.
    ///
    /// Keys that are placed by their hash move from here on, as in Kafka; records that are there stay where they
    /// are.
    pub fn grow(&self, name: &str, partitions: i32) {
        let mut state = self.state.borrow_mut();
        if let Some(topic) = state.topics.get_mut(name) {
            topic.grow(partitions);
        }
        state.rebalance_all();
    }

    /// A member of a group. It joins when it subscribes.
    ///
    /// Every call makes another member, whatever its instance: the log has no static membership.
    pub fn consumer(&self, group: &str, instance: Option<&str>) -> LogConsumer {
        let mut state = self.state.borrow_mut();
        state.members += 1;
        let member = format!("member-{}", state.members);
        LogConsumer::new(self.clone(), group, member, instance)
    }

    /// A producer, transactional where it has an id.
    ///
    /// With an id, [`crate::broker::Producer::init_transactions`] comes before the first record.
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
    ///
    /// Gives the partition and the offset. The record comes from outside: it belongs to no transaction, and
    /// [`Log::read_sent`] passes it over. An error names the topic or the partition that does not exist.
    pub fn append(&self, topic: &TopicName, record: NewRecord) -> Result<(i32, i64), BrokerError> {
        let mut state = self.state.borrow_mut();
        state.ensure(topic);
        let stored = state.topics.get_mut(topic);
        let stored = stored.ok_or_else(|| BrokerError::Fatal(no_topic(topic)))?;
        let partitions = stored.count();
        let partition = record
            .partition
            // The worker's own partitioner, so that inputs of a local run lie where Kafka would put them.
            .unwrap_or_else(|| partition_for(record.key.as_deref(), partitions, stored.turn(record.key.is_none())));
        // A partition that an input names may be any number.
        if !(0..partitions).contains(&partition) {
            return Err(BrokerError::Fatal(format!(
                "the topic \"{topic}\" has no partition {partition}: it has {partitions}"
            )));
        }
        let offset = stored.append(partition, Stored::appended(record));
        Ok((partition, offset))
    }

    /// Committed records of a partition from an offset on, and the offset after the last.
    ///
    /// Gives `max` records at most, those that a `read_committed` reader sees: it stops before the first open
    /// transaction. The next call begins at the offset that is given; a partition that does not exist gives `from`.
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
    ///
    /// A local run prints these: its inputs are in the same log.
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
    ///
    /// Offsets in transactions that are still open do not show.
    pub fn committed(&self, group: &str, partition: &TopicPartition) -> Option<Committed> {
        self.state.borrow().groups.get(group)?.committed(partition)
    }

    /// Drops the records of a partition before an offset; offsets stay.
    ///
    /// As retention does. It stops before the first open transaction, however large the offset.
    pub fn forget_before(&self, partition: &TopicPartition, offset: i64) {
        if let Some(topic) = self.state.borrow_mut().topics.get_mut(&partition.topic) {
            topic.forget_before(partition.partition, offset);
        }
    }
}

impl State {
    /// Creates a topic on its first use; none with a name that Kafka cannot hold.
    ///
    /// Names come from payloads too, so a name that Kafka refuses makes no topic here either.
    fn ensure(&mut self, name: &TopicName) {
        if !self.topics.contains_key(name) && is_topic_name(name) {
            // The groups learn of it at once, where Kafka's members would find it at their next look at the metadata.
            self.topics.insert(name.clone(), Topic::new(self.default_partitions));
            self.rebalance_all();
        }
    }

    /// A new topic may be one that a group reads.
    ///
    /// So all groups divide again, those too that read nothing of it: their partitions stay.
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
///
/// Names it escaped and cut: it may be any text.
fn no_topic(name: &str) -> String {
    format!("\"{}\" is not the name of a topic: Kafka takes {TOPIC_NAME_RULE}", shown::name(name))
}

#[cfg(test)]
mod tests;
