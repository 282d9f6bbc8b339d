//! Knows and makes topics, over the producer's connection.
//!
//! A topic that was just created is a special case throughout: "unknown topic" then means that the broker which was
//! asked is late ([`Fresh`]), and the question is repeated, [`FRESH_TRIES`] times at most.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic as NativeTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::ANSWER_WAIT_MAX;
use super::client::Line;
use super::config::{ClientSettings, RECORD_BYTES_MAX};
use super::context::Health;
use super::describe;
use super::errors::{judge, passes, words};
use super::fresh::Fresh;
use super::kept::Kept;
use super::metadata;
use crate::broker::rights::{Right, User};
use crate::broker::{Access, Admin, BrokerError, NewTopic, Seen, TopicInfo};
use crate::event::message::TopicName;
use crate::guard::ClientCall;

/// Questions about a topic that was just created, until a broker that is asked knows it, and the pause
/// between them.
const FRESH_TRIES: u32 = 200;
const FRESH_PAUSE: Duration = Duration::from_millis(50);
/// Time beyond a request's own in which the client surely answers.
const ANSWER_MARGIN: Duration = Duration::from_secs(2);
/// Topics that are looked at in one question, and the longest wait for its answer: the worker stands
/// still meanwhile, and asks again at its next look.
const LOOKED_AT_ONCE: usize = 500;
const LOOK_WAIT_MAX: Duration = Duration::from_secs(1);
/// Kafka's default of `max.message.bytes`, where the broker does not allow the question.
const MESSAGE_BYTES_DEFAULT: usize = 1_048_588;

/// The admin of a Kafka cluster: it knows and makes topics.
///
/// Its questions block the worker; most of them come before the first event.
pub struct KafkaAdmin {
    line: Line,
    settings: ClientSettings,
    health: Arc<Health>,
    fresh: Fresh,
}

impl KafkaAdmin {
    /// An admin over a client that has connected.
    pub fn new(line: Line, settings: ClientSettings, health: Arc<Health>, fresh: Fresh) -> KafkaAdmin {
        KafkaAdmin { line, settings, health, fresh }
    }

    /// Runs a call that waits for a broker.
    fn waited<T>(&self, call: impl FnOnce() -> T) -> T {
        self.line.calls.during(ClientCall::Admin, call)
    }

    /// Waits for the answer of a broker.
    fn answered<T>(&self, asked: impl Future<Output = Result<T, KafkaError>>) -> Result<T, KafkaError> {
        let answered = self.waited(|| self.line.patience.block_on(ANSWER_WAIT_MAX + ANSWER_MARGIN, asked));
        answered.unwrap_or(Err(KafkaError::AdminOp(Code::OperationTimedOut)))
    }

    /// Partitions of a topic. One that was just created is asked for until a broker knows it.
    ///
    /// `None`: it does not exist. What the answer says is noted for later questions about it.
    fn count(&self, name: &str) -> Result<Option<i32>, BrokerError> {
        let counted = self.again_while_fresh(name, || self.count_once(name), |count| count.is_some_and(|n| n > 0))?;
        match counted {
            Some(_) => self.fresh.named(name),
            None => self.fresh.deleted(name),
        }
        Ok(counted)
    }

    /// Asks until the answer knows the topic, for as long as the broker that is asked may not know it yet.
    ///
    /// `tells` says whether an answer is final. Up to [`FRESH_TRIES`] × [`FRESH_PAUSE`], 10 s.
    fn again_while_fresh<T>(
        &self,
        name: &str,
        ask: impl Fn() -> Result<T, BrokerError>,
        tells: impl Fn(&T) -> bool,
    ) -> Result<T, BrokerError> {
        for _ in 1..FRESH_TRIES {
            // The last answer counts, whatever it is.
            match ask() {
                Ok(answer) if tells(&answer) => return Ok(answer),
                Ok(_) | Err(BrokerError::Retriable(_))
                    if self.fresh.is_fresh(name) && !self.line.patience.is_over() =>
                {
                    std::thread::park_timeout(FRESH_PAUSE);
                }
                other => return other,
            }
        }
        ask()
    }

