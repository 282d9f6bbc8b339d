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
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header as NativeHeader, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, PurgeConfig};
use tracing::info;

use super::aside::Aside;
use super::client::{Client, Flights, Line, client, opaque, refusal};
use super::config::ClientSettings;
use super::context::Health;
use super::errors::{Step, TransactionError, is_answer, judge_transaction, words};
use super::lists::offset_list;
use super::raw;
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
    line: Line,
    client: Arc<Client>,
    settings: ClientSettings,
    health: Arc<Health>,
    /// The client has run transactions: to fence it, a new one is made.
    used: bool,
    /// Wakes the worker.
    bell: Option<Arc<Bell>>,
    /// The settings have changed since it was made.
    outdated: bool,
    aside: Aside<Result<(), TransactionError>>,
}

impl KafkaProducer {
    /// A producer over a client that has connected.
    pub fn new(line: Line, settings: ClientSettings, health: Arc<Health>) -> KafkaProducer {
        KafkaProducer {
            client: line.client(),
            line,
            settings,
            health,
            used: false,
            bell: None,
            outdated: false,
            aside: Aside::new("kaspr-transactions"),
        }
    }

    /// Hangs the worker's bell up at the client's queue.
    ///
    /// Once for each client: the context keeps the bell until the client has ended.
    fn hang_bell(&self) {
        if let Some(bell) = &self.bell {
            let hang = || raw::Hung::on_reports(&self.client, bell);
            self.line.calls.during(ClientCall::PollProducer, || self.client.context().bell.get_or_init(hang));
        }
    }

    /// Counts of the client in use; those of older clients went with them.
    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.client.context().flights()
    }

    /// Takes reports until there are no more; waits at most `wait` for the first.
    fn take_reports(&self, wait: Duration) {
        let mut wait = wait;
        loop {
            let before = self.flights().reports;
            self.line.calls.during(ClientCall::PollProducer, || self.client.poll(wait));
            wait = Duration::ZERO;
            // A poll may also have served something else, as a log line: only reports count here.
            if self.flights().reports == before {
                break;
            }
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
            self.hang_bell();
            self.line.replace(self.client.clone());
            (self.used, self.outdated) = (false, false);
        }
        // Waits for the coordinator to end what an earlier producer left open under this id.
        let (calls, client) = (&self.line.calls, self.client.clone());
        let init = move || raw::init_transactions(&client, INIT_WAIT_MAX);
        let aside = || self.aside.run(INIT_WAIT_MAX + INIT_MARGIN, &self.line.patience, init);
        let ready = calls.during(ClientCall::InitTransactions, aside).unwrap_or_else(|| Err(not_returned()));
        ready.map_err(|error| self.judged(Step::Init, error, &[]))?;
        self.used = true;
        Ok(())
    }

    fn begin(&mut self) -> Result<(), BrokerError> {
        let begun = self.line.calls.during(ClientCall::BeginTransaction, || raw::begin(&self.client));
        begun.map_err(|error| self.judged(Step::Begin, error, &[]))
    }

    /// Counted as in flight from here until its report, which comes whatever becomes of it.
    fn send(&mut self, record: OutgoingRecord<'_>, generation: u64) -> Result<Taken, BrokerError> {
        let opaque = opaque(generation, record.tracked);
        let mut native = BaseRecord::<[u8], [u8], usize>::with_opaque_to(record.topic, opaque)
            .partition(record.partition)
            .timestamp(record.timestamp_ms);
        native.key = record.key;
        native.payload = record.value;
        if !record.headers.is_empty() {
            let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
            for (key, value) in record.headers {
                headers = headers.insert(NativeHeader { key, value: value.as_deref() });
            }
            native.headers = Some(headers);
        }
        let send = || self.client.send(native).map_err(|(error, _)| error);
        match self.line.calls.during(ClientCall::Produce, send) {
            Ok(()) => {
                // No report can have come yet: they come within a poll of this thread.
                let mut flights = self.flights();
                match flights.in_flight.back_mut() {
                    Some(flight) if flight.0 == generation => flight.1 += 1,
                    _ => flights.in_flight.push_back((generation, 1)),
                }
                Ok(Taken::Yes)
            }
            // An empty queue that does not take the record never will.
            Err(KafkaError::MessageProduction(Code::QueueFull)) if self.client.in_flight_count() > 0 => {
                Ok(Taken::QueueFull)
            }
            Err(KafkaError::MessageProduction(Code::QueueFull)) => {
                let why = format!(
                    "a record for {}/{} is larger than the client's queue (queue.buffering.max.kbytes)",
                    record.topic, record.partition
                );
                Err(self.failed(Some(Code::MessageSizeTooLarge), why))
            }
            Err(error) => {
                let place = format!("{}/{}", record.topic, record.partition);
                let why = format!("a record could not be sent to {place}: {}", words(&error));
                Err(self.failed(error.rdkafka_error_code(), why))
            }
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
    use std::collections::BTreeMap;

    use super::*;
    use crate::broker::Committed;
    use crate::clock::{Clock as _, SystemClock};
    use crate::config::Guarantee;
    use kaspr_ir::plan::Assignor;
    use rdkafka::mocking::{MockCluster, MockCoordinator};

    #[test]
    fn errors_are_judged_by_whose_they_are() {
        assert!(is_victim(Some(Code::PurgeQueue)) && !is_victim(Some(Code::TopicAuthorizationFailed)));
        assert!(
            is_answer(Code::PolicyViolation) && !is_answer(Code::MessageTimedOut) && !is_answer(Code::NotCoordinator)
        );
    }

    #[test]
    fn a_group_without_its_coordinator_holds_no_worker() {
        let cluster = MockCluster::new(3).expect("a cluster");
        cluster.create_topic("in", 1, 3).expect("a topic");
        cluster.coordinator(MockCoordinator::Transaction("app.0.0".to_owned()), 1).expect("a coordinator");
        cluster.coordinator(MockCoordinator::Group("app".to_owned()), 2).expect("a coordinator");
        let settings = ClientSettings {
            has_statistics: false,
            servers: cluster.bootstrap_servers(),
            app: "app".to_owned(),
            instance: None,
            transactional_id: "app.0.0".to_owned(),
            guarantee: Guarantee::ExactlyOnce,
            assignor: Assignor::CooperativeSticky,
            batch_bytes: super::super::config::BATCH_BYTES,
            times: crate::config::GroupTimes::default(),
            user: BTreeMap::new(),
        };
        let health = Arc::new(Health::new(&settings));
        let line = Line::new(&settings, health.clone(), &Patience::default()).expect("a client");
        let mut producer = KafkaProducer::new(line, settings, health);
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
