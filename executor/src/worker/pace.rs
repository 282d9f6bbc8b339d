//! Pace of user code: everything at once, one part after the other, or nothing while a transaction is open.
//!
//! | state | units per epoch | a commit begins |
//! |---|---|---|
//! | usual | any | when it is due |
//! | slow code, a transaction open | none | - |
//! | slow code, none open | any | when due, or later while code catches up |
//! | in parts, the last part committed | the part | at once |
//! | in parts, the last part not committed | none | - |
//!
//! The reason is Kafka's `transaction.timeout.ms`: the coordinator aborts a transaction that is open for
//! longer, and user code may take minutes.

use std::time::Duration;

use tracing::info;

use super::redo::Redo;
use crate::config::{Config, Guarantee};
use crate::delivery::Urgency;

/// The pace of a worker. At-least-once there are no transactions, so nothing but `redo` could slow user code
/// down, and that stays at rest too.
#[derive(Debug)]
pub(super) struct Pace {
    /// The way in which aborted work is done again.
    pub(super) redo: Redo,
    /// The time until which user code counts as slow.
    slow_until: Duration,
    /// The time until which slow code runs before the next commit begins.
    runs_until: Duration,
    /// The time of one epoch from which code counts as slow.
    slow_code: Duration,
    /// The time for which it then counts so.
    slow_code_for: Duration,
    /// True with transactions.
    is_exact: bool,
}

impl Pace {
    /// Starts at full speed: everything runs at once.
    pub(super) fn new(config: &Config) -> Pace {
        Pace {
            redo: Redo::default(),
            slow_until: Duration::ZERO,
            runs_until: Duration::ZERO,
            slow_code: config.bounds.slow_code,
            slow_code_for: config.bounds.slow_code_for,
            is_exact: config.guarantee == Guarantee::ExactlyOnce,
        }
    }

    /// Notes that user code has run since `began`. The first slow epoch after quick ones is logged. It may
    /// have cost a transaction: the pace changes only after it.
    pub(super) fn note(&mut self, began: Duration, now: Duration) {
        if now.saturating_sub(began) >= self.slow_code {
            if self.is_exact && !self.is_slow(now) {
                let (ms, minutes) = ((now - began).as_millis(), self.slow_code_for.as_secs() / 60);
                info!(ms, "user code kept the worker: for {minutes} minutes none runs while a transaction is open");
            }
            self.slow_until = now + self.slow_code_for;
        }
    }

    /// True if user code might outlast a transaction.
    pub(super) fn is_slow(&self, now: Duration) -> bool {
        self.is_exact && now < self.slow_until
    }

    /// True if units run and are committed in parts.
    pub(super) fn is_in_parts(&self) -> bool {
        self.redo.part().is_some()
    }

    /// Notes that a transaction has ended that began at `began`. Slow code, which waited for it, runs as long
    /// now as it waited before the next one begins: were that due at once, code would get no more than one
    /// epoch's time of each commit's, and a worker that is behind would never catch up. The bound is
    /// `slow_code`: one slow answer of the broker must not stretch all later commits.
    pub(super) fn ended(&mut self, began: Duration, now: Duration) {
        self.runs_until = now + now.saturating_sub(began).min(self.slow_code);
    }

    /// The urgency of commits: in parts, each part waits for the commit of the last, so commits begin now.
    /// `is_busy`: there are units to run.
    pub(super) fn urgency(&self, now: Duration, is_busy: bool) -> Urgency {
        match self.is_in_parts() {
            true => Urgency::Now,
            false if is_busy && self.is_slow(now) && now < self.runs_until => Urgency::WhenFull,
            false => Urgency::WhenDue,
        }
    }

    /// The number of units that may begin in an epoch. In parts, none begins before the last part is committed;
    /// with slow user code, none begins while a transaction is open.
    ///
    /// `is_quiet`: nothing is staged or on its way. `is_sending`: a commit is under way.
    pub(super) fn units(&self, now: Duration, is_quiet: bool, is_sending: bool) -> usize {
        match self.redo.part() {
            // Only when the last part is committed: a culprit is found because it fails alone.
            Some(part) if is_quiet => part,
            Some(_) => 0,
            None if is_sending && self.is_slow(now) => 0,
            None => usize::MAX,
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
    fn slow_code_that_is_behind_runs_as_long_as_it_waited() {
        let mut pace = pace(Guarantee::ExactlyOnce);
        let at = Duration::from_millis;
        let mut began = at(0);
        pace.ended(at(0), at(300));
        assert_eq!(pace.urgency(at(400), true), Urgency::WhenDue, "quick code waits for no commit");
        pace.note(at(0), pace.slow_code);
        for took in [300, 100, 20_000] {
            let now = began + at(took);
            pace.ended(began, now);
            let until = now + at(took).min(pace.slow_code);
            assert_eq!(pace.urgency(until - at(1), true), Urgency::WhenFull);
            assert_eq!(pace.urgency(until - at(1), false), Urgency::WhenDue, "nothing is left to run");
            assert_eq!(pace.urgency(until, true), Urgency::WhenDue);
            began = until;
        }
    }

    #[test]
    fn slow_code_waits_for_nothing_at_least_once() {
        let mut pace = pace(Guarantee::AtLeastOnce);
        let ran = pace.slow_code;
        pace.note(Duration::ZERO, ran);
        assert_eq!(pace.units(ran, false, true), usize::MAX);
    }

    #[test]
    fn each_part_waits_for_the_commit_of_the_last() {
        let mut pace = pace(Guarantee::ExactlyOnce);
        let progress = [Progress { reader: ReaderId(0), partition: 0, done: 1, events: 1 }];
        pace.redo.undone(&progress, 8, Some(&Refused { kind: "Size", why: String::new(), is_certain: true }));
        let now = Duration::ZERO;
        assert_eq!([pace.units(now, true, false), pace.units(now, false, true)], [4, 0]);
        assert_eq!(pace.urgency(now, true), Urgency::Now);
    }
}
