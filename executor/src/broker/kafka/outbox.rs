//! Records handed to librdkafka many at once, over handles of topics that are made once.
//!
//! ```text
//! records ──▶ a pile for each partition ──▶ one call for each pile       (with headers: its pile first, then alone)
//! ```
//!
//! Sent one by one and by name, each record takes the client's lock, walks its list of topics and reads the clock
//! three times. Piles are of one partition: librdkafka has a call for many partitions, too, but that one loses a record
//! whose partition it does not know, which counts as in flight for ever (`rd_kafka_produce_batch`, 2.12.1).

use std::ffi::{CString, c_int, c_void};
use std::ptr;
use std::sync::Arc;

use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::message::{Header as NativeHeader, OwnedHeaders};
use rdkafka::producer::Producer as _;
use rdkafka_sys as native;
use rustc_hash::FxHashMap;

use super::client::Client;
use super::raw::NO_ERROR;
use crate::broker::OutgoingRecord;
use crate::event::message::{Header, TopicName};

/// Records that are gathered before they are handed over.
const GATHERED_MAX: usize = 1000;
/// Tells librdkafka to copy a record's bytes. A call takes `int`s.
const COPY: c_int = native::RD_KAFKA_MSG_F_COPY;

/// Records and bytes that the client's queue still takes.
///
/// The client counts keys and headers out, and so does this.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

impl Room {
    /// True if there is room for this record, which takes it.
    fn takes(&mut self, record: &OutgoingRecord<'_>) -> bool {
        let bytes = record.value.map_or(0, <[u8]>::len);
        let takes = self.records > 0 && self.bytes >= bytes;
        if takes {
            (self.records, self.bytes) = (self.records - 1, self.bytes - bytes);
        }
        takes
    }
}

/// A record that the client does not take, and why.
#[derive(Debug)]
pub(super) struct NotTaken {
    pub(super) code: Code,
    /// `topic/partition`.
    pub(super) place: String,
}

/// The outcome of handing records over.
#[derive(Debug, Default)]
pub(super) struct Handed {
    /// Records that were looked at: all, but for those for which there was no room.
    pub(super) seen: usize,
    /// `topic/partition` of the first record for which there was no room.
    pub(super) full: Option<String>,
    /// Records that are in flight now, and the bytes of their values.
    pub(super) records: usize,
    pub(super) bytes: usize,
    /// The first that failed. Nothing was handed over after its pile.
    pub(super) failed: Option<NotTaken>,
}

/// A topic of the client.
struct Topic {
    name: TopicName,
    handle: *mut native::rd_kafka_topic_t,
    /// By partition. Empty outside [`Outbox::send`], so that no pointer is kept beyond it.
    piles: Vec<Vec<native::rd_kafka_message_t>>,
}

/// The way of records into one client.
///
/// Made with its client, and dropped before it.
pub(super) struct Outbox {
    topics: Vec<Topic>,
    numbers: FxHashMap<TopicName, usize>,
    /// The topic of the last record.
    last: usize,
    /// Piles that are not empty, by topic and partition.
    filled: Vec<(usize, usize)>,
    /// The number of records on all piles.
    gathered: usize,
    /// Dropped after the topics: see `drop`.
    client: Arc<Client>,
}

impl Outbox {
    /// An outbox that knows no topic yet.
    pub(super) fn new(client: &Arc<Client>) -> Outbox {
        let (topics, numbers) = (Vec::new(), FxHashMap::default());
        Outbox { topics, numbers, last: 0, filled: Vec::new(), gathered: 0, client: client.clone() }
    }

