//! A member of the app's group, over librdkafka's consumer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{Consumer as _, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::producer::Producer as _;
use rdkafka::topic_partition_list::Offset;
use rustc_hash::FxHashSet;
use tracing::{debug, warn};

use super::ANSWER_WAIT_MAX;
use super::config::ClientSettings;
use super::context::{Health, MemberContext, Rebalanced, unassign};
use super::errors::{judge, words};
use super::fence::Fence;
use super::fresh::Missing;
use super::lists::{list, offset_list, offsets_list};
use super::offsets::{self, Offsets, Questions, Which};
use super::orphans::Search;
use super::producer::{Client, Line};
use super::{raw, stuck};
use crate::broker::{BrokerError, Change, Committed, Consumer, GroupMetadata, OffsetCommit, Subscription, Watermarks};
use crate::clock::{Clock as _, SystemClock};
use crate::event::message::{Event, TopicName, TopicPartition};
use crate::guard::ClientCall;
use crate::wake::Bell;

/// Partitions that a question names which only wakes the threads that fetch.
const WOKEN_MAX: usize = 64;
/// Longest life of such a question.
const WAKE_MAX: Duration = Duration::from_secs(1);
/// Longest wait for the ends of partitions: the worker's others stand still meanwhile.
const ENDS_WAIT_MAX: Duration = Duration::from_secs(2);
/// Longest wait for committed offsets. Those under an open transaction are not told before it ends, and
/// the worker's other partitions stand still meanwhile.
const COMMITTED_WAIT_MAX: Duration = Duration::from_millis(500);
/// Pause between tries to put partitions right whose offsets do not exist any more.
const ADRIFT_AGAIN: Duration = Duration::from_secs(1);

/// A member of the app's group.
pub struct KafkaConsumer {
    /// Before their client: fields go in their order.
    commits: raw::Commits,
    wakes: Questions,
    consumer: BaseConsumer<MemberContext>,
    health: Arc<Health>,
    /// Names that events share.
    topics: FxHashSet<TopicName>,
    last_topic: TopicName,
    /// Wakes the worker.
    bell: Option<Arc<Bell>>,
    fence: Fence,
    /// Of partitions that nobody was given, since the member has come.
    search: Option<Search>,
    settings: ClientSettings,
    /// Topics that are read by name.
    read: Vec<String>,
    /// Of those, any that some broker does not know.
    missing: Missing,
    /// Given up by the group, not yet acknowledged by us.
    owed: Vec<TopicPartition>,
    /// Answers questions about partitions, on connections that do not fetch.
    line: Line,
    clock: SystemClock,
    /// Partitions that are assigned, and where each was last started.
    starts: BTreeMap<TopicPartition, i64>,
    paused: BTreeSet<TopicPartition>,
    /// The client has given a partition up because its offset does not exist; when to put it right.
    adrift: Option<Duration>,
    stuck: stuck::Look,
}

impl KafkaConsumer {
    /// A consumer that has not joined yet.
    pub fn new(settings: &ClientSettings, health: Arc<Health>, line: Line) -> Result<KafkaConsumer, BrokerError> {
        let context = MemberContext::new(health.clone());
        let consumer: BaseConsumer<MemberContext> = settings
            .consumer()
            .create_with_context(context)
            .map_err(|error| BrokerError::Fatal(format!("the consumer cannot be made: {}", words(&error))))?;
        let commits = raw::Commits::new(&consumer);
        Ok(KafkaConsumer {
            wakes: Questions::new(consumer.client()),
            consumer,
            health,
            topics: FxHashSet::default(),
            last_topic: "".into(),
            commits,
            fence: Fence::new(settings),
            search: None,
            settings: settings.clone(),
            read: Vec::new(),
            missing: Missing::default(),
            bell: None,
            owed: Vec::new(),
            line,
            clock: SystemClock::start(),
            starts: BTreeMap::new(),
            paused: BTreeSet::new(),
            adrift: None,
            stuck: stuck::Look::default(),
        })
    }

