//! The one table of counters: plain integers of the worker.
//!
//! The summary, the stall report and the status read it; metrics and the live graph will. What passes counts
//! with its commit, so the columns add up to the totals, whatever is tried again or aborted on the way. Tries
//! and awaits count when they happen: an event that is retried for ever shows at once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::serving::TOPICS_MAX;
use crate::event::effects::Effects;
use crate::event::tally::Passage;
use crate::status::figures::{ByKind, UnitTimes};

/// The name of topics that are not counted by name.
pub const OTHER_TOPIC: &str = "other";

/// A place where values pass: decoding, or an operation, output, channel or sink of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
            "deadLetters": passed.dead_letters,
            "seconds": time.as_secs_f64(),
        })
    }
}

/// All counters of a worker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
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
    /// Events by reader and partition, by the numbers of both.
    #[serde(skip)]
    pub by_partition: Vec<Vec<EventCounts>>,
    /// Records committed, by topic.
    pub by_topic: BTreeMap<String, TopicCounts>,
    /// Events that failed, by kind.
    pub failed_by_kind: ByKind,
    /// Tries that were followed by another one, by kind.
    pub retried_by_kind: ByKind,
    /// Durations of units, by reader.
    #[serde(skip)]
    pub unit_times: Vec<UnitTimes>,
}

/// Events of a reader in a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventCounts {
    /// Events taken.
    pub taken: u64,
    /// Events complete and committed.
    pub completed: u64,
}

impl EventCounts {
    /// Adds the counts of another partition.
    pub fn add(&mut self, other: EventCounts) {
        self.taken += other.taken;
        self.completed += other.completed;
    }
}

/// Records committed to a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicCounts {
    /// Records that are no dead letters.
    pub records: u64,
    /// Dead letters.
    pub dead_letters: u64,
}

impl Counters {
    /// Counts effects that are committed.
    pub fn count_committed(&mut self, effects: &Effects) {
        self.failures += effects.failures.len() as u64;
        // Dead letters are among the outgoing records, so they are taken out of the sum below.
        let dead_letters = effects.dead_letters.len() as u64;
        self.dead_letters += dead_letters;
        self.records += effects.outgoing_count() as u64 - dead_letters;
        self.add(&effects.counts);
        self.count_topics(effects);
        for failure in &effects.failures {
            self.failed_by_kind.count(&failure.agent, &failure.operation, &failure.kind);
        }
        for progress in &effects.progress {
            self.completed += progress.events;
            self.at(progress.reader.index(), progress.partition).completed += progress.events;
        }
    }

    /// Counts records by topic. Records of one topic mostly come in runs, so that a name is looked up once for many.
    fn count_topics(&mut self, effects: &Effects) {
        let mut records = effects.topics().peekable();
        while let Some(topic) = records.next() {
            let mut count = 1;
            while records.next_if(|next| Rc::ptr_eq(next, topic)).is_some() {
                count += 1;
            }
            self.topic(topic).records += count;
        }
        for topic in &effects.dead_letters {
            let counts = self.topic(topic);
            (counts.records, counts.dead_letters) = (counts.records.saturating_sub(1), counts.dead_letters + 1);
        }
    }

    fn topic(&mut self, name: &str) -> &mut TopicCounts {
        // Selectors may name any number of topics.
        let is_named = self.by_topic.contains_key(name) || self.by_topic.len() < TOPICS_MAX;
        let name = if is_named { name } else { OTHER_TOPIC };
        if !self.by_topic.contains_key(name) {
            self.by_topic.insert(name.to_owned(), TopicCounts::default());
        }
        self.by_topic.get_mut(name).expect("it was just inserted")
    }

    /// The counts of a reader in a partition, by the numbers of both.
    pub fn at(&mut self, reader: usize, partition: usize) -> &mut EventCounts {
        if self.by_partition.len() <= reader {
            self.by_partition.resize(reader + 1, Vec::new());
        }
        let partitions = &mut self.by_partition[reader];
        if partitions.len() <= partition {
            partitions.resize(partition + 1, EventCounts::default());
        }
        &mut partitions[partition]
    }

    /// Counts a try at this row that is followed by another one.
    pub fn count_retry(&mut self, row: usize, kind: &str) {
        let step = &mut self.steps[row];
        step.retried += 1;
        self.retried_by_kind.count(&step.agent, &step.operation, kind);
    }

    /// Counts the duration of a unit of a reader, which stands for `times` of them.
    pub fn count_time(&mut self, reader: usize, time: Duration, times: u64) {
        if self.unit_times.len() <= reader {
            self.unit_times.resize(reader + 1, UnitTimes::default());
        }
        self.unit_times[reader].0.observe(time, times);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::effects::Scratch;

    fn sent(topics: impl IntoIterator<Item = String>) -> Effects {
        let (mut effects, mut scratch) = (Effects::default(), Scratch::default());
        for topic in topics {
            scratch.send(&topic.as_str().into(), 0, 0, (None, None), Vec::new());
        }
        effects.keep(&mut scratch);
        effects
    }

    #[test]
    fn topics_beyond_the_first_are_one() {
        let mut counters = Counters::default();
        counters.count_committed(&sent((0..10_000).map(|number| format!("t{number}"))));
        counters.count_committed(&sent(["t0".to_owned(), "t9999".to_owned()]));
        assert_eq!(counters.by_topic.len(), TOPICS_MAX + 1);
        let records = |topic: &str| counters.by_topic.get(topic).map(|counts| counts.records);
        assert_eq!((records("t0"), records("t9999"), records(OTHER_TOPIC)), (Some(2), None, Some(9_801)));
    }

    #[test]
    fn dead_letters_are_no_records() {
        let mut effects = sent(["out".to_owned(), "dead".to_owned()]);
        effects.dead_letters = vec!["dead".into()];
        let mut counters = Counters::default();
        counters.count_committed(&effects);
        assert_eq!(counters.by_topic["dead"], TopicCounts { records: 0, dead_letters: 1 });
        assert_eq!((counters.by_topic["out"], counters.records), (TopicCounts { records: 1, dead_letters: 0 }, 1));
    }
}
