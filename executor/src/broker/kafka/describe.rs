//! Questions about topics that rdkafka's safe wrapper does not ask: what this user may do with them, and which
//! topic a name stands for. Those about groups have a file of their own, `groups`.
//!
//! ```text
//! ask ─▶ a queue and options of its own ─▶ send ─▶ poll the queue, `wait` at most ─▶ Answer, read while it lives
//! ```

use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::producer::Producer as _;
use rdkafka::types::RDKafkaRespErr;
use rdkafka_sys as native;

use super::client::Client;
use super::raw::milliseconds;
use crate::broker::{Access, Seen};
use crate::guard::Patience;

const NO_ERROR: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;

type Description = *const native::rd_kafka_TopicDescription_t;

/// Says what this user may do with a topic; `None` where the broker does not.
///
/// A topic that may not even be described allows nothing.
pub fn access(client: &Client, topic: &str, wait: Duration) -> Option<Access> {
    let read = |description| {
        let mut count = 0;
        // SAFETY: the description lives through the call, and the list is its.
        let list = unsafe { native::rd_kafka_TopicDescription_authorized_operations(description, &mut count) };
        // SAFETY: librdkafka's own list and count.
        unsafe { allowed(list, count) }
    };
    match describe_topics(client, &[topic], wait, read)?.pop()? {
        Ok(access) => access,
        // The broker does not even say that it exists.
        Err(Code::TopicAuthorizationFailed) => Some(Access::default()),
        Err(_) => None,
    }
}

/// The id that a topic was given when it was made (KIP-516), empty where it has none; `None`: no answer.
///
/// As base64, 22 characters. A recreated topic has another one.
pub fn topic_id(client: &Client, topic: &str, wait: Duration) -> Option<String> {
    describe_topics(client, &[topic], wait, identity)?.pop()?.ok()
}

/// Partitions and identity of topics, in their order, `None` for those that do not exist; no answer: `None`.
///
/// An error of one topic, other than that it does not exist, makes the whole answer `None`: the caller asks again
/// later.
pub fn look<T: AsRef<str>>(client: &Client, topics: &[T], wait: Duration) -> Option<Vec<Option<Seen>>> {
    let names: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
    let read = |description| {
        let mut count = 0;
        // SAFETY: the description lives through the calls.
        unsafe { native::rd_kafka_TopicDescription_partitions(description, &mut count) };
        Seen { partitions: i32::try_from(count).unwrap_or(i32::MAX), identity: identity(description) }
    };
    let seen = describe_topics(client, &names, wait, read)?.into_iter().map(|seen| match seen {
        Ok(seen) => Some(Some(seen)),
        Err(Code::UnknownTopicOrPartition) => Some(None),
        Err(_) => None,
    });
    seen.collect()
}

/// Reads a list of what is allowed.
///
/// # Safety
/// `list` is null, or points to so many operations.
///
/// `None` for a null list: brokers leave it out where the question was not allowed. ALL stands for both uses.
pub(super) unsafe fn allowed(list: *const native::rd_kafka_AclOperation_t, count: usize) -> Option<Access> {
    use native::rd_kafka_AclOperation_t as Native;
    if list.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let operations = unsafe { std::slice::from_raw_parts(list, count) };
    let may = |operation| operations.iter().any(|&one| one == operation || one == Native::RD_KAFKA_ACL_OPERATION_ALL);
    Some(Access { read: may(Native::RD_KAFKA_ACL_OPERATION_READ), write: may(Native::RD_KAFKA_ACL_OPERATION_WRITE) })
}

/// The topic's id as text; empty where the broker has none.
fn identity(description: Description) -> String {
    // SAFETY: the description lives through the calls, and id and text are its.
    let text = unsafe {
        let id = native::rd_kafka_TopicDescription_topic_id(description);
        let text = if id.is_null() { ptr::null() } else { native::rd_kafka_Uuid_base64str(id) };
        if text.is_null() {
            return String::new();
        }
        CStr::from_ptr(text)
    };
    text.to_string_lossy().into_owned()
}

