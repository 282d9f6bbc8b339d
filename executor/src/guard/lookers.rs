//! Threads that look at what the worker's thread does, and sleep for as long as that one sleeps.
//!
//! The worker's thread notes when it *rests*: it waits for something to come and runs nothing. A thread that
//! looks parks then, until the worker goes on. Both sides write their own word before they read the other's,
//! in one order for all, so that one of them always sees that the other has moved.
//!
//! ```text
//! worker                      thread that looks
//! rests = true                parked = true
//! … sleeps …                  rests? yes: park
//! rests = false               rests? no: does not park
//! parked? yes: unpark all
//! ```
//!
//! A needless unpark does no harm: it costs one look.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::Thread;
use std::time::Duration;

/// The threads that look from outside.
#[derive(Debug, Default)]
pub struct Lookers {
    /// The worker's thread waits and runs nothing.
    rests: AtomicBool,
    /// Some thread is parked, or about to be.
    parked: AtomicBool,
    /// Only the worker's thread takes the lock: a thread that looks waits for nothing of its.
    threads: Mutex<Vec<Thread>>,
}

impl Lookers {
    /// A thread that looks has started.
    pub fn add(&self, thread: Thread) {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }

    /// The worker's thread waits from now on.
    pub fn rest(&self) {
        self.rests.store(true, Ordering::SeqCst);
    }

    /// The worker's thread goes on.
    pub fn stir(&self) {
        self.rests.store(false, Ordering::SeqCst);
        if self.parked.swap(false, Ordering::SeqCst) {
            self.rouse();
        }
    }

    /// Wakes all threads that look: there is something new for them.
    pub fn rouse(&self) {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(Thread::unpark);
    }

    /// A thread that looks sleeps for `every` and, if it `may_park`, first for as long as the worker rests.
    #[allow(clippy::disallowed_methods, reason = "this is not the worker's thread")]
    pub fn pause(&self, every: Duration, may_park: bool) {
        if may_park && self.rests.load(Ordering::SeqCst) {
            // Before the second question: a worker that stirs from here on sees it, and wakes this thread.
            self.parked.store(true, Ordering::SeqCst);
            if self.rests.load(Ordering::SeqCst) {
                std::thread::park();
            }
        }
        std::thread::sleep(every);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn a_thread_that_looks_parks_while_the_worker_rests_and_goes_on_with_it() {
        let (lookers, looks) = (Arc::new(Lookers::default()), Arc::new(AtomicU32::new(0)));
        let (theirs, count) = (lookers.clone(), looks.clone());
        let looker = std::thread::spawn(move || {
            while count.load(Ordering::SeqCst) < 1000 {
                theirs.pause(Duration::ZERO, true);
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        lookers.add(looker.thread().clone());
        // However rest and look meet, none is lost: each time it goes on.
        while !looker.is_finished() {
            lookers.rest();
            std::thread::yield_now();
            lookers.stir();
            let seen = looks.load(Ordering::SeqCst);
            while looks.load(Ordering::SeqCst) == seen && !looker.is_finished() {
                std::thread::yield_now();
            }
        }
        looker.join().expect("it ends");
    }
}
