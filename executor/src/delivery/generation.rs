//! A generation: the content of one commit, and how far it has got on its way to the broker.
//!
//! A generation is *open* while epochs are added to it, *closing* once its commit has begun, and gone when
//! the commit has taken place or was aborted. [`Delivery`](super::Delivery) has at most one of each. Its
//! number goes with every record to the producer, so that at-least-once delivery can ask how many records of
//! this commit are still in flight while the next one's are already on their way.
//!
//! ```text
//! epochs 7 8 9 ──take──▶ open ──begin──▶ closing ──send──▶ in flight 0 ──commit──▶ applied
//!                                        (offsets fixed, changes gathered)
//! ```

use kaspr_ir::plan::TableId;
use rustc_hash::FxHashMap;

use crate::broker::{BrokerError, OffsetCommit, OutgoingRecord, Producer};
use crate::event::effects::{Effects, TableWrite};
use crate::event::message::TopicName;
use crate::tables::store::ChangelogPosition;

/// The content of a commit: whole epochs, oldest first.
#[derive(Debug, Default)]
pub struct Generation {
    /// The number of the commit, counted per worker.
    pub number: u64,
    /// Effects of the epochs.
    pub effects: Vec<Effects>,
    /// The last write of each key, to be sent to the changelogs: gathered when the commit begins.
    changes: Vec<TableWrite>,
    /// Offsets to commit, fixed when the commit begins.
    pub offsets: Vec<OffsetCommit>,
    /// Bytes that the effects hold. It counts payload and bookkeeping of records, and keys and values of
    /// table writes: [`Effects::size`].
    pub bytes: usize,
    /// Records among the effects.
    pub records: usize,
    /// The number of effects that the producer has taken whole, and of records of the next one. A full queue
    /// stops the sending in the middle, and the next turn goes on there: no record is handed over twice.
    sent: (usize, usize),
    /// The number of changes that the producer has taken.
    changes_sent: usize,
    /// The positions of the changelogs once it is committed.
    pub positions: Vec<ChangelogPosition>,
    /// True if the producer has taken all of it. Only the failpoint `sent` depends on it: it is passed once,
    /// not at every turn that waits.
    pub is_sent: bool,
}

impl Generation {
    /// An empty generation.
    pub fn new(number: u64) -> Generation {
        Generation { number, ..Generation::default() }
    }

    /// Takes an epoch's effects. The order of calls is the order of the records in the log. Costs nothing per
    /// record: the effects move.
    pub fn take(&mut self, effects: Effects) {
        self.bytes += effects.size();
        self.records += effects.outgoing_count();
        self.effects.push(effects);
    }

    /// Gathers the changes for the changelogs: of a key that was written several times, only the last write.
    /// A changelog is compacted, so the earlier writes of a key would only cost bandwidth. Keys keep the
    /// order of their first write:
    ///
    /// ```text
    /// a=1 b=1 a=2 c=1  →  a=2 b=1 c=1
    /// ```
    ///
    /// Call it once, when the commit begins: what is staged later belongs to the next generation.
    pub fn gather_changes(&mut self) {
        debug_assert!(self.changes_sent == 0, "changes are gathered before the first of them is sent");
        let mut places: FxHashMap<(TableId, i32, &[u8]), usize> = FxHashMap::default();
        let mut changes: Vec<&TableWrite> = Vec::new();
        for write in self.effects.iter().flat_map(Effects::writes) {
            match places.entry((write.table, write.partition, &write.key)) {
                std::collections::hash_map::Entry::Occupied(place) => changes[*place.get()] = write,
                std::collections::hash_map::Entry::Vacant(place) => {
                    place.insert(changes.len());
                    changes.push(write);
                }
            }
        }
        // A key and a value are counted buffers: the clone copies no bytes of the payload.
        self.changes = changes.into_iter().cloned().collect();
    }

    /// Hands records to the producer while it takes them, then the changes to the topics of `changelogs`.
    /// Returns true once the producer has taken all. Returns false if the producer's queue is full: call
    /// again after a poll. `changelogs` names a topic for each table of the plan, by number. Changelog records are
    /// staged at `now_ms`, output records at the time that they carry.
    ///
    /// # Errors
    ///
    /// Any error of [`Producer::send_all`]. With transactions it ends this generation; see `Delivery::recover`.
    pub fn send(
        &mut self,
        producer: &mut dyn Producer,
        changelogs: &[TopicName],
        now_ms: i64,
    ) -> Result<bool, BrokerError> {
        let (first, skip) = self.sent;
        for (number, effects) in self.effects.iter().enumerate().skip(first) {
            let skip = if number == first { skip } else { 0 };
            if skip == effects.outgoing_count() {
                continue;
            }
            let taken = skip + producer.send_all(&mut effects.records().skip(skip), self.number)?;
            if taken < effects.outgoing_count() {
                self.sent = (number, taken);
                return Ok(false);
            }
        }
        // Changes come last: should a bound of the transaction be hit, outputs have gone first in every run
        // alike.
        self.sent = (self.effects.len(), 0);
        if self.changes_sent == self.changes.len() {
            return Ok(true);
        }
        let left = &self.changes[self.changes_sent..];
        self.changes_sent +=
            producer.send_all(&mut left.iter().map(|change| changed(change, changelogs, now_ms)), self.number)?;
        Ok(self.changes_sent == self.changes.len())
    }
}

/// The record of a change for the changelog of its table.
fn changed<'a>(change: &'a TableWrite, changelogs: &'a [TopicName], now_ms: i64) -> OutgoingRecord<'a> {
    OutgoingRecord {
        topic: &changelogs[change.table.index()],
        partition: change.partition,
        timestamp_ms: now_ms,
        key: Some(&change.key),
        value: change.value.as_deref(),
        headers: &[],
        // The producer notes the offset of a tracked record: the store's position in the changelog comes from it.
        tracked: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::effects::Scratch;

    #[test]
    fn changelogs_hear_the_last_write_of_a_key() {
        let write = |key: &'static str, value: &'static str| TableWrite {
            table: TableId(0),
            partition: 0,
            key: key.into(),
            value: Some(value.into()),
        };
        let mut generation = Generation::new(1);
        for writes in [[("a", "1"), ("b", "1")], [("a", "2"), ("c", "1")]] {
            let mut scratch = Scratch::default();
            writes.into_iter().for_each(|(key, value)| scratch.write(write(key, value)));
            let mut effects = Effects::default();
            effects.keep(&mut scratch);
            generation.take(effects);
        }
        generation.gather_changes();
        assert_eq!(generation.changes, [write("a", "2"), write("b", "1"), write("c", "1")]);
    }
}
