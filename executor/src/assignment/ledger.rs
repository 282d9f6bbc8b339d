//! Ledger: how far a reader is in a partition.
//!
//! A *ledger* holds four marks, each the next offset of its kind, and each at or before the one above it:
//!
//! - `taken`: to be accepted. Between it and `done` lie the events that wait: queued, in an open window, in
//!   back-off, in a pending await.
//! - `done`: not complete. Events of a partition complete in order, so there are no gaps.
//! - `committing`: in no commit. Between it and `done` lie events whose effects are staged.
//! - `committed`: for a successor to begin at, and for this worker after an abort.
//!
//! There is one ledger per reader and partition. An event at offset 7 moves through it like this:
//!
//! ```text
//!                    committed committing done taken
//! at rest                7         7       7     7
//! Ledger::take(7)        7         7       7     8     it is queued, in a window, or waits for a retry
//! Ledger::complete(8)    7         7       8     8     its effects are staged, or its failure is recorded
//! Ledger::begin_commit   7         8       8     8     a commit has its effects and will send its offset
//! Ledger::end_commit     8         8       8     8     durable: a successor begins behind it
//! ```
//!
//! After an abort [`Ledger::go_back`] sets all marks to `committed`, and the consumer reads from there again.
//! Every method asserts the order of the marks in debug builds; the simulator runs with these assertions.

/// Positions of one reader in one partition. Made when the partition is taken over, dropped when it
/// is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ledger {
    taken: i64,
    done: i64,
    committing: i64,
    committed: i64,
}

impl Ledger {
    /// Makes a ledger that starts at an offset: the group has come so far. All four marks are equal: no event
    /// waits and nothing is staged.
    pub fn at(offset: i64) -> Ledger {
        Ledger { taken: offset, done: offset, committing: offset, committed: offset }
    }

    /// Takes an event. Returns false if it was taken before.
    ///
    /// `offset` may jump: compacted records and transaction markers take offsets too.
    pub fn take(&mut self, offset: i64) -> bool {
        if offset < self.taken {
            return false;
        }
        if self.is_idle() {
            // Markers and compacted offsets before the event are no work for this reader.
            self.done = offset;
        }
        self.taken = offset + 1;
        self.check();
        true
    }

    /// Notes that all before `offset` is complete.
    ///
    /// # Panics
    ///
    /// If `offset` lies before `done` or past `taken`: the worker would commit an event that has not run.
    pub fn complete(&mut self, offset: i64) {
        assert!(self.done <= offset && offset <= self.taken, "events of a partition complete in order");
        self.done = offset;
        self.check();
    }

    /// Notes that a commit takes all before `offset`: what completes from here on belongs to a later one.
    ///
    /// `offset` is the `done` of the effects that the commit takes, which may lie before the ledger's.
    pub fn begin_commit(&mut self, offset: i64) {
        debug_assert!(self.committing <= offset, "commits take epochs in order");
        self.committing = offset;
        self.check();
    }

    /// Notes that the group knows of all before `offset`. Called only when the broker has the offset for
    /// certain, also after an unknown outcome.
    pub fn end_commit(&mut self, offset: i64) {
        debug_assert!(self.committed <= offset, "a commit takes no reader back");
        self.committed = offset;
        self.check();
    }

    /// Passes over offsets that hold no record, if nothing waits and nothing is staged: the next commit takes
    /// them. Does nothing otherwise. Without it the group would show a lag of 1 for ever behind each
    /// transaction marker.
    pub fn pass(&mut self, position: i64) {
        if self.is_idle() && self.committing == self.done && position > self.done {
            (self.taken, self.done, self.committing) = (position, position, position);
            self.check();
        }
    }

    /// Forgets everything that is not committed: the consumer reads it again.
    pub fn go_back(&mut self) {
        // `taken` goes back too: otherwise the events that come again would be refused as taken before.
        *self = Ledger::at(self.committed);
    }

    /// True if no event of the partition waits in this reader.
    pub fn is_idle(&self) -> bool {
        // A gap (compacted offsets) may lie between the last event done and the next taken.
        self.taken == self.done
    }

    /// True if something is complete that is not committed. An abort takes such a reader back; the others
    /// keep their place.
    pub fn is_ahead(&self) -> bool {
        self.done != self.committed
    }

    /// The next offset to accept.
    pub fn taken(&self) -> i64 {
        self.taken
    }

    /// The next offset that is not complete.
    pub fn done(&self) -> i64 {
        self.done
    }

    /// The next offset that no commit has taken.
    pub fn committing(&self) -> i64 {
        self.committing
    }

    /// The next offset for a successor.
    pub fn committed(&self) -> i64 {
        self.committed
    }

    /// Asserts the order of the marks, which every change must keep.
    fn check(&self) {
        let Ledger { taken, done, committing, committed } = *self;
        debug_assert!(
            committed <= committing && committing <= done && done <= taken,
            "no mark passes another: {self:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(ledger: &Ledger) -> [i64; 4] {
        [ledger.committed(), ledger.committing(), ledger.done(), ledger.taken()]
    }

    #[test]
    fn an_event_is_taken_once() {
        let mut ledger = Ledger::at(5);
        assert!(!ledger.take(4), "before its position");
        assert!(ledger.take(5) && !ledger.take(5));
        assert_eq!((ledger.taken(), ledger.done()), (6, 5));
        ledger.complete(6);
        assert!(ledger.is_idle());
    }

    #[test]
    fn marks_follow_each_other() {
        let mut ledger = Ledger::at(5);
        (5..9).for_each(|offset| assert!(ledger.take(offset)));
        ledger.complete(8);
        ledger.begin_commit(7);
        assert_eq!(marks(&ledger), [5, 7, 8, 9]);
        assert!(ledger.is_ahead());
        ledger.end_commit(7);
        assert_eq!(marks(&ledger), [7, 7, 8, 9]);
    }

    #[test]
    fn what_is_not_committed_is_forgotten() {
        let mut ledger = Ledger::at(5);
        ledger.take(5);
        ledger.complete(6);
        ledger.begin_commit(6);
        ledger.go_back();
        assert_eq!(marks(&ledger), [5; 4]);
        assert!(ledger.take(5), "it comes again");
    }

    #[test]
    fn markers_are_passed_over_only_when_nothing_waits_and_nothing_is_staged() {
        let mut ledger = Ledger::at(0);
        ledger.take(0);
        ledger.pass(2);
        assert_eq!(marks(&ledger), [0, 0, 0, 1], "an event waits");
        ledger.complete(1);
        ledger.pass(2);
        assert_eq!(marks(&ledger), [0, 0, 1, 1], "its effects are staged");
        ledger.begin_commit(1);
        ledger.pass(2);
        assert_eq!(marks(&ledger), [0, 2, 2, 2]);
    }

    #[test]
    #[should_panic(expected = "complete in order")]
    fn completing_what_was_not_taken_is_a_fault_of_the_worker() {
        Ledger::at(0).complete(1);
    }

    #[test]
    #[should_panic(expected = "no mark passes another")]
    fn a_commit_takes_nothing_that_is_not_complete() {
        let mut ledger = Ledger::at(0);
        ledger.take(0);
        ledger.begin_commit(1);
    }

    #[test]
    #[should_panic(expected = "a commit takes no reader back")]
    fn the_group_forgets_nothing() {
        Ledger::at(3).end_commit(2);
    }
}
