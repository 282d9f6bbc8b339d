//! The threads that call into Kafka's clients, and the thread that looks whether their calls return.
//!
//! The thread looks from the first client on, before user code is loaded, and until the last has ended. A
//! call of the worker's thread that does not return ends the process. A call of another thread holds nothing
//! up: it is named, and given up.
//!
//! ```text
//! Callers ─┬─ own: the worker's thread; a call of 60 s ends the process with status 75
//!          └─ others, by thread: a call of 60 s is logged and given up; a new thread does the work
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tracing::{debug, warn};

use super::calls::{Calls, words};
use super::watch::{LookTime, Watch};
use super::watchdog::end_client;
use crate::clock::{Clock, SystemClock};
use crate::config::CLIENT_CALL_MAX;

/// Time between two looks: the thread is one more that wakes where nothing happens.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Calls of all threads of a worker.
#[derive(Debug, Default)]
pub struct Callers {
    /// Calls of the worker's thread.
    own: Arc<Calls>,
    /// Calls of other threads, by the threads' names.
    others: Mutex<Vec<(&'static str, Arc<Calls>)>>,
    /// The mark of the event that runs, which is not to blame.
    watch: OnceLock<Arc<Watch>>,
}

impl Callers {
    /// Starts to watch over calls, for as long as the returned value lives.
    ///
    /// Without a thread, calls go unwatched; that is no reason not to run.
    pub fn start() -> Arc<Callers> {
        let callers = Arc::<Callers>::default();
        let watched = Arc::downgrade(&callers);
        let look = move || {
            look_after(&watched, LOOK_EVERY, CLIENT_CALL_MAX, |watch, name, held| end_client(watch, name, held));
        };
        if let Err(error) = std::thread::Builder::new().name("kaspr-calls".to_owned()).spawn(look) {
            debug!(%error, "calls into clients are not watched");
        }
        callers
    }

    /// Calls of the worker's thread.
    pub fn own(&self) -> Arc<Calls> {
        self.own.clone()
    }

    /// Calls of another thread, for which the worker does not wait.
    pub fn other(&self, thread: &'static str) -> Arc<Calls> {
        let calls = Arc::<Calls>::default();
        let mut others = self.others();
        // Threads that have ended hold theirs no more.
        others.retain(|(_, calls)| Arc::strong_count(calls) > 1);
        others.push((thread, calls.clone()));
        calls
    }

    /// Gives the watch whose mark is cleared before this ends the process: the event that runs is not to
    /// blame.
    pub fn spare(&self, watch: Arc<Watch>) {
        // A process has one worker: a second watch is not expected, and would not count.
        let _ = self.watch.set(watch);
    }

    fn others(&self) -> MutexGuard<'_, Vec<(&'static str, Arc<Calls>)>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls that a look has seen: by the address of their thread's [`Calls`], their number, and since when.
///
/// An address alone would not do: a thread's [`Calls`] may lie where those of an ended one lay.
type Seen = BTreeMap<usize, (u64, Duration)>;

/// Looks until the last [`Callers`] has gone. Time is [`LookTime`]'s: a process that stood still blames no call.
#[allow(clippy::disallowed_methods, reason = "this is not the worker's thread")]
fn look_after(watched: &Weak<Callers>, every: Duration, limit: Duration, end: impl Fn(Option<&Watch>, &str, Duration)) {
    let clock = SystemClock::start();
    let (mut time, mut seen) = (LookTime::start(clock.now(), every), Seen::new());
    loop {
        // Not through `Lookers`: there is no watch yet when the first client is made.
        std::thread::sleep(every);
        let Some(callers) = watched.upgrade() else { return };
        let now = time.look(clock.now());
        if let Some((name, held)) = callers.look(&mut seen, now, limit) {
            end(callers.watch.get().map(|watch| &**watch), name, held);
        }
    }
}

impl Callers {
    /// Looks once; gives the call of the worker's thread that has run for too long. Calls of other threads
    /// that have are given up.
    fn look(&self, seen: &mut Seen, now: Duration, limit: Duration) -> Option<(&'static str, Duration)> {
        // Copied, so that no lock is held while a line is logged: logging may wait for a slow reader.
        let others = self.others().clone();
        let before = std::mem::take(seen);
        let mut held = |calls: &Arc<Calls>| {
            let (at, number) = (Arc::as_ptr(calls) as usize, calls.running());
            if number == 0 {
                return None;
            }
            let since = before.get(&at).filter(|before| before.0 == number).map_or(now, |before| before.1);
            seen.insert(at, (number, since));
            let held = now.saturating_sub(since);
            (held >= limit).then(|| (words(number), held))
        };
        let own = held(&self.own);
        for (thread, calls) in &others {
            match held(calls) {
                Some((name, held)) if !calls.is_given_up() => {
                    calls.give_up();
                    let seconds = held.as_secs();
                    warn!(call = name, thread, seconds, "Kafka's client does not return: the call is given up");
                }
                _ => {}
            }
        }
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::ClientCall;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_call_that_does_not_return_ends_the_process_or_is_given_up() {
        let callers = Callers::default();
        let (own, other) = (callers.own(), callers.other("kaspr-fence"));
        let mut seen = Seen::new();
        own.during(ClientCall::Metadata, || assert_eq!(callers.look(&mut seen, SECOND, 60 * SECOND), None));
        own.during(ClientCall::Create, || {
            assert_eq!(callers.look(&mut seen, 50 * SECOND, 60 * SECOND), None);
            assert_eq!(callers.look(&mut seen, 70 * SECOND, 60 * SECOND), None, "the first one has ended");
            assert_eq!(callers.look(&mut seen, 110 * SECOND, 60 * SECOND), Some(("create client", 60 * SECOND)));
        });
        other.during(ClientCall::Destroy, || {
            assert_eq!(callers.look(&mut seen, 200 * SECOND, 60 * SECOND), None);
            assert!(!other.is_given_up());
            assert_eq!(callers.look(&mut seen, 260 * SECOND, 60 * SECOND), None, "it holds nothing up");
            assert!(other.is_given_up());
        });
        drop(other);
        callers.other("kaspr-orphans");
        assert_eq!(callers.others().len(), 1, "threads that have ended are forgotten");
    }

    #[test]
    fn calls_are_watched_from_the_first_to_the_last() {
        let (callers, (ends, ended)) = (Arc::<Callers>::default(), std::sync::mpsc::channel());
        let watched = Arc::downgrade(&callers);
        let moment = Duration::from_millis(2);
        let thread = std::thread::spawn(move || {
            look_after(&watched, moment, 10 * moment, |watch, name, _| {
                assert!(watch.is_none());
                let _ = ends.send(name.to_owned());
            });
        });
        let name = callers.own().during(ClientCall::GroupMetadata, || ended.recv().expect("it is seen"));
        assert_eq!(name, "group metadata");
        drop(callers);
        thread.join().expect("it ends with the last");
    }
}
