//! Calls to librdkafka itself, for what rdkafka's safe wrapper hides or cannot do without a panic on odd
//! data. Questions for offsets and about topics and groups have files of their own: `offsets`, `describe` and `groups`.
//!
//! Each call states what it relies on. Nothing here keeps a pointer beyond a call, but for [`Hung`], which outlives its
//! queue, and [`Commits`], which goes before its client.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use rdkafka_sys as native;

use super::context::MemberContext;
use super::errors::TransactionError;
use super::tokens::Token;
use crate::broker::GroupMetadata;
use crate::event::message::{Header, TopicPartition};
use crate::wake::Bell;

pub(super) const NO_ERROR: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;

/// Bytes that librdkafka lends, `None` for its null.
///
/// # Safety
/// `start` is null or points to `length` bytes that live through the call.
pub(super) unsafe fn lent<'a>(start: *const c_void, length: usize) -> Option<&'a [u8]> {
    if start.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { std::slice::from_raw_parts(start.cast(), length) })
}

/// Gives a client a token by which it proves who it is, before it asks for one.
///
/// An error, in librdkafka's words: it takes none, or not this one.
pub fn set_token<C: ClientContext>(client: &Client<C>, token: &Token) -> Result<(), String> {
    let text = |text: &str| CString::new(text).map_err(|error| error.to_string());
    let (value, principal) = (text(token.value.expose())?, text(&token.principal)?);
    let mut why = [0 as c_char; 256];
    // SAFETY: client, texts and buffer live through the call, which copies the texts; there are no extensions.
    let code = unsafe {
        native::rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            value.as_ptr(),
            token.expires_ms,
            principal.as_ptr(),
            ptr::null_mut(),
            0,
            why.as_mut_ptr(),
            why.len(),
        )
    };
    if code == NO_ERROR {
        return Ok(());
    }
    // SAFETY: librdkafka ends its words with a zero.
    Err(unsafe { CStr::from_ptr(why.as_ptr()) }.to_string_lossy().into_owned())
}

/// A message's headers. Names that are no UTF-8 are read as well as they can be.
///
/// In their order, repeated names too; `None` for a null value. rdkafka's own reading panics on a name that is no
/// UTF-8.
pub(super) fn headers(message: &native::rd_kafka_message_t) -> Vec<Header> {
    let mut headers = Vec::new();
    let mut list = ptr::null_mut();
    // SAFETY: the message lives through the call; the list stays the message's.
    if unsafe { native::rd_kafka_message_headers(message, &mut list) } != NO_ERROR {
        return headers;
    }
    for number in 0.. {
        let (mut name, mut value, mut size): (*const c_char, *const c_void, usize) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the list is the message's, and name and value live as long as it does.
        let (found, name, value) = unsafe {
            let found = native::rd_kafka_header_get_all(list, number, &mut name, &mut value, &mut size);
            if found != NO_ERROR {
                break;
            }
            (found, CStr::from_ptr(name), lent(value, size))
        };
        debug_assert_eq!(found, NO_ERROR);
        headers.push((name.to_string_lossy().into_owned(), value.map(Bytes::copy_from_slice)));
    }
    headers
}

