//! Judges what a run of a known agent left behind: every input event has all of its effects exactly
//! once, or exactly one dead letter and none of them.
//!
//! The agent writes a record to each of its outputs for every event, counts the events of each key
//! in a table, and sends events that fail to a dead-letter topic. Records carry the event's unique
//! number, its key, its place among the events of its key, and the partition and offset where the
//! input holds it.
//!
//! A producer whose broker is killed may write an event twice, idempotent or not. The input is what it is then:
//! each copy is an event that must have its effects.

pub mod read;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use serde_json::{Value, json};

/// Violations of one kind that are described in words; all are counted.
const EXAMPLES_MAX: usize = 5;

/// An event as the input holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its unique number.
    pub id: u64,
    /// Its key.
    pub key: String,
    /// Its place among the events of its key.
    pub sequence: u64,
    /// Its partition in the input.
    pub partition: i32,
    /// Its offset in the input.
    pub offset: i64,
}

/// A record of an output, and the event that it says it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The event.
    pub event: Event,
    /// The partition of the output that holds it.
    pub partition: i32,
    /// The table's count when the record was written.
    pub count: Option<u64>,
}

/// The content of the topics at the end of a run. Lists are in the order of each partition.
#[derive(Clone, Debug, Default)]
pub struct Left {
    /// Events up to the input's end.
    pub input: Vec<Event>,
    /// Records of each output topic.
    pub outputs: Vec<Vec<Output>>,
    /// The numbers of events in the dead-letter topic.
    pub dead_letters: Vec<u64>,
    /// The last value of each key in the changelog; `None`: the agent has no table.
    pub table: Option<BTreeMap<String, u64>>,
}

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// An event more than once in one output, or in the dead letters.
    Duplicate,
    /// An event in no output and not in the dead letters.
    Lost,
    /// A record behind one that comes after it in its key or its input partition.
    Reordered,
    /// An event in one output and not in another, or in outputs and in the dead letters.
    Torn,
    /// A table that is not what the outputs say.
    TableMismatch,
    /// A record of an event that the input does not hold, or not at that place.
    Stranger,
}

impl Violation {
    /// All, in the order of the verdict.
    pub const ALL: [Violation; 6] = [
        Violation::Duplicate,
        Violation::Lost,
        Violation::Reordered,
        Violation::Torn,
        Violation::TableMismatch,
        Violation::Stranger,
    ];

    /// Its name in the plural, as it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Violation::Duplicate => "duplicates",
            Violation::Lost => "lost",
            Violation::Reordered => "reordered",
            Violation::Torn => "torn",
            Violation::TableMismatch => "table mismatches",
            Violation::Stranger => "strangers",
        }
    }
}

/// The judgement: how often each thing is wrong, with examples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    counts: BTreeMap<Violation, usize>,
    examples: BTreeMap<Violation, Vec<String>>,
    events: usize,
    records: usize,
    dead_letters: usize,
    /// Events that the input holds more than once.
    copied: usize,
}

impl Verdict {
    /// True if nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    /// Number of violations of one kind.
    pub fn count(&self, violation: Violation) -> usize {
        self.counts.get(&violation).copied().unwrap_or(0)
    }

    /// Events of the input that were judged.
    pub fn events(&self) -> usize {
        self.events
    }

    /// Adds violations that were found elsewhere.
    pub fn add(&mut self, other: Verdict) {
        for (violation, count) in other.counts {
            *self.counts.entry(violation).or_default() += count;
        }
        for (violation, examples) in other.examples {
            self.examples.entry(violation).or_default().extend(examples);
        }
        self.events += other.events;
        self.records += other.records;
        self.dead_letters += other.dead_letters;
        self.copied += other.copied;
    }

    /// One JSON object.
    pub fn to_json(&self) -> Value {
        let counts = Violation::ALL.map(|kind| (kind.name().replace(' ', "_"), json!(self.count(kind))));
        let mut object: serde_json::Map<String, Value> = counts.into_iter().collect();
        object.insert("events".to_owned(), json!(self.events));
        object.insert("records".to_owned(), json!(self.records));
        object.insert("dead_letters".to_owned(), json!(self.dead_letters));
        object.insert("copied_by_the_load".to_owned(), json!(self.copied));
        object.insert("examples".to_owned(), json!(self.examples.values().flatten().collect::<Vec<_>>()));
        Value::Object(object)
    }

