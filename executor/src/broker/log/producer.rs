//! A producer of the in-memory log, with transactions and fencing.
//!
//! A record is in the log when [`Producer::send`] returns, so nothing is ever in flight and nothing is refused
//! later. With an id every record is in a transaction: it shows when that commits.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::broker::log::topic::{Stored, TransactionId};
use crate::broker::log::{Log, NewRecord, State};
use crate::broker::{BrokerError, GroupMetadata, OffsetCommit, OutgoingRecord, Producer, Taken};
use crate::event::message::{TopicName, TopicPartition};

/// A producer of the in-memory log. Records are acknowledged as they are sent.
///
/// Once another producer has taken its id over, its calls on transactions fail with [`BrokerError::Fenced`].
pub struct LogProducer {
    log: Log,
    /// `None`: no transactions; records show at once.
    transactional_id: Option<String>,
    /// The epoch of its last takeover; 0: it has not begun, and every request is refused.
    epoch: u32,
    /// True from `begin` to the end of the transaction. The coordinator may know nothing of it yet.
    begun: bool,
    /// Offsets after the last tracked record, by partition.
    written: BTreeMap<TopicPartition, i64>,
}

impl LogProducer {
    pub(super) fn new(log: Log, transactional_id: Option<&str>) -> LogProducer {
        let transactional_id = transactional_id.map(str::to_owned);
        LogProducer { log, transactional_id, epoch: 0, begun: false, written: BTreeMap::new() }
    }

    /// The id; an error where there is none, since the caller has not asked for transactions.
    fn id(&self) -> Result<&str, BrokerError> {
        let id = self.transactional_id.as_deref();
        id.ok_or_else(|| BrokerError::Fatal("a producer without transactional id has no transactions".to_owned()))
    }

    /// The id, if this producer is the newest under it and a transaction has begun.
    fn check_begun(&self) -> Result<&str, BrokerError> {
        let id = self.id()?;
        self.log.state.borrow().coordinator.check(id, self.epoch)?;
        match self.begun {
            true => Ok(id),
            false => Err(BrokerError::Fatal("no transaction is open".to_owned())),
        }
    }

    /// The transaction for a record; `None` outside transactions.
    fn transaction(&self) -> Result<Option<TransactionId>, BrokerError> {
        if self.transactional_id.is_none() {
            return Ok(None);
        }
        if !self.begun {
            return self.check_begun().map(|_| None);
        }
        // The log has no clock: nothing here expires, and the beginning is not looked at.
        self.log.state.borrow_mut().coordinator.open(self.id()?, self.epoch, Duration::ZERO).map(Some)
    }

    /// Appends a record.
    fn append(&mut self, topic: &TopicName, record: NewRecord, tracked: bool) -> Result<(), BrokerError> {
        let transaction = self.transaction()?;
        let partition = record.partition.unwrap_or_default();
        let offset = self.log.state.borrow_mut().append_sent(topic, record, transaction)?;
        if tracked {
            // The last one stands: offsets of a partition only grow.
            self.written.insert(TopicPartition { topic: topic.clone(), partition }, offset + 1);
        }
        Ok(())
    }

    /// Has the coordinator decide what is open there; a transaction without records has nothing to decide.
    fn end(&mut self, commits: bool) -> Result<(), BrokerError> {
        self.log.state.borrow_mut().end(self.id()?, self.epoch, commits)?;
        self.begun = false;
        Ok(())
    }
}

impl Producer for LogProducer {
    fn init_transactions(&mut self) -> Result<(), BrokerError> {
        let epoch = self.log.state.borrow_mut().take_over(self.id()?);
        (self.epoch, self.begun) = (epoch, false);
        Ok(())
    }

    fn begin(&mut self) -> Result<(), BrokerError> {
        self.log.state.borrow().coordinator.check(self.id()?, self.epoch)?;
        if self.begun {
            return Err(BrokerError::Fatal("a transaction is open already".to_owned()));
        }
        // No request, as in Kafka: the coordinator learns of the transaction with its first record.
        self.begun = true;
        Ok(())
    }

    fn send(&mut self, record: OutgoingRecord<'_>, _generation: u64) -> Result<Taken, BrokerError> {
        self.append(record.topic, NewRecord::from(record), record.tracked)?;
        Ok(Taken::Yes)
    }

    fn send_all(
        &mut self,
        records: &mut dyn Iterator<Item = OutgoingRecord<'_>>,
        _generation: u64,
    ) -> Result<usize, BrokerError> {
        let records: Vec<_> = records.collect();
        let payloads = || records.iter().flat_map(|record| [record.key, record.value]).flatten();
        // One allocation for all of them: each record has its part of it.
        let mut bytes = Vec::with_capacity(payloads().map(<[u8]>::len).sum());
        payloads().for_each(|payload| bytes.extend_from_slice(payload));
        let mut bytes = Bytes::from(bytes);
        for record in &records {
            let mut own = |payload: Option<&[u8]>| payload.map(|payload| bytes.split_to(payload.len()));
            let (key, value, headers) = (own(record.key), own(record.value), record.headers.to_vec());
            let (partition, timestamp_ms) = (Some(record.partition), record.timestamp_ms);
            self.append(record.topic, NewRecord { partition, timestamp_ms, key, value, headers }, record.tracked)?;
        }
        Ok(records.len())
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
        let id = self.check_begun()?;
        // No request, as librdkafka: the group is not asked whether it knows the member.
        if offsets.is_empty() {
            return Ok(());
        }
        self.log.state.borrow_mut().add_offsets((id, self.epoch), offsets, group, Duration::ZERO)
    }

    fn commit(&mut self) -> Result<(), BrokerError> {
        self.check_begun()?;
        self.end(true)
    }

    fn abort(&mut self) -> Result<(), BrokerError> {
        self.end(false)
    }
}

impl From<OutgoingRecord<'_>> for NewRecord {
    fn from(record: OutgoingRecord<'_>) -> NewRecord {
        NewRecord {
            partition: Some(record.partition),
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(Bytes::copy_from_slice),
            value: record.value.map(Bytes::copy_from_slice),
            headers: record.headers.to_vec(),
        }
    }
}

impl State {
    /// Appends what a producer sends; gives the offset.
    ///
    /// An error where the topic or the partition does not exist.
    pub(super) fn append_sent(
        &mut self,
        topic: &TopicName,
        record: NewRecord,
        transaction: Option<TransactionId>,
    ) -> Result<i64, BrokerError> {
        if self.auto_create && !self.topics.contains_key(topic) {
            self.ensure(topic);
        }
        let partition = record.partition.unwrap_or_default();
        let stored = self.topics.get_mut(topic).filter(|topic| (0..topic.count()).contains(&partition));
        let stored =
            stored.ok_or_else(|| BrokerError::Fatal(format!("the partition {topic}/{partition} does not exist")))?;
        Ok(stored.append(partition, Stored::sent(record, transaction)))
    }
}
