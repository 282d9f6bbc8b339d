//! A member of the app's group, over librdkafka's consumer.

use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{Consumer as _, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rustc_hash::FxHashSet;

use super::ANSWER_WAIT_MAX;
use super::config::ClientSettings;
use super::context::{Health, MemberContext, Rebalanced, unassign};
use super::errors::{judge, words};
use super::fence::Fence;
use super::orphans::Search;
use super::raw;
use super::wake::Wake;
use crate::broker::{BrokerError, Change, Committed, Consumer, GroupMetadata, OffsetCommit, Subscription, Watermarks};
use crate::event::message::{Event, TopicName, TopicPartition};

/// Partitions whose ends are asked for to wake the threads that fetch.
const WOKEN_MAX: usize = 16;
/// Longest wait for committed offsets. Those under an open transaction are not told before it ends, and
/// the worker's other partitions stand still meanwhile.
const COMMITTED_WAIT_MAX: Duration = Duration::from_millis(500);
/// Pause between tries to seek in a partition that librdkafka has not started yet.
const SEEK_AGAIN: Duration = Duration::from_millis(20);

/// A member of the app's group.
pub struct KafkaConsumer {
    /// Before its client: fields go in their order.
    commits: raw::Commits,
    consumer: BaseConsumer<MemberContext>,
    health: Arc<Health>,
    /// Names that events share.
    topics: FxHashSet<TopicName>,
    last_topic: TopicName,
    wake: Option<Wake>,
    fence: Fence,
    /// Of partitions that nobody was given, since the member has come.
    search: Option<Search>,
    settings: ClientSettings,
    /// Given up by the group, not yet acknowledged by us.
    owed: Vec<TopicPartition>,
}

impl KafkaConsumer {
    /// A consumer that has not joined yet.
    pub fn new(settings: &ClientSettings, health: Arc<Health>) -> Result<KafkaConsumer, BrokerError> {
        let context = MemberContext::new(health.clone());
        let consumer: BaseConsumer<MemberContext> = settings
            .consumer()
            .create_with_context(context)
            .map_err(|error| BrokerError::Fatal(format!("the consumer cannot be made: {}", words(&error))))?;
        let commits = raw::Commits::new(&consumer);
        Ok(KafkaConsumer {
            consumer,
            health,
            topics: FxHashSet::default(),
            last_topic: "".into(),
            commits,
            fence: Fence::new(settings),
            search: None,
            settings: settings.clone(),
            wake: None,
            owed: Vec::new(),
        })
    }

    /// What an error in the place of a message means.
    fn judge(&self, error: &KafkaError) -> Result<(), BrokerError> {
        if let Some(fatal) = self.health.fatal() {
            return Err(BrokerError::Fatal(format!("Kafka's client gave up: {fatal}")));
        }
        match error.rdkafka_error_code() {
            // Polling goes on and joins again; the loss comes as a change.
            Some(Code::PollExceeded) => Ok(()),
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Err(BrokerError::Fatal(format!(
                "an offset that the group \"{}\" stands at does not exist any more (deleted by retention, or the topic was made anew): {}",
                self.settings.app,
                words(error)
            ))),
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
                Err(BrokerError::Fatal(format!("a topic that is read does not exist any more: {}", words(error))))
            }
            Some(
                Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::InconsistentGroupProtocol
                | Code::FencedInstanceId
                | Code::Fatal,
            ) => {
                Err(BrokerError::Fatal(format!("the group \"{}\" cannot be read: {}", self.settings.app, words(error))))
            }
            // The rest is told by the callback that hears of brokers.
            _ => Ok(()),
        }
    }

    fn change(&mut self) -> Result<Option<Change>, BrokerError> {
        let is_stirred = self.consumer.context().take_stirred();
        let change = self.consumer.context().next_change();
        if matches!(change, Some(Rebalanced::Assigned(_))) {
            // Those who had these partitions may be gone: what they left open hides offsets and changelogs.
            self.fence.end_gone(BTreeSet::new());
        } else if is_stirred {
            self.fence.learn();
        }
        let Some(change) = change else { return Ok(None) };
        let mut names = |names: Vec<(String, i32)>| -> Vec<TopicPartition> {
            let named = |(topic, partition): (String, i32)| TopicPartition {
                topic: name(&mut self.topics, &mut self.last_topic, &topic),
                partition,
            };
            names.into_iter().map(named).collect()
        };
        match change {
            Rebalanced::Assigned(list) => Ok(Some(Change::Assigned(names(list)))),
            Rebalanced::Revoked(list) => {
                self.owed = names(list);
                Ok(Some(Change::Revoked(self.owed.clone())))
            }
            Rebalanced::Lost(list) => {
                self.owed = names(list);
                Ok(Some(Change::Lost(self.owed.clone())))
            }
            Rebalanced::Failed(why) => {
                Err(BrokerError::Fatal(format!("partitions could not be taken over or given up: {why}")))
            }
        }
    }

    /// After a pause or a change the threads that fetch sleep up to a second, unless something is
    /// asked of their brokers.
    fn wake_fetchers(&self) {
        let Ok(assigned) = self.consumer.assignment() else { return };
        for element in assigned.elements().iter().take(WOKEN_MAX) {
            // Only the asking matters.
            let _ = self.consumer.fetch_watermarks(element.topic(), element.partition(), Duration::from_millis(200));
        }
    }

    /// Acknowledges what the group took away, whether the worker has heard of it or not.
    fn give_back(&mut self) -> Result<(), KafkaError> {
        self.consumer.context().acknowledge_all();
        let mut owed = list(&std::mem::take(&mut self.owed));
        while let Some(change) = self.consumer.context().next_change() {
            if let Rebalanced::Revoked(names) | Rebalanced::Lost(names) = change {
                for (topic, partition) in &names {
                    owed.add_partition(topic, *partition);
                }
            }
        }
        if owed.count() > 0 { unassign(&self.consumer, &owed) } else { Ok(()) }
    }

    fn seek(&self, at: &[(TopicPartition, i64)]) -> Result<(), BrokerError> {
        let mut left: Vec<_> = at.iter().collect();
        let mut tries = ANSWER_WAIT_MAX.as_millis() / SEEK_AGAIN.as_millis();
        loop {
            let mut list = TopicPartitionList::with_capacity(left.len());
            for (partition, offset) in &left {
                let added = list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(*offset));
                added.map_err(|error| judge(&format!("{partition} cannot be read from offset {offset}"), &error))?;
            }
            let sought = self.consumer.seek_partitions(list, ANSWER_WAIT_MAX);
            let sought = sought.map_err(|error| judge("partitions cannot be read from their offsets", &error))?;
            let mut refused = None;
            left.retain(|(partition, _)| {
                let found = sought.find_partition(&partition.topic, partition.partition);
                let error = found.and_then(|element| element.error().err());
                refused = refused.take().or(error.map(|error| (partition.clone(), error)));
                let again = sought.find_partition(&partition.topic, partition.partition);
                again.is_some_and(|element| element.error().is_err())
            });
            let Some((partition, error)) = refused else { return Ok(()) };
            tries -= 1;
            if tries == 0 {
                return Err(judge(&format!("{partition} cannot be read from its offset"), &error));
            }
            std::thread::park_timeout(SEEK_AGAIN);
        }
    }
}

