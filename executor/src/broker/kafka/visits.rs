//! Visits: a member without a name joins the group and leaves it, so that the group shares out what it has.
//!
//! A static member that joined again itself would change nothing. Each visit stops all members of the group for a
//! moment, so a process makes at most one in [`VISIT_EVERY`], whoever wants it:
//!
//! ```text
//! a request of a person ──┐
//! partitions that this    ├─▶ Visits ──▶ a thread: look ─▶ join ─▶ leave
//! member does not read  ──┤
//! the search of orphans ──┘
//! ```

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use tracing::{info, warn};

use super::config::ClientSettings;
use super::kept::Kept;
use super::orphans;
use super::tokens::Bearer;
use super::withheld::Withheld;
use crate::clock::{Clock as _, SystemClock};
use crate::guard::{Callers, Calls, ClientCall};

/// The name of the thread of a visit.
const THREAD: &str = "kaspr-visit";
/// Least time between two visits.
const VISIT_EVERY: Duration = Duration::from_secs(30);
/// Visits for the same partitions that are not read: a group that still assigns them has a reason of its own.
const STRAY_VISITS_MAX: u32 = 3;
/// Longest stay of the member that comes and goes.
const VISIT_MAX: Duration = Duration::from_secs(15);
/// Longest wait for the group at a time.
const VISIT_TURN: Duration = Duration::from_millis(100);

/// The visits that a process makes to its group.
pub struct Visits {
    settings: ClientSettings,
    callers: Arc<Callers>,
    clock: SystemClock,
    past: Mutex<Past>,
}

impl Visits {
    /// None yet.
    pub fn new(settings: &ClientSettings, callers: &Arc<Callers>) -> Arc<Visits> {
        let (settings, clock) = (settings.clone(), SystemClock::start());
        Arc::new(Visits { settings, callers: callers.clone(), clock, past: Mutex::default() })
    }

    /// The settings of the member for which visits are made.
    pub fn settings(&self) -> &ClientSettings {
        &self.settings
    }

    /// A place for the calls of a thread.
    pub fn calls(&self, thread: &'static str) -> Arc<Calls> {
        self.callers.other(thread)
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if a visit may be made now; it counts as made then.
    pub fn claim(&self) -> bool {
        self.past().claim(self.clock.now())
    }

    /// Has the group share out its partitions anew, because someone asked for it.
    pub fn ask(&self) {
        if self.claim() {
            self.send("asked for a rebalance");
        }
    }

    /// Has the group take back what this member holds and does not read: its owner should be a member that does.
    pub fn end_strays(&self, withheld: &Withheld) {
        let strays = withheld.strays();
        if strays.is_empty() {
            return;
        }
        let Some(visits) = self.past().claim_for(&strays, self.clock.now()) else { return };
        let topics = BTreeSet::from_iter(strays.iter().map(|(topic, _)| topic.as_str()));
        let topics = Vec::from_iter(topics).join(", ");
        let why = format!("this member holds {} partitions that it does not read, of {topics}", strays.len());
        if visits == STRAY_VISITS_MAX {
            warn!("{why}: the group has given them again after {} requests, and this is the last one", visits - 1);
        }
        self.send(&why);
    }

    /// A visit in a thread of its own.
    fn send(&self, why: &str) {
        let (settings, calls, why) = (self.settings.clone(), self.callers.other(THREAD), why.to_owned());
        let run = move || {
            if let Err(error) = share_out(&settings, &calls, &why) {
                info!("the group could not be made to share out its partitions: {error}");
            }
        };
        if let Err(error) = std::thread::Builder::new().name(THREAD.to_owned()).spawn(run) {
            info!("the group could not be made to share out its partitions: {error}");
        }
    }
}

/// The visits so far.
#[derive(Default)]
struct Past {
    /// The time of the last visit.
    at: Option<Duration>,
    /// The partitions of the last visit for such that are not read.
    strays: BTreeSet<(String, i32)>,
    /// Visits for these.
    visits: u32,
}

impl Past {
    /// True if a visit may be made now; it counts as made then.
    fn claim(&mut self, now: Duration) -> bool {
        let is_due = self.at.is_none_or(|at| now >= at + VISIT_EVERY);
        if is_due {
            self.at = Some(now);
        }
        is_due
    }

    /// The number of the visit for these partitions that may be made now.
    fn claim_for(&mut self, strays: &BTreeSet<(String, i32)>, now: Duration) -> Option<u32> {
        let visits = if self.strays == *strays { self.visits } else { 0 };
        if visits >= STRAY_VISITS_MAX || !self.claim(now) {
            return None;
        }
        (self.strays, self.visits) = (strays.clone(), visits + 1);
        Some(self.visits)
    }
}

fn share_out(settings: &ClientSettings, calls: &Arc<Calls>, why: &str) -> Result<(), KafkaError> {
    let consumer: Kept<BaseConsumer<Bearer>> = Kept::make(calls, || settings.passive(&settings.unstable()))?;
    let topics = orphans::look(&consumer, calls, settings)?.topics;
    if topics.is_empty() {
        info!("the group is sharing out its partitions already");
        return Ok(());
    }
    info!("{why}: the group is made to share out its partitions");
    visit(settings, calls, &topics)
}

/// Joins the group without a name and leaves it as soon as it is let in. It subscribes to what all the others
/// read: tables that topics share stay where all of their partitions of a number are.
///
/// An error: the group did not let it in within [`VISIT_MAX`].
pub fn visit(settings: &ClientSettings, calls: &Arc<Calls>, topics: &BTreeSet<String>) -> Result<(), KafkaError> {
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let make = || settings.visitor().create_with_context(Visit::default());
    let visitor: Kept<BaseConsumer<Visit>> = Kept::make(calls, make)?;
    settings.admit(visitor.client());
    calls.during(ClientCall::Subscribe, || visitor.subscribe(&topics))?;
    let turns = VISIT_MAX.as_millis() / VISIT_TURN.as_millis();
    for _ in 0..turns {
        // Events that come are dropped: nothing of them is committed.
        drop(calls.during(ClientCall::PollConsumer, || visitor.poll(VISIT_TURN)));
        if visitor.context().was_let_in.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
    Err(KafkaError::Subscription(format!("it was not let in for {VISIT_MAX:?}")))
}

/// Notices that the group has shared out its partitions.
#[derive(Default)]
struct Visit {
    was_let_in: AtomicBool,
}

impl ClientContext for Visit {}

impl ConsumerContext for Visit {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if matches!(rebalance, Rebalance::Assign(_)) {
            self.was_let_in.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visits_are_rare_and_not_repeated_for_ever() {
        let strays = |number| BTreeSet::from([("old".to_owned(), number)]);
        let (mut past, at) = (Past::default(), Duration::from_secs);
        assert!(past.claim(at(1)) && !past.claim(at(30)) && past.claim(at(31)));
        assert_eq!(past.claim_for(&strays(0), at(60)), None, "too soon");
        let claimed = [61, 91, 121, 151].map(|second| past.claim_for(&strays(0), at(second)));
        assert_eq!(claimed, [Some(1), Some(2), Some(3), None], "the group has a reason of its own");
        assert_eq!(past.claim_for(&strays(1), at(152)), Some(1), "others");
    }
}
