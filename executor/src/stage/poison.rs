//! Events that must not run (again), and the reason: they fail at their turn, without any of their code being
//! called.
//!
//! Two parts learn from outside the stage that an event cannot succeed: the crash guard, of those that end the process;
//! delivery, of events whose records a broker refuses.

use std::collections::{BTreeMap, BTreeSet};

use kaspr_ir::plan::ReaderId;

use crate::code::Fault;
use crate::event::frame::Unit;

/// The reason for which an event fails, and the place whose policy applies.
#[derive(Clone, Debug)]
pub struct Poison {
    /// The reason.
    pub fault: Fault,
    /// Agent and operation whose policy applies, as failure records name them. `None`, or one that the reader
    /// does not have: decoding, under the first agent's policy.
    pub site: Option<(String, String)>,
}

/// Events by reader, number of the partition and offset.
#[derive(Debug, Default)]
pub struct PoisonEvents {
    events: BTreeMap<(ReaderId, usize, i64), Poison>,
    /// Events that run alone: one of them, in flight with others, may have ended the process.
    suspects: BTreeSet<(ReaderId, usize, i64)>,
}

impl PoisonEvents {
    /// True if it holds no event, as for almost every worker: so the usual event costs no look-up.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Lets the event fail when it comes, without further tries. A batch that holds it fails as one unit.
    pub fn add(&mut self, reader: ReaderId, partition: usize, offset: i64, poison: Poison) {
        self.events.insert((reader, partition, offset), poison);
    }

    /// Lets the event run alone.
    pub fn suspect(&mut self, reader: ReaderId, partition: usize, offset: i64) {
        self.suspects.insert((reader, partition, offset));
    }

    /// True if some event runs alone.
    pub fn has_suspects(&self) -> bool {
        !self.suspects.is_empty()
    }

    /// True if the unit runs alone.
    pub fn is_suspect(&self, reader: ReaderId, unit: &Unit) -> bool {
        unit.events().iter().any(|event| self.suspects.contains(&(reader, event.slot, event.offset)))
    }

    /// Notes that a broker refuses a record of the event: it fails. If even its dead letter is refused, the
    /// failure is only recorded.
    pub fn refuse(&mut self, reader: ReaderId, partition: usize, offset: i64, fault: Fault) {
        let key = (reader, partition, offset);
        match self.events.get_mut(&key) {
            Some(poison) => poison.fault.without_dead_letter = true,
            None => self.add(reader, partition, offset, Poison { fault, site: None }),
        }
    }

    /// The reason for which a unit must not run, if there is one.
    pub fn find(&self, reader: ReaderId, unit: &Unit) -> Option<&Poison> {
        unit.events().iter().find_map(|event| self.events.get(&(reader, event.slot, event.offset)))
    }

    /// Forgets events before an offset: their failures are committed.
    pub fn passed(&mut self, reader: ReaderId, partition: usize, offset: i64) {
        let is_left = |&(of, at, event): &(ReaderId, usize, i64)| (of, at) != (reader, partition) || event >= offset;
        self.events.retain(|event, _| is_left(event));
        self.suspects.retain(is_left);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::event::message::Event;
    use crate::event::run::SharedEvent;

    fn event(offset: i64) -> SharedEvent {
        let (key, value, headers) = (None, None, Vec::new());
        let topic = "t".into();
        SharedEvent::alone(Event { topic, partition: 0, slot: 0, offset, timestamp_ms: 0, key, value, headers })
    }

    #[test]
    fn the_event_is_found_alone_and_in_a_batch_until_it_is_passed() {
        let mut poison = PoisonEvents::default();
        let (reader, other) = (ReaderId(0), ReaderId(1));
        poison.refuse(reader, event(0).slot, 7, Fault::new("Kind", "why"));
        let alone = |offset| Unit::Event(event(offset));
        let is_poison = |poison: &PoisonEvents, reader, unit: &Unit| poison.find(reader, unit).is_some();
        assert!(is_poison(&poison, reader, &alone(7)) && !is_poison(&poison, reader, &alone(8)));
        assert!(!is_poison(&poison, other, &alone(7)), "other readers have code of their own");
        assert!(is_poison(&poison, reader, &Unit::Batch(Rc::new([event(6), event(7)]))));
        let has_no_dead_letter = |poison: &PoisonEvents| poison.events[&(reader, 0, 7)].fault.without_dead_letter;
        assert!(!has_no_dead_letter(&poison));
        poison.refuse(reader, 0, 7, Fault::new("Kind", "its letter"));
        assert!(has_no_dead_letter(&poison));
        poison.passed(reader, 0, 7);
        assert!(!poison.is_empty());
        poison.passed(reader, 0, 8);
        assert!(poison.is_empty());
    }
}