/// An answer, which is given back at its end.
pub(super) struct Answer(pub(super) *mut native::rd_kafka_event_t);

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: the event belongs to this value.
        unsafe { native::rd_kafka_event_destroy(self.0) };
    }
}

/// Sends a question with `send`, and waits for its answer. The question itself stays open for `open_ms`.
///
/// # Safety
/// `client` lives through the call.
///
/// `None`: no answer within `wait`. With permissions, where the question has any.
pub(super) unsafe fn ask(
    client: *mut native::rd_kafka_t,
    kind: native::rd_kafka_admin_op_t,
    (wait, patience): (Duration, &Patience),
    open_ms: i32,
    send: impl FnOnce(*mut native::rd_kafka_t, *const native::rd_kafka_AdminOptions_t, *mut native::rd_kafka_queue_t),
) -> Option<Answer> {
    // SAFETY: the caller's promise; what is made here is given back here, but for the answer.
    unsafe {
        let queue = native::rd_kafka_queue_new(client);
        let options = native::rd_kafka_AdminOptions_new(client, kind);
        let refused = native::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
        if !refused.is_null() {
            native::rd_kafka_error_destroy(refused);
        }
        // Longer than `wait` for questions that must not end before their answer, see `groups`.
        native::rd_kafka_AdminOptions_set_request_timeout(options, open_ms, ptr::null_mut(), 0);
        send(client, options, queue);
        let answer = patience.wait(wait, |look| {
            let event = native::rd_kafka_queue_poll(queue, milliseconds(look));
            (!event.is_null()).then_some(Answer(event))
        });
        native::rd_kafka_AdminOptions_destroy(options);
        native::rd_kafka_queue_destroy(queue);
        answer
    }
}

/// Asks about topics; `read` sees each that exists, and the others give the error. `None`: no answer.
///
/// In the order of `topics`. A name with a zero byte cannot be asked for: `None`, too.
fn describe_topics<T>(
    client: &Client,
    topics: &[&str],
    wait: Duration,
    read: impl Fn(Description) -> T,
) -> Option<Vec<Result<T, Code>>> {
    let names: Vec<CString> = topics.iter().map(|topic| CString::new(*topic)).collect::<Result<_, _>>().ok()?;
    let mut starts: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let kind = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    // SAFETY: client and names live through the calls, which copy them; the collection is given back.
    let answer = unsafe {
        let waits = (wait, &client.context().patience);
        ask(client.client().native_ptr(), kind, waits, milliseconds(wait), |client, options, queue| {
            let collection = native::rd_kafka_TopicCollection_of_topic_names(starts.as_mut_ptr(), starts.len());
            native::rd_kafka_DescribeTopics(client, collection, options, queue);
            native::rd_kafka_TopicCollection_destroy(collection);
        })
    }?;
    // SAFETY: the answer lives through the calls, and all that is read is its.
    unsafe {
        if native::rd_kafka_event_error(answer.0) != NO_ERROR {
            return None;
        }
        let result = native::rd_kafka_event_DescribeTopics_result(answer.0);
        if result.is_null() {
            return None;
        }
        let mut count = 0;
        let topics = native::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if topics.is_null() {
            return None;
        }
        let topics = std::slice::from_raw_parts(topics, count);
        names.iter().map(|name| described(topics, name, &read)).collect()
    }
}

/// Reads the description of one topic; `None`: there is none.
///
/// # Safety
/// `topics` are live descriptions.
unsafe fn described<T>(
    topics: &[Description],
    name: &CStr,
    read: impl Fn(Description) -> T,
) -> Option<Result<T, Code>> {
    // SAFETY: the caller's promise; name and error are the description's.
    unsafe {
        let is_named = |topic: Description| CStr::from_ptr(native::rd_kafka_TopicDescription_name(topic)) == name;
        let topic = topics.iter().copied().find(|topic| is_named(*topic))?;
        let error = native::rd_kafka_TopicDescription_error(topic);
        let code = if error.is_null() { NO_ERROR } else { native::rd_kafka_error_code(error) };
        Some(if code == NO_ERROR { Ok(read(topic)) } else { Err(code.into()) })
    }
}