    /// What an error in the place of a message means.
    fn judge(&mut self, error: &KafkaError) -> Result<(), BrokerError> {
        if let Some(fatal) = self.health.fatal() {
            return Err(BrokerError::Fatal(format!("Kafka's client gave up: {fatal}")));
        }
        match error.rdkafka_error_code() {
            // Polling goes on and joins again; the loss comes as a change.
            Some(Code::PollExceeded) => Ok(()),
            // Of some partition, which it does not name.
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
                self.adrift.get_or_insert(Duration::ZERO);
                Ok(())
            }
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
                self.missing.note(format!("a topic that is read does not exist any more: {}", words(error)));
                Ok(())
            }
            Some(
                Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::InconsistentGroupProtocol
                | Code::FencedInstanceId
                | Code::Fatal,
            ) => {
                Err(BrokerError::Group(format!("the group \"{}\" cannot be read: {}", self.settings.app, words(error))))
            }
            // The rest is told by the callback that hears of brokers.
            _ => Ok(()),
        }
    }

    /// Every topic that is read is known to the broker that is asked. Asking also lets the client look anew
    /// for what it reads.
    fn are_known(&self) -> bool {
        let is_known = |name: &String| match self.consumer.fetch_metadata(Some(name), COMMITTED_WAIT_MAX) {
            Ok(answered) => answered.topics().iter().all(|topic| topic.error().is_none()),
            Err(_) => false,
        };
        self.read.iter().all(is_known)
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

    /// The threads that fetch sleep up to a second after a pause or a change, unless something is asked of
    /// their brokers. Only the asking matters.
    fn wake_fetchers(&mut self, partitions: &[TopicPartition]) {
        while self.wakes.answer(Duration::ZERO).is_some() {}
        let some = &partitions[..partitions.len().min(WOKEN_MAX)];
        if !some.is_empty() {
            self.wakes.ask(self.consumer.client(), Which::First, some, WAKE_MAX);
        }
    }

    fn unpause(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        self.paused.retain(|partition| !partitions.contains(partition));
        let resumed = self.line.calls.during(ClientCall::Pause, || self.consumer.resume(&list(partitions)));
        resumed.map_err(|error| judge("partitions cannot be resumed", &error))
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

    /// Fetches partitions from these offsets on, and drops what was fetched of them before.
    fn fetch_from(&mut self, at: Vec<(TopicPartition, i64)>) -> Result<(), BrokerError> {
        let (assigned, mut new): (Vec<_>, Vec<_>) =
            at.iter().cloned().partition(|(partition, _)| self.starts.contains_key(partition));
        new.extend(self.seek(assigned)?);
        self.assign(&new)?;
        let names: Vec<_> = at.iter().map(|(partition, _)| partition.clone()).collect();
        self.starts.extend(at);
        self.wake_fetchers(&names);
        Ok(())
    }

    /// Seeks in partitions that are assigned. Gives back those that the client has given up: it revives none
    /// of them, whatever is sought.
    fn seek(&self, at: Vec<(TopicPartition, i64)>) -> Result<Vec<(TopicPartition, i64)>, BrokerError> {
        if at.is_empty() {
            return Ok(at);
        }
        let sought = offsets_list(&at)?;
        let sought =
            self.line.calls.during(ClientCall::Seek, || self.consumer.seek_partitions(sought, ANSWER_WAIT_MAX));
        let sought = sought.map_err(|error| judge("partitions cannot be read from their offsets", &error))?;
        let is_refused = |(partition, _): &(TopicPartition, i64)| {
            let found = sought.find_partition(&partition.topic, partition.partition);
            found.is_some_and(|element| element.error().is_err())
        };
        Ok(at.into_iter().filter(is_refused).collect())
    }

    /// Assigns partitions at these offsets, anew where they are assigned already.
    fn assign(&self, at: &[(TopicPartition, i64)]) -> Result<(), BrokerError> {
        if at.is_empty() {
            return Ok(());
        }
        let failed = |error| BrokerError::Fatal(format!("partitions could not be taken over: {error}"));
        let calls = &self.line.calls;
        if matches!(self.consumer.rebalance_protocol(), RebalanceProtocol::Cooperative) {
            let names: Vec<_> = at.iter().map(|(partition, _)| partition.clone()).collect();
            calls.during(ClientCall::Assign, || unassign(&self.consumer, &list(&names))).map_err(failed)?;
            let new = offsets_list(at)?;
            return calls.during(ClientCall::Assign, || self.consumer.incremental_assign(&new)).map_err(failed);
        }
        // Here only all partitions can be assigned at once: the others go on where they stand.
        let mut all: BTreeMap<_, _> = self.fetched(|_| true).into_iter().collect();
        all.extend(at.iter().cloned());
        let all: Vec<_> = all.into_iter().collect();
        let all = offsets_list(&all)?;
        calls.during(ClientCall::Assign, || self.consumer.assign(&all)).map_err(failed)
    }

    /// The offsets at which assigned partitions stand.
    fn fetched(&self, which: impl Fn(&TopicPartition) -> bool) -> Vec<(TopicPartition, i64)> {
        let asked = self.starts.iter().filter(|(partition, _)| which(partition));
        asked.map(|(partition, start)| (partition.clone(), self.position(partition).unwrap_or(*start))).collect()
    }

    /// The client has given up a partition whose offset does not exist any more: retention has passed it. It
    /// goes on at the first offset that is left. Where none has been passed, all begin again where they stand.
    fn put_right(&mut self) -> Result<(), BrokerError> {
        let fetched = self.fetched(|_| true);
        let names: Vec<_> = fetched.iter().map(|(partition, _)| partition.clone()).collect();
        let ends = match self.ends(&names) {
            Err(BrokerError::Retriable(why)) => {
                debug!("where partitions begin is not known: {why}");
                self.adrift = Some(self.clock.now() + ADRIFT_AGAIN);
                return Ok(());
            }
            ends => ends?,
        };
        self.adrift = ends.iter().any(Option::is_none).then(|| self.clock.now() + ADRIFT_AGAIN);
        let mut passed = Vec::new();
        for ((partition, position), ends) in fetched.iter().zip(ends) {
            let Some(ends) = ends else { continue };
            let within = ends.within(partition, *position)?;
            if within != *position {
                passed.push((partition.clone(), within));
            }
        }
        self.fetch_from(if passed.is_empty() { fetched } else { passed })
    }

    /// Revives partitions that get nothing though they go on.
    fn free_stuck(&mut self) -> Result<(), BrokerError> {
        let mut look = std::mem::take(&mut self.stuck);
        let fetched = || self.fetched(|partition| !self.paused.contains(partition));
        let stuck = look.turn(self.clock.now(), &self.line, fetched);
        self.stuck = look;
        if stuck.is_empty() {
            return Ok(());
        }
        let seconds = stuck::STUCK_AFTER.as_secs();
        for (partition, position) in &stuck {
            warn!(%partition, position, "more can be read and nothing has come for {seconds} s: it is assigned anew");
        }
        self.assign(&stuck)?;
        let names: Vec<_> = stuck.iter().map(|(partition, _)| partition.clone()).collect();
        self.starts.extend(stuck);
        self.wake_fetchers(&names);
        Ok(())
    }

    /// Of these partitions those that some broker leads.
    fn led(&self, client: &Client, partitions: &[TopicPartition]) -> Result<Vec<TopicPartition>, BrokerError> {
        let mut led: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
        for TopicPartition { topic, .. } in partitions {
            if led.contains_key(&**topic) {
                continue;
            }
            let ask = || client.client().fetch_metadata(Some(topic), ENDS_WAIT_MAX);
            let asked = self.line.calls.during(ClientCall::Metadata, ask);
            let answered = asked.map_err(|error| judge(&format!("the leaders of \"{topic}\""), &error))?;
            let partitions = answered.topics().iter().flat_map(MetadataTopic::partitions);
            let is_led = |partition: &&MetadataPartition| partition.leader() >= 0;
            led.insert(topic, partitions.filter(is_led).map(MetadataPartition::id).collect());
        }
        let is_led = |partition: &&TopicPartition| led[&*partition.topic].contains(&partition.partition);
        Ok(partitions.iter().filter(is_led).cloned().collect())
    }

    /// Asks about all partitions at once, over a client that does not fetch.
    fn ask(&self, asked: &[Which], partitions: &[TopicPartition]) -> Result<Vec<Offsets>, BrokerError> {
        let client = self.line.client();
        let led = self.led(&client, partitions)?;
        if led.is_empty() {
            return Ok(asked.iter().map(|_| Offsets::new()).collect());
        }
        let ask = || offsets::ask_all(client.client(), asked, &led, ENDS_WAIT_MAX);
        let answers = self.line.calls.during(ClientCall::ListOffsets, ask);
        let name = |first: &TopicPartition| format!("the ends of {} partitions, {first} first", led.len());
        answers.map_err(|error| judge(&led.first().map_or_else(String::new, name), &error))
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
        self.read = names.iter().filter(|name| !name.starts_with('^')).cloned().collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let subscribed = self.line.calls.during(ClientCall::Subscribe, || self.consumer.subscribe(&names));
        subscribed.map_err(|error| judge(&format!("the group \"{}\"", self.settings.app), &error))?;
        self.search = Search::start(&self.settings);
        Ok(())
    }

    fn poll(&mut self, wait: Duration, max: usize, into: &mut Vec<Event>) -> Result<Option<Change>, BrokerError> {
        if let Some(change) = self.change()? {
            return Ok(Some(change));
        }
        let mut missing = std::mem::take(&mut self.missing);
        missing.settle(|| self.are_known())?;
        self.missing = missing;
        if self.adrift.is_some_and(|at| self.clock.now() >= at) {
            self.put_right()?;
        }
        self.free_stuck()?;
        let mut wait = wait;
        while into.len() < max && !self.consumer.context().has_change() {
            match self.line.calls.during(ClientCall::PollConsumer, || self.consumer.poll(wait)) {
                Some(Ok(message)) => into.push(event(&message, &mut self.topics, &mut self.last_topic)),
                Some(Err(error)) => self.judge(&error)?,
                None => break,
            }
            wait = Duration::ZERO;
        }
        if let Some(bell) = self.bell.as_ref().filter(|_| raw::has_more(&self.consumer)) {
            // What is left in the queue rings no bell of its own.
            bell.ring();
        }
        if into.is_empty() {
            return self.change();
        }
        self.health.answered();
        Ok(None)
    }

    fn start(&mut self, at: &[(TopicPartition, i64)]) -> Result<(), BrokerError> {
        if at.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = at.iter().map(|(partition, _)| partition.clone()).collect();
        // A pause outlives the assignment that it was made in.
        self.unpause(&names)?;
        self.fetch_from(at.to_vec())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        self.paused.extend(partitions.iter().cloned());
        let paused = self.line.calls.during(ClientCall::Pause, || self.consumer.pause(&list(partitions)));
        paused.map_err(|error| judge("partitions cannot be paused", &error))
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        self.unpause(partitions)?;
        self.wake_fetchers(partitions);
        Ok(())
    }

    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        let start = *self.starts.get(partition)?;
        let list = list(std::slice::from_ref(partition));
        if !raw::fill_positions(&self.consumer, &list) {
            return None;
        }
        // The client knows none before the first record.
        match list.elements().first()?.offset() {
            Offset::Offset(offset) => Some(offset.max(start)),
            _ => Some(start),
        }
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, BrokerError> {
        let ask = || self.consumer.committed_offsets(list(partitions), COMMITTED_WAIT_MAX);
        let asked = self.line.calls.during(ClientCall::CommittedOffsets, ask);
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

    fn ends(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Watermarks>>, BrokerError> {
        let answers = self.ask(&[Which::First, Which::End], partitions)?;
        let [first, end] = answers.as_slice() else { return Ok(vec![None; partitions.len()]) };
        let of = |offsets: &Offsets, TopicPartition { topic, partition }: &TopicPartition| {
            offsets.get(&(topic.to_string(), *partition)).copied().flatten()
        };
        let marks =
            |partition: &TopicPartition| Some(Watermarks { low: of(first, partition)?, high: of(end, partition)? });
        Ok(partitions.iter().map(marks).collect())
    }

    fn known_end(&self, partition: &TopicPartition) -> Option<i64> {
        raw::known_end(&self.consumer, partition)
    }

    fn offsets_at(
        &mut self,
        partitions: &[TopicPartition],
        timestamp_ms: i64,
    ) -> Result<Vec<Option<i64>>, BrokerError> {
        let answers = self.ask(&[Which::Since(timestamp_ms), Which::End], partitions)?;
        let [since, end] = answers.as_slice() else { return Ok(vec![None; partitions.len()]) };
        let offset = |TopicPartition { topic, partition }: &TopicPartition| {
            let name = (topic.to_string(), *partition);
            let end = end.get(&name).copied().flatten()?;
            Some(since.get(&name).copied()?.unwrap_or(end))
        };
        Ok(partitions.iter().map(offset).collect())
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
            if let Some(bell) = &self.bell {
                self.commits.rings(bell);
            }
        }
        let give_up = || unassign(&self.consumer, &list(partitions));
        let given_up = self.line.calls.during(ClientCall::Assign, give_up);
        given_up.map_err(|error| BrokerError::Fatal(format!("partitions could not be given up: {error}")))?;
        self.starts.retain(|partition, _| !partitions.contains(partition));
        self.paused.retain(|partition| !partitions.contains(partition));
        let left: Vec<_> = self.starts.keys().take(WOKEN_MAX).cloned().collect();
        self.wake_fetchers(&left);
        Ok(())
    }

    fn group(&self) -> GroupMetadata {
        let (generation, member) = raw::member(&self.consumer);
        GroupMetadata { group: self.settings.app.clone(), generation, member, instance: self.settings.instance.clone() }
    }

    fn is_adrift(&self) -> bool {
        self.adrift.is_some() || self.missing.is_open()
    }

    fn rings(&mut self, bell: &Arc<Bell>) -> bool {
        let rung = bell.clone();
        self.consumer.set_nonempty_callback(move || rung.ring());
        self.commits.rings(bell);
        // Something may have come before the bell was hung up.
        bell.ring();
        self.bell = Some(bell.clone());
        true
    }

    /// Dynamic members leave the group; static ones stay until their session ends, so that a
    /// restart disturbs nobody.
    fn close(&mut self) -> Result<(), BrokerError> {
        let calls = self.line.calls.clone();
        let given_back = calls.during(ClientCall::Assign, || self.give_back());
        given_back.map_err(|error| judge("partitions could not be given up", &error))?;
        calls.during(ClientCall::Close, || {
            self.consumer.close_queue().map_err(|error| judge("the group cannot be left", &error))?;
            while !self.consumer.closed() {
                let _ = self.consumer.poll(Duration::from_millis(10));
            }
            Ok(())
        })
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