/// The metadata of a partition in a list of committed offsets.
///
/// Empty where the partition has none. rdkafka's own reading panics on bytes that are no UTF-8.
pub fn metadata(list: &TopicPartitionList, partition: &TopicPartition) -> String {
    // SAFETY: the list lives through the call and is not changed in it.
    let elements = unsafe { std::slice::from_raw_parts((*list.ptr()).elems, list.count()) };
    let found = elements.iter().find(|element| {
        // SAFETY: librdkafka ends names with a zero byte.
        let topic = unsafe { CStr::from_ptr(element.topic) };
        element.partition == partition.partition && topic.to_bytes() == partition.topic.as_bytes()
    });
    let Some(element) = found else { return String::new() };
    // SAFETY: the metadata is the element's.
    let bytes = unsafe { lent(element.metadata, element.metadata_size) };
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

/// Fills in the next offsets that the consumer gives.
///
/// False: the client refuses the question. A partition without a position keeps a logical offset.
pub fn fill_positions<C: ConsumerContext>(consumer: &BaseConsumer<C>, list: &TopicPartitionList) -> bool {
    // SAFETY: client and list live through the call, which writes the list's offsets.
    unsafe { native::rd_kafka_position(consumer.client().native_ptr(), list.ptr()) == NO_ERROR }
}

/// The end of a partition as of the last fetch; `None` before the first.
///
/// It costs no question, and may be old.
pub fn known_end(consumer: &BaseConsumer<MemberContext>, partition: &TopicPartition) -> Option<i64> {
    let topic = CString::new(&*partition.topic).ok()?;
    let (mut low, mut high) = (0, 0);
    // SAFETY: client and name live through the call, which writes the two numbers and asks no broker.
    let code = unsafe {
        let client = consumer.client().native_ptr();
        native::rd_kafka_get_watermark_offsets(client, topic.as_ptr(), partition.partition, &mut low, &mut high)
    };
    (code == NO_ERROR && high >= 0).then_some(high)
}

/// The member's generation and name; 0 and empty outside a group.
///
/// Both together, at one moment: a commit with the id of one generation and the number of another is refused.
pub fn member(consumer: &BaseConsumer<MemberContext>) -> (i32, String) {
    // SAFETY: the client lives through the calls; the metadata is destroyed here.
    unsafe {
        let metadata = native::rd_kafka_consumer_group_metadata(consumer.client().native_ptr());
        if metadata.is_null() {
            return (0, String::new());
        }
        let generation = native::rd_kafka_consumer_group_metadata_generation_id(metadata);
        let member = native::rd_kafka_consumer_group_metadata_member_id(metadata);
        let member = if member.is_null() { String::new() } else { CStr::from_ptr(member).to_string_lossy().into() };
        native::rd_kafka_consumer_group_metadata_destroy(metadata);
        (generation, member)
    }
}

/// A bell that a queue rings whenever it was empty and is not any more, while the worker listens. The queue keeps its
/// address, so this keeps it alive.
pub struct Hung(Arc<Rope>);

/// The way from a queue to the bell.
struct Rope {
    bell: Arc<Bell>,
    is_heard: Arc<AtomicBool>,
}

impl Hung {
    /// Rings `bell` when the client has reports of records and `is_heard` is true. The client must end before this is
    /// dropped.
    pub fn on_reports<C: ProducerContext>(
        client: &BaseProducer<C>,
        bell: &Arc<Bell>,
        is_heard: &Arc<AtomicBool>,
    ) -> Hung {
        // SAFETY: the client lives through the calls; the queue's handle is destroyed here.
        unsafe {
            let queue = native::rd_kafka_queue_get_main(client.client().native_ptr());
            let hung = Hung::on(queue, bell, is_heard);
            native::rd_kafka_queue_destroy(queue);
            hung
        }
    }

    /// # Safety
    /// The queue is live, and rings no more when the bell is dropped.
    unsafe fn on(queue: *mut native::rd_kafka_queue_t, bell: &Arc<Bell>, is_heard: &Arc<AtomicBool>) -> Hung {
        let hung = Hung(Arc::new(Rope { bell: bell.clone(), is_heard: is_heard.clone() }));
        let address = Arc::as_ptr(&hung.0).cast_mut().cast();
        // SAFETY: the caller's promise; what an `Arc` points to does not move.
        unsafe { native::rd_kafka_queue_cb_event_enable(queue, Some(ring), address) };
        hung
    }
}

/// Called by librdkafka's threads, under the queue's lock.
unsafe extern "C" fn ring(_client: *mut native::rd_kafka_t, rope: *mut c_void) {
    // SAFETY: see `Hung`: the rope lives as long as its queue rings.
    let rope = unsafe { &*rope.cast::<Rope>() };
    // The queue's lock orders it with the worker, which looks into the queue after it has begun to listen.
    if rope.is_heard.load(Ordering::Relaxed) {
        rope.bell.ring();
    }
}

/// Commits of offsets whose answers come to a queue of their own, so that no call waits for them and no
/// message is met on the way.
///
/// `asked`: a commit is on its way, and its answer has not been read. One at a time.
pub struct Commits {
    queue: *mut native::rd_kafka_queue_t,
    asked: bool,
    bell: Option<Hung>,
}

impl Commits {
    /// A queue of this client's.
    pub fn new(consumer: &BaseConsumer<MemberContext>) -> Commits {
        // SAFETY: the client lives through the call. The queue holds no pointer to it.
        let queue = unsafe { native::rd_kafka_queue_new(consumer.client().native_ptr()) };
        Commits { queue, asked: false, bell: None }
    }

    /// Rings this bell from now on when there is an answer.
    pub fn rings(&mut self, bell: &Arc<Bell>) {
        // SAFETY: the queue belongs to this value, and `drop` takes the bell away from it first.
        self.bell = Some(unsafe { Hung::on(self.queue, bell, &Arc::new(AtomicBool::new(true))) });
    }

    /// True if an answer has not been read.
    pub fn is_asked(&self) -> bool {
        self.asked
    }

    /// Asks, or looks for the answer to what was asked. True: it is committed.
    ///
    /// ```text
    /// turn ─▶ asks ─▶ false      turn ─▶ no answer yet ─▶ false      turn ─▶ the answer: true, or the error
    /// ```
    ///
    /// `offsets` is only called where it asks. After an error the next turn asks again.
    pub fn turn(
        &mut self,
        consumer: &BaseConsumer<MemberContext>,
        offsets: impl FnOnce() -> Result<TopicPartitionList, KafkaError>,
    ) -> Result<bool, KafkaError> {
        if !self.asked {
            let offsets = offsets()?;
            // SAFETY: client, list and queue live through the call, which copies the list; there
            // is no callback.
            let code = unsafe {
                let client = consumer.client().native_ptr();
                native::rd_kafka_commit_queue(client, offsets.ptr(), self.queue, None, ptr::null_mut())
            };
            if code != NO_ERROR {
                return Err(KafkaError::ConsumerCommit(code.into()));
            }
            self.asked = true;
            return Ok(false);
        }
        // SAFETY: the queue belongs to this value; the event is destroyed here.
        let code = unsafe {
            let event = native::rd_kafka_queue_poll(self.queue, 0);
            if event.is_null() {
                return Ok(false);
            }
            let code = worst(event);
            native::rd_kafka_event_destroy(event);
            code
        };
        self.asked = false;
        match code {
            NO_ERROR => Ok(true),
            code => Err(KafkaError::ConsumerCommit(code.into())),
        }
    }
}

/// The answer's own error, or that of one of its partitions.
///
/// # Safety
/// `event` is a live event.
///
/// A commit may succeed as a whole and fail for one partition.
unsafe fn worst(event: *mut native::rd_kafka_event_t) -> RDKafkaRespErr {
    // SAFETY: the caller's promise; the list is the event's.
    unsafe {
        let code = native::rd_kafka_event_error(event);
        let list = native::rd_kafka_event_topic_partition_list(event);
        if code != NO_ERROR || list.is_null() || (*list).elems.is_null() {
            return code;
        }
        let count = usize::try_from((*list).cnt).unwrap_or(0);
        let elements = std::slice::from_raw_parts((*list).elems, count);
        elements.iter().map(|element| element.err).find(|&code| code != NO_ERROR).unwrap_or(NO_ERROR)
    }
}

impl Drop for Commits {
    fn drop(&mut self) {
        // SAFETY: the queue belongs to this value, and its client outlives it: see the order of the fields of
        // the consumer that owns both.
        unsafe {
            // An answer may still be on its way.
            native::rd_kafka_queue_cb_event_enable(self.queue, None, ptr::null_mut());
            native::rd_kafka_queue_destroy(self.queue);
        }
    }
}

/// The outcome of a call.
///
/// # Safety
/// `error` is null or an error that is the caller's.
///
/// Null is success. The error is given back here in any case.
unsafe fn outcome(error: *mut native::rd_kafka_error_t) -> Result<(), TransactionError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the caller's promise; the texts are read before the error is given back.
    unsafe {
        let name = CStr::from_ptr(native::rd_kafka_error_name(error)).to_string_lossy();
        let words = CStr::from_ptr(native::rd_kafka_error_string(error)).to_string_lossy();
        let found = TransactionError {
            code: native::rd_kafka_error_code(error).into(),
            text: format!("{words} ({})", name.trim_start_matches('_')),
            is_fatal: native::rd_kafka_error_is_fatal(error) != 0,
            requires_abort: native::rd_kafka_error_txn_requires_abort(error) != 0,
        };
        native::rd_kafka_error_destroy(error);
        Err(found)
    }
}

