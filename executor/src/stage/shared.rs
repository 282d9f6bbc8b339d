//! What all parts of one worker hold in common. A worker is one thread: sharing is `Rc`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashSet;

use crate::assignment::slots::Slots;
use crate::broker::directory::Directory;
use crate::clock::Clock;
use crate::code::Code;
use crate::guard::Watch;
use crate::stage::condemned::Condemned;
use crate::status::Recent;
use crate::status::counters::SharedCounters;
use crate::tables::Tables;

/// Tracks on which an event is in flight, that is, in a pending await: by group, and by partition
/// where the plan says so.
pub type BusyTracks = FxHashSet<(u32, Option<i32>)>;

/// How long each stage may run in an epoch, from when its turn comes: those that have work share the
/// epoch's time, so that a slow one takes none of the others'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// The epoch.
    pub epoch: u64,
    /// What has not run after this time is left to the next epoch.
    pub time: Duration,
}

/// The parts of a worker that its stages and windows share.
pub struct Shared<C: Code> {
    /// The user's code.
    pub code: Rc<RefCell<C>>,
    /// Topics that are written.
    pub directory: Directory,
    /// The table of counters.
    pub counters: SharedCounters,
    /// Tells the time.
    pub clock: Rc<dyn Clock>,
    /// Tables of the worker's partitions.
    pub tables: Rc<RefCell<Tables>>,
    /// Numbers of partitions.
    pub slots: Rc<RefCell<Slots>>,
    /// What runs one event at a time, and is running one.
    pub tracks: Rc<RefCell<BusyTracks>>,
    /// Bytes of events taken and not complete, by partition number, all readers together.
    pub queued: Rc<RefCell<Vec<usize>>>,
    /// How long each stage may run in this epoch.
    pub share: Rc<Cell<Share>>,
    /// Bytes of effects after which a stage leaves what has not run to the next epoch.
    pub epoch_bytes_max: Rc<Cell<usize>>,
    /// How many units may still begin in this epoch.
    pub units_left: Rc<Cell<usize>>,
    /// Pending awaits may end, and no call begins: partitions change hands.
    pub begins_nothing: Rc<Cell<bool>>,
    /// The plan's revision, for dead letters.
    pub revision: Rc<str>,
    /// What runs now, for threads that look from outside and for the next process.
    pub watch: Arc<Watch>,
    /// Events that must not run.
    pub condemned: Rc<RefCell<Condemned>>,
    /// The last failures.
    pub recent: Rc<RefCell<Recent>>,
}

impl<C: Code> Clone for Shared<C> {
    fn clone(&self) -> Shared<C> {
        Shared {
            code: self.code.clone(),
            directory: self.directory.clone(),
            counters: self.counters.clone(),
            clock: self.clock.clone(),
            tables: self.tables.clone(),
            slots: self.slots.clone(),
            tracks: self.tracks.clone(),
            queued: self.queued.clone(),
            share: self.share.clone(),
            epoch_bytes_max: self.epoch_bytes_max.clone(),
            units_left: self.units_left.clone(),
            begins_nothing: self.begins_nothing.clone(),
            revision: self.revision.clone(),
            watch: self.watch.clone(),
            condemned: self.condemned.clone(),
            recent: self.recent.clone(),
        }
    }
}
