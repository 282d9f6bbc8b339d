//! The first and last offsets of partitions, or those of a time: one question for many, asked of each
//! leader once (KIP-396's ListOffsets).
//!
//! On a connection that fetches, an answer waits for the fetch under way, half a second in a quiet partition:
//! so a caller that waits for answers asks over a client that does not fetch. On a client that fetches the
//! question has another use: it wakes the threads that fetch, and no caller waits for the answer.
//!
//! ```text
//! ask(question, partitions) ─▶ one request per leader ─▶ answer: the number of the question, its offsets
//! ```

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::ptr;
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use rdkafka_sys as native;

use super::errors::passes;
use crate::event::message::TopicPartition;
use crate::guard::Patience;

const NO_ERROR: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
/// The answer where a partition holds nothing since a time.
const NOTHING: i64 = -1;

/// The question that is asked of partitions.
///
/// One queue has each of them at most once: see [`Which::number`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The first offset that exists.
    First,
    /// The end of what is committed.
    End,
    /// The first offset whose record is at or after this time, in ms since 1970.
    Since(i64),
}

impl Which {
    /// The offset that stands for the question in the protocol.
    ///
    /// -2, -1 or the time itself.
    fn spec(self) -> i64 {
        match self {
            Which::First => native::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_EARLIEST as i64,
            Which::End => native::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST as i64,
            Which::Since(timestamp_ms) => timestamp_ms,
        }
    }

    /// Tells the answers of one queue apart.
    fn number(self) -> usize {
        match self {
            Which::First => 1,
            Which::End => 2,
            Which::Since(_) => 3,
        }
    }
}

/// The records that count for the end of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sees {
    /// Records before the first transaction that is open.
    Decided,
    /// All records.
    All,
}

/// An answer: offsets of the partitions that answered, `None` where a partition holds nothing since the time.
pub type Offsets = BTreeMap<(String, i32), Option<i64>>;

/// Questions of one client, and their answers. It must go before its client does.
///
/// Questions are answered in any order; [`ask_all`] sorts them.
#[derive(Debug)]
pub struct Questions {
    queue: *mut native::rd_kafka_queue_t,
}

impl Questions {
    /// Questions of a client that has asked nothing yet.
    pub fn new<C: ClientContext>(client: &Client<C>) -> Questions {
        // SAFETY: the client lives through the call.
        Questions { queue: unsafe { native::rd_kafka_queue_new(client.native_ptr()) } }
    }

    /// Asks, and does not wait. The client must be the one of [`Questions::new`].
    ///
    /// An answer comes in any case, within `wait` or a little later: that nothing came is an answer too.
    pub fn ask<C: ClientContext>(
        &mut self,
        client: &Client<C>,
        (which, sees): (Which, Sees),
        partitions: &[TopicPartition],
        wait: Duration,
    ) {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&partition.topic, partition.partition);
        }
        let wait = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: client, list and queue live through the calls, which copy what they keep; the elements are
        // the list's. The options are made and destroyed here, and so is an error of theirs.
        unsafe {
            let raw = list.ptr();
            let count = usize::try_from((*raw).cnt).unwrap_or(0);
            for element in std::slice::from_raw_parts_mut((*raw).elems, count) {
                element.offset = which.spec();
            }
            let client = client.native_ptr();
            let kind = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS;
            let options = native::rd_kafka_AdminOptions_new(client, kind);
            use native::rd_kafka_IsolationLevel_t as Level;
            let level = match sees {
                Sees::Decided => Level::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED,
                Sees::All => Level::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
            };
            let refused = native::rd_kafka_AdminOptions_set_isolation_level(options, level);
            if !refused.is_null() {
                native::rd_kafka_error_destroy(refused);
            }
            native::rd_kafka_AdminOptions_set_request_timeout(options, wait, ptr::null_mut(), 0);
            // The number travels as a pointer that is never followed.
            native::rd_kafka_AdminOptions_set_opaque(options, which.number() as *mut _);
            native::rd_kafka_ListOffsets(client, raw, options, self.queue);
            native::rd_kafka_AdminOptions_destroy(options);
        }
    }

    /// The next answer, and the number of its question; waits at most `wait` for it. A partition that does
    /// not answer for now is not among its offsets.
    pub fn answer(&mut self, wait: Duration) -> Option<(usize, Result<Offsets, KafkaError>)> {
        let wait = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: queue and event belong to this side; the event is destroyed after its last use.
        unsafe {
            let event = native::rd_kafka_queue_poll(self.queue, wait);
            if event.is_null() {
                return None;
            }
            let answer = (native::rd_kafka_event_opaque(event) as usize, offsets(event));
            native::rd_kafka_event_destroy(event);
            Some(answer)
        }
    }
}

impl Drop for Questions {
    fn drop(&mut self) {
        // SAFETY: the queue belongs to this value, and what still comes to it is dropped with it.
        unsafe { native::rd_kafka_queue_destroy(self.queue) };
    }
}

/// Asks, and waits for the answers in the order of the questions.
///
/// An error of one fails all. Waits up to twice `wait` for each answer.
pub fn ask_all<C: ClientContext>(
    client: &Client<C>,
    asked: &[(Which, Sees)],
    partitions: &[TopicPartition],
    (wait, patience): (Duration, &Patience),
) -> Result<Vec<Offsets>, KafkaError> {
    let mut questions = Questions::new(client);
    for question in asked {
        questions.ask(client, *question, partitions, wait);
    }
    let mut answers = BTreeMap::new();
    while answers.len() < asked.len() {
        // The client itself ends the question when the time is over; it may be late.
        let (number, answer) = patience
            .wait(2 * wait, |look| questions.answer(look))
            .ok_or(KafkaError::AdminOp(Code::OperationTimedOut))?;
        answers.insert(number, answer?);
    }
    Ok(asked.iter().filter_map(|(which, _)| answers.remove(&which.number())).collect())
}

/// The offsets in an answer.
///
/// # Safety
/// `event` is a live event.
///
/// Partitions whose error passes are left out.
unsafe fn offsets(event: *mut native::rd_kafka_event_t) -> Result<Offsets, KafkaError> {
    let mut offsets = Offsets::new();
    // SAFETY: the caller's promise; everything that is read is the event's.
    unsafe {
        match native::rd_kafka_event_error(event) {
            NO_ERROR => {}
            // No partition has a leader.
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__NOENT => return Ok(offsets),
            code => return Err(KafkaError::AdminOp(code.into())),
        }
        let result = native::rd_kafka_event_ListOffsets_result(event);
        if result.is_null() {
            return Err(KafkaError::AdminOp(Code::InvalidArgument));
        }
        let mut count = 0;
        let infos = native::rd_kafka_ListOffsets_result_infos(result, &mut count);
        if infos.is_null() {
            return Ok(offsets);
        }
        for info in std::slice::from_raw_parts(infos, count) {
            let element = &*native::rd_kafka_ListOffsetsResultInfo_topic_partition(*info);
            let topic = CStr::from_ptr(element.topic).to_string_lossy().into_owned();
            let code = Code::from(element.err);
            // One that passes leaves its partition out, and the others have their answers.
            if element.err != NO_ERROR && !passes(code) {
                return Err(KafkaError::AdminOp(code));
            }
            // Where a leader has not answered, the offset is a logical one and no error.
            if element.err == NO_ERROR && element.offset >= NOTHING {
                offsets.insert((topic, element.partition), Some(element.offset).filter(|offset| *offset != NOTHING));
            }
        }
    }
    Ok(offsets)
}
