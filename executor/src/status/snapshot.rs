//! The snapshot: a worker at one moment, as plain data that any thread may read.
//!
//! The worker makes one between two turns: at SIGUSR1, and once a second while a port is served, where it lies
//! on the [`Board`](super::board::Board). Of an event's payload nothing is in it but what the messages of
//! failures quote.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::clients::ClientFigures;
use super::counters::{Counters, EventCounts, StepCounters};
use super::figures::{DeliveryFigures, GroupFigures, UnitTimes};
use super::stall::Cause;
use crate::event::failure::FailureRecord;

/// The states of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It has not joined its group: it loads user code, waits for a broker, or for members of another protocol.
    #[default]
    Loading,
    /// It has no assignment: it joins, or gave up partitions and waits for the group to share them out.
    Joining,
    /// It holds partitions that have not started.
    Restoring,
    /// All its partitions have started. An empty assignment counts.
    Running,
    /// It was told to stop.
    Stopping,
    /// There are no definitions to run.
    Idle,
}

impl State {
    /// All states, in the order in which a worker meets them.
    pub const ALL: [State; 6] =
        [State::Loading, State::Joining, State::Restoring, State::Running, State::Stopping, State::Idle];

    /// The name in the status and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            State::Loading => "loading",
            State::Joining => "joining",
            State::Restoring => "restoring",
            State::Running => "running",
            State::Stopping => "stopping",
            State::Idle => "idle",
        }
    }

    /// True if the operator counts the worker as rebalancing. It deletes a pod that is so for 300 s and does not
    /// recover meanwhile.
    pub fn is_rebalancing(self) -> bool {
        matches!(self, State::Loading | State::Joining)
    }

    /// True if the operator counts the worker as recovering.
    pub fn is_recovering(self) -> bool {
        matches!(self, State::Loading | State::Restoring)
    }

    /// True if the worker does all that it is there for.
    pub fn is_ready(self) -> bool {
        matches!(self, State::Running | State::Idle)
    }
}

/// A reader in a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderStatus {
    /// The reader: its first agent's name.
    pub reader: String,
    /// The next offset to take.
    pub taken: i64,
    /// The next offset that is not complete.
    pub done: i64,
    /// The next offset that is not committed.
    pub committed: i64,
    /// Offsets up to the partition's end that are not complete.
    pub lag: u64,
    /// The cause that holds it; `None` if nothing waits.
    pub cause: Option<Cause>,
}

/// A partition that has started, with its readers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// The topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// The partition's end, as far as it is known.
    pub high: Option<i64>,
    /// Bytes of its events that wait.
    pub queued_bytes: usize,
    /// The timestamp of the oldest event that was taken and is not complete, in ms since 1970.
    pub oldest_ms: Option<i64>,
    /// Its readers, in the order of the plan.
    pub readers: Vec<ReaderStatus>,
}

impl PartitionStatus {
    /// The offset that Kafka has for the group: the least of the readers' positions.
    pub fn committed(&self) -> Option<i64> {
        self.readers.iter().map(|reader| reader.committed).min()
    }

    /// The lag of the slowest reader.
    pub fn lag(&self) -> u64 {
        self.readers.iter().map(|reader| reader.lag).max().unwrap_or(0)
    }

    fn to_json(&self) -> Value {
        json!({
            "topic": self.topic,
            "partition": self.partition,
            "high": self.high,
            "committed": self.committed(),
            "lag": self.lag(),
            "readers": self.readers.iter().map(ReaderStatus::to_json).collect::<Vec<_>>(),
        })
    }
}

impl ReaderStatus {
    fn to_json(&self) -> Value {
        // The same words as in the stall report: they are searched for in logs.
        let holds = self.cause.as_ref().map(Cause::to_string);
        json!({ "reader": self.reader, "taken": self.taken, "done": self.done, "holds": holds })
    }
}

/// A partition of a table whose changelog is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoringTable {
    /// The table.
    pub table: String,
    /// The partition.
    pub partition: i32,
    /// The share of its offsets that was read.
    pub percent: u8,
}

/// Figures of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableFigures {
    /// Its name.
    pub table: String,
    /// Reads of keys by user code.
    pub reads: u64,
    /// Writes that are committed, deletions not among them.
    pub writes: u64,
    /// Deletions that are committed.
    pub deletes: u64,
    /// Records that were read from its changelog.
    pub restored: u64,
    /// The share of its partitions here that is whole, from 0 to 1; `None`: it has no changelog.
    pub ratio: Option<f64>,
    /// Committed keys in partitions here that are whole; `None`: they are not counted yet.
    pub keys: Option<u64>,
}

/// Partitions by topic, both sorted.
pub type Partitions = BTreeMap<String, BTreeSet<i32>>;

