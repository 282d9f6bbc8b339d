//! A lane: the units of one partition (or of all, if batches mix partitions), in order.

use std::collections::VecDeque;
use std::time::Duration;

use crate::code::Ticket;
use crate::event::frame::Unit;
use crate::stage::walk::Walk;

/// Names a lane: the number of its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneId(pub usize);

impl LaneId {
    /// The lane of batches that mix partitions.
    pub const MIXED: LaneId = LaneId(usize::MAX);
}

/// Units in order; only the first may be under way.
#[derive(Debug)]
pub struct Lane<V> {
    /// Units that have not run, or that must run again.
    pub queue: VecDeque<Unit>,
    /// The unit whose await is pending.
    pub running: Option<(Ticket, Walk<V>)>,
    /// The time at which the pending await takes too long.
    pub await_ends: Option<Duration>,
    /// The track that the pending await occupies.
    pub track: Option<(u32, Option<i32>)>,
    /// The time until which the first unit of the queue is in back-off.
    pub held_until: Option<Duration>,
    /// Failed tries of the first unit.
    pub tries: u32,
    /// The time at which the unit under way began, if its duration is measured.
    pub timed: Option<Duration>,
}

impl<V> Default for Lane<V> {
    fn default() -> Lane<V> {
        let queue = VecDeque::new();
        Lane { queue, running: None, await_ends: None, track: None, held_until: None, tries: 0, timed: None }
    }
}

impl<V> Lane<V> {
    /// True if the lane holds no unit.
    pub fn is_quiet(&self) -> bool {
        self.queue.is_empty() && self.running.is_none()
    }

    /// True if its first unit could run now.
    pub fn is_ready(&self) -> bool {
        !self.queue.is_empty() && self.running.is_none() && self.held_until.is_none()
    }
}
