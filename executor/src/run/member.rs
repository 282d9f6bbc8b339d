//! A worker as a member of its group on a broker: it runs until it is asked to stop, or has caught up with
//! the ends that the topics had at the start.
//!
//! ```text
//! turn, turn, … ─▶ asked to stop, or caught up ─▶ drain: calls end ─▶ flush: last commit ─▶ close
//! ```
//!
//! It knows no signals and no terminal: the caller gives it functions for both.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::{info, warn};

use crate::broker::{Admin, BrokerError, Consumer, Watermarks};
use crate::clock::Clock;
use crate::code::Code;
use crate::event::message::TopicPartition;
use crate::worker::{Stopped, Worker};

/// Time between two looks of a worker whether it has caught up, and whether brokers that were away are back.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Time between two log lines on how much is left, in a run that has an end.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Most questions for the end of a partition at a start.
const ASKED_MAX: u32 = 40;
/// The pause between two of them. Together that is 10 s, in which a topic that was just created gets known.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// The end of a run.
///
/// `cli` makes the exit status of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to stop; what was complete is committed.
    Stopped,
    /// It was asked to stop before it had caught up; this many events of its partitions were left.
    Interrupted(u64),
    /// Everything up to the ends is committed.
    CaughtUp,
    /// It was asked to stop, and the broker did not take the last commit.
    Uncommitted,
}

/// The ends of all partitions of these topics that hold anything. Empty partitions are left out: nothing of
/// them is waited for.
///
/// # Errors
///
/// The last answer, if no broker led a partition for 10 s; others at once.
pub fn ends(
    topics: &[String],
    admin: &mut dyn Admin,
    consumer: &mut dyn Consumer,
) -> Result<BTreeMap<TopicPartition, i64>, BrokerError> {
    let mut partitions = Vec::new();
    for topic in topics {
        let count = admin.partitions(topic)?.unwrap_or(0);
        partitions.extend((0..count).map(|partition| TopicPartition::new(topic.as_str(), partition)));
    }
    let marks = answered(|| {
        // All or none: a partition left out would count as caught up.
        let leads = |(partition, marks): (&TopicPartition, Option<Watermarks>)| {
            marks.ok_or_else(|| BrokerError::Retriable(format!("no broker leads {partition}")))
        };
        partitions.iter().zip(consumer.ends(&partitions)?).map(leads).collect::<Result<Vec<_>, _>>()
    })?;
    let held = partitions.into_iter().zip(marks).filter(|(_, marks)| marks.high > marks.low);
    Ok(held.map(|(partition, marks)| (partition, marks.high)).collect())
}

/// Asks again for a while where no broker answers: a topic that was just created is not known to all brokers.
///
/// # Errors
///
/// The last passing error once [`ASKED_MAX`] tries are over, any other at once.
fn answered<T>(mut ask: impl FnMut() -> Result<T, BrokerError>) -> Result<T, BrokerError> {
    for _ in 1..ASKED_MAX {
        match ask() {
            Err(BrokerError::Retriable(_)) => std::thread::park_timeout(ASK_AGAIN),
            other => return other,
        }
    }
    ask()
}

/// A run of a worker. One per run. The functions are called from the worker's thread, between two turns.
pub struct Member<'a> {
    /// Tells the time.
    pub clock: &'a dyn Clock,
    /// True when the run should stop.
    pub stop: &'a dyn Fn() -> bool,
    /// Called now and then, when nothing else asks the brokers how they are.
    pub look: &'a dyn Fn(),
    /// True if it must stop soon: brokers may be away.
    pub is_uneasy: &'a dyn Fn() -> bool,
    /// Takes the status, when it was asked for.
    pub tell: &'a dyn Fn(String),
    /// Run only up to here.
    ///
    /// `None`: without end. Partitions that are not named have nothing to wait for.
    pub until: Option<BTreeMap<TopicPartition, i64>>,
}

impl Member<'_> {
    /// Runs until it is asked to stop or has caught up, then commits and leaves the group.
    ///
    /// # Errors
    ///
    /// The worker stopped by itself. It is dropped then: its positions are those of the last commit.
    pub fn run<C: Code>(self, mut worker: Worker<C>) -> Result<Ended, Stopped> {
        let ended = self.turns(&mut worker)?;
        // In this order: calls that run may still complete their events, and the last commit takes these
        // along.
        worker.drain()?;
        let committed = worker.flush()?;
        if !committed {
            warn!("stopped before everything was committed: it comes again");
        }
        worker.close()?;
        Ok(if committed { ended } else { Ended::Uncommitted })
    }

    /// The loop of a run: returns the reason for which it ended. Nothing is committed for the end yet.
    fn turns<C: Code>(&self, worker: &mut Worker<C>) -> Result<Ended, Stopped> {
        let (mut looked, mut reported) = (self.clock.now(), self.clock.now());
        loop {
            if (self.stop)() {
                return Ok(self.until.as_ref().map_or(Ended::Stopped, |ends| Ended::Interrupted(behind(ends, worker))));
            }
            // Otherwise the worker sleeps until something wakes it; a signal does.
            let looks_soon = self.until.is_some() || (self.is_uneasy)();
            worker.turn(if looks_soon { LOOK_EVERY } else { Duration::MAX })?;
            if worker.is_asked() {
                (self.tell)(worker.status().to_string());
            }
            let now = self.clock.now();
            // The looks below ask brokers, so they keep a pace of their own, however fast the turns are.
            if now < looked + LOOK_EVERY {
                continue;
            }
            looked = now;
            (self.look)();
            let Some(ends) = &self.until else { continue };
            if caught_up(ends, worker)? {
                info!("caught up");
                return Ok(Ended::CaughtUp);
            }
            if now >= reported + TELL_EVERY {
                reported = now;
                info!(behind = behind(ends, worker), "catching up");
            }
        }
    }
}

/// Events before the ends that this member's partitions have not completed. Partitions of other members are
/// theirs to count.
fn behind<C: Code>(ends: &BTreeMap<TopicPartition, i64>, worker: &Worker<C>) -> u64 {
    let left = |(partition, done): (&TopicPartition, &i64)| ends.get(partition).map_or(0, |end| end - done);
    worker.complete().iter().map(left).map(|left| u64::try_from(left).unwrap_or(0)).sum()
}

/// True if everything up to the ends is committed, by this member or another one of the group.
///
/// # Errors
///
/// Those of the worker. Offsets that are not known at the moment mean "not yet".
fn caught_up<C: Code>(ends: &BTreeMap<TopicPartition, i64>, worker: &mut Worker<C>) -> Result<bool, Stopped> {
    let mut taken_all = true;
    for at in worker.positions() {
        let end = ends.get(&at.partition).copied().unwrap_or(0);
        // The cheap answer first: no question to the broker while events are still to come.
        if at.taken < end {
            return Ok(false);
        }
        taken_all &= at.done >= end;
    }
    if !taken_all {
        // The input has ended, as far as this run goes: what waits in a window only waits for time.
        if worker.is_settled() && worker.has_open_windows() {
            worker.hand_over_windows()?;
        }
        return Ok(false);
    }
    let names: Vec<_> = ends.keys().cloned().collect();
    let committed = match worker.committed(&names) {
        Err(Stopped::Broker(BrokerError::Retriable(_))) => return Ok(false),
        committed => committed?,
    };
    let reached = |(committed, end): (Option<crate::broker::Committed>, &i64)| {
        committed.is_some_and(|committed| committed.offset >= *end)
    };
    Ok(committed.into_iter().zip(ends.values()).all(reached))
}
