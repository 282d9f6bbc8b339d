//! Topics that were just created: brokers learn of a topic one after the other, and each question may
//! go to another broker, so that "unknown topic" means nothing for a while.
//!
//! ```text
//! created or first named ──30 s──▶ old: unknown means missing
//!     └─ deleted: unknown means missing at once, until it is created again
//! read, and unknown to a broker ──asked every 250 ms──▶ known: fine     ──10 s──▶ an error of the group
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::broker::BrokerError;
use crate::clock::{Clock, SystemClock};

/// Time after its creation, or after a broker first named it, in which a topic may be unknown to other brokers.
const FRESH_FOR: Duration = Duration::from_secs(30);
/// Topics that are remembered; those beyond are believed to be missing at once.
const REMEMBERED_MAX: usize = 10_000;
/// Time for which a topic that is read may be unknown before it counts as deleted.
const MISSING_MAX: Duration = Duration::from_secs(10);
/// Pause between two questions about topics that are missing.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// The times at which topics were created, or first named by a broker; `None` for those that were deleted
/// since. All admins of a process share it.
///
/// Names that were deleted are kept, so that one more mention does not make them fresh.
#[derive(Clone)]
pub struct Fresh {
    clock: Rc<SystemClock>,
    since: Rc<RefCell<BTreeMap<String, Option<Duration>>>>,
}

impl Default for Fresh {
    fn default() -> Fresh {
        Fresh { clock: Rc::new(SystemClock::start()), since: Rc::default() }
    }
}

impl Fresh {
    /// Notes that the topic exists now, by this worker's request or another's at the same moment.
    ///
    /// A new topic of the name of a deleted one is fresh again.
    pub fn created(&self, name: &str) {
        self.since.borrow_mut().insert(name.to_owned(), Some(self.clock.now()));
    }

    /// Notes that a broker knows the topic: others may not know it yet.
    ///
    /// Only the first mention counts.
    pub fn named(&self, name: &str) {
        let mut since = self.since.borrow_mut();
        if !since.contains_key(name) && since.len() < REMEMBERED_MAX {
            since.insert(name.to_owned(), Some(self.clock.now()));
        }
    }

    /// True if "unknown topic" may be the answer of a broker that is late.
    pub fn is_fresh(&self, name: &str) -> bool {
        let since = self.since.borrow().get(name).copied().flatten();
        since.is_some_and(|since| self.clock.now() < since + FRESH_FOR)
    }

    /// Notes that the topic stayed unknown for as long as it was asked for: it was deleted.
    pub fn deleted(&self, name: &str) {
        if let Some(since) = self.since.borrow_mut().get_mut(name) {
            *since = None;
        }
    }
}

/// Topics that are read and that some broker does not know: they were deleted, or just created.
///
/// One question at a time, about all topics that its owner reads: librdkafka does not always say which.
pub struct Missing {
    clock: SystemClock,
    absence: Option<Absence>,
}

/// From the first error on, until all topics are known.
struct Absence {
    /// The time of the first error.
    since: Duration,
    /// The time of the last question.
    asked: Duration,
    /// The error that is returned if it lasts.
    why: String,
}

impl Default for Missing {
    fn default() -> Missing {
        Missing { clock: SystemClock::start(), absence: None }
    }
}

impl Missing {
    /// Notes that a broker does not know a topic.
    ///
    /// Further ones change nothing: the first stands for all.
    pub fn note(&mut self, why: String) {
        let now = self.clock.now();
        self.absence.get_or_insert(Absence { since: now, asked: now, why });
    }

    /// True if a topic may be missing: [`Missing::settle`] is to be called soon.
    pub fn is_open(&self) -> bool {
        self.absence.is_some()
    }

    /// Asks now and then, while a topic may be missing, whether all topics are known; an error when one has
    /// been unknown for too long.
    ///
    /// `are_known` asks a broker, and is called once in [`ASK_EVERY`] at most.
    pub fn settle(&mut self, are_known: impl FnOnce() -> bool) -> Result<(), BrokerError> {
        let Some(absence) = &mut self.absence else { return Ok(()) };
        let now = self.clock.now();
        if now < absence.asked + ASK_EVERY {
            return Ok(());
        }
        // Before the question, which may take longer than the pause.
        absence.asked = now;
        if are_known() {
            self.absence = None;
        } else if now >= absence.since + MISSING_MAX {
            return Err(BrokerError::Group(absence.why.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_fresh_until_it_was_found_to_be_deleted() {
        let fresh = Fresh::default();
        assert!(!fresh.is_fresh("in"));
        fresh.named("in");
        assert!(fresh.is_fresh("in"));
        fresh.deleted("in");
        fresh.named("in");
        assert!(!fresh.is_fresh("in"), "a name alone makes nothing new of it");
        fresh.created("in");
        assert!(fresh.is_fresh("in"));
    }
}
