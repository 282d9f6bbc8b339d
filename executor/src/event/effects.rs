//! Effects of an event, held back until they may be seen.
//!
//! *Scratch* holds the effects of the event that runs: kept if it succeeds, dropped if it fails. *Effects*
//! are those of complete events, on their way through the dataflow to be staged. Bytes lie end to end in one
//! buffer, so that a record costs no allocation of its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use kaspr_ir::plan::{ReaderId, TableId};
use rustc_hash::FxHashMap;

use crate::event::failure::FailureRecord;
use crate::event::kept::Kept;
use crate::event::message::{Header, TopicName};
use crate::event::outgoing::OutgoingRecord;
use crate::event::reads::Reads;
use crate::event::tally::Passage;

/// A stretch of an effects buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    start: usize,
    end: usize,
}

/// Appends bytes to a buffer.
fn put(buffer: &mut Vec<u8>, bytes: &[u8]) -> Span {
    let start = buffer.len();
    buffer.extend_from_slice(bytes);
    Span { start, end: buffer.len() }
}

/// A record to be sent, its bytes in the buffer beside it.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The topic, which exists.
    pub topic: TopicName,
    /// The partition, which exists.
    pub partition: i32,
    /// The time at which it was staged, in ms since 1970.
    pub timestamp_ms: i64,
    /// `None`: a null key.
    pub key: Option<Span>,
    /// `None`: a tombstone.
    pub value: Option<Span>,
    /// In order.
    pub headers: Vec<Header>,
}

/// A write to a table: the last one of a key wins. `value` `None` deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableWrite {
    /// The table.
    pub table: TableId,
    /// The partition of the state; 0 if the table is global.
    pub partition: i32,
    /// The encoded key.
    pub key: Kept,
    /// The encoded value.
    pub value: Option<Kept>,
}

impl TableWrite {
    fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, |value| value.len())
    }
}

/// Records and writes of successive events, back to back.
#[derive(Clone, Debug, Default)]
struct Room {
    /// Keys and values of `outgoing`.
    bytes: Vec<u8>,
    /// Records in the order sent.
    outgoing: Vec<Outgoing>,
    /// Writes, by event in the order of their keys' first write; one per key and event, the last.
    writes: Vec<TableWrite>,
}

/// The place in a room at which an event's effects begin.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    bytes: usize,
    outgoing: usize,
    writes: usize,
}

impl Room {
    /// The place behind all that it holds.
    fn end(&self) -> Mark {
        Mark { bytes: self.bytes.len(), outgoing: self.outgoing.len(), writes: self.writes.len() }
    }

    /// Drops what lies behind a mark.
    fn truncate(&mut self, to: Mark) {
        self.bytes.truncate(to.bytes);
        self.outgoing.truncate(to.outgoing);
        self.writes.truncate(to.writes);
    }

    /// Moves what lies behind a mark to the end of another room.
    fn split_into(&mut self, from: Mark, other: &mut Room) {
        let base = other.bytes.len();
        // Spans count from the beginning of their room.
        let moved = |span: Span| Span { start: span.start - from.bytes + base, end: span.end - from.bytes + base };
        other.bytes.extend_from_slice(&self.bytes[from.bytes..]);
        other.outgoing.extend(self.outgoing.drain(from.outgoing..).map(|mut outgoing| {
            (outgoing.key, outgoing.value) = (outgoing.key.map(moved), outgoing.value.map(moved));
            outgoing
        }));
        other.writes.extend(self.writes.drain(from.writes..));
        self.bytes.truncate(from.bytes);
    }
}

/// Effects of the event that runs.
///
/// They lie in a room of their own, or, while an event runs whose turn it is, right behind the effects of the
/// complete events before it ([`Scratch::lend`]): then success costs no copy, and failure a truncation.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The keys that the event has read in tables. `None`: no other event can write while it waits.
    pub reads: Option<Reads>,
    room: Room,
    /// The place in the room where this event's effects begin.
    start: Mark,
    /// True while the room is that of `Effects`.
    is_lent: bool,
    /// Records that user code has sent, by the row of the call in the table of counters.
    pub sent: Vec<(usize, u64)>,
    /// The place of a key's write in the room, once there are more than [`WRITES_WITHOUT_INDEX`].
    index: FxHashMap<(TableId, i32, Kept), usize>,
}

