//! The call into Kafka's client that the worker's thread is in, for threads that look from outside.
//!
//! Every call has a bound of its own, but the client does not always keep it: a worker whose call never
//! returns sends heartbeats and does nothing else. Beginning and ending a call are two plain stores.

use std::sync::atomic::{AtomicU64, Ordering};

/// A call that may wait for a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCall {
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
    /// What a producer's broker acknowledged is taken.
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

const ALL: [(ClientCall, &str); 18] = [
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

/// The call that runs.
#[derive(Debug, Default)]
pub struct Calls {
    /// Its number and its kind; 0: none does.
    word: AtomicU64,
    count: AtomicU64,
}

impl Calls {
    /// Runs a call, and says so while it runs.
    pub fn during<T>(&self, call: ClientCall, run: impl FnOnce() -> T) -> T {
        self.begin(call);
        let _ends = Ends(self);
        run()
    }

    /// A call begins; only the worker's thread counts.
    pub fn begin(&self, call: ClientCall) {
        let number = self.count.load(Ordering::Relaxed) + 1;
        self.count.store(number, Ordering::Relaxed);
        self.word.store(number << KIND_BITS | (call as u64 + 1), Ordering::Release);
    }

    /// It has ended.
    pub fn end(&self) {
        self.word.store(0, Ordering::Release);
    }

    /// The call that runs, as a number that no other call has; 0: none does.
    pub fn running(&self) -> u64 {
        self.word.load(Ordering::Acquire)
    }
}

/// The name of a call that ran.
pub fn words(running: u64) -> &'static str {
    let kind = running & ((1 << KIND_BITS) - 1);
    ALL.iter().find(|(call, _)| *call as u64 + 1 == kind).map_or("a call", |(_, words)| words)
}

/// Ends the call also when it panics.
struct Ends<'a>(&'a Calls);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.end();
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
}
