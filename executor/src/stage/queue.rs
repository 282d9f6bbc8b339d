//! The queue of a lane: runs of events and whole units, in the order in which they go on.

use std::collections::VecDeque;

use crate::event::frame::{Given, Unit};
use crate::event::message::Event;

/// Waiting runs and units of a lane; units come out one at a time.
#[derive(Debug, Default)]
pub struct Queue {
    /// No run in it is empty.
    waiting: VecDeque<Given>,
}

impl Queue {
    /// Puts something behind what waits.
    pub fn push(&mut self, given: Given) {
        self.waiting.push_back(given);
    }

    /// Puts a unit before what waits.
    pub fn push_first(&mut self, unit: Unit) {
        self.waiting.push_front(Given::Unit(unit));
    }

    /// Takes the first unit.
    pub fn pop(&mut self) -> Option<Unit> {
        match self.waiting.front_mut()? {
            Given::Run(run) => {
                let event = run.next();
                if run.events().is_empty() {
                    self.waiting.pop_front();
                }
                event.map(Unit::Event)
            }
            Given::Unit(_) => match self.waiting.pop_front() {
                Some(Given::Unit(unit)) => Some(unit),
                _ => None,
            },
        }
    }

    /// The first unit, which stays.
    pub fn first(&self) -> Option<Unit> {
        Some(match self.waiting.front()? {
            Given::Run(run) => Unit::Event(run.first()),
            Given::Unit(unit) => unit.clone(),
        })
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// All events that wait, in their order.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.waiting.iter().flat_map(Given::events)
    }

    /// Drops the events of partitions for which `gone` holds. A batch keeps those of the others.
    pub fn drop_partitions(&mut self, gone: &dyn Fn(usize) -> bool) {
        let kept = std::mem::take(&mut self.waiting).into_iter().filter_map(|given| match given {
            Given::Run(run) => (!gone(run.slot())).then_some(Given::Run(run)),
            Given::Unit(unit) => without(unit, gone).map(Given::Unit),
        });
        self.waiting = kept.collect();
    }
}

/// The unit without the events that are gone; `None` if none is left.
fn without(unit: Unit, gone: &dyn Fn(usize) -> bool) -> Option<Unit> {
    match unit {
        Unit::Event(event) => (!gone(event.slot)).then_some(Unit::Event(event)),
        Unit::Batch(events) => {
            let kept: std::rc::Rc<[_]> = events.iter().filter(|event| !gone(event.slot)).cloned().collect();
            (!kept.is_empty()).then_some(Unit::Batch(kept))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::event::run::{Run, SharedEvent};

    fn event(slot: usize, offset: i64) -> Event {
        let (key, value, headers) = (None, None, Vec::new());
        Event { topic: "t".into(), partition: 0, slot, offset, timestamp_ms: 0, key, value, headers }
    }

    fn run(slot: usize, offsets: std::ops::Range<i64>) -> Given {
        let events: Vec<_> = offsets.map(|offset| event(slot, offset)).collect();
        let all = 0..events.len();
        Given::Run(Run::of(&Rc::new(events), all).expect("it holds events"))
    }

    fn offsets(queue: &Queue) -> Vec<i64> {
        queue.events().map(|event| event.offset).collect()
    }

    #[test]
    fn units_come_out_in_order_and_one_goes_back_to_its_place() {
        let mut queue = Queue::default();
        queue.push(run(0, 0..3));
        let batch = [(0, 3), (1, 9)].map(|(slot, offset)| SharedEvent::alone(event(slot, offset)));
        queue.push(Given::Unit(Unit::Batch(Rc::new(batch))));
        queue.push(run(1, 4..5));
        let first = queue.pop().expect("an event waits");
        assert_eq!((first.events()[0].offset, offsets(&queue)), (0, vec![1, 2, 3, 9, 4]));
        queue.push_first(first);
        assert_eq!(queue.first().map(|unit| unit.events()[0].offset), Some(0));
        queue.drop_partitions(&|slot| slot == 1);
        let left: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|unit| unit.events()[0].offset).collect();
        assert_eq!(left, [0, 1, 2, 3]);
        assert!(queue.is_empty() && queue.first().is_none());
    }
}
