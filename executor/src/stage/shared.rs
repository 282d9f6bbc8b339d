//! State that all parts of one worker share. A worker is one thread, so sharing is `Rc`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use kaspr_ir::plan::ReaderId;
use rustc_hash::FxHashSet;

use crate::assignment::slots::Slots;
use crate::broker::directory::Directory;
use crate::clock::Clock;
use crate::code::Code;
use crate::event::effects::Epoch;
use crate::guard::Watch;
use crate::stage::flood::Flood;
use crate::stage::poison::PoisonEvents;
use crate::status::Recent;
use crate::status::counters::SharedCounters;
use crate::tables::Tables;

/// Tracks on which an event is in flight, that is, in a pending await: by group, and by partition
/// where the plan says so.
pub type BusyTracks = FxHashSet<(u32, Option<i32>)>;

/// The order of a worker for an epoch: how much of what waits may run in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EpochOrder {
    /// The epoch.
    pub epoch: Epoch,
    /// The time that each stage may run, from the start of its turn; what has not run by then is left to the
    /// next epoch. Stages that have work share the epoch's time, so that a slow one takes none of the
    /// others'.
    pub time: Duration,
    /// Bytes of effects after which a stage leaves what has not run to the next epoch.
    pub bytes_max: usize,
    /// True if calls may begin. If not, pending awaits may still end, and that is all: partitions change
    /// hands.
    pub begins: bool,
}

/// The parts of a worker that its stages and windows share.
pub struct Shared<C: Code> {
    /// The user's code.
    pub code: Rc<RefCell<C>>,
    /// Output topics.
    pub directory: Directory,
    /// The table of counters.
    pub counters: SharedCounters,
    /// Tells the time.
    pub clock: Rc<dyn Clock>,
    /// Tables of the worker's partitions.
    pub tables: Rc<RefCell<Tables>>,
    /// Numbers of partitions.
    pub slots: RefCell<Slots>,
    /// Tracks with an event in flight.
    pub tracks: RefCell<BusyTracks>,
    /// Bytes of events taken and not complete, by partition number, over all readers.
    pub queued: RefCell<Vec<usize>>,
    /// The worker's order for this epoch.
    pub order: Cell<EpochOrder>,
    /// The number of units that may still begin in it, over all stages.
    pub units: Cell<usize>,
    /// The plan's revision, for dead letters.
    pub revision: Rc<str>,
    /// The unit that runs now, for the threads that watch this one and for the next process.
    pub watch: Arc<Watch>,
    /// Events that must not run: poison events, and those whose records a broker refuses.
    pub poison: RefCell<PoisonEvents>,
    /// The reader and lane whose next unit must run alone: no other begins where awaits overlap.
    pub asks_to_be_alone: Cell<Option<(ReaderId, usize)>>,
    /// The most recent failures.
    pub recent: RefCell<Recent>,
    /// Failures on their way to the log.
    pub flood: RefCell<Flood>,
}

impl<C: Code> Shared<C> {
    /// The number of units that may still begin in this epoch.
    pub fn units_left(&self) -> usize {
        self.units.get()
    }

    /// Counts a unit that begins.
    pub fn begin_unit(&self) {
        self.units.update(|units| units.saturating_sub(1));
    }
}
