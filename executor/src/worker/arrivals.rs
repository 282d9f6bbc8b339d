//! Partitions that are assigned but have not started.
//!
//! ```text
//! come ─▶ names ─take_ready─▶ taken over ─▶ started
//!           ▲                     │
//!           └── put_back: the broker did not answer
//!           └── wait_for_leaders: no broker leads them, ask later
//! ```
//!
//! A partition is in exactly one place: here, or in the assignment. It leaves when another member gets it
//! ([`Arrivals::drop`]).

use std::time::Duration;

use crate::event::message::TopicPartition;

/// Partitions that are assigned but have not started, and what they wait for. All times are by the worker's
/// clock.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// In the order in which they came.
    names: Vec<TopicPartition>,
    /// The time since which partitions that are ready wait for others, to start together with them.
    ready_since: Option<Duration>,
    /// The time since which committed offsets of these partitions are not known.
    unknown_since: Option<Duration>,
    /// The time at which partitions without a leader are asked for again.
    leaders_asked_at: Duration,
}

impl Arrivals {
    /// Adds newly assigned partitions. They are asked for at once, with those that wait for a leader.
    pub(super) fn come(&mut self, names: Vec<TopicPartition>) {
        self.names.extend(names);
        self.leaders_asked_at = Duration::ZERO;
    }

    /// Puts back partitions that no broker leads; none starts before `until`. Leaders change in seconds: a
    /// question each turn would only load the other brokers.
    pub(super) fn wait_for_leaders(&mut self, names: Vec<TopicPartition>, until: Duration) {
        self.names.extend(names);
        self.leaders_asked_at = until;
    }

    /// Puts back partitions that did not start. They are tried again at the next turn.
    pub(super) fn put_back(&mut self, names: Vec<TopicPartition>) {
        self.names.extend(names);
    }

    /// Drops partitions that this worker no longer owns.
    pub(super) fn drop(&mut self, names: &[TopicPartition]) {
        self.names.retain(|name| !names.contains(name));
    }

    /// True if no partition waits to start.
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// All partitions that wait to start. For the stall report, and for tables that these partitions need.
    pub(super) fn names(&self) -> &[TopicPartition] {
        &self.names
    }

    /// Takes out the partitions that are ready. A start costs the same for many as for one, so the first ones
    /// wait at most `wait_max` for the others.
    ///
    /// `is_ready` is true for a partition whose tables are whole. Returns nothing while it waits.
    pub(super) fn take_ready(
        &mut self,
        now: Duration,
        wait_max: Duration,
        is_ready: impl Fn(&TopicPartition) -> bool,
    ) -> Vec<TopicPartition> {
        if now < self.leaders_asked_at {
            return Vec::new();
        }
        let (ready, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.names).into_iter().partition(is_ready);
        self.names = waiting;
        // Nothing to wait for: all are ready, or none.
        if ready.is_empty() || self.names.is_empty() {
            self.ready_since = None;
            return ready;
        }
        if now < *self.ready_since.get_or_insert(now) + wait_max {
            self.names.extend(ready);
            return Vec::new();
        }
        self.ready_since = None;
        ready
    }

    /// Notes that the committed offsets are not known. Returns true once per `limit`: then something should
    /// be done about it. The next call after that begins a new period.
    pub(super) fn have_waited(&mut self, now: Duration, limit: Duration) -> bool {
        let since = *self.unknown_since.get_or_insert(now);
        let is_long = now - since >= limit;
        if is_long {
            self.unknown_since = Some(now);
        }
        is_long
    }

    /// Notes that the committed offsets are known.
    pub(super) fn started(&mut self) {
        self.unknown_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_millis(10);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn arrivals(count: i32) -> (Arrivals, Vec<TopicPartition>) {
        let names: Vec<_> = (0..count).map(|partition| TopicPartition::new("t", partition)).collect();
        let mut arrivals = Arrivals::default();
        arrivals.come(names.clone());
        (arrivals, names)
    }

    #[test]
    fn all_that_are_ready_start_at_once() {
        let (mut arrivals, names) = arrivals(2);
        assert_eq!(arrivals.take_ready(ms(0), MAX, |_| true), names);
        assert!(arrivals.is_empty());
    }

    #[test]
    fn the_first_wait_a_moment_for_the_others() {
        let (mut arrivals, names) = arrivals(2);
        let first = |name: &TopicPartition| name.partition == 0;
        assert!(arrivals.take_ready(ms(0), MAX, first).is_empty() && arrivals.take_ready(ms(9), MAX, first).is_empty());
        assert_eq!(arrivals.take_ready(ms(10), MAX, first), names[..1]);
        assert_eq!(arrivals.names(), &names[1..]);
    }

    #[test]
    fn those_without_a_leader_are_asked_for_later_or_when_others_come() {
        let (mut arrivals, names) = arrivals(1);
        let taken = arrivals.take_ready(ms(0), MAX, |_| true);
        arrivals.wait_for_leaders(taken, ms(100));
        assert!(arrivals.take_ready(ms(99), MAX, |_| true).is_empty());
        arrivals.come(Vec::new());
        assert_eq!(arrivals.take_ready(ms(99), MAX, |_| true), names);
    }

    #[test]
    fn what_is_unknown_for_long_is_told_once_in_so_long() {
        let (mut arrivals, _) = arrivals(1);
        let told: Vec<_> = [0, 9, 10, 11, 20].map(|at| arrivals.have_waited(ms(at), MAX)).into();
        assert_eq!(told, [false, false, true, false, true]);
        arrivals.started();
        assert!(!arrivals.have_waited(ms(30), MAX));
    }
}
