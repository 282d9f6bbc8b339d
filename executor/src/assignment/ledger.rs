//! How far each reader is in each partition.
//!
//! A *ledger* holds two positions: `taken`, the next offset to accept, and `done`, the next offset
//! that is not complete. Between the two lies what waits: queued, in an open window, in back-off,
//! in a pending await. Events of a partition complete in order, so there are no gaps.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::event::message::{Event, TopicName, TopicPartition};
use crate::guard::Watch;

/// Positions of one reader in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ledger {
    taken: i64,
    done: i64,
}

impl Ledger {
    /// A ledger that starts at an offset.
    pub fn at(offset: i64) -> Ledger {
        Ledger { taken: offset, done: offset }
    }

    /// Takes an event, unless it was taken before.
    pub fn take(&mut self, offset: i64) -> bool {
        if offset < self.taken {
            return false;
        }
        if self.is_idle() {
            // Markers and compacted offsets before the event are nobody's work.
            self.done = offset;
        }
        self.taken = offset + 1;
        true
    }

    /// Notes that all before `offset` is complete.
    pub fn complete(&mut self, offset: i64) {
        assert!(self.done <= offset && offset <= self.taken, "events of a partition complete in order");
        self.done = offset;
    }

    /// With nothing waiting, passes over offsets that hold no record.
    pub fn pass(&mut self, position: i64) -> bool {
        let passes = self.is_idle() && position > self.done;
        if passes {
            *self = Ledger::at(position);
        }
        passes
    }

    /// Nothing of the partition waits in this reader.
    pub fn is_idle(&self) -> bool {
        // A gap (compacted offsets) may lie between the last event done and the next taken.
        self.taken == self.done
    }

    /// The next offset to accept.
    pub fn taken(&self) -> i64 {
        self.taken
    }

    /// The next offset that is not complete.
    pub fn done(&self) -> i64 {
        self.done
    }
}

/// The worker's partitions by number: small integers where names would be hashed for every event.
#[derive(Debug, Default)]
pub struct Slots {
    names: Vec<TopicPartition>,
    numbers: FxHashMap<TopicPartition, usize>,
    last: usize,
    watch: Option<Arc<Watch>>,
}

impl Slots {
    /// Numbers whose meaning the watch is told, for whoever reads its mark.
    pub fn watched(watch: Arc<Watch>) -> Slots {
        Slots { watch: Some(watch), ..Slots::default() }
    }

    /// The number of a partition; it is kept for the worker's life.
    pub fn number(&mut self, topic: &TopicName, partition: i32) -> usize {
        if let Some(name) = self.names.get(self.last)
            && name.partition == partition
            && (std::rc::Rc::ptr_eq(&name.topic, topic) || name.topic == *topic)
        {
            return self.last;
        }
        let name = TopicPartition { topic: topic.clone(), partition };
        self.last = match self.numbers.get(&name) {
            Some(&number) => number,
            None => {
                if let Some(watch) = &self.watch {
                    watch.name_partition(topic, partition);
                }
                self.numbers.insert(name.clone(), self.names.len());
                self.names.push(name);
                self.names.len() - 1
            }
        };
        self.last
    }

    /// The number of an event's partition.
    pub fn of(&mut self, event: &Event) -> usize {
        self.number(&event.topic, event.partition)
    }

    /// The partition with this number.
    pub fn name(&self, number: usize) -> &TopicPartition {
        &self.names[number]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_taken_once() {
        let mut ledger = Ledger::at(5);
        assert!(!ledger.take(4), "before its position");
        assert!(ledger.take(5) && !ledger.take(5));
        assert_eq!((ledger.taken(), ledger.done()), (6, 5));
        ledger.complete(6);
        assert!(ledger.is_idle());
    }

    #[test]
    fn markers_are_passed_over_only_when_nothing_waits() {
        let mut ledger = Ledger::at(0);
        ledger.take(0);
        assert!(!ledger.pass(2));
        ledger.complete(1);
        assert!(ledger.pass(2));
        assert_eq!(ledger.done(), 2);
    }

    #[test]
    #[should_panic(expected = "complete in order")]
    fn completing_what_was_not_taken_is_a_fault_of_the_worker() {
        Ledger::at(0).complete(1);
    }

    #[test]
    fn slots_are_stable() {
        let mut slots = Slots::default();
        let (a, b): (TopicName, TopicName) = ("a".into(), "b".into());
        assert_eq!([slots.number(&a, 0), slots.number(&b, 0), slots.number(&a, 1)], [0, 1, 2]);
        assert_eq!(slots.number(&"a".into(), 0), 0);
        assert_eq!(slots.name(1), &TopicPartition::new("b", 0));
    }
}
