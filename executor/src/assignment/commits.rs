//! Positions on their way to the group: those that a commit takes, their metadata, and those that are
//! committed.
//!
//! One partition has one committed offset, and several readers may stand at different ones. The offset is the
//! least of them, and the metadata says how far ahead the others are:
//!
//! ```text
//! committing: orders 40, audit 43  →  offset 40, metadata …;{hash of audit}=+3
//! ```

use std::collections::BTreeMap;

use super::Assignment;
use crate::broker::position::{METADATA_BYTES_MAX, Metadata};
use crate::broker::{BrokerError, Committed, Consumer, OffsetCommit};
use crate::event::effects::Progress;
use crate::event::message::TopicPartition;

impl Assignment {
    /// Notes that a commit takes this progress. A partition that was given up meanwhile is passed over: its
    /// next owner runs the events.
    pub fn commit_takes(&mut self, progress: &Progress) {
        if let Some(reading) = self.reading(progress) {
            reading.ledger.begin_commit(progress.done);
        }
    }

    /// Moves readers past markers and compacted offsets when nothing waits, so that no lag of 1 stays. Only
    /// in started partitions: in others the consumer's position is not that of the readers. The commit that
    /// is about to begin takes the passed offsets along.
    pub fn pass_markers(&mut self, consumer: &dyn Consumer) {
        for assigned in self.partitions.values_mut().filter(|assigned| assigned.started) {
            let Some(position) = consumer.position(&assigned.name).filter(|&next| !assigned.is_too_far(next - 1))
            else {
                continue;
            };
            for reading in &mut assigned.readers {
                reading.ledger.pass(position);
            }
        }
    }

    /// Returns the offsets to commit now: partitions whose readers have come further than the group knows.
    ///
    /// Metadata that Kafka would refuse is never sent. It only comes about after a commit of an earlier plan
    /// with fewer readers, further ahead than this plan lets them come.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Fatal`] for such metadata. Sent all the same, it would be refused with the whole
    /// transaction, again and again.
    pub fn offsets(&self) -> Result<Vec<OffsetCommit>, BrokerError> {
        let mut offsets = Vec::new();
        for assigned in self.partitions.values() {
            let Some(offset) = assigned.readers.iter().map(|reading| reading.ledger.committing()).min() else {
                continue;
            };
            // `committing` and not `done`: between the two lie events whose effects are in no commit yet.
            let ahead = assigned.readers.iter().filter(|reading| reading.ledger.committing() > offset);
            let metadata = Metadata {
                transactional_id: self.transactional_id.clone(),
                partitions_at_start: assigned.partitions_at_start,
                readers: assigned.set,
                ahead: ahead
                    .map(|reading| (self.readers[reading.reader].hash, reading.ledger.committing() - offset))
                    .collect(),
            };
            let bytes = metadata.bytes();
            if bytes > METADATA_BYTES_MAX {
                return Err(too_large(&assigned.name, &metadata, bytes));
            }
            let committed = Committed { offset, metadata: Some(metadata) };
            // The metadata counts too: readers may move while the slowest, and so the offset, stays where it
            // is.
            if assigned.committed.as_ref() != Some(&committed) {
                offsets.push(OffsetCommit { partition: assigned.name.clone(), committed });
            }
        }
        Ok(offsets)
    }

    /// Notes what was committed. The offsets are those that [`Assignment::offsets`] gave when the commit
    /// began. Partitions that are gone by now are passed over.
    pub fn committed(&mut self, offsets: &[OffsetCommit]) {
        let by_name: BTreeMap<&TopicPartition, &Committed> =
            offsets.iter().map(|offset| (&offset.partition, &offset.committed)).collect();
        for assigned in self.partitions.values_mut() {
            let Some(&committed) = by_name.get(&assigned.name) else { continue };
            for reading in &mut assigned.readers {
                let hash = self.readers[reading.reader].hash;
                let ahead = committed.metadata.as_ref().and_then(|metadata| metadata.ahead.get(&hash)).copied();
                reading.ledger.end_commit(committed.offset + ahead.unwrap_or(0));
            }
            assigned.committed = Some(committed.clone());
        }
    }
}

/// The error for positions that do not fit into the metadata, with the way out.
fn too_large(name: &TopicPartition, metadata: &Metadata, bytes: usize) -> BrokerError {
    BrokerError::Fatal(format!(
        "the positions of {} readers of {name} would take {bytes} bytes in the metadata of its offset, and Kafka takes {METADATA_BYTES_MAX}: start the plan that committed last until its slowest reader has come closer",
        metadata.ahead.len() + 1
    ))
}
