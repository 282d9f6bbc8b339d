//! The wake-up descriptor of a thread that sleeps until something is due or arrives: a *bell* that
//! brokers, inputs and signals ring, and the end that the sleeper waits on.
//!
//! ```text
//! worker's thread: wait ─ asleep ─ awake ─ clear ─ looks for news ─ wait …
//! other threads:                 ring ┘        └ ring: the next wait returns at once
//! ```
//!
//! A pipe, because a worker with pending coroutines sleeps in the event loop of user code, which can wait for a
//! descriptor and for nothing of Rust's. Ringing is cheap and may be done too often; a ring is never lost, as long
//! as the sleeper looks for news after [`Wake::clear`] and not before.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The sleeper's end.
///
/// Made once per worker, and lives as long as it does.
#[derive(Debug)]
pub struct Wake {
    reads: PipeReader,
    bell: Arc<Bell>,
}

/// The end of the thread or signal handler that has news.
///
/// Clients of a broker keep it in their callbacks, perhaps for longer than the sleeper lives.
#[derive(Debug)]
pub struct Bell {
    writes: PipeWriter,
    /// A byte is in the pipe: there is never more than one.
    rung: AtomicBool,
}

impl Wake {
    /// A pipe; `None` where the process has no descriptors left.
    pub fn new() -> Option<Wake> {
        let (reads, writes) = std::io::pipe().ok()?;
        Some(Wake { reads, bell: Arc::new(Bell { writes, rung: AtomicBool::new(false) }) })
    }

    /// The other end.
    pub fn bell(&self) -> Arc<Bell> {
        self.bell.clone()
    }

    /// Rings it.
    ///
    /// As [`Bell::ring`], from the sleeper's side.
    pub fn ring(&self) {
        self.bell.ring();
    }

    /// Readable while the bell has been rung.
    pub fn fd(&self) -> RawFd {
        self.reads.as_raw_fd()
    }

    /// Sleeps until the bell is rung, `wait` at most; `None`: however long that takes. A signal may end
    /// it early. The bell stays rung until [`Wake::clear`].
    pub fn wait(&self, wait: Option<Duration>) {
        // Rounded up: a thread that wakes before its time has to sleep once more.
        let wait_ms = wait.map_or(-1, |wait| i32::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(i32::MAX));
        let mut ready = libc::pollfd { fd: self.fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live structure. Whatever ends the call, the sleeper looks for news next.
        unsafe { libc::poll(&raw mut ready, 1, wait_ms) };
    }

    /// Forgets that the bell was rung. The caller looks for news afterwards.
    pub fn clear(&self) {
        if self.bell.rung.load(Ordering::Acquire) {
            // One byte is there or on its way, and no second one.
            let _ = (&self.reads).read(&mut [0; 1]);
            self.bell.rung.store(false, Ordering::Release);
        }
    }
}

impl Bell {
    /// Makes the sleeper's end readable. May be called in a signal handler: it swaps an atomic and writes
    /// one byte, which never blocks.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // A sleeper that is gone needs no waking.
            let _ = (&self.writes).write(&[1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_rings_once_until_it_is_cleared() {
        let wake = Wake::new().expect("a pipe");
        wake.clear();
        for _ in 0..3 {
            wake.bell.ring();
            wake.bell.ring();
            wake.clear();
        }
        assert!(!wake.bell.rung.load(Ordering::Relaxed));
    }

    #[test]
    fn a_sleeper_wakes_when_the_bell_is_rung_from_another_thread_or_before_it_sleeps() {
        let wake = Wake::new().expect("a pipe");
        let bell = wake.bell();
        let rings = std::thread::spawn(move || bell.ring());
        wake.wait(None);
        rings.join().expect("it rang");
        wake.wait(None);
        wake.clear();
        wake.wait(Some(Duration::from_micros(1)));
        assert!(!wake.bell.rung.load(Ordering::Relaxed));
    }
}
