//! Sends records, over librdkafka's producer.
//!
//! ```text
//! init_transactions ─▶ begin ─▶ send … ─ poll ─▶ send_offsets (aside) ─▶ commit
//!   the second time a new client,                      └ may not return: unknown outcome
//!   which fences the old one
//! ```
//!
//! An error is one of three: the broker will never take a record (`Refused`, `Rejected`), the transaction must be
//! done again (`Abort`), or its outcome is open (`Indefinite`, `Fenced`). The client names a record only where the
//! broker refused that record; what came along in the transaction fails with it, and those records are victims.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::producer::{Producer as _, PurgeConfig};
use tracing::info;

use super::aside::Aside;
use super::client::{Client, Flights, Line, client, opaque, refusal};
use super::config::ClientSettings;
use super::context::Health;
use super::errors::{Step, TransactionError, is_answer, judge_transaction, words};
use super::lists::offset_list;
use super::outbox::{NotTaken, Outbox, Room};
use super::raw;
use super::reports::Reports;
use super::rights::lacking;
use crate::broker::rights::Right;
use crate::broker::{BrokerError, GroupMetadata, OffsetCommit, OutgoingRecord, Producer, Taken};
use crate::config::CLIENT_CALL_MAX;
use crate::event::message::TopicPartition;
use crate::guard::{ClientCall, Patience};
use crate::wake::Bell;

/// Longest wait for the coordinator when a producer begins: it may have a takeover to finish.
const INIT_WAIT_MAX: Duration = Duration::from_secs(10);
/// Time beyond it in which the client surely returns.
const INIT_MARGIN: Duration = Duration::from_secs(2);
/// Longest wait for the answer to a call on a transaction. Then its outcome is not known.
const CALL_WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest wait for the call that puts offsets into a transaction, which may not keep its own bound.
const OFFSETS_WAIT_MAX: Duration = CALL_WAIT_MAX.saturating_add(Duration::from_secs(2));
const _: () = assert!(2 * OFFSETS_WAIT_MAX.as_secs() <= CLIENT_CALL_MAX.as_secs(), "the watchdog is the last resort");
/// Length of one wait for reports of purged records, and the number of waits.
const PURGE_TURN: Duration = Duration::from_millis(10);
const PURGE_TURNS_MAX: u32 = 100;
/// Batches do not become smaller than this.
const BATCH_BYTES_MIN: usize = 1000;

/// The producer of a worker.
///
/// `client` is the line's client at all times but inside `init_transactions`. At-least-once there are no
/// transactions, and no call on them comes.
pub struct KafkaProducer {
    /// The ways to the client and back: made with it, and gone before it.
    outbox: Outbox,
    reports: Reports,
    line: Line,
    client: Arc<Client>,
    settings: ClientSettings,
    /// Records, and bytes of their values, that the client's queue takes.
    room_max: (usize, usize),
    health: Arc<Health>,
    /// The client has run transactions: to fence it, a new one is made.
    used: bool,
    /// Wakes the worker.
    bell: Option<Arc<Bell>>,
    /// Reports ring the bell.
    is_heard: Arc<AtomicBool>,
    /// The settings have changed since it was made.
    outdated: bool,
    aside: Aside<Result<(), TransactionError>>,
}

impl KafkaProducer {
    /// A producer over a client that has connected.
    pub fn new(line: Line, settings: ClientSettings, health: Arc<Health>) -> KafkaProducer {
        let client = line.client();
        KafkaProducer {
            outbox: Outbox::new(&client),
            reports: Reports::of(&client),
            client,
            line,
            room_max: settings.room(),
            settings,
            health,
            used: false,
            bell: None,
            is_heard: Arc::new(AtomicBool::new(false)),
            outdated: false,
            aside: Aside::new("kaspr-transactions"),
        }
    }

    /// Hangs the worker's bell up at the client's queue.
    ///
    /// Once for each client: the context keeps the bell until the client has ended.
    fn hang_bell(&self) {
        if let Some(bell) = &self.bell {
            let hang = || raw::Hung::on_reports(&self.client, bell, &self.is_heard);
            self.line.calls.during(ClientCall::PollProducer, || self.client.context().bell.get_or_init(hang));
        }
    }

