//! Tables as an event sees them: its own writes over staged ones over committed ones.
//!
//! The *overlay* holds the writes of complete events that are not committed yet. A commit moves its writes to
//! the store; an abort drops the overlay whole, since everything after the aborted writes goes too. The store
//! of a global table is *fed* by its changelog alone, where the writes of all workers stand in one order:
//! this worker's committed writes lie over the store until they come back from there.
//!
//! | layer, top first | whose writes | ends |
//! |---|---|---|
//! | scratch | of the event that runs | when the event completes: staged, or dropped if it failed |
//! | overlay | of complete events, not committed | with their commit, or with an abort |
//! | `own` | committed ones to global tables | when the changelog has brought them back |
//! | [`Store`] | committed | with a later write of the key |
//!
//! A read takes the first layer that has the key; a deletion in a layer hides the key below.
//!
//! ```text
//! store a=1 b=1   overlay b=2 c=2   scratch c deleted   →   the event sees a=1 b=2
//! ```
//!
//! *Durable from here:* a table write becomes durable as a record of its changelog, in the transaction that
//! `Delivery::end_transaction` commits. [`Tables::commit`] comes after it and only brings the store up to
//! date. Without changelogs (local runs, tests) the store is the only copy, and a write is as durable as
//! [`Store::apply`] makes it.
//!
//! All methods are called from the worker's thread. User code reads and writes through `code`, which holds
//! the same [`Tables`].

mod figures;
pub mod restore;
pub mod store;
mod versions;

use std::cell::RefCell;
use std::collections::VecDeque;

use kaspr_ir::plan::TableId;
use rustc_hash::{FxHashMap, FxHashSet};
use tracing::warn;

use crate::broker::record_size;
use crate::event::effects::{Scratch, TableWrite};
use crate::event::kept::Kept;
use crate::event::reads::Reads;
use crate::tables::store::{ChangelogPosition, MemoryStore, Store, StoreError};
use crate::tables::versions::Versions;

/// The topic that keeps a table's changes. The one place that makes this name: for app `shop` and table
/// `orders` it is `shop-orders-changelog`.
pub fn changelog(app: &str, table: &str) -> String {
    format!("{app}-{table}-changelog")
}

/// The newest write of a key in a layer, and the number of writes of that key in it. Of several writes of a
/// key in one layer only the newest can be seen, but each commit takes its own away again.
#[derive(Debug)]
struct Laid {
    value: Option<Kept>,
    /// Never 0: the entry goes with the last write.
    writes: usize,
}

/// Writes that lie over a store. By table and partition, then by key: a partition that is given up goes as a
/// whole.
#[derive(Debug, Default)]
struct Layer(FxHashMap<(TableId, i32), FxHashMap<Kept, Laid>>);

impl Layer {
    /// Puts a write on top: it hides earlier ones of the same key.
    fn lay(&mut self, write: &TableWrite) {
        let keys = self.0.entry((write.table, write.partition)).or_default();
        let laid = keys.entry(write.key.clone()).or_insert(Laid { value: None, writes: 0 });
        laid.value.clone_from(&write.value);
        laid.writes += 1;
    }

    /// Takes one write of a key away; the newest stays visible while there are others. Call it once for each
    /// write that was laid, in the same order, when the write has reached the layer below.
    fn lift(&mut self, write: &TableWrite) {
        let Some(keys) = self.0.get_mut(&(write.table, write.partition)) else { return };
        let Some(laid) = keys.get_mut(&write.key) else { return };
        debug_assert!(laid.writes > 0, "a key without writes is not in the layer");
        laid.writes -= 1;
        if laid.writes == 0 {
            keys.remove(&write.key);
        }
    }

    /// `None`: the layer has no write of the key. `Some(None)`: the newest write deletes it.
    fn get(&self, table: TableId, partition: i32, key: &[u8]) -> Option<&Option<Kept>> {
        self.0.get(&(table, partition))?.get(key).map(|laid| &laid.value)
    }

    /// All keys of a partition with their newest writes, in no order; a value of `None` is a deletion.
    fn of(&self, table: TableId, partition: i32) -> impl Iterator<Item = (&Kept, &Option<Kept>)> {
        self.0.get(&(table, partition)).into_iter().flatten().map(|(key, laid)| (key, &laid.value))
    }
}

