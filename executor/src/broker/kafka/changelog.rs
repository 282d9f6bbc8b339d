//! Reads changelogs, over a consumer that joins no group.
//!
//! The end of a partition depends on who asks: a client that reads only what is committed hears where
//! the first open transaction begins, and only another one where the log ends. The one that reads is
//! never asked: its questions would wait behind fetches that wait for records.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::Producer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rustc_hash::FxHashSet;
use tracing::debug;

use super::config::ClientSettings;
use super::consumer::event;
use super::errors::{judge, words};
use super::fresh::Missing;
use super::lists::list;
use super::producer::{Client, Line};
use super::raw;
use crate::broker::{BrokerError, Changelog, Watermarks};
use crate::event::message::{Event, TopicName, TopicPartition};
use crate::guard::ClientCall;
use crate::wake::Bell;

/// Longest wait for an answer: other partitions stand still meanwhile, and the question is asked again.
const ASK_WAIT_MAX: Duration = Duration::from_secs(2);

/// Reads changelogs.
pub struct KafkaChangelog {
    /// Reads what is committed.
    reader: BaseConsumer,
    /// Sees the ends of logs. It reads nothing, so nothing tells it that a leader has moved: one that got no
    /// answer is made anew, or it would ask a broker that is gone until it looks at the cluster again.
    asker: Option<BaseConsumer>,
    /// Sees the ends of what is decided, in the same way; made when somebody asks, which is rare.
    stable: Option<BaseConsumer>,
    settings: ClientSettings,
    line: Line,
    topics: FxHashSet<TopicName>,
    last_topic: TopicName,
    /// Topics that are read.
    read: BTreeSet<TopicName>,
    /// Of those, any that some broker does not know.
    missing: Missing,
    /// Wakes the worker.
    bell: Option<Arc<Bell>>,
}

impl KafkaChangelog {
    /// A reader of nothing yet.
    pub fn new(settings: &ClientSettings, line: Line) -> Result<KafkaChangelog, BrokerError> {
        Ok(KafkaChangelog {
            reader: settings.reader().create().map_err(refused)?,
            asker: None,
            stable: None,
            settings: settings.clone(),
            line,
            topics: FxHashSet::default(),
            last_topic: "".into(),
            read: BTreeSet::new(),
            missing: Missing::default(),
            bell: None,
        })
    }
}

fn refused(error: KafkaError) -> BrokerError {
    BrokerError::Fatal(format!("the reader of changelogs cannot be made: {}", words(&error)))
}

/// Asks a client for the ends of a partition. The client is kept only if it answers.
fn ends(
    kept: &mut Option<BaseConsumer>,
    settings: &ClientConfig,
    partition: &TopicPartition,
    missing: &mut Missing,
) -> Result<Watermarks, BrokerError> {
    let client = match kept.take() {
        Some(client) => client,
        None => settings.create().map_err(refused)?,
    };
    let asked = client.fetch_watermarks(&partition.topic, partition.partition, ASK_WAIT_MAX);
    let (low, high) = asked.map_err(|error| {
        let doing = format!("the ends of {partition}");
        if is_unknown(&error) {
            missing.note(format!("{doing}: {}", words(&error)));
        }
        judge(&doing, &error)
    })?;
    *kept = Some(client);
    Ok(Watermarks { low, high })
}

fn is_unknown(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition))
}

impl Changelog for KafkaChangelog {
    fn ends(&mut self, partition: &TopicPartition) -> Result<Watermarks, BrokerError> {
        self.read.insert(partition.topic.clone());
        let settings = self.settings.unstable();
        let ask = || ends(&mut self.asker, &settings, partition, &mut self.missing);
        self.line.calls.during(ClientCall::ListOffsets, ask)
    }

    fn stable_end(&mut self, partition: &TopicPartition) -> Result<i64, BrokerError> {
        let settings = self.settings.reader();
        let ask = || ends(&mut self.stable, &settings, partition, &mut self.missing);
        let ends = self.line.calls.during(ClientCall::ListOffsets, ask);
        Ok(ends?.high)
    }

    fn identity(&mut self, topic: &TopicName) -> Result<String, BrokerError> {
        let ask = || raw::topic_id(&self.line.client(), topic, ASK_WAIT_MAX);
        let id = self.line.calls.during(ClientCall::Admin, ask);
        id.ok_or_else(|| BrokerError::Retriable(format!("no answer about the topic \"{topic}\"")))
    }

    fn start(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), BrokerError> {
        let doing = || format!("{partition} cannot be read from offset {offset}");
        let mut at = TopicPartitionList::with_capacity(1);
        let added = at.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(offset));
        let assign = || self.reader.incremental_assign(&at);
        added.and_then(|()| self.line.calls.during(ClientCall::Assign, assign)).map_err(|error| judge(&doing(), &error))
    }

    fn stop(&mut self, partition: &TopicPartition) -> Result<(), BrokerError> {
        let at = list(std::slice::from_ref(partition));
        if let Err(error) = self.line.calls.during(ClientCall::Assign, || self.reader.incremental_unassign(&at)) {
            debug!("{partition} was not being read: {error}");
        }
        Ok(())
    }

    fn poll(&mut self, max: usize, into: &mut Vec<Event>) -> Result<(), BrokerError> {
        let client = self.line.client();
        self.missing.settle(|| self.read.iter().all(|topic| is_known(&client, topic)))?;
        while into.len() < max {
            match self.line.calls.during(ClientCall::PollConsumer, || self.reader.poll(Duration::ZERO)) {
                Some(Ok(message)) => into.push(event(&message, &mut self.topics, &mut self.last_topic)),
                Some(Err(error)) => judge_read(&error, &mut self.missing)?,
                None => return Ok(()),
            }
        }
        if let Some(bell) = &self.bell {
            // What is left in the queue rings no bell of its own.
            bell.ring();
        }
        Ok(())
    }

    fn rings(&mut self, bell: &Arc<Bell>) {
        let rung = bell.clone();
        self.reader.set_nonempty_callback(move || rung.ring());
        bell.ring();
        self.bell = Some(bell.clone());
    }

    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        let at = list(std::slice::from_ref(partition));
        if !raw::fill_positions(&self.reader, &at) {
            return None;
        }
        match at.elements().first()?.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }
}

fn is_known(client: &Client, topic: &str) -> bool {
    let answered = client.client().fetch_metadata(Some(topic), ASK_WAIT_MAX);
    answered.is_ok_and(|answered| answered.topics().iter().all(|topic| topic.error().is_none()))
}

/// What an error in the place of a record means. The client itself goes on after most of them.
fn judge_read(error: &KafkaError, missing: &mut Missing) -> Result<(), BrokerError> {
    let why = format!("a changelog cannot be read: {}", words(error));
    match error.rdkafka_error_code() {
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Err(BrokerError::Fatal(why)),
        Some(Code::TopicAuthorizationFailed) => Err(BrokerError::Group(why)),
        _ if is_unknown(error) => {
            missing.note(why);
            Ok(())
        }
        _ => {
            debug!("changelogs: {}", words(error));
            Ok(())
        }
    }
}
