//! The states of the tables by number, and the state in which each key was written last.
//!
//! Events that run ahead of their turn ask whether a key still is as they have read it. Only the keys written
//! lately are known one by one: what was read before that counts as changed.

use kaspr_ir::plan::TableId;
use rustc_hash::FxHashMap;

use crate::event::effects::TableWrite;
use crate::event::kept::Kept;
use crate::event::reads::{Reads, Version};

/// Keys that are known one by one.
const KEYS_MAX: usize = 1 << 16;

/// The last writes of a table's partition.
#[derive(Debug, Default)]
struct Written {
    last: Version,
    keys: FxHashMap<Kept, Version>,
}

/// The states of the tables.
#[derive(Debug, Default)]
pub struct Versions {
    now: Version,
    /// Writes of this state and all before it are not known one by one.
    forgotten: Version,
    written: FxHashMap<(TableId, i32), Written>,
    count: usize,
    /// True if events may run ahead of their turn, so that they ask.
    pub are_kept: bool,
}

impl Versions {
    /// The state that can be read now.
    pub fn now(&self) -> Version {
        self.now
    }

    /// Notes writes that can be read from here on.
    pub fn wrote(&mut self, writes: &[TableWrite]) {
        if !self.are_kept || writes.is_empty() {
            return;
        }
        // All at once and not the oldest: that would need an order of all keys, and costs only some runs in vain.
        if self.count > KEYS_MAX {
            self.forget();
        }
        self.now += 1;
        for write in writes {
            let written = self.written.entry((write.table, write.partition)).or_default();
            // Also for the partition as a whole: an iteration has read every key, those too that are not there yet.
            written.last = self.now;
            self.count += usize::from(written.keys.insert(write.key.clone(), self.now).is_none());
        }
    }

    /// Forgets all keys: whatever was read until now counts as changed.
    pub fn forget(&mut self) {
        if self.are_kept {
            self.forgotten = self.now;
            self.now += 1;
            self.written.clear();
            self.count = 0;
        }
    }

    /// True if nothing that was read has been written since.
    pub fn are_as_read(&self, reads: &Reads) -> bool {
        reads.all(|table, partition, key, seen| {
            let written = self.written.get(&(table, partition));
            let last = written.and_then(|written| match key {
                Some(key) => written.keys.get(key).copied(),
                None => Some(written.last),
            });
            // A key that is not listed is unchanged only if it was read after the last time that all were
            // forgotten.
            seen > self.forgotten && last.is_none_or(|last| last <= seen)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(partition: i32, key: &'static str) -> TableWrite {
        TableWrite { table: TableId(0), partition, key: key.into(), value: None }
    }

    fn kept() -> Versions {
        Versions { now: 1, are_kept: true, ..Versions::default() }
    }

    fn read(versions: &Versions, partition: i32, key: Option<&str>) -> Reads {
        let reads = Reads::default();
        reads.note(TableId(0), partition, key.map(str::as_bytes), versions.now());
        reads
    }

    #[test]
    fn a_key_changes_when_it_is_written_and_a_scan_with_any_key() {
        let mut versions = kept();
        let [a, b, all, other] = [(0, Some("a")), (0, Some("b")), (0, None), (1, None)]
            .map(|(partition, key)| read(&versions, partition, key));
        versions.wrote(&[write(0, "a")]);
        assert_eq!([&a, &b, &all, &other].map(|reads| versions.are_as_read(reads)), [false, true, false, true]);
        assert!(versions.are_as_read(&read(&versions, 0, Some("a"))), "it was read behind the write");
    }

    #[test]
    fn the_first_read_of_a_key_counts() {
        let mut versions = kept();
        let reads = read(&versions, 0, Some("a"));
        versions.wrote(&[write(0, "a")]);
        reads.note(TableId(0), 0, Some(b"a"), versions.now());
        assert!(!versions.are_as_read(&reads));
    }

    #[test]
    fn what_was_read_before_keys_are_forgotten_counts_as_changed() {
        let mut versions = kept();
        let before = read(&versions, 0, Some("a"));
        versions.forget();
        assert!(!versions.are_as_read(&before) && versions.are_as_read(&read(&versions, 0, Some("a"))));
        for number in 0..=KEYS_MAX {
            versions.wrote(&[TableWrite { key: number.to_string().into(), ..write(0, "") }]);
        }
        let before = read(&versions, 0, Some("a"));
        versions.wrote(&[write(0, "b")]);
        assert!(!versions.are_as_read(&before), "the bound on what is known was met");
        assert!(versions.count <= KEYS_MAX);
    }
}
