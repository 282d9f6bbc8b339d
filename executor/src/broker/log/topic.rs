//! A topic's partitions: records in offset order, with the marks of transactions.
//!
//! ```text
//! offset   0      1      2      3      4      5      6
//!          A      B tx1  C      D tx1  M tx1  E tx2
//!          └── committed by M: A, B, C and D show    └── end
//!                                             └── stable end: tx2 is open
//! ```
//!
//! Each record has a fate: committed, open, aborted, or it is a marker. Only committed ones before the first open
//! transaction are read, in offset order: so a record outside any transaction waits for an open one before it, as
//! in Kafka (the *last stable offset*).

use std::collections::VecDeque;

use crate::broker::Watermarks;
use crate::broker::log::NewRecord;
use crate::event::message::{Event, TopicName};

/// A transaction: the log counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransactionId(pub u64);

/// Open becomes committed or aborted once, by [`Topic::decide`]; the others never change.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Committed,
    Open(TransactionId),
    Aborted,
    /// A marker: it takes an offset and shows nothing.
    Marker,
}

/// The record or marker at an offset.
#[derive(Clone, Debug)]
pub struct Stored {
    record: NewRecord,
    fate: Fate,
    /// True if a producer sent it; else it came from outside.
    sent: bool,
}

impl Stored {
    /// A record from outside.
    pub fn appended(record: NewRecord) -> Stored {
        Stored { record, fate: Fate::Committed, sent: false }
    }

    /// A producer's record, in a transaction or not.
    pub fn sent(record: NewRecord, transaction: Option<TransactionId>) -> Stored {
        Stored { record, fate: transaction.map_or(Fate::Committed, Fate::Open), sent: true }
    }

    /// True if a producer sent it.
    pub fn is_sent(&self) -> bool {
        self.sent
    }
}

///
/// `entries[i]` has the offset `first + i`. Offsets in `open` are at or past `first`, because nothing from the
/// stable end on is forgotten.
#[derive(Debug, Default)]
struct Partition {
    /// Offset of the first entry that is kept. Everything before it has been forgotten.
    first: i64,
    entries: VecDeque<Stored>,
    /// Open transactions with the offset of the first entry of each, in the order of those offsets.
    open: Vec<(TransactionId, i64)>,
}

impl Partition {
    /// The offset that the next entry gets.
    fn end(&self) -> i64 {
        self.first + as_offset(self.entries.len())
    }

    /// The last stable offset: everything before it is decided.
    fn stable(&self) -> i64 {
        self.open.first().map_or_else(|| self.end(), |(_, first)| *first)
    }

    /// The place of an offset in `entries`; the offset is not before the first.
    fn index(&self, offset: i64) -> usize {
        usize::try_from(offset - self.first).expect("it is past the first")
    }
}

/// A topic.
///
/// Partitions are numbered from 0, and there is at least one.
#[derive(Debug)]
pub struct Topic {
    partitions: Vec<Partition>,
    /// The number for the next record without a key.
    turn: u32,
}

impl Topic {
    /// Fewer than one partition count as one.
    pub fn new(partitions: i32) -> Topic {
        Topic { partitions: (0..partitions.max(1)).map(|_| Partition::default()).collect(), turn: 0 }
    }

    /// As Kafka counts them: in `i32`.
    pub fn count(&self) -> i32 {
        i32::try_from(self.partitions.len()).expect("it was made from an i32")
    }

    /// The number for a record without a key; records with a key do not take a turn.
    pub fn turn(&mut self, takes: bool) -> u32 {
        let turn = self.turn;
        self.turn = turn.wrapping_add(u32::from(takes));
        turn
    }

    /// Adds partitions; never removes any.
    pub fn grow(&mut self, partitions: i32) {
        while self.count() < partitions {
            self.partitions.push(Partition::default());
        }
    }

    fn at(&self, partition: i32) -> Option<&Partition> {
        self.partitions.get(usize::try_from(partition).ok()?)
    }

    fn at_mut(&mut self, partition: i32) -> Option<&mut Partition> {
        self.partitions.get_mut(usize::try_from(partition).ok()?)
    }

    /// Appends to a partition that exists; gives the offset.
    ///
    /// A record of a transaction that is new to the partition is from here on its stable end, or lies behind one.
    pub fn append(&mut self, partition: i32, stored: Stored) -> i64 {
        let partition = self.at_mut(partition).expect("the caller has checked the partition");
        let offset = partition.end();
        if let Fate::Open(transaction) = stored.fate
            && !partition.open.iter().any(|(open, _)| *open == transaction)
        {
            partition.open.push((transaction, offset));
            debug_assert!(
                partition.open.is_sorted_by_key(|(_, first)| *first),
                "transactions open in the order of their first offsets"
            );
        }
        partition.entries.push_back(stored);
        offset
    }

