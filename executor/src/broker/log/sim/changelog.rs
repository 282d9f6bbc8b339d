//! Reads changelogs of a simulated broker, when it answers.
//!
//! A restoration meets unanswered questions, reads in small pieces and the death of its process between any two of
//! them; records themselves come as the log has them.

use super::{Fault, Life, World};
use crate::broker::log::LogChangelog;
use crate::broker::{BrokerError, Changelog, Watermarks};
use crate::event::message::{Event, TopicName, TopicPartition};

/// The reader of changelogs of a simulated worker.
///
/// It belongs to one life, and ends with it.
pub struct SimChangelog {
    world: World,
    life: Life,
    log: LogChangelog,
}

impl SimChangelog {
    /// A reader that reads nothing yet.
    pub fn new(world: &World, life: &Life) -> SimChangelog {
        SimChangelog { world: world.clone(), life: life.clone(), log: world.log.changelog() }
    }

    /// A point where the process may die, or the question may stay without an answer.
    fn asked(&self, what: &str) -> Result<(), BrokerError> {
        self.world.step(&self.life, what)?;
        if self.world.hits(Fault::Unanswered) {
            self.world.takes(1, 500);
            return Err(BrokerError::Retriable(format!("{what} is not answered")));
        }
        Ok(())
    }
}

impl Changelog for SimChangelog {
    fn ends(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Watermarks>>, BrokerError> {
        self.asked("a question for the ends of changelogs")?;
        self.log.ends(partitions)
    }

    fn stable_end(&mut self, partition: &TopicPartition) -> Result<i64, BrokerError> {
        self.asked("a question for a changelog's stable end")?;
        self.log.stable_end(partition)
    }

    fn identity(&mut self, topic: &TopicName) -> Result<String, BrokerError> {
        self.log.identity(topic)
    }

    fn start(&mut self, at: &[(TopicPartition, i64)]) -> Result<(), BrokerError> {
        self.log.start(at)
    }

    fn stop(&mut self, partition: &TopicPartition) -> Result<(), BrokerError> {
        self.log.stop(partition)
    }

    fn poll(&mut self, max: usize, into: &mut Vec<Event>) -> Result<(), BrokerError> {
        self.asked("a read of changelogs")?;
        // Few at a time, so that a restoration takes several turns, with commits of others in between.
        let max = self.world.draw(|seed| 1 + seed.below(max.min(20)));
        self.log.poll(max, into)
    }

    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.log.position(partition)
    }
}
