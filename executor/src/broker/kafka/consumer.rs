//! A member of the app's group, over librdkafka's consumer.
//!
//! ```text
//! group ──▶ rebalance callback (context) ──▶ change() ──▶ the worker: Change
//!           comes: acknowledged at once, with nothing assigned
//!           goes:  acknowledged by release(), after the worker's last commit
//! start(offsets) ──▶ assigned or sought (fetching) ──▶ poll: events
//! ```
//!
//! Invariants: `starts` names exactly the partitions that are assigned to the client, `given` those that the worker
//! takes for its own; between a change and the start they differ. A member that the group takes for fenced loses
//! everything and comes back as a new client (`rejoin`); until then calls on the client do nothing.

mod fetching;
mod judging;
mod rejoin;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset;

use super::client::Line;
use super::config::ClientSettings;
use super::context::{Health, MemberContext, Rebalanced, unassign};
use super::ends::{ask, ends};
use super::errors::{judge, words};
use super::events::Names;
use super::fence::Fence;
use super::fresh::Missing;
use super::identity::Identity;
use super::inbox::Inbox;
use super::kept::Kept;
use super::lists::{list, offset_list};
use super::offsets::{Questions, Sees, Which};
use super::orphans::Search;
use super::visits::Visits;
use super::waiting::Waiting;
use super::withheld::Withheld;
use super::{raw, stuck};
use crate::broker::position::Metadata;
use crate::broker::{BrokerError, Change, Committed, Consumer, GroupMetadata, OffsetCommit, Subscription, Watermarks};
use crate::clock::{Clock as _, SystemClock};
use crate::event::message::{Event, TopicPartition};
use crate::guard::ClientCall;
use crate::status::clients::ClientFigures;
use crate::wake::Bell;
use judging::Foreign;

/// Partitions that a question names which only wakes the threads that fetch.
const WOKEN_MAX: usize = 64;
/// Longest life of such a question.
const WAKE_MAX: Duration = Duration::from_secs(1);
/// Longest wait for committed offsets. A broker does not return those under an open transaction before it
/// ends, and the worker's other partitions stand still meanwhile.
const COMMITTED_WAIT_MAX: Duration = Duration::from_millis(500);

/// A member of the app's group.
///
/// Made with the worker, before it joins; leaves the group when it is closed. The order of the fields is the order
/// in which they end: queues go before the client that they belong to.
pub struct KafkaConsumer {
    /// Dropped before its client: fields are dropped in their order.
    commits: raw::Commits,
    /// The client's queue.
    inbox: Inbox,
    /// Questions whose answers are not looked at, see [`KafkaConsumer::wake_fetchers`].
    wakes: Questions,
    consumer: Kept<BaseConsumer<MemberContext>>,
    health: Arc<Health>,
    /// Names that events share.
    names: Names,
    /// Wakes the worker.
    bell: Option<Arc<Bell>>,
    fence: Fence,
    /// The search for partitions without an owner, since the member has come.
    search: Option<Search>,
    /// The wait for partitions, while it has none.
    waiting: Option<Waiting>,
    /// Makes the group share out its partitions.
    visits: Arc<Visits>,
    /// Partitions of which the worker learns nothing.
    withheld: Arc<Withheld>,
    settings: ClientSettings,
    /// Names and patterns of topics that are read.
    subscribed: Vec<String>,
    /// Of those, any that some broker does not know.
    missing: Missing,
    /// A static member's names in the group.
    identity: Option<Identity>,
    /// The worker takes these for its own.
    given: BTreeSet<TopicPartition>,
    /// Revoked by the group, and not yet acknowledged by the worker.
    owed: Vec<TopicPartition>,
    /// Answers questions about partitions, on connections that do not fetch.
    line: Line,
    clock: SystemClock,
    /// Partitions that are assigned, and where each was last started.
    starts: BTreeMap<TopicPartition, i64>,
    /// Paused by the worker: that nothing comes from them is no sign of being stuck.
    paused: BTreeSet<TopicPartition>,
    /// The client has given a partition up because its offset does not exist; when to put it right.
    adrift: Option<Duration>,
    /// The look for partitions that get nothing though they go on.
    stuck: stuck::Look,
    /// The wait for members that speak another protocol.
    foreign: Foreign,
}

