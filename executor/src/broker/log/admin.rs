//! Knows the topics of the in-memory log.
//!
//! The log has no settings of topics and no permissions: no setting is known, and every use of a topic is allowed.

use kaspr_ir::topics::is_topic_name;

use crate::broker::log::{Log, MESSAGE_BYTES_MAX, no_topic};
use crate::broker::{Admin, BrokerError, NewTopic, TopicInfo};
use crate::event::message::TopicName;

/// Knows the topics of a log.
///
/// Asking for a topic creates it where the log creates topics, as a client of Kafka could.
pub struct LogAdmin {
    log: Log,
}

impl LogAdmin {
    pub(super) fn new(log: Log) -> LogAdmin {
        LogAdmin { log }
    }
}

impl Admin for LogAdmin {
    fn topic(&mut self, name: &str) -> Result<Option<TopicInfo>, BrokerError> {
        let mut state = self.log.state.borrow_mut();
        let name: TopicName = name.into();
        if state.auto_create {
            state.ensure(&name);
        }
        Ok(state
            .topics
            .get(&name)
            .map(|topic| TopicInfo { partitions: topic.count(), message_bytes_max: MESSAGE_BYTES_MAX }))
    }

    fn topics(&mut self) -> Result<Vec<String>, BrokerError> {
        Ok(self.log.topics().into_iter().map(|(name, _)| name.to_string()).collect())
    }

    fn setting(&mut self, _: &str, _: &str) -> Result<Option<String>, BrokerError> {
        Ok(None)
    }

    fn create(&mut self, topic: &NewTopic) -> Result<(), BrokerError> {
        if !is_topic_name(&topic.name) {
            return Err(BrokerError::Fatal(no_topic(&topic.name)));
        }
        let partitions = topic.partitions.and_then(|partitions| i32::try_from(partitions).ok());
        // The borrow ends here: `create` borrows the state itself.
        let default = self.log.state.borrow().default_partitions;
        self.log.create(&topic.name, partitions.unwrap_or(default));
        Ok(())
    }
}