/// Makes the client the only producer under its `transactional.id`.
///
/// Ends what is open under the id; waits for the coordinator, `wait` at most.
pub fn init_transactions<C: ProducerContext>(client: &BaseProducer<C>, wait: Duration) -> Result<(), TransactionError> {
    // SAFETY: the client lives through the call.
    unsafe { outcome(native::rd_kafka_init_transactions(client.client().native_ptr(), milliseconds(wait))) }
}

/// Begins a transaction.
///
/// A matter of the client alone: no broker is asked.
pub fn begin<C: ProducerContext>(client: &BaseProducer<C>) -> Result<(), TransactionError> {
    // SAFETY: the client lives through the call.
    unsafe { outcome(native::rd_kafka_begin_transaction(client.client().native_ptr())) }
}

/// The reason for which the open transaction can only be aborted; `None`: it may go on. The client has no
/// call that only asks this, but while a transaction is open another one cannot begin, and the answer to that
/// attempt names the reason.
pub fn reason_to_abort<C: ProducerContext>(client: &BaseProducer<C>) -> Option<TransactionError> {
    begin(client).err().filter(|error| error.requires_abort)
}

/// Puts offsets of the group's member into the client's transaction.
///
/// May not return in time, see [`super::aside`]. The generation and the member are checked by the group's
/// coordinator.
pub fn send_offsets<C: ProducerContext>(
    client: &BaseProducer<C>,
    offsets: &TopicPartitionList,
    group: &GroupMetadata,
    wait: Duration,
) -> Result<(), TransactionError> {
    let text = |text: &str| CString::new(text).unwrap_or_default();
    let (name, member) = (text(&group.group), text(&group.member));
    let instance = group.instance.as_deref().map(text);
    // SAFETY: client, list and texts live through the calls, which copy what they keep; the metadata is made
    // and destroyed here.
    unsafe {
        let instance = instance.as_ref().map_or(ptr::null(), |instance| instance.as_ptr());
        let metadata = native::rd_kafka_consumer_group_metadata_new_with_genid(
            name.as_ptr(),
            group.generation,
            member.as_ptr(),
            instance,
        );
        let error = native::rd_kafka_send_offsets_to_transaction(
            client.client().native_ptr(),
            offsets.ptr(),
            metadata,
            milliseconds(wait),
        );
        native::rd_kafka_consumer_group_metadata_destroy(metadata);
        outcome(error)
    }
}

