//! Restorations for the status and metrics: the tables, and how far each is.

use kaspr_ir::plan::TableId;

use super::session::percent;
use super::{Part, Restore, Restoring};
use crate::event::message::{TopicName, TopicPartition};

impl Restore {
    /// Names of all tables, with their numbers.
    pub fn names(&self) -> impl Iterator<Item = (TableId, &str)> {
        (0..).map(TableId).zip(self.tables.iter().map(|kept| kept.name.as_str()))
    }

    /// Records of a table that were read from its changelog.
    pub fn restored(&self, table: TableId) -> u64 {
        self.restored.get(&table).copied().unwrap_or(0)
    }

    /// The share of a table's partitions here that is whole, from 0 to 1. 1 where none is asked for; `None`: there are
    /// no changelogs.
    pub fn ratio(&self, table: TableId) -> Option<f64> {
        self.changelog.as_ref()?;
        let parts = self.parts.keys().filter(|(of, _)| *of == table);
        let percents: Vec<f64> = parts
            .map(|&(table, partition)| self.restoring(table, partition).map_or(100.0, |part| f64::from(part.percent)))
            .collect();
        Some(if percents.is_empty() { 1.0 } else { percents.iter().sum::<f64>() / percents.len() as f64 / 100.0 })
    }

    /// The changelogs' partitions whose tables are here, whole or not.
    pub fn held(&self) -> impl Iterator<Item = (&TopicName, i32)> {
        self.parts.keys().map(|&(table, partition)| (&self.tables[table.index()].topic, partition))
    }

    /// The partitions of tables that are not whole, and how far each is.
    pub fn progress(&self) -> Vec<Restoring> {
        self.parts.keys().filter_map(|&(table, partition)| self.restoring(table, partition)).collect()
    }

    /// The first table that this partition of an input waits for.
    ///
    /// `None` if it waits for none: for the stall report and the status.
    pub fn holds(&self, name: &TopicPartition) -> Option<Restoring> {
        let beside = self.beside(&name.topic).into_iter().map(|table| (table, name.partition));
        let global = self.fed().into_iter().map(|table| (table, 0));
        global.chain(beside).find_map(|(table, partition)| self.restoring(table, partition))
    }

    /// Describes a partition of a table, unless it is whole or not asked for.
    fn restoring(&self, table: TableId, partition: i32) -> Option<Restoring> {
        let (percent, at) = match self.parts.get(&(table, partition))? {
            Part::Wanted => (0, 0),
            Part::Reading(reading) => (percent(reading.at - reading.from, reading.to - reading.from), reading.at),
            Part::Whole => return None,
        };
        Some(Restoring { table: self.tables[table.index()].name.clone(), partition, percent, at })
    }
}
