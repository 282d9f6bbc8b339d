//! The batch window of a reader (`take`): it collects events until there are enough or the time is over.
//!
//! An open window holds its events' position and never a capability of the dataflow, so that nothing else
//! waits for it. `within` counts from a window's first event (semantics, section 5).

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use kaspr_ir::plan::{BatchScope, BatchWindow, Codec};
use tracing::info;

use crate::code::Code;
use crate::event::frame::Unit;
use crate::event::message::Event;
use crate::event::run::SharedEvent;
use crate::stage::shared::Shared;
use crate::status::stall::Cause;

/// The events of a batch that is not handed over yet.
#[derive(Debug)]
struct Open {
    /// Events in arrival order, and whether each decodes: only those that do count towards `max`.
    events: Vec<(SharedEvent, bool)>,
    count: u32,
    bytes: usize,
    due: Duration,
}

/// The windows of a reader: one, or one per partition.
pub struct Window<C: Code> {
    max: u32,
    within: Duration,
    scope: BatchScope,
    codec: Codec,
    bytes_max: usize,
    shared: Rc<Shared<C>>,
    open: BTreeMap<usize, Open>,
    /// Bytes of the events that wait here, by the number of their partition.
    held: Vec<usize>,
    is_early_logged: bool,
}

impl<C: Code> Window<C> {
    /// Makes a reader's windows, all closed. `scope` is decided by the plan and the app's settings;
    /// `bytes_max` bounds what one window holds.
    pub fn new(
        plan: &BatchWindow,
        scope: BatchScope,
        codec: Codec,
        bytes_max: usize,
        shared: Rc<Shared<C>>,
    ) -> Window<C> {
        let within = Duration::from_millis(plan.within_ms);
        let (open, held) = (BTreeMap::new(), Vec::new());
        Window { max: plan.max, within, scope, codec, bytes_max, shared, open, held, is_early_logged: false }
    }

    /// Takes an event. Returns the batch if the event fills it.
    pub fn accept(&mut self, event: SharedEvent) -> Option<Unit> {
        let partition = event.slot;
        let key = if self.scope == BatchScope::Mixed { 0 } else { partition };
        // Only judged here: the stage decodes the batch when it runs, and anew at each try.
        let decodes = self.shared.code.borrow_mut().validate(&self.codec, event.value.as_deref()).is_ok();
        if !decodes && !self.open.contains_key(&key) {
            // It fails at once, alone: no open batch comes before it.
            return Some(Unit::Batch(Rc::new([event])));
        }
        let due = self.shared.clock.now() + self.within;
        let open = self.open.entry(key).or_insert_with(|| Open { events: Vec::new(), count: 0, bytes: 0, due });
        let bytes = event.size();
        if self.held.len() <= partition {
            self.held.resize(partition + 1, 0);
        }
        self.held[partition] += bytes;
        open.bytes += bytes;
        open.count += u32::from(decodes);
        open.events.push((event, decodes));
        let early = open.bytes >= self.bytes_max && open.count < self.max;
        if early {
            log_early(&mut self.is_early_logged, open);
        }
        if open.count >= self.max || early { self.close(key) } else { None }
    }

    /// Takes the batches whose time is over.
    pub fn take_due(&mut self) -> Vec<Unit> {
        let now = self.shared.clock.now();
        let due: Vec<_> = self.open.iter().filter(|(_, open)| open.due <= now).map(|(key, _)| *key).collect();
        due.into_iter().filter_map(|key| self.close(key)).collect()
    }

    /// Takes all batches, because the input has ended.
    pub fn take_all(&mut self) -> Vec<Unit> {
        let keys: Vec<_> = self.open.keys().copied().collect();
        keys.into_iter().filter_map(|key| self.close(key)).collect()
    }

    fn close(&mut self, key: usize) -> Option<Unit> {
        let open = self.open.remove(&key)?;
        open.events.iter().for_each(|(event, _)| self.held[event.slot] -= event.size());
        Some(Unit::Batch(open.events.into_iter().map(|(event, _)| event).collect()))
    }

    /// Bytes of a partition's events that wait here.
    pub fn held(&self, partition: usize) -> usize {
        self.held.get(partition).copied().unwrap_or(0)
    }

    /// Makes the windows with events of a partition due now. Its queue is full, so nothing of it comes before they
    /// are handed over, neither here nor to other readers.
    pub fn hurry(&mut self, partition: usize) {
        for open in self.open.values_mut() {
            if open.events.iter().any(|(event, _)| event.slot == partition) {
                log_early(&mut self.is_early_logged, open);
                open.due = Duration::ZERO;
            }
        }
    }

    /// The cause that holds a partition here: the window with an event of it.
    pub fn holds(&self, partition: usize) -> Option<Cause> {
        let is_of = |event: &Event| event.slot == partition;
        let open = self.open.values().find(|open| open.events.iter().any(|(event, _)| is_of(event)))?;
        let due_in = open.due.saturating_sub(self.shared.clock.now());
        Some(Cause::Window { events: open.events.len(), due_in })
    }

    /// The timestamp of the partition's oldest event here, in ms since 1970.
    pub fn oldest(&self, partition: usize) -> Option<i64> {
        let is_of = |event: &&Event| event.slot == partition;
        // Producers set timestamps, so the event that came first need not be the oldest.
        self.waiting().filter(is_of).map(|event| event.timestamp_ms).min()
    }

    /// The earliest time at which a window is due.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.open.values().map(|open| open.due).min()
    }

    /// All events that wait here.
    pub fn waiting(&self) -> impl Iterator<Item = &Event> {
        self.open.values().flat_map(|open| &open.events).map(|(event, _)| &**event)
    }

    /// Forgets all events: the consumer reads them again.
    pub fn clear(&mut self) {
        self.open.clear();
        self.held.clear();
    }

    /// True if no window is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Drops the events of partitions for which `gone` holds.
    pub fn drop_partitions(&mut self, gone: &dyn Fn(usize) -> bool) {
        for open in self.open.values_mut() {
            // `due` stays that of the first event, even if just that one goes: the rest may leave too early, never
            // too late.
            open.events.retain(|(event, _)| !gone(event.slot));
            open.bytes = open.events.iter().map(|(event, _)| event.size()).sum();
            let count = open.events.iter().filter(|(_, decodes)| *decodes).count();
            open.count = u32::try_from(count).expect("it was counted in u32");
        }
        self.open.retain(|_, open| !open.events.is_empty());
        self.held.iter_mut().enumerate().filter(|(number, _)| gone(*number)).for_each(|(_, bytes)| *bytes = 0);
    }
}

/// Says the first time that a window is handed over before its time: the bound on memory does it.
fn log_early(is_logged: &mut bool, open: &Open) {
    if !std::mem::replace(is_logged, true) {
        info!(bytes = open.bytes, events = open.count, "a batch window is full before its time: handed over early");
    }
}
