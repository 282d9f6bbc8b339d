//! The status of a worker as JSON: SIGUSR1 prints it (`docs/operations.md`).
//!
//! | file | answers |
//! |---|---|
//! | `counters.rs` | how much has passed where, since the start |
//! | `figures.rs` | how long things took, and how they ended |
//! | `clients.rs` | what the clients of brokers say of themselves |
//! | `stall.rs` | which partitions stand still, and why |
//! | `snapshot.rs` | both, with positions and the last failures, at one moment |
//! | `board.rs` | where other threads find the last snapshot |
//! | `report.rs`, `crew.rs` | how a supervisor learns of its workers |
//! | here | the last failures, and where a reader stands |
//!
//! Nothing here acts on what it sees. Of an event's key, value and headers nothing is shown but what the
//! message of an exception quotes.

pub mod board;
pub mod clients;
pub mod counters;
pub mod crew;
pub mod figures;
mod process;
pub mod report;
pub mod snapshot;
pub mod stall;

use std::collections::VecDeque;

use crate::event::failure::FailureRecord;
use crate::event::message::TopicPartition;
use crate::status::snapshot::ReaderStatus;
use crate::status::stall::{Cause, Standing, Subject};

/// The number of failures that the status shows.
pub const RECENT_MAX: usize = 20;

/// The most recent failures, oldest first.
#[derive(Debug, Default)]
pub struct Recent {
    failures: VecDeque<FailureRecord>,
}

impl Recent {
    /// Notes a failure. One that happens again after an abort is listed once.
    pub fn note(&mut self, failure: &FailureRecord) {
        // An aborted event fails again with the same record, and is still one failure to its reader.
        self.failures.retain(|known| known != failure);
        if self.failures.len() == RECENT_MAX {
            self.failures.pop_front();
        }
        self.failures.push_back(failure.clone());
    }

    /// The failures, oldest first.
    pub fn failures(&self) -> Vec<FailureRecord> {
        self.failures.iter().cloned().collect()
    }
}

/// A reader in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The partition.
    pub partition: TopicPartition,
    /// The reader: its first agent's name.
    pub reader: String,
    /// The next offset to take.
    pub taken: i64,
    /// The next offset that is not complete.
    pub done: i64,
    /// The next offset that is not committed.
    pub committed: i64,
    /// The partition's end, as far as it is known.
    pub high: Option<i64>,
    /// The cause that holds it; `None` if nothing waits.
    pub cause: Option<Cause>,
}

impl Reading {
    /// Offsets up to the partition's end that are not complete, as far as the end is known. 0 if nothing
    /// waits; never negative, since an end may be older news than the position.
    fn lag(&self) -> u64 {
        // Events that were taken count, even where the client has not heard of an end beyond them.
        let end = self.high.unwrap_or(self.taken).max(self.taken);
        u64::try_from(end - self.done).unwrap_or(0)
    }

    /// Makes the standing that the stall report looks at.
    pub fn into_standing(self) -> Standing {
        let lag = self.lag();
        Standing { subject: Subject::Reader(self.partition, self.reader), position: self.done, lag, cause: self.cause }
    }

    /// Makes the part of a snapshot's partition that is this reader's.
    pub fn into_status(self) -> ReaderStatus {
        let lag = self.lag();
        let Reading { reader, taken, done, committed, cause, .. } = self;
        ReaderStatus { reader, taken, done, committed, lag, cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(offset: i64) -> FailureRecord {
        let text = |text: &str| text.to_owned();
        let (agent, operation, topic, kind) = (text("a"), text("o"), text("t"), text("KeyError"));
        FailureRecord { agent, operation, topic, partition: 0, offset, kind, message: text("m"), at: text("f:1") }
    }

    #[test]
    fn the_last_twenty_failures_once_each() {
        let mut recent = Recent::default();
        for offset in 0..30 {
            recent.note(&failure(offset));
        }
        recent.note(&failure(29));
        let offsets: Vec<i64> = recent.failures.iter().map(|failure| failure.offset).collect();
        assert_eq!(offsets, (10..30).collect::<Vec<_>>());
    }

    #[test]
    fn events_that_were_taken_are_behind_even_where_no_end_is_known() {
        let reading = |taken, done, high| Reading {
            partition: TopicPartition::new("t", 0),
            reader: "a".to_owned(),
            taken,
            done,
            committed: done,
            high,
            cause: None,
        };
        let behind = [(5, 4, Some(9)), (5, 4, Some(3)), (5, 4, None), (5, 5, None), (5, 5, Some(3))];
        assert_eq!(behind.map(|(taken, done, high)| reading(taken, done, high).lag()), [5, 1, 1, 0, 0]);
        let reading = reading(5, 4, Some(9));
        assert_eq!((reading.clone().into_standing().lag, reading.into_status().lag), (5, 5));
    }
}
