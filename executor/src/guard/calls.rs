//! The calls into Kafka's client that threads are in, for threads that look from outside.
//!
//! Every call has a bound of its own, but the client does not always keep it: a worker whose call never
//! returns sends heartbeats and does nothing else. Beginning and ending a call are two plain stores.
//!
//! ```text
//! word: the call's number in the upper 56 bits, its kind + 1 in the lower 8; 0 while none runs
//! ```

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A call that may wait for a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCall {
    /// A client is made.
    Create,
    /// A record is handed over.
    Produce,
    /// The next offset of a partition is asked of the client itself.
    Position,
    /// The member's name and generation are asked of the client itself.
    GroupMetadata,
    /// A producer begins its life.
    InitTransactions,
    /// A transaction begins.
    BeginTransaction,
    /// Offsets are put into a transaction.
    SendOffsets,
    /// A transaction is committed.
    CommitTransaction,
    /// A transaction is aborted.
    AbortTransaction,
    /// Acknowledgements are taken from a producer's client.
    PollProducer,
    /// A group is joined.
    Subscribe,
    /// Events are taken.
    PollConsumer,
    /// Partitions are assigned, or given up.
    Assign,
    /// Partitions are fetched from other offsets on.
    Seek,
    /// Partitions are paused or resumed.
    Pause,
    /// The group's offsets are asked for.
    CommittedOffsets,
    /// Offsets are committed outside a transaction.
    CommitOffsets,
    /// Topics are asked about.
    Metadata,
    /// The ends of partitions are asked for.
    ListOffsets,
    /// Topics are described or created.
    Admin,
    /// The group is left.
    Close,
    /// The client is given back.
    Destroy,
}

const ALL: [(ClientCall, &str); 22] = [
    (ClientCall::Create, "create client"),
    (ClientCall::Produce, "produce"),
    (ClientCall::Position, "position"),
    (ClientCall::GroupMetadata, "group metadata"),
    (ClientCall::InitTransactions, "init transactions"),
    (ClientCall::BeginTransaction, "begin transaction"),
    (ClientCall::SendOffsets, "send offsets to transaction"),
    (ClientCall::CommitTransaction, "commit transaction"),
    (ClientCall::AbortTransaction, "abort transaction"),
    (ClientCall::PollProducer, "poll producer"),
    (ClientCall::Subscribe, "subscribe"),
    (ClientCall::PollConsumer, "poll consumer"),
    (ClientCall::Assign, "assign partitions"),
    (ClientCall::Seek, "seek partitions"),
    (ClientCall::Pause, "pause or resume partitions"),
    (ClientCall::CommittedOffsets, "committed offsets"),
    (ClientCall::CommitOffsets, "commit offsets"),
    (ClientCall::Metadata, "metadata"),
    (ClientCall::ListOffsets, "list offsets"),
    (ClientCall::Admin, "admin"),
    (ClientCall::Close, "close consumer"),
    (ClientCall::Destroy, "destroy client"),
];

/// Bits of the word that name the call; the others count.
const KIND_BITS: u32 = 8;

/// The call that runs in a thread.
#[derive(Debug, Default)]
pub struct Calls {
    /// The number and kind of the call; 0: none runs.
    word: AtomicU64,
    count: AtomicU64,
    /// The call that runs has been given up.
    is_given_up: AtomicBool,
}

impl Calls {
    /// Runs a call, and notes it while it runs. One call may run within another, which goes on after it.
    pub fn during<T>(&self, call: ClientCall, run: impl FnOnce() -> T) -> T {
        let outer = self.running();
        // Only the thread itself counts.
        let number = self.count.load(Ordering::Relaxed) + 1;
        // A number of its own, so that a look can tell two calls of one kind apart from one that goes on.
        self.count.store(number, Ordering::Relaxed);
        self.word.store(number << KIND_BITS | (call as u64 + 1), Ordering::Release);
        let _ends = Ends(self, outer);
        run()
    }

    /// Gives the call that runs up: it has taken too long.
    pub fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }

    /// True if the thread's call has taken too long: another thread should do its work.
    pub fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Relaxed)
    }

    /// The call that runs, as a number that no other call has; 0: none runs.
    pub fn running(&self) -> u64 {
        self.word.load(Ordering::Acquire)
    }
}

/// The name of a call that ran.
pub fn words(running: u64) -> &'static str {
    let kind = running & ((1 << KIND_BITS) - 1);
    ALL.iter().find(|(call, _)| *call as u64 + 1 == kind).map_or("a call", |(_, words)| words)
}

/// Ends the call also when it panics; what ran before runs on.
struct Ends<'a>(&'a Calls, u64);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.word.store(self.1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_named_while_it_runs() {
        let calls = Calls::default();
        for (call, name) in ALL {
            assert_eq!(calls.during(call, || words(calls.running())), name);
            assert_eq!(calls.running(), 0);
        }
        let first = calls.during(ClientCall::Seek, || calls.running());
        assert_ne!(calls.during(ClientCall::Seek, || calls.running()), first, "each call has its number");
    }

    #[test]
    fn a_call_goes_on_after_one_within_it() {
        let calls = Calls::default();
        calls.during(ClientCall::Admin, || {
            let outer = calls.running();
            assert_eq!(calls.during(ClientCall::Destroy, || words(calls.running())), "destroy client");
            assert_eq!(calls.running(), outer);
        });
        assert_eq!(calls.running(), 0);
    }
}