    /// Counts of the client in use; those of older clients went with them.
    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.client.context().flights()
    }

    /// Takes all reports that there are; waits at most `wait` for the first.
    fn take_reports(&self, wait: Duration) {
        let before = self.flights().reports;
        self.line.calls.during(ClientCall::PollProducer, || self.reports.take(&self.client, wait));
        // A poll may also have served something else, as a log line: only reports count here.
        if self.flights().reports != before {
            self.health.answered();
        }
    }

    /// Makes batches smaller in the next client. A topic's limit is for a batch as a whole, and the client
    /// does not cut one that is refused. False: they cannot be smaller.
    ///
    /// A quarter each time, not below [`BATCH_BYTES_MIN`]. The transaction is then done again over the new client.
    fn makes_batches_smaller(&mut self) -> bool {
        // A user's own size stands.
        let user_says = self.settings.user.contains_key("batch.size");
        if !self.settings.is_exact() || user_says || self.settings.batch_bytes <= BATCH_BYTES_MIN {
            return false;
        }
        self.settings.batch_bytes = (self.settings.batch_bytes / 4).max(BATCH_BYTES_MIN);
        info!("batches of records are larger than a topic takes: {} bytes from here on", self.settings.batch_bytes);
        self.outdated = true;
        true
    }

    /// The fault of a record, or of the transaction that took it along.
    ///
    /// ```text
    /// at-least-once                        Fatal: nothing may be skipped, and there is no transaction to do again
    /// the record's own reason is final     Refused, with the kind of failure
    /// the broker answered something else   Rejected: it may repeat or not
    /// no answer, or a victim's             Abort
    /// ```
    fn failed(&self, code: Option<Code>, why: String) -> BrokerError {
        let is_exact = self.settings.is_exact();
        let (code, why) = match is_exact && is_victim(code) {
            true => self.culprit().unwrap_or((code, why)),
            false => (code, why),
        };
        match (code, code.and_then(refusal)) {
            _ if !is_exact => BrokerError::Fatal(why),
            (_, Some(kind)) => BrokerError::Refused { kind, why },
            (Some(code), None) if is_answer(code) => BrokerError::Rejected(why),
            _ => BrokerError::Abort(why),
        }
    }

    /// The meaning of an error of a call on a transaction. A right that is missing is named.
    ///
    /// [`BrokerError::Group`] then: every worker of the app lacks it, and no retry helps.
    fn judged(&self, step: Step, error: TransactionError, reads: &[&str]) -> BrokerError {
        // Only offsets are about topics that are read. In other steps the error is about a topic of a record, and
        // the event that sent the record is to blame.
        let is_of_topics = error.code == Code::TopicAuthorizationFailed && step != Step::Offsets;
        if is_of_topics {
            return judge_transaction(step, error);
        }
        let ask = || lacking(&self.client, &self.settings, Some(error.code), reads);
        let rights = self.line.calls.during(ClientCall::Admin, ask);
        match rights.is_empty() {
            true => judge_transaction(step, error),
            false => BrokerError::Group(format!("no event can succeed: {}", self.settings.identity().lacks(&rights))),
        }
    }

    /// The error of a client that gave up for good.
    ///
    /// Only at-least-once: a transactional client that gives up is replaced ([`BrokerError::Fenced`]).
    fn gave_up(&self, why: &str) -> BrokerError {
        let code = self.client.client().fatal_error().map(|(code, _)| code);
        match code {
            Some(Code::ClusterAuthorizationFailed) => {
                BrokerError::Group(self.settings.identity().lacks(&[Right::number_records()]))
            }
            _ => BrokerError::Fatal(format!("Kafka's client gave up: {why}")),
        }
    }

    /// The reason for which the transaction failed, in the broker's words, with the partition that it is
    /// about.
    ///
    /// `None`: the client knows of no reason to abort.
    fn culprit(&self) -> Option<(Option<Code>, String)> {
        let ask = || raw::reason_to_abort(&self.client);
        let reason = self.line.calls.during(ClientCall::BeginTransaction, ask)?;
        let shut_out = self.flights().shut_out.clone();
        Some((Some(reason.code), shut_out.unwrap_or(reason.text)))
    }
}

/// True if the client dropped the record because its transaction had failed before: it is a victim.
fn is_victim(code: Option<Code>) -> bool {
    matches!(code, Some(Code::PurgeQueue | Code::PurgeInflight | Code::InvalidTransactionalState | Code::State))
}

/// The error of a call that has not returned: nothing is known of its outcome.
fn not_returned() -> TransactionError {
    let text = "the client has not returned".to_owned();
    TransactionError { code: Code::OperationTimedOut, text, is_fatal: false, requires_abort: false }
}

