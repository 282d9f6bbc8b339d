//! A call in a thread of its own, because the client may not return from it.
//!
//! `rd_kafka_send_offsets_to_transaction` ignores its timeout where the group's coordinator is gone
//! (confluentinc/librdkafka#5456, not fixed in 2.12.1): it waits for a coordinator that may never come back.
//! Upstream's patch (#5457) changes static functions, which cannot be replaced from outside. So the worker
//! waits for this call only as long as it wants to. The outcome is unknown then, and the next producer has a
//! client of its own: the old one is fenced, and its thread ends when its call does.
//!
//! ```text
//! worker ──call──▶ thread "kaspr-offsets" ──outcome──▶ worker     (the thread stays for the next call)
//!        └─ waits in vain: unknown outcome; the thread is left, and a new one takes the next call
//! ```

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;
use tracing::debug;

use super::errors::TransactionError;

type Outcome = Result<(), TransactionError>;
type Call = Box<dyn FnOnce() -> Outcome + Send>;

/// Runs calls, one after the other.
///
/// `thread`: idle between two calls; `None` before the first and after one that did not return.
#[derive(Default)]
pub struct Aside {
    thread: Option<(Sender<Call>, Receiver<Outcome>)>,
}

impl Aside {
    /// Runs a call; waits at most `wait` for its end.
    ///
    /// A call that takes longer is given up: an error of the code [`Code::OperationTimedOut`], which leaves the outcome
    /// open. What the call holds (the client) lives until it returns.
    pub fn run(&mut self, wait: Duration, call: impl FnOnce() -> Outcome + Send + 'static) -> Outcome {
        let thread = match self.thread.take() {
            Some(thread) => thread,
            None => start().map_err(|error| unknown(format!("no thread for the call: {error}")))?,
        };
        let sent = thread.0.send(Box::new(call));
        match sent.ok().and_then(|()| thread.1.recv_timeout(wait).ok()) {
            // Only a thread that has answered is used again: its next answer is to the next call.
            Some(outcome) => {
                self.thread = Some(thread);
                outcome
            }
            // No caller waits for the outcome any more, whatever it will be.
            None => Err(unknown(format!("the client has not returned for {} s", wait.as_secs()))),
        }
    }
}

/// Nothing is known of the call's outcome.
fn unknown(text: String) -> TransactionError {
    TransactionError { code: Code::OperationTimedOut, text, is_fatal: false, requires_abort: false }
}

/// Ends when both ends of its channels are gone.
fn start() -> std::io::Result<(Sender<Call>, Receiver<Outcome>)> {
    let (calls, todo) = channel::<Call>();
    let (done, outcomes) = channel();
    let run = move || {
        while let Ok(call) = todo.recv() {
            if done.send(call()).is_err() {
                debug!("a call returned after its caller had stopped waiting");
            }
        }
    };
    std::thread::Builder::new().name("kaspr-offsets".to_owned()).spawn(run)?;
    Ok((calls, outcomes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_does_not_return_is_left() {
        let mut aside = Aside::default();
        let second = Duration::from_secs(1);
        assert!(aside.run(second, || Ok(())).is_ok());
        let (holds, held) = channel::<()>();
        let stuck = aside.run(second / 20, move || {
            let _ = held.recv();
            Ok(())
        });
        let error = stuck.expect_err("it does not return");
        assert!(!error.requires_abort && error.code == Code::OperationTimedOut, "its outcome is unknown: {error:?}");
        assert!(aside.run(second, || Ok(())).is_ok(), "the next call has a thread of its own");
        drop(holds);
    }
}