/// The most writes that are searched one by one: most events write one or two.
const WRITES_WITHOUT_INDEX: usize = 8;

impl Scratch {
    /// Forgets everything and keeps the allocations. A room that is lent stays: see [`Scratch::give_back`].
    pub fn clear(&mut self) {
        self.room.truncate(self.start);
        self.sent.clear();
        self.index.clear();
        self.reads = None;
    }

    /// Has the event write behind the effects of the complete events before it. Until they are given back,
    /// `effects` holds no records and no writes.
    pub fn lend(&mut self, effects: &mut Effects) {
        debug_assert!(
            !self.is_lent && self.outgoing().is_empty() && self.writes().is_empty(),
            "the event has not begun"
        );
        std::mem::swap(&mut self.room, &mut effects.room);
        (self.start, self.is_lent) = (self.room.end(), true);
    }

    /// Gives the effects of the events before it back, if they were lent. Its own stay with it.
    pub fn give_back(&mut self, effects: &mut Effects) {
        if !self.is_lent {
            return;
        }
        std::mem::swap(&mut self.room, &mut effects.room);
        effects.room.split_into(self.start, &mut self.room);
        // Places in the index counted what stood before.
        self.index.values_mut().for_each(|at| *at -= self.start.writes);
        (self.start, self.is_lent) = (Mark::default(), false);
    }

    /// Records of the event, in the order sent.
    pub fn outgoing(&self) -> &[Outgoing] {
        &self.room.outgoing[self.start.outgoing..]
    }

    /// Writes of the event in the order of their keys' first write; one per key, the last.
    pub fn writes(&self) -> &[TableWrite] {
        &self.room.writes[self.start.writes..]
    }

    /// Bytes that it holds.
    pub fn size(&self) -> usize {
        let bytes = self.room.bytes.len() - self.start.bytes;
        let outgoing = bytes + std::mem::size_of_val(self.outgoing());
        let reads = self.reads.as_ref().map_or(0, Reads::size);
        outgoing + self.writes().iter().map(TableWrite::size).sum::<usize>() + reads
    }

    /// Notes a write; it replaces an earlier one of the same key.
    pub fn write(&mut self, write: TableWrite) {
        if let Some(at) = self.find(write.table, write.partition, &write.key) {
            self.room.writes[at] = write;
            return;
        }
        self.room.writes.push(write);
        if self.writes().len() > WRITES_WITHOUT_INDEX {
            // The first time that is all of them, afterwards the new one alone.
            for (at, write) in self.room.writes.iter().enumerate().skip(self.start.writes + self.index.len()) {
                self.index.insert((write.table, write.partition, write.key.clone()), at);
            }
        }
    }

    /// Among writes of one event only: committed and staged ones are the tables' concern.
    fn find(&self, table: TableId, partition: i32, key: &[u8]) -> Option<usize> {
        // Without an index there are few: comparing them costs less than to hash one key.
        if self.index.is_empty() {
            let is_of = |write: &TableWrite| write.table == table && write.partition == partition && *write.key == *key;
            return self.writes().iter().position(is_of).map(|at| self.start.writes + at);
        }
        self.index.get(&(table, partition, Kept::from(key))).copied()
    }

    /// The event's write to a key, if there is one: `Some(None)` is a deletion.
    pub fn written(&self, table: TableId, partition: i32, key: &[u8]) -> Option<Option<&Kept>> {
        self.find(table, partition, key).map(|at| self.room.writes[at].value.as_ref())
    }

    /// Sets the time at which all records are staged.
    pub fn stamp(&mut self, now_ms: i64) {
        self.room.outgoing[self.start.outgoing..].iter_mut().for_each(|outgoing| outgoing.timestamp_ms = now_ms);
    }

    /// True if it writes a key that was read.
    pub fn writes_what_was_read(&self, reads: &Reads) -> bool {
        let is_written = |table, partition, key: Option<&[u8]>| match key {
            Some(key) => self.find(table, partition, key).is_some(),
            None => self.writes().iter().any(|write| write.table == table && write.partition == partition),
        };
        !self.writes().is_empty() && !reads.all(|table, partition, key, _| !is_written(table, partition, key))
    }

