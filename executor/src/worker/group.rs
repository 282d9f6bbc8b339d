//! Counts the moves of the group's partitions, and their durations. Part of a worker.

use std::time::Duration;

use crate::broker::Change;
use crate::status::figures::GroupFigures;

/// Figures of the worker's group.
#[derive(Debug, Default)]
pub(super) struct Group {
    figures: GroupFigures,
    /// The time of the first change since all partitions ran.
    since: Option<Duration>,
}

impl Group {
    /// Counts a change.
    pub(super) fn count(&mut self, change: &Change, now: Duration) {
        match change {
            Change::Assigned(_) => self.figures.assigned += 1,
            Change::Revoked(_) => self.figures.revoked += 1,
            Change::Lost(_) => self.figures.lost += 1,
        }
        self.since.get_or_insert(now);
    }

    /// True if it is not known yet that all partitions run again.
    pub(super) fn is_moving(&self) -> bool {
        self.since.is_some()
    }

    /// All partitions run.
    pub(super) fn rests(&mut self, now: Duration) {
        if let Some(since) = self.since.take() {
            self.figures.rebalances.observe(now.saturating_sub(since), 1);
        }
    }

    /// The figures so far.
    pub(super) fn figures(&self) -> &GroupFigures {
        &self.figures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebalance_lasts_from_its_first_change_until_all_partitions_run() {
        let (mut group, at) = (Group::default(), Duration::from_secs);
        group.count(&Change::Revoked(Vec::new()), at(1));
        group.count(&Change::Assigned(Vec::new()), at(3));
        assert!(group.is_moving());
        group.rests(at(6));
        group.rests(at(9));
        let figures = group.figures();
        assert_eq!((figures.assigned, figures.revoked, figures.lost), (1, 1, 0));
        assert_eq!((figures.rebalances.seconds.count(), figures.rebalances.seconds.sum()), (1, 5.0));
    }
}
