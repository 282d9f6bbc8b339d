//! Kafka, through rdkafka: the only part of the executor that names it.
//!
//! A worker has one consumer (a member of the app's group), one producer, and an admin that shares the producer's
//! connection. All calls come from the worker's thread, but for one that may not return ([`aside`]); librdkafka's own
//! threads fetch and send, and report through the callbacks of [`context`].
//!
//! ```text
//! Kafka::connect ─▶ Line: one producer client ─┬─▶ KafkaProducer      records, transactions
//!                                              ├─▶ KafkaAdmin         topics, settings, rights
//!                                              └─▶ ends, groups, describe: questions of the others
//!               ─▶ KafkaConsumer: a client of its own, and the threads of fence, orphans and visits
//!               ─▶ KafkaChangelog: a client of its own, which joins no group
//! ```
//!
//! Questions go over the producer's client, since on one that fetches they would wait for the fetch under way. Each
//! call into a client is made within [`Calls::during`], so that one that does not return is seen from outside.
//!
//! Faults of librdkafka that are repaired from outside are listed in the test below: it fails with a new version.

pub mod admin;
mod aside;
pub mod changelog;
mod client;
pub mod config;
pub mod consumer;
pub mod context;
mod describe;
mod ends;
pub mod errors;
mod events;
mod fence;
mod fresh;
mod groups;
mod identity;
mod inbox;
mod kept;
#[cfg(target_os = "linux")]
mod leaders;
mod lists;
mod metadata;
pub mod names;
mod offsets;
mod orphans;
mod outbox;
pub mod producer;
mod raw;
mod reports;
pub mod rights;
mod sasl;
mod statistics;
mod stuck;
mod tls;
pub mod tokens;
mod visits;
mod waiting;
mod withheld;

use std::sync::Arc;
use std::time::Duration;

use rdkafka::producer::Producer as _;

use crate::broker::BrokerError;
use crate::broker::rights::Right;
use crate::guard::{Calls, ClientCall, Patience, Watch};
use admin::KafkaAdmin;
use changelog::KafkaChangelog;
use client::{Client, Line};
use config::ClientSettings;
use consumer::KafkaConsumer;
use context::Health;
use fresh::Fresh;
use producer::KafkaProducer;
use rights::{Ids, Verdict};

/// Longest wait for the first answer of a broker.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(15);
/// Longest wait for an answer about topics and offsets.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

/// Tries to connect without an answer after which the brokers are asked whether they want a user.
const KNOCKS: [u128; 3] = [1, 5, 15];
/// Events of the client that are served after each try to connect.
const EVENTS_PER_STEP: usize = 100;

/// A connection to a cluster that has answered.
///
/// Lives as long as the worker; a worker that starts again connects again.
pub struct Kafka {
    settings: ClientSettings,
    health: Arc<Health>,
    line: Line,
    fresh: Fresh,
}

impl Kafka {
    /// Connects, and waits until a broker has answered or `patience` is over: for 15 s, or `for_ever` as a process does
    /// that tells others meanwhile how it is. Errors name the servers and the reason.
    ///
    /// [`BrokerError::Group`] where the brokers refuse the client and no retry helps, with the setting that would;
    /// [`BrokerError::Fatal`] where none answered for 15 s. A question that is answered is the only proof of a
    /// connection: librdkafka connects in its own threads, and reports what fails there to callbacks.
    pub fn connect(settings: ClientSettings, patience: &Patience, for_ever: bool) -> Result<Kafka, BrokerError> {
        let health = Arc::new(Health::new(&settings));
        let line = Line::new(&settings, health.clone(), patience)?;
        let client = line.client();
        let tries = CONNECT_WAIT_MAX.as_millis() / CONNECT_STEP.as_millis();
        for step in (0..).take_while(|&step| for_ever || step < tries) {
            let answers = line.calls.during(ClientCall::Metadata, || ask(&client, &settings, CONNECT_STEP));
            // Each poll serves one event, and the client logs more than it complains.
            line.calls.during(ClientCall::PollProducer, || {
                (0..EVENTS_PER_STEP).for_each(|_| client.poll(Duration::ZERO));
            });
            if answers {
                health.answered();
                return Ok(Kafka { settings, health, line, fresh: Fresh::default() });
            }
            // Before the tries are over: a refusal does not pass.
            if let Some(refused) = health.refused() {
                let why = line.calls.during(ClientCall::Metadata, || why_refused(&settings, &health));
                return Err(BrokerError::Group(why.unwrap_or(refused)));
            }
            let explain = || {
                // A broker that has just been started closes connections, too: only the bytes that it sends
                // are proof.
                let of_tls = health.is_suspect().then(|| tls::explain_protocol(&settings)).flatten();
                of_tls.or_else(|| KNOCKS.contains(&step).then(|| sasl::explain_missing(&settings)).flatten())
            };
            if let Some(why) = line.calls.during(ClientCall::Metadata, explain) {
                return Err(BrokerError::Group(why));
            }
            if patience.is_over() {
                break;
            }
            health.awaited();
        }
        Err(BrokerError::Fatal(health.unreachable(CONNECT_WAIT_MAX)))
    }

