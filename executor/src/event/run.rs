//! Runs: events of one partition that came in one poll and lie together, so that an event costs no allocation
//! and no queue of its own on its way to a stage.
//!
//! ```text
//! one poll   [ a/0@7  a/0@8  a/0@9 | a/1@3  a/1@4 ]
//! two runs     0..3                  0..2            each reader has its own `Run`, over the same events
//! an event            └ SharedEvent
//! ```
//!
//! A run stays allocated while any of its events is held, so it is kept short: see `Intake::take_runs`.

use std::ops::{Deref, Range};
use std::rc::Rc;

use crate::event::message::Event;

/// One event of a run. Cloned freely: the run is counted, on the worker's thread alone.
#[derive(Clone, Debug)]
pub struct SharedEvent {
    events: Rc<Vec<Event>>,
    at: usize,
}

impl SharedEvent {
    /// An event that came alone.
    #[cfg(test)]
    pub fn alone(event: Event) -> SharedEvent {
        SharedEvent { events: Rc::new(vec![event]), at: 0 }
    }

    /// True if it is the same event of the same run.
    pub fn is(&self, other: &SharedEvent) -> bool {
        self.at == other.at && Rc::ptr_eq(&self.events, &other.events)
    }
}

impl Deref for SharedEvent {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.events[self.at]
    }
}

/// Consecutive events of one partition on their way to a reader: at least one.
#[derive(Clone, Debug)]
pub struct Run {
    events: Rc<Vec<Event>>,
    left: Range<usize>,
}

impl Run {
    /// A part of events of one partition, in the order of their offsets. `None`: it is empty.
    pub fn of(events: &Rc<Vec<Event>>, part: Range<usize>) -> Option<Run> {
        debug_assert!(events.windows(2).all(|pair| pair[0].slot == pair[1].slot && pair[0].offset < pair[1].offset));
        debug_assert!(part.end <= events.len());
        (!part.is_empty()).then(|| Run { events: events.clone(), left: part })
    }

    /// The number of the partition in the worker's list.
    pub fn slot(&self) -> usize {
        self.events[self.left.start].slot
    }

    /// The events that are left.
    pub fn events(&self) -> &[Event] {
        &self.events[self.left.clone()]
    }

    /// The first event that is left.
    pub fn first(&self) -> SharedEvent {
        SharedEvent { events: self.events.clone(), at: self.left.start }
    }
}

impl Iterator for Run {
    type Item = SharedEvent;

    fn next(&mut self) -> Option<SharedEvent> {
        let at = self.left.next()?;
        Some(SharedEvent { events: self.events.clone(), at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(offset: i64) -> Event {
        let (key, value, headers) = (None, None, Vec::new());
        Event { topic: "t".into(), partition: 0, slot: 0, offset, timestamp_ms: 0, key, value, headers }
    }

    #[test]
    fn two_readers_take_the_same_events_each_at_its_pace() {
        let events = Rc::new((7..10).map(event).collect::<Vec<_>>());
        let run = |part| Run::of(&events, part).expect("it holds events");
        let next = |run: &mut Run| run.next().expect("an event is left");
        let (mut whole, mut rest) = (run(0..3), run(1..3));
        assert!(Run::of(&events, 3..3).is_none());
        let first = next(&mut whole);
        let (second, same) = (next(&mut whole), next(&mut rest));
        assert_eq!((first.offset, second.offset), (7, 8));
        assert!(second.is(&same) && !second.is(&first));
        assert_eq!(rest.events().iter().map(|event| event.offset).collect::<Vec<_>>(), [9]);
        assert!(!SharedEvent::alone(event(8)).is(&second), "an event that came again is another");
    }
}
