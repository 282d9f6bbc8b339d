//! The keys that an event has read in tables: it must run again if an event before it writes one of them
//! meanwhile.

use std::cell::RefCell;

use kaspr_ir::plan::TableId;
use rustc_hash::FxHashMap;

use crate::event::kept::Kept;

/// The state of the tables at a time: it grows with every event whose writes are staged.
pub type Version = u64;

/// A key of a table, or all of its keys.
type Place = (TableId, i32, Option<Kept>);

/// Keys with the state in which they were read first.
#[derive(Debug, Default)]
pub struct Reads(RefCell<FxHashMap<Place, Version>>);

impl Reads {
    /// Notes that a key was read; `None`: all keys were.
    pub fn note(&self, table: TableId, partition: i32, key: Option<&[u8]>, now: Version) {
        let key = key.map(Kept::from);
        self.0.borrow_mut().entry((table, partition, key)).or_insert(now);
    }

    /// True if `is_as_read` holds for all that was read.
    pub fn all(&self, is_as_read: impl Fn(TableId, i32, Option<&[u8]>, Version) -> bool) -> bool {
        let reads = self.0.borrow();
        reads.iter().all(|((table, partition, key), seen)| is_as_read(*table, *partition, key.as_deref(), *seen))
    }

    /// Bytes that it holds.
    pub fn size(&self) -> usize {
        let reads = self.0.borrow();
        let keys: usize = reads.keys().filter_map(|(_, _, key)| key.as_ref()).map(|key| key.len()).sum();
        keys + reads.len() * std::mem::size_of::<(Place, Version)>()
    }
}
