//! Sends records, over librdkafka's producer.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Header as NativeHeader, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use super::config::ClientSettings;
use super::context::Health;
use super::errors::words;
use crate::broker::{BrokerError, GroupMetadata, OffsetCommit, OutgoingRecord, Producer, Taken};
use crate::message::TopicPartition;

/// The producer's client, which also answers questions about topics.
pub type Client = BaseProducer<DeliveryContext>;

/// A client that is not connected yet.
pub fn client(settings: &ClientSettings, health: Arc<Health>) -> Result<Client, BrokerError> {
    let context = DeliveryContext { health, state: Mutex::default() };
    let made = settings.producer().create_with_context(context);
    made.map_err(|error| BrokerError::Fatal(format!("the producer cannot be made: {error}")))
}

/// The producer's ear: counts what is in flight.
pub struct DeliveryContext {
    health: Arc<Health>,
    state: Mutex<Flights>,
}

#[derive(Default)]
struct Flights {
    /// Per generation, oldest first: records that are not acknowledged.
    in_flight: VecDeque<(u64, usize)>,
    /// Reports that came, of any kind.
    reports: u64,
    /// The first record that could not be delivered.
    failed: Option<String>,
}

impl DeliveryContext {
    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for DeliveryContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Health::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.health.complains(error.rdkafka_error_code(), reason);
    }
}

impl ProducerContext for DeliveryContext {
    /// The generation.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, generation: usize) {
        let mut flights = self.flights();
        flights.reports += 1;
        let generation = generation as u64;
        if let Some(flight) = flights.in_flight.iter_mut().find(|flight| flight.0 == generation) {
            flight.1 -= 1;
        }
        while flights.in_flight.front().is_some_and(|flight| flight.1 == 0) {
            flights.in_flight.pop_front();
        }
        if let Err((error, message)) = result {
            let place = format!("{}/{}", message.topic(), message.partition());
            flights.failed.get_or_insert_with(|| {
                format!("a record of {} bytes could not be sent to {place}: {}", message.payload_len(), words(error))
            });
        }
    }
}

/// The producer of a worker.
pub struct KafkaProducer {
    client: Rc<Client>,
    health: Arc<Health>,
}

impl KafkaProducer {
    /// A producer over a client that has connected.
    pub fn new(client: Rc<Client>, health: Arc<Health>) -> KafkaProducer {
        KafkaProducer { client, health }
    }

    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.client.context().flights()
    }
}

/// Transactions have an issue of their own.
fn no_transactions() -> BrokerError {
    BrokerError::Fatal("exactly-once is not supported on Kafka yet".to_owned())
}

impl Producer for KafkaProducer {
    fn init_transactions(&mut self) -> Result<(), BrokerError> {
        Err(no_transactions())
    }

    fn begin(&mut self) -> Result<(), BrokerError> {
        Err(no_transactions())
    }

    fn send(&mut self, record: OutgoingRecord<'_>, generation: u64) -> Result<Taken, BrokerError> {
        let number = usize::try_from(generation).expect("pointers have 64 bits where this runs");
        let mut native = BaseRecord::<[u8], [u8], usize>::with_opaque_to(record.topic, number)
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
        match self.client.send(native) {
            Ok(()) => {
                let mut flights = self.flights();
                match flights.in_flight.back_mut() {
                    Some(flight) if flight.0 == generation => flight.1 += 1,
                    _ => flights.in_flight.push_back((generation, 1)),
                }
                Ok(Taken::Yes)
            }
            Err((KafkaError::MessageProduction(Code::QueueFull), _)) => Ok(Taken::QueueFull),
            Err((error, _)) => Err(BrokerError::Fatal(format!(
                "a record could not be sent to {}/{}: {}",
                record.topic,
                record.partition,
                words(&error)
            ))),
        }
    }

    fn poll(&mut self, wait: Duration) -> Result<(), BrokerError> {
        let mut wait = wait;
        loop {
            let before = self.flights().reports;
            self.client.poll(wait);
            wait = Duration::ZERO;
            if self.flights().reports == before {
                break;
            }
            self.health.answered();
        }
        if let Some(fatal) = self.health.fatal() {
            return Err(BrokerError::Fatal(format!("Kafka's client gave up: {fatal}")));
        }
        match self.flights().failed.take() {
            Some(failed) => Err(BrokerError::Fatal(failed)),
            None => Ok(()),
        }
    }

    fn in_flight(&self, generation: u64) -> usize {
        self.flights().in_flight.iter().filter(|flight| flight.0 <= generation).map(|flight| flight.1).sum()
    }

    fn written(&mut self) -> Vec<(TopicPartition, i64)> {
        Vec::new()
    }

    fn commit(&mut self, _: &[OffsetCommit], _: &GroupMetadata) -> Result<(), BrokerError> {
        Err(no_transactions())
    }

    fn abort(&mut self) -> Result<(), BrokerError> {
        Err(no_transactions())
    }
}
