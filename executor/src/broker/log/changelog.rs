//! Reads changelogs that are kept in the log.
//!
//! It belongs to no group and commits nothing. Topics have no ids here: every identity is
//! empty.

use std::collections::BTreeMap;

use crate::broker::log::Log;
use crate::broker::log::topic::Topic;
use crate::broker::{BrokerError, Changelog, Watermarks};
use crate::event::message::{Event, TopicName, TopicPartition};

/// A reader of changelogs in a log.
///
/// Partitions that are read, and the next offset of each.
pub struct LogChangelog {
    log: Log,
    positions: BTreeMap<TopicPartition, i64>,
}

impl LogChangelog {
    pub(super) fn new(log: Log) -> LogChangelog {
        LogChangelog { log, positions: BTreeMap::new() }
    }

    /// Asks about the topic of a partition; an error where topic or partition do not exist.
    fn ask<T>(&self, partition: &TopicPartition, ask: impl Fn(&Topic) -> Option<T>) -> Result<T, BrokerError> {
        let state = self.log.state.borrow();
        let answer = state.topics.get(&partition.topic).and_then(ask);
        answer.ok_or_else(|| BrokerError::Fatal(format!("the partition {partition} does not exist")))
    }
}

impl Changelog for LogChangelog {
    fn ends(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Watermarks>>, BrokerError> {
        let ends = |partition: &TopicPartition| self.ask(partition, |topic| topic.ends(partition.partition));
        partitions.iter().map(|partition| ends(partition).map(Some)).collect()
    }

    fn stable_end(&mut self, partition: &TopicPartition) -> Result<i64, BrokerError> {
        self.ask(partition, |topic| topic.watermarks(partition.partition)).map(|marks| marks.high)
    }

    fn identity(&mut self, _: &TopicName) -> Result<String, BrokerError> {
        // No topic of a log is deleted, so no other one ever takes its name.
        Ok(String::new())
    }

    fn start(&mut self, at: &[(TopicPartition, i64)]) -> Result<(), BrokerError> {
        self.positions.extend(at.iter().cloned());
        Ok(())
    }

    fn stop(&mut self, partition: &TopicPartition) -> Result<(), BrokerError> {
        self.positions.remove(partition);
        Ok(())
    }

    fn poll(&mut self, max: usize, into: &mut Vec<Event>) -> Result<(), BrokerError> {
        let state = self.log.state.borrow();
        for (partition, position) in &mut self.positions {
            // Every poll begins with the first partition: the others get their turn when it has nothing more to read.
            let left = max.saturating_sub(into.len());
            let Some(topic) = state.topics.get(&partition.topic).filter(|_| left > 0) else { continue };
            *position = topic.read(&partition.topic, partition.partition, *position, left, into);
        }
        Ok(())
    }

    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.positions.get(partition).copied()
    }
}