    fn found(&mut self, violation: Violation, told: impl FnOnce() -> String) {
        *self.counts.entry(violation).or_default() += 1;
        let examples = self.examples.entry(violation).or_default();
        if examples.len() < EXAMPLES_MAX {
            examples.push(told());
        }
    }
}

impl fmt::Display for Verdict {
    /// One line of counts, then one line per example.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = Violation::ALL.map(|kind| format!("{} {}", kind.name(), self.count(kind)));
        let looked = format!("{} events, {} records, {} dead letters", self.events, self.records, self.dead_letters);
        write!(f, "{} ({looked}", counts.join(", "))?;
        if self.copied > 0 {
            write!(f, "; the load wrote {} of them more than once", self.copied)?;
        }
        f.write_str(")")?;
        for (kind, examples) in &self.examples {
            for example in examples {
                write!(f, "\n  {}: {example}", kind.name())?;
            }
        }
        Ok(())
    }
}

/// Judges what a run left behind.
pub fn judge(left: &Left) -> Verdict {
    let mut verdict = Verdict {
        events: left.input.len(),
        records: left.outputs.iter().map(Vec::len).sum(),
        dead_letters: left.dead_letters.len(),
        ..Verdict::default()
    };
    let mut held: HashMap<u64, Vec<&Event>> = HashMap::with_capacity(left.input.len());
    left.input.iter().for_each(|event| held.entry(event.id).or_default().push(event));
    verdict.copied = held.values().filter(|copies| copies.len() > 1).count();
    let came: Vec<Came> = left.outputs.iter().map(|output| repeats(output, &held, &mut verdict)).collect();
    let mut dead = Came::new();
    for &id in &left.dead_letters {
        if is_one_too_many(&mut dead, id, &held) {
            verdict.found(Violation::Duplicate, || format!("event {id} is once too often in the dead letters"));
        }
    }
    for event in left.input.iter().filter(|event| held[&event.id][0] == *event) {
        effects_of(event, held[&event.id].len(), &came, &dead, &mut verdict);
    }
    for (number, output) in left.outputs.iter().enumerate() {
        strangers(number, output, &held, &mut verdict);
        order(number, output, &mut verdict);
    }
    if let (Some(table), Some(output)) = (&left.table, left.outputs.first()) {
        table_of(table, output, &mut verdict);
    }
    verdict
}

/// How often each event came, by its number.
type Came = HashMap<u64, usize>;

/// Counts an event that came. True: more often than the input holds it.
fn is_one_too_many(came: &mut Came, id: u64, held: &HashMap<u64, Vec<&Event>>) -> bool {
    let count = came.entry(id).or_default();
    *count += 1;
    *count > held.get(&id).map_or(1, Vec::len)
}

/// Counts the events of an output; reports those that come too often.
fn repeats(output: &[Output], held: &HashMap<u64, Vec<&Event>>, verdict: &mut Verdict) -> Came {
    let mut came = Came::with_capacity(output.len());
    for record in output {
        let Event { id, partition, offset, .. } = record.event;
        if is_one_too_many(&mut came, id, held) {
            verdict.found(Violation::Duplicate, || format!("event {id} of {partition}@{offset} is there again"));
        }
    }
    came
}

/// Checks that an event, of which the input holds so many copies, has all effects or a dead letter: reports effects
/// that are in some places only, or nowhere.
fn effects_of(event: &Event, copies: usize, came: &[Came], dead: &Came, verdict: &mut Verdict) {
    let Event { id, partition, offset, .. } = event;
    let is_whole = |came: &Came| came.get(id).is_some_and(|&count| count >= copies);
    let (outputs, is_dead) = (came.iter().filter(|came| is_whole(came)).count(), is_whole(dead));
    match (outputs, is_dead) {
        (0, true) => {}
        (0, false) => {
            verdict.found(Violation::Lost, || format!("event {id} of {partition}@{offset} has no effect at all"));
        }
        (_, true) => verdict.found(Violation::Torn, || {
            format!("event {id} of {partition}@{offset} is in {outputs} outputs and in the dead letters")
        }),
        (some, false) if some < came.len() => verdict.found(Violation::Torn, || {
            format!("event {id} of {partition}@{offset} is in {some} of {} outputs", came.len())
        }),
        _ => {}
    }
}

fn strangers(number: usize, output: &[Output], held: &HashMap<u64, Vec<&Event>>, verdict: &mut Verdict) {
    for record in output {
        if !held.get(&record.event.id).is_some_and(|copies| copies.contains(&&record.event)) {
            verdict.found(Violation::Stranger, || {
                format!("output {number} holds {:?}, which the input does not", record.event)
            });
        }
    }
}

