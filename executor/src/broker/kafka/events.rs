//! Turns messages of the client into events.
//!
//! Bytes are copied once, here: the client's buffer of a fetch would stay as long as any event of it waits.

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Message};
use rustc_hash::FxHashSet;

use super::raw;
use crate::event::message::{Event, TopicName};

/// An event as the client gave it.
///
/// A message without a timestamp has the time 0. `topics` and `last` are the caller's, see [`name`].
pub fn event(message: &BorrowedMessage<'_>, topics: &mut FxHashSet<TopicName>, last: &mut TopicName) -> Event {
    Event {
        topic: name(topics, last, message.topic()),
        partition: message.partition(),
        slot: 0,
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or_default(),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        headers: raw::headers(message),
    }
}

/// A name that many events share.
///
/// `topics` keeps every name that was seen, `last` the one before: most messages are of the same topic as that, and
/// cost one comparison and no hash.
pub fn name(topics: &mut FxHashSet<TopicName>, last: &mut TopicName, topic: &str) -> TopicName {
    if **last != *topic {
        *last = match topics.get(topic) {
            Some(known) => known.clone(),
            None => {
                let new: TopicName = topic.into();
                topics.insert(new.clone());
                new
            }
        };
    }
    last.clone()
}