/// A client that has not joined yet.
///
/// Its threads start here; it asks no group before it subscribes.
fn client(
    settings: &ClientSettings,
    health: &Arc<Health>,
    withheld: &Arc<Withheld>,
) -> Result<BaseConsumer<MemberContext>, BrokerError> {
    let context = MemberContext::new(health.clone(), withheld.clone());
    let made = settings.consumer().create_with_context(context);
    let made = made.inspect(|made: &BaseConsumer<MemberContext>| settings.admit(made.client()));
    made.map_err(|error| BrokerError::Fatal(format!("the consumer cannot be made: {}", words(&error))))
}

impl KafkaConsumer {
    /// A consumer that has not joined yet.
    ///
    /// [`BrokerError::Fatal`] where librdkafka does not take the settings.
    pub fn new(settings: &ClientSettings, health: Arc<Health>, line: Line) -> Result<KafkaConsumer, BrokerError> {
        let withheld = Arc::new(Withheld::default());
        let consumer = Kept::make(&line.calls, || client(settings, &health, &withheld))?;
        let commits = raw::Commits::new(&consumer);
        Ok(KafkaConsumer {
            inbox: Inbox::of(&consumer),
            wakes: Questions::new(consumer.client()),
            consumer,
            health,
            names: Names::default(),
            commits,
            fence: Fence::new(settings, &line.callers),
            search: None,
            waiting: None,
            visits: Visits::new(settings, &line.callers),
            withheld,
            settings: settings.clone(),
            subscribed: Vec::new(),
            missing: Missing::default(),
            bell: None,
            identity: Identity::new(settings),
            given: BTreeSet::new(),
            owed: Vec::new(),
            line,
            clock: SystemClock::start(),
            starts: BTreeMap::new(),
            paused: BTreeSet::new(),
            adrift: None,
            stuck: stuck::Look::default(),
            foreign: Foreign::default(),
        })
    }

    /// Has the member take part in an election: the one that is assigned the partition of this topic leads the app.
    /// Called before it subscribes. The answer is true while this member leads.
    ///
    /// It is false again before the group learns that the member gives the partition up.
    pub fn elect(&self, topic: &str) -> Arc<AtomicBool> {
        self.withheld.elect(topic)
    }

    /// True if the broker that is asked knows every topic that is read. Asking also makes the client look for
    /// these topics again.
    ///
    /// One question for each topic that is read by name.
    fn are_known(&self) -> bool {
        let ask = |name: &String| self.consumer.fetch_metadata(Some(name), COMMITTED_WAIT_MAX);
        let is_known = |name: &String| match self.line.calls.during(ClientCall::Metadata, || ask(name)) {
            Ok(answered) => answered.topics().iter().all(|topic| topic.error().is_none()),
            Err(_) => false,
        };
        self.subscribed.iter().filter(|name| !name.starts_with('^')).all(is_known)
    }

    /// The next change of the group for the worker, if there is one. On the way it notes the member's identity, and has
    /// the fence learn who is in the group.
    fn change(&mut self) -> Result<Option<Change>, BrokerError> {
        let is_stirred = self.consumer.context().take_stirred();
        let change = self.consumer.context().next_change();
        let is_served = matches!(change, Some(Rebalanced::Assigned(_)));
        // A rebalance may give another member id without a change of partitions: a fenced member must know its own.
        if is_served || is_stirred {
            self.note_identity(is_served);
        }
        if is_served {
            self.waiting = None;
            // The members that had these partitions may be gone: what they left open hides offsets and
            // changelogs.
            self.fence.end_gone(BTreeSet::new());
        } else if is_stirred {
            self.fence.learn();
        }
        let Some(change) = change else { return Ok(None) };
        let mut names = |names: Vec<(String, i32)>| -> Vec<TopicPartition> {
            let named =
                |(topic, partition): (String, i32)| TopicPartition { topic: self.names.name(&topic), partition };
            names.into_iter().map(named).collect()
        };
        match change {
            Rebalanced::Assigned(list) => {
                let names = names(list);
                self.given.extend(names.iter().cloned());
                Ok(Some(Change::Assigned(names)))
            }
            Rebalanced::Revoked(list) => {
                self.owed = names(list);
                self.given.retain(|name| !self.owed.contains(name));
                Ok(Some(Change::Revoked(self.owed.clone())))
            }
            // Owed as well: librdkafka waits for an acknowledgement even where nothing can be done any more.
            Rebalanced::Lost(list) => {
                self.owed = names(list);
                self.given.retain(|name| !self.owed.contains(name));
                Ok(Some(Change::Lost(self.owed.clone())))
            }
            Rebalanced::Failed(why) => {
                Err(BrokerError::Fatal(format!("partitions could not be taken over or given up: {why}")))
            }
        }
    }

