//! Where the committed state of tables lives, per table and partition.
//!
//! A store is a copy of what the changelogs say, and nothing but a copy: whatever is in doubt is
//! wiped and built anew from them. So it needs no fsync, only that a write is taken whole or not at
//! all, and that it knows its own *position*: the next offset of the changelog that it does not hold.

mod durable;
mod memory;

use bytes::Bytes;
use kaspr_ir::plan::TableId;

use crate::event::effects::TableWrite;

pub use durable::{DurableStore, OpenError};
pub use memory::MemoryStore;

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

/// What a store knows of itself in one partition of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// The next offset of the changelog that it does not hold.
    pub offset: i64,
    /// When it last held everything up to the changelog's end, in ms since 1970.
    pub seen_ms: i64,
    /// Which topic the changelog was: one that is made anew under its name is another. Empty where
    /// nobody tells.
    pub topic: String,
}

/// A store that cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// Committed table state: encoded keys to encoded values.
pub trait Store {
    /// The value of a key.
    fn get(&self, table: TableId, partition: i32, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// All pairs of a partition, in key order.
    fn pairs(&self, table: TableId, partition: i32) -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// Partitions of a table that hold something, sorted.
    fn partitions(&self, table: TableId) -> Vec<i32>;

    /// Makes the writes of a commit and the positions that belong to them durable, in order and in
    /// one write: all of it or nothing survives a crash.
    fn apply(&mut self, writes: &[&[TableWrite]], positions: &[ChangelogPosition]) -> Result<(), StoreError>;

    /// What it knows of itself; `None`: nothing that could be trusted.
    fn followed(&self, table: TableId, partition: i32) -> Result<Option<Followed>, StoreError>;

    /// From here on positions of this partition are those of this topic.
    fn follow(&mut self, table: TableId, partition: i32, topic: &str);

    /// Notes that it holds everything up to the changelog's end, which it does at every write.
    fn touch(&mut self, table: TableId, partition: i32) -> Result<(), StoreError>;

    /// Wipes a partition: its changelog builds it anew.
    fn clear(&mut self, table: TableId, partition: i32) -> Result<(), StoreError>;

    /// The partition is another worker's: memory lets go of it, a disk keeps it for its return.
    fn release(&mut self, table: TableId, partition: i32);

    /// Nothing of it may be trusted ever again.
    fn condemn(&mut self);

    /// Wipes all of it and begins again where it was; an error where that cannot be.
    fn renew(&mut self) -> Result<(), StoreError> {
        self.condemn();
        Err(StoreError("it was given up".to_owned()))
    }
}

#[cfg(test)]
mod tests;
