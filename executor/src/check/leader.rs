//! The topic that says who leads the app: the worker that the group assigns its one partition.
//!
//! ```text
//! {app}-assignor-leader, partition 0    the topic and the rule of the reference runtime
//!    └─ cannot be made or read ─▶ the first partition that the app reads, by topic and number: its owner leads
//! ```
//!
//! A group has one owner of a partition at most, so it has one leader at most.

use tracing::info;

use crate::broker::rights::Right;
use crate::broker::{Access, Admin, BrokerError, NewTopic};
use crate::config::NewTopics;

/// The topic whose owner leads the app.
pub fn topic(app: &str) -> String {
    format!("{app}-assignor-leader")
}

/// The state of the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is there, and may be read.
    Usable,
    /// It is missing, and a run creates it.
    MadeByRun,
    /// Another rule must do, for this reason.
    Unusable(String),
}

/// Looks for the topic; `make` creates it where it is missing and may be created.
///
/// # Errors
///
/// The brokers do not answer.
pub fn prepare(topic: &str, (make, new): (bool, NewTopics), admin: &mut dyn Admin) -> Result<Found, BrokerError> {
    let is_there = match admin.partitions(topic) {
        Ok(count) => count.is_some(),
        Err(BrokerError::Retriable(why)) => return Err(BrokerError::Retriable(why)),
        // Brokers do not even tell those who may not read it whether it exists.
        Err(_) => {
            let rights = [Right::create_topic(topic), Right::read_topic(topic)];
            return Ok(Found::Unusable(admin.user().lacks(&rights)));
        }
    };
    if !is_there {
        if !new.may_create {
            let why = "it does not exist, and topicAllowDeclare (TOPIC_ALLOW_DECLARE) is false";
            return Ok(Found::Unusable(why.to_owned()));
        }
        let creation =
            NewTopic { name: topic.to_owned(), partitions: Some(1), replicas: new.replicas, config: Vec::new() };
        if !make {
            return Ok(admin.objection(&creation)?.map_or(Found::MadeByRun, Found::Unusable));
        }
        match admin.create(&creation) {
            Ok(()) => info!(topic, partitions = 1, "created the topic"),
            Err(BrokerError::Retriable(why)) => return Err(BrokerError::Retriable(why)),
            Err(error) => return Ok(Found::Unusable(error.to_string())),
        }
    }
    let lacks = Access::READ.lacks(admin.access(topic)?, topic);
    Ok(match lacks.is_empty() {
        true => Found::Usable,
        false => Found::Unusable(format!("it must be read: {}", admin.user().lacks(&lacks))),
    })
}

/// Says that another rule decides who leads, and why.
pub fn fallback(topic: &str, why: &str, first_read: Option<&str>) -> String {
    let instead = match first_read {
        Some(read) => format!("the worker that has partition 0 of \"{read}\" leads"),
        None => "no worker leads".to_owned(),
    };
    format!("no leader can be chosen by the topic \"{topic}\", so {instead}: {why}")
}
