//! Ends transactions that a dead member left open: until then nobody learns the offsets under them,
//! and records behind them stay hidden in every topic that it wrote.
//!
//! Whoever committed last stands in the offset's metadata. A producer that begins under that name
//! makes the broker end what the earlier one left open, in half a second instead of the transaction's
//! timeout. Whether a member is gone the group tells: a consumer's `client.id` is the name of its
//! producer. One that is only slow finds its producer replaced and does its work again.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::groups::{GroupInfo, GroupMemberInfo};
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::topic_partition_list::TopicPartitionList;
use tracing::{debug, info};

use super::config::ClientSettings;
use super::raw;
use crate::message::TopicPartition;
use crate::position::Metadata;

/// Longest wait for each answer.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Orders that may wait; what is more is ordered again by whoever still waits.
const ORDERS_MAX: usize = 16;

/// What the fence is asked to do.
enum Order {
    /// End what those who committed these partitions last left open, whoever they are.
    Over(Vec<(String, i32)>),
    /// End what these producers left open, if they are gone.
    Gone(BTreeSet<String>),
}

/// Takes over the names of members that are gone, in a thread of its own.
pub struct Fence {
    settings: ClientSettings,
    orders: Option<SyncSender<Order>>,
}

impl Fence {
    /// A fence that has nothing to do.
    pub fn new(settings: &ClientSettings) -> Fence {
        Fence { settings: settings.clone(), orders: None }
    }

    /// Ends the transactions of those who committed these partitions last. Does not wait.
    pub fn end_over(&mut self, partitions: &[TopicPartition]) {
        let named = |partition: &TopicPartition| (partition.topic.to_string(), partition.partition);
        self.order(Order::Over(partitions.iter().map(named).collect()));
    }

    /// Ends the transactions of these producers where their members are gone. Does not wait.
    pub fn end_gone(&mut self, producers: BTreeSet<String>) {
        self.order(Order::Gone(producers));
    }

    fn order(&mut self, order: Order) {
        if !self.settings.is_exact() {
            return;
        }
        if self.orders.is_none() {
            let (orders, receiver) = sync_channel(ORDERS_MAX);
            let settings = self.settings.clone();
            let run = move || work(&settings, &receiver);
            match std::thread::Builder::new().name("kaspr-fence".to_owned()).spawn(run) {
                Ok(_) => self.orders = Some(orders),
                Err(error) => debug!("open transactions cannot be ended: {error}"),
            }
        }
        if let Some(orders) = &self.orders {
            // A full queue: it is ordered again while someone waits.
            let _ = orders.try_send(order);
        }
    }
}

fn work(settings: &ClientSettings, orders: &Receiver<Order>) {
    while let Ok(order) = orders.recv() {
        let done = match order {
            Order::Over(names) => holders(settings, &names),
            Order::Gone(producers) => gone(settings, producers),
        };
        let done = done.and_then(|producers| producers.iter().try_for_each(|id| succeed(settings, id)));
        if let Err(error) = done {
            debug!("open transactions could not be ended: {error}");
        }
    }
}

/// Begins as a producer under a name and ends at once.
fn succeed(settings: &ClientSettings, id: &str) -> Result<(), KafkaError> {
    let successor: BaseProducer = settings.successor(id).create()?;
    successor.init_transactions(WAIT_MAX)?;
    info!("ended what {id} may have left open");
    Ok(())
}

/// Who committed these partitions last, other than this worker.
fn holders(settings: &ClientSettings, names: &[(String, i32)]) -> Result<BTreeSet<String>, KafkaError> {
    let consumer: BaseConsumer = settings.unstable().create()?;
    let mut list = TopicPartitionList::with_capacity(names.len());
    for (topic, partition) in names {
        list.add_partition(topic, *partition);
    }
    let committed = consumer.committed_offsets(list, WAIT_MAX)?;
    let partitions = names.iter().map(|(topic, partition)| TopicPartition::new(topic.as_str(), *partition));
    let metadata = partitions.filter_map(|partition| Metadata::decode(&raw::metadata(&committed, &partition)));
    let is_other = |id: &String| !id.is_empty() && *id != settings.transactional_id;
    Ok(metadata.map(|metadata| metadata.transactional_id).filter(is_other).collect())
}

/// Those of the producers whose consumers are no members of the group.
fn gone(settings: &ClientSettings, producers: BTreeSet<String>) -> Result<BTreeSet<String>, KafkaError> {
    let consumer: BaseConsumer = settings.unstable().create()?;
    let groups = consumer.fetch_group_list(Some(&settings.app), WAIT_MAX)?;
    let members = groups.groups().iter().flat_map(GroupInfo::members);
    let alive: BTreeSet<&str> = members.map(GroupMemberInfo::client_id).collect();
    Ok(producers.into_iter().filter(|id| !alive.contains(id.as_str())).collect())
}