/// Committed writes of a global table that have not come back from its changelog. One entry per commit and
/// table. The changelog gives them back in the order of the commits.
struct Returning {
    table: TableId,
    /// The changelog position up to which the store must follow before they have come back.
    until: i64,
    /// Their layer is [`Tables::own`].
    writes: Vec<TableWrite>,
}

/// All tables of a worker. Made once per worker, before user code is loaded. Its store may be replaced while
/// the worker runs: see [`Tables::rebuild`].
pub struct Tables {
    store: Box<dyn Store>,
    /// Writes of complete events that no commit has taken to the store.
    overlay: Layer,
    /// Global tables whose store is fed by their changelogs.
    fed: FxHashSet<TableId>,
    /// Oldest first.
    returning: VecDeque<Returning>,
    /// The writes of `returning`, as a layer.
    own: Layer,
    /// Partitions whose state is whole; the others take no writes. `None`: there is nothing to restore.
    held: Option<FxHashSet<(TableId, i32)>>,
    /// Offsets after a commit's last record in a changelog that hold no record: the transaction's marker.
    marker: i64,
    /// The largest record that each table's changelog takes, in bytes; empty if there are no changelogs.
    limits: Vec<usize>,
    versions: Versions,
    /// The reason for which the store takes no more writes.
    unwritten: Option<StoreError>,
    /// The error of the last read that failed. A cell, because reads borrow the tables of user code shared.
    unread: RefCell<Option<StoreError>>,
    /// True if the store was wiped because it was damaged, and is being filled again.
    renewed: bool,
    /// The reason for which tables live in memory although a disk was to keep them.
    given_up: Option<StoreError>,
    /// Reads by table. Cells, because reads borrow the tables of user code shared.
    reads: RefCell<Vec<u64>>,
    /// Writes and deletions that are committed, by table.
    written: Vec<(u64, u64)>,
}

impl Tables {
    /// Makes tables over a store that holds their only copy. Every partition is writable at once;
    /// [`Tables::follow_changelogs`] changes that.
    pub fn over(store: Box<dyn Store>) -> Tables {
        Tables {
            store,
            overlay: Layer::default(),
            fed: FxHashSet::default(),
            returning: VecDeque::new(),
            own: Layer::default(),
            held: None,
            marker: 0,
            limits: Vec::new(),
            versions: Versions::default(),
            unwritten: None,
            unread: RefCell::default(),
            reads: RefCell::default(),
            written: Vec::new(),
            renewed: false,
            given_up: None,
        }
    }

    /// Keeps everything in this store from now on. Nothing was written before.
    pub fn keep_in(&mut self, store: Box<dyn Store>) {
        debug_assert!(self.overlay.0.is_empty() && self.own.0.is_empty(), "no event has run");
        self.store = store;
    }

    /// Makes changelogs the truth, and the store a copy of them: partitions take writes once they are restored,
    /// and `fed` tables take them from their changelogs alone.
    ///
    /// With transactions, a marker stands after each commit. A partition has one writer, so no other worker's
    /// record can take that offset, and the store counts the marker as followed even before it is written.
    /// Call it before the first write. `fed` are the global tables.
    pub fn follow_changelogs(&mut self, fed: impl IntoIterator<Item = TableId>, transactions: bool) {
        self.marker = i64::from(transactions);
        self.held = Some(FxHashSet::default());
        self.fed = fed.into_iter().collect();
    }

    /// Sets the largest records: a write that its changelog would not take is then refused at once, where
    /// user code makes it. One limit per table, in the plan's order; a missing one is no limit.
    pub fn limit(&mut self, limits: Vec<usize>) {
        self.limits = limits;
    }

    /// Checks that the table's changelog takes a write. The error has the write's bytes, and the most that it
    /// takes. Sizes are those of [`record_size`], as the broker counts them.
    pub fn check_size(&self, table: TableId, key: &[u8], value: Option<&[u8]>) -> Result<(), (usize, usize)> {
        let size = record_size(Some(key), value, &[]);
        match self.limits.get(table.index()) {
            Some(&limit) if size > limit => Err((size, limit)),
            _ => Ok(()),
        }
    }