impl Consumer for KafkaConsumer {
    fn subscribe(&mut self, topics: &[Subscription]) -> Result<(), BrokerError> {
        let names: Vec<String> = topics
            .iter()
            .map(|topic| match topic {
                Subscription::Topic(name) => name.to_string(),
                // librdkafka takes a name that begins with ^ as a pattern, and matches anywhere.
                Subscription::Pattern(pattern) => format!("^({pattern})$"),
            })
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let subscribed = self.consumer.subscribe(&names);
        subscribed.map_err(|error| judge(&format!("the group \"{}\"", self.settings.app), &error))?;
        self.search = Search::start(&self.settings);
        Ok(())
    }

    fn poll(&mut self, wait: Duration, max: usize, into: &mut Vec<Event>) -> Result<Option<Change>, BrokerError> {
        if let Some(change) = self.change()? {
            return Ok(Some(change));
        }
        if let Some(wake) = &self.wake {
            wake.clear();
        }
        let mut wait = wait;
        while into.len() < max && !self.consumer.context().has_change() {
            match self.consumer.poll(wait) {
                Some(Ok(message)) => into.push(event(&message, &mut self.topics, &mut self.last_topic)),
                Some(Err(error)) => self.judge(&error)?,
                None => break,
            }
            wait = Duration::ZERO;
        }
        if into.is_empty() {
            return self.change();
        }
        if into.len() == max
            && let Some(wake) = &self.wake
        {
            // What is left in the queue rings no bell of its own.
            wake.bell.ring();
        }
        self.health.answered();
        Ok(None)
    }