    /// One question, whatever the answer.
    fn count_once(&self, name: &str) -> Result<Option<i32>, BrokerError> {
        let asked = metadata::describe(&self.line, Some(name), ANSWER_WAIT_MAX);
        let answered = asked.map_err(|error| judge(&format!("the topic \"{name}\""), &error))?;
        self.health.answered();
        let Some(topic) = answered.iter().find(|topic| topic.name == name) else {
            return Ok(None);
        };
        match topic.error {
            None => Ok(Some(i32::try_from(topic.partitions).unwrap_or(i32::MAX))),
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::InvalidTopic) => Ok(None),
            Some(Code::TopicAuthorizationFailed) => {
                let user = self.settings.identity();
                let user = user.principal.as_deref().unwrap_or("this user");
                Err(BrokerError::Group(format!("{user} has no permission: DESCRIBE on the topic \"{name}\"")))
            }
            // Mostly one that passes, as for a topic without a leader.
            Some(code) => Err(judge(&format!("the topic \"{name}\""), &KafkaError::MetadataFetch(code))),
        }
    }

    /// A client for the few questions that need one of its own; it has a thread, so it does not stay.
    ///
    /// [`BrokerError::Fatal`] where librdkafka does not take the settings.
    fn admin(&self) -> Result<Kept<AdminClient<DefaultClientContext>>, BrokerError> {
        let made = Kept::make(&self.line.calls, || self.settings.plain().create());
        let made = made.inspect(|admin: &Kept<AdminClient<_>>| self.settings.admit(admin.inner()));
        made.map_err(|error| BrokerError::Fatal(format!("the admin client cannot be made: {}", words(&error))))
    }

    /// `None`: the broker does not allow the question, or knows no such setting.
    fn describe(&self, topic: &str, name: &str) -> Result<Option<String>, BrokerError> {
        let admin = self.admin()?;
        let ask = || {
            let topics = [ResourceSpecifier::Topic(topic)];
            let answered = self.answered(admin.describe_configs(&topics, &options()));
            let answered =
                answered.map_err(|error| judge(&format!("the settings of the topic \"{topic}\""), &error))?;
            Ok(answered.into_iter().next().unwrap_or(Err(Code::NoEnt)))
        };
        let is_unknown = |code: &Code| matches!(code, Code::UnknownTopicOrPartition | Code::UnknownTopic);
        let described =
            self.again_while_fresh(topic, ask, |described| !described.as_ref().err().is_some_and(is_unknown))?;
        Ok(described.ok().and_then(|resource| resource.get(name).and_then(|entry| entry.value.clone())))
    }

    /// Asks to create a topic, or whether it could be created; gives the objection. A topic that exists is
    /// fine.
    ///
    /// An error: no answer. Counts that are not given are the broker's defaults, which the protocol writes as -1.
    fn ask_to_create(&self, topic: &NewTopic, options: &AdminOptions) -> Result<Option<Code>, BrokerError> {
        let number = |given: Option<u32>| given.and_then(|given| i32::try_from(given).ok()).unwrap_or(-1);
        let mut native =
            NativeTopic::new(&topic.name, number(topic.partitions), TopicReplication::Fixed(number(topic.replicas)));
        for (name, value) in &topic.config {
            native = native.set(name, value);
        }
        let admin = self.admin()?;
        let asked = admin.create_topics([&native], options);
        let answered = self.answered(asked);
        let answered =
            answered.map_err(|error| judge(&format!("the topic \"{}\" cannot be created", topic.name), &error))?;
        // One topic was asked for, so there is one answer.
        let objection = answered.into_iter().find_map(Result::err).map(|(_, code)| code);
        Ok(objection.filter(|code| *code != Code::TopicAlreadyExists))
    }

    /// The reason why a topic cannot be created, in words.
    ///
    /// With the command that helps, where a right is lacking.
    fn why_not(&self, topic: &NewTopic, code: Code) -> String {
        match code {
            Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
                self.user().lacks(&[Right::create_topic(&topic.name)])
            }
            code => code.to_string(),
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER_WAIT_MAX)).operation_timeout(Some(ANSWER_WAIT_MAX))
}

impl Admin for KafkaAdmin {
    fn topic(&mut self, name: &str) -> Result<Option<TopicInfo>, BrokerError> {
        let Some(partitions) = self.count(name)? else { return Ok(None) };
        // No more than the client's own limit, which holds for all topics.
        let limit = self.describe(name, "max.message.bytes")?.and_then(|limit| limit.parse().ok());
        let message_bytes_max = limit.unwrap_or(MESSAGE_BYTES_DEFAULT).min(RECORD_BYTES_MAX);
        Ok(Some(TopicInfo { partitions, message_bytes_max }))
    }

    fn partitions(&mut self, name: &str) -> Result<Option<i32>, BrokerError> {
        self.count(name)
    }

    fn look(&mut self, names: &[TopicName]) -> Result<Vec<Option<Seen>>, BrokerError> {
        let client = self.line.client();
        let mut seen = Vec::with_capacity(names.len());
        for names in names.chunks(LOOKED_AT_ONCE) {
            let answered = self.waited(|| describe::look(&client, names, LOOK_WAIT_MAX));
            seen.extend(answered.ok_or_else(|| BrokerError::Retriable("no answer about topics".to_owned()))?);
        }
        Ok(seen)
    }

    fn access(&mut self, topic: &str) -> Result<Access, BrokerError> {
        let everything = Access { read: true, write: true };
        let client = self.line.client();
        Ok(self.waited(|| describe::access(&client, topic, ANSWER_WAIT_MAX)).unwrap_or(everything))
    }

    fn topics(&mut self) -> Result<Vec<String>, BrokerError> {
        let asked = metadata::describe(&self.line, None, ANSWER_WAIT_MAX);
        let answered = asked.map_err(|error| judge("the list of topics", &error))?;
        let mut names: Vec<String> = answered.into_iter().map(|topic| topic.name).collect();
        names.sort();
        Ok(names)
    }

    fn setting(&mut self, topic: &str, name: &str) -> Result<Option<String>, BrokerError> {
        self.describe(topic, name)
    }

    fn create(&mut self, topic: &NewTopic) -> Result<(), BrokerError> {
        if let Some(code) = self.ask_to_create(topic, &options())? {
            let why = format!("the topic \"{}\" cannot be created: {}", topic.name, self.why_not(topic, code));
            return Err(match passes(code) {
                true => BrokerError::Retriable(why),
                false => BrokerError::Group(why),
            });
        }
        // Also if another worker was faster: from here on "unknown topic" is no answer.
        self.fresh.created(&topic.name);
        if self.count(&topic.name)?.is_some_and(|partitions| partitions > 0) {
            return Ok(());
        }
        Err(BrokerError::Retriable(format!("the topic \"{}\" was created and is not known yet", topic.name)))
    }

    fn objection(&mut self, topic: &NewTopic) -> Result<Option<String>, BrokerError> {
        let Some(code) = self.ask_to_create(topic, &options().validate_only(true))? else { return Ok(None) };
        match passes(code) {
            true => Err(BrokerError::Retriable(format!("the topic \"{}\": {code}", topic.name))),
            false => Ok(Some(self.why_not(topic, code))),
        }
    }

    fn user(&self) -> User {
        self.settings.identity()
    }
}
