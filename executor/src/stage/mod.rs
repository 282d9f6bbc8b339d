//! A stage: all agents of a reader as one operator, one event at a time per track.
//!
//! Units (events or batches) queue in *lanes*, one per partition. A unit that waits in a lane (queued, in
//! back-off, in a pending await) holds its position and has no effects yet; so no epoch stays open for it,
//! and other lanes go on.

mod awaits;
mod counting;
mod failing;
pub mod flood;
mod hold;
pub mod lane;
mod overlap;
pub mod poison;
pub mod program;
pub mod queue;
pub mod shared;
pub mod walk;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use kaspr_ir::plan::{BatchScope, Plan, ReaderId, Track};

use crate::clock::Stamp;
use crate::code::{Code, Fault};
use crate::event::effects::{Effects, Epoch, Progress};
use crate::event::failure::FailureRecord;
use crate::event::frame::{Frame, Given, Refused, Unit};
use crate::event::message::Event;
use crate::event::reads::Reads;
use crate::event::run::SharedEvent;
use crate::event::tally::Tally;
use crate::stage::program::{Program, SiteId};
use crate::stage::shared::{EpochOrder, Shared};
use crate::stage::walk::{Machine, Outcome, Walk};
use failing::Failing;
use lane::{Flight, InFlight, Lane, LaneId, Next, Vain};
use overlap::VAIN_RUNS_MAX;

/// One event in so many is timed.
const SAMPLED: u64 = 64;
/// The duration of one run in so many is measured.
const TIMED: u64 = 16;

/// The stage of a reader.
pub struct Stage<C: Code> {
    reader: ReaderId,
    program: Rc<Program>,
    track: Track,
    /// True if batches of this reader mix partitions: then they share one lane.
    mixed: bool,
    /// The bounds of what each lane has in flight.
    in_flight: InFlight,
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
    spare: Option<Box<Walk<C::Value>>>,
    buffer: Vec<u8>,
    units: u64,
    stamp: Stamp,
    /// The failure before whose unit the stage stands, and the counts of that unit.
    halted: Option<(FailureRecord, Tally)>,
}

impl<C: Code> Stage<C> {
    /// Makes an empty stage. `scope` is the reader's batch scope, decided by the plan and the app's settings, as
    /// is what each lane may have in flight.
    pub fn new(
        plan: &Plan,
        reader: ReaderId,
        program: Rc<Program>,
        scope: Option<BatchScope>,
        in_flight: InFlight,
        shared: Rc<Shared<C>>,
    ) -> Stage<C> {
        Stage {
            reader,
            program,
            track: plan[reader].track,
            mixed: scope == Some(BatchScope::Mixed),
            in_flight,
            shared,
            lanes: BTreeMap::new(),
            ready: VecDeque::new(),
            effects: Effects::default(),
            tally: Tally::default(),
            epoch: (0, Duration::ZERO, 0),
            spare: None,
            buffer: Vec::new(),
            units: 0,
            stamp: Stamp::default(),
            halted: None,
        }
    }

    /// Queues what it is given behind the units of its lane.
    pub fn accept(&mut self, given: Given) {
        let id = self.lane_of(&given);
        let lane = self.lanes.entry(id).or_default();
        lane.queue.push(given);
        if !lane.is_listed {
            self.list(id);
        }
    }

    /// Lists a lane as ready, if it is.
    fn list(&mut self, id: LaneId) {
        let lane = self.lanes.get_mut(&id).expect("the caller names a lane");
        if !lane.is_listed && lane.next(self.in_flight).is_some() {
            lane.is_listed = true;
            self.ready.push_back(id);
        }
    }

    /// Runs what may run until its time in the epoch is over. [`Stage::take_effects`] then takes the effects
    /// of the units that completed.
    pub fn run(&mut self) {
        let EpochOrder { epoch, time, bytes_max, begins, .. } = self.shared.order.get();
        if self.epoch.0 != epoch {
            self.epoch = (epoch, self.shared.clock.tick() + time, bytes_max);
        }
        // Before anything is staged: a record must not bear an earlier time than the event that it comes from.
        self.stamp.look(self.shared.clock.as_ref());
        // Awaits end even where nothing may begin: a rebalance waits for those that are pending.
        self.finish_awaits();
        if !begins {
            return;
        }
        self.wake_held();
        // Each ready lane once: one that stays ready goes to the end, so that no partition starves another.
        for _ in 0..self.ready.len() {
            let Some(id) = self.ready.pop_front() else { break };
            self.lanes.get_mut(&id).expect("a ready lane exists").is_listed = false;
            self.run_lane(id);
            self.list(id);
            if self.halted.is_some() || self.epoch_is_over() {
                break;
            }
        }
    }

