//! Tables as an event sees them: its own writes over staged ones over committed ones.
//!
//! The *overlay* holds the writes of complete events that are not committed yet. A commit moves
//! its writes to the store; an abort drops the overlay whole, since what comes after it goes too.

use bytes::Bytes;
use kaspr_ir::plan::TableId;
use rustc_hash::FxHashMap;

use crate::effects::{Scratch, TableWrite};
use crate::store::{ChangelogPosition, Store};

/// The topic that keeps a table's changes.
pub fn changelog(app: &str, table: &str) -> String {
    format!("{app}-{table}-changelog")
}

/// The newest staged write of a key, and how many of its writes are staged.
#[derive(Debug)]
struct Staged {
    value: Option<Bytes>,
    writes: usize,
}

/// All tables of a worker.
pub struct Tables {
    store: Box<dyn Store>,
    overlay: FxHashMap<(TableId, i32), FxHashMap<Bytes, Staged>>,
}

impl Tables {
    /// Tables over a store.
    pub fn over(store: Box<dyn Store>) -> Tables {
        Tables { store, overlay: FxHashMap::default() }
    }

    /// The value of a key as the event with this scratch sees it.
    pub fn get(&self, table: TableId, partition: i32, key: &[u8], scratch: &Scratch) -> Option<Bytes> {
        if let Some(written) = scratch.written(table, partition, key) {
            return written.cloned();
        }
        match self.overlay.get(&(table, partition)).and_then(|staged| staged.get(key)) {
            Some(staged) => staged.value.clone(),
            None => self.store.get(table, partition, key),
        }
    }

    /// All pairs of a partition as the event with this scratch sees them, in key order.
    pub fn pairs(&self, table: TableId, partition: i32, scratch: &Scratch) -> Vec<(Bytes, Bytes)> {
        let mut pairs: std::collections::BTreeMap<Bytes, Bytes> =
            self.store.pairs(table, partition).into_iter().collect();
        let mut lay = |key: &Bytes, value: &Option<Bytes>| match value {
            Some(value) => pairs.insert(key.clone(), value.clone()),
            None => pairs.remove(key),
        };
        for (key, staged) in self.overlay.get(&(table, partition)).into_iter().flatten() {
            lay(key, &staged.value);
        }
        for write in scratch.writes.iter().filter(|write| write.table == table && write.partition == partition) {
            lay(&write.key, &write.value);
        }
        pairs.into_iter().collect()
    }

    /// Lays the writes of a complete event over the store.
    pub fn stage(&mut self, writes: &[TableWrite]) {
        for write in writes {
            let keys = self.overlay.entry((write.table, write.partition)).or_default();
            let staged = keys.entry(write.key.clone()).or_insert(Staged { value: None, writes: 0 });
            staged.value.clone_from(&write.value);
            staged.writes += 1;
        }
    }

    /// Moves the writes of a commit, which were staged before, to the store, with the positions of
    /// their changelogs.
    pub fn commit(&mut self, writes: &[&[TableWrite]], positions: &[ChangelogPosition]) {
        self.store.apply(writes, positions);
        for write in writes.iter().copied().flatten() {
            let keys = self.overlay.get_mut(&(write.table, write.partition)).expect("it was staged");
            let staged = keys.get_mut(&write.key).expect("it was staged");
            staged.writes -= 1;
            if staged.writes == 0 {
                keys.remove(&write.key);
            }
        }
    }

    /// Forgets what is not committed.
    pub fn abort(&mut self) {
        self.overlay.clear();
    }

    /// Committed pairs of a table by partition, for the files of a local run.
    pub fn committed(&self, table: TableId) -> Vec<(i32, Vec<(Bytes, Bytes)>)> {
        let partitions = self.store.partitions(table);
        partitions.into_iter().map(|partition| (partition, self.store.pairs(table, partition))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    fn write(key: &'static str, value: Option<&'static str>) -> TableWrite {
        TableWrite { table: TableId(0), partition: 0, key: key.into(), value: value.map(Into::into) }
    }

    fn seen(tables: &Tables, scratch: &Scratch) -> Vec<(Bytes, Bytes)> {
        tables.pairs(TableId(0), 0, scratch)
    }

    #[test]
    fn reads_look_at_scratch_then_staged_then_store() {
        let mut tables = Tables::over(Box::<MemoryStore>::default());
        let committed = [write("a", Some("1")), write("b", Some("1"))];
        tables.stage(&committed);
        tables.commit(&[&committed], &[]);
        tables.stage(&[write("b", Some("2")), write("c", Some("2"))]);
        let mut scratch = Scratch::default();
        scratch.write(write("c", None));
        assert_eq!(tables.get(TableId(0), 0, b"b", &scratch), Some("2".into()));
        assert_eq!(seen(&tables, &scratch), [("a".into(), "1".into()), ("b".into(), "2".into())]);
    }

    #[test]
    fn an_older_commit_leaves_a_newer_write_on_top() {
        let mut tables = Tables::over(Box::<MemoryStore>::default());
        let (first, second) = ([write("a", Some("1"))], [write("a", Some("2"))]);
        tables.stage(&first);
        tables.stage(&second);
        tables.commit(&[&first], &[]);
        let scratch = Scratch::default();
        assert_eq!(tables.get(TableId(0), 0, b"a", &scratch), Some("2".into()));
        tables.abort();
        assert_eq!(tables.get(TableId(0), 0, b"a", &scratch), Some("1".into()));
    }
}
