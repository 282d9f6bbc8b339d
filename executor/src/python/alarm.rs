//! Interrupts a call of user code that takes longer than it may.
//!
//! A call only counts itself in and out, two stores. A thread looks every now and then whether the
//! same call still runs, and raises an exception in the worker's thread when it has run too long.
//! CPython delivers it between two bytecodes: a call into C that blocks ends first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pyo3::ffi;
use pyo3::prelude::*;

use crate::clock::{Clock, SystemClock};

/// How often the thread looks, as a share of the shortest timeout, and within which bounds.
const LOOKS_PER_TIMEOUT: u32 = 8;
const LOOKS_MIN: Duration = Duration::from_millis(2);
const LOOKS_MAX: Duration = Duration::from_millis(500);

/// What the worker's thread and the alarm's share.
#[derive(Default)]
struct Shared {
    /// The number of the call that runs; 0: none does.
    call: AtomicU64,
    limit_ms: AtomicU64,
    /// The number of the call that was interrupted last.
    rang: AtomicU64,
    ends: AtomicBool,
}

/// The alarm of one worker.
pub struct Alarm {
    shared: Arc<Shared>,
    /// Calls so far.
    calls: u64,
    /// The worker's thread, as CPython names it.
    thread: std::ffi::c_long,
}

impl Alarm {
    /// Starts the thread. The caller's thread is the one whose calls are watched.
    pub fn start(py: Python<'_>, exception: Py<PyAny>, shortest: Duration) -> PyResult<Alarm> {
        let ident: u64 = py.import("threading")?.call_method0("get_ident")?.extract()?;
        // CPython takes the same bits as an unsigned long.
        let thread = ident as std::ffi::c_long;
        let shared = Arc::new(Shared::default());
        let watched = shared.clone();
        let every = (shortest / LOOKS_PER_TIMEOUT).clamp(LOOKS_MIN, LOOKS_MAX);
        std::thread::Builder::new()
            .name("kaspr-alarm".to_owned())
            .spawn(move || watch(&watched, thread, &exception, every))?;
        Ok(Alarm { shared, calls: 0, thread })
    }

    /// A call begins.
    pub fn arm(&mut self, limit: Duration) {
        self.calls += 1;
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.shared.limit_ms.store(limit_ms, Ordering::Relaxed);
        self.shared.call.store(self.calls, Ordering::Release);
    }

    /// The call has ended. True: it was interrupted, or was about to be.
    pub fn disarm(&mut self, _py: Python<'_>) -> bool {
        self.shared.call.store(0, Ordering::Release);
        if self.shared.rang.load(Ordering::Acquire) != self.calls {
            return false;
        }
        // It may have ended before the exception arrived: then nobody else shall meet it.
        // SAFETY: we are attached (`_py`); a null exception takes a pending one back.
        unsafe { ffi::PyThreadState_SetAsyncExc(self.thread, std::ptr::null_mut()) };
        true
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
    }
}

#[allow(clippy::disallowed_methods, reason = "this is not the worker's thread")]
fn watch(shared: &Shared, thread: std::ffi::c_long, exception: &Py<PyAny>, every: Duration) {
    let clock = SystemClock::start();
    let (mut seen, mut since) = (0, clock.now());
    while !shared.ends.load(Ordering::Relaxed) {
        std::thread::sleep(every);
        let call = shared.call.load(Ordering::Acquire);
        if call != seen {
            (seen, since) = (call, clock.now());
            continue;
        }
        let limit = Duration::from_millis(shared.limit_ms.load(Ordering::Relaxed));
        if call != 0 && clock.now() - since >= limit && shared.rang.load(Ordering::Relaxed) != call {
            Python::attach(|_| {
                // The call cannot end while we are attached: its end needs the interpreter too.
                if shared.call.load(Ordering::Acquire) == call {
                    shared.rang.store(call, Ordering::Release);
                    // SAFETY: we are attached, and the class lives as long as the thread's handle on it.
                    unsafe { ffi::PyThreadState_SetAsyncExc(thread, exception.as_ptr()) };
                }
            });
        }
    }
}
