//! A consumer's queue: messages become events, many in one call, and all else that lies in it goes to the client's
//! context.
//!
//! rdkafka's own poll does the same one message at a time, for two looks at the clock and an allocation each. A call of
//! librdkafka's that fills an array with messages would cost less still, but it answers a change of partitions by giving
//! all of them up, unless the client was made with callbacks.

use std::ffi::CStr;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use rdkafka_sys as native;

use super::events::Names;
use super::raw::{NO_ERROR, headers, lent, milliseconds};
use super::reports;
use crate::config::QUEUED_BYTES_HIGH;
use crate::event::message::Event;

/// Bytes of events after which no more are taken at once: as many as may wait of a partition before it is paused. The
/// client fetches on meanwhile, so a queue of large records would never be empty.
const TAKEN_BYTES_MAX: usize = QUEUED_BYTES_HIGH;

/// The queue of a consumer.
pub(super) struct Inbox {
    queue: *mut native::rd_kafka_queue_t,
}

impl Inbox {
    /// The queue of a consumer, which lives longer.
    pub(super) fn of<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Inbox {
        // SAFETY: the client lives through the call; `drop` gives the handle back.
        Inbox { queue: unsafe { native::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) } }
    }

    /// True if something waits to be taken. Events, errors and changes of partitions count alike.
    pub(super) fn has_more(&self) -> bool {
        // SAFETY: the queue is this value's.
        unsafe { native::rd_kafka_queue_length(self.queue) > 0 }
    }

    /// Takes events until there are `max` or nothing is left; waits at most `wait` for the first. Ends early with
    /// [`TAKEN_BYTES_MAX`], after a change of partitions, and with an error that comes in the place of a message: the
    /// next call goes on behind it.
    pub(super) fn take<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        wait: Duration,
        max: usize,
        names: &mut Names,
        into: &mut Vec<Event>,
    ) -> Result<(), KafkaError> {
        let (mut wait_ms, mut bytes) = (milliseconds(wait), 0);
        while into.len() < max && bytes < TAKEN_BYTES_MAX {
            // SAFETY: the queue is this value's, and its client lives. The event is given back once it was looked at.
            let noted = unsafe {
                let taken = native::rd_kafka_queue_poll(self.queue, wait_ms);
                if taken.is_null() {
                    return Ok(());
                }
                let noted = match native::rd_kafka_event_type(taken) {
                    native::RD_KAFKA_EVENT_FETCH => message(taken, names).map(|event| {
                        bytes += event.as_ref().map_or(0, Event::size);
                        into.extend(event);
                        false
                    }),
                    native::RD_KAFKA_EVENT_REBALANCE => {
                        rebalance(consumer, taken);
                        Ok(true)
                    }
                    _ => note(consumer, taken).map(|()| false),
                };
                native::rd_kafka_event_destroy(taken);
                noted
            };
            if noted? {
                return Ok(());
            }
            wait_ms = 0;
        }
        Ok(())
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        // SAFETY: the handle is this value's.
        unsafe { native::rd_kafka_queue_destroy(self.queue) };
    }
}

/// The event in a message, copied: the client's buffer of a fetch would stay as long as any event of it waits. One
/// without a timestamp has the time 0.
///
/// # Safety
/// `taken` is a live event with a message.
unsafe fn message(taken: *mut native::rd_kafka_event_t, names: &mut Names) -> Result<Option<Event>, KafkaError> {
    // SAFETY: the caller's promise; the message, its topic and its bytes are the event's.
    unsafe {
        let Some(message) = native::rd_kafka_event_message_next(taken).as_ref() else { return Ok(None) };
        if message.err != NO_ERROR {
            return Err(KafkaError::MessageConsumption(message.err.into()));
        }
        let topic = CStr::from_ptr(native::rd_kafka_topic_name(message.rkt));
        let mut kind = native::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        let timestamp_ms = native::rd_kafka_message_timestamp(message, &mut kind);
        let has_time = kind != native::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        Ok(Some(Event {
            topic: names.name(topic.to_str().unwrap_or_default()),
            partition: message.partition,
            slot: 0,
            offset: message.offset,
            timestamp_ms: if has_time { timestamp_ms.max(0) } else { 0 },
            key: lent(message.key, message.key_len).map(Bytes::copy_from_slice),
            value: lent(message.payload, message.len).map(Bytes::copy_from_slice),
            headers: headers(message),
        }))
    }
}

/// Gives a change of partitions to the client's context.
///
/// # Safety
/// `taken` is a live event of the consumer, of a change.
unsafe fn rebalance<C: ConsumerContext>(consumer: &BaseConsumer<C>, taken: *mut native::rd_kafka_event_t) {
    // SAFETY: the caller's promise; the list is the event's, and its names end with a zero byte.
    let (code, elements) = unsafe {
        let list = native::rd_kafka_event_topic_partition_list(taken);
        let is_empty = list.is_null() || (*list).elems.is_null();
        let count = if is_empty { 0 } else { usize::try_from((*list).cnt).unwrap_or(0) };
        let elements = if count == 0 { &[] } else { std::slice::from_raw_parts((*list).elems, count) };
        (native::rd_kafka_event_error(taken), elements)
    };
    let mut list = TopicPartitionList::with_capacity(elements.len());
    for element in elements {
        // SAFETY: as above.
        let topic = unsafe { CStr::from_ptr(element.topic) };
        list.add_partition(topic.to_str().unwrap_or_default(), element.partition);
    }
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS as ASSIGN, RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS as REVOKE,
    };
    if matches!(code, ASSIGN | REVOKE) {
        consumer.client().context().rebalance(consumer, code, &mut list);
    }
}

/// Gives an event that is no message to the client's context. An error is given back as well.
///
/// # Safety
/// `taken` is a live event of the consumer.
unsafe fn note<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    taken: *mut native::rd_kafka_event_t,
) -> Result<(), KafkaError> {
    // SAFETY: the caller's promise.
    let (kind, code, is_fatal) = unsafe {
        reports::note(consumer.client(), taken);
        (
            native::rd_kafka_event_type(taken),
            native::rd_kafka_event_error(taken),
            native::rd_kafka_event_error_is_fatal(taken) != 0,
        )
    };
    match kind == native::RD_KAFKA_EVENT_ERROR && code != NO_ERROR {
        true if is_fatal => Err(KafkaError::MessageConsumptionFatal(code.into())),
        true => Err(KafkaError::MessageConsumption(code.into())),
        false => Ok(()),
    }
}
