//! The one table of counters: plain integers of the worker.
//!
//! The summary, the stall report and the status read it; metrics and the live graph will.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// A place where values pass: an operation, an output, a channel or a sink of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepCounters {
    /// The agent.
    pub agent: String,
    /// The operation, or `output:{topic}`, `channel:{name}`, `sink:{name}`.
    pub operation: String,
    /// Values that came.
    pub taken: u64,
    /// Values that went on, or records that were staged.
    pub given: u64,
    /// Values that a filter or predicate held back.
    pub filtered: u64,
    /// Events that failed here, each try counted.
    pub failed: u64,
    /// Time in user code, extrapolated from a sample of events.
    pub time: Duration,
}

/// All counters of a worker.
#[derive(Debug, Default)]
pub struct Counters {
    /// One row per site of the plan, in the plan's order.
    pub steps: Vec<StepCounters>,
    /// Events taken from topics, by readers.
    pub events: u64,
    /// Events complete, failed ones included.
    pub completed: u64,
    /// Events recorded as failed.
    pub failures: u64,
    /// Events sent to a dead-letter topic.
    pub dead_letters: u64,
    /// Records committed.
    pub records: u64,
    /// Commits.
    pub commits: u64,
}

/// The table, shared by all parts of a worker.
pub type SharedCounters = Rc<RefCell<Counters>>;
