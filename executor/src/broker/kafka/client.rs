//! The producer's client, which also answers questions about topics: its callbacks, and the place where a new
//! client may replace it.
//!
//! ```text
//! send: in_flight[generation] + 1        librdkafka: sends, retries, acknowledges
//! poll ─▶ reports, in the caller's thread: in_flight[generation] - 1, and the offset or the fault
//! ```
//!
//! Reports come within a poll of the worker's thread, so the lock of the counts is never waited for; it is there
//! because the client wants callbacks that threads may share.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, DeliveryResult};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
use tracing::debug;

use super::aside::Aside;
use super::config::ClientSettings;
use super::context::Health;
use super::errors::words;
use super::kept::Kept;
use super::raw;
use crate::broker::BrokerError;
use crate::guard::{Callers, Calls, ClientCall, Patience};

/// The producer's client, which also answers questions about topics.
pub type Client = BaseProducer<DeliveryContext>;

/// The producer's client, in a place where a new client may replace it.
///
/// All parts of a connection hold clones of it, and take the client anew for each question: after
/// [`Line::replace`] they ask over the new one.
#[derive(Clone)]
pub struct Line {
    client: Rc<Kept<RefCell<Arc<Client>>>>,
    /// The call that the worker's thread is in, of any of its clients.
    pub calls: Arc<Calls>,
    /// Calls of all threads.
    pub callers: Arc<Callers>,
    /// The patience of the worker's thread with brokers.
    pub patience: Patience,
    /// Questions about topics, on their way to a broker.
    pub(super) questions: Rc<RefCell<Aside<Answer>>>,
}

/// A topic, as a broker describes it.
pub(super) struct Described {
    /// Its name.
    pub(super) name: String,
    /// The reason for which it cannot be described.
    pub(super) error: Option<Code>,
    /// The number of its partitions.
    pub(super) partitions: usize,
    /// Partitions that some broker leads.
    pub(super) led: Vec<i32>,
}

/// Topics as a broker describes them.
pub(super) type Answer = Result<Vec<Described>, KafkaError>;

impl Line {
    /// A client that is not connected yet.
    ///
    /// [`BrokerError::Fatal`] where librdkafka does not take the settings.
    pub fn new(settings: &ClientSettings, health: Arc<Health>, patience: &Patience) -> Result<Line, BrokerError> {
        let callers = Callers::start();
        let calls = callers.own();
        let client = Kept::make(&calls, || client(settings, health, patience).map(RefCell::new))?;
        let questions = Rc::new(RefCell::new(Aside::new("kaspr-metadata")));
        Ok(Line { client: Rc::new(client), calls, callers, patience: patience.clone(), questions })
    }

    /// The client as it is now.
    pub fn client(&self) -> Arc<Client> {
        self.client.borrow().clone()
    }

    /// Puts a new client in the place of the old one, which ends in a thread of its own.
    ///
    /// Requests that the old client still sends are fenced by the new one's [`raw::init_transactions`].
    pub(super) fn replace(&self, client: Arc<Client>) {
        const THREAD: &str = "kaspr-old-producer";
        // Others may hold the old client for a question: it ends with the last of them.
        let old = std::mem::replace(&mut *self.client.borrow_mut(), client);
        // Its end waits for threads and connections of its own: the worker does not wait for that.
        let calls = self.callers.other(THREAD);
        let ends = move || calls.during(ClientCall::Destroy, || drop(old));
        if std::thread::Builder::new().name(THREAD.to_owned()).spawn(ends).is_err() {
            debug!("an old producer ended in the worker's thread");
        }
    }
}

/// Makes a client that is not connected yet.
///
/// It connects in the background from here on.
pub(super) fn client(
    settings: &ClientSettings,
    health: Arc<Health>,
    patience: &Patience,
) -> Result<Arc<Client>, BrokerError> {
    let (is_exact, patience) = (settings.is_exact(), patience.clone());
    let context = DeliveryContext { health, patience, is_exact, state: Mutex::default(), bell: OnceLock::new() };
    let made = settings.producer().create_with_context(context);
    let made = made.inspect(|made: &Client| settings.admit(made.client()));
    made.map(Arc::new).map_err(|error| BrokerError::Fatal(format!("the producer cannot be made: {}", words(&error))))
}

/// The callbacks of the producer: they count what is in flight.
///
/// Belongs to one client, and goes after it.
pub struct DeliveryContext {
    health: Arc<Health>,
    /// The patience of those who ask the client.
    pub(super) patience: Patience,
    /// It sends in transactions: a failed record fails the transaction, not the worker.
    is_exact: bool,
    state: Mutex<Flights>,
    /// Held here, since the context outlives its client.
    pub(super) bell: OnceLock<raw::Hung>,
}

/// The counts and faults that the client's reports leave.
///
/// `failed`, `too_large`, `fatal` and `shut_out` are about the transaction that is open, and are emptied with it.
#[derive(Default)]
pub(super) struct Flights {
    /// Per generation, oldest first: records that are not acknowledged.
    pub(super) in_flight: VecDeque<(u64, usize)>,
    /// Records without a report, and the bytes of their values: of all generations, aborted ones too.
    pub(super) queued: (usize, usize),
    /// Reports that came, of any kind.
    pub(super) reports: u64,
    /// The first record that could not be delivered, and why; one that is refused for good before others.
    pub(super) failed: Option<(Option<Code>, String)>,
    /// Records of batches that are larger than their topics take.
    pub(super) too_large: usize,
    /// The client's last words before it gave up.
    pub(super) fatal: Option<String>,
    /// The client's words on the first partition that the broker did not let into the transaction.
    pub(super) shut_out: Option<String>,
    /// Offsets after the last tracked record, by partition.
    pub(super) written: BTreeMap<(String, i32), i64>,
}

