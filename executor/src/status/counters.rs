//! The one table of counters: plain integers of the worker.
//!
//! The summary, the stall report and the status read it; metrics and the live graph will. What passes counts
//! with its commit, so the columns add up to the totals, whatever is tried again or aborted on the way. Tries
//! and awaits count when they happen: an event that is retried for ever shows at once.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::event::effects::Effects;
use crate::event::tally::Passage;

/// A place where values pass: decoding, or an operation, output, channel or sink of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepCounters {
    /// The agent.
    pub agent: String,
    /// The operation, or `decode`, `output:{topic}`, `channel:{name}`, `sink:{name}`.
    pub operation: String,
    /// Values of complete events. Decoding takes and gives events.
    pub passed: Passage,
    /// Tries that failed here and are followed by another one; a batch's try counts once.
    pub retried: u64,
    /// Calls that had to wait for what they await.
    pub awaited: u64,
    /// Time in user code, extrapolated from a sample of events.
    pub time: Duration,
}

impl StepCounters {
    /// The row as the status and the summary have it in JSON.
    pub fn to_json(&self) -> Value {
        let StepCounters { agent, operation, passed, retried, awaited, time } = self;
        json!({
            "agent": agent,
            "operation": operation,
            "in": passed.taken,
            "out": passed.given,
            "filtered": passed.filtered,
            "failed": passed.failed,
            "retried": retried,
            "awaited": awaited,
            "records": passed.records,
            "deadLetters": passed.letters,
            "seconds": time.as_secs_f64(),
        })
    }
}

/// All counters of a worker.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// One row per site of the plan, in the plan's order.
    pub steps: Vec<StepCounters>,
    /// Events taken from topics, by readers.
    pub events: u64,
    /// Events complete and committed, failed ones included.
    pub completed: u64,
    /// Events that failed, each once: recorded and committed, or the worker has halted before them.
    pub failures: u64,
    /// Dead letters committed.
    pub dead_letters: u64,
    /// Records committed, dead letters not among them.
    pub records: u64,
    /// Events before which the worker has halted.
    pub halted: u64,
    /// Commits.
    pub commits: u64,
}

impl Counters {
    /// Counts effects that are committed.
    pub fn count_committed(&mut self, effects: &Effects) {
        self.completed += effects.completed;
        self.failures += effects.failures.len() as u64;
        // Dead letters are among the outgoing records, so they are taken out of the sum below.
        self.dead_letters += effects.letters;
        self.records += effects.outgoing_count() as u64 - effects.letters;
        self.add(&effects.counts);
    }

    /// Counts a unit before which the worker halts.
    pub fn count_halted(&mut self, rows: &[(usize, Passage)]) {
        // A unit that halts is never committed, so nothing else would count it.
        let failed: u64 = rows.iter().map(|(_, passed)| passed.failed).sum();
        self.halted += failed;
        self.failures += failed;
        self.add(rows);
    }

    /// Events that came to their end: they are complete, or the worker has halted before them.
    pub fn ended(&self) -> u64 {
        self.completed + self.halted
    }

    /// Tries that were followed by another one. Summed over all rows.
    pub fn retried(&self) -> u64 {
        self.steps.iter().map(|step| step.retried).sum()
    }

    /// Calls that had to wait for what they await.
    pub fn awaited(&self) -> u64 {
        self.steps.iter().map(|step| step.awaited).sum()
    }

    fn add(&mut self, rows: &[(usize, Passage)]) {
        // Rows are numbers from the plan's sites, and the table was made from the same plan.
        for (row, passed) in rows {
            self.steps[*row].passed.add(*passed);
        }
    }
}

/// The table, shared by all parts of a worker.
pub type SharedCounters = Rc<RefCell<Counters>>;