impl Producer for KafkaProducer {
    fn init_transactions(&mut self) -> Result<(), BrokerError> {
        if self.used {
            // A new client under the same id raises the epoch, which fences requests of the old one that are
            // still under way.
            let make = || client(&self.settings, self.health.clone(), &self.line.patience);
            self.client = self.line.calls.during(ClientCall::Create, make)?;
            (self.outbox, self.reports) = (Outbox::new(&self.client), Reports::of(&self.client));
            self.hang_bell();
            self.line.replace(self.client.clone());
            (self.used, self.outdated) = (false, false);
        }
        // Waits for the coordinator to end what an earlier producer left open under this id.
        let (calls, client) = (&self.line.calls, self.client.clone());
        let init = move || raw::init_transactions(&client, INIT_WAIT_MAX);
        // Resumed where it did not return: once it has succeeded, the client refuses to begin again.
        let aside = || self.aside.resume(INIT_WAIT_MAX + INIT_MARGIN, &self.line.patience, init);
        let ready = calls.during(ClientCall::InitTransactions, aside).unwrap_or_else(|| Err(not_returned()));
        ready.map_err(|error| self.judged(Step::Init, error, &[]))?;
        self.used = true;
        Ok(())
    }

    fn begin(&mut self) -> Result<(), BrokerError> {
        let begun = self.line.calls.during(ClientCall::BeginTransaction, || raw::begin(&self.client));
        begun.map_err(|error| self.judged(Step::Begin, error, &[]))
    }

    fn send(&mut self, record: OutgoingRecord<'_>, generation: u64) -> Result<Taken, BrokerError> {
        let taken = self.send_all(&mut std::iter::once(record), generation)?;
        Ok(if taken == 1 { Taken::Yes } else { Taken::QueueFull })
    }

    /// Counted as in flight from here until their reports, which come whatever becomes of them. A record that fails
    /// may not be the last that is handed over: others of its partition may be in flight.
    fn send_all(
        &mut self,
        records: &mut dyn Iterator<Item = OutgoingRecord<'_>>,
        generation: u64,
    ) -> Result<usize, BrokerError> {
        let (records_max, bytes_max) = self.room_max;
        let (records_queued, bytes_queued) = self.flights().queued;
        let room =
            Room { records: records_max.saturating_sub(records_queued), bytes: bytes_max.saturating_sub(bytes_queued) };
        let opaque = |record: &OutgoingRecord<'_>| opaque(generation, record.tracked);
        let send = || self.outbox.send(records, opaque, room);
        let handed = self.line.calls.during(ClientCall::Produce, send);
        self.flights().depart(generation, handed.records, handed.bytes);
        match (handed.failed, handed.full) {
            (Some(NotTaken { code, place }), _) => {
                let why = format!("a record could not be sent to {place}: {code}");
                Err(self.failed(Some(code), why))
            }
            // An empty queue that does not take the record never will.
            (None, Some(place)) if handed.seen == 0 && records_queued == 0 => {
                let why =
                    format!("a record for {place} is larger than the client's queue (queue.buffering.max.kbytes)");
                Err(self.failed(Some(Code::MessageSizeTooLarge), why))
            }
            _ => Ok(handed.seen),
        }
    }

    fn poll(&mut self, wait: Duration) -> Result<(), BrokerError> {
        self.take_reports(wait);
        if let Some(fatal) = self.health.fatal() {
            return Err(self.gave_up(&fatal));
        }
        let (fatal, failed, too_large) = {
            let mut flights = self.flights();
            (flights.fatal.take(), flights.failed.take(), std::mem::take(&mut flights.too_large))
        };
        match (fatal, failed) {
            // Before a failed record: it fails because the client does.
            (Some(fatal), _) => Err(BrokerError::Fenced(fatal)),
            // A record that is alone in its batch is too large itself.
            (None, Some((_, why))) if too_large > 1 && self.makes_batches_smaller() => Err(BrokerError::Abort(why)),
            (None, Some((code, why))) => Err(self.failed(code, why)),
            (None, None) => Ok(()),
        }
    }

    fn wait(&mut self, wait: Duration) {
        self.take_reports(wait);
    }

    fn in_flight(&self, generation: u64) -> usize {
        self.flights().in_flight.iter().filter(|flight| flight.0 <= generation).map(|flight| flight.1).sum()
    }

