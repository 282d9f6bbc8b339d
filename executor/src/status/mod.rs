//! The status of a worker as JSON: SIGUSR1 prints it (`docs/operations.md`).
//!
//! | file | answers |
//! |---|---|
//! | `counters.rs` | how much has passed where, since the start |
//! | `stall.rs` | which partitions stand still, and why |
//! | here | both, with positions and the last failures, at one moment |
//!
//! Nothing here acts on what it sees. Of an event's key, value and headers nothing is shown but what the
//! message of an exception quotes.

pub mod counters;
pub mod stall;

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use crate::config::Config;
use crate::event::failure::FailureRecord;
use crate::event::message::TopicPartition;
use crate::status::counters::{Counters, StepCounters};
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
}

/// The parts of a status.
pub struct Status<'a> {
    /// The settings of the worker that it describes.
    pub config: &'a Config,
    /// The time of the status, in ms since 1970.
    pub now_ms: i64,
    /// The table of counters.
    pub counters: &'a Counters,
    /// The positions of the readers.
    pub readings: Vec<Reading>,
    /// The most recent failures.
    pub recent: &'a Recent,
}

impl Status<'_> {
    /// Makes one JSON object. It holds nothing of an event's payload but what the messages of failures quote.
    /// The keys are part of the interface: `docs/operations.md` lists them, and other programs read them.
    pub fn to_json(self) -> Value {
        let counters = self.counters;
        // Sorted by name, so that two statuses can be compared line by line.
        let mut partitions: BTreeMap<TopicPartition, Vec<Reading>> = BTreeMap::new();
        for reading in self.readings {
            partitions.entry(reading.partition.clone()).or_default().push(reading);
        }
        json!({ "status": {
            "app": self.config.app,
            "worker": self.config.transactional_id,
            "timestamp": self.now_ms,
            "events": counters.events,
            "completed": counters.completed,
            "failed": counters.failures,
            "retried": counters.retried(),
            "awaited": counters.awaited(),
            "deadLetters": counters.dead_letters,
            "records": counters.records,
            "commits": counters.commits,
            "steps": counters.steps.iter().map(StepCounters::to_json).collect::<Vec<_>>(),
            "partitions": partitions.iter().map(partition).collect::<Vec<_>>(),
            "failures": self.recent.failures,
        } })
    }
}

/// Describes a partition: it is committed, and lags, as its slowest reader.
fn partition((partition, readings): (&TopicPartition, &Vec<Reading>)) -> Value {
    json!({
        "topic": &*partition.topic,
        "partition": partition.partition,
        "high": readings.iter().find_map(|reading| reading.high),
        // The offset that Kafka has for the group is the least of the readers' positions.
        "committed": readings.iter().map(|reading| reading.committed).min(),
        "lag": readings.iter().map(Reading::lag).max(),
        "readers": readings.iter().map(reader).collect::<Vec<_>>(),
    })
}

fn reader(reading: &Reading) -> Value {
    // The same words as in the stall report: they are searched for in logs.
    let holds = reading.cause.as_ref().map(Cause::to_string);
    json!({ "reader": reading.reader, "taken": reading.taken, "done": reading.done, "holds": holds })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::tally::Passage;

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
    fn a_status_says_where_everything_is() {
        let step = StepCounters {
            agent: "a".to_owned(),
            operation: "o".to_owned(),
            passed: Passage { taken: 5, given: 3, filtered: 1, failed: 1, letters: 0, records: 2 },
            retried: 7,
            awaited: 6,
            time: Duration::from_millis(1500),
        };
        let counters = Counters { steps: vec![step], events: 5, completed: 5, ..Counters::default() };
        let reading = Reading {
            partition: TopicPartition::new("t", 0),
            reader: "a".to_owned(),
            taken: 5,
            done: 4,
            committed: 2,
            high: Some(9),
            cause: Some(Cause::Window { events: 1, due_in: Duration::from_secs(5) }),
        };
        let mut recent = Recent::default();
        recent.note(&failure(3));
        let config = Config::new("shop", "pod-1", 0);
        let status = Status {
            config: &config,
            now_ms: 7,
            counters: &counters,
            readings: vec![reading.clone()],
            recent: &recent,
        };
        let expected = json!({ "status": {
            "app": "shop", "worker": "shop.pod-1.0", "timestamp": 7,
            "events": 5, "completed": 5, "failed": 0, "retried": 7, "awaited": 6, "deadLetters": 0, "records": 0,
            "commits": 0,
            "steps": [{"agent": "a", "operation": "o", "in": 5, "out": 3, "filtered": 1, "failed": 1, "retried": 7,
                "awaited": 6, "records": 2, "deadLetters": 0, "seconds": 1.5}],
            "partitions": [{"topic": "t", "partition": 0, "high": 9, "committed": 2, "lag": 5, "readers": [
                {"reader": "a", "taken": 5, "done": 4, "holds": "an open window holds 1 events for another 5 s"},
            ]}],
            "failures": [{"agent": "a", "operation": "o", "topic": "t", "partition": 0, "offset": 3,
                "kind": "KeyError", "message": "m", "at": "f:1"}],
        } });
        assert_eq!(status.to_json(), expected);
        assert_eq!(reading.into_standing().lag, 5);
    }
}
