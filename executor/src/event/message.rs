//! Events as Kafka gives them and the names of the places they come from.
//!
//! An *event* is immutable and shared: every reader of its topic, the batch it is in and the user's
//! `context["event"]` see the same one.

use std::rc::Rc;

use bytes::Bytes;

/// A topic's name. Cloned freely: a worker is one thread.
pub type TopicName = Rc<str>;

/// A header: its name and its bytes, `None` for Kafka's null.
pub type Header = (String, Option<Bytes>);

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicName,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Partition `partition` of `topic`.
    pub fn new(topic: impl Into<TopicName>, partition: i32) -> TopicPartition {
        TopicPartition { topic: topic.into(), partition }
    }
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// A message as Kafka gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The topic it was read from.
    pub topic: TopicName,
    /// The partition it was read from.
    pub partition: i32,
    /// The worker's number of that partition, which it writes here when it takes the event in: all that it
    /// keeps per partition is found by it. Connectors leave it 0.
    pub slot: usize,
    /// Its offset there.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// `None`: a null key.
    pub key: Option<Bytes>,
    /// `None`: a tombstone.
    pub value: Option<Bytes>,
    /// Headers in the order in which they were written; a name may repeat.
    pub headers: Vec<Header>,
}

impl Event {
    /// The partition that the event was read from.
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition { topic: self.topic.clone(), partition: self.partition }
    }

    /// Bytes that it holds in memory, for the bounds on queues and windows.
    pub fn size(&self) -> usize {
        // Allocations are not counted, only bytes: the bounds are about payloads, which outweigh them.
        let headers: usize =
            self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len)).sum();
        let value = self.value.as_ref().map_or(0, Bytes::len);
        headers + value + self.key.as_ref().map_or(0, Bytes::len) + std::mem::size_of::<Event>()
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}@{}", self.topic, self.partition, self.offset)
    }
}
