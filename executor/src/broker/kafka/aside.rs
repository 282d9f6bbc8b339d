//! Calls in a thread of their own, because the client may not return from them, or only late.
//!
//! `rd_kafka_send_offsets_to_transaction` ignores its timeout where the group's coordinator is gone
//! (confluentinc/librdkafka#5456, not fixed in 2.12.1): it waits for a coordinator that may never come back.
//! Upstream's patch (#5457) changes static functions, which cannot be replaced from outside. So the worker
//! waits for this call only as long as it wants to. The outcome is unknown then, and the next producer has a
//! client of its own: the old one is fenced, and its thread ends when its call does.
//!
//! ```text
//! worker ──call──▶ thread of its own ──outcome──▶ worker     (the thread stays for the next call)
//!        └─ waits in vain: unknown outcome; the thread is left, and a new one takes the next call
//! ```
//!
//! A call that changes the client's state and is tried until it succeeds is not left but resumed. Its outcome
//! would be lost with the thread, and the client refuses to do twice what it has done.
//!
//! Other calls keep their time, but know nothing of a process that is asked to stop: see [`Patience`].

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tracing::debug;

use crate::guard::Patience;

type Call<T> = Box<dyn FnOnce() -> T + Send>;
type Thread<T> = (Sender<Call<T>>, Receiver<T>);

/// Runs calls, one after the other.
pub struct Aside<T> {
    name: &'static str,
    thread: Option<Thread<T>>,
    /// The thread of a call that [`Aside::resume`] waits for again.
    unanswered: Option<Thread<T>>,
}

impl<T: Send + 'static> Aside<T> {
    /// Calls in a thread of this name, which the first of them starts.
    pub fn new(name: &'static str) -> Aside<T> {
        Aside { name, thread: None, unanswered: None }
    }

    /// Runs a call; waits at most `wait` for its end, and no longer than there is patience. `None`: the caller
    /// does not wait for the outcome any more, whatever it will be.
    pub fn run(&mut self, wait: Duration, patience: &Patience, call: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let thread = self.begin(call)?;
        let outcome = answer(&thread, wait, patience)?;
        // Only a thread that has answered is used again: its next answer is to the next call.
        self.thread = Some(thread);
        Some(outcome)
    }

    /// As [`Aside::run`], but after `None` the call is not left: the next `resume` waits for its outcome, and
    /// does not begin the call that it is given.
    pub fn resume(
        &mut self,
        wait: Duration,
        patience: &Patience,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let thread = match self.unanswered.take() {
            Some(thread) => thread,
            None => self.begin(call)?,
        };
        let outcome = answer(&thread, wait, patience);
        let place = if outcome.is_some() { &mut self.thread } else { &mut self.unanswered };
        *place = Some(thread);
        outcome
    }

    /// Begins a call in a thread that has nothing to do.
    fn begin(&mut self, call: impl FnOnce() -> T + Send + 'static) -> Option<Thread<T>> {
        let thread = match self.thread.take() {
            Some(thread) => thread,
            None => start(self.name).inspect_err(|error| debug!(%error, "no thread for a call")).ok()?,
        };
        thread.0.send(Box::new(call)).ok()?;
        Some(thread)
    }
}

fn answer<T>(thread: &Thread<T>, wait: Duration, patience: &Patience) -> Option<T> {
    patience.wait(wait, |look| thread.1.recv_timeout(look).ok())
}

/// Ends when both ends of its channels are gone.
fn start<T: Send + 'static>(name: &str) -> std::io::Result<Thread<T>> {
    let (calls, todo) = channel::<Call<T>>();
    let (done, outcomes) = channel();
    let run = move || {
        while let Ok(call) = todo.recv() {
            if done.send(call()).is_err() {
                debug!("a call returned after its caller had stopped waiting");
            }
        }
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
    Ok((calls, outcomes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_does_not_return_is_left() {
        let (mut aside, patience) = (Aside::new("kaspr-test"), Patience::default());
        let second = Duration::from_secs(1);
        assert_eq!(aside.run(second, &patience, || 1), Some(1));
        let (holds, held) = channel::<()>();
        let stuck = aside.run(second / 20, &patience, move || {
            let _ = held.recv();
            2
        });
        assert_eq!(stuck, None, "it does not return");
        assert_eq!(aside.run(second, &patience, || 3), Some(3), "the next call has a thread of its own");
        patience.end();
        let (hold, held) = channel::<()>();
        let left = aside.run(Duration::MAX, &patience, move || held.recv().map_or(4, |()| 5));
        assert_eq!(left, None, "the process is asked to stop");
        drop((holds, hold));
    }

    #[test]
    fn a_call_that_is_resumed_runs_once_and_its_outcome_is_not_lost() {
        let (mut aside, patience) = (Aside::new("kaspr-test"), Patience::default());
        let (second, (hold, held)) = (Duration::from_secs(1), channel::<()>());
        let late = aside.resume(second / 20, &patience, move || held.recv().map_or(1, |()| 2));
        assert_eq!(late, None, "it does not return");
        assert_eq!(aside.resume(second / 20, &patience, || 3), None, "it is still the first call");
        assert_eq!(aside.run(second, &patience, || 4), Some(4), "another call has a thread of its own");
        drop(hold);
        assert_eq!(aside.resume(second, &patience, || 5), Some(1));
        assert_eq!(aside.resume(second, &patience, || 6), Some(6), "the first call has ended");
    }
}
