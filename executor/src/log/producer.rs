//! A producer of the in-memory log, with transactions and fencing.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::broker::{BrokerError, GroupMetadata, OffsetCommit, OutgoingRecord, Producer, Taken};
use crate::log::topic::{Stored, TransactionId};
use crate::log::{Log, NewRecord};
use crate::message::TopicPartition;

/// A producer of the in-memory log. Records are acknowledged as they are sent.
pub struct LogProducer {
    log: Log,
    transactional_id: Option<String>,
    epoch: u32,
    number: u64,
    open: bool,
    /// Offsets of a group that the open transaction will commit.
    offsets: Option<(String, Vec<OffsetCommit>)>,
    /// Offsets after the last tracked record, by partition.
    written: BTreeMap<TopicPartition, i64>,
}

impl LogProducer {
    pub(super) fn new(log: Log, transactional_id: Option<&str>) -> LogProducer {
        let transactional_id = transactional_id.map(str::to_owned);
        LogProducer { log, transactional_id, epoch: 0, number: 0, open: false, offsets: None, written: BTreeMap::new() }
    }

    fn transaction(&self) -> Option<TransactionId> {
        let producer = self.transactional_id.clone().filter(|_| self.open)?;
        Some(TransactionId { producer, epoch: self.epoch, number: self.number })
    }

    /// A newer producer with the same id has taken over.
    fn check_fence(&self) -> Result<(), BrokerError> {
        let Some(id) = &self.transactional_id else {
            return Ok(());
        };
        let newest = self.log.state.borrow().transactional.get(id).copied();
        if newest == Some(self.epoch) {
            return Ok(());
        }
        Err(BrokerError::Fenced(format!("another producer has taken over the transactional id \"{id}\"")))
    }

    fn check_open(&self) -> Result<(), BrokerError> {
        self.check_fence()?;
        match self.open {
            true => Ok(()),
            false => Err(BrokerError::Fatal("no transaction is open".to_owned())),
        }
    }

    fn decide(&mut self, commits: bool) {
        if let Some(transaction) = self.transaction() {
            for topic in self.log.state.borrow_mut().topics.values_mut() {
                topic.decide(&transaction, commits);
            }
        }
        self.open = false;
        self.offsets = None;
    }
}

impl Producer for LogProducer {
    fn init_transactions(&mut self) -> Result<(), BrokerError> {
        let Some(id) = self.transactional_id.clone() else {
            return Err(BrokerError::Fatal("a producer without transactional id has no transactions".to_owned()));
        };
        let mut state = self.log.state.borrow_mut();
        for topic in state.topics.values_mut() {
            for transaction in topic.open_of(&id) {
                topic.decide(&transaction, false);
            }
        }
        let newest = state.transactional.entry(id).or_insert(0);
        *newest += 1;
        self.epoch = *newest;
        self.open = false;
        Ok(())
    }

    fn begin(&mut self) -> Result<(), BrokerError> {
        self.check_fence()?;
        if self.open {
            return Err(BrokerError::Fatal("a transaction is open already".to_owned()));
        }
        self.number += 1;
        self.open = true;
        Ok(())
    }

    fn send(&mut self, record: OutgoingRecord<'_>, _generation: u64) -> Result<Taken, BrokerError> {
        self.check_fence()?;
        let transaction = self.transaction();
        if self.transactional_id.is_some() && transaction.is_none() {
            return Err(BrokerError::Fatal("a transactional producer sends within a transaction".to_owned()));
        }
        let mut state = self.log.state.borrow_mut();
        if state.auto_create {
            state.ensure(record.topic);
        }
        let topic = state.topics.get_mut(record.topic);
        let topic = topic.filter(|topic| (0..topic.count()).contains(&record.partition)).ok_or_else(|| {
            BrokerError::Fatal(format!("the partition {}/{} does not exist", record.topic, record.partition))
        })?;
        let stored = NewRecord {
            partition: Some(record.partition),
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(Bytes::copy_from_slice),
            value: record.value.map(Bytes::copy_from_slice),
            headers: record.headers.to_vec(),
        };
        let offset = topic.append(record.partition, Stored::sent(stored, transaction));
        if record.tracked {
            let partition = TopicPartition { topic: record.topic.clone(), partition: record.partition };
            self.written.insert(partition, offset + 1);
        }
        Ok(Taken::Yes)
    }

    fn poll(&mut self, _wait: Duration) -> Result<(), BrokerError> {
        Ok(())
    }

    fn wait(&mut self, _wait: Duration) {}

    fn in_flight(&self, _generation: u64) -> usize {
        0
    }

    fn written(&mut self) -> Vec<(TopicPartition, i64)> {
        std::mem::take(&mut self.written).into_iter().collect()
    }

    fn send_offsets(&mut self, offsets: &[OffsetCommit], group: &GroupMetadata) -> Result<(), BrokerError> {
        self.check_open()?;
        let mut state = self.log.state.borrow_mut();
        let members = state.groups.entry(group.group.clone()).or_default();
        if !offsets.is_empty() && members.generation(&group.member) != Some(group.generation) {
            return Err(BrokerError::Abort(format!("\"{}\" has a newer generation than the commit", group.group)));
        }
        drop(state);
        self.offsets = Some((group.group.clone(), offsets.to_vec()));
        Ok(())
    }

    fn commit(&mut self) -> Result<(), BrokerError> {
        self.check_open()?;
        if let Some((group, offsets)) = self.offsets.take() {
            self.log.state.borrow_mut().groups.entry(group).or_default().commit(&offsets);
        }
        self.decide(true);
        Ok(())
    }

    fn abort(&mut self) -> Result<(), BrokerError> {
        self.decide(false);
        Ok(())
    }
}