    /// Puts a record, whose partition is known, after those that the event has sent.
    pub fn send(
        &mut self,
        topic: &TopicName,
        partition: i32,
        timestamp_ms: i64,
        (key, value): (Option<&[u8]>, Option<&[u8]>),
        headers: Vec<Header>,
    ) {
        let bytes = &mut self.room.bytes;
        let (key, value) = (key.map(|key| put(bytes, key)), value.map(|value| put(bytes, value)));
        self.room.outgoing.push(Outgoing { topic: topic.clone(), partition, timestamp_ms, key, value, headers });
    }

    /// Counts a record that user code has sent at this row of the table of counters.
    pub fn count_sent(&mut self, row: usize) {
        match self.sent.last_mut().filter(|(last, _)| *last == row) {
            Some((_, count)) => *count += 1,
            None => self.sent.push((row, 1)),
        }
    }
}

/// The position of a reader in a partition: everything before `done` is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The reader.
    pub reader: ReaderId,
    /// The partition's number in the worker's list (see [`crate::assignment::ledger`]).
    pub partition: usize,
    /// The next offset that is not complete.
    pub done: i64,
    /// Events that have completed on the way there, failed ones included.
    pub events: u64,
}

/// Effects of complete events, in the order in which they completed.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    room: Room,
    /// Bytes of the writes.
    written: usize,
    /// The positions that the effects bring their readers to.
    pub progress: Vec<Progress>,
    /// Events that failed and were recorded.
    pub failures: Vec<FailureRecord>,
    /// The topic of each dead letter among the records.
    pub dead_letters: Vec<TopicName>,
    /// Counts of complete events, by row of the table of counters.
    pub counts: Vec<(usize, Passage)>,
}

/// One turn of a worker.
pub type Epoch = u64;

/// Effects of complete events by the epoch in which they ran. An epoch is complete once the frontier has
/// passed it.
pub type StagedEpochs = Rc<RefCell<BTreeMap<Epoch, Vec<Effects>>>>;

impl Effects {
    /// Makes empty effects with as much room: an epoch is usually like the last one.
    pub fn like(&self) -> Effects {
        Effects {
            room: Room {
                bytes: Vec::with_capacity(self.room.bytes.len()),
                outgoing: Vec::with_capacity(self.room.outgoing.len()),
                writes: Vec::with_capacity(self.room.writes.len()),
            },
            ..Effects::default()
        }
    }

    /// True if there is nothing to stage.
    pub fn is_empty(&self) -> bool {
        self.room.outgoing.is_empty()
            && self.room.writes.is_empty()
            && self.progress.is_empty()
            && self.failures.is_empty()
    }

    /// Bytes that it holds, for the bound on what is staged; known without counting.
    pub fn size(&self) -> usize {
        self.held() + self.written
    }

    /// Bytes that its records hold; known without counting.
    pub fn held(&self) -> usize {
        self.room.bytes.len() + std::mem::size_of_val(&*self.room.outgoing)
    }

    /// Takes over the effects of a complete event. Where they were written behind those of the events before it,
    /// they stay where they are.
    pub fn keep(&mut self, scratch: &mut Scratch) {
        self.written += scratch.writes().iter().map(TableWrite::size).sum::<usize>();
        // Keys may repeat among events: the later write stands behind, and wins where it is laid or applied.
        if scratch.is_lent {
            std::mem::swap(&mut self.room, &mut scratch.room);
            (scratch.start, scratch.is_lent) = (Mark::default(), false);
        } else {
            scratch.room.split_into(Mark::default(), &mut self.room);
        }
        scratch.clear();
    }

    /// Notes how far a reader has come.
    pub fn advance(&mut self, progress: Progress) {
        match self.progress.last_mut() {
            Some(last) if last.reader == progress.reader && last.partition == progress.partition => {
                debug_assert!(last.done <= progress.done, "a partition completes in order");
                (last.done, last.events) = (progress.done, last.events + progress.events);
            }
            // Only the last entry is looked at: events of one partition mostly run one after the other.
            _ => self.progress.push(progress),
        }
    }

