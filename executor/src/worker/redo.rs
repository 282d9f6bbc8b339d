//! Aborted work is done again: all at once first, then in parts, each half of the last that was refused, until
//! the event that is the cause stands alone and fails.
//!
//! An abort alone says nothing about an event: brokers go away, groups rebalance. So only a refusal, which has a
//! reason of the broker's own, makes parts smaller, and an event fails only if it was refused while it ran alone:
//! at once if that reason is final, else after [`REDOS_MAX`] tries.
//!
//! ```text
//! 1,000 events refused      → parts of 500
//! 500 refused               → parts of 250 …
//! 1 refused, reason final   → it fails; parts double with every commit, until `until` is reached
//! ```
//!
//! Some ten refusals find one event among a thousand. Each part is a transaction of its own, and parts are
//! committed in order.

use crate::delivery::Refused;
use crate::event::effects::Progress;

/// Refusals in a row, with no commit between them, after which events run in parts; and after which an event
/// that runs alone fails. A reason that may pass proves nothing the first time.
pub const REDOS_MAX: u32 = 3;

/// The way in which aborted work is done again. At rest all counts are 0 and `until` is empty.
#[derive(Debug, Default)]
pub struct Redo {
    /// Transactions aborted since the last commit, for whatever reason.
    in_a_row: u32,
    /// Those of them that the broker refused since parts last became smaller.
    refusals: u32,
    /// Units run and are committed in parts until these readers have come this far. One entry per reader and
    /// partition of a refused transaction, or several.
    until: Vec<Progress>,
    /// Units of a part; 1: each stands alone. Of no meaning while `until` is empty.
    at_once: usize,
}

impl Redo {
    /// The units of a part, if they run and are committed in parts.
    ///
    /// `None`: everything may run at once.
    pub fn part(&self) -> Option<usize> {
        debug_assert!(self.until.is_empty() || self.at_once > 0, "a part has at least one unit");
        (!self.until.is_empty()).then_some(self.at_once)
    }

    /// True if the same work was aborted before: what is known of topics may be out of date.
    pub fn is_repeated(&self) -> bool {
        self.in_a_row > 1 || self.part().is_some()
    }

    /// Notes that a transaction was aborted that would have completed so many `events`, up to `progress`. Returns
    /// true if its event is the cause and must fail.
    ///
    /// `refused` is `None` where no record was the reason; that only counts as a repetition.
    pub fn undone(&mut self, progress: &[Progress], events: usize, refused: Option<&Refused>) -> bool {
        // The next try differs by itself: it proves nothing about these events.
        if progress.is_empty() {
            return false;
        }
        self.in_a_row += 1;
        // No event is the cause of a broker that is away.
        let Some(refused) = refused else { return false };
        self.refusals += 1;
        let is_judged = refused.is_certain || self.refusals >= REDOS_MAX;
        match self.part() {
            None if !is_judged => return false,
            Some(1) if !is_judged => return false,
            Some(1) => {
                self.refusals = 0;
                return true;
            }
            // Rounded down, but never to nothing: a part of one event is the last.
            part => self.at_once = (events.min(part.unwrap_or(usize::MAX)) / 2).max(1),
        }
        self.refusals = 0;
        let new: Vec<Progress> = progress.iter().filter(|progress| !self.until.contains(progress)).copied().collect();
        self.until.extend(new);
        false
    }

