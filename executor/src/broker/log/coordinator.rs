//! The broker's side of transactions: the producers that may write under a `transactional.id`, and the
//! transactions that are open.
//!
//! As Kafka's transaction coordinator with protocol V1: a request carries the id and the producer's
//! epoch, never the transaction that it was meant for. One that arrives late hits what is open then.
//!
//! ```text
//! id "shop.a.0", epoch 3 ─ begin ─ first record or offset opens a transaction ─ EndTxn decides it
//!               epoch 4 ◀─ init_transactions: aborts what is open, and every request with epoch 3 is refused
//! ```
//!
//! A transaction opens with the first record or offsets, not with the producer's `begin`, which asks no broker. So
//! an empty transaction leaves no marker.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::broker::log::State;
use crate::broker::log::topic::{TransactionId, event};
use crate::broker::{BrokerError, GroupMetadata, OffsetCommit};
use crate::event::message::Event;

/// The effects of a transaction, or of a commit of offsets outside any, that became visible.
///
/// The simulator's checker reads them, in the order in which they became visible.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Its records, by topic and partition in offset order.
    pub records: Vec<Event>,
    /// The offsets of the group.
    pub offsets: Vec<OffsetCommit>,
}

/// A `transactional.id`.
#[derive(Debug, Default)]
struct Transactional {
    /// An older producer is fenced. The number of takeovers: the epoch of the newest producer, 0 before the first.
    epoch: u32,
    /// The transaction that is open, and the time at which it was opened.
    open: Option<(TransactionId, Duration)>,
}

/// All ids, and the transactions that are open under them.
#[derive(Debug, Default)]
pub struct Coordinator {
    ids: BTreeMap<String, Transactional>,
    /// Transactions so far: each gets the next number.
    transactions: u64,
}

impl Coordinator {
    /// Checks that the producer of this epoch is the newest.
    ///
    /// Fails with [`BrokerError::Fenced`] for an older one, and for an id that no producer has begun under.
    pub fn check(&self, id: &str, epoch: u32) -> Result<(), BrokerError> {
        match self.ids.get(id) {
            Some(transactional) if transactional.epoch == epoch => Ok(()),
            _ => Err(fenced(id)),
        }
    }

    /// Returns the transaction that is open under an id, or opens one.
    ///
    /// `now` is its beginning, where it is opened: [`State::expire`] goes by it.
    pub fn open(&mut self, id: &str, epoch: u32, now: Duration) -> Result<TransactionId, BrokerError> {
        let newest = self.ids.get_mut(id).filter(|transactional| transactional.epoch == epoch);
        let Some(transactional) = newest else { return Err(fenced(id)) };
        let (transaction, _) = *transactional.open.get_or_insert_with(|| {
            self.transactions += 1;
            (TransactionId(self.transactions), now)
        });
        Ok(transaction)
    }

    /// Open transactions: under which id, and since when.
    pub fn all_open(&self) -> impl Iterator<Item = (&str, Duration)> {
        self.ids.iter().filter_map(|(id, transactional)| Some((id.as_str(), transactional.open?.1)))
    }
}

fn fenced(id: &str) -> BrokerError {
    BrokerError::Fenced(format!("another producer has taken over the transactional id \"{id}\""))
}

impl State {
    /// Lets a producer take an id over: what is open under it is aborted, older producers are fenced.
    ///
    /// Gives the epoch of the new producer.
    pub fn take_over(&mut self, id: &str) -> u32 {
        let transactional = self.coordinator.ids.entry(id.to_owned()).or_default();
        transactional.epoch += 1;
        // Raised before the abort, as in Kafka: no request of the old producer can come in between.
        let (epoch, open) = (transactional.epoch, transactional.open.take());
        if let Some((transaction, _)) = open {
            self.decide(transaction, false);
        }
        epoch
    }

    /// Ends what is open under an id, if something is.
    ///
    /// Nothing open is no error: a transaction without records and offsets has never reached the broker.
    pub fn end(&mut self, id: &str, epoch: u32, commits: bool) -> Result<(), BrokerError> {
        self.coordinator.check(id, epoch)?;
        let open = self.coordinator.ids.get_mut(id).and_then(|transactional| transactional.open.take());
        if let Some((transaction, _)) = open {
            self.decide(transaction, commits);
        }
        Ok(())
    }

    /// Puts a group's offsets into what is open under an id. The group checks the member that asks.
    ///
    /// Fails with [`BrokerError::Fenced`] for an old producer, and with [`BrokerError::Abort`] for a member or a
    /// generation that the group does not have (any more). Whether the member owns the partitions is not checked: Kafka
    /// does not check it either.
    pub fn add_offsets(
        &mut self,
        (id, epoch): (&str, u32),
        offsets: &[OffsetCommit],
        group: &GroupMetadata,
        now: Duration,
    ) -> Result<(), BrokerError> {
        self.coordinator.check(id, epoch)?;
        let members = self.groups.entry(group.group.clone()).or_default();
        if !members.admits(group) {
            return Err(BrokerError::Abort(format!("\"{}\" has gone on without \"{}\"", group.group, group.member)));
        }
        // After the check of the member: offsets that are refused open no transaction.
        let transaction = self.coordinator.open(id, epoch, now)?;
        self.groups.entry(group.group.clone()).or_default().stage(transaction, offsets);
        Ok(())
    }

    /// Commits offsets outside any transaction.
    ///
    /// They count at once. The caller has checked that the member may commit.
    pub fn commit_offsets(&mut self, group: &str, offsets: &[OffsetCommit]) {
        self.groups.entry(group.to_owned()).or_default().commit(offsets);
        if let Some(journal) = &mut self.journal {
            journal.push(Commit { records: Vec::new(), offsets: offsets.to_vec() });
        }
    }

    /// Aborts transactions that have been open for too long, and fences their producers. Gives their ids.
    ///
    /// Kafka does it after `transaction.timeout.ms`; only the simulator calls this, since time passes nowhere else.
    pub fn expire(&mut self, now: Duration, timeout: Duration) -> Vec<String> {
        let late = |(id, since): (&str, Duration)| (since + timeout <= now).then(|| id.to_owned());
        let ids: Vec<_> = self.coordinator.all_open().filter_map(late).collect();
        for id in &ids {
            // A takeover aborts, and raises the epoch: the producer learns of it at its next request.
            self.take_over(id);
        }
        ids
    }

    /// Decides a transaction in all topics and groups at once: nothing sees one half of it. The journal gets what it
    /// committed.
    fn decide(&mut self, transaction: TransactionId, commits: bool) {
        let (mut commit, keeps) = (Commit::default(), self.journal.is_some());
        for (name, topic) in &mut self.topics {
            topic.decide(transaction, commits, |partition, offset, record| {
                if keeps {
                    commit.records.push(event(name, partition, offset, record));
                }
            });
        }
        for group in self.groups.values_mut() {
            commit.offsets.extend(group.decide(transaction, commits));
        }
        // An aborted transaction shows nothing: it is no commit.
        if let Some(journal) = self.journal.as_mut().filter(|_| commits) {
            journal.push(commit);
        }
    }
}
