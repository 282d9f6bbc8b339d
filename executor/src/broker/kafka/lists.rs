//! Lists of partitions as librdkafka wants them.
//!
//! Three lists for three uses: offsets to commit, offsets to read from, and names alone.

use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::errors::judge;
use crate::broker::{BrokerError, OffsetCommit};
use crate::event::message::TopicPartition;

/// Offsets with their metadata, as librdkafka takes them.
///
/// Fails where librdkafka does not take an offset, as a negative one.
pub fn offset_list(offsets: &[OffsetCommit]) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for OffsetCommit { partition, committed } in offsets {
        let mut element = list.add_partition(&partition.topic, partition.partition);
        element.set_offset(Offset::Offset(committed.offset))?;
        if let Some(metadata) = &committed.metadata {
            element.set_metadata(metadata.encode());
        }
    }
    Ok(list)
}

/// Partitions with the offsets that are fetched next, as librdkafka takes them.
pub(super) fn offsets_list(at: &[(TopicPartition, i64)]) -> Result<TopicPartitionList, BrokerError> {
    let mut list = TopicPartitionList::with_capacity(at.len());
    for (partition, offset) in at {
        let added = list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(*offset));
        added.map_err(|error| judge(&format!("{partition} cannot be read from offset {offset}"), &error))?;
    }
    Ok(list)
}

/// Partitions alone; their offsets are librdkafka's "invalid", which means: none is named.
pub(super) fn list(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(&partition.topic, partition.partition);
    }
    list
}
