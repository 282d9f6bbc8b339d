//! Records on their way to a broker.

use crate::event::message::{Header, TopicName};

/// A record to be sent, borrowed from where it was staged.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingRecord<'a> {
    /// The topic, which exists.
    pub topic: &'a TopicName,
    /// The partition, which exists.
    pub partition: i32,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// `None`: a null key.
    pub key: Option<&'a [u8]>,
    /// `None`: a tombstone.
    pub value: Option<&'a [u8]>,
    /// In order; a name may repeat.
    pub headers: &'a [Header],
    /// Where it ends up is told by `Producer::written`: a record of a changelog.
    pub tracked: bool,
}
