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

impl Span {
    /// The same stretch in a buffer that has `by` bytes before it.
    fn shifted(self, by: usize) -> Span {
        Span { start: self.start + by, end: self.end + by }
    }
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

/// Effects of the event that runs.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The keys that the event has read in tables. `None`: no other event can write while it waits.
    pub reads: Option<Reads>,
    /// Keys and values of `outgoing`.
    pub bytes: Vec<u8>,
    /// Records in the order sent.
    pub outgoing: Vec<Outgoing>,
    /// Writes in the order of their keys' first write; one per key, the last.
    pub writes: Vec<TableWrite>,
    /// Records that user code has sent, by the row of the call in the table of counters.
    pub sent: Vec<(usize, u64)>,
    /// The place of a key's write in `writes`, once there are more than [`WRITES_WITHOUT_INDEX`].
    index: FxHashMap<(TableId, i32, Kept), usize>,
}

/// The most writes that are searched one by one: most events write one or two.
const WRITES_WITHOUT_INDEX: usize = 8;

impl Scratch {
    /// Forgets everything and keeps the allocations.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.outgoing.clear();
        self.writes.clear();
        self.sent.clear();
        self.index.clear();
        self.reads = None;
    }

    /// Bytes that it holds.
    pub fn size(&self) -> usize {
        let outgoing = self.bytes.len() + self.outgoing.len() * std::mem::size_of::<Outgoing>();
        let reads = self.reads.as_ref().map_or(0, Reads::size);
        outgoing + self.writes.iter().map(TableWrite::size).sum::<usize>() + reads
    }

    /// Notes a write; it replaces an earlier one of the same key.
    pub fn write(&mut self, write: TableWrite) {
        if let Some(at) = self.find(write.table, write.partition, &write.key) {
            self.writes[at] = write;
            return;
        }
        self.writes.push(write);
        if self.writes.len() > WRITES_WITHOUT_INDEX {
            // The first time that is all of them, afterwards the new one alone.
            for (at, write) in self.writes.iter().enumerate().skip(self.index.len()) {
                self.index.insert((write.table, write.partition, write.key.clone()), at);
            }
        }
    }

    /// Among writes of one event only: committed and staged ones are the tables' concern.
    fn find(&self, table: TableId, partition: i32, key: &[u8]) -> Option<usize> {
        // Without an index there are few: comparing them costs less than to hash one key.
        if self.index.is_empty() {
            return self
                .writes
                .iter()
                .position(|write| write.table == table && write.partition == partition && *write.key == *key);
        }
        self.index.get(&(table, partition, Kept::from(key))).copied()
    }

    /// The event's write to a key, if there is one: `Some(None)` is a deletion.
    pub fn written(&self, table: TableId, partition: i32, key: &[u8]) -> Option<Option<&Kept>> {
        self.find(table, partition, key).map(|at| self.writes[at].value.as_ref())
    }

    /// Sets the time at which all records are staged.
    pub fn stamp(&mut self, now_ms: i64) {
        self.outgoing.iter_mut().for_each(|outgoing| outgoing.timestamp_ms = now_ms);
    }

    /// True if it writes a key that was read.
    pub fn writes_what_was_read(&self, reads: &Reads) -> bool {
        let is_written = |table, partition, key: Option<&[u8]>| match key {
            Some(key) => self.find(table, partition, key).is_some(),
            None => self.writes.iter().any(|write| write.table == table && write.partition == partition),
        };
        !self.writes.is_empty() && !reads.all(|table, partition, key, _| !is_written(table, partition, key))
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
        let (key, value) = (key.map(|key| put(&mut self.bytes, key)), value.map(|value| put(&mut self.bytes, value)));
        self.outgoing.push(Outgoing { topic: topic.clone(), partition, timestamp_ms, key, value, headers });
    }

    /// Counts a record that user code has sent at this row of the table of counters.
    pub fn count_sent(&mut self, row: usize) {
        match self.sent.last_mut().filter(|(last, _)| *last == row) {
            Some((_, count)) => *count += 1,
            None => self.sent.push((row, 1)),
        }
    }

    /// Takes over the bytes of a buffer, and returns the stretches before and after `split`. The first record
    /// of an event costs no copy: the buffers are swapped.
    pub fn take(&mut self, buffer: &mut Vec<u8>, split: usize) -> (Span, Span) {
        let start = self.bytes.len();
        // The caller gets the empty buffer, with room that is used for the next value.
        if start == 0 {
            std::mem::swap(&mut self.bytes, buffer);
        } else {
            self.bytes.extend_from_slice(buffer);
        }
        (Span { start, end: start + split }, self.span_from(start + split))
    }

    /// The stretch from `start` to the end of the buffer.
    pub fn span_from(&self, start: usize) -> Span {
        Span { start, end: self.bytes.len() }
    }

    /// The bytes of a stretch.
    pub fn slice(&self, span: Span) -> &[u8] {
        &self.bytes[span.start..span.end]
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
    bytes: Vec<u8>,
    outgoing: Vec<Outgoing>,
    /// Writes in the order written.
    pub writes: Vec<TableWrite>,
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
            bytes: Vec::with_capacity(self.bytes.len()),
            outgoing: Vec::with_capacity(self.outgoing.len()),
            writes: Vec::with_capacity(self.writes.len()),
            ..Effects::default()
        }
    }

    /// True if there is nothing to stage.
    pub fn is_empty(&self) -> bool {
        self.outgoing.is_empty() && self.writes.is_empty() && self.progress.is_empty() && self.failures.is_empty()
    }

    /// Bytes that it holds, for the bound on what is staged; known without counting.
    pub fn size(&self) -> usize {
        self.held() + self.written
    }

    /// Bytes that its records hold; known without counting.
    pub fn held(&self) -> usize {
        self.bytes.len() + self.outgoing.len() * std::mem::size_of::<Outgoing>()
    }

    /// Takes over the effects of a complete event.
    pub fn keep(&mut self, scratch: &mut Scratch) {
        let shift = self.bytes.len();
        debug_assert!(
            scratch
                .outgoing
                .iter()
                .flat_map(|sent| [sent.key, sent.value])
                .flatten()
                .all(|span| { span.start <= span.end && span.end <= scratch.bytes.len() }),
            "spans lie in the buffer beside them"
        );
        // Spans count from the beginning of their buffer, so they move by what stands before.
        self.bytes.extend_from_slice(&scratch.bytes);
        self.outgoing.extend(scratch.outgoing.drain(..).map(|mut outgoing| {
            outgoing.key = outgoing.key.map(|span| span.shifted(shift));
            outgoing.value = outgoing.value.map(|span| span.shifted(shift));
            outgoing
        }));
        self.written += scratch.writes.iter().map(TableWrite::size).sum::<usize>();
        // Keys may repeat among events: the later write stands behind, and wins where it is laid or applied.
        self.writes.append(&mut scratch.writes);
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

    /// The number of records to be sent.
    pub fn outgoing_count(&self) -> usize {
        self.outgoing.len()
    }

    /// The topics of the records to be sent, in order.
    pub fn topics(&self) -> impl Iterator<Item = &TopicName> {
        self.outgoing.iter().map(|outgoing| &outgoing.topic)
    }

    /// The records to be sent, in order.
    pub fn records(&self) -> impl Iterator<Item = OutgoingRecord<'_>> {
        self.outgoing.iter().map(|outgoing| OutgoingRecord {
            topic: &outgoing.topic,
            partition: outgoing.partition,
            timestamp_ms: outgoing.timestamp_ms,
            key: outgoing.key.map(|span| &self.bytes[span.start..span.end]),
            value: outgoing.value.map(|span| &self.bytes[span.start..span.end]),
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
        scratch.bytes.extend_from_slice(value);
        let span = scratch.span_from(0);
        scratch.outgoing.push(Outgoing {
            topic: "t".into(),
            partition: 0,
            timestamp_ms: 0,
            key: None,
            value: Some(span),
            headers: Vec::new(),
        });
        scratch
    }

    #[test]
    fn kept_records_find_their_bytes() {
        let mut effects = Effects::default();
        effects.keep(&mut scratch(b"one"));
        effects.keep(&mut scratch(b"three"));
        let values: Vec<_> = effects.records().map(|record| record.value.unwrap_or_default()).collect();
        assert_eq!(values, [b"one".as_slice(), b"three".as_slice()]);
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
