//! Stores: they hold the committed state of tables, per table and partition.
//!
//! A store is a copy of the changelogs, and nothing but a copy: what cannot be trusted is wiped and restored
//! from them. So it needs no fsync, only that a write is taken whole or not at all, and that it knows its own
//! *position*: the next offset of the changelog that it does not hold.
//!
//! | store | holds | survives |
//! |---|---|---|
//! | [`MemoryStore`] | a map per partition | nothing: it is restored at every start |
//! | [`DurableStore`] | an LSM tree on the disk (`--state-dir`) | a kill whole; a power cut up to the last commits |
//!
//! A third one implements [`Store`], and `Assembly::with_store` takes it.

mod census;
mod durable;
mod memory;

use kaspr_ir::plan::TableId;

use crate::event::effects::TableWrite;
use crate::event::kept::Kept;

pub use durable::{DurableStore, OpenError};
pub use memory::MemoryStore;

/// The position up to which a store has followed a table's changelog. It counts everything in the log:
/// records, markers, and offsets that compaction has emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangelogPosition {
    /// The table.
    pub table: TableId,
    /// The partition of the state and of the changelog.
    pub partition: i32,
    /// The next offset of the changelog that the store does not hold.
    pub offset: i64,
}

/// The state of a store's copy of one partition of a table. Restoring decides by it whether the copy can be
/// trusted: see `restore/distrust.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// The next offset of the changelog that it does not hold.
    pub offset: i64,
    /// The time at which it last held everything up to the changelog's end, in ms since 1970.
    pub seen_ms: i64,
    /// The id of the changelog's topic: a topic that was recreated with the same name has another. Empty if
    /// the broker does not report one.
    pub topic: String,
}

/// A store that cannot be read or written. The text is the store's own, for a log line. The worker does not
/// tell kinds apart: it rebuilds the copy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// Committed table state: encoded keys to encoded values. One caller, [`Tables`](super::Tables), from one
/// thread. Keys and values are bytes as `code` encoded them; a store gives them no meaning.
pub trait Store {
    /// The value of a key.
    fn get(&self, table: TableId, partition: i32, key: &[u8]) -> Result<Option<Kept>, StoreError>;

    /// All pairs of a partition, in key order. The order is that of the encoded bytes.
    fn pairs(&self, table: TableId, partition: i32) -> Result<Vec<(Kept, Kept)>, StoreError>;

    /// Partitions of a table that hold something, sorted. For the files of a local run; an error counts as
    /// nothing found.
    fn partitions(&self, table: TableId) -> Vec<i32>;

    /// The number of keys of a partition, perhaps as of some time ago; `None`: they are not counted, or not yet. It
    /// takes no time.
    fn keys(&self, table: TableId, partition: i32) -> Option<u64> {
        let _ = (table, partition);
        None
    }

    /// Makes the writes of a commit and the positions that belong to them durable, in order and in
    /// one write: all of it or nothing survives a crash.
    ///
    /// `writes` are slices one after the other; of a key that is written several times the last write counts.
    fn apply(&mut self, writes: &[&[TableWrite]], positions: &[ChangelogPosition]) -> Result<(), StoreError>;

    /// The state of its copy; `None` if it has none that could be trusted. A position without its data, or
    /// data without a position, must not be possible: `apply` writes both at once, and `clear` removes the
    /// position first.
    fn followed(&self, table: TableId, partition: i32) -> Result<Option<Followed>, StoreError>;

    /// Sets the id of the topic that positions of this partition belong to from here on. Call it before the
    /// first `apply` of the partition.
    fn follow(&mut self, table: TableId, partition: i32, topic: &str);

    /// Notes that it holds everything up to the changelog's end; every write notes that too. Without it the
    /// copy of a quiet table would look old, and its deletions in doubt.
    fn touch(&mut self, table: TableId, partition: i32) -> Result<(), StoreError>;

    /// Wipes a partition: it is restored from its changelog. Interrupted by a crash, it leaves a partition
    /// without a position, which the next start wipes.
    fn clear(&mut self, table: TableId, partition: i32) -> Result<(), StoreError>;

    /// Gives up a partition that another worker now owns: memory drops it, a disk keeps it for its return.
    fn release(&mut self, table: TableId, partition: i32);

    /// Wipes everything for good: nothing of it may be trusted. Later calls of a store on the disk fail; one
    /// in memory goes on empty.
    fn discard(&mut self);

    /// Wipes everything and opens an empty store in the same place; an error if that cannot be done. The
    /// default says that a store cannot.
    fn renew(&mut self) -> Result<(), StoreError> {
        self.discard();
        Err(StoreError("it was given up".to_owned()))
    }
}

#[cfg(test)]
mod tests;
