//! The topic that says who leads the app: the worker that the group assigns its one partition.
//!
//! ```text
//! {app}-assignor-leader, partition 0    the topic and the rule of the reference runtime
//!    └─ cannot be made or read ─▶ the first partition that the app reads, by topic and number: its owner leads
//! ```
//!
//! A group has one owner of a partition at most, so it has one leader at most.

use tracing::{info, warn};

use crate::broker::rights::Right;
use crate::broker::{Access, Admin, BrokerError, NewTopic};
use crate::config::NewTopics;

/// The topic whose owner leads the app.
pub fn topic(app: &str) -> String {
    format!("{app}-assignor-leader")
}

/// Looks for the topic, and makes it where it is missing and may be made. `None`: it is there, and may be read; else
/// the reason for which another rule must do.
///
/// # Errors
///
/// The brokers do not answer.
pub fn prepare(topic: &str, new: NewTopics, admin: &mut dyn Admin) -> Result<Option<String>, BrokerError> {
    let is_there = match admin.partitions(topic) {
        Ok(count) => count.is_some(),
        Err(BrokerError::Retriable(why)) => return Err(BrokerError::Retriable(why)),
        // Brokers do not even tell those who may not read it whether it exists.
        Err(_) => {
            let rights = [Right::create_topic(topic), Right::read_topic(topic)];
            return Ok(Some(admin.user().lacks(&rights)));
        }
    };
    if !is_there {
        if !new.may_create {
            return Ok(Some("it does not exist, and topicAllowDeclare (TOPIC_ALLOW_DECLARE) is false".to_owned()));
        }
        let creation =
            NewTopic { name: topic.to_owned(), partitions: Some(1), replicas: new.replicas, config: Vec::new() };
        match admin.create(&creation) {
            Ok(()) => info!(topic, partitions = 1, "created the topic"),
            Err(BrokerError::Retriable(why)) => return Err(BrokerError::Retriable(why)),
            Err(error) => return Ok(Some(error.to_string())),
        }
    }
    let lacks = Access::READ.lacks(admin.access(topic)?, topic);
    Ok((!lacks.is_empty()).then(|| format!("it must be read: {}", admin.user().lacks(&lacks))))
}

/// Warns that another rule decides who leads.
pub fn warn_of(topic: &str, why: &str, instead: Option<&str>) {
    let instead = match instead {
        Some(read) => format!("the worker that has partition 0 of \"{read}\" leads"),
        None => "no worker leads".to_owned(),
    };
    warn!("no leader can be chosen by the topic \"{topic}\", so {instead}: {why}");
}
