//! Awaits that overlap: units run ahead of their turn, with the same result as if each had waited for it.
//!
//! A unit behind others keeps its effects in its own scratch. At its turn it is judged: if every key that it
//! has read in tables still is as it was read, its run is the one that it would have made now, and it takes
//! effect. If not, the run was in vain and is made again (the idea of Block-STM). Faults count no more than
//! effects do before that: a run in vain may have failed for what it read.

use super::Stage;
use super::lane::{Flight, LaneId, Next, State, Vain};
use super::walk::{Outcome, Walk};
use crate::code::Code;
use crate::event::frame::Unit;

/// Runs in vain after which a unit waits for its turn and runs alone: nothing of its track takes effect
/// meanwhile.
pub const VAIN_RUNS_MAX: u32 = 10;

impl<C: Code> Stage<C> {
    /// Lets the first unit in flight, whose turn it is, take effect, or run if it has not. Returns false if it
    /// must run and may not begin.
    pub(super) fn take_turn(&mut self, id: LaneId, may_begin: bool) -> bool {
        let lane = lane_of(&mut self.lanes, id);
        let Some(Flight { state, vain, .. }) = lane.pop_first() else { return false };
        // What was put off for its sake may run now.
        lane.is_doubtful |= lane.is_putting_off;
        match state {
            State::Ran { walk, result } if self.is_as_read(&walk) => {
                self.release_track(id);
                self.shared.begin_unit();
                let outcome = match result {
                    Ok(()) => Outcome::Done,
                    Err((site, fault)) => Outcome::Failed(site, fault),
                };
                self.settle(id, walk, outcome, vain);
            }
            State::Ran { walk, .. } if may_begin => {
                self.release_track(id);
                self.begin(id, walk.frame.whole().clone(), vain.and(walk.frame));
            }
            State::Waits(unit) if may_begin => {
                self.release_track(id);
                self.begin(id, unit, vain);
            }
            state => {
                lane_of(&mut self.lanes, id).push_first(Flight::new(state, vain));
                return false;
            }
        }
        self.shared.watch.end();
        true
    }

    /// Begins a unit behind others that are in flight.
    pub(super) fn begin_behind(&mut self, id: LaneId, unit: Unit) {
        let state = self.run_ahead(id, unit);
        lane_of(&mut self.lanes, id).push_behind(Flight::new(state, Vain::default()));
    }

    /// Runs units behind the first again whose runs were in vain, without waiting for their turns: they, too,
    /// overlap. Each is put off while a unit before it is likely to write what it reads.
    pub(super) fn run_again(&mut self, id: LaneId) {
        let lane = lane_of(&mut self.lanes, id);
        (lane.is_doubtful, lane.is_putting_off) = (false, false);
        // Not the first, whose turn it is: `take_turn` judges that one itself.
        for at in 1..self.lanes[&id].flight().len() {
            if !self.is_in_vain(id, at) {
                continue;
            }
            if self.epoch_is_over() {
                lane_of(&mut self.lanes, id).is_doubtful = true;
                return;
            }
            if self.is_better_put_off(id, at) {
                lane_of(&mut self.lanes, id).is_putting_off = true;
                continue;
            }
            let flight = lane_of(&mut self.lanes, id).take(at);
            let Some(Flight { state: State::Ran { walk, .. }, vain, .. }) = flight else { return };
            let (unit, vain) = (walk.frame.whole().clone(), vain.and(walk.frame));
            let state = match vain.runs < VAIN_RUNS_MAX {
                true => self.run_ahead(id, unit),
                false => State::Waits(unit),
            };
            lane_of(&mut self.lanes, id).put(at, Flight::new(state, vain));
        }
    }

    /// True if a unit before the one at this place is likely to write what that has read: then it would run in
    /// vain again.
    fn is_better_put_off(&self, id: LaneId, at: usize) -> bool {
        let flight = self.lanes[&id].flight();
        let Some(frame) = flight[at].state.frame() else { return false };
        let scratch = frame.scratch.borrow();
        let Some(reads) = &scratch.reads else { return false };
        // The nearest first: events of one key tend to follow each other.
        flight.range(..at).rev().any(|before| before.is_likely_to_write(reads))
    }

    /// True if the lane's next unit may not begin now. A unit that may have ended the process runs alone, so that
    /// it is known whose fault it is if that happens again: first all others that are in flight end.
    pub(super) fn must_wait_for_suspects(&self, id: LaneId) -> bool {
        let poison = self.shared.poison.borrow();
        if !poison.has_suspects() {
            return false;
        }
        let (own, asks) = ((self.reader, id.0), &self.shared.asks_to_be_alone);
        if self.shared.watch.has_lonely_flight() || asks.get().is_some_and(|other| other != own) {
            return true;
        }
        let lane = &self.lanes[&id];
        let next = lane.next(self.in_flight);
        let unit = match next {
            Some(Next::First | Next::Behind) => lane.queue.first(),
            Some(Next::Turn) => lane.flight().front().map(|first| first.state.unit().clone()),
            Some(Next::Again) | None => None,
        };
        let is_suspect = unit.is_some_and(|unit| poison.is_suspect(self.reader, &unit));
        let waits = is_suspect && (next == Some(Next::Behind) || self.shared.watch.has_flights());
        // The same question takes the wish back once the suspect may run, or the others would wait for ever.
        asks.set(waits.then_some(own));
        waits
    }

    /// True if the unit at this place of the flight has run in vain.
    pub(super) fn is_in_vain(&self, id: LaneId, at: usize) -> bool {
        match &self.lanes[&id].flight()[at].state {
            State::Ran { walk, .. } => !self.is_as_read(walk),
            State::Awaits { .. } | State::Waits(_) => false,
        }
    }

    /// True if every key that the unit has read is as it was read.
    fn is_as_read(&self, walk: &Walk<C::Value>) -> bool {
        let scratch = walk.frame.scratch.borrow();
        scratch.reads.as_ref().is_none_or(|reads| self.shared.tables.borrow().are_as_read(reads))
    }

    /// Runs a unit as far as it goes, before its turn. What fails without running waits for its turn.
    fn run_ahead(&mut self, id: LaneId, unit: Unit) -> State<C::Value> {
        self.mark(id, &unit);
        let state = self.walk_ahead(unit);
        self.shared.watch.end();
        state
    }

    fn walk_ahead(&mut self, unit: Unit) -> State<C::Value> {
        self.units += 1;
        // A failure of poison takes effect like any other, in its turn: here nothing of the unit may run.
        if self.poison(&unit).is_some() {
            return State::Waits(unit);
        }
        let whole = unit.clone();
        let Ok((frame, Some(value))) = self.decode(unit) else { return State::Waits(whole) };
        let (walk, outcome) = self.walk(frame, value);
        self.state_after(walk, outcome)
    }
}

fn lane_of<V>(
    lanes: &mut std::collections::BTreeMap<LaneId, super::lane::Lane<V>>,
    id: LaneId,
) -> &mut super::lane::Lane<V> {
    lanes.get_mut(&id).expect("the caller names a lane")
}
