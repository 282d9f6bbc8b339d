//! Interrupts a call of user code that takes longer than it may.
//!
//! A call only says that it begins and ends, a few stores (see [`crate::guard`]). A thread looks
//! every now and then whether the same call still runs, and raises an exception in the worker's
//! thread when it has run too long. CPython delivers it between two bytecodes: a call into C that
//! blocks ends first, and a second thread, which needs no interpreter, ends the process if it
//! does not (the watchdog).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pyo3::ffi;
use pyo3::prelude::*;
use tracing::{info, warn};

use crate::clock::{Clock, SystemClock};
use crate::guard::{LookTime, Outer, Rang, Sighting, Watch, watch_over};

/// Looks of the threads within the shortest timeout, and the bounds of the time between two looks.
const LOOKS_PER_TIMEOUT: u32 = 8;
const LOOKS_MIN: Duration = Duration::from_millis(2);
const LOOKS_MAX: Duration = Duration::from_millis(500);

/// The alarm of one worker.
pub struct Alarm {
    /// The watch over what runs.
    pub watch: Arc<Watch>,
    ends: Arc<AtomicBool>,
    /// The worker's thread, as CPython names it.
    thread: std::ffi::c_long,
}

impl Alarm {
    /// Starts the threads. The caller's thread is the one whose calls are watched.
    pub fn start(py: Python<'_>, watch: Arc<Watch>, exception: Py<PyAny>, shortest: Duration) -> PyResult<Alarm> {
        let ident: u64 = py.import("threading")?.call_method0("get_ident")?.extract()?;
        // CPython takes the same bits as an unsigned long.
        let thread = ident as std::ffi::c_long;
        let ends = Arc::new(AtomicBool::new(false));
        let every = (shortest / LOOKS_PER_TIMEOUT).clamp(LOOKS_MIN, LOOKS_MAX);
        watch_over(watch.clone(), every, ends.clone())?;
        let (watched, ended) = (watch.clone(), ends.clone());
        let started = std::thread::Builder::new()
            .name("kaspr-alarm".to_owned())
            .spawn(move || wake_up(&watched, thread, &exception, every, &ended))?;
        watch.lookers().add(started.thread().clone());
        Ok(Alarm { watch, ends, thread })
    }

    /// Ends the threads.
    pub fn stop(&self) {
        self.ends.store(true, Ordering::Relaxed);
        self.watch.lookers().rouse();
    }

    /// A call begins, at this row of the table of counters.
    pub fn arm(&self, row: usize) {
        self.watch.arm(row as u32);
    }

    /// The call has ended. `Some`: it was interrupted, or was about to be.
    pub fn disarm(&self, py: Python<'_>) -> Option<Rang> {
        let rang = self.watch.disarm();
        self.clear(py, rang)
    }

    /// As [`Watch::leave`].
    pub fn leave(&self, py: Python<'_>, outer: Outer) -> Option<Rang> {
        let rang = self.watch.leave(outer);
        self.clear(py, rang)
    }

    fn clear(&self, _py: Python<'_>, rang: Option<Rang>) -> Option<Rang> {
        if rang.is_some() {
            // The call may have ended before the exception arrived: then no later code may meet it.
            // SAFETY: this thread is attached (`_py`); a null exception takes a pending one back.
            unsafe { ffi::PyThreadState_SetAsyncExc(self.thread, std::ptr::null_mut()) };
        }
        rang
    }
}

fn wake_up(watch: &Watch, thread: std::ffi::c_long, exception: &Py<PyAny>, every: Duration, ends: &AtomicBool) {
    let clock = SystemClock::start();
    let mut time = LookTime::start(clock.now(), every);
    let (mut sighting, mut reported, mut client_reported) =
        (Sighting::default(), Reported::default(), Reported::default());
    while !ends.load(Ordering::Relaxed) {
        // The end of a stall is logged at once, so as long as a stall goes on the thread keeps looking.
        watch.lookers().pause(every, reported.stalled.is_none() && client_reported.stalled.is_none());
        let now = time.look(clock.now());
        sighting.look(watch, now);
        let stall_after = watch.stall_after();
        reported.look(sighting.longest(now), stall_after, || {
            let on = sighting.doing().and_then(|doing| watch.place(&doing));
            let on = on.map(|(place, offset)| format!(" on {place}@{offset}")).unwrap_or_default();
            (watch.row_in_words(), on)
        });
        let client = sighting.client_call(now);
        let name = client.map(|(_, name, _)| name).unwrap_or_default();
        client_reported.look(client.map(|(number, _, held)| (number, held)), stall_after, || {
            (format!("the call \"{name}\" of Kafka's client"), String::new())
        });
        if let Some((call, why)) = sighting.overdue(now, watch.limit()) {
            Python::attach(|_| {
                // The call cannot end while this thread is attached: its end needs the interpreter too.
                if watch.ring(call, why) {
                    // SAFETY: this thread is attached, and the class lives as long as its handle here.
                    unsafe { ffi::PyThreadState_SetAsyncExc(thread, exception.as_ptr()) };
                }
            });
        }
    }
}

/// Logs calls that keep the worker's thread: that thread cannot report its stall itself.
#[derive(Default)]
struct Reported {
    /// The call that was logged last, and the time for which it had gone on when it was seen last.
    stalled: Option<(u64, Duration)>,
}

impl Reported {
    /// `words` gives the call's name, and where it is.
    fn look(
        &mut self,
        longest: Option<(u64, Duration)>,
        stall_after: Option<Duration>,
        words: impl FnOnce() -> (String, String),
    ) {
        match (self.stalled, longest) {
            (Some((number, _)), Some((same, held))) if number == same => self.stalled = Some((number, held)),
            (Some((_, held)), _) => {
                info!("the call has ended after {:.0} s: the worker goes on", held.as_secs_f64());
                self.stalled = None;
            }
            (None, Some((number, held))) if stall_after.is_some_and(|after| held >= after) => {
                let ((name, on), seconds) = (words(), held.as_secs_f64());
                warn!("{name} has not returned for {seconds:.0} s{on}: this worker stands still");
                self.stalled = Some((number, held));
            }
            _ => {}
        }
    }
}