    /// Writes, in the order written.
    pub fn writes(&self) -> &[TableWrite] {
        &self.room.writes
    }

    /// The number of records to be sent.
    pub fn outgoing_count(&self) -> usize {
        self.room.outgoing.len()
    }

    /// The topics of the records to be sent, in order.
    pub fn topics(&self) -> impl Iterator<Item = &TopicName> {
        self.room.outgoing.iter().map(|outgoing| &outgoing.topic)
    }

    /// The records to be sent, in order.
    pub fn records(&self) -> impl Iterator<Item = OutgoingRecord<'_>> {
        let bytes = |span: Span| &self.room.bytes[span.start..span.end];
        self.room.outgoing.iter().map(move |outgoing| OutgoingRecord {
            topic: &outgoing.topic,
            partition: outgoing.partition,
            timestamp_ms: outgoing.timestamp_ms,
            key: outgoing.key.map(bytes),
            value: outgoing.value.map(bytes),
            headers: &outgoing.headers,
            tracked: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(value: &[u8]) -> Scratch {
        let mut scratch = Scratch::default();
        scratch.send(&"t".into(), 0, 0, (None, Some(value)), Vec::new());
        scratch
    }

    fn write(key: &str) -> TableWrite {
        TableWrite { table: TableId(0), partition: 0, key: key.into(), value: Some("1".into()) }
    }

    fn values(effects: &Effects) -> Vec<&[u8]> {
        effects.records().map(|record| record.value.unwrap_or_default()).collect()
    }

    #[test]
    fn an_event_that_fails_leaves_those_before_it() {
        let (mut effects, mut scratch) = (Effects::default(), Scratch::default());
        for (value, is_kept) in [("one", true), ("two", false), ("three", true)] {
            scratch.lend(&mut effects);
            scratch.send(&"t".into(), 0, 0, (None, Some(value.as_bytes())), Vec::new());
            scratch.write(write("a"));
            assert_eq!((scratch.outgoing().len(), scratch.writes().len()), (1, 1));
            match is_kept {
                true => effects.keep(&mut scratch),
                false => scratch.give_back(&mut effects),
            }
            scratch.clear();
        }
        assert_eq!(values(&effects), [b"one".as_slice(), b"three".as_slice()]);
        assert_eq!((effects.writes().len(), effects.size()), (2, effects.held() + 4));
    }

    #[test]
    fn an_event_that_waits_takes_its_effects_along() {
        let (mut effects, mut waits, mut other) = (Effects::default(), scratch(b""), Scratch::default());
        effects.keep(&mut scratch(b"one"));
        waits.clear();
        waits.lend(&mut effects);
        let keys: Vec<_> = (0..=WRITES_WITHOUT_INDEX).map(|number| number.to_string()).collect();
        keys.iter().for_each(|key| waits.write(write(key)));
        waits.send(&"t".into(), 0, 0, (None, Some(b"three")), Vec::new());
        waits.give_back(&mut effects);
        other.lend(&mut effects);
        other.send(&"t".into(), 0, 0, (None, Some(b"two")), Vec::new());
        effects.keep(&mut other);
        // Written again, a key keeps its place.
        waits.write(write("3"));
        assert!(keys.iter().all(|key| waits.written(TableId(0), 0, key.as_bytes()).is_some()));
        assert_eq!(waits.writes().len(), keys.len());
        effects.keep(&mut waits);
        assert_eq!(values(&effects), [b"one".as_slice(), b"two", b"three"]);
    }

    #[test]
    fn kept_records_find_their_bytes() {
        let mut effects = Effects::default();
        effects.keep(&mut scratch(b"one"));
        effects.keep(&mut scratch(b"three"));
        assert_eq!(values(&effects), [b"one".as_slice(), b"three".as_slice()]);
    }

    #[test]
    fn progress_of_one_partition_is_one_entry() {
        let mut effects = Effects::default();
        for done in 1..4 {
            effects.advance(Progress { reader: ReaderId(0), partition: 0, done, events: 1 });
        }
        assert_eq!(effects.progress, [Progress { reader: ReaderId(0), partition: 0, done: 3, events: 3 }]);
    }
}