/// Judges the first record of each event: repeats are reported elsewhere.
fn order(number: usize, output: &[Output], verdict: &mut Verdict) {
    let mut seen = HashSet::with_capacity(output.len());
    let mut of_key: HashMap<&str, u64> = HashMap::new();
    let mut of_partition: HashMap<(i32, i32), i64> = HashMap::new();
    for record in output.iter().filter(|record| seen.insert((record.event.id, record.event.offset))) {
        let Event { id, key, sequence, partition, offset } = &record.event;
        let before = of_key.insert(key, *sequence);
        let before_offset = of_partition.insert((record.partition, *partition), *offset);
        if before.is_some_and(|before| before > *sequence) {
            verdict.found(Violation::Reordered, || {
                format!("output {number}: event {id}, number {sequence} of key {key}, comes after number {before:?}")
            });
        } else if before_offset.is_some_and(|before| before > *offset) {
            verdict.found(Violation::Reordered, || {
                format!("output {number}: event {id} of {partition}@{offset} comes after offset {before_offset:?}")
            });
        }
    }
}

/// Checks that the table counts the events of each key, and that every record says the count at its time.
fn table_of(table: &BTreeMap<String, u64>, output: &[Output], verdict: &mut Verdict) {
    let mut seen = HashSet::with_capacity(output.len());
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for record in output.iter().filter(|record| seen.insert((record.event.id, record.event.offset))) {
        let Event { id, key, .. } = &record.event;
        let count = counts.entry(key).or_default();
        *count += 1;
        if record.count.is_some_and(|told| told != *count) {
            let told = record.count;
            verdict.found(Violation::TableMismatch, || {
                format!("event {id} is number {count} of key {key}, its table said {told:?}")
            });
        }
    }
    for key in counts.keys().copied().chain(table.keys().map(String::as_str)).collect::<std::collections::BTreeSet<_>>()
    {
        let (kept, counted) = (table.get(key).copied().unwrap_or(0), counts.get(key).copied().unwrap_or(0));
        if kept != counted {
            verdict
                .found(Violation::TableMismatch, || format!("key {key}: the changelog says {kept}, outputs {counted}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITIONS: u64 = 2;

    fn event(id: u64) -> Event {
        // Four keys in two partitions, which take turns.
        let offset = i64::try_from(id / PARTITIONS).expect("small");
        let partition = i32::try_from(id % PARTITIONS).expect("small");
        Event { id, key: format!("key-{}", id % 4), sequence: id / 4, partition, offset }
    }

    fn output(id: u64, count: u64) -> Output {
        let event = event(id);
        Output { partition: event.partition, event, count: Some(count) }
    }

    /// Events 0 to 19, of which 8 failed, all well.
    fn well() -> Left {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        let ids = (0..20_u64).filter(|&id| id != 8);
        let records: Vec<Output> = ids
            .map(|id| {
                let count = counts.entry(event(id).key).or_default();
                *count += 1;
                output(id, *count)
            })
            .collect();
        Left {
            input: (0..20).map(event).collect(),
            outputs: vec![records.clone(), records],
            dead_letters: vec![8],
            table: Some(counts),
        }
    }

    /// Judges a run in which all is well, after this was done to it.
    fn found(harm: impl FnOnce(&mut Left)) -> Vec<(Violation, usize)> {
        let mut left = well();
        harm(&mut left);
        judge(&left).counts.into_iter().collect()
    }

    #[test]
    fn a_run_in_which_all_is_well() {
        let verdict = judge(&well());
        assert!(verdict.is_clean(), "{verdict}");
        assert_eq!(
            verdict.to_string(),
            "duplicates 0, lost 0, reordered 0, torn 0, table mismatches 0, strangers 0 (20 events, 38 records, 1 dead letters)"
        );
    }

    #[test]
    fn duplicates_in_an_output_and_in_the_dead_letters() {
        let again = |left: &mut Left| {
            let record = left.outputs[1][3].clone();
            left.outputs[1].push(record);
        };
        assert_eq!(found(again), [(Violation::Duplicate, 1)]);
        assert_eq!(found(|left| left.dead_letters.push(8)), [(Violation::Duplicate, 1)]);
    }

    #[test]
    fn lost_is_an_event_without_any_effect() {
        assert_eq!(found(|left| left.dead_letters.clear()), [(Violation::Lost, 1)]);
        let nowhere = |left: &mut Left| {
            left.outputs.iter_mut().for_each(|output| output.retain(|record| record.event.id != 19));
            left.table.as_mut().expect("it has one").insert("key-3".to_owned(), 4);
        };
        assert_eq!(found(nowhere), [(Violation::Lost, 1)]);
    }

    #[test]
    fn torn_between_outputs_or_with_a_dead_letter() {
        let one_only = |left: &mut Left| left.outputs[1].retain(|record| record.event.id != 5);
        assert_eq!(found(one_only), [(Violation::Torn, 1)]);
        assert_eq!(found(|left| left.dead_letters.push(5)), [(Violation::Torn, 1)]);
    }

    #[test]
    fn reordered_within_a_key_or_within_an_input_partition() {
        let swap = |first: u64, second: u64| {
            move |left: &mut Left| {
                let at = |id: u64, output: &[Output]| output.iter().position(|record| record.event.id == id);
                let output = &mut left.outputs[1];
                let (first, second) = (at(first, output).expect("there"), at(second, output).expect("there"));
                output.swap(first, second);
            }
        };
        // 1 and 5 are of one key; 1 and 3 of one partition.
        assert!(found(swap(1, 5)).iter().any(|&(kind, _)| kind == Violation::Reordered));
        assert_eq!(found(swap(1, 3)), [(Violation::Reordered, 1)]);
        // 1 and 2 are neither.
        assert_eq!(found(swap(1, 2)), []);
    }

    #[test]
    fn a_repeat_is_not_reordered_too() {
        let again = |left: &mut Left| {
            let part = left.outputs[0][3..9].to_vec();
            left.outputs[0].extend(part);
        };
        assert_eq!(found(again), [(Violation::Duplicate, 6)]);
    }

    #[test]
    fn tables_are_the_count_of_the_outputs() {
        let more = |left: &mut Left| *left.table.as_mut().expect("it has one").get_mut("key-1").expect("a key") += 1;
        assert_eq!(found(more), [(Violation::TableMismatch, 1)]);
        let missing = |left: &mut Left| assert!(left.table.as_mut().expect("it has one").remove("key-1").is_some());
        assert_eq!(found(missing), [(Violation::TableMismatch, 1)]);
        let unknown = |left: &mut Left| left.table.as_mut().expect("it has one").extend([("odd".to_owned(), 1)]);
        assert_eq!(found(unknown), [(Violation::TableMismatch, 1)]);
        let told = |left: &mut Left| left.outputs[0][4].count = Some(7);
        assert_eq!(found(told), [(Violation::TableMismatch, 1)]);
        assert_eq!(found(|left| left.table = None), []);
    }

    #[test]
    fn strangers_are_records_without_their_event() {
        let from_nowhere = |left: &mut Left| left.outputs.iter_mut().for_each(|output| output.push(output[0].clone()));
        assert_eq!(found(from_nowhere), [(Violation::Duplicate, 2)]);
        let elsewhere = |left: &mut Left| left.outputs[1][18].event.offset += 1;
        assert_eq!(found(elsewhere), [(Violation::Stranger, 1)]);
    }

    #[test]
    fn an_event_that_the_load_wrote_twice_has_its_effects_twice() {
        let twice = |left: &mut Left| {
            let copy = Event { offset: 10, ..event(19) };
            left.input.push(copy.clone());
            for output in &mut left.outputs {
                output.push(Output { partition: 1, event: copy.clone(), count: Some(6) });
            }
            left.table.as_mut().expect("it has one").insert("key-3".to_owned(), 6);
        };
        let mut left = well();
        twice(&mut left);
        let verdict = judge(&left);
        assert!(verdict.is_clean(), "{verdict}");
        assert!(
            verdict
                .to_string()
                .ends_with("(21 events, 40 records, 1 dead letters; the load wrote 1 of them more than once)")
        );
        let again = |left: &mut Left| {
            twice(left);
            let record = left.outputs[1].last().cloned().expect("there is one");
            left.outputs[1].push(record);
        };
        assert_eq!(found(again), [(Violation::Duplicate, 1)]);
        let once = |left: &mut Left| {
            twice(left);
            left.outputs[1].pop();
        };
        assert_eq!(found(once), [(Violation::Torn, 1)]);
    }

    #[test]
    fn verdicts_add_up() {
        let mut left = well();
        left.dead_letters.clear();
        let mut sum = judge(&well());
        sum.add(judge(&left));
        sum.add(judge(&left));
        assert_eq!(sum.count(Violation::Lost), 2);
        assert_eq!(sum.to_json()["lost"], 2);
        assert_eq!(sum.to_json()["events"], 60);
    }
}