    /// Keeps account of what is written from here on, for events that run ahead of their turn.
    pub fn keep_versions(&mut self) {
        self.versions.are_kept = true;
        self.versions.forget();
    }

    /// True if nothing that an event has read was written since by another one.
    pub fn are_as_read(&self, reads: &Reads) -> bool {
        self.versions.are_as_read(reads)
    }

    /// The value of a key as the event with this scratch sees it.
    ///
    /// # Errors
    ///
    /// A store that cannot be read. The worker then drops all effects since the last commit, whatever user
    /// code makes of the error.
    pub fn get(
        &self,
        table: TableId,
        partition: i32,
        key: &[u8],
        scratch: &Scratch,
    ) -> Result<Option<Kept>, StoreError> {
        count(&mut self.reads.borrow_mut(), table, |reads| *reads += 1);
        if let Some(written) = scratch.written(table, partition, key) {
            return Ok(written.cloned());
        }
        if let Some(reads) = &scratch.reads {
            reads.note(table, partition, Some(key), self.versions.now());
        }
        let laid = self.overlay.get(table, partition, key).or_else(|| self.own.get(table, partition, key));
        match laid {
            Some(value) => Ok(value.clone()),
            None => self.noted(self.store.get(table, partition, key)),
        }
    }

    /// All pairs of a partition as the event with this scratch sees them, in key order. Copies the partition,
    /// so its cost is that of its size.
    ///
    /// # Errors
    ///
    /// As of [`Tables::get`].
    pub fn pairs(&self, table: TableId, partition: i32, scratch: &Scratch) -> Result<Vec<(Kept, Kept)>, StoreError> {
        if let Some(reads) = &scratch.reads {
            reads.note(table, partition, None, self.versions.now());
        }
        let stored = self.noted(self.store.pairs(table, partition))?;
        let mut pairs: std::collections::BTreeMap<Kept, Kept> = stored.into_iter().collect();
        let written = scratch.writes().iter().filter(|write| write.table == table && write.partition == partition);
        // Bottom to top, so that a newer layer overwrites an older one: own, overlay, scratch.
        let laid = self.own.of(table, partition).chain(self.overlay.of(table, partition));
        for (key, value) in laid.chain(written.map(|write| (&write.key, &write.value))) {
            match value {
                Some(value) => pairs.insert(key.clone(), value.clone()),
                None => pairs.remove(key),
            };
        }
        Ok(pairs.into_iter().collect())
    }

    /// Notes a failed read of the store: nothing computed from it may be committed.
    fn noted<T>(&self, read: Result<T, StoreError>) -> Result<T, StoreError> {
        read.inspect_err(|error| *self.unread.borrow_mut() = Some(error.clone()))
    }

    /// Lays the writes of a complete event over the store. Later events see them from here on. They are not
    /// durable yet: an abort takes them back.
    pub fn stage(&mut self, writes: &[TableWrite]) {
        writes.iter().for_each(|write| self.overlay.lay(write));
        self.versions.wrote(writes);
    }

