//! Knows the topics of a simulated broker, when it answers.
//!
//! Only the question for partitions may stay without an answer.

use super::{Fault, World};
use crate::broker::log::LogAdmin;
use crate::broker::{Admin, BrokerError, NewTopic, TopicInfo};

/// Knows the topics of a simulated broker.
///
/// It belongs to no life, so no process dies in a call of it.
pub struct SimAdmin {
    world: World,
    log: LogAdmin,
}

impl SimAdmin {
    /// Asks the world's log.
    pub fn new(world: &World) -> SimAdmin {
        SimAdmin { world: world.clone(), log: world.log.admin() }
    }
}

impl Admin for SimAdmin {
    fn topic(&mut self, name: &str) -> Result<Option<TopicInfo>, BrokerError> {
        self.log.topic(name)
    }

    fn partitions(&mut self, name: &str) -> Result<Option<i32>, BrokerError> {
        if self.world.hits(Fault::Unanswered) {
            self.world.takes(1, 5000);
            return Err(BrokerError::Retriable("the broker does not name the partitions".to_owned()));
        }
        self.log.partitions(name)
    }

    fn topics(&mut self) -> Result<Vec<String>, BrokerError> {
        self.log.topics()
    }

    fn setting(&mut self, topic: &str, name: &str) -> Result<Option<String>, BrokerError> {
        self.log.setting(topic, name)
    }

    fn create(&mut self, topic: &NewTopic) -> Result<(), BrokerError> {
        self.log.create(topic)
    }
}