    /// Notes a commit. `is_left` returns true for a reader that has not come so far yet.
    pub fn committed(&mut self, is_left: impl FnMut(&Progress) -> bool) {
        self.until.retain(is_left);
        // Behind an abort, only one half of the refused part is committed: the culprit may be in the other.
        if self.in_a_row == 0 {
            self.at_once = self.at_once.saturating_mul(2);
        }
        (self.in_a_row, self.refusals) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use kaspr_ir::plan::ReaderId;

    use super::*;

    fn refused(is_certain: bool) -> Refused {
        Refused { kind: "Topic", why: "no".to_owned(), is_certain }
    }

    fn progress(done: i64) -> [Progress; 1] {
        [Progress { reader: ReaderId(0), partition: 0, done, events: 1 }]
    }

    /// The results of `count` aborts of one event in a row: whether it fails, and the part that runs then.
    fn redos(redo: &mut Redo, refused: Option<&Refused>, count: usize) -> Vec<(bool, Option<usize>)> {
        (0..count).map(|_| (redo.undone(&progress(7), 1, refused), redo.part())).collect()
    }

    #[test]
    fn a_final_reason_costs_one_redo_and_one_alone() {
        let found = redos(&mut Redo::default(), Some(&refused(true)), 2);
        assert_eq!(found, [(false, Some(1)), (true, Some(1))]);
    }

    #[test]
    fn another_reason_must_repeat_and_repeat_alone() {
        let mut redo = Redo::default();
        let found = redos(&mut redo, Some(&refused(false)), 6);
        let (all, alone) = ((false, None), (false, Some(1)));
        assert_eq!(found, [all, all, alone, alone, alone, (true, Some(1))]);
        redo.committed(|_| true);
        assert_eq!(redo.part(), Some(1), "others of the transaction have not come so far");
        redo.committed(|_| false);
        assert_eq!(redo.part(), None);
    }

    #[test]
    fn brokers_that_are_away_are_no_events_fault() {
        let mut redo = Redo::default();
        let all: Vec<_> = redos(&mut redo, None, 100);
        assert!(all.iter().all(|said| *said == (false, None)) && redo.is_repeated(), "{all:?}");
        assert_eq!(redos(&mut redo, Some(&refused(false)), 2), [(false, None); 2], "only refusals count");
        redos(&mut redo, Some(&refused(false)), 1);
        assert_eq!(redos(&mut redo, None, 100), [(false, Some(1)); 100], "nor do they among refusals");
    }

    #[test]
    fn what_would_have_completed_nothing_does_not_count() {
        let mut redo = Redo::default();
        (0..10).for_each(|_| assert!(!redo.undone(&[], 0, None)));
        assert!(redo.part().is_none() && !redo.is_repeated());
    }

    #[test]
    fn a_commit_between_redos_is_progress() {
        let mut redo = Redo::default();
        for _ in 0..100 {
            assert_eq!(redos(&mut redo, Some(&refused(false)), 2), [(false, None); 2]);
            redo.committed(|_| true);
        }
    }

    /// Runs so many events that come at once, of which the broker refuses some. Gives those that failed and the
    /// transactions that it took.
    fn run(events: i64, bad: &[i64], is_certain: bool) -> (Vec<i64>, usize) {
        let (mut redo, mut done, mut failed, mut transactions) = (Redo::default(), 0, Vec::new(), 0);
        while done < events {
            let part = redo.part().map_or(events, |part| i64::try_from(part).unwrap_or(events));
            let end = events.min(done + part);
            transactions += 1;
            if (done..end).any(|event| bad.contains(&event) && !failed.contains(&event)) {
                let count = usize::try_from(end - done).expect("a count");
                if redo.undone(&progress(end), count, Some(&refused(is_certain))) {
                    assert_eq!(count, 1, "it stands alone");
                    failed.push(done);
                }
            } else {
                done = end;
                redo.committed(|progress| done < progress.done);
            }
        }
        assert_eq!(redo.part(), None);
        (failed, transactions)
    }

    #[test]
    fn an_event_among_many_is_found_in_halves() {
        for is_certain in [true, false] {
            for bad in (0..1000).step_by(37).chain([999]) {
                let (failed, transactions) = run(1000, &[bad], is_certain);
                assert_eq!(failed, [bad]);
                assert!(transactions <= 60, "{transactions} transactions for event {bad}");
            }
            let bad = [0, 1, 499, 500, 998, 999];
            let (failed, transactions) = run(1000, &bad, is_certain);
            assert_eq!(failed, bad);
            assert!(transactions <= 200, "{transactions} transactions");
            assert_eq!(run(20, &Vec::from_iter(0..20), is_certain).0, Vec::from_iter(0..20), "all of them are bad");
        }
    }
}