/// A worker at one moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// The app.
    pub app: String,
    /// The worker's transactional id, which no other worker has.
    pub worker: String,
    /// The time, in ms since 1970.
    pub timestamp_ms: i64,
    /// The worker's state.
    pub state: State,
    /// The reason for which the worker is not ready, in words, where there is more to say than the state.
    pub why: Option<String>,
    /// True if the worker is its app's leader.
    pub is_leader: bool,
    /// The generation of the group of which the worker is a member; `None`: it is none at the moment. A group has
    /// at most one leader in each.
    pub generation: Option<i32>,
    /// All partitions that the group has assigned, those that have not started among them.
    pub assignment: Partitions,
    /// The partitions of changelogs whose tables lie here.
    pub changelogs: Partitions,
    /// Partitions that have started, sorted.
    pub partitions: Vec<PartitionStatus>,
    /// Partitions of tables that are being restored.
    pub restoring: Vec<RestoringTable>,
    /// The number of subjects that have stalled for longer than `stallAfter`, by cause.
    pub stalled: BTreeMap<String, u64>,
    /// The time since the start in which the worker was awake.
    pub busy: Duration,
    /// The time since the start in which the worker slept.
    pub idle: Duration,
    /// Ends of transactions.
    pub delivery: DeliveryFigures,
    /// Changes of the group.
    pub group: GroupFigures,
    /// The time for which something complete has waited for its commit; zero where nothing waits.
    pub commit_age: Duration,
    /// Events by the names of reader and topic.
    pub events: Vec<((String, String), EventCounts)>,
    /// Durations of units by the names of their readers.
    pub unit_times: Vec<(String, UnitTimes)>,
    /// Figures of Kafka's clients.
    pub clients: Vec<ClientFigures>,
    /// Figures of tables.
    pub tables: Vec<TableFigures>,
    /// The reason for which tables live in memory although the state dir was to keep them.
    pub given_up: Option<String>,
    /// The table of counters.
    pub counters: Counters,
    /// The most recent failures, oldest first.
    pub failures: Vec<FailureRecord>,
}

impl Snapshot {
    /// Makes one JSON object. The keys are part of the interface: `docs/operations.md` lists them, and other
    /// programs read them.
    pub fn to_json(&self) -> Value {
        // Key by key and not derived: a field that gets another name must not change what programs read.
        let counters = &self.counters;
        json!({
            "app": self.app,
            "worker": self.worker,
            "timestamp": self.timestamp_ms,
            "events": counters.events,
            "completed": counters.completed,
            "failed": counters.failures,
            "retried": counters.retried(),
            "awaited": counters.awaited(),
            "deadLetters": counters.dead_letters,
            "records": counters.records,
            "commits": counters.commits,
            "steps": counters.steps.iter().map(StepCounters::to_json).collect::<Vec<_>>(),
            "partitions": self.partitions.iter().map(PartitionStatus::to_json).collect::<Vec<_>>(),
            "failures": self.failures,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tally::Passage;

    #[test]
    fn the_operator_is_told_of_a_state_what_its_table_says() {
        let told = State::ALL.map(|state| (state.name(), state.is_rebalancing(), state.is_recovering()));
        let expected = [
            ("loading", true, true),
            ("joining", true, false),
            ("restoring", false, true),
            ("running", false, false),
            ("stopping", false, false),
            ("idle", false, false),
        ];
        assert_eq!(told, expected);
        assert_eq!(State::ALL.map(State::is_ready), [false, false, false, true, false, true]);
    }

    #[test]
    fn a_status_says_where_everything_is() {
        let step = StepCounters {
            agent: "a".to_owned(),
            operation: "o".to_owned(),
            passed: Passage { taken: 5, given: 3, filtered: 1, failed: 1, dead_letters: 0, records: 2 },
            retried: 7,
            awaited: 6,
            time: Duration::from_millis(1500),
        };
        let text = |text: &str| text.to_owned();
        let (agent, operation, topic, kind) = (text("a"), text("o"), text("t"), text("KeyError"));
        let reader = ReaderStatus {
            reader: text("a"),
            taken: 5,
            done: 4,
            committed: 2,
            lag: 5,
            cause: Some(Cause::Window { events: 1, due_in: Duration::from_secs(5) }),
        };
        let snapshot = Snapshot {
            app: text("shop"),
            worker: text("shop.pod-1.0"),
            timestamp_ms: 7,
            counters: Counters { steps: vec![step], events: 5, completed: 5, ..Counters::default() },
            partitions: vec![PartitionStatus {
                topic: text("t"),
                partition: 0,
                high: Some(9),
                queued_bytes: 0,
                oldest_ms: None,
                readers: vec![reader],
            }],
            failures: vec![FailureRecord {
                agent,
                operation,
                topic,
                partition: 0,
                offset: 3,
                kind,
                message: text("m"),
                at: text("f:1"),
            }],
            ..Snapshot::default()
        };
        let expected = json!({
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
        });
        assert_eq!(snapshot.to_json(), expected);
    }
}
