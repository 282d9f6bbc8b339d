//! Where the committed state of tables lives, per table and partition.

use std::collections::BTreeMap;

use bytes::Bytes;
use kaspr_ir::plan::TableId;
use rustc_hash::FxHashMap;

use crate::effects::TableWrite;

/// How far a store has followed a table's changelog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangelogPosition {
    /// The table.
    pub table: TableId,
    /// The partition of the state and of the changelog.
    pub partition: i32,
    /// The next offset of the changelog that the store does not hold.
    pub offset: i64,
}

/// Committed table state: encoded keys to encoded values.
pub trait Store {
    /// The value of a key.
    fn get(&self, table: TableId, partition: i32, key: &[u8]) -> Option<Bytes>;

    /// Makes the writes of a commit and the positions that belong to them durable, in order and in
    /// one write: all of it or nothing survives a crash.
    fn apply(&mut self, writes: &[&[TableWrite]], positions: &[ChangelogPosition]);

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

    fn apply(&mut self, writes: &[&[TableWrite]], _: &[ChangelogPosition]) {
        for write in writes.iter().copied().flatten() {
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
