//! The ends of the program: exit statuses, messages and signals.
//!
//! | status | end |
//! |---|---|
//! | 0 | all is drained |
//! | 1 | a fault |
//! | 2 | wrong use, or a spec that is refused |
//! | 75 | forced: the watchdog, a second signal, or the deadline |
//! | 76 | a fault of this worker alone: only a supervisor sees it, and starts the worker again |
//! | 130, 143 | interrupted before its work was done |
//!
//! A handler may run at any moment, inside of any call. So it only stores into atomics, writes bytes and ends
//! the process; everything else happens in the threads that it wakes.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::last_words;
use super::voice::speaks_json;
use crate::broker::BrokerError;
use crate::code::python::signalled;
use crate::guard::{Patience, Watch};
use crate::wake::Bell;
use crate::worker::Stopped;

/// All is drained.
pub const FINE: i32 = 0;
/// Stopped by a fault.
pub const FAULT: i32 = 1;
/// Wrong use, or a spec that is refused.
pub const REFUSED: i32 = 2;
/// Interrupted by SIGINT before its work was done.
pub(super) const INTERRUPTED: i32 = 128 + signal_hook::consts::SIGINT;
/// Interrupted by SIGTERM before its work was done.
pub(super) const TERMINATED: i32 = 128 + signal_hook::consts::SIGTERM;
/// Says to the supervisor alone that a worker was stopped by a fault that other workers need not have. To all
/// other callers it is [`FAULT`].
pub(super) const OWN_FAULT: i32 = 76;
/// Asked twice to stop, not done by the deadline, or stuck in user code.
pub use crate::guard::FORCED;

/// Last words of a process that is not done by its deadline: of a signal handler, which cannot form words.
const LATE: &[u8] = b"error: not stopped by the deadline, ending now: what was not committed comes again\n";
// Made by hand for the same reason: a handler may allocate nothing.
const LATE_JSON: &[u8] =
    b"{\"level\":\"ERROR\",\"message\":\"not stopped by the deadline, ending now: what was not committed comes again\"}\n";

/// An end of the program before its work is done: an exit status and a message. An empty message: everything
/// was said already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop(pub i32, pub String);

impl Stop {
    /// The end because the user's call or spec cannot be run.
    pub fn refused(why: impl std::fmt::Display) -> Stop {
        Stop(REFUSED, format!("error: {why}"))
    }

    /// The end because something failed.
    pub fn fault(why: impl std::fmt::Display) -> Stop {
        Stop(FAULT, format!("error: {why}"))
    }

    /// The end because something failed here that need not fail elsewhere, or later: a disk, a port, a broker
    /// that was lost. A supervisor starts the worker again, after a pause.
    pub fn own_fault(why: impl std::fmt::Display) -> Stop {
        Stop(OWN_FAULT, format!("error: {why}"))
    }

    /// The end as callers other than the supervisor see it.
    pub fn for_others(self) -> Stop {
        let Stop(code, why) = self;
        Stop(if code == OWN_FAULT { FAULT } else { code }, why)
    }
}

/// Faults of the group meet every worker; all others may pass.
impl From<BrokerError> for Stop {
    fn from(error: BrokerError) -> Stop {
        match error {
            BrokerError::Group(_) => Stop::fault(error),
            _ => Stop::own_fault(error),
        }
    }
}

/// Ends all workers where the spec says halt, or where no worker could start any more.
impl From<Stopped> for Stop {
    fn from(stopped: Stopped) -> Stop {
        match stopped {
            Stopped::Broker(error) => error.into(),
            Stopped::Store(_) => Stop::own_fault(stopped),
            Stopped::Topics(_) | Stopped::Halted(_) => Stop::fault(stopped),
        }
    }
}

/// Signals: SIGTERM and SIGINT are counted, SIGUSR1 is noted. Clones share the same state. Made once, at the
/// start of `run`.
#[derive(Clone)]
pub struct Signals {
    count: Arc<AtomicUsize>,
    /// The first of them; 0: none has come.
    first: Arc<AtomicI32>,
    /// Seconds until the process ends by itself after the first one; 0: never.
    deadline: Arc<AtomicU32>,
    /// The watch over what runs: that is not to blame when the process is asked to end.
    watch: Arc<OnceLock<Arc<Watch>>>,
    asked: Arc<AtomicBool>,
    /// Wakes a supervisor.
    bell: Arc<OnceLock<Arc<Bell>>>,
    /// The patience with brokers, which the first signal ends.
    pub(super) patience: Patience,
}

