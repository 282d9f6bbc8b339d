//! Reads changelogs, over a consumer that joins no group.
//!
//! The client that reads is never asked for the ends of partitions: its questions would wait behind fetches
//! that wait for records.
//!
//! ```text
//! ends (all records) ─▶ start(offsets) ─▶ poll … ─▶ position ≥ end: restored ─▶ stop
//!                                           └─ stands before an open transaction: stable_end shows it
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::Offset;
use tracing::debug;

use super::client::Line;
use super::config::ClientSettings;
use super::describe;
use super::ends::ends;
use super::errors::{judge, words};
use super::events::Names;
use super::fresh::Missing;
use super::inbox::Inbox;
use super::kept::Kept;
use super::lists::{list, offsets_list};
use super::metadata;
use super::offsets::Sees;
use super::raw;
use super::tokens::Bearer;
use crate::broker::{BrokerError, Changelog, Watermarks};
use crate::event::message::{Event, TopicName, TopicPartition};
use crate::guard::ClientCall;
use crate::wake::Bell;

/// Longest wait for an answer: other partitions stand still meanwhile, and the question is asked again.
const ASK_WAIT_MAX: Duration = Duration::from_secs(2);

/// The reader of changelogs.
///
/// One per worker; partitions come and go while tables are restored. It stays between restorations, idle.
pub struct KafkaChangelog {
    /// Dropped before its client.
    inbox: Inbox,
    /// The client that reads committed records.
    reader: Kept<BaseConsumer<Bearer>>,
    line: Line,
    /// Names that records share.
    names: Names,
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
        let reader = Kept::make(&line.calls, || settings.passive(&settings.reader())).map_err(refused)?;
        Ok(KafkaChangelog {
            inbox: Inbox::of(&reader),
            reader,
            line,
            names: Names::default(),
            read: BTreeSet::new(),
            missing: Missing::default(),
            bell: None,
        })
    }
}

/// The error of a reader that librdkafka does not make.
fn refused(error: KafkaError) -> BrokerError {
    BrokerError::Fatal(format!("the reader of changelogs cannot be made: {}", words(&error)))
}

/// True if a broker does not know the topic or the partition, not yet or not any more.
fn is_unknown(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition))
}

impl Changelog for KafkaChangelog {
    /// Over the producer's client, all records counted. A partition without an answer may be one of a deleted topic:
    /// that is followed up in [`KafkaChangelog::poll`].
    fn ends(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Watermarks>>, BrokerError> {
        self.read.extend(partitions.iter().map(|partition| partition.topic.clone()));
        let ends = ends(&self.line, Sees::All, partitions)?;
        if let Some((partition, _)) = partitions.iter().zip(&ends).find(|(_, ends)| ends.is_none()) {
            self.missing.note(format!("no broker knows the ends of {partition}: was the topic deleted?"));
        }
        Ok(ends)
    }

    fn stable_end(&mut self, partition: &TopicPartition) -> Result<i64, BrokerError> {
        let ends = ends(&self.line, Sees::Decided, std::slice::from_ref(partition))?;
        let end = ends.into_iter().flatten().next().map(|ends| ends.high);
        end.ok_or_else(|| BrokerError::Retriable(format!("no broker leads {partition}")))
    }

    fn identity(&mut self, topic: &TopicName) -> Result<String, BrokerError> {
        let ask = || describe::topic_id(&self.line.client(), topic, ASK_WAIT_MAX);
        let id = self.line.calls.during(ClientCall::Admin, ask);
        id.ok_or_else(|| BrokerError::Retriable(format!("no answer about the topic \"{topic}\"")))
    }

    fn start(&mut self, at: &[(TopicPartition, i64)]) -> Result<(), BrokerError> {
        let list = offsets_list(at)?;
        let started = self.line.calls.during(ClientCall::Assign, || self.reader.incremental_assign(&list));
        let doing = || match at {
            [(partition, offset)] => format!("{partition} cannot be read from offset {offset}"),
            _ => format!("{} partitions of changelogs cannot be read", at.len()),
        };
        started.map_err(|error| judge(&doing(), &error))
    }

    /// Never fails: a partition that is not read needs no stopping.
    fn stop(&mut self, partition: &TopicPartition) -> Result<(), BrokerError> {
        let at = list(std::slice::from_ref(partition));
        if let Err(error) = self.line.calls.during(ClientCall::Assign, || self.reader.incremental_unassign(&at)) {
            debug!("{partition} was not being read: {error}");
        }
        Ok(())
    }

    fn poll(&mut self, max: usize, into: &mut Vec<Event>) -> Result<(), BrokerError> {
        let line = &self.line;
        let is_known = |topic: &TopicName| is_known(line, topic);
        self.missing.settle(|| self.read.iter().all(is_known))?;
        while into.len() < max {
            let take = || self.inbox.take(&self.reader, Duration::ZERO, max, &mut self.names, into);
            match self.line.calls.during(ClientCall::PollConsumer, take) {
                Ok(()) => break,
                Err(error) => judge_read(&error, &mut self.missing)?,
            }
        }
        if let Some(bell) = self.bell.as_ref().filter(|_| self.inbox.has_more()) {
            // The queue rings only when it was empty: what is left in it would ring no more.
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
        let fill = || raw::fill_positions(&self.reader, &at);
        if !self.line.calls.during(ClientCall::Position, fill) {
            return None;
        }
        match at.elements().first()?.offset() {
            // Until the first record has come the client names a logical offset, which is no position.
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }
}

fn is_known(line: &Line, topic: &str) -> bool {
    let answered = metadata::describe(line, Some(topic), ASK_WAIT_MAX);
    answered.is_ok_and(|answered| answered.iter().all(|topic| topic.error.is_none()))
}

/// Decides what an error in the place of a record means. The client itself goes on after most of them.
fn judge_read(error: &KafkaError, missing: &mut Missing) -> Result<(), BrokerError> {
    let why = format!("a changelog cannot be read: {}", words(error));
    match error.rdkafka_error_code() {
        // What the table still needs is deleted, or the topic is another one: read on, it would have holes.
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Err(BrokerError::Fatal(why)),
        // Workers of a group run as one user, as a rule: the others lack the right, too.
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
