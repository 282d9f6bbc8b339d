//! Aborted work is done again: all at once first, then one event at a time, until the event that is the cause
//! stands alone and fails.
//!
//! An abort alone says nothing about an event: brokers go away, groups rebalance. So an event fails only if
//! the broker gave a reason of its own while the event ran alone: at once if that reason is final, else after
//! [`REDOS_MAX`] tries.

use crate::delivery::Refused;
use crate::event::effects::Progress;

/// Aborts in a row, with no commit between them, after which events run one by one; and after which an event
/// that runs alone fails.
pub const REDOS_MAX: u32 = 3;

/// The way in which aborted work is done again.
#[derive(Debug, Default)]
pub struct Redo {
    /// Transactions aborted since the last commit, or since events run one by one.
    in_a_row: u32,
    /// Units run and are committed one by one until these readers have come this far.
    until: Vec<Progress>,
    /// True if no broker refused anything: then the first commit shows that the cause has passed.
    is_on_trial: bool,
}

impl Redo {
    /// True if units run and are committed one by one.
    pub fn is_one_by_one(&self) -> bool {
        !self.until.is_empty()
    }

    /// True if the same work was aborted before: what is known of topics may be out of date.
    pub fn is_repeated(&self) -> bool {
        self.in_a_row > 1 || self.is_one_by_one()
    }

    /// Notes that a transaction was aborted that would have completed `progress`. Returns true if its event
    /// is the cause and must fail.
    pub fn undone(&mut self, progress: &[Progress], refused: Option<&Refused>) -> bool {
        if progress.is_empty() {
            return false;
        }
        let was_alone = self.is_one_by_one();
        self.in_a_row += 1;
        let is_certain = refused.is_some_and(|refused| refused.is_certain);
        // A final reason need not be repeated. Still, only an event that ran alone is known to be the cause.
        let goes_on = self.in_a_row < REDOS_MAX && !is_certain;
        if goes_on && !was_alone {
            return false;
        }
        let new: Vec<Progress> = progress.iter().filter(|progress| !self.until.contains(progress)).copied().collect();
        self.until.extend(new);
        self.is_on_trial = refused.is_none() && (self.is_on_trial || !was_alone);
        if goes_on {
            return false;
        }
        self.in_a_row = 0;
        was_alone && refused.is_some()
    }

    /// Notes a commit. `is_left` returns true for a reader that has not come so far yet.
    pub fn committed(&mut self, is_left: impl FnMut(&Progress) -> bool) {
        self.in_a_row = 0;
        match std::mem::take(&mut self.is_on_trial) {
            true => self.until.clear(),
            false => self.until.retain(is_left),
        }
    }
}

#[cfg(test)]
mod tests {
    use kaspr_ir::plan::ReaderId;

    use super::*;

    const PROGRESS: [Progress; 1] = [Progress { reader: ReaderId(0), partition: 0, done: 7 }];

    fn refused(is_certain: bool) -> Refused {
        Refused { kind: "Topic", why: "no".to_owned(), is_certain }
    }

    /// The results of `count` aborts in a row: whether the event fails, and whether units then run one by
    /// one.
    fn redos(redo: &mut Redo, refused: Option<&Refused>, count: usize) -> Vec<(bool, bool)> {
        (0..count).map(|_| (redo.undone(&PROGRESS, refused), redo.is_one_by_one())).collect()
    }

    #[test]
    fn a_final_reason_costs_one_redo_and_one_alone() {
        let found = redos(&mut Redo::default(), Some(&refused(true)), 2);
        assert_eq!(found, [(false, true), (true, true)]);
    }

    #[test]
    fn another_reason_must_repeat_and_repeat_alone() {
        let mut redo = Redo::default();
        let found = redos(&mut redo, Some(&refused(false)), 6);
        assert_eq!(found, [(false, false), (false, false), (false, true), (false, true), (false, true), (true, true)]);
        redo.committed(|_| true);
        assert!(redo.is_one_by_one(), "others of the transaction have not come so far");
        redo.committed(|_| false);
        assert!(!redo.is_one_by_one());
    }

    #[test]
    fn without_a_reason_of_the_broker_nothing_fails() {
        let mut redo = Redo::default();
        assert!(redos(&mut redo, None, 100).iter().all(|(fails, _)| !fails));
        assert!(redo.is_one_by_one());
        redo.committed(|_| true);
        assert!(!redo.is_one_by_one(), "the cause has passed");
    }

    #[test]
    fn what_would_have_completed_nothing_does_not_count() {
        let mut redo = Redo::default();
        (0..10).for_each(|_| assert!(!redo.undone(&[], None)));
        assert!(!redo.is_one_by_one() && !redo.is_repeated());
    }

    #[test]
    fn a_commit_between_redos_is_progress() {
        let mut redo = Redo::default();
        for _ in 0..100 {
            assert_eq!(redos(&mut redo, Some(&refused(false)), 2), [(false, false); 2]);
            redo.committed(|_| true);
        }
    }
}