    /// Joins the group.
    ///
    /// Partitions come as changes, once the group has shared them out.
    fn join(&mut self) -> Result<(), BrokerError> {
        let mut names: Vec<&str> = self.subscribed.iter().map(String::as_str).collect();
        names.extend(self.withheld.election());
        let subscribed = self.line.calls.during(ClientCall::Subscribe, || self.consumer.subscribe(&names));
        subscribed.map_err(|error| judge(&format!("the group \"{}\"", self.settings.app), &error))?;
        self.search = Search::start(&self.settings, &self.visits);
        self.waiting = Waiting::start(&self.settings, &self.line, self.bell.as_ref());
        Ok(())
    }

    /// Has the client's queue and that of commits ring the bell. Called again for each new client.
    fn hang(&mut self, bell: &Arc<Bell>) {
        let rung = bell.clone();
        self.consumer.set_nonempty_callback(move || rung.ring());
        self.commits.rings(bell);
        // Something may have come before the bell was hung up.
        bell.ring();
    }

    /// Wakes the threads that fetch, by a question to their brokers: they sleep up to a second after a pause
    /// or a change. The answer does not matter.
    ///
    /// After a start, a resume or a release: without it the gap of partitions that stay is up to a second.
    fn wake_fetchers(&mut self, partitions: &[TopicPartition]) {
        let calls = &self.line.calls;
        // Answers of earlier questions are thrown away, or the queue would only grow.
        while calls.during(ClientCall::ListOffsets, || self.wakes.answer(Duration::ZERO)).is_some() {}
        let some = &partitions[..partitions.len().min(WOKEN_MAX)];
        if !some.is_empty() {
            let question = (Which::First, Sees::Decided);
            let ask = || self.wakes.ask(self.consumer.client(), question, some, WAKE_MAX);
            calls.during(ClientCall::ListOffsets, ask);
        }
    }

    /// The member's generation and name.
    ///
    /// 0 and empty outside a group. Asked of the client itself, without a broker.
    fn member(&self) -> (i32, String) {
        self.line.calls.during(ClientCall::GroupMetadata, || raw::member(&self.consumer))
    }

    /// Something waits to be polled.
    fn has_more(&self) -> bool {
        self.line.calls.during(ClientCall::PollConsumer, || self.inbox.has_more())
    }

    /// At the client too, where a pause survives an assignment.
    fn unpause(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        self.paused.retain(|partition| !partitions.contains(partition));
        let resumed = self.line.calls.during(ClientCall::Pause, || self.consumer.resume(&list(partitions)));
        resumed.map_err(|error| judge("partitions cannot be resumed", &error))
    }

    /// Acknowledges the revocations of the group, whether the worker has learnt of them or not.
    ///
    /// Called when the member leaves: what the worker has not committed by now is another member's to do again.
    fn give_back(&mut self) -> Result<(), KafkaError> {
        // First, so that a revocation that comes meanwhile is acknowledged in its callback.
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
        self.subscribed = names;
        self.withheld.subscribe(topics);
        self.join()
    }

