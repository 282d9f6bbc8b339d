//! Counts of the stage's units, on their way to the table of counters.
//!
//! Values count at the places that they pass once their unit is complete, and reach the table with its commit.

use super::Stage;
use crate::code::Code;
use crate::event::effects::Effects;
use crate::event::frame::Unit;
use crate::event::tally::{Passage, Tally};
use crate::stage::program::SiteId;

impl<C: Code> Stage<C> {
    /// Makes the tally of a unit of so many events, of which so many decode.
    pub(super) fn tally_of(&self, events: usize, decoded: usize) -> Tally {
        let mut tally = Tally::default();
        self.count_decoded(&mut tally, events, decoded);
        tally
    }

    /// Makes the tally of a unit that fails without running, at a site that it would have reached.
    pub(super) fn tally_of_poison(&self, unit: &Unit, site: SiteId) -> Tally {
        let events = unit.events().len();
        if site == self.program.decoding {
            return self.tally_of(events, 0);
        }
        let mut tally = self.tally_of(events, events);
        tally.at(site.0).taken += 1;
        tally
    }

    /// Counts the events of a unit, and those of them that decode.
    pub(super) fn count_decoded(&self, tally: &mut Tally, events: usize, decoded: usize) {
        let passed = tally.at(self.program.decoding.0);
        (passed.taken, passed.given) = (passed.taken + events as u64, passed.given + decoded as u64);
    }

    /// Counts a unit that has succeeded, with the records that user code has sent.
    pub(super) fn count_done(&mut self, tally: &mut Tally, sent: &[(usize, u64)]) {
        self.tally.append(tally);
        for (row, records) in sent {
            self.tally.at(row - self.first_row()).records += records;
        }
    }

    /// Puts the counts of units that are complete to their effects.
    pub(super) fn count_in(&mut self, effects: &mut Effects) {
        effects.counts = rows(self.first_row(), &mut self.tally);
    }

    /// Counts the unit before which the stage has halted. No commit will: its events are not complete.
    pub fn count_halted(&mut self) {
        let first = self.first_row();
        let Some((_, tally)) = &mut self.halted else { return };
        self.shared.counters.borrow_mut().count_halted(&rows(first, tally));
    }

    /// The row of the program's first site in the table of counters.
    fn first_row(&self) -> usize {
        self.program.sites.first().map_or(0, |site| site.counter)
    }
}

/// Takes the counts out, by their rows in the table of counters.
fn rows(first: usize, tally: &mut Tally) -> Vec<(usize, Passage)> {
    tally.drain().map(|(site, passed)| (first + site, passed)).collect()
}
