//! A bell that wakes a worker which waits in its event loop rather than in the consumer's poll.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The worker's end.
pub struct Wake {
    reads: PipeReader,
    /// The other end.
    pub bell: Arc<Bell>,
}

/// The end of whoever has news.
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

    /// Readable while the bell has been rung.
    pub fn fd(&self) -> RawFd {
        self.reads.as_raw_fd()
    }

    /// Forgets what was rung. Whoever calls it looks for news afterwards.
    pub fn clear(&self) {
        if self.bell.rung.load(Ordering::Acquire) {
            // One byte is there or on its way, and no second one.
            let _ = (&self.reads).read(&mut [0; 1]);
            self.bell.rung.store(false, Ordering::Release);
        }
    }
}

impl Bell {
    /// Makes the worker's end readable.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // A worker that is gone needs no waking.
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
}
