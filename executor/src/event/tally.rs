//! Counts of values on their way through a reader.
//!
//! They count once the unit that they belong to is complete and committed. A try that is followed by another one
//! leaves none, nor does work that is aborted and done again; so an event counts once, whatever happens to it.

use serde::{Deserialize, Serialize};

/// Counts at one place of a reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Values that came.
    pub taken: u64,
    /// Values that went on.
    pub given: u64,
    /// Values that a filter or predicate held back.
    pub filtered: u64,
    /// Events that failed here for good.
    pub failed: u64,
    /// Dead letters of these events.
    pub dead_letters: u64,
    /// Records that were sent from here.
    pub records: u64,
}

impl Passage {
    /// Adds the counts of another unit.
    pub fn add(&mut self, other: Passage) {
        let Passage { taken, given, filtered, failed, dead_letters, records } = other;
        self.taken += taken;
        self.given += given;
        self.filtered += filtered;
        self.failed += failed;
        self.dead_letters += dead_letters;
        self.records += records;
    }
}

/// Counts of a unit, or of several, by the place's number.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Each with true if `touched` has it.
    places: Vec<(Passage, bool)>,
    /// Places that count something: a large reader has many more.
    touched: Vec<usize>,
}

impl Tally {
    /// The counts at a place.
    pub fn at(&mut self, place: usize) -> &mut Passage {
        if self.places.len() <= place {
            self.places.resize(place + 1, <_>::default());
        }
        let (passed, is_touched) = &mut self.places[place];
        if !std::mem::replace(is_touched, true) {
            self.touched.push(place);
        }
        passed
    }

    /// Takes the counts out, and keeps the allocations.
    pub fn drain(&mut self) -> impl Iterator<Item = (usize, Passage)> {
        let Tally { places, touched } = self;
        // Only what was touched, since this runs for every event and a reader may have hundreds of places.
        touched.drain(..).map(|place| (place, std::mem::take(&mut places[place]).0))
    }

    /// Takes the counts of another tally over.
    pub fn append(&mut self, other: &mut Tally) {
        if self.places.len() < other.places.len() {
            self.places.resize(other.places.len(), <_>::default());
        }
        for place in other.touched.drain(..) {
            let ((from, was_touched), (to, is_touched)) = (&mut other.places[place], &mut self.places[place]);
            to.add(std::mem::take(from));
            *was_touched = false;
            if !std::mem::replace(is_touched, true) {
                self.touched.push(place);
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.drain().for_each(drop);
    }

    /// Forgets the records: their unit has failed, and they go with its effects.
    pub fn drop_records(&mut self) {
        for &place in &self.touched {
            self.places[place].0.records = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_taken_over_once() {
        let (mut one, mut all) = (Tally::default(), Tally::default());
        for _ in 0..3 {
            one.at(5).taken += 1;
            one.at(2).records += 1;
            all.append(&mut one);
        }
        one.at(2).records += 1;
        one.at(2).failed += 1;
        one.drop_records();
        all.append(&mut one);
        one.at(7).given += 1;
        one.clear();
        all.append(&mut one);
        let counts: Vec<_> = all.drain().collect();
        let taken = Passage { taken: 3, ..Passage::default() };
        assert_eq!(counts, [(5, taken), (2, Passage { records: 3, failed: 1, ..Passage::default() })]);
        assert_eq!(all.drain().count(), 0);
    }
}
