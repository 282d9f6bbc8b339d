//! The invariants, checked at every commit that the broker makes and after every step.
//!
//! The checker knows what must come of each event (see [`crate::workload`]) and sees each commit as
//! one thing: its records, and the offsets with the readers' positions. Between a reader's position
//! before a commit and after it lie the events whose effects must be in that commit, all of them and
//! no others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kaspr_exec::broker::log::Commit;
use kaspr_exec::broker::position::NameHash;
use kaspr_exec::event::failure::FailureRecord;
use kaspr_exec::event::kept::Kept;
use kaspr_exec::event::message::{Event, TopicPartition};

use crate::code::Told;
use crate::workload::{CHAIN, CHANGELOG, INPUT, Input, Kind, effects, number};

/// An invariant that does not hold, in words.
pub type Violation = String;

/// An event's place.
type Place = (TopicPartition, i64);

/// Effects that a commit must still show: by topic and the event's number, values in order.
type Owed = BTreeMap<(&'static str, usize), VecDeque<(String, Place)>>;

/// The truth about the input, and all that has been seen.
pub struct Checker {
    kinds: Vec<Kind>,
    told: Told,
    inputs: BTreeMap<TopicPartition, BTreeMap<i64, Input>>,
    keys: BTreeMap<usize, String>,
    offsets: BTreeMap<TopicPartition, i64>,
    positions: BTreeMap<(Kind, TopicPartition), i64>,
    /// The changelog, folded.
    folded: BTreeMap<i32, BTreeMap<String, u64>>,
    /// The table as it must be at the counter's position.
    counts: BTreeMap<i32, BTreeMap<String, u64>>,
    /// The last event that each partition of an output holds, by the event's partition.
    last: BTreeMap<(TopicPartition, TopicPartition), i64>,
    failures: BTreeSet<(String, TopicPartition, i64)>,
    /// Failures that were recorded at the broker's side: the worker should report them.
    failed: BTreeSet<(String, TopicPartition, i64)>,
    told_read: usize,
    told_numbers: BTreeSet<usize>,
}

impl Checker {
    /// Nothing has been seen yet.
    pub fn new(kinds: &[Kind], told: Told) -> Checker {
        Checker {
            kinds: kinds.to_vec(),
            told,
            inputs: BTreeMap::new(),
            keys: BTreeMap::new(),
            offsets: BTreeMap::new(),
            positions: BTreeMap::new(),
            folded: BTreeMap::new(),
            counts: BTreeMap::new(),
            last: BTreeMap::new(),
            failures: BTreeSet::new(),
            failed: BTreeSet::new(),
            told_read: 0,
            told_numbers: BTreeSet::new(),
        }
    }

    /// Notes that an event was written to the input.
    pub fn input(&mut self, partition: TopicPartition, offset: i64, input: Input) {
        let number = number(&input.value).expect("it has a number");
        self.keys.insert(number, input.key.clone());
        self.inputs.entry(partition).or_default().insert(offset, input);
    }

    /// Checks I1 to I4, as far as a commit shows them.
    pub fn commit(&mut self, commit: &Commit) -> Result<(), Violation> {
        let chained = commit.records.iter().filter(|event| &*event.topic == CHAIN).collect::<Vec<_>>();
        self.fold(commit);
        let mut owed = Owed::new();
        let mut counted = BTreeSet::new();
        for offset in &commit.offsets {
            let (partition, committed) = (&offset.partition, &offset.committed);
            let before = self.offsets.insert(partition.clone(), committed.offset).unwrap_or(0);
            if committed.offset < before {
                return Err(format!("I3: the offset of {partition} goes back from {before} to {}", committed.offset));
            }
            let metadata = committed.metadata.as_ref().ok_or("I3: metadata that is not ours")?;
            for kind in self.kinds.clone().into_iter().filter(|kind| kind.topic() == &*partition.topic) {
                let ahead = metadata.ahead.get(&NameHash::of(kind.name())).copied().unwrap_or(0);
                self.advance(kind, partition, committed.offset + ahead, &mut owed)?;
                if kind == Kind::Counter {
                    counted.insert(partition.partition);
                }
            }
        }
        for event in commit.records.iter().filter(|event| !matches!(&*event.topic, INPUT | CHANGELOG)) {
            self.pay(event, &mut owed)?;
        }
        if let Some(((topic, number), left)) = owed.iter().find(|(_, left)| !left.is_empty()) {
            let (_, (partition, offset)) = &left[0];
            return Err(format!(
                "I1: the commit passes event {number} at {partition}@{offset} without its effect on {topic}"
            ));
        }
        for partition in counted {
            self.compare_folded(partition)?;
        }
        for event in chained {
            let value = text(event.value.as_deref());
            let input = Input { key: text(event.key.as_deref()), value };
            self.inputs.entry(event.topic_partition()).or_default().insert(event.offset, input);
        }
        Ok(())
    }

    /// Moves a reader's position: the effects of the events between are owed.
    fn advance(&mut self, kind: Kind, partition: &TopicPartition, to: i64, owed: &mut Owed) -> Result<(), Violation> {
        let from = self.positions.insert((kind, partition.clone()), to).unwrap_or(0);
        if to < from {
            return Err(format!("I3: the position of {} in {partition} goes back from {from} to {to}", kind.name()));
        }
        self.hear();
        let counts = self.counts.entry(partition.partition).or_default();
        for (offset, input) in self.inputs.entry(partition.clone()).or_default().range(from..to) {
            let effects = effects(kind, input, counts);
            let number = number(&input.value).expect("it has a number");
            for (topic, value) in effects.records {
                let place = (partition.clone(), *offset);
                owed.entry((topic, number)).or_default().push_back((value, place));
            }
            if effects.fails {
                let agent = if kind == Kind::Opener && input.is('x') { "stricter" } else { kind.name() };
                self.failed.insert((agent.to_owned(), partition.clone(), *offset));
            }
            if kind == Kind::Teller && !self.told_numbers.contains(&number) {
                return Err(format!("I1: the sink was not told of event {number}, which is committed"));
            }
        }
        Ok(())
    }

    /// Takes the values that the sink was given since the last look.
    fn hear(&mut self) {
        let told = self.told.borrow();
        self.told_numbers.extend(told[self.told_read..].iter().filter_map(|value| number(value)));
        self.told_read = told.len();
    }

    /// Checks that a record is owed.
    fn pay(&mut self, event: &Event, owed: &mut Owed) -> Result<(), Violation> {
        let values = text(event.value.as_deref());
        for value in values.split('+') {
            let number = number(value).ok_or_else(|| format!("I1: {event} holds {value:?}"))?;
            let found = owed.iter_mut().find(|((topic, owes), _)| *topic == &*event.topic && *owes == number);
            let next = found.and_then(|(_, left)| left.pop_front());
            let Some((expected, (partition, offset))) = next else {
                return Err(format!(
                    "I1: {event} shows {value:?}, whose event the commit does not pass or shows twice"
                ));
            };
            if expected != value {
                return Err(format!("I1: {event} holds {value:?} in the place of {expected:?}"));
            }
            let last = self.last.entry((event.topic_partition(), partition.clone())).or_insert(-1);
            // Events of one partition may come from several readers in a dead-letter topic.
            if *last > offset && &*event.topic != crate::workload::DEAD {
                return Err(format!("I2: {event}: event {partition}@{offset} comes after {partition}@{last}"));
            }
            *last = offset;
        }
        Ok(())
    }

    fn fold(&mut self, commit: &Commit) {
        for event in commit.records.iter().filter(|event| &*event.topic == CHANGELOG) {
            let (key, pairs) = (text(event.key.as_deref()), self.folded.entry(event.partition).or_default());
            match &event.value {
                Some(value) => pairs.insert(key, text(Some(value)).parse().unwrap_or(u64::MAX)),
                None => pairs.remove(&key),
            };
        }
    }

    fn compare_folded(&self, partition: i32) -> Result<(), Violation> {
        let empty = BTreeMap::new();
        let folded = self.folded.get(&partition).unwrap_or(&empty);
        let counts = self.counts.get(&partition).unwrap_or(&empty);
        if folded == counts {
            return Ok(());
        }
        Err(format!("I4: the changelog of partition {partition} comes to {folded:?}, its events to {counts:?}"))
    }

    /// I4: a worker's table equals the fold of the committed changelog.
    pub fn table(&self, worker: &str, partition: i32, pairs: &[(Kept, Kept)]) -> Result<(), Violation> {
        let pairs: BTreeMap<String, u64> =
            pairs.iter().map(|(key, value)| (text(Some(key)), text(Some(value)).parse().unwrap_or(u64::MAX))).collect();
        let folded = self.folded.get(&partition).cloned().unwrap_or_default();
        if pairs == folded {
            return Ok(());
        }
        Err(format!("I4: {worker} holds {pairs:?} of partition {partition}, the changelog comes to {folded:?}"))
    }

    /// Checks I1: a failure is recorded once, and when it is committed.
    pub fn failure(&mut self, failure: &FailureRecord) -> Result<(), Violation> {
        let partition = TopicPartition::new(failure.topic.as_str(), failure.partition);
        let key = (failure.agent.clone(), partition, failure.offset);
        let said = format!("{} of {}@{}", key.0, key.1, key.2);
        if !self.failed.contains(&key) {
            return Err(format!("I1: a failure in {said} is recorded that is not committed, or is none"));
        }
        match self.failures.insert(key) {
            true => Ok(()),
            false => Err(format!("I1: a failure in {said} is recorded twice")),
        }
    }

    /// Checks that every failure that is committed was recorded.
    pub fn all_recorded(&self) -> Result<(), Violation> {
        match self.failed.difference(&self.failures).next() {
            None => Ok(()),
            Some((agent, partition, offset)) => {
                Err(format!("I1: a failure in {agent} of {partition}@{offset} is committed and was not recorded"))
            }
        }
    }

    /// I7: the first event that no commit has passed.
    pub fn unprocessed(&self) -> Option<String> {
        for (partition, events) in &self.inputs {
            let Some((last, _)) = events.last_key_value() else { continue };
            for kind in self.kinds.iter().filter(|kind| kind.topic() == &*partition.topic) {
                let position = self.positions.get(&(*kind, partition.clone())).copied().unwrap_or(0);
                if position <= *last {
                    return Some(format!(
                        "{} is at {position} of {partition}, whose last event is {last}",
                        kind.name()
                    ));
                }
            }
        }
        None
    }

    /// Checks that readers see in the end what the commits showed, and nothing else.
    pub fn seen(&self, topic: &str, seen: usize, committed: usize) -> Result<(), Violation> {
        match seen == committed {
            true => Ok(()),
            false => Err(format!("I5: {topic} shows {seen} records, {committed} were committed")),
        }
    }
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}
