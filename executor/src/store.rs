//! Where the committed state of tables lives, per table and partition.

use std::collections::BTreeMap;

use bytes::Bytes;
use kaspr_ir::plan::TableId;
use rustc_hash::FxHashMap;

use crate::effects::TableWrite;

/// Committed table state: encoded keys to encoded values.
pub trait Store {
    /// The value of a key.
    fn get(&self, table: TableId, partition: i32, key: &[u8]) -> Option<Bytes>;

    /// Makes the writes of a commit durable, in order.
    fn apply(&mut self, writes: &[TableWrite]);

    /// All pairs of a partition, in key order.
    fn pairs(&self, table: TableId, partition: i32) -> Vec<(Bytes, Bytes)>;

    /// Partitions of a table that hold something, sorted.
    fn partitions(&self, table: TableId) -> Vec<i32>;
}

/// A store in memory: it ends with the process.
#[derive(Debug, Default)]
pub struct MemoryStore {
    tables: FxHashMap<(TableId, i32), BTreeMap<Bytes, Bytes>>,
}

impl Store for MemoryStore {
    fn get(&self, table: TableId, partition: i32, key: &[u8]) -> Option<Bytes> {
        self.tables.get(&(table, partition))?.get(key).cloned()
    }

    fn apply(&mut self, writes: &[TableWrite]) {
        for write in writes {
            let pairs = self.tables.entry((write.table, write.partition)).or_default();
            match &write.value {
                Some(value) => pairs.insert(write.key.clone(), value.clone()),
                None => pairs.remove(&write.key),
            };
        }
    }

    fn pairs(&self, table: TableId, partition: i32) -> Vec<(Bytes, Bytes)> {
        let pairs = self.tables.get(&(table, partition));
        pairs.map(|pairs| pairs.iter().map(|(key, value)| (key.clone(), value.clone())).collect()).unwrap_or_default()
    }

    fn partitions(&self, table: TableId) -> Vec<i32> {
        let mut partitions: Vec<_> =
            self.tables.keys().filter(|(of, _)| *of == table).map(|(_, partition)| *partition).collect();
        partitions.sort_unstable();
        partitions
    }
}