    /// A turn of upkeep comes first, in this order: the way back of a fenced member, a change, topics that may be
    /// missing, partitions that the client has given up, partitions that are stuck.
    fn poll(&mut self, wait: Duration, max: usize, into: &mut Vec<Event>) -> Result<Option<Change>, BrokerError> {
        if self.is_fenced() {
            return self.come_back(wait);
        }
        if let Some(change) = self.change()? {
            return Ok(Some(change));
        }
        if let Some(waiting) = &mut self.waiting {
            waiting.tell(|| raw::member(&self.consumer).1);
        }
        // Taken out for the call: the question borrows the rest of the consumer.
        let mut missing = std::mem::take(&mut self.missing);
        missing.settle(|| self.are_known())?;
        self.missing = missing;
        if self.adrift.is_some_and(|at| self.clock.now() >= at) {
            self.put_right()?;
        }
        self.free_stuck()?;
        self.visits.end_strays(&self.withheld);
        let mut wait = wait;
        // A change ends the round: events behind it may be of partitions that go.
        while into.len() < max && !self.consumer.context().has_change() {
            let take = || self.inbox.take(&self.consumer, wait, max, &mut self.names, into);
            match self.line.calls.during(ClientCall::PollConsumer, take) {
                Ok(()) => break,
                Err(error) => self.judge(&error)?,
            }
            wait = Duration::ZERO;
        }
        // The queue rings only when it was empty: what is left in it would ring no more, and a change that was taken out
        // of it with events before it waits for the next poll.
        let has_rest = || self.has_more() || self.consumer.context().has_change() || self.is_fenced();
        if let Some(bell) = self.bell.as_ref().filter(|_| has_rest()) {
            bell.ring();
        }
        // A change comes alone: events that were polled before it are handed over first.
        if into.is_empty() {
            return self.change();
        }
        // Events are an answer: no question is needed to know that brokers are there.
        self.health.answered();
        Ok(None)
    }

    /// Partitions may be assigned already, as after an abort: those are sought. On an error some may have started;
    /// the worker starts all of them again.
    fn start(&mut self, at: &[(TopicPartition, i64)]) -> Result<(), BrokerError> {
        if at.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = at.iter().map(|(partition, _)| partition.clone()).collect();
        // A pause outlives the assignment that it was made in.
        self.unpause(&names)?;
        let fetched = self.fetch_from(at.to_vec());
        self.unless_fenced(fetched)
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

    /// Asked of the client, which counts markers and aborted records that it passed over. Never before the
    /// offset of the last start.
    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        let start = *self.starts.get(partition)?;
        let list = list(std::slice::from_ref(partition));
        let fill = || raw::fill_positions(&self.consumer, &list);
        if !self.line.calls.during(ClientCall::Position, fill) {
            return None;
        }
        // The client knows none before the first record.
        match list.elements().first()?.offset() {
            Offset::Offset(offset) => Some(offset.max(start)),
            _ => Some(start),
        }
    }

