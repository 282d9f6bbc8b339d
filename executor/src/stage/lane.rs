//! A lane: the units of one partition (or of all, if batches mix partitions), in order.
//!
//! The first units are *in flight*: each has begun, and waits for an await to end or for its turn. One alone,
//! unless the reader lets awaits overlap. A unit takes effect when it is the first, and never before.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::code::{Fault, Ticket};
use crate::event::frame::{Frame, Unit};
use crate::event::message::Event;
use crate::event::reads::Reads;
use crate::guard;
use crate::stage::program::SiteId;
use crate::stage::queue::Queue;
use crate::stage::walk::Walk;

/// Names a lane: the number of its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneId(pub usize);

impl LaneId {
    /// The lane of batches that mix partitions.
    pub const MIXED: LaneId = LaneId(usize::MAX);
}

/// The bounds of what a lane has in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// Units, at least 1.
    pub units_max: usize,
    /// Bytes of their effects and of the keys that they have read, beyond which none begins behind others.
    pub bytes_max: usize,
}

impl InFlight {
    /// True if units may begin before those before them have ended.
    pub fn overlaps(self) -> bool {
        self.units_max > 1
    }
}

/// A unit in flight.
#[derive(Debug)]
pub struct Flight<V> {
    /// Its progress.
    pub state: State<V>,
    /// Its runs in vain.
    pub vain: Vain,
    /// Bytes that it holds, besides its events.
    bytes: usize,
}

/// Runs of a unit that were in vain, because an event before it wrote a key that it had read.
#[derive(Debug, Default)]
pub struct Vain {
    /// Their number.
    pub runs: u32,
    /// The effects of the last one: the next run is likely to write the same keys.
    pub last: Option<Rc<Frame>>,
}

impl Vain {
    /// With one more run.
    #[must_use]
    pub fn and(self, frame: Rc<Frame>) -> Vain {
        Vain { runs: self.runs + 1, last: Some(frame) }
    }
}

impl<V> Flight<V> {
    /// A unit in this state.
    pub fn new(state: State<V>, vain: Vain) -> Flight<V> {
        // Measured once, so that a lane takes off exactly what it has added.
        let bytes = state.frame().map_or(0, Frame::bytes) + vain.last.as_deref().map_or(0, Frame::bytes);
        Flight { state, vain, bytes }
    }

    /// True if its effects, or those of its last run in vain, write a key that was read.
    pub fn is_likely_to_write(&self, reads: &Reads) -> bool {
        let writes = |frame: &Frame| frame.scratch.borrow().writes_what_was_read(reads);
        self.state.frame().is_some_and(writes) || self.vain.last.as_deref().is_some_and(writes)
    }
}

/// The progress of a unit in flight.
#[derive(Debug)]
pub enum State<V> {
    /// It awaits something.
    Awaits {
        /// The await.
        ticket: Ticket,
        /// The rest of its way.
        walk: Box<Walk<V>>,
        /// The time at which the await takes too long.
        ends: Option<Duration>,
        /// Its mark for the next process, where awaits overlap.
        mark: Option<guard::InFlight>,
    },
    /// It has run, and takes effect at its turn.
    Ran {
        /// Its effects.
        walk: Box<Walk<V>>,
        /// The place and reason if it failed.
        result: Result<(), (SiteId, Fault)>,
    },
    /// It runs at its turn.
    Waits(Unit),
}

impl<V> State<V> {
    /// The unit, events that do not decode included.
    pub fn unit(&self) -> &Unit {
        match self {
            State::Awaits { walk, .. } | State::Ran { walk, .. } => walk.frame.whole(),
            State::Waits(unit) => unit,
        }
    }

    /// Its effects so far, once it has run.
    pub fn frame(&self) -> Option<&Frame> {
        match self {
            State::Awaits { walk, .. } | State::Ran { walk, .. } => Some(&walk.frame),
            State::Waits(_) => None,
        }
    }
}

/// The next thing that a lane does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is the turn of the first unit in flight: it takes effect, or runs.
    Turn,
    /// Units behind the first may have run in vain.
    Again,
    /// The first unit of the queue begins; nothing is in flight.
    First,
    /// The first unit of the queue begins behind those in flight.
    Behind,
}