    /// Moves the writes of a commit, which were staged before, to the store, with the positions of their
    /// changelogs. A store that does not take them is not asked again: they stay in the overlay until the
    /// worker has rebuilt its tables (see [`Tables::unwritten`]).
    ///
    /// `writes` are the commit's, oldest first; `positions` have, per changelog partition, the offset after
    /// its last record of this commit.
    ///
    /// The writes are durable in their changelogs before this call. A crash before the store has them costs
    /// nothing but reading them again from there.
    pub fn commit(&mut self, writes: &[&[TableWrite]], positions: &[ChangelogPosition]) {
        for write in writes.iter().copied().flatten() {
            count(&mut self.written, write.table, |(writes, deletes)| match write.value {
                Some(_) => *writes += 1,
                None => *deletes += 1,
            });
        }
        // A write to a partition that is not whole would stand beside older state that is still to come from
        // the changelog; and a fed store takes its writes from the changelog alone. Both have them there.
        let passes = |table, partition| {
            !self.fed.contains(&table) && self.held.as_ref().is_none_or(|held| held.contains(&(table, partition)))
        };
        // The usual case copies nothing: the store takes the slices of the effects as they are.
        let all_pass = writes.iter().copied().flatten().all(|write| passes(write.table, write.partition));
        let positions_pass = positions.iter().filter(|position| passes(position.table, position.partition)).copied();
        let positions_pass: Vec<_> = positions_pass
            .map(|position| ChangelogPosition { offset: position.offset + self.marker, ..position })
            .collect();
        if self.unwritten.is_none() {
            let applied = match all_pass {
                true => self.store.apply(writes, &positions_pass),
                false => {
                    let pass = writes.iter().copied().flatten().filter(|write| passes(write.table, write.partition));
                    self.store.apply(&[&pass.cloned().collect::<Vec<_>>()], &positions_pass)
                }
            };
            // Copies on the disk hold the commit from here on. In the changelogs it has been durable since
            // the transaction.
            self.unwritten = applied.err();
        }
        if !self.fed.is_empty() {
            self.await_return(writes, positions);
        }
        // Last: between the two steps a key would vanish for an event that reads it.
        if self.unwritten.is_none() {
            writes.iter().copied().flatten().for_each(|write| self.overlay.lift(write));
        }
    }

    /// Lays a commit's writes to global tables over the store until their changelog has brought them back:
    /// this worker sees its own writes at once, others when they follow.
    fn await_return(&mut self, writes: &[&[TableWrite]], positions: &[ChangelogPosition]) {
        for position in positions.iter().filter(|position| self.fed.contains(&position.table)) {
            let writes = writes.iter().copied().flatten().filter(|write| write.table == position.table);
            let writes: Vec<TableWrite> = writes.cloned().collect();
            writes.iter().for_each(|write| self.own.lay(write));
            self.returning.push_back(Returning { table: position.table, until: position.offset, writes });
        }
    }

    /// Forgets everything not committed. The layer `own` stays: its writes are committed.
    pub fn abort(&mut self) {
        self.overlay = Layer::default();
        self.versions.forget();
    }

    /// Takes records of a changelog: they are committed, and the store follows up to the positions.
    ///
    /// `writes` are in the order of the log; per partition a position is the offset after the last record
    /// that was read, or passed over.
    ///
    /// # Errors
    ///
    /// The store takes no writes. Positions and writes are one batch there, so nothing of it was taken.
    pub fn restore(&mut self, writes: &[TableWrite], positions: &[ChangelogPosition]) -> Result<(), StoreError> {
        self.store.apply(&[writes], positions)?;
        for position in positions.iter().filter(|position| self.fed.contains(&position.table)) {
            let own = &mut self.own;
            // The changelog may be past a commit with a newer write of another worker: that one wins from
            // here on.
            self.returning.retain(|returning| {
                let has_returned = returning.table == position.table && returning.until <= position.offset;
                if has_returned {
                    returning.writes.iter().for_each(|write| own.lift(write));
                }
                !has_returned
            });
        }
        Ok(())
    }

    /// Marks the state of a partition as whole: it takes writes from here on. Called by [`restore::Restore`]
    /// when its changelog has been read to the end.
    pub fn hold(&mut self, table: TableId, partition: i32) {
        if let Some(held) = &mut self.held {
            held.insert((table, partition));
        }
    }

    /// Gives up a partition that another worker now owns. Its committed state stays in the changelog, and in
    /// a store on the disk for its return.
    pub fn release(&mut self, table: TableId, partition: i32) {
        if let Some(held) = &mut self.held {
            held.remove(&(table, partition));
        }
        // Staged writes of it go too: either they were committed, or their events run again at the next
        // owner.
        self.overlay.0.remove(&(table, partition));
        self.store.release(table, partition);
    }

    /// Notes that the store has failed: see [`Tables::unwritten`]. The worker looks at it once per turn.
    pub fn fail(&mut self, why: StoreError) {
        self.unwritten = Some(why);
    }

    /// The reason for which the store takes no more committed writes; [`Tables::rebuild`] is the way out.
    /// While there is one, commits go on: their writes are durable in the changelogs and visible in the
    /// overlay.
    pub fn unwritten(&self) -> Option<StoreError> {
        self.unwritten.clone()
    }