    /// Fails with [`BrokerError::Retriable`] while a transaction over one of them is open: the broker gives no stable
    /// offset then. An offset that another program committed comes without metadata.
    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, BrokerError> {
        let ask = || self.consumer.committed_offsets(list(partitions), COMMITTED_WAIT_MAX);
        let asked = self.line.calls.during(ClientCall::CommittedOffsets, ask);
        let asking = format!("the committed offsets of the group \"{}\"", self.settings.app);
        let answered = asked.map_err(|error| self.judged(&asking, &error))?;
        let mut committed = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let Some(element) = answered.find_partition(&partition.topic, partition.partition) else {
                committed.push(None);
                continue;
            };
            element.error().map_err(|error| self.judged(&format!("{asking} in {partition}"), &error))?;
            committed.push(match element.offset() {
                Offset::Offset(offset) => {
                    Some(Committed { offset, metadata: Metadata::decode(&raw::metadata(&answered, partition)) })
                }
                _ => None,
            });
        }
        Ok(committed)
    }

    fn ends(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Watermarks>>, BrokerError> {
        ends(&self.line, Sees::Decided, partitions)
    }

    fn known_end(&self, partition: &TopicPartition) -> Option<i64> {
        self.line.calls.during(ClientCall::Position, || raw::known_end(&self.consumer, partition))
    }

    fn offsets_at(
        &mut self,
        partitions: &[TopicPartition],
        timestamp_ms: i64,
    ) -> Result<Vec<Option<i64>>, BrokerError> {
        let asked = [Which::Since(timestamp_ms), Which::End].map(|which| (which, Sees::Decided));
        let answers = ask(&self.line, &asked, partitions)?;
        let [since, end] = answers.as_slice() else { return Ok(vec![None; partitions.len()]) };
        let offset = |TopicPartition { topic, partition }: &TopicPartition| {
            let name = (topic.to_string(), *partition);
            let end = end.get(&name).copied().flatten()?;
            Some(since.get(&name).copied()?.unwrap_or(end))
        };
        Ok(partitions.iter().map(offset).collect())
    }

    /// The first call asks, the next ones look for the answer; offsets of later calls count only after it.
    fn commit(&mut self, offsets: &[OffsetCommit]) -> Result<bool, BrokerError> {
        let turn = || self.commits.turn(&self.consumer, || offset_list(offsets));
        let answer = self.line.calls.during(ClientCall::CommitOffsets, turn);
        let doing = format!("offsets of the group \"{}\"", self.settings.app);
        let committed = answer.map_err(|error| self.judged(&doing, &error))?;
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
        // The worker answers for all that it was told, whatever it names here.
        self.owed.clear();
        if self.commits.is_asked() {
            // The answer on its way is to an earlier question: a caller that waits for another one must not
            // take it for its own.
            self.commits = raw::Commits::new(&self.consumer);
            if let Some(bell) = &self.bell {
                self.commits.rings(bell);
            }
        }
        let give_up = || unassign(&self.consumer, &list(partitions));
        let given_up = self.line.calls.during(ClientCall::Assign, give_up);
        // A fenced client refuses: its assignment goes with it.
        if !self.is_fenced() {
            given_up.map_err(|error| BrokerError::Fatal(format!("partitions could not be given up: {error}")))?;
        }
        self.starts.retain(|partition, _| !partitions.contains(partition));
        self.paused.retain(|partition| !partitions.contains(partition));
        if self.given.is_empty() {
            self.waiting = Waiting::start(&self.settings, &self.line, self.bell.as_ref());
        }
        let left: Vec<_> = self.starts.keys().take(WOKEN_MAX).cloned().collect();
        self.wake_fetchers(&left);
        Ok(())
    }

    /// Asked of the client each time: a join raises the generation without a change of partitions.
    fn group(&self) -> GroupMetadata {
        let (generation, member) = self.member();
        GroupMetadata { group: self.settings.app.clone(), generation, member, instance: self.settings.instance.clone() }
    }

    fn has_assignment(&self) -> bool {
        self.consumer.context().has_assignment() && !self.is_coming_back()
    }

    fn clients(&self) -> Vec<ClientFigures> {
        self.health.statistics.all()
    }

    fn kept_out(&self) -> Option<&'static str> {
        if self.foreign.is_met(self.clock.now()) {
            return Some("waiting for members of another protocol to leave the group");
        }
        self.health.is_down().then_some("waiting for a broker")
    }

    fn stir(&mut self) {
        self.visits.ask();
    }

    fn is_adrift(&self) -> bool {
        self.adrift.is_some() || self.missing.is_open() || self.is_coming_back()
    }

    fn rings(&mut self, bell: &Arc<Bell>) -> bool {
        self.hang(bell);
        self.bell = Some(bell.clone());
        true
    }

    fn rings_for_rest(&self) -> bool {
        self.bell.is_some()
    }

    /// Dynamic members leave the group; static ones stay until their session ends, so that a restart causes
    /// no rebalance.
    fn close(&mut self) -> Result<(), BrokerError> {
        if self.is_fenced() {
            return Ok(());
        }
        let calls = self.line.calls.clone();
        let given_back = calls.during(ClientCall::Assign, || self.give_back());
        given_back.map_err(|error| judge("partitions could not be given up", &error))?;
        // The queue is served until the client has left: it leaves when nothing waits to be polled.
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
        // The member goes away whatever the answer is.
        let calls = self.line.calls.clone();
        let _ = calls.during(ClientCall::Assign, || self.give_back());
    }
}