impl Signals {
    /// Listens from now on. The second signal ends the process at once, with 75. SIGALRM is used for the
    /// deadline, and SIGUSR1 for the status.
    pub fn listen() -> Signals {
        let signals = Signals {
            count: Arc::default(),
            first: Arc::default(),
            deadline: Arc::default(),
            watch: Arc::default(),
            asked: Arc::default(),
            bell: Arc::default(),
            patience: Patience::default(),
        };
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
            let Signals { count, first, deadline, watch, bell, patience, .. } = signals.clone();
            let act = move || {
                // Stored before the count: a thread that sees that a signal has come finds its number.
                let _ = first.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst);
                // A person who presses Ctrl-C twice wants the end now: what is not committed comes again.
                if count.fetch_add(1, Ordering::SeqCst) > 0 {
                    spare(&watch);
                    signal_hook::low_level::exit(FORCED);
                }
                let seconds = deadline.load(Ordering::SeqCst);
                if seconds > 0 {
                    // SAFETY: alarm may be called in a signal handler.
                    unsafe { libc::alarm(seconds) };
                }
                patience.end();
                wake_up(&watch, &bell);
            };
            // SAFETY: the action only touches atomics, `alarm`, `write` and `_exit`, all allowed in a handler.
            unsafe { signal_hook::low_level::register(signal, act) }.expect("SIGTERM and SIGINT can be handled");
        }
        let watch = signals.watch.clone();
        let late = move || {
            spare(&watch);
            last_words::leave(LATE);
            let words: &[u8] = if speaks_json() { LATE_JSON } else { LATE };
            // SAFETY: write and _exit may be called in a signal handler; the words live for ever.
            unsafe { libc::write(2, words.as_ptr().cast(), words.len()) };
            signal_hook::low_level::exit(FORCED);
        };
        // SAFETY: as above.
        unsafe { signal_hook::low_level::register(signal_hook::consts::SIGALRM, late) }
            .expect("SIGALRM can be handled");
        // Without a worker in this process the question is noted for the supervisor, which passes it on.
        let Signals { watch, asked, bell, .. } = signals.clone();
        let ask = move || match watch.get() {
            Some(watch) => watch.ask(),
            None => {
                asked.store(true, Ordering::Relaxed);
                wake_up(&watch, &bell);
            }
        };
        // SAFETY: the action only touches atomics and writes.
        unsafe { signal_hook::low_level::register(signal_hook::consts::SIGUSR1, ask) }.expect("SIGUSR1 can be handled");
        signals
    }

    /// Lives on when others send SIGHUP or SIGUSR2, as a server does: handlers that do nothing, since signals that are
    /// ignored stay so in programs that user code starts. A local run ends with its terminal.
    pub fn outlive(&self) {
        for signal in [signal_hook::consts::SIGHUP, signal_hook::consts::SIGUSR2] {
            // SAFETY: the action does nothing.
            unsafe { signal_hook::low_level::register(signal, || ()) }.expect("SIGHUP and SIGUSR2 can be handled");
        }
    }

    /// Sets the time from the first signal after which the process ends with 75. Whole seconds, at least one:
    /// `alarm` knows no less.
    pub fn end_after(&self, deadline: Duration) {
        let seconds = u32::try_from(deadline.as_secs().max(1)).unwrap_or(u32::MAX);
        self.deadline.store(seconds, Ordering::SeqCst);
    }

    /// Spares what runs the blame when the process must end, and asks it for its status on SIGUSR1, from now
    /// on. A question that came before is passed on.
    pub fn watch(&self, watch: Arc<Watch>) {
        if self.asked.swap(false, Ordering::Relaxed) {
            watch.ask();
        }
        // A process has one worker: a second watch would not count.
        let _ = self.watch.set(watch);
    }

    /// From now on signals ring this bell, and so do children that end. For a supervisor: a worker's own bell
    /// is rung through its watch.
    pub fn ring(&self, bell: Arc<Bell>) {
        let children = bell.clone();
        // SAFETY: the action only touches an atomic and writes.
        unsafe { signal_hook::low_level::register(signal_hook::consts::SIGCHLD, move || children.ring()) }
            .expect("SIGCHLD can be handled");
        // Signals that came before are found by the first look.
        let _ = self.bell.set(bell);
    }

    /// Without anything to watch: SIGUSR1 has come since the last call.
    pub fn take_asked(&self) -> bool {
        self.asked.swap(false, Ordering::Relaxed)
    }

    /// The exit status of a run that the first signal has interrupted, as shells give it. 130 for SIGINT, 143
    /// for SIGTERM. Ask only after one has come.
    pub fn status(&self) -> i32 {
        128 + self.first.load(Ordering::SeqCst)
    }

    /// The end of a run that a signal has interrupted before its work was done.
    pub fn interrupted(&self, done: impl std::fmt::Display) -> Stop {
        Stop(self.status(), format!("interrupted: {done}"))
    }

    /// True if a signal has come. Cheap: asked at every turn.
    pub fn asked_to_stop(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// As [`Signals::asked_to_stop`]; user code learns of it, too. The functions that it has registered for the signal
    /// are called, in the worker's thread.
    pub fn asked_to_stop_in_python(&self) -> bool {
        let asked = self.asked_to_stop();
        if asked {
            signalled(self.first.load(Ordering::SeqCst));
        }
        asked
    }
}

/// Wakes the thread that sleeps. May be called in a signal handler.
fn wake_up(watch: &OnceLock<Arc<Watch>>, bell: &OnceLock<Arc<Bell>>) {
    if let Some(watch) = watch.get() {
        watch.wake_up();
    }
    if let Some(bell) = bell.get() {
        bell.ring();
    }
}

/// Takes the mark away. May be called in a signal handler: it only stores.
fn spare(watch: &OnceLock<Arc<Watch>>) {
    if let Some(watch) = watch.get() {
        watch.spare();
    }
}