    fn start(&mut self, at: &[(TopicPartition, i64)]) -> Result<(), BrokerError> {
        if at.is_empty() {
            return Ok(());
        }
        self.seek(at)?;
        let names: Vec<_> = at.iter().map(|(partition, _)| partition.clone()).collect();
        self.resume(&names)
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        let list = list(partitions);
        self.consumer.pause(&list).map_err(|error| judge("partitions cannot be paused", &error))
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        let list = list(partitions);
        self.consumer.resume(&list).map_err(|error| judge("partitions cannot be resumed", &error))?;
        self.wake_fetchers();
        Ok(())
    }

    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        let list = list(std::slice::from_ref(partition));
        if !raw::fill_positions(&self.consumer, &list) {
            return None;
        }
        match list.elements().first()?.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, BrokerError> {
        let asked = self.consumer.committed_offsets(list(partitions), COMMITTED_WAIT_MAX);
        let asking = format!("the committed offsets of the group \"{}\"", self.settings.app);
        let answered = asked.map_err(|error| judge(&asking, &error))?;
        let mut committed = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let Some(element) = answered.find_partition(&partition.topic, partition.partition) else {
                committed.push(None);
                continue;
            };
            element.error().map_err(|error| judge(&format!("{asking} in {partition}"), &error))?;
            committed.push(match element.offset() {
                Offset::Offset(offset) => Some(Committed { offset, metadata: raw::metadata(&answered, partition) }),
                _ => None,
            });
        }
        Ok(committed)
    }

    fn watermarks(&mut self, partition: &TopicPartition) -> Result<Watermarks, BrokerError> {
        let asked = self.consumer.fetch_watermarks(&partition.topic, partition.partition, ANSWER_WAIT_MAX);
        let (low, high) = asked.map_err(|error| judge(&format!("the ends of {partition}"), &error))?;
        Ok(Watermarks { low, high })
    }

    fn known_end(&self, partition: &TopicPartition) -> Option<i64> {
        raw::known_end(&self.consumer, partition)
    }

    fn offset_at(&mut self, partition: &TopicPartition, timestamp_ms: i64) -> Result<i64, BrokerError> {
        let asking = format!("the offset of {partition} at {timestamp_ms} ms");
        let mut asked = TopicPartitionList::new();
        let added = asked.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(timestamp_ms));
        added.map_err(|error| judge(&asking, &error))?;
        let answered = self.consumer.offsets_for_times(asked, ANSWER_WAIT_MAX);
        let answered = answered.map_err(|error| judge(&asking, &error))?;
        let elements = answered.elements();
        let Some(element) = elements.first() else { return Ok(self.watermarks(partition)?.high) };
        element.error().map_err(|error| judge(&asking, &error))?;
        match element.offset() {
            Offset::Offset(offset) => Ok(offset),
            _ => Ok(self.watermarks(partition)?.high),
        }
    }

    fn commit(&mut self, offsets: &[OffsetCommit]) -> Result<bool, BrokerError> {
        let answer = self.commits.turn(&self.consumer, || offset_list(offsets));
        let committed =
            answer.map_err(|error| judge(&format!("offsets of the group \"{}\"", self.settings.app), &error))?;
        if committed {
            self.health.answered();
        }
        Ok(committed)
    }

    fn unblock(&mut self, partitions: &[TopicPartition]) {
        self.fence.end_over(partitions);
    }

    fn end_gone(&mut self, producers: BTreeSet<String>) {
        self.fence.end_gone(producers);
    }

    fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        self.owed.clear();
        if self.commits.is_asked() {
            // The answer is to what was asked before; whoever waits for another one shall not meet it.
            self.commits = raw::Commits::new(&self.consumer);
        }
        let given_up = unassign(&self.consumer, &list(partitions));
        given_up.map_err(|error| BrokerError::Fatal(format!("partitions could not be given up: {error}")))?;
        if matches!(self.consumer.rebalance_protocol(), RebalanceProtocol::Cooperative) {
            self.wake_fetchers();
        }
        Ok(())
    }

    fn group(&self) -> GroupMetadata {
        let (generation, member) = raw::member(&self.consumer);
        GroupMetadata { group: self.settings.app.clone(), generation, member, instance: self.settings.instance.clone() }
    }

    fn wake_fd(&mut self) -> Option<RawFd> {
        if self.wake.is_none() {
            let wake = Wake::new()?;
            let bell = wake.bell.clone();
            self.consumer.set_nonempty_callback(move || bell.ring());
            // Something may have come before the bell was hung up.
            wake.bell.ring();
            self.wake = Some(wake);
        }
        self.wake.as_ref().map(Wake::fd)
    }

    /// Dynamic members leave the group; static ones stay until their session ends, so that a
    /// restart disturbs nobody.
    fn close(&mut self) -> Result<(), BrokerError> {
        self.give_back().map_err(|error| judge("partitions could not be given up", &error))?;
        self.consumer.close_queue().map_err(|error| judge("the group cannot be left", &error))?;
        while !self.consumer.closed() {
            let _ = self.consumer.poll(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for KafkaConsumer {
    /// A consumer that owes an acknowledgement would wait for it for ever.
    fn drop(&mut self) {
        // It is going away whatever the answer.
        let _ = self.give_back();
    }
}

pub(super) fn event(message: &BorrowedMessage<'_>, topics: &mut FxHashSet<TopicName>, last: &mut TopicName) -> Event {
    Event {
        topic: name(topics, last, message.topic()),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or_default(),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        headers: raw::headers(message),
    }
}

/// A name that many events share.
fn name(topics: &mut FxHashSet<TopicName>, last: &mut TopicName, topic: &str) -> TopicName {
    if **last != *topic {
        *last = match topics.get(topic) {
            Some(known) => known.clone(),
            None => {
                let new: TopicName = topic.into();
                topics.insert(new.clone());
                new
            }
        };
    }
    last.clone()
}

/// Offsets with their metadata, as librdkafka takes them.
pub fn offset_list(offsets: &[OffsetCommit]) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for OffsetCommit { partition, committed } in offsets {
        let mut element = list.add_partition(&partition.topic, partition.partition);
        element.set_offset(Offset::Offset(committed.offset))?;
        element.set_metadata(&committed.metadata);
    }
    Ok(list)
}

pub(super) fn list(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(&partition.topic, partition.partition);
    }
    list
}
