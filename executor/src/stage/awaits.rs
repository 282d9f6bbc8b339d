//! Pending awaits: units go on when theirs end, fail when they take too long, and run again when they are
//! given up.

use super::Stage;
use super::lane::{Flight, LaneId, Next, State};
use super::walk::{Outcome, Walk};
use crate::code::{Code, Fault};
use crate::guard::{Doing, InFlight};
use crate::stage::program::SiteId;

impl<C: Code> Stage<C> {
    /// Resumes units whose awaits are finished, and fails those whose awaits take too long. Those whose turn
    /// it is take effect.
    pub(super) fn finish_awaits(&mut self) {
        let waiting: Vec<_> =
            self.lanes.iter().filter(|(_, lane)| !lane.flight().is_empty()).map(|(id, _)| *id).collect();
        for id in waiting {
            let mut at = 0;
            while at < self.lanes[&id].flight().len() {
                if self.shared.units_left() == 0 {
                    return;
                }
                self.finish_await(id, at);
                at += 1;
            }
            self.take_turns(id);
            self.list(id);
        }
    }

    /// Resumes the unit at this place of the flight, if its await is over.
    fn finish_await(&mut self, id: LaneId, at: usize) {
        let lane = self.lanes.get_mut(&id).expect("the caller names a lane");
        let State::Awaits { ticket, ends, .. } = &lane.flight()[at].state else { return };
        let (ticket, ends) = (*ticket, *ends);
        let called = self.shared.code.borrow_mut().take(ticket);
        // Asked second: a result that is there counts, even if this look for it comes late.
        let is_late = ends.is_some_and(|ends| ends <= self.shared.clock.now());
        if called.is_none() && !is_late {
            return;
        }
        let Some(Flight { state: State::Awaits { mut walk, .. }, vain, .. }) = lane.take(at) else { return };
        self.mark(id, walk.frame.whole());
        let outcome = match called {
            Some(called) => self.with_machine(|machine| walk.resume(machine, called)),
            None => {
                self.shared.code.borrow_mut().cancel(ticket);
                let (site, fault) = self.too_late(&walk);
                self.with_machine(|machine| walk.give_up(machine, site, fault))
            }
        };
        self.shared.watch.end();
        let state = self.state_after(walk, outcome);
        self.lanes.get_mut(&id).expect("the caller names a lane").put(at, Flight::new(state, vain));
        let is_in_vain = at > 0 && self.is_in_vain(id, at);
        self.lanes.get_mut(&id).expect("the caller names a lane").is_doubtful |= is_in_vain;
    }

    /// The state of a unit that has run as far as it can.
    pub(super) fn state_after(&self, walk: Box<Walk<C::Value>>, outcome: Outcome) -> State<C::Value> {
        let result = match outcome {
            Outcome::Done => Ok(()),
            Outcome::Failed(site, fault) => Err((site, fault)),
            Outcome::Pending(ticket) => {
                let site = walk.pending_site(&self.program).map(|site| self.site(site));
                if let Some(site) = site {
                    self.shared.counters.borrow_mut().steps[site.counter].awaited += 1;
                }
                let limit = site.map(|site| site.limit);
                let ends = limit.map(|limit| self.shared.clock.now() + limit);
                let mark = self.in_flight.overlaps().then(|| self.mark_flight(&walk)).flatten();
                return State::Awaits { ticket, walk, ends, mark };
            }
        };
        // Tasks that its code has left behind have no more part in it.
        walk.frame.closed.set(true);
        State::Ran { walk, result }
    }

    /// Marks a unit that awaits, for the next process.
    fn mark_flight(&self, walk: &Walk<C::Value>) -> Option<InFlight> {
        let whole = walk.frame.whole();
        let first = &whole.events()[0];
        let is_lonely = self.shared.poison.borrow().is_suspect(self.reader, whole);
        let row = self.site(walk.pending_site(&self.program)?).counter;
        let [partition, row, events] = [first.slot, row, whole.events().len()].map(|number| number as u32);
        // Any number but 0 will do: only the next process reads these marks, and it does not compare them.
        let doing = Doing { unit: 1, offset: first.offset, reader: self.reader.0, partition, events, row };
        self.shared.watch.fly(&doing, is_lonely)
    }

    /// Lets units that have run take effect, as long as it is their turn. Those that must run again do so later.
    fn take_turns(&mut self, id: LaneId) {
        while self.halted.is_none() && self.shared.units_left() > 0 && !self.track_is_busy(id) {
            let lane = &self.lanes[&id];
            let has_run = lane.flight().front().is_some_and(|first| matches!(first.state, State::Ran { .. }));
            if !has_run || lane.next(self.in_flight) != Some(Next::Turn) || !self.take_turn(id, false) {
                return;
            }
        }
    }

    /// The place and reason for which an event fails when its await takes too long.
    fn too_late(&self, walk: &Walk<C::Value>) -> (SiteId, Fault) {
        let site = walk.pending_site(&self.program).unwrap_or(self.program.decoding);
        (site, Fault::timeout(self.site(site).limit))
    }

    /// Drops everything of the partitions for which `gone` holds, pending awaits included. If a mixed batch
    /// has a pending await, its events of other partitions go back to the front of the queue.
    pub fn drop_partitions(&mut self, gone: &dyn Fn(usize) -> bool) {
        let ids: Vec<_> = self.lanes.keys().copied().collect();
        for id in ids {
            // A mixed batch that awaits cannot lose single events: the values are in user code's hands.
            if id == LaneId::MIXED || gone(id.0) {
                self.cancel(id);
            }
            let lane = self.lanes.get_mut(&id).expect("it was just listed");
            lane.queue.drop_partitions(gone);
            if lane.queue.is_empty() && lane.flight().is_empty() {
                (lane.held_until, lane.tries) = (None, 0);
            }
            lane.is_listed = false;
            self.ready.retain(|other| *other != id);
            self.list(id);
        }
    }

    /// Forgets everything that waits: the consumer reads it again.
    pub fn clear(&mut self) {
        self.drop_partitions(&|_| true);
        self.halted = None;
    }

    /// Gives up all that is in flight: results are dropped, and the units run again.
    pub fn cancel_awaits(&mut self) {
        let flying: Vec<_> =
            self.lanes.iter().filter(|(_, lane)| !lane.flight().is_empty()).map(|(id, _)| *id).collect();
        for id in flying {
            self.cancel(id);
            self.list(id);
        }
    }

    /// Gives up all that a lane has in flight: its units go back to the front of the queue.
    fn cancel(&mut self, id: LaneId) {
        self.release_track(id);
        if self.shared.asks_to_be_alone.get() == Some((self.reader, id.0)) {
            self.shared.asks_to_be_alone.set(None);
        }
        let lane = self.lanes.get_mut(&id).expect("the caller names a lane");
        (lane.is_doubtful, lane.is_putting_off) = (false, false);
        // From the last to the first, so that each goes in front of those that came after it.
        while let Some(flight) = lane.pop_last() {
            lane.queue.push_first(flight.state.unit().clone());
            match flight.state {
                State::Awaits { ticket, walk, .. } => {
                    walk.frame.closed.set(true);
                    self.shared.code.borrow_mut().cancel(ticket);
                }
                State::Ran { .. } | State::Waits(_) => {}
            }
        }
    }
}
