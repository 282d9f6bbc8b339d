//! Warns if the group's offsets and its tables do not belong together: otherwise state would silently start
//! empty, or events would silently be counted twice.
//!
//! | offsets of the group | changelog | the log says |
//! |---|---|---|
//! | none | holds data | events are counted again, on top of it |
//! | some | empty | the table starts without the events before them |
//! | of another program | - | every reader goes on from there |
//!
//! Only warnings: each state can be meant (a reset, a new input), so the worker goes on. Each is given once
//! per topic and table.

use std::collections::BTreeSet;

use kaspr_ir::plan::TableId;
use tracing::{debug, warn};

use super::Worker;
use crate::assignment::Takeover;
use crate::broker::BrokerError;
use crate::code::Code;
use crate::event::message::{TopicName, TopicPartition};

/// Restart warnings already given, and topics that may still cause one. A part of the worker; it lives as
/// long, so a partition that comes back warns of nothing twice.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    /// Topics, with tables, whose offsets were the subject of a warning.
    warned: BTreeSet<(TopicName, Option<TableId>)>,
    /// Topics without commits when the first of their partitions started, while others of them still wait.
    uncommitted: BTreeSet<TopicName>,
}

impl<C: Code> Worker<C> {
    /// Compares what the group had committed in partitions that came with the tables that depend on them.
    /// Called when partitions were taken over, before their first event runs.
    pub(super) fn warn_of_restarts(&mut self, takeover: &Takeover) {
        let group = self.config.app.clone();
        for (topic, (partition, offset)) in &takeover.foreign {
            if self.restarts.warned.insert((topic.clone(), None)) {
                warn!(
                    "the offsets of the group \"{group}\" in the topic \"{topic}\" (partition {partition} at {offset}) were committed by another program, or by a reset: every reader goes on from there, and tables keep what they hold; if it was no reset, end the other program, or name the app otherwise (--app)"
                );
            }
        }
        if !self.restore.has_changelogs() {
            return;
        }
        // Partitions start one by one as their tables are restored: by the time the second starts, this
        // worker itself has committed in the topic.
        self.restarts.uncommitted.extend(takeover.without_commits.iter().cloned());
        for topic in &self.restarts.uncommitted.clone() {
            for table in self.restore.tables_of(topic) {
                let is_told = self.restarts.warned.contains(&(topic.clone(), Some(table)));
                if !is_told && self.restore.has_data(table) && !self.has_read_other_inputs(table, topic) {
                    self.restarts.warned.insert((topic.clone(), Some(table)));
                    let (name, changelog) = self.restore.name(table);
                    warn!(
                        "the group \"{group}\" has no committed offsets in the topic \"{topic}\", and the changelog \"{changelog}\" of the table \"{name}\" holds data: events that were counted before are counted again, on top of it; to begin anew, stop all workers and delete the changelog, or else reset the group's offsets to where it had come"
                    );
                }
            }
        }
        let waiting = || self.arrivals.names().iter().chain(&takeover.leaderless);
        self.restarts.uncommitted.retain(|topic| waiting().any(|name| name.topic == *topic));
        for topic in &takeover.read {
            for table in self.restore.tables_of(topic) {
                if self.restarts.warned.insert((topic.clone(), Some(table))) && self.is_empty(table) {
                    let (name, changelog) = self.restore.name(table);
                    warn!(
                        "the group \"{group}\" has committed offsets in the topic \"{topic}\", and the changelog \"{changelog}\" of the table \"{name}\" is empty: the table starts empty, without the events before these offsets; if it held data, its changelog was deleted: stop all workers, and reset the group's offsets of its inputs to build it from them again"
                    );
                }
            }
        }
    }

    /// True if the group has commits in another topic that feeds the table: then this one was merely added to
    /// it. Asks the broker. An input whose offsets are not known counts as not read: then there may be one
    /// warning too many.
    fn has_read_other_inputs(&mut self, table: TableId, topic: &TopicName) -> bool {
        for other in self.restore.inputs_of(table).into_iter().filter(|other| **other != **topic) {
            let asked = self.shared.directory.partitions(&other).and_then(|count| {
                let partitions = 0..count.unwrap_or(0);
                let names: Vec<_> = partitions.map(|number| TopicPartition::new(other.as_str(), number)).collect();
                self.consumer.committed(&names)
            });
            match asked {
                Ok(committed) if committed.iter().all(Option::is_none) => {}
                Ok(_) => return true,
                Err(why) => debug!("the group's offsets in \"{other}\" are not known: {why}"),
            }
        }
        false
    }

    /// True if no partition of the table's changelog holds anything. Asks the broker only where a
    /// partition began empty and no data was found so far; if it does not answer, there is no warning.
    fn is_empty(&mut self, table: TableId) -> bool {
        if self.restore.has_data(table) || !self.restore.has_begun_empty(table) {
            return false;
        }
        let (_, changelog) = self.restore.name(table);
        let asked: Result<bool, BrokerError> = self
            .shared
            .directory
            .partitions(&changelog)
            .and_then(|count| self.restore.is_empty(table, count.unwrap_or(0)));
        asked.unwrap_or_else(|why| {
            debug!("the ends of \"{changelog}\" are not known: {why}");
            false
        })
    }
}