    /// Decides a transaction in every partition that it touched, with a marker in each. Hands over what
    /// becomes visible.
    ///
    /// The marker takes an offset also where the transaction is aborted. Entries of the transaction lie between its
    /// first one and the end, so no earlier ones are looked at.
    pub fn decide(&mut self, transaction: TransactionId, commits: bool, mut shows: impl FnMut(i32, i64, &NewRecord)) {
        for (number, partition) in (0..).zip(&mut self.partitions) {
            let Some(place) = partition.open.iter().position(|(open, _)| *open == transaction) else {
                continue;
            };
            // In order, so that the first one left is the stable end.
            let (_, first) = partition.open.remove(place);
            let (base, start) = (partition.first, partition.index(first));
            for (index, stored) in (start..).zip(partition.entries.range_mut(start..)) {
                if stored.fate == Fate::Open(transaction) {
                    stored.fate = if commits { Fate::Committed } else { Fate::Aborted };
                    if commits {
                        shows(number, base + as_offset(index), &stored.record);
                    }
                }
            }
            // Behind records that were all read, too: readers' positions pass over it, see `read_if`.
            partition.entries.push_back(Stored { record: NewRecord::default(), fate: Fate::Marker, sent: false });
        }
    }

    /// Appends up to `max` committed records to `into`; gives the offset to read next.
    ///
    /// `from` before the first entry reads from the first on. A partition that does not exist gives `from` back.
    pub fn read(&self, name: &TopicName, number: i32, from: i64, max: usize, into: &mut Vec<Event>) -> i64 {
        self.read_if(name, number, from, max, |_| true, into)
    }

    /// As [`Topic::read`], but only records for which `wanted` holds.
    ///
    /// Records that are not wanted are passed over, like markers, and do not count against `max`.
    pub fn read_if(
        &self,
        name: &TopicName,
        number: i32,
        from: i64,
        max: usize,
        wanted: impl Fn(&Stored) -> bool,
        into: &mut Vec<Event>,
    ) -> i64 {
        let Some(partition) = self.at(number) else {
            return from;
        };
        // Once is enough: nothing is decided while the state is borrowed.
        let stable = partition.stable();
        let mut next = from.max(partition.first);
        let mut taken = 0;
        while next < stable && taken < max {
            let index = partition.index(next);
            let stored = &partition.entries[index];
            if stored.fate == Fate::Committed && wanted(stored) {
                into.push(event(name, number, next, &stored.record));
                taken += 1;
            }
            next += 1;
        }
        // Markers behind the last record are passed over with it, so that no reader stops before them.
        while next < stable {
            let index = partition.index(next);
            if partition.entries[index].fate == Fate::Committed {
                break;
            }
            next += 1;
        }
        next
    }

    /// The ends of a partition.
    ///
    /// Its high end is the stable one, as a `read_committed` reader sees it.
    pub fn watermarks(&self, partition: i32) -> Option<Watermarks> {
        self.at(partition).map(|partition| Watermarks { low: partition.first, high: partition.stable() })
    }

    /// The ends of a partition, undecided records included.
    ///
    /// Tables are restored up to here, so that a transaction that is committed meanwhile is not missed.
    pub fn ends(&self, partition: i32) -> Option<Watermarks> {
        self.at(partition).map(|partition| Watermarks { low: partition.first, high: partition.end() })
    }

    /// The first offset at or after a time, or the end.
    ///
    /// Records that do not show count as if they were not there.
    pub fn offset_at(&self, partition: i32, timestamp_ms: i64) -> Option<i64> {
        let partition = self.at(partition)?;
        let late = |stored: &Stored| stored.fate == Fate::Committed && stored.record.timestamp_ms >= timestamp_ms;
        let index = partition.entries.iter().position(late).unwrap_or(partition.entries.len());
        Some(partition.first + as_offset(index))
    }

    /// Drops the records before an offset, as far as they are decided.
    ///
    /// Offsets of the others stay as they are.
    pub fn forget_before(&mut self, partition: i32, offset: i64) {
        let Some(partition) = self.at_mut(partition) else {
            return;
        };
        // What is open names offsets, which must stay.
        let end = offset.min(partition.stable());
        let count = usize::try_from(end - partition.first).unwrap_or(0).min(partition.entries.len());
        partition.entries.drain(..count);
        partition.first += as_offset(count);
    }
}

/// A count of entries as an offset.
fn as_offset(index: usize) -> i64 {
    i64::try_from(index).expect("a log fits in memory")
}

/// A record as a reader sees it.
pub fn event(topic: &TopicName, partition: i32, offset: i64, record: &NewRecord) -> Event {
    Event {
        topic: topic.clone(),
        partition,
        slot: 0,
        offset,
        timestamp_ms: record.timestamp_ms,
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.clone(),
    }
}