/// Packs what a record carries to its report: its generation, and whether it is tracked.
///
/// ```text
/// generation 5, tracked   → 0b1011
/// generation 5, untracked → 0b1010
/// ```
pub(super) fn opaque(generation: u64, tracked: bool) -> usize {
    usize::try_from(generation << 1 | u64::from(tracked)).expect("pointers have 64 bits where this runs")
}

impl DeliveryContext {
    /// Locks the counts, whatever happened to another thread that held them.
    pub(super) fn flights(&self) -> MutexGuard<'_, Flights> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for DeliveryContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.health.token()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Health::log(level, facility, message);
        if let Some(why) = shut_out(facility, message) {
            self.flights().shut_out.get_or_insert_with(|| why.to_owned());
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.health.statistics.note(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(Code::Fatal) if self.is_exact => self.flights().fatal = Some(reason.to_owned()),
            code => self.health.complains(code, reason),
        }
    }
}

impl ProducerContext for DeliveryContext {
    /// See [`opaque`].
    type DeliveryOpaque = usize;

    /// Only what comes while a client ends gets here: else the worker takes reports itself ([`super::reports`]).
    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let bytes = result.as_ref().map_or_else(|(_, message)| message.payload_len(), BorrowedMessage::payload_len);
        self.flights().report(opaque, bytes);
    }
}

impl Flights {
    /// Counts records that were handed over. No report of them can have come yet: they come within a poll of this
    /// thread.
    pub(super) fn depart(&mut self, generation: u64, records: usize, bytes: usize) {
        if records == 0 {
            return;
        }
        match self.in_flight.back_mut() {
            Some(flight) if flight.0 == generation => flight.1 += records,
            _ => self.in_flight.push_back((generation, records)),
        }
        self.queued = (self.queued.0 + records, self.queued.1 + bytes);
    }

    /// Counts one report; true if its record is tracked. It must come for every record that was handed over, also for
    /// those that are purged.
    pub(super) fn report(&mut self, opaque: usize, bytes: usize) -> bool {
        self.reports += 1;
        self.queued = (self.queued.0.saturating_sub(1), self.queued.1.saturating_sub(bytes));
        let generation = opaque as u64 >> 1;
        if let Some(flight) = self.in_flight.iter_mut().find(|flight| flight.0 == generation) {
            flight.1 -= 1;
        }
        while self.in_flight.front().is_some_and(|flight| flight.1 == 0) {
            self.in_flight.pop_front();
        }
        opaque & 1 == 1
    }

    /// Notes that a tracked record lies before this offset.
    pub(super) fn wrote(&mut self, place: (String, i32), next: i64) {
        let last = self.written.entry(place).or_default();
        *last = next.max(*last);
    }

    /// Notes a record that was not delivered. The first fault is the cause of the rest, unless a later one is a record
    /// that is refused for good.
    pub(super) fn fail(&mut self, (topic, partition): (String, i32), bytes: usize, code: Code) {
        self.too_large += usize::from(code == Code::MessageSizeTooLarge);
        if self.failed.as_ref().is_none_or(|(first, _)| is_refusal(Some(code)) && !is_refusal(*first)) {
            let why = format!("a record of {bytes} bytes could not be sent to {topic}/{partition}: {code}");
            self.failed = Some((Some(code), why));
        }
    }
}

/// Finds the client's log line on a partition that the broker does not let into a transaction: its errors do
/// not name it. Partitions that came with it are not tried.
///
/// ```text
/// ADDPARTS  …/1: Failed to add partition "t" [0] …: Broker: Topic authorization failed   from "Failed" on
/// ADDPARTS  …/1: Failed to add partition "u" [0] …: Broker: Operation not attempted      none: it came with "t"
/// ```
fn shut_out<'a>(facility: &str, message: &'a str) -> Option<&'a str> {
    if facility != "ADDPARTS" || message.contains("Operation not attempted") {
        return None;
    }
    message.find("Failed to add partition").map(|start| &message[start..])
}

/// The kind of failure where the broker will never take the record.
///
/// `None`: trying again may help, or the record is not the cause.
pub(super) fn refusal(code: Code) -> Option<&'static str> {
    match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => Some("Size"),
        Code::UnknownPartition => Some("Partition"),
        Code::InvalidMessage
        | Code::InvalidRecord
        // Another record of the same batch is invalid.
        | Code::InvalidDifferentRecord
        | Code::InvalidTimestamp
        | Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::InvalidTopic
        | Code::TopicAuthorizationFailed => Some("Topic"),
        _ => None,
    }
}

/// True if the broker will never take the record.
pub(super) fn is_refusal(code: Option<Code>) -> bool {
    code.is_some_and(|code| refusal(code).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_that_was_shut_out_is_named_and_not_its_company() {
        let message = "[thrd:main]: localhost:9092/1: Failed to add partition \"t\" [0] to transaction: Broker: ";
        let (culprit, victim) =
            (format!("{message}Topic authorization failed"), format!("{message}Operation not attempted"));
        let told = shut_out("ADDPARTS", &culprit);
        assert_eq!(told, Some("Failed to add partition \"t\" [0] to transaction: Broker: Topic authorization failed"));
        assert_eq!((shut_out("ADDPARTS", &victim), shut_out("TXNERR", &culprit)), (None, None));
    }
}
