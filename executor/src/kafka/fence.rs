//! Ends transactions that a dead member left open: until then nobody learns the offsets under them.
//!
//! Whoever committed last stands in the offset's metadata. A producer that begins under that name
//! makes the broker end what the earlier one left open, in half a second instead of the transaction's
//! timeout. A member that is only slow, not dead, finds its producer replaced and does its work again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::topic_partition_list::TopicPartitionList;
use tracing::{debug, info};

use super::config::ClientSettings;
use super::raw;
use crate::message::TopicPartition;
use crate::position::Metadata;

/// Longest wait for each answer.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Takes over the names of members that are gone, in a thread of its own, one at a time.
pub struct Fence {
    settings: ClientSettings,
    is_busy: Arc<AtomicBool>,
}

impl Fence {
    /// A fence that has nothing to do.
    pub fn new(settings: &ClientSettings) -> Fence {
        Fence { settings: settings.clone(), is_busy: Arc::default() }
    }

    /// Ends the transactions of those who committed these partitions last. Does not wait.
    pub fn end_transactions_over(&self, partitions: &[TopicPartition]) {
        if self.is_busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let names: Vec<(String, i32)> =
            partitions.iter().map(|partition| (partition.topic.to_string(), partition.partition)).collect();
        let (settings, is_busy) = (self.settings.clone(), self.is_busy.clone());
        let run = move || {
            if let Err(error) = end_transactions(&settings, &names) {
                debug!("open transactions could not be ended: {error}");
            }
            is_busy.store(false, Ordering::Release);
        };
        if std::thread::Builder::new().name("kaspr-fence".to_owned()).spawn(run).is_err() {
            self.is_busy.store(false, Ordering::Release);
        }
    }
}

fn end_transactions(settings: &ClientSettings, names: &[(String, i32)]) -> Result<(), KafkaError> {
    for id in holders(settings, names)? {
        if id == settings.transactional_id {
            continue;
        }
        let successor: BaseProducer = settings.successor(&id).create()?;
        successor.init_transactions(WAIT_MAX)?;
        info!("ended what {id} may have left open");
    }
    Ok(())
}

/// Who committed these partitions last.
fn holders(settings: &ClientSettings, names: &[(String, i32)]) -> Result<BTreeSet<String>, KafkaError> {
    let consumer: BaseConsumer = settings.unstable().create()?;
    let mut list = TopicPartitionList::with_capacity(names.len());
    for (topic, partition) in names {
        list.add_partition(topic, *partition);
    }
    let committed = consumer.committed_offsets(list, WAIT_MAX)?;
    let partitions = names.iter().map(|(topic, partition)| TopicPartition::new(topic.as_str(), *partition));
    let metadata = partitions.filter_map(|partition| Metadata::decode(&raw::metadata(&committed, &partition)));
    Ok(metadata.map(|metadata| metadata.transactional_id).filter(|id| !id.is_empty()).collect())
}