    /// The reason for which the store cannot be read, if a read has failed: effects of that event must not be
    /// committed. It stays until [`Tables::rebuild`].
    pub fn unread(&self) -> Option<StoreError> {
        self.unread.borrow().clone()
    }

    /// Replaces the store by an empty one, which changelogs fill again: on the disk if it was only damaged,
    /// and in memory if it takes no writes or is damaged a second time. All partitions with tables must have
    /// been stopped before, and must be restored before they start again. What was staged is dropped.
    pub fn rebuild(&mut self) {
        let (unread, unwritten) = (self.unread.take(), self.unwritten.take());
        let is_damaged = unread.is_some() && unwritten.is_none();
        if is_damaged && !self.renewed && self.renew() {
            self.renewed = true;
            warn!("the tables on the disk were wiped, and are restored from their changelogs");
        } else {
            let mut failed: Box<dyn Store> = Box::<MemoryStore>::default();
            std::mem::swap(&mut self.store, &mut failed);
            // Wiped for good, so that the next start does not trust a copy that missed commits.
            failed.discard();
            warn!("tables live in memory until the next start, and are restored from their changelogs");
            self.given_up = unwritten.or(unread);
        }
        self.abort();
        self.own = Layer::default();
        self.returning.clear();
        if let Some(held) = &mut self.held {
            held.clear();
        }
    }

    /// Wipes the store and opens it again in the same place. Returns false, with a line in the log, if that
    /// fails.
    fn renew(&mut self) -> bool {
        let renewed = self.store.renew();
        if let Err(why) = &renewed {
            warn!(error = %why, "the store of tables cannot be wiped and opened again");
        }
        renewed.is_ok()
    }

    /// Wipes the store, since nothing in it may be trusted: the next start rebuilds it. Without changelogs
    /// this loses the state.
    pub fn discard(&mut self) {
        self.store.discard();
    }

    /// The store itself, for the code that restores it.
    pub fn store(&mut self) -> &mut dyn Store {
        self.store.as_mut()
    }

    /// Committed pairs of a table by partition, for the files of a local run. A partition that cannot be read
    /// counts as empty here; [`Tables::unread`] then has the reason.
    pub fn committed(&self, table: TableId) -> Vec<(i32, Vec<(Kept, Kept)>)> {
        let partitions = self.store.partitions(table);
        let pairs = |partition| self.noted(self.store.pairs(table, partition)).unwrap_or_default();
        partitions.into_iter().map(|partition| (partition, pairs(partition))).collect()
    }
}