/// Units in order: those in flight, then the queue.
#[derive(Debug)]
pub struct Lane<V> {
    /// Units that have begun, in order. Only the first may take effect.
    flight: VecDeque<Flight<V>>,
    /// Bytes that they hold.
    bytes: usize,
    /// Units that have not run, or that must run again.
    pub queue: Queue,
    /// The track that the first unit in flight occupies.
    pub track: Option<(u32, Option<i32>)>,
    /// The time until which the first unit is in back-off.
    pub held_until: Option<Duration>,
    /// Failed tries of the first unit.
    pub tries: u32,
    /// True if some unit behind the first may have run in vain.
    pub is_doubtful: bool,
    /// True if some of them certainly has, and runs again when one before it has taken effect.
    pub is_putting_off: bool,
    /// True if the stage's list of lanes that are ready names it.
    pub is_listed: bool,
}

impl<V> Default for Lane<V> {
    fn default() -> Lane<V> {
        Lane {
            flight: VecDeque::new(),
            bytes: 0,
            queue: Queue::default(),
            track: None,
            held_until: None,
            tries: 0,
            is_doubtful: false,
            is_putting_off: false,
            is_listed: false,
        }
    }
}

impl<V> Lane<V> {
    /// The thing that it can do now, if its track is free.
    pub fn next(&self, in_flight: InFlight) -> Option<Next> {
        if self.held_until.is_some() {
            return None;
        }
        let waits = !self.queue.is_empty();
        let Some(first) = self.flight.front() else { return waits.then_some(Next::First) };
        if !matches!(first.state, State::Awaits { .. }) {
            return Some(Next::Turn);
        }
        if !in_flight.overlaps() || self.track.is_some() {
            // The first one runs alone.
            return None;
        }
        if self.is_doubtful {
            return Some(Next::Again);
        }
        let has_room = self.flight.len() < in_flight.units_max && self.bytes < in_flight.bytes_max;
        (has_room && waits).then_some(Next::Behind)
    }

    /// Units in flight, in order.
    pub fn flight(&self) -> &VecDeque<Flight<V>> {
        &self.flight
    }

    /// Puts a unit behind those in flight.
    pub fn push_behind(&mut self, flight: Flight<V>) {
        self.bytes += flight.bytes;
        self.flight.push_back(flight);
    }

    /// Puts a unit before those in flight.
    pub fn push_first(&mut self, flight: Flight<V>) {
        self.bytes += flight.bytes;
        self.flight.push_front(flight);
    }

    /// Takes the first unit in flight.
    pub fn pop_first(&mut self) -> Option<Flight<V>> {
        let flight = self.flight.pop_front()?;
        self.bytes -= flight.bytes;
        Some(flight)
    }

    /// Takes the last unit in flight.
    pub fn pop_last(&mut self) -> Option<Flight<V>> {
        let flight = self.flight.pop_back()?;
        self.bytes -= flight.bytes;
        Some(flight)
    }

    /// Takes a unit out of the flight for a moment: [`Lane::put`] puts it back.
    pub fn take(&mut self, at: usize) -> Option<Flight<V>> {
        // A stand-in keeps the place, so that the numbers of the units behind it stay true.
        let waits = State::Waits(self.flight.get(at)?.state.unit().clone());
        let flight = std::mem::replace(self.flight.get_mut(at)?, Flight::new(waits, Vain::default()));
        self.bytes -= flight.bytes;
        Some(flight)
    }

    /// Puts a unit to its place in the flight.
    pub fn put(&mut self, at: usize, flight: Flight<V>) {
        self.bytes += flight.bytes;
        self.flight[at] = flight;
    }

    /// Puts the first unit back before all others: it runs again when it is no longer held.
    pub fn put_back(&mut self, unit: Unit) {
        match self.flight.is_empty() {
            true => self.queue.push_first(unit),
            // In the queue it would come behind units that have begun, which must not take effect before it.
            false => self.push_first(Flight::new(State::Waits(unit), Vain::default())),
        }
    }

    /// The time at which the first pending await takes too long.
    pub fn await_ends(&self) -> Option<Duration> {
        let ends = self.flight.iter().filter_map(|flight| match &flight.state {
            State::Awaits { ends, .. } => *ends,
            State::Ran { .. } | State::Waits(_) => None,
        });
        ends.min()
    }

    /// The units whose awaits are pending.
    pub fn awaiting(&self) -> impl Iterator<Item = &Walk<V>> {
        self.flight.iter().filter_map(|flight| match &flight.state {
            State::Awaits { walk, .. } => Some(&**walk),
            State::Ran { .. } | State::Waits(_) => None,
        })
    }

    /// All events, in order.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        let flying = self.flight.iter().flat_map(|flight| flight.state.unit().events());
        flying.map(|event| &**event).chain(self.queue.events())
    }

    /// True if nothing waits here.
    pub fn is_empty(&self) -> bool {
        self.flight.is_empty() && self.queue.is_empty()
    }
}
