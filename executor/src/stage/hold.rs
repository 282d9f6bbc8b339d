//! Causes that hold a partition in a stage, for the stall report and the status.

use super::Stage;
use super::lane::{LaneId, State};
use crate::code::Code;
use crate::event::frame::Unit;
use crate::status::stall::Cause;

impl<C: Code> Stage<C> {
    /// The timestamp of the partition's next event here, in ms since 1970; `None`: the stage holds none.
    pub fn oldest(&self, partition: usize) -> Option<i64> {
        let id = if self.mixed { LaneId::MIXED } else { LaneId(partition) };
        let lane = self.lanes.get(&id)?;
        lane.events().find(|event| event.slot == partition).map(|event| event.timestamp_ms)
    }

    /// The cause for which the partition's next event is not complete. `None`: the stage holds none of its
    /// events.
    pub fn holds(&self, partition: usize) -> Option<Cause> {
        let id = if self.mixed { LaneId::MIXED } else { LaneId(partition) };
        let lane = self.lanes.get(&id)?;
        let now = self.shared.clock.now();
        let is_of = |unit: &Unit| !self.mixed || unit.events().iter().any(|event| event.slot == partition);
        let first = lane.events().find(|event| event.slot == partition)?;
        let flight = lane.flight().iter().find(|flight| is_of(flight.state.unit()));
        if let Some(State::Awaits { walk, ends, .. }) = flight.map(|flight| &flight.state) {
            let site = self.site(walk.pending_site(&self.program).unwrap_or(self.program.decoding));
            let left = ends.map_or(site.limit, |ends| ends.saturating_sub(now));
            return Some(Cause::Await {
                agent: site.agent_name.to_string(),
                operation: site.operation.clone(),
                held: site.limit.saturating_sub(left),
            });
        }
        if let Some(until) = lane.held_until {
            let (offset, tries) = (first.offset, lane.tries);
            return Some(Cause::Retry { offset, tries, due_in: until.saturating_sub(now) });
        }
        let waiting = lane.events().filter(|event| event.slot == partition).count();
        Some(if self.track_is_busy(id) { Cause::Track } else { Cause::Turn { events: waiting } })
    }
}
