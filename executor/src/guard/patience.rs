//! Patience of the worker's thread with brokers that do not answer: it is short once the process is asked to stop.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use crate::clock::{Clock as _, SystemClock};

/// Length of one look for an answer.
const LOOK: Duration = Duration::from_millis(100);
/// Longest wait for an answer once the process is asked to stop: a broker that is there answers sooner.
const SHORT: Duration = Duration::from_millis(300);

/// Patience, which all threads of the process share.
#[derive(Clone, Debug, Default)]
pub struct Patience {
    is_over: Arc<AtomicBool>,
}

impl Patience {
    /// Ends it: the process is asked to stop. May be called in a signal handler.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// True if the process was asked to stop.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Looks for an answer until there is one, for `wait` at most. `look` waits for the time that it is given.
    pub fn wait<T>(&self, wait: Duration, mut look: impl FnMut(Duration) -> Option<T>) -> Option<T> {
        let clock = SystemClock::start();
        // The clock starts with the wait, so its time is the time that has passed.
        let mut until = wait;
        loop {
            let now = clock.now();
            if self.is_over() {
                // The least of all looks holds: a later one cannot push the end further away.
                until = until.min(now + SHORT);
            }
            let left = until.saturating_sub(now);
            // Asked with no time left, too: an answer that is there must not be missed for a wait that is over.
            if let Some(answer) = look(left.min(LOOK)) {
                return Some(answer);
            }
            if left.is_zero() {
                return None;
            }
        }
    }

    /// Waits for a future, as [`Patience::wait`] does.
    pub fn block_on<F: Future>(&self, wait: Duration, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        self.wait(wait, |look| match future.as_mut().poll(&mut context) {
            Poll::Ready(answer) => Some(answer),
            // An answer that comes before the thread parks leaves it a token, and it does not sleep.
            Poll::Pending => {
                std::thread::park_timeout(look);
                None
            }
        })
    }
}

/// Wakes the thread that waits for a future.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Unpark>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_the_wait_and_so_does_the_time() {
        let patience = Patience::default();
        let mut looks = 0;
        let found = patience.wait(Duration::MAX, |_| {
            looks += 1;
            (looks == 3).then_some("answer")
        });
        assert_eq!((found, looks), (Some("answer"), 3));
        assert_eq!(patience.wait(Duration::ZERO, |look| (!look.is_zero()).then_some(())), None);
        assert_eq!(patience.block_on(Duration::MAX, std::future::ready(7)), Some(7));
    }

    #[test]
    fn patience_that_ends_cuts_a_wait_short() {
        let patience = Patience::default();
        let mut looks = 0;
        let found: Option<()> = patience.wait(Duration::MAX, |look| {
            looks += 1;
            assert!(look <= LOOK);
            std::thread::park_timeout(look);
            patience.end();
            None
        });
        // It would wait for ever else. A thread that is woken early looks once more.
        assert!(found.is_none() && looks >= 2, "{looks}");
        let waits = patience.block_on(Duration::MAX, std::future::pending::<()>());
        assert_eq!(waits, None);
    }
}