    fn written(&mut self) -> Vec<(TopicPartition, i64)> {
        let written = std::mem::take(&mut self.flights().written);
        let named = |((topic, partition), offset)| (TopicPartition::new(String::as_str(&topic), partition), offset);
        written.into_iter().map(named).collect()
    }

    fn rings(&mut self, bell: &Arc<Bell>) {
        self.bell = Some(bell.clone());
        self.hang_bell();
    }

    fn listens(&mut self, listens: bool) {
        let has_listened = self.is_heard.swap(listens, Ordering::Relaxed);
        // What came before rang nothing, and the queue rings only when it was empty.
        if let Some(bell) = self.bell.as_ref().filter(|_| listens && !has_listened && self.reports.has_any()) {
            bell.ring();
        }
    }

    fn is_outdated(&self) -> bool {
        self.outdated
    }

    fn send_offsets(&mut self, offsets: &[OffsetCommit], group: &GroupMetadata) -> Result<(), BrokerError> {
        if offsets.is_empty() {
            return Ok(());
        }
        // Made here: the call itself runs in a thread that may outlive this transaction.
        let list = offset_list(offsets).map_err(|error| BrokerError::Abort(words(&error)))?;
        let (client, group) = (self.client.clone(), group.clone());
        let send = move || raw::send_offsets(&client, &list, &group, CALL_WAIT_MAX);
        // A last commit gets all of its time, also when the process is asked to stop.
        let patience = Patience::default();
        let aside = || self.aside.run(OFFSETS_WAIT_MAX, &patience, send);
        let sent = self.line.calls.during(ClientCall::SendOffsets, aside).unwrap_or_else(|| Err(not_returned()));
        sent.map_err(|error| {
            let topics: BTreeSet<&str> = offsets.iter().map(|offset| &*offset.partition.topic).collect();
            self.judged(Step::Offsets, error, &Vec::from_iter(topics))
        })
    }

    /// Durable once it returns `Ok`. If the call was slow, a repeated request may hit the next transaction: the worker
    /// replaces this producer before it begins one.
    fn commit(&mut self) -> Result<(), BrokerError> {
        let calls = &self.line.calls;
        let committed = calls.during(ClientCall::CommitTransaction, || raw::commit(&self.client, CALL_WAIT_MAX));
        committed.map_err(|error| self.judged(Step::Commit, error, &[]))?;
        self.health.answered();
        Ok(())
    }

