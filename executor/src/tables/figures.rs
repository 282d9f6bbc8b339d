//! Tables for the status and metrics: how much was read and written, how many keys there are, and where they lie.

use kaspr_ir::plan::TableId;

use super::Tables;
use super::store::StoreError;

impl Tables {
    /// Reads of keys by user code, and writes and deletions that are committed, of a table.
    pub fn counts(&self, table: TableId) -> (u64, u64, u64) {
        let reads = self.reads.borrow().get(table.index()).copied().unwrap_or(0);
        let (writes, deletes) = self.written.get(table.index()).copied().unwrap_or_default();
        (reads, writes, deletes)
    }

    /// Committed keys of as many tables, in the plan's order, in the partitions that are whole here. `None`: they are
    /// not counted yet.
    pub fn keys(&self, tables: usize) -> Vec<Option<u64>> {
        let mut keys = vec![Some(0); tables];
        let mut add = |table: TableId, partition| {
            if let Some(sum) = keys.get_mut(table.index()) {
                *sum = sum.zip(self.store.keys(table, partition)).map(|(sum, keys)| sum + keys);
            }
        };
        match &self.held {
            Some(held) => held.iter().for_each(|&(table, partition)| add(table, partition)),
            None => {
                for table in (0..).map(TableId).take(tables) {
                    self.store.partitions(table).into_iter().for_each(|partition| add(table, partition));
                }
            }
        }
        keys
    }

    /// The reason for which tables live in memory until the next start, although a disk was to keep them.
    pub fn given_up(&self) -> Option<&StoreError> {
        self.given_up.as_ref()
    }
}