/// Commits the client's transaction. rdkafka's own call may wait out a flush before it.
pub fn commit<C: ProducerContext>(client: &BaseProducer<C>, wait: Duration) -> Result<(), TransactionError> {
    // SAFETY: the client lives through the call.
    unsafe { outcome(native::rd_kafka_commit_transaction(client.client().native_ptr(), milliseconds(wait))) }
}

/// Aborts the client's transaction.
///
/// The queue should be empty by then, or the call waits for what is in flight.
pub fn abort<C: ProducerContext>(client: &BaseProducer<C>, wait: Duration) -> Result<(), TransactionError> {
    // SAFETY: the client lives through the call.
    unsafe { outcome(native::rd_kafka_abort_transaction(client.client().native_ptr(), milliseconds(wait))) }
}

/// A time as librdkafka takes it.
///
/// More than an `i32` holds, 24 days, counts as that.
pub(super) fn milliseconds(wait: Duration) -> i32 {
    i32::try_from(wait.as_millis()).unwrap_or(i32::MAX)
}

/// The fault of a broker's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFault {
    /// `host:port`, as the client named it.
    pub broker: String,
    /// OpenSSL's number of the fault.
    pub code: i32,
}

type SeenFault = Mutex<Option<CertificateFault>>;

/// Longest try of a client that looks at certificates.
const CERTIFICATE_STEP: Duration = Duration::from_millis(100);