    /// Empties the queue first: with records in flight the client's own abort waits out its time.
    fn abort(&mut self) -> Result<(), BrokerError> {
        // Queued records never leave; those in flight are reported as purged and may still be written, which the
        // abort undoes.
        let purge = || self.client.purge(PurgeConfig::default().queue().inflight());
        self.line.calls.during(ClientCall::AbortTransaction, purge);
        for _ in 0..PURGE_TURNS_MAX {
            if self.client.in_flight_count() == 0 {
                break;
            }
            self.take_reports(PURGE_TURN);
        }
        let calls = &self.line.calls;
        let aborted = calls.during(ClientCall::AbortTransaction, || raw::abort(&self.client, CALL_WAIT_MAX));
        let mut flights = self.flights();
        // Whatever was not reported within the wait belongs to no generation any more.
        flights.in_flight.clear();
        (flights.failed, flights.fatal, flights.too_large, flights.shut_out) = (None, None, 0, None);
        drop(flights);
        aborted.map_err(|error| judge_transaction(Step::Abort, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Committed;
    use crate::clock::{Clock as _, SystemClock};
    use crate::config::Guarantee;
    use crate::config::secret::Secret;
    use crate::event::message::{Header, TopicName};
    use kaspr_ir::plan::Assignor;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::message::Message as _;
    use rdkafka::mocking::{MockCluster, MockCoordinator};
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

    #[test]
    fn errors_are_judged_by_whose_they_are() {
        assert!(is_victim(Some(Code::PurgeQueue)) && !is_victim(Some(Code::TopicAuthorizationFailed)));
        assert!(
            is_answer(Code::PolicyViolation) && !is_answer(Code::MessageTimedOut) && !is_answer(Code::NotCoordinator)
        );
    }

    fn producer(
        cluster: &MockCluster<'_, DefaultProducerContext>,
        guarantee: Guarantee,
        user: &[(&str, &str)],
    ) -> KafkaProducer {
        let settings = ClientSettings {
            has_statistics: false,
            servers: cluster.bootstrap_servers(),
            app: "app".to_owned(),
            instance: None,
            transactional_id: "app.0.0".to_owned(),
            guarantee,
            assignor: Assignor::CooperativeSticky,
            batch_bytes: super::super::config::BATCH_BYTES,
            times: crate::config::GroupTimes::default(),
            user: user.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect(),
        };
        let health = Arc::new(Health::new(&settings));
        let line = Line::new(&settings, health.clone(), &Patience::default()).expect("a client");
        KafkaProducer::new(line, settings, health)
    }

    /// A record whose value is its number. Odd ones have a header.
    fn record<'a>(
        (topic, partition): (&'a TopicName, i32),
        value: &'a str,
        headers: &'a [Header],
    ) -> OutgoingRecord<'a> {
        let is_odd = value.parse::<usize>().is_ok_and(|number| number % 2 == 1);
        let (key, value) = (Some(b"k".as_slice()), Some(value.as_bytes()));
        let headers = if is_odd { headers } else { &[] };
        OutgoingRecord { topic, partition, timestamp_ms: 0, key, value, headers, tracked: true }
    }

    /// Takes reports until there is nothing in flight.
    fn settle(producer: &mut KafkaProducer) -> Result<(), BrokerError> {
        let clock = SystemClock::start();
        while producer.in_flight(u64::MAX >> 1) > 0 && clock.now() < Duration::from_secs(30) {
            producer.wait(Duration::from_millis(10));
        }
        producer.poll(Duration::ZERO)
    }

    /// The values of a partition, in its order, and whether they have headers.
    fn read(cluster: &MockCluster<'_, DefaultProducerContext>, partition: i32, count: usize) -> Vec<(usize, bool)> {
        let mut config = rdkafka::ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers()).set("group.id", "reads");
        let reader: BaseConsumer = config.create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("out", partition, Offset::Beginning).expect("an offset");
        reader.assign(&list).expect("assigned");
        let (clock, mut values) = (SystemClock::start(), Vec::new());
        while values.len() < count && clock.now() < Duration::from_secs(30) {
            if let Some(message) = reader.poll(Duration::from_millis(100)) {
                let message = message.expect("no error");
                let value = message.payload_view::<str>().expect("a value").expect("text");
                values.push((value.parse().expect("a number"), message.headers().is_some()));
            }
        }
        values
    }

    #[test]
    fn records_go_over_in_the_order_of_their_partitions() {
        let cluster = MockCluster::new(1).expect("a cluster");
        cluster.create_topic("out", 2, 1).expect("a topic");
        let mut producer = producer(&cluster, Guarantee::AtLeastOnce, &[]);
        let (topic, headers) = ("out".into(), vec![("h".to_owned(), None)]);
        let numbers: Vec<String> = (0..3000).map(|number: usize| number.to_string()).collect();
        let is_second = |number: usize| number.is_multiple_of(3);
        let records = numbers.iter().enumerate();
        let mut records = records.map(|(at, value)| record((&topic, i32::from(is_second(at))), value, &headers));
        assert_eq!(producer.send_all(&mut records, 7).expect("they are taken"), 3000);
        assert_eq!((producer.in_flight(6), producer.in_flight(7)), (0, 3000));
        settle(&mut producer).expect("all are delivered");
        assert_eq!(producer.in_flight(7), 0);
        for (partition, count) in [(0, 2000), (1, 1000)] {
            let expected = (0..3000).filter(|number| is_second(*number) == (partition == 1));
            let expected: Vec<_> = expected.map(|number| (number, number % 2 == 1)).collect();
            assert_eq!(read(&cluster, partition, count), expected);
        }
        let written = [(0, 2000), (1, 1000)].map(|(partition, next)| (TopicPartition::new("out", partition), next));
        assert_eq!(producer.written(), written);
    }

    #[test]
    fn a_full_queue_takes_the_first_records_and_the_rest_after_a_poll() {
        let cluster = MockCluster::new(1).expect("a cluster");
        cluster.create_topic("out", 1, 1).expect("a topic");
        let bounds = [("queue.buffering.max.messages", "3"), ("queue.buffering.max.kbytes", "1")];
        let mut producer = producer(&cluster, Guarantee::AtLeastOnce, &bounds);
        let topic: TopicName = "out".into();
        let numbers: Vec<String> = (0..5).map(|number: usize| number.to_string()).collect();
        let records = |from: usize| numbers.iter().skip(from).map(|value| record((&topic, 0), value, &[]));
        assert_eq!(producer.send_all(&mut records(0), 1).expect("some"), 3);
        assert_eq!(producer.send_all(&mut records(3), 1).expect("none"), 0);
        settle(&mut producer).expect("they are delivered");
        assert_eq!(producer.send_all(&mut records(3), 1).expect("the rest"), 2);
        settle(&mut producer).expect("they are delivered");
        let expected: Vec<_> = (0..5).map(|number| (number, false)).collect();
        assert_eq!(read(&cluster, 0, 5), expected);
        // A record that is larger than the queue will never be taken.
        let large = "1".repeat(2000);
        let error = producer.send_all(&mut std::iter::once(record((&topic, 0), &large, &[])), 2).expect_err("never");
        assert!(error.to_string().contains("out/0 is larger than the client's queue"), "{error}");
    }

    #[test]
    fn a_record_that_the_client_refuses_is_named_and_leaves_nothing_in_flight() {
        let cluster = MockCluster::new(1).expect("a cluster");
        cluster.create_topic("out", 1, 1).expect("a topic");
        let mut producer = producer(&cluster, Guarantee::AtLeastOnce, &[]);
        let topic: TopicName = "out".into();
        let mut send = |placed: [(i32, &str); 3]| {
            let mut records = placed.iter().map(|(partition, value)| record((&topic, *partition), value, &[]));
            let sent = producer.send_all(&mut records, 1).map(drop);
            sent.and_then(|()| settle(&mut producer)).map_err(|error| (error.to_string(), producer.in_flight(1)))
        };
        // The client learns by the first records how many partitions there are.
        assert_eq!(send([(0, "0"), (0, "2"), (0, "4")]), Ok(()));
        let (why, _) = send([(0, "6"), (5, "8"), (0, "10")]).expect_err("there is no such partition");
        assert!(why.contains("a record could not be sent to out/5"), "{why}");
        settle(&mut producer).expect("the others are delivered");
        assert_eq!((producer.in_flight(1), producer.client.in_flight_count()), (0, 0));
        assert_eq!(read(&cluster, 0, 5), [0, 2, 4, 6, 10].map(|number| (number, false)), "those of another partition");
    }

    #[test]
    fn a_producer_that_was_not_waited_for_still_begins() {
        let cluster = MockCluster::new(1).expect("a cluster");
        let mut producer = producer(&cluster, Guarantee::ExactlyOnce, &[]);
        producer.line.patience.end();
        cluster.broker_round_trip_time(1, Duration::from_millis(400)).expect("a slow broker");
        let (clock, mut begun) = (SystemClock::start(), producer.init_transactions());
        assert!(matches!(begun, Err(BrokerError::Retriable(_))), "the process is asked to stop: {begun:?}");
        while begun.is_err() && clock.now() < Duration::from_secs(30) {
            begun = producer.init_transactions();
        }
        begun.expect("it begins");
        producer.begin().expect("a transaction begins");
    }

    #[test]
    fn a_group_without_its_coordinator_holds_no_worker() {
        let cluster = MockCluster::new(3).expect("a cluster");
        cluster.create_topic("in", 1, 3).expect("a topic");
        cluster.coordinator(MockCoordinator::Transaction("app.0.0".to_owned()), 1).expect("a coordinator");
        cluster.coordinator(MockCoordinator::Group("app".to_owned()), 2).expect("a coordinator");
        let mut producer = producer(&cluster, Guarantee::ExactlyOnce, &[]);
        producer.init_transactions().expect("it begins");
        producer.begin().expect("a transaction begins");
        let committed = Committed { offset: 1, metadata: None };
        let offsets = [OffsetCommit { partition: TopicPartition::new("in", 0), committed }];
        let group =
            GroupMetadata { group: "app".to_owned(), generation: 1, member: "member".to_owned(), instance: None };
        cluster.broker_down(2).expect("it is down");
        let (clock, bound) = (SystemClock::start(), OFFSETS_WAIT_MAX + Duration::from_secs(5));
        let sent = producer.send_offsets(&offsets, &group);
        assert!(clock.now() < bound, "it took {:?}", clock.now());
        assert!(matches!(sent, Err(BrokerError::Indefinite(_) | BrokerError::Abort(_))), "{sent:?}");
        producer.init_transactions().expect("the next producer begins");
    }
}