    /// Runs a lane's units until it is empty, waits, or the epoch ends.
    fn run_lane(&mut self, id: LaneId) {
        while self.halted.is_none() && self.shared.units_left() > 0 && !self.is_blocked(id) {
            let lane = self.lanes.get_mut(&id).expect("a ready lane exists");
            match lane.next(self.in_flight) {
                Some(Next::First) => {
                    let Some(unit) = lane.queue.pop() else { return };
                    self.begin(id, unit, Vain::default());
                    self.shared.watch.end();
                }
                Some(Next::Behind) => {
                    let Some(unit) = lane.queue.pop() else { return };
                    self.begin_behind(id, unit);
                }
                Some(Next::Turn) => {
                    self.take_turn(id, true);
                }
                Some(Next::Again) => self.run_again(id),
                None => return,
            }
            if self.epoch_is_over() {
                return;
            }
        }
    }

    /// Counts the time from a run's begin to its end, if it is measured. A try that is followed by another one is a
    /// run of its own.
    fn note_time(&self, walk: &Walk<C::Value>) {
        if let Some(began) = walk.began {
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
        let partition = if id == LaneId::MIXED { events[0].slot } else { id.0 };
        self.shared.watch.begin(self.reader, partition, events[0].offset, events.len());
    }

    /// The place and reason for which the unit fails without running, if it must not run.
    fn poison(&self, unit: &Unit) -> Option<(SiteId, Fault)> {
        let poison = self.shared.poison.borrow();
        if poison.is_empty() {
            return None;
        }
        let found = poison.find(self.reader, unit)?;
        let site = found.site.as_ref().and_then(|(agent, operation)| {
            self.program.sites.iter().position(|site| *site.agent_name == **agent && site.operation == *operation)
        });
        Some((site.map_or(self.program.decoding, SiteId), found.fault.clone()))
    }

    /// Decodes the unit whose turn it is, and walks it as far as it goes.
    fn begin(&mut self, id: LaneId, unit: Unit, vain: Vain) {
        // Before anything of it runs: if it ends the process, the next one must know which unit it was.
        self.mark(id, &unit);
        self.units += 1;
        self.shared.begin_unit();
        if let Some((site, fault)) = self.poison(&unit) {
            let passed = self.tally_of_poison(&unit, site);
            return self.fail_at_last(id, Failing { unit, undecodable: &[], site, fault, passed });
        }
        let (frame, value) = match self.decode(unit) {
            Ok(decoded) => decoded,
            Err((unit, fault)) => {
                let (site, passed) = (self.program.decoding, self.tally_of(unit.events().len(), 0));
                return self.fail(id, Failing { unit, undecodable: &[], site, fault, passed });
            }
        };
        // Nothing of the batch decodes: its events fail one by one, and no function sees an empty list.
        let Some(value) = value else {
            if !self.waits_for_dead_letters(id, &frame) {
                let mut tally = self.tally_of(frame.whole().events().len(), 0);
                self.count_done(&mut tally, &[]);
                self.complete(id, &frame);
            }
            return;
        };
        // Where units overlap, others may take effect before this one does.
        if !self.in_flight.overlaps() {
            frame.scratch.borrow_mut().lend(&mut self.effects);
        }
        let (walk, outcome) = self.walk(frame, value);
        self.settle(id, walk, outcome, vain);
    }

    /// Walks a value as far as it goes.
    fn walk(&mut self, frame: Rc<Frame>, value: C::Value) -> (Box<Walk<C::Value>>, Outcome) {
        let mut walk = match self.spare.take() {
            Some(mut walk) => {
                walk.restart(frame, value);
                walk
            }
            None => Box::new(Walk::new(frame, value)),
        };
        walk.began = self.units.is_multiple_of(TIMED).then(|| self.shared.clock.now());
        let (events, decoded) = (walk.frame.whole().events().len(), walk.frame.unit.events().len());
        self.count_decoded(&mut walk.tally, events, decoded);
        let outcome = self.with_machine(|machine| walk.run(machine));
        (walk, outcome)
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
    fn decode_batch(&mut self, events: Rc<[SharedEvent]>) -> Result<(Rc<Frame>, Option<C::Value>), (Unit, Fault)> {
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
        // Keys are made Python objects only where code asks; one that cannot be must fail here all the same.
        if program.key_codec != kaspr_ir::plan::Codec::Raw && event.key.is_some() {
            let key = code.validate(&program.key_codec, event.key.as_deref());
            key.map_err(|fault| fault.of_bytes(("key", &program.key_codec), event.key.as_deref(), &program.key_at))?;
        }
        let of_value =
            |fault: Fault| fault.of_bytes(("value", &program.value_codec), event.value.as_deref(), &program.value_at);
        // A reader that only forwards pays for no objects, but passes nothing on that does not decode.
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
        // User code may have kept the event: then the frame is its own, and a new one is made.
        if let Some(walk) = &mut self.spare
            && let Some(frame) = Rc::get_mut(&mut walk.frame)
        {
            frame.restart(unit, partition, refused);
            frame.scratch.get_mut().reads = self.in_flight.overlaps().then(Reads::default);
            return walk.frame.clone();
        }
        let mut frame = Frame::new(unit, partition, refused);
        frame.scratch.get_mut().reads = self.in_flight.overlaps().then(Reads::default);
        Rc::new(frame)
    }

    fn with_machine<R>(&mut self, with: impl FnOnce(&mut Machine<'_, C>) -> R) -> R {
        let mut machine = Machine {
            program: &self.program,
            code: &mut *self.shared.code.borrow_mut(),
            directory: &self.shared.directory,
            counters: &mut self.shared.counters.borrow_mut(),
            clock: self.shared.clock.as_ref(),
            stamp: &mut self.stamp,
            // The first unit is one of those measured, or a short run would show no times at all.
            sample: if self.units % SAMPLED == 1 { SAMPLED as u32 } else { 0 },
            buffer: &mut self.buffer,
        };
        with(&mut machine)
    }

    fn wake_held(&mut self) {
        let now = self.shared.clock.now();
        let is_due = |lane: &Lane<C::Value>| lane.held_until.is_some_and(|until| until <= now);
        let due: Vec<_> = self.lanes.iter().filter(|(_, lane)| is_due(lane)).map(|(id, _)| *id).collect();
        for id in due {
            self.lanes.get_mut(&id).expect("it was just listed").held_until = None;
            self.list(id);
        }
    }

    /// Lets the unit whose turn it is take effect, or wait for its await.
    fn settle(&mut self, id: LaneId, mut walk: Box<Walk<C::Value>>, outcome: Outcome, vain: Vain) {
        match outcome {
            Outcome::Done if self.waits_for_dead_letters(id, &walk.frame) => {
                self.drop_effects(&walk.frame);
                self.spare = Some(walk);
            }
            Outcome::Done => {
                self.note_time(&walk);
                walk.frame.closed.set(true);
                let mut scratch = walk.frame.scratch.borrow_mut();
                if self.in_flight.overlaps() {
                    // It is staged now, whenever it ran.
                    scratch.stamp(self.shared.clock.wall_ms());
                }
                self.shared.tables.borrow_mut().stage(scratch.writes());
                self.count_done(&mut walk.tally, &scratch.sent);
                // Units behind it may have read what it has just written.
                if self.in_flight.overlaps() && !scratch.writes().is_empty() {
                    self.lanes.get_mut(&id).expect("its unit ran").is_doubtful = true;
                }
                self.effects.keep(&mut scratch);
                drop(scratch);
                self.complete(id, &walk.frame);
                self.spare = Some(walk);
            }
            Outcome::Pending(_) => {
                walk.frame.scratch.borrow_mut().give_back(&mut self.effects);
                // With its track, it keeps all others of the track from beginning while it awaits.
                if !self.in_flight.overlaps() || vain.runs >= VAIN_RUNS_MAX {
                    self.take_track(id, &walk.frame);
                }
                let flight = Flight::new(self.state_after(walk, outcome), vain);
                self.lanes.get_mut(&id).expect("it is running").push_first(flight);
            }
            Outcome::Failed(site, fault) => {
                self.note_time(&walk);
                self.drop_effects(&walk.frame);
                let (frame, passed) = (walk.frame.clone(), std::mem::take(&mut walk.tally));
                self.spare = Some(walk);
                let undecodable = frame.refused.as_ref().map_or(&[] as &[_], |refused| &refused.events);
                self.fail(id, Failing { unit: frame.whole().clone(), undecodable, site, fault, passed });
            }
        }
    }

    /// Closes a frame whose effects do not count.
    fn drop_effects(&mut self, frame: &Frame) {
        frame.closed.set(true);
        let mut scratch = frame.scratch.borrow_mut();
        scratch.clear();
        scratch.give_back(&mut self.effects);
    }

    /// Holds a batch back, with all its effects, while dead letters of its undecodable events must wait.
    fn waits_for_dead_letters(&mut self, id: LaneId, frame: &Frame) -> bool {
        let why = frame.refused.as_ref().and_then(|refused| self.dead_letters_wait(&refused.events));
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
        for event in unit.events() {
            let partition = event.slot;
            queued[partition] = queued[partition].saturating_sub(event.size());
            self.effects.advance(Progress { reader: self.reader, partition, done: event.offset + 1, events: 1 });
        }
        self.lanes.get_mut(&id).expect("its unit ran").tries = 0;
    }

    fn lane_of(&self, given: &Given) -> LaneId {
        match given {
            _ if self.mixed => LaneId::MIXED,
            Given::Run(run) => LaneId(run.slot()),
            Given::Unit(unit) => LaneId(unit.events()[0].slot),
        }
    }

    fn track_key(&self, partition: Option<i32>) -> (u32, Option<i32>) {
        (self.track.group, if self.track.per_partition { partition } else { None })
    }

    /// True if the lane's track is occupied by another lane.
    fn track_is_busy(&self, id: LaneId) -> bool {
        let tracks = self.shared.tracks.borrow();
        if tracks.is_empty() {
            return false;
        }
        let partition = (id != LaneId::MIXED).then(|| self.shared.slots.borrow().name(id.0).partition);
        let key = self.track_key(partition);
        tracks.contains(&key) && self.lanes.get(&id).is_none_or(|lane| lane.track != Some(key))
    }

    /// True if the lane's next unit must wait for those of other lanes.
    fn is_blocked(&self, id: LaneId) -> bool {
        self.track_is_busy(id) || self.in_flight.overlaps() && self.must_wait_for_suspects(id)
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
        // Made with the size of the last ones: an epoch resembles the one before it.
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
        let may_go_on = |lane: &Lane<C::Value>| {
            lane.awaiting().next().is_some() || lane.held_until.is_some_and(|until| until <= now)
        };
        !self.ready.is_empty() || self.lanes.values().any(may_go_on)
    }

    /// True if a unit could run at once, without time passing or an await ending.
    pub fn is_busy(&self) -> bool {
        self.halted.is_none() && self.ready.iter().any(|id| !self.is_blocked(*id))
    }

    /// The earliest time at which a back-off ends or an await takes too long.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.lanes.values().flat_map(|lane| [lane.held_until, lane.await_ends()]).flatten().min()
    }

    /// True if an await is pending.
    pub fn awaits(&self) -> bool {
        self.lanes.values().any(|lane| lane.awaiting().next().is_some())
    }

    /// True if no unit waits in the stage.
    pub fn is_empty(&self) -> bool {
        self.lanes.values().all(|lane| lane.is_empty() && lane.held_until.is_none())
    }

    /// True if a pending await holds an event for which `asked` holds.
    pub fn awaits_for(&self, asked: &dyn Fn(&Event) -> bool) -> bool {
        let awaiting = self.lanes.values().flat_map(Lane::awaiting);
        awaiting.flat_map(|walk| walk.frame.whole().events()).any(|event| asked(event))
    }

    /// All events that wait here.
    pub fn waiting(&self) -> impl Iterator<Item = &Event> {
        self.lanes.values().flat_map(Lane::events)
    }

    /// The site with this number.
    fn site(&self, site: SiteId) -> &crate::stage::program::Site {
        &self.program.sites[site.0]
    }
}
