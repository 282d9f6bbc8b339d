//! The errors of a member: some it waits out, others end it.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tracing::warn;

use super::KafkaConsumer;
use crate::broker::BrokerError;
use crate::broker::kafka::errors::{judge, words};
use crate::broker::kafka::rights::lacking;
use crate::clock::Clock as _;
use crate::guard::ClientCall;

/// Time between two warnings about members of another protocol.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Time for which a refusal says that the next try will be refused, too: the client tries once a second.
const MET_FOR: Duration = Duration::from_secs(5);

/// The wait of a member for others that divide partitions by another protocol: a group has one, and they had it first.
///
/// So it is when an app is taken over from the reference runtime, whose static members count for 120 s after their
/// end.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    /// The time of the last warning.
    told: Option<Duration>,
    /// The time at which the group last let the member not in.
    met: Option<Duration>,
}

impl Foreign {
    /// True while the group lets the member not in.
    pub(super) fn is_met(&self, now: Duration) -> bool {
        self.met.is_some_and(|met| now < met + MET_FOR)
    }

    /// Notes that the group has not let the member in; warns of it, once a minute.
    fn tell(&mut self, now: Duration, group: &str) {
        self.met = Some(now);
        if self.told.is_some_and(|told| now < told + TELL_EVERY) {
            return;
        }
        self.told = Some(now);
        warn!(
            group,
            "waiting for members of another protocol to leave the group: stop them; one of the reference runtime counts for 120 s after its end"
        );
    }
}

impl KafkaConsumer {
    /// Decides what an error in the place of a message means.
    ///
    /// `Ok`: polling goes on. librdkafka reports most troubles here once, and repairs them by itself.
    pub(super) fn judge(&mut self, error: &KafkaError) -> Result<(), BrokerError> {
        // The next poll brings it back; everything that the old client says is about a member that is gone.
        if self.is_fenced() {
            return Ok(());
        }
        if let Some((code, why)) = self.consumer.client().fatal_error() {
            return Err(BrokerError::Fatal(format!("Kafka's client gave up: {code}: {why}")));
        }
        match error.rdkafka_error_code() {
            // Polling goes on and joins again; the loss comes as a change.
            Some(Code::PollExceeded) => Ok(()),
            // The error is about some partition, which it does not name.
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
                self.adrift.get_or_insert(Duration::ZERO);
                Ok(())
            }
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
                self.missing.note(format!("a topic that is read does not exist any more: {}", words(error)));
                Ok(())
            }
            Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed) => Err(self.denied(error)),
            // The client asks again to be let in, about once a second.
            Some(Code::InconsistentGroupProtocol) => {
                self.foreign.tell(self.clock.now(), &self.settings.app);
                Ok(())
            }
            Some(Code::ClusterAuthorizationFailed | Code::FencedInstanceId | Code::Fatal) => {
                Err(BrokerError::Group(format!("the group \"{}\" cannot be read: {}", self.settings.app, words(error))))
            }
            // The client reports the rest to the callback that watches the brokers.
            _ => Ok(()),
        }
    }

    /// The meaning of an error about the group's offsets. A right that is missing is named.
    pub(super) fn judged(&self, doing: &str, error: &KafkaError) -> BrokerError {
        match error.rdkafka_error_code() {
            Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed) => self.denied(error),
            _ => judge(doing, error),
        }
    }

    /// The error of a member that lacks a right, which is named.
    ///
    /// Asks which of the rights it is, so it waits for a broker; the text has the command that grants it.
    pub(super) fn denied(&self, error: &KafkaError) -> BrokerError {
        let assigned = self.starts.keys().map(|partition| &*partition.topic);
        let named = self.subscribed.iter().map(String::as_str).filter(|name| !name.starts_with('^'));
        let reads: BTreeSet<&str> = named.chain(assigned).collect();
        let (client, reads) = (self.line.client(), Vec::from_iter(reads));
        let ask = || lacking(&client, &self.settings, error.rdkafka_error_code(), &reads);
        let rights = self.line.calls.during(ClientCall::Admin, ask);
        let why = if rights.is_empty() { words(error) } else { self.settings.identity().lacks(&rights) };
        BrokerError::Group(format!("the group \"{}\" cannot be read: {why}", self.settings.app))
    }
}