/// Connects with a client of its own, whose verification of certificates reports what it finds; the client of
/// a worker says only that it failed. `None`: no certificate is refused.
///
/// Takes up to `wait` where a certificate is refused or no broker answers.
pub fn certificate_fault(config: &ClientConfig, wait: Duration) -> Option<CertificateFault> {
    let seen = SeenFault::default();
    let config = config.create_native_config().ok()?;
    // SAFETY: what is made here is given back here. The client calls back only until it is destroyed,
    // which waits for its threads, and `seen` lives longer.
    unsafe {
        // A copy, since the client takes what it is given and the original is rdkafka's to free.
        let config = native::rd_kafka_conf_dup(config.ptr());
        native::rd_kafka_conf_set_opaque(config, (&raw const seen).cast_mut().cast());
        native::rd_kafka_conf_set_log_cb(config, None);
        native::rd_kafka_conf_set_ssl_cert_verify_cb(config, Some(look_at_certificate));
        let kind = native::rd_kafka_type_t::RD_KAFKA_PRODUCER;
        let client = native::rd_kafka_new(kind, config, ptr::null_mut(), 0);
        if client.is_null() {
            native::rd_kafka_conf_destroy(config);
            return None;
        }
        for _ in 0..wait.as_millis() / CERTIFICATE_STEP.as_millis() {
            let mut metadata = ptr::null();
            let code =
                native::rd_kafka_metadata(client, 0, ptr::null_mut(), &mut metadata, milliseconds(CERTIFICATE_STEP));
            if code == NO_ERROR {
                native::rd_kafka_metadata_destroy(metadata);
                break;
            }
            if seen.lock().is_ok_and(|seen| seen.is_some()) {
                break;
            }
        }
        native::rd_kafka_destroy(client);
    }
    seen.into_inner().ok().flatten()
}

/// Notes the first fault of a certificate, and refuses what OpenSSL refuses: 1 goes on, 0 does not.
///
/// # Safety
/// librdkafka's promise for this callback, and that `seen` is what [`certificate_fault`] gave it.
unsafe extern "C" fn look_at_certificate(
    _: *mut native::rd_kafka_t,
    broker: *const c_char,
    _: i32,
    error: *mut c_int,
    _: c_int,
    _: *const c_char,
    _: usize,
    _: *mut c_char,
    _: usize,
    seen: *mut c_void,
) -> c_int {
    // SAFETY: the caller's promise.
    let (broker, code, seen) = unsafe { (CStr::from_ptr(broker), *error, &*seen.cast::<SeenFault>()) };
    if code == 0 {
        return 1;
    }
    if let Ok(mut seen) = seen.lock() {
        seen.get_or_insert_with(|| CertificateFault { broker: broker.to_string_lossy().into_owned(), code });
    }
    0
}