/// Counts at a table's place, which is made where there is none yet.
fn count<T: Clone + Default>(counts: &mut Vec<T>, table: TableId, add: impl FnOnce(&mut T)) {
    if counts.len() <= table.index() {
        counts.resize(table.index() + 1, T::default());
    }
    add(&mut counts[table.index()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(table: u32, key: &'static str, value: Option<&'static str>) -> TableWrite {
        TableWrite { table: TableId(table), partition: 0, key: key.into(), value: value.map(Into::into) }
    }

    fn write(key: &'static str, value: Option<&'static str>) -> TableWrite {
        of(0, key, value)
    }

    fn position(table: u32, offset: i64) -> ChangelogPosition {
        ChangelogPosition { table: TableId(table), partition: 0, offset }
    }

    fn memory() -> Tables {
        Tables::over(Box::<MemoryStore>::default())
    }

    fn commit(tables: &mut Tables, writes: &[TableWrite], positions: &[ChangelogPosition]) {
        tables.stage(writes);
        tables.commit(&[writes], positions);
    }

    fn seen(tables: &Tables, table: u32, key: &str) -> Option<Kept> {
        tables.get(TableId(table), 0, key.as_bytes(), &Scratch::default()).expect("it reads")
    }

    #[test]
    fn reads_look_at_scratch_then_staged_then_store() {
        let mut tables = memory();
        commit(&mut tables, &[write("a", Some("1")), write("b", Some("1"))], &[]);
        tables.stage(&[write("b", Some("2")), write("c", Some("2"))]);
        let mut scratch = Scratch::default();
        scratch.write(write("c", None));
        assert_eq!(seen(&tables, 0, "b"), Some("2".into()));
        let pairs = tables.pairs(TableId(0), 0, &scratch);
        assert_eq!(pairs, Ok(vec![("a".into(), "1".into()), ("b".into(), "2".into())]));
    }

    #[test]
    fn an_older_commit_leaves_a_newer_write_on_top() {
        let mut tables = memory();
        let (first, second) = ([write("a", Some("1"))], [write("a", Some("2"))]);
        tables.stage(&first);
        tables.stage(&second);
        tables.commit(&[&first], &[]);
        assert_eq!(seen(&tables, 0, "a"), Some("2".into()));
        tables.abort();
        assert_eq!(seen(&tables, 0, "a"), Some("1".into()));
    }

    #[test]
    fn keys_are_those_of_partitions_that_are_whole() {
        let mut tables = memory();
        commit(&mut tables, &[write("a", Some("1")), of(1, "b", Some("1")), of(1, "c", Some("1"))], &[]);
        assert_eq!(tables.keys(3), [Some(1), Some(2), Some(0)], "all are");
        tables.follow_changelogs([], false);
        tables.hold(TableId(1), 0);
        assert_eq!(tables.keys(3), [Some(0), Some(2), Some(0)]);
        tables.stage(&[of(1, "d", Some("1"))]);
        assert_eq!(tables.keys(3), [Some(0), Some(2), Some(0)], "it is not committed");
    }

    #[test]
    fn a_partition_that_is_not_whole_takes_no_writes() {
        let mut tables = memory();
        tables.follow_changelogs([], false);
        commit(&mut tables, &[write("a", Some("1"))], &[position(0, 1)]);
        assert_eq!((seen(&tables, 0, "a"), tables.store().followed(TableId(0), 0)), (None, Ok(None)));
        tables.hold(TableId(0), 0);
        commit(&mut tables, &[write("a", Some("1"))], &[position(0, 2)]);
        assert_eq!(seen(&tables, 0, "a"), Some("1".into()));
        tables.release(TableId(0), 0);
        assert_eq!(seen(&tables, 0, "a"), None, "memory lets go of it");
    }

    #[test]
    fn a_global_write_lies_over_the_store_until_it_comes_back() {
        let mut tables = memory();
        tables.follow_changelogs([TableId(1)], true);
        tables.hold(TableId(1), 0);
        // Another worker's write follows this one's in the changelog, at offset 5.
        commit(&mut tables, &[of(1, "a", Some("ours"))], &[position(1, 4)]);
        assert_eq!(seen(&tables, 1, "a"), Some("ours".into()));
        tables.restore(&[of(1, "a", Some("before"))], &[position(1, 3)]).expect("it takes them");
        assert_eq!(seen(&tables, 1, "a"), Some("ours".into()));
        tables.abort();
        assert_eq!(seen(&tables, 1, "a"), Some("ours".into()), "it is committed");
        tables.restore(&[of(1, "a", Some("ours"))], &[position(1, 4)]).expect("it takes them");
        tables.restore(&[of(1, "a", Some("theirs"))], &[position(1, 6)]).expect("it takes them");
        assert_eq!(seen(&tables, 1, "a"), Some("theirs".into()), "the last committed writer wins");
    }

    #[test]
    fn what_a_store_does_not_take_stays_visible_until_it_is_rebuilt() {
        let mut tables = memory();
        tables.follow_changelogs([], false);
        tables.hold(TableId(0), 0);
        commit(&mut tables, &[write("a", Some("1"))], &[position(0, 2)]);
        tables.unwritten = Some(StoreError("no space left on device".to_owned()));
        commit(&mut tables, &[write("a", Some("2"))], &[position(0, 4)]);
        assert_eq!(seen(&tables, 0, "a"), Some("2".into()));
        tables.rebuild();
        assert_eq!((seen(&tables, 0, "a"), tables.unwritten()), (None, None));
        assert_eq!(tables.given_up().map(StoreError::to_string).as_deref(), Some("no space left on device"));
    }
}
