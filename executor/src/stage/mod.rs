//! A stage: all agents of a reader as one operator, one event at a time per track.
//!
//! Units (events or batches) queue in *lanes*, one per partition. A unit that waits in a lane (queued, in
//! back-off, in a pending await) holds its position and has no effects yet; so no epoch stays open for it,
//! and other lanes go on.

pub mod condemned;
mod counting;
mod failing;
pub mod flood;
mod hold;
mod lane;
pub mod program;
pub mod shared;
pub mod walk;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use kaspr_ir::plan::{BatchScope, Plan, ReaderId, Track};

use crate::code::{Code, Fault};
use crate::event::effects::{Effects, Epoch, Progress};
use crate::event::failure::FailureRecord;
use crate::event::frame::{Frame, Refused, Unit};
use crate::event::message::Event;
use crate::event::tally::Tally;
use crate::stage::program::{Program, SiteId};
use crate::stage::shared::{EpochOrder, Shared};
use crate::stage::walk::{Machine, Outcome, Walk};
use failing::Failing;
use lane::{Lane, LaneId};

/// One event in so many is timed.
const SAMPLED: u64 = 64;
/// The duration of one unit in so many is measured.
const TIMED: u64 = 16;

/// The stage of a reader.
pub struct Stage<C: Code> {
    reader: ReaderId,
    program: Rc<Program>,
    track: Track,
    /// True if batches of this reader mix partitions: then they share one lane.
    mixed: bool,
    shared: Rc<Shared<C>>,
    lanes: BTreeMap<LaneId, Lane<C::Value>>,
    /// Lanes that have a unit to run now.
    ready: VecDeque<LaneId>,
    effects: Effects,
    /// Counts of the units whose effects these are, by site.
    tally: Tally,
    /// The epoch in which the stage last ran, the time at which its turn in it ends, and the bytes of effects
    /// that it may add.
    epoch: (Epoch, Duration, usize),
    spare: Option<Walk<C::Value>>,
    buffer: Vec<u8>,
    units: u64,
    /// The failure before whose unit the stage stands, and the counts of that unit.
    halted: Option<(FailureRecord, Tally)>,
}

impl<C: Code> Stage<C> {
    /// Makes an empty stage. `scope` is the reader's batch scope, decided by the plan and the app's settings.
    pub fn new(
        plan: &Plan,
        reader: ReaderId,
        program: Rc<Program>,
        scope: Option<BatchScope>,
        shared: Rc<Shared<C>>,
    ) -> Stage<C> {
        Stage {
            reader,
            program,
            track: plan[reader].track,
            mixed: scope == Some(BatchScope::Mixed),
            shared,
            lanes: BTreeMap::new(),
            ready: VecDeque::new(),
            effects: Effects::default(),
            tally: Tally::default(),
            epoch: (0, Duration::ZERO, 0),
            spare: None,
            buffer: Vec::new(),
            units: 0,
            halted: None,
        }
    }

    /// Queues a unit behind those of its lane.
    pub fn accept(&mut self, unit: Unit) {
        let id = self.lane_of(&unit);
        let lane = self.lanes.entry(id).or_default();
        if lane.is_quiet() {
            self.ready.push_back(id);
        }
        lane.queue.push_back(unit);
    }

    /// Runs what may run until its time in the epoch is over. [`Stage::take_effects`] then takes the effects
    /// of the units that completed.
    pub fn run(&mut self) {
        let EpochOrder { epoch, time, bytes_max, begins, .. } = self.shared.order.get();
        if self.epoch.0 != epoch {
            self.epoch = (epoch, self.shared.clock.tick() + time, bytes_max);
        }
        self.finish_awaits();
        if !begins {
            return;
        }
        self.wake_held();
        let mut blocked = VecDeque::new();
        while let Some(id) = self.ready.pop_front() {
            if self.halted.is_some() {
                break;
            }
            if !self.run_lane(id) {
                blocked.push_back(id);
            }
            if self.epoch_is_over() {
                break;
            }
        }
        self.ready.append(&mut blocked);
    }

