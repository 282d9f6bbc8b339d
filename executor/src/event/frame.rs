//! Frame of the event that runs: its origin and the scratch of its effects.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::event::effects::Scratch;
use crate::event::fault::Fault;
use crate::event::message::Event;
use crate::event::run::{Run, SharedEvent};

/// A unit goes through a stage at once: an event, or a batch of events.
#[derive(Clone, Debug)]
pub enum Unit {
    /// One event.
    Event(SharedEvent),
    /// A batch that a window handed over, in arrival order.
    Batch(Rc<[SharedEvent]>),
}

impl Unit {
    /// The unit's events, in arrival order: never empty.
    pub fn events(&self) -> &[SharedEvent] {
        match self {
            Unit::Event(event) => std::slice::from_ref(event),
            Unit::Batch(events) => events,
        }
    }
}

/// Input of a stage: a run, each event its own unit, or one unit.
#[derive(Clone, Debug)]
pub enum Given {
    /// Events of one partition.
    Run(Run),
    /// A batch of a window, or a unit that goes back to its queue.
    Unit(Unit),
}

impl Given {
    /// Its events, in arrival order: never empty.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        let (run, unit) = match self {
            Given::Run(run) => (run.events(), &[] as &[SharedEvent]),
            Given::Unit(unit) => (&[] as &[Event], unit.events()),
        };
        run.iter().chain(unit.iter().map(|event| &**event))
    }

    /// Its events, in arrival order.
    pub fn into_events(self) -> impl Iterator<Item = SharedEvent> {
        let (run, unit) = match self {
            Given::Run(run) => (Some(run), None),
            Given::Unit(unit) => (None, Some(unit)),
        };
        run.into_iter().flatten().chain(unit.into_iter().flat_map(|unit| unit.events().to_vec()))
    }
}

/// The event or batch that runs. User code reaches it through `context`, and may keep it longer than it
/// lives: then it is `closed`, and writing to it is refused.
#[derive(Debug)]
pub struct Frame {
    /// The events that run.
    pub unit: Unit,
    /// The partition that table accesses go to; `None` in a batch that mixes partitions.
    pub partition: Option<i32>,
    /// Its effects so far.
    pub scratch: RefCell<Scratch>,
    /// True once the unit is completed, failed or cancelled: nothing more may have an effect.
    pub closed: Cell<bool>,
    /// The batch as it was handed over, if some of its events do not decode.
    pub refused: Option<Refused>,
}

/// A batch with events that do not decode. They fail one by one, when the batch's turn comes.
#[derive(Debug)]
pub struct Refused {
    /// All events of the batch.
    pub whole: Unit,
    /// The events that do not decode, with the reasons.
    pub events: Vec<(SharedEvent, Fault)>,
}

impl Frame {
    /// A frame with an empty scratch.
    pub fn new(unit: Unit, partition: Option<i32>, refused: Option<Refused>) -> Frame {
        Frame { unit, partition, scratch: RefCell::default(), closed: Cell::new(false), refused }
    }

    /// Makes the frame of a finished unit the frame of another, keeping its allocations.
    pub fn restart(&mut self, unit: Unit, partition: Option<i32>, refused: Option<Refused>) {
        (self.unit, self.partition, self.refused) = (unit, partition, refused);
        // The caller is the only owner: code that kept the last unit's context would hold the frame too, and
        // would find it open again.
        self.scratch.get_mut().clear();
        self.closed.set(false);
    }

    /// Bytes of its effects so far.
    pub fn bytes(&self) -> usize {
        self.scratch.borrow().size()
    }

    /// The unit as it was handed over, events that do not decode included.
    pub fn whole(&self) -> &Unit {
        self.refused.as_ref().map_or(&self.unit, |refused| &refused.whole)
    }
}
