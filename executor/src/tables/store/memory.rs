//! A store in memory: it ends with the process. Its state comes from the changelogs at every start, or from
//! nothing in local runs and tests.

use kaspr_ir::plan::TableId;
use rustc_hash::FxHashMap;

use super::{ChangelogPosition, Followed, Store, StoreError};
use crate::event::effects::TableWrite;
use crate::event::kept::Kept;

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    tables: FxHashMap<(TableId, i32), Held>,
}

/// One partition of a table.
#[derive(Debug, Default)]
struct Held {
    pairs: FxHashMap<Kept, Kept>,
    /// `None` until a first position was applied.
    followed: Option<Followed>,
    /// The id that the next position gets.
    topic: String,
}

impl Store for MemoryStore {
    fn get(&self, table: TableId, partition: i32, key: &[u8]) -> Result<Option<Kept>, StoreError> {
        Ok(self.tables.get(&(table, partition)).and_then(|held| held.pairs.get(key)).cloned())
    }

    fn pairs(&self, table: TableId, partition: i32) -> Result<Vec<(Kept, Kept)>, StoreError> {
        let pairs = self.tables.get(&(table, partition)).into_iter().flat_map(|held| &held.pairs);
        let mut pairs: Vec<_> = pairs.map(|(key, value)| (key.clone(), value.clone())).collect();
        // Keys are found by their hash for every event, and put in order only where all are asked for.
        pairs.sort_unstable();
        Ok(pairs)
    }

    fn partitions(&self, table: TableId) -> Vec<i32> {
        let mut partitions: Vec<_> =
            self.tables.keys().filter(|(of, _)| *of == table).map(|(_, partition)| *partition).collect();
        partitions.sort_unstable();
        partitions
    }

    fn keys(&self, table: TableId, partition: i32) -> Option<u64> {
        Some(self.tables.get(&(table, partition)).map_or(0, |held| held.pairs.len() as u64))
    }

    fn apply(&mut self, writes: &[&[TableWrite]], positions: &[ChangelogPosition]) -> Result<(), StoreError> {
        for write in writes.iter().copied().flatten() {
            let pairs = &mut self.tables.entry((write.table, write.partition)).or_default().pairs;
            match &write.value {
                Some(value) => pairs.insert(write.key.clone(), value.clone()),
                None => pairs.remove(&write.key),
            };
        }
        for position in positions {
            let held = self.tables.entry((position.table, position.partition)).or_default();
            // This copy never grows old: it ends with the process that feeds it.
            held.followed = Some(Followed { offset: position.offset, seen_ms: i64::MAX, topic: held.topic.clone() });
        }
        Ok(())
    }

    fn followed(&self, table: TableId, partition: i32) -> Result<Option<Followed>, StoreError> {
        Ok(self.tables.get(&(table, partition)).and_then(|held| held.followed.clone()))
    }

    fn follow(&mut self, table: TableId, partition: i32, topic: &str) {
        topic.clone_into(&mut self.tables.entry((table, partition)).or_default().topic);
    }

    fn touch(&mut self, _: TableId, _: i32) -> Result<(), StoreError> {
        Ok(())
    }

    fn clear(&mut self, table: TableId, partition: i32) -> Result<(), StoreError> {
        self.tables.remove(&(table, partition));
        Ok(())
    }

    fn release(&mut self, table: TableId, partition: i32) {
        self.tables.remove(&(table, partition));
    }

    fn discard(&mut self) {
        self.tables.clear();
    }

    fn renew(&mut self) -> Result<(), StoreError> {
        self.tables.clear();
        Ok(())
    }
}