    /// True if brokers may be lost: [`Kafka::look`] should ask soon.
    ///
    /// Cheap: no broker is asked.
    pub fn is_suspect(&self) -> bool {
        self.health.is_suspect()
    }

    /// Asks lost brokers whether they are back; a connection that works is left alone.
    ///
    /// Waits for [`LOOK_WAIT_MAX`] at most.
    pub fn look(&self) {
        if !self.is_suspect() {
            return;
        }
        let look = || ask(&self.line.client(), &self.settings, LOOK_WAIT_MAX);
        match self.line.calls.during(ClientCall::Metadata, look) {
            true => self.health.answered(),
            false => self.health.unanswered(),
        }
    }

    /// The call into a client that the worker's thread is in.
    ///
    /// For the watchdog and the status, which name it.
    pub fn calls(&self) -> Arc<Calls> {
        self.line.calls.clone()
    }

    /// Spares the event that runs the blame when a call into a client does not return.
    ///
    /// Called once the watch exists, which is after the first client.
    pub fn spare(&self, watch: Arc<Watch>) {
        self.line.callers.spare(watch);
    }

    /// Asks whether this user may do what workers with these transactional ids do, and does nothing of it.
    pub fn rights(&self, ids: &Ids) -> Result<Vec<(Right, Verdict)>, BrokerError> {
        rights::ask(&self.line, &self.settings, ids)
    }

    /// A member of the app's group, which joins when it subscribes.
    ///
    /// One per connection: it shares the health of the brokers, and asks over this connection's client.
    pub fn consumer(&self) -> Result<KafkaConsumer, BrokerError> {
        KafkaConsumer::new(&self.settings, self.health.clone(), self.line.clone())
    }

    /// The producer. There is one per connection.
    pub fn producer(&self) -> KafkaProducer {
        KafkaProducer::new(self.line.clone(), self.settings.clone(), self.health.clone())
    }

    /// Reads changelogs of tables.
    pub fn changelog(&self) -> Result<KafkaChangelog, BrokerError> {
        KafkaChangelog::new(&self.settings, self.line.clone())
    }

    /// Knows and makes topics.
    pub fn admin(&self) -> KafkaAdmin {
        KafkaAdmin::new(self.line.clone(), self.settings.clone(), self.health.clone(), self.fresh.clone())
    }
}

/// Says why a broker refuses the client.
///
/// Makes clients and connections of its own, some seconds long: it is called once, at the end of a start.
fn why_refused(settings: &ClientSettings, health: &Health) -> Option<String> {
    match health.denied() {
        Some(reason) => sasl::explain_refusal(settings, &reason),
        None => tls::explain_certificate(settings).or_else(|| tls::explain_protocol(settings)),
    }
}

/// Asks whether any broker answers. The question is for one topic, which need not exist: all topics of a
/// cluster may be more than a slow link carries in the time.
///
/// True if one does within `wait`.
fn ask(client: &Client, settings: &ClientSettings, wait: Duration) -> bool {
    client.client().fetch_metadata(Some(&settings.app), wait).is_ok()
}

/// Longest wait when looking whether brokers are back: the worker stands still meanwhile.
const LOOK_WAIT_MAX: Duration = Duration::from_millis(100);
/// Length of one try to reach a broker.
const CONNECT_STEP: Duration = Duration::from_millis(500);

/// The version of librdkafka that is linked: `2.12.1`.
pub fn version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_faults_of_librdkafka_were_looked_at_in_this_version() {
        let look = "look again whether librdkafka still has the faults that are repaired from outside: leaders.rs (#5280), \
                    aside.rs (#5456, patch #5457), stuck.rs (#5430, #5593), \
                    groups.rs (a question about a group that timed out); then name the new version here";
        assert_eq!(super::version(), "2.12.1", "{look}");
    }
}
