//! Records on their way to a broker.

use crate::event::message::{Header, TopicName};

/// A record to be sent, borrowed from the effects in which it is staged.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingRecord<'a> {
    /// The topic, which exists.
    pub topic: &'a TopicName,
    /// The partition, which exists.
    pub partition: i32,
    /// The time at which it was staged, in ms since 1970. Kafka's client takes the time at which it is handed over
    /// instead.
    pub timestamp_ms: i64,
    /// `None`: a null key.
    pub key: Option<&'a [u8]>,
    /// `None`: a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers in order; a name may repeat.
    pub headers: &'a [Header],
    /// True for a record of a changelog: `Producer::written` returns the offset that it gets.
    pub tracked: bool,
}
