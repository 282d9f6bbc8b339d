//! The disk of a simulated worker: what was written to it is there when the next one starts.

use std::cell::RefCell;
use std::rc::Rc;

use kaspr_exec::event::effects::TableWrite;
use kaspr_exec::event::kept::Kept;
use kaspr_exec::tables::store::{ChangelogPosition, Followed, MemoryStore, Store, StoreError};
use kaspr_ir::plan::TableId;

/// A store that outlives its worker.
#[derive(Clone, Default)]
pub struct Disk(Rc<RefCell<MemoryStore>>);

impl Store for Disk {
    fn get(&self, table: TableId, partition: i32, key: &[u8]) -> Result<Option<Kept>, StoreError> {
        self.0.borrow().get(table, partition, key)
    }

    fn pairs(&self, table: TableId, partition: i32) -> Result<Vec<(Kept, Kept)>, StoreError> {
        self.0.borrow().pairs(table, partition)
    }

    fn partitions(&self, table: TableId) -> Vec<i32> {
        self.0.borrow().partitions(table)
    }

    fn apply(&mut self, writes: &[&[TableWrite]], positions: &[ChangelogPosition]) -> Result<(), StoreError> {
        self.0.borrow_mut().apply(writes, positions)
    }

    fn followed(&self, table: TableId, partition: i32) -> Result<Option<Followed>, StoreError> {
        self.0.borrow().followed(table, partition)
    }

    fn follow(&mut self, table: TableId, partition: i32, topic: &str) {
        self.0.borrow_mut().follow(table, partition, topic);
    }

    fn touch(&mut self, table: TableId, partition: i32) -> Result<(), StoreError> {
        self.0.borrow_mut().touch(table, partition)
    }

    fn clear(&mut self, table: TableId, partition: i32) -> Result<(), StoreError> {
        self.0.borrow_mut().clear(table, partition)
    }

    /// It keeps the partition for its return.
    fn release(&mut self, _: TableId, _: i32) {}

    fn discard(&mut self) {
        self.0.borrow_mut().discard();
    }
}