    /// Runs a lane's units until it is empty, waits, or the epoch ends. Returns false if the lane is still
    /// ready.
    fn run_lane(&mut self, id: LaneId) -> bool {
        loop {
            if self.track_is_busy(id) || self.shared.units_left() == 0 {
                return false;
            }
            let lane = self.lanes.get_mut(&id).expect("a ready lane exists");
            let Some(unit) = lane.queue.pop_front() else {
                return true;
            };
            if self.units.is_multiple_of(TIMED) {
                lane.timed = Some(self.shared.clock.now());
            }
            self.mark(id, &unit);
            self.begin(id, unit);
            self.shared.watch.end();
            self.note_time(id);
            let lane = &self.lanes[&id];
            if lane.running.is_some() || lane.held_until.is_some() || self.halted.is_some() {
                return true;
            }
            if self.epoch_is_over() {
                return self.lanes[&id].queue.is_empty();
            }
        }
    }

    /// Counts the duration of a lane's unit, if it is measured and has come to its end. A try that is followed by
    /// another one is a unit of its own here.
    fn note_time(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id).filter(|lane| lane.timed.is_some() && lane.running.is_none()) else {
            return;
        };
        if let Some(began) = lane.timed.take() {
            let time = self.shared.clock.now().saturating_sub(began);
            self.shared.counters.borrow_mut().count_time(self.reader.index(), time, TIMED);
        }
    }

    /// True if time, room in the next transaction, or units that may begin are used up.
    fn epoch_is_over(&self) -> bool {
        self.effects.held() >= self.epoch.2 || self.shared.units_left() == 0 || self.shared.clock.tick() >= self.epoch.1
    }

    /// Notes what runs now, for the threads that watch this one and for the next process.
    fn mark(&self, id: LaneId, unit: &Unit) {
        let events = unit.events();
        let partition = if id == LaneId::MIXED { self.shared.slots.borrow_mut().of(&events[0]) } else { id.0 };
        self.shared.watch.begin(self.reader, partition, events[0].offset, events.len());
    }

    /// The place and reason for which the unit fails without running, if it must not run.
    fn condemned(&self, unit: &Unit) -> Option<(SiteId, Fault)> {
        let condemned = self.shared.condemned.borrow();
        if condemned.is_empty() {
            return None;
        }
        let sentence = condemned.sentence(self.reader, unit, &mut self.shared.slots.borrow_mut())?;
        let site = sentence.site.as_ref().and_then(|(agent, operation)| {
            self.program.sites.iter().position(|site| *site.agent_name == **agent && site.operation == *operation)
        });
        Some((site.map_or(self.program.decoding, SiteId), sentence.fault.clone()))
    }

    /// Decodes a unit and walks it as far as it goes.
    fn begin(&mut self, id: LaneId, unit: Unit) {
        self.units += 1;
        self.shared.begin_unit();
        if let Some((site, fault)) = self.condemned(&unit) {
            let passed = self.tally_of_condemned(&unit, site);
            return self.fail_at_last(id, Failing { unit, undecodable: &[], site, fault, passed });
        }
        let (frame, value) = match self.decode(unit) {
            Ok(decoded) => decoded,
            Err((unit, fault)) => {
                let (site, passed) = (self.program.decoding, self.tally_of(unit.events().len(), 0));
                return self.fail(id, Failing { unit, undecodable: &[], site, fault, passed });
            }
        };
        let Some(value) = value else {
            if !self.waits_for_letters(id, &frame) {
                let mut tally = self.tally_of(frame.whole().events().len(), 0);
                self.count_done(&mut tally, &[]);
                self.complete(id, &frame);
            }
            return;
        };
        let mut walk = match self.spare.take() {
            Some(mut walk) => {
                walk.restart(frame, value);
                walk
            }
            None => Walk::new(frame, value),
        };
        let (events, decoded) = (walk.frame.whole().events().len(), walk.frame.unit.events().len());
        self.count_decoded(&mut walk.tally, events, decoded);
        let outcome = self.with_machine(|machine| walk.run(machine));
        self.settle(id, walk, outcome);
    }

    /// Returns the unit's frame and value; no value if no event of a batch decodes.
    #[allow(clippy::type_complexity, reason = "the unit comes back when it fails")]
    fn decode(&mut self, unit: Unit) -> Result<(Rc<Frame>, Option<C::Value>), (Unit, Fault)> {
        match unit {
            Unit::Event(event) => match self.decode_event(&event) {
                Ok(value) => Ok((self.frame(Unit::Event(event), None), Some(value))),
                Err(fault) => Err((Unit::Event(event), fault)),
            },
            Unit::Batch(events) => self.decode_batch(events),
        }
    }

    #[allow(clippy::type_complexity, reason = "the unit comes back when it fails")]
    fn decode_batch(&mut self, events: Rc<[Rc<Event>]>) -> Result<(Rc<Frame>, Option<C::Value>), (Unit, Fault)> {
        let (mut values, mut refused, mut decoded) = (Vec::with_capacity(events.len()), Vec::new(), Vec::new());
        for event in events.iter() {
            match self.decode_event(event) {
                Ok(value) => {
                    values.push(value);
                    decoded.push(event.clone());
                }
                Err(fault) => refused.push((event.clone(), fault)),
            }
        }
        if refused.is_empty() {
            let list = self.shared.code.borrow_mut().list(values);
            let list = list.map_err(|fault| (Unit::Batch(events.clone()), fault))?;
            return Ok((self.frame(Unit::Batch(events), None), Some(list)));
        }
        let whole = Unit::Batch(events);
        let list = match decoded.is_empty() {
            true => None,
            false => Some(self.shared.code.borrow_mut().list(values).map_err(|fault| (whole.clone(), fault))?),
        };
        Ok((self.frame(Unit::Batch(decoded.into()), Some(Refused { whole, events: refused })), list))
    }

    fn decode_event(&mut self, event: &Event) -> Result<C::Value, Fault> {
        let mut code = self.shared.code.borrow_mut();
        let program = &self.program;
        if program.key_codec != kaspr_ir::plan::Codec::Raw && event.key.is_some() {
            let key = code.validate(&program.key_codec, event.key.as_deref());
            key.map_err(|fault| fault.of_bytes(("key", &program.key_codec), event.key.as_deref(), &program.key_at))?;
        }
        let of_value =
            |fault: Fault| fault.of_bytes(("value", &program.value_codec), event.value.as_deref(), &program.value_at);
        if program.needs_value {
            return code.decode_for(self.reader, &program.value_codec, event.value.as_deref()).map_err(of_value);
        }
        code.validate(&program.value_codec, event.value.as_deref()).map_err(of_value)?;
        Ok(code.none())
    }

    /// Makes a frame for a unit: reuses the last one unless something still refers to it.
    fn frame(&mut self, unit: Unit, refused: Option<Refused>) -> Rc<Frame> {
        let partition = match refused.as_ref().map_or(&unit, |refused| &refused.whole) {
            Unit::Event(event) => Some(event.partition),
            Unit::Batch(_) if self.mixed => None,
            Unit::Batch(events) => events.first().map(|event| event.partition),
        };
        if let Some(walk) = &mut self.spare
            && let Some(frame) = Rc::get_mut(&mut walk.frame)
        {
            frame.restart(unit, partition, refused);
            return walk.frame.clone();
        }
        Rc::new(Frame::new(unit, partition, refused))
    }

    fn with_machine<R>(&mut self, with: impl FnOnce(&mut Machine<'_, C>) -> R) -> R {
        let mut machine = Machine {
            program: &self.program,
            code: &mut *self.shared.code.borrow_mut(),
            directory: &self.shared.directory,
            counters: &mut self.shared.counters.borrow_mut(),
            clock: self.shared.clock.as_ref(),
            sample: if self.units % SAMPLED == 1 { SAMPLED as u32 } else { 0 },
            buffer: &mut self.buffer,
        };
        with(&mut machine)
    }

    /// Resumes walks whose awaits are finished, and fails those whose awaits take too long.
    fn finish_awaits(&mut self) {
        let waiting: Vec<_> =
            self.lanes.iter().filter_map(|(id, lane)| Some((*id, lane.running.as_ref()?.0))).collect();
        for (id, ticket) in waiting {
            if self.shared.units_left() == 0 {
                return;
            }
            let called = self.shared.code.borrow_mut().take(ticket);
            let lane = self.lanes.get_mut(&id).expect("it was just found");
            let is_late = lane.await_ends.is_some_and(|ends| ends <= self.shared.clock.now());
            if called.is_none() && !is_late {
                continue;
            }
            self.shared.begin_unit();
            let (_, mut walk) = lane.running.take().expect("it was just found");
            lane.await_ends = None;
            self.release_track(id);
            self.mark(id, walk.frame.whole());
            let outcome = match called {
                Some(called) => self.with_machine(|machine| walk.resume(machine, called)),
                None => {
                    self.shared.code.borrow_mut().cancel(ticket);
                    let (site, fault) = self.too_late(&walk);
                    self.with_machine(|machine| walk.give_up(machine, site, fault))
                }
            };
            self.settle(id, walk, outcome);
            self.shared.watch.end();
            self.note_time(id);
            let lane = &self.lanes[&id];
            if lane.is_ready() {
                self.ready.push_back(id);
            }
        }
    }

    /// The place and reason for which an event fails when its await takes too long.
    fn too_late(&self, walk: &Walk<C::Value>) -> (SiteId, Fault) {
        let site = walk.pending_site(&self.program).unwrap_or(self.program.decoding);
        (site, Fault::timeout(self.site(site).limit))
    }

    fn wake_held(&mut self) {
        let now = self.shared.clock.now();
        for (id, lane) in &mut self.lanes {
            if lane.held_until.is_some_and(|until| until <= now) {
                lane.held_until = None;
                self.ready.push_back(*id);
            }
        }
    }

    fn settle(&mut self, id: LaneId, mut walk: Walk<C::Value>, outcome: Outcome) {
        match outcome {
            Outcome::Done if self.waits_for_letters(id, &walk.frame) => {
                walk.frame.closed.set(true);
                self.spare = Some(walk);
            }
            Outcome::Done => {
                walk.frame.closed.set(true);
                let mut scratch = walk.frame.scratch.borrow_mut();
                self.shared.tables.borrow_mut().stage(&scratch.writes);
                self.count_done(&mut walk.tally, &scratch.sent);
                self.effects.keep(&mut scratch);
                drop(scratch);
                self.complete(id, &walk.frame);
                self.spare = Some(walk);
            }
            Outcome::Pending(ticket) => {
                self.take_track(id, &walk.frame);
                let site = walk.pending_site(&self.program);
                if let Some(site) = site {
                    self.shared.counters.borrow_mut().steps[self.site(site).counter].awaited += 1;
                }
                let limit = site.map(|site| self.site(site).limit);
                let lane = self.lanes.get_mut(&id).expect("it is running");
                lane.await_ends = limit.map(|limit| self.shared.clock.now() + limit);
                lane.running = Some((ticket, walk));
            }
            Outcome::Failed(site, fault) => {
                walk.frame.closed.set(true);
                let (frame, passed) = (walk.frame.clone(), std::mem::take(&mut walk.tally));
                self.spare = Some(walk);
                let undecodable = frame.refused.as_ref().map_or(&[] as &[_], |refused| &refused.events);
                self.fail(id, Failing { unit: frame.whole().clone(), undecodable, site, fault, passed });
            }
        }
    }

    /// Holds a batch back, with all its effects, while dead letters of its undecodable events must wait.
    fn waits_for_letters(&mut self, id: LaneId, frame: &Frame) -> bool {
        let why = frame.refused.as_ref().and_then(|refused| self.letters_wait(&refused.events));
        let waits = why.is_some();
        if let Some(why) = why {
            self.hold(id, frame.whole().clone(), self.program.decoding, &why);
        }
        waits
    }

    /// Accounts for a frame whose events succeeded; those that do not decode become failures.
    fn complete(&mut self, id: LaneId, frame: &Frame) {
        if let Some(refused) = &frame.refused {
            for (event, fault) in &refused.events {
                self.give_up_undecodable(id, event, fault);
            }
        }
        self.account(id, frame.whole());
    }

    /// Accounts for a unit: its positions move on.
    fn account(&mut self, id: LaneId, unit: &Unit) {
        let mut queued = self.shared.queued.borrow_mut();
        let mut slots = self.shared.slots.borrow_mut();
        for event in unit.events() {
            let partition = slots.of(event);
            queued[partition] = queued[partition].saturating_sub(event.size());
            self.effects.advance(Progress { reader: self.reader, partition, done: event.offset + 1 });
        }
        self.effects.completed += unit.events().len() as u64;
        self.lanes.get_mut(&id).expect("its unit ran").tries = 0;
    }

    fn lane_of(&self, unit: &Unit) -> LaneId {
        match unit {
            _ if self.mixed => LaneId::MIXED,
            unit => LaneId(self.shared.slots.borrow_mut().of(&unit.events()[0])),
        }
    }

    fn track_key(&self, partition: Option<i32>) -> (u32, Option<i32>) {
        (self.track.group, if self.track.per_partition { partition } else { None })
    }

    fn track_is_busy(&self, id: LaneId) -> bool {
        let tracks = self.shared.tracks.borrow();
        if tracks.is_empty() {
            return false;
        }
        let partition = (id != LaneId::MIXED).then(|| self.shared.slots.borrow().name(id.0).partition);
        tracks.contains(&self.track_key(partition))
    }

    fn take_track(&mut self, id: LaneId, frame: &Frame) {
        let key = self.track_key(frame.partition);
        self.shared.tracks.borrow_mut().insert(key);
        self.lanes.get_mut(&id).expect("its unit runs").track = Some(key);
    }

    fn release_track(&mut self, id: LaneId) {
        if let Some(key) = self.lanes.get_mut(&id).and_then(|lane| lane.track.take()) {
            self.shared.tracks.borrow_mut().remove(&key);
        }
    }

    /// Takes the effects of the units that completed since the last call.
    pub fn take_effects(&mut self) -> Effects {
        let next = self.effects.like();
        let mut effects = std::mem::replace(&mut self.effects, next);
        self.count_in(&mut effects);
        effects
    }

    /// The failure for which the worker must stop.
    pub fn halted(&self) -> Option<&FailureRecord> {
        self.halted.as_ref().map(|(failure, _)| failure)
    }

    /// True if the stage could use a turn now. Lanes whose track is busy with another's await count too: they
    /// run when it ends.
    pub fn wants_turn(&self) -> bool {
        let now = self.shared.clock.now();
        !self.ready.is_empty()
            || self
                .lanes
                .values()
                .any(|lane| lane.running.is_some() || lane.held_until.is_some_and(|until| until <= now))
    }

    /// True if a unit could run at once, without time passing or an await ending.
    pub fn is_busy(&self) -> bool {
        self.halted.is_none() && self.ready.iter().any(|id| !self.track_is_busy(*id))
    }

    /// The earliest time at which a back-off ends or an await takes too long.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.lanes.values().flat_map(|lane| [lane.held_until, lane.await_ends]).flatten().min()
    }

    /// True if an await is pending.
    pub fn awaits(&self) -> bool {
        self.lanes.values().any(|lane| lane.running.is_some())
    }

    /// True if no unit waits in the stage.
    pub fn is_empty(&self) -> bool {
        self.lanes.values().all(|lane| lane.queue.is_empty() && lane.running.is_none() && lane.held_until.is_none())
    }

    /// Drops everything of the partitions for which `gone` holds, pending awaits included. If a mixed batch
    /// has a pending await, its events of other partitions go back to the front of the queue.
    pub fn drop_partitions(&mut self, gone: &dyn Fn(usize) -> bool) {
        let ids: Vec<_> = self.lanes.keys().copied().collect();
        for id in ids {
            if id == LaneId::MIXED || gone(id.0) {
                self.cancel(id);
            }
            let shared = self.shared.clone();
            let lane = self.lanes.get_mut(&id).expect("it was just listed");
            let mut kept = VecDeque::new();
            for unit in lane.queue.drain(..) {
                kept.extend(without(unit, &mut |event| gone(shared.slots.borrow_mut().of(event))));
            }
            lane.queue = kept;
            if lane.queue.is_empty() {
                (lane.held_until, lane.tries) = (None, 0);
            }
            let ready = lane.is_ready();
            self.ready.retain(|other| *other != id);
            if ready {
                self.ready.push_back(id);
            }
        }
    }

    /// Forgets everything that waits: the consumer reads it again.
    pub fn clear(&mut self) {
        self.drop_partitions(&|_| true);
        self.halted = None;
    }

    /// Gives up pending awaits: their results are dropped, and their units run again.
    pub fn cancel_awaits(&mut self) {
        let waiting: Vec<_> = self.lanes.iter().filter(|(_, lane)| lane.running.is_some()).map(|(id, _)| *id).collect();
        for id in waiting {
            self.cancel(id);
            self.ready.push_back(id);
        }
    }

    /// True if a pending await holds an event for which `asked` holds.
    pub fn awaits_for(&self, asked: &dyn Fn(&Event) -> bool) -> bool {
        let running = self.lanes.values().filter_map(|lane| lane.running.as_ref());
        running.flat_map(|(_, walk)| walk.frame.whole().events()).any(|event| asked(event))
    }

    /// All events that wait here.
    pub fn waiting(&self) -> impl Iterator<Item = &Rc<Event>> {
        let running = self.lanes.values().filter_map(|lane| lane.running.as_ref());
        let queued = self.lanes.values().flat_map(|lane| &lane.queue);
        running.map(|(_, walk)| walk.frame.whole()).chain(queued).flat_map(Unit::events)
    }

    /// Gives up a pending await: its unit goes back to the front of its lane.
    fn cancel(&mut self, id: LaneId) {
        self.release_track(id);
        let lane = self.lanes.get_mut(&id).expect("the caller names a lane");
        lane.await_ends = None;
        if let Some((ticket, walk)) = lane.running.take() {
            walk.frame.closed.set(true);
            lane.queue.push_front(walk.frame.whole().clone());
            self.shared.code.borrow_mut().cancel(ticket);
        }
    }

    /// The site with this number.
    fn site(&self, site: SiteId) -> &crate::stage::program::Site {
        &self.program.sites[site.0]
    }
}

/// The unit without the events that are gone; `None` if none is left.
fn without(unit: Unit, gone: &mut dyn FnMut(&Event) -> bool) -> Option<Unit> {
    match unit {
        Unit::Event(event) => (!gone(&event)).then_some(Unit::Event(event)),
        Unit::Batch(events) => {
            let kept: Rc<[Rc<Event>]> = events.iter().filter(|event| !gone(event)).cloned().collect();
            (!kept.is_empty()).then_some(Unit::Batch(kept))
        }
    }
}
