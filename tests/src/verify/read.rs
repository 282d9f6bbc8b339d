//! Reads what a run left behind, as readers of committed records see it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;

use super::{Event, Left, Output};
use crate::clock::{now, pause};

/// Longest wait for an answer.
const WAIT: Duration = Duration::from_secs(30);
/// Longest time that a transaction may stay open: Kafka ends those of the dead before that.
const OPEN_MAX: Duration = Duration::from_secs(60);

/// The topics of an agent.
#[derive(Clone, Debug, Default)]
pub struct Topics {
    /// The topic that it reads.
    pub input: String,
    /// The topics that it writes for each event.
    pub outputs: Vec<String>,
    /// The topic of events that fail.
    pub dead_letters: Option<String>,
    /// The topic that its table writes.
    pub changelog: Option<String>,
}

/// Reads the topics to their ends.
///
/// # Errors
/// In words: a broker that does not answer, a record that the known agent would not write, a
/// transaction that stays open for a minute.
pub fn left(servers: &str, topics: &Topics) -> Result<Left, String> {
    let mut left = Left::default();
    read(servers, &topics.input, |message| {
        left.input.push(event(&value(message)?, message.partition(), message.offset())?);
        Ok(())
    })?;
    for topic in &topics.outputs {
        let mut output = Vec::new();
        read(servers, topic, |message| {
            output.push(record(&value(message)?, message.partition())?);
            Ok(())
        })?;
        left.outputs.push(output);
    }
    if let Some(topic) = &topics.dead_letters {
        read(servers, topic, |message| {
            left.dead_letters.push(number(&value(message)?, "id")?);
            Ok(())
        })?;
    }
    if let Some(topic) = &topics.changelog {
        let mut table = BTreeMap::new();
        read(servers, topic, |message| fold(&mut table, message))?;
        left.table = Some(table);
    }
    Ok(left)
}

fn fold(table: &mut BTreeMap<String, u64>, message: &BorrowedMessage<'_>) -> Result<(), String> {
    let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
    match message.payload() {
        None => drop(table.remove(&key)),
        Some(_) => drop(table.insert(key, value(message)?.as_u64().ok_or("a count in the changelog is no number")?)),
    }
    Ok(())
}

fn value(message: &BorrowedMessage<'_>) -> Result<Value, String> {
    let place = || format!("{}/{}@{}", message.topic(), message.partition(), message.offset());
    serde_json::from_slice(message.payload().unwrap_or_default()).map_err(|error| format!("{}: {error}", place()))
}

fn number(value: &Value, name: &str) -> Result<u64, String> {
    value[name].as_u64().ok_or_else(|| format!("no number \"{name}\" in {value}"))
}

fn event(value: &Value, partition: i32, offset: i64) -> Result<Event, String> {
    let key = value["key"].as_str().ok_or_else(|| format!("no \"key\" in {value}"))?.to_owned();
    Ok(Event { id: number(value, "id")?, key, sequence: number(value, "sequence")?, partition, offset })
}

fn record(value: &Value, partition: i32) -> Result<Output, String> {
    let from = i32::try_from(number(value, "partition")?).map_err(|error| error.to_string())?;
    let offset = i64::try_from(number(value, "offset")?).map_err(|error| error.to_string())?;
    Ok(Output { event: event(value, from, offset)?, partition, count: value["count"].as_u64() })
}

fn client(servers: &str, isolation: &str) -> Result<BaseConsumer, String> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("group.id", "kaspr-verify").set("isolation.level", isolation);
    config.set("enable.auto.commit", "false").set("enable.partition.eof", "true").set("log_level", "0");
    config.set("fetch.wait.max.ms", "50");
    config.create().map_err(|error| error.to_string())
}

/// Hands over every committed record of a topic, in the order of each partition.
fn read(
    servers: &str,
    topic: &str,
    mut take: impl FnMut(&BorrowedMessage<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let told = |error: KafkaError| format!("topic {topic}: {error}");
    let (consumer, all) = (client(servers, "read_committed")?, client(servers, "read_uncommitted")?);
    let metadata = consumer.fetch_metadata(Some(topic), WAIT).map_err(told)?;
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    if partitions == 0 {
        return Err(format!("the topic {topic} does not exist"));
    }
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions).map_err(|error| error.to_string())? {
        let (low, end) = all.fetch_watermarks(topic, partition, WAIT).map_err(told)?;
        closed(&consumer, topic, partition, end)?;
        list.add_partition_offset(topic, partition, Offset::Offset(low)).map_err(told)?;
    }
    consumer.assign(&list).map_err(told)?;
    // Nothing was open before the ends, so the consumer reports no partition's end before it.
    let mut ended = BTreeSet::new();
    while ended.len() < partitions {
        match consumer.poll(WAIT) {
            Some(Ok(message)) => take(&message)?,
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition);
            }
            Some(Err(error)) => return Err(told(error)),
            None => return Err(format!("topic {topic}: nothing came for {WAIT:?}")),
        }
    }
    Ok(())
}

/// Waits until no transaction is open before `end`.
fn closed(consumer: &BaseConsumer, topic: &str, partition: i32, end: i64) -> Result<(), String> {
    let began = now();
    loop {
        let (_, stable) = consumer.fetch_watermarks(topic, partition, WAIT).map_err(|error| error.to_string())?;
        if stable >= end {
            return Ok(());
        }
        if now() - began > OPEN_MAX {
            return Err(format!("a transaction is open in {topic}/{partition} at {stable} for more than {OPEN_MAX:?}"));
        }
        pause(Duration::from_millis(200));
    }
}
