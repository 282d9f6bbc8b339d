//! Repairs a fault of librdkafka from outside: confluentinc/librdkafka#5280, not fixed in 2.12.1.
//!
//! A broker that has just started, or has no leader for a partition, says so in the answer to a fetch.
//! librdkafka counts such partitions but leaves their places in its list as the memory was: it then
//! believes in leaders and epochs that never were. A partition stands still for ever, or the process dies.
//!
//! The linker puts the function below in the place of the one that makes the list (`--wrap`, see `build.rs`).
//! A place that is not filled in afterwards is a partition that no topic has, which librdkafka skips.

use std::ffi::{c_char, c_int, c_void};

use rdkafka_sys::rd_kafka_metadata;

/// librdkafka's `rd_kafka_Uuid_t`, which only passes through.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TopicId {
    most: i64,
    least: i64,
    text: [c_char; 23],
}

/// The number of a partition that no topic has.
const NOWHERE: i32 = i32::MAX;

unsafe extern "C" {
    /// The function itself, under the name that the linker gives it.
    fn __real_rd_kafkap_leader_discovery_set_topic(
        buffer: *mut c_void,
        metadata: *mut rd_kafka_metadata,
        topic: c_int,
        id: TopicId,
        name: *mut c_char,
        partitions: c_int,
    );
}

/// Makes the list of a topic's partitions, every place of it filled.
///
/// # Safety
/// librdkafka calls it, where it would call the function itself.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_rd_kafkap_leader_discovery_set_topic(
    buffer: *mut c_void,
    metadata: *mut rd_kafka_metadata,
    topic: c_int,
    id: TopicId,
    name: *mut c_char,
    partitions: c_int,
) {
    // SAFETY: the arguments are handed on as they came. The function makes the topic's list with places
    // for `partitions`, in memory that belongs to the metadata, and writes nothing into them.
    unsafe {
        __real_rd_kafkap_leader_discovery_set_topic(buffer, metadata, topic, id, name, partitions);
        let (Ok(topic), Ok(partitions)) = (usize::try_from(topic), usize::try_from(partitions)) else { return };
        let list = (*(*metadata).topics.add(topic)).partitions;
        for place in 0..partitions {
            (*list.add(place)).id = NOWHERE;
        }
    }
}
