//! Pace of user code: everything at once, one unit after the other, or nothing while a transaction is open.

use std::time::Duration;

use super::redo::Redo;
use crate::config::{Config, Guarantee};
use crate::delivery::Urgency;

/// The pace of a worker.
#[derive(Debug)]
pub(super) struct Pace {
    /// The way in which aborted work is done again.
    pub(super) redo: Redo,
    /// The time until which user code counts as slow.
    slow_until: Duration,
    slow_code: Duration,
    slow_code_for: Duration,
    is_exact: bool,
}

impl Pace {
    /// Starts at full speed: everything runs at once.
    pub(super) fn new(config: &Config) -> Pace {
        Pace {
            redo: Redo::default(),
            slow_until: Duration::ZERO,
            slow_code: config.bounds.slow_code,
            slow_code_for: config.bounds.slow_code_for,
            is_exact: config.guarantee == Guarantee::ExactlyOnce,
        }
    }

    /// Notes that user code has run since `began`.
    pub(super) fn note(&mut self, began: Duration, now: Duration) {
        if now.saturating_sub(began) >= self.slow_code {
            self.slow_until = now + self.slow_code_for;
        }
    }

    /// True if user code might outlast a transaction.
    pub(super) fn is_slow(&self, now: Duration) -> bool {
        self.is_exact && now < self.slow_until
    }

    /// True if units run and are committed one by one.
    pub(super) fn is_one_by_one(&self) -> bool {
        self.redo.is_one_by_one()
    }

    /// The urgency of commits: one by one, each unit waits for the commit of the last, so commits begin now.
    pub(super) fn urgency(&self) -> Urgency {
        if self.is_one_by_one() { Urgency::Now } else { Urgency::WhenDue }
    }

    /// The number of units that may begin in an epoch. One by one, none begins before the last is committed;
    /// with slow user code, none begins while a transaction is open.
    pub(super) fn units(&self, now: Duration, is_quiet: bool, is_sending: bool) -> usize {
        match self.redo.is_one_by_one() {
            true => usize::from(is_quiet),
            false if is_sending && self.is_slow(now) => 0,
            false => usize::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use kaspr_ir::plan::ReaderId;

    use super::*;
    use crate::delivery::Refused;
    use crate::event::effects::Progress;

    fn pace(guarantee: Guarantee) -> Pace {
        let mut config = Config::new("app", "test", 0);
        config.guarantee = guarantee;
        Pace::new(&config)
    }

    #[test]
    fn slow_code_waits_for_the_end_of_a_transaction() {
        let mut pace = pace(Guarantee::ExactlyOnce);
        let ran = pace.slow_code;
        assert_eq!(pace.units(ran, false, true), usize::MAX);
        pace.note(Duration::ZERO, ran);
        assert_eq!([pace.units(ran, false, true), pace.units(ran, false, false)], [0, usize::MAX]);
        assert_eq!(pace.units(ran + pace.slow_code_for, false, true), usize::MAX, "it is forgotten");
    }

    #[test]
    fn slow_code_waits_for_nothing_at_least_once() {
        let mut pace = pace(Guarantee::AtLeastOnce);
        let ran = pace.slow_code;
        pace.note(Duration::ZERO, ran);
        assert_eq!(pace.units(ran, false, true), usize::MAX);
    }

    #[test]
    fn one_by_one_each_waits_for_the_commit_of_the_last() {
        let mut pace = pace(Guarantee::ExactlyOnce);
        let progress = [Progress { reader: ReaderId(0), partition: 0, done: 1 }];
        pace.redo.undone(&progress, Some(&Refused { kind: "Size", why: String::new(), is_certain: true }));
        let now = Duration::ZERO;
        assert_eq!([pace.units(now, true, false), pace.units(now, false, true)], [1, 0]);
    }
}
