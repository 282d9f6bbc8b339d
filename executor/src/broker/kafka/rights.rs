//! Asks whether this user may do what workers do, without doing it.
//!
//! A broker says what is allowed in a group, but of a transactional id only a producer that begins under it
//! learns whether it may be used, and that ends the producer that is there. So the question is one that the
//! broker refuses for another reason: transactions that may last longer than brokers allow. It checks the
//! permission first, then the time, and changes nothing. A broker that has no such limit would let the
//! producer begin; so it is asked first about an id that no worker has.
//!
//! ```text
//! InitProducerId with a timeout of 24 days ─┬─ no right to the id:  TRANSACTIONAL_ID_AUTHORIZATION_FAILED   Denied
//!                                           ├─ the broker's limit:  INVALID_TRANSACTION_TIMEOUT             Refused
//!                                           └─ no limit:            a producer id                           Begun
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
use tracing::debug;

use super::ANSWER_WAIT_MAX;
use super::client::{Client, Line};
use super::config::ClientSettings;
use super::context::Health;
use super::describe::access;
use super::errors::{code, judge, passes, words};
use super::fence::members;
use super::groups;
use super::kept::Kept;
use crate::broker::BrokerError;
use crate::broker::rights::Right;
use crate::guard::ClientCall;

/// Longer than a transaction may last anywhere: 24 days; brokers allow 15 minutes by default.
const TOO_LONG_MS: &str = "2147483647";
/// Most questions about a group, and the pause between two of them.
const ASKED_MAX: u32 = 40;
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// Transactional ids that are asked about.
///
/// Made by the command line from the names of app, instance and workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Made as those of workers are, and used by none.
    pub unused: String,
    /// The ids of the workers, where they are known before they begin.
    pub lasting: Vec<String>,
}

/// The answer about a right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The user has it.
    Granted,
    /// The user lacks it.
    Missing,
    /// It cannot be asked for, and why.
    Unknown(String),
}

/// Asks for the rights on the group and on transactions.
///
/// The group first, then transactions where the guarantee needs them. An error: no answer.
pub fn ask(line: &Line, settings: &ClientSettings, ids: &Ids) -> Result<Vec<(Right, Verdict)>, BrokerError> {
    let app = &settings.app;
    let group = on_group(line, settings)?;
    let mut asked = Vec::new();
    if settings.is_exact() {
        asked.push((Right::transact(app), on_transactions(line, settings, ids, &group)?));
    }
    asked.insert(0, (Right::join(app), group));
    Ok(asked)
}

/// A broker that does not say counts as one that allows it.
fn on_group(line: &Line, settings: &ClientSettings) -> Result<Verdict, BrokerError> {
    let client = line.client();
    let ask =
        || line.calls.during(ClientCall::Admin, || groups::access(client.client(), &settings.app, ANSWER_WAIT_MAX));
    let mut answer = ask();
    for _ in 1..ASKED_MAX {
        // A coordinator that has just been made does not answer at once.
        if !answer.as_ref().is_err_and(|code| passes(*code)) {
            break;
        }
        std::thread::park_timeout(ASK_AGAIN);
        answer = ask();
    }
    match answer {
        Ok(Some(access)) if !access.read => Ok(Verdict::Missing),
        Ok(_) => Ok(Verdict::Granted),
        Err(Code::GroupAuthorizationFailed) => Ok(Verdict::Missing),
        Err(code) => Err(judge(&format!("the group \"{}\"", settings.app), &KafkaError::AdminOp(code))),
    }
}

/// The outcome of a try to begin as a producer.
///
/// See the drawing above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tried {
    /// The user may not.
    Denied,
    /// The user may, and nothing has changed.
    Refused,
    /// The user may, and the broker has given out a producer.
    Begun,
}

/// Asks about the unused id first: it stands for all, unless single ids are allowed.
fn on_transactions(line: &Line, settings: &ClientSettings, ids: &Ids, group: &Verdict) -> Result<Verdict, BrokerError> {
    let asked: Vec<&String> = match try_id(line, settings, &ids.unused)? {
        Tried::Begun => return Ok(Verdict::Granted),
        // A rule for a prefix may allow the unused id, and another one still deny single ids.
        Tried::Refused => ids.lasting.iter().collect(),
        Tried::Denied if ids.lasting.is_empty() => return Ok(Verdict::Missing),
        // Single ids may be allowed. A worker that runs under one may use it, and is left alone.
        Tried::Denied if *group == Verdict::Granted => {
            let running = running(line, settings)?;
            ids.lasting.iter().filter(|id| !running.contains(*id)).collect()
        }
        Tried::Denied => {
            return Ok(Verdict::Unknown("a worker may run under them, which only members of the group see".to_owned()));
        }
    };
    for id in asked {
        if try_id(line, settings, id)? == Tried::Denied {
            return Ok(Verdict::Missing);
        }
    }
    Ok(Verdict::Granted)
}

/// The ids of producers whose workers are members now.
fn running(line: &Line, settings: &ClientSettings) -> Result<BTreeSet<String>, BrokerError> {
    let client = line.client();
    let running = members((settings, &line.calls), client.client());
    running.map_err(|error| judge(&format!("the members of the group \"{}\"", settings.app), &error))
}

/// The client is made for this question and ends with it.
fn try_id(line: &Line, settings: &ClientSettings, id: &str) -> Result<Tried, BrokerError> {
    let mut config = settings.successor(id);
    config.set("transaction.timeout.ms", TOO_LONG_MS);
    let begin = || {
        let producer: Kept<BaseProducer<Quiet>> = Kept::make(&line.calls, || config.create_with_context(Quiet))?;
        settings.admit(producer.client());
        line.calls.during(ClientCall::InitTransactions, || producer.init_transactions(ANSWER_WAIT_MAX))
    };
    match begin() {
        Ok(()) => Ok(Tried::Begun),
        Err(error) => match code(&error) {
            Some(Code::TransactionalIdAuthorizationFailed) => Ok(Tried::Denied),
            Some(Code::InvalidTransactionTimeout) => Ok(Tried::Refused),
            _ => Err(BrokerError::Fatal(format!("transactions do not begin: {}", words(&error)))),
        },
    }
}

/// Rights whose lack is the reason of an error on the way to a commit: no event is to blame for it. `reads`
/// are the topics that are read.
///
/// Empty for any other error, and where all of them are there. Asks about each topic in turn.
pub fn lacking(client: &Client, settings: &ClientSettings, code: Option<Code>, reads: &[&str]) -> Vec<Right> {
    match code {
        Some(Code::TransactionalIdAuthorizationFailed) => vec![Right::transact(&settings.app)],
        Some(Code::GroupAuthorizationFailed) => vec![Right::join(&settings.app)],
        Some(Code::TopicAuthorizationFailed) => {
            let lacks = |topic: &&str| access(client, topic, ANSWER_WAIT_MAX).is_some_and(|access| !access.read);
            reads.iter().copied().filter(lacks).map(Right::read_topic).collect()
        }
        _ => Vec::new(),
    }
}

/// Takes the refusal, which is expected, without a warning.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Health::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "refused");
    }
}

impl ProducerContext for Quiet {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &rdkafka::message::DeliveryResult<'_>, (): ()) {}
}