    /// Hands over records while there is room. The order is kept in each partition, not between two.
    pub(super) fn send(
        &mut self,
        records: &mut dyn Iterator<Item = OutgoingRecord<'_>>,
        opaque: impl Fn(&OutgoingRecord<'_>) -> usize,
        mut room: Room,
    ) -> Handed {
        let mut handed = Handed::default();
        // Left there if the iterator panicked: their bytes may be gone.
        self.clear();
        for record in records {
            if !room.takes(&record) {
                handed.full = Some(place(&record));
                break;
            }
            handed.seen += 1;
            let done = self.put(&record, opaque(&record), &mut handed);
            handed.failed = done.err();
            if handed.failed.is_none() && self.gathered >= GATHERED_MAX {
                handed.failed = self.hand_over(&mut handed).err();
            }
            if handed.failed.is_some() {
                self.clear();
                return handed;
            }
        }
        handed.failed = self.hand_over(&mut handed).err();
        self.clear();
        handed
    }

    /// Puts a record on the pile of its partition. One with headers goes at once, after that pile.
    fn put(&mut self, record: &OutgoingRecord<'_>, opaque: usize, handed: &mut Handed) -> Result<(), NotTaken> {
        let not_taken = |code: Code| NotTaken { code, place: place(record) };
        let number = self.number(record.topic).map_err(not_taken)?;
        let at = usize::try_from(record.partition).map_err(|_| not_taken(Code::UnknownPartition))?;
        let topic = &mut self.topics[number];
        if topic.piles.len() <= at {
            topic.piles.resize_with(at + 1, Vec::new);
        }
        if !record.headers.is_empty() {
            self.hand_over_pile(number, at, handed)?;
            let topic = &self.topics[number];
            topic.send_alone(&self.client, record, opaque).map_err(not_taken)?;
            (handed.records, handed.bytes) = (handed.records + 1, handed.bytes + record.value.map_or(0, <[u8]>::len));
            return Ok(());
        }
        let (payload, len) = lend(record.value);
        let (key, key_len) = lend(record.key);
        let pile = &mut topic.piles[at];
        if pile.is_empty() {
            self.filled.push((number, at));
        }
        pile.push(native::rd_kafka_message_t {
            err: NO_ERROR,
            rkt: ptr::null_mut(),
            partition: record.partition,
            payload,
            len,
            key,
            key_len,
            offset: 0,
            _private: opaque as *mut c_void,
        });
        self.gathered += 1;
        Ok(())
    }

    /// The number of a topic. The client makes those that are new, and asks a broker about them meanwhile.
    fn number(&mut self, name: &TopicName) -> Result<usize, Code> {
        // Most records are of the same topic as the one before, by the very same name.
        if self.topics.get(self.last).is_some_and(|last| TopicName::ptr_eq(&last.name, name)) {
            return Ok(self.last);
        }
        if let Some(number) = self.numbers.get(name) {
            self.last = *number;
            return Ok(*number);
        }
        let text = CString::new(&**name).map_err(|_| Code::InvalidTopic)?;
        // SAFETY: the client lives longer than the handle, which `drop` gives back; the name is copied.
        let handle =
            unsafe { native::rd_kafka_topic_new(self.client.client().native_ptr(), text.as_ptr(), ptr::null_mut()) };
        if handle.is_null() {
            return Err(Code::InvalidTopic);
        }
        let number = self.topics.len();
        self.last = number;
        self.topics.push(Topic { name: name.clone(), handle, piles: Vec::new() });
        self.numbers.insert(name.clone(), number);
        Ok(number)
    }

    /// Hands over all piles, up to the first with a record that fails.
    fn hand_over(&mut self, handed: &mut Handed) -> Result<(), NotTaken> {
        for place in 0..self.filled.len() {
            let (number, at) = self.filled[place];
            self.hand_over_pile(number, at, handed)?;
        }
        self.clear();
        Ok(())
    }

    /// Hands over the records of one partition, which may be none.
    ///
    /// The client looks at each of them for itself: those before and behind one that fails are in flight.
    fn hand_over_pile(&mut self, number: usize, at: usize, handed: &mut Handed) -> Result<(), NotTaken> {
        let topic = &mut self.topics[number];
        let pile = &mut topic.piles[at];
        let Some(partition) = pile.first().map(|message| message.partition) else { return Ok(()) };
        let count = c_int::try_from(pile.len()).expect("a pile is no larger than what is gathered");
        // SAFETY: the handle is live. The call reads `count` messages, whose bytes live as long as the caller's
        // records and are copied, and writes their errors.
        unsafe { native::rd_kafka_produce_batch(topic.handle, partition, COPY, pile.as_mut_ptr(), count) };
        let mut failed = None;
        for message in pile.drain(..) {
            match message.err {
                NO_ERROR => (handed.records, handed.bytes) = (handed.records + 1, handed.bytes + message.len),
                code => failed = failed.or(Some(code)),
            }
        }
        failed.map_or(Ok(()), |code| Err(NotTaken { code: code.into(), place: format!("{}/{partition}", topic.name) }))
    }

    fn clear(&mut self) {
        for (number, at) in self.filled.drain(..) {
            self.topics[number].piles[at].clear();
        }
        self.gathered = 0;
    }
}

impl Topic {
    /// Hands over one record, with its headers.
    fn send_alone(&self, client: &Client, record: &OutgoingRecord<'_>, opaque: usize) -> Result<(), Code> {
        use native::rd_kafka_vtype_t as tag;
        let headers = headers(record.headers);
        let (payload, len) = lend(record.value);
        let (key, key_len) = lend(record.key);
        // SAFETY: client, handle and bytes live through the call, which copies the bytes. Each tag is followed by
        // what it takes. The headers are the client's once it has taken the record.
        let code = unsafe {
            native::rd_kafka_producev(
                client.client().native_ptr(),
                tag::RD_KAFKA_VTYPE_RKT,
                self.handle,
                tag::RD_KAFKA_VTYPE_PARTITION,
                record.partition,
                tag::RD_KAFKA_VTYPE_MSGFLAGS,
                COPY,
                tag::RD_KAFKA_VTYPE_VALUE,
                payload,
                len,
                tag::RD_KAFKA_VTYPE_KEY,
                key,
                key_len,
                tag::RD_KAFKA_VTYPE_OPAQUE,
                opaque as *mut c_void,
                tag::RD_KAFKA_VTYPE_HEADERS,
                ptr::from_ref(headers.as_borrowed()).cast_mut(),
                tag::RD_KAFKA_VTYPE_END,
            )
        };
        if code != NO_ERROR {
            return Err(code.into());
        }
        std::mem::forget(headers);
        Ok(())
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        for topic in &self.topics {
            // SAFETY: the handle is this value's, and its client still lives.
            unsafe { native::rd_kafka_topic_destroy(topic.handle) };
        }
    }
}

/// The words for the partition of a record.
fn place(record: &OutgoingRecord<'_>) -> String {
    format!("{}/{}", record.topic, record.partition)
}

/// Bytes as librdkafka takes them; null for none.
fn lend(bytes: Option<&[u8]>) -> (*mut c_void, usize) {
    bytes.map_or((ptr::null_mut(), 0), |bytes| (bytes.as_ptr().cast_mut().cast(), bytes.len()))
}

/// In their order.
fn headers(headers: &[Header]) -> OwnedHeaders {
    let all = OwnedHeaders::new_with_capacity(headers.len());
    headers.iter().fold(all, |all, (key, value)| all.insert(NativeHeader { key, value: value.as_deref() }))
}
