//! A producer whose records take their time and whose calls may fail.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::request::{Request, Sender};
use super::{Fault, Life, World};
use crate::broker::log::NewRecord;
use crate::broker::{BrokerError, GroupMetadata, OffsetCommit, OutgoingRecord, Producer, Taken};
use crate::clock::Clock;
use crate::event::message::{TopicName, TopicPartition};

/// Records that wait in the client.
const QUEUE_MAX: usize = 40;

/// A record on its way.
struct Flight {
    generation: u64,
    due: Duration,
    fate: Fate,
    topic: TopicName,
    record: NewRecord,
    tracked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Arrives,
    /// It times out, though it may have been written.
    TimesOut {
        written: bool,
    },
    Refused,
}

/// The producer of a simulated worker.
pub struct SimProducer {
    world: World,
    life: Life,
    sender: Sender,
    begun: bool,
    flights: VecDeque<Flight>,
    written: BTreeMap<TopicPartition, i64>,
    /// The fate of a record that went wrong.
    broken: Option<Fate>,
    fenced: bool,
}

impl SimProducer {
    /// A producer that has not begun.
    pub fn new(world: &World, life: &Life, transactional_id: &str) -> SimProducer {
        SimProducer {
            world: world.clone(),
            life: life.clone(),
            sender: Sender { id: transactional_id.to_owned(), epoch: 0 },
            begun: false,
            flights: VecDeque::new(),
            written: BTreeMap::new(),
            broken: None,
            fenced: false,
        }
    }

    /// Takes the reports that have come.
    fn land(&mut self) {
        let now = self.world.clock.now();
        while self.flights.front().is_some_and(|flight| flight.due <= now) {
            let flight = self.flights.pop_front().expect("it was just seen");
            let fate = flight.fate;
            if matches!(fate, Fate::Arrives | Fate::TimesOut { written: true }) {
                self.write(flight);
            }
            if fate != Fate::Arrives {
                self.broken.get_or_insert(fate);
            }
        }
        self.world.expire();
    }

    fn write(&mut self, flight: Flight) {
        let mut state = self.world.log.state.borrow_mut();
        let Sender { id, epoch } = &self.sender;
        let now = self.world.clock.now();
        let arrived = if self.world.inner.borrow().drags { flight.due.min(now) } else { now };
        let Ok(transaction) = state.coordinator.open(id, *epoch, arrived) else {
            self.fenced = true;
            return;
        };
        let partition = flight.record.partition.unwrap_or_default();
        let what = String::from_utf8_lossy(flight.record.value.as_deref().unwrap_or_default()).into_owned();
        let offset = state.append_sent(&flight.topic, flight.record, Some(transaction)).expect("its topic exists");
        self.world.note(|| format!("{id}: {what} at {}/{partition}@{offset}", flight.topic));
        if flight.tracked && flight.fate == Fate::Arrives {
            self.written.insert(TopicPartition { topic: flight.topic, partition }, offset + 1);
        }
    }

    /// Empties the queue, as when the client goes away: records that are under way may still arrive.
    fn drop_flights(&mut self) {
        let arrive = self.world.draw(|seed| seed.below(self.flights.len() + 1));
        for flight in self.flights.drain(..).take(arrive).collect::<Vec<_>>() {
            self.write(flight);
        }
        self.fenced = false;
    }

    fn fate(&self, record: &OutgoingRecord<'_>) -> (Fate, Duration) {
        let world = &self.world;
        let delay = match world.hits(Fault::Slow) {
            true => world.draw(|seed| seed.millis(50, 3000)),
            false => world.draw(|seed| seed.millis(0, 4)),
        };
        if world.hits(Fault::Undelivered) {
            let written = world.draw(|seed| seed.hits(500));
            return (Fate::TimesOut { written }, Duration::from_secs(10));
        }
        let refuses = world.inner.borrow().refuses;
        if refuses(record.topic, record.value.unwrap_or_default()) {
            (Fate::Refused, delay)
        } else {
            (Fate::Arrives, delay)
        }
    }

    fn is_open(&self, what: &str) -> Result<(), BrokerError> {
        match self.begun && self.flights.is_empty() {
            true => Ok(()),
            false => {
                Err(BrokerError::Fatal(format!("{what} comes when no transaction is open or records are in flight")))
            }
        }
    }
}

impl Producer for SimProducer {
    fn init_transactions(&mut self) -> Result<(), BrokerError> {
        self.world.step(&self.life, "its takeover")?;
        self.drop_flights();
        let Sender { id, epoch } = &mut self.sender;
        if self.world.hits(Fault::Unanswered) {
            if self.world.draw(|seed| seed.hits(300)) {
                self.world.log.state.borrow_mut().take_over(id);
            }
            self.world.takes(100, 10_000);
            self.world.note(|| format!("{id}: the takeover is not answered"));
            return Err(BrokerError::Retriable("the coordinator does not answer".to_owned()));
        }
        self.world.takes(60, 600);
        *epoch = self.world.log.state.borrow_mut().take_over(id);
        self.world.note(|| format!("{id}: takes over with epoch {epoch}"));
        (self.begun, self.broken, self.fenced) = (false, None, false);
        // Another client does not know what the last one wrote.
        self.written.clear();
        self.world.step(&self.life, "the end of its takeover")
    }

    fn begin(&mut self) -> Result<(), BrokerError> {
        self.world.step(&self.life, "begin")?;
        if self.begun {
            return Err(BrokerError::Fenced("a transaction is under way".to_owned()));
        }
        self.begun = true;
        Ok(())
    }

    fn send(&mut self, record: OutgoingRecord<'_>, generation: u64) -> Result<Taken, BrokerError> {
        self.world.step(&self.life, "a send")?;
        if self.broken.is_some() || self.fenced {
            return Err(BrokerError::Abort("the client takes nothing after an error".to_owned()));
        }
        if !self.begun {
            return Err(BrokerError::Fatal("a record is sent outside a transaction".to_owned()));
        }
        if self.flights.len() >= QUEUE_MAX || self.world.hits(Fault::QueueFull) {
            return Ok(Taken::QueueFull);
        }
        let (fate, delay) = self.fate(&record);
        let earliest = self.flights.back().map_or(Duration::ZERO, |flight| flight.due);
        let due = (self.world.clock.now() + delay).max(earliest);
        let (topic, tracked) = (record.topic.clone(), record.tracked);
        self.flights.push_back(Flight { generation, due, fate, topic, record: record.into(), tracked });
        Ok(Taken::Yes)
    }

    fn poll(&mut self, wait: Duration) -> Result<(), BrokerError> {
        self.world.step(&self.life, "a look at reports")?;
        self.wait(wait);
        if self.fenced {
            self.fenced = false;
            return Err(BrokerError::Fenced("a record came under an old epoch".to_owned()));
        }
        match self.broken.take() {
            Some(Fate::Refused) if self.world.inner.borrow().is_vague => {
                Err(BrokerError::Rejected("the transaction is not taken".to_owned()))
            }
            Some(Fate::Refused) => Err(BrokerError::Refused { kind: "Topic", why: "a record is refused".to_owned() }),
            Some(_) => Err(BrokerError::Abort("a record was not delivered in time".to_owned())),
            None => Ok(()),
        }
    }

    fn wait(&mut self, wait: Duration) {
        if let Some(flight) = self.flights.front() {
            self.world.passes(flight.due.saturating_sub(self.world.clock.now()).min(wait));
        } else {
            self.world.passes(wait);
        }
        self.land();
    }

    fn in_flight(&self, generation: u64) -> usize {
        self.flights.iter().filter(|flight| flight.generation <= generation).count()
    }

    fn written(&mut self) -> Vec<(TopicPartition, i64)> {
        std::mem::take(&mut self.written).into_iter().collect()
    }

    fn send_offsets(&mut self, offsets: &[OffsetCommit], group: &GroupMetadata) -> Result<(), BrokerError> {
        self.is_open("the offsets")?;
        if offsets.is_empty() {
            return Ok(());
        }
        self.world.call(&self.life, &self.sender, &Request::Offsets(offsets.to_vec(), group.clone()))
    }

    fn commit(&mut self) -> Result<(), BrokerError> {
        self.is_open("the commit")?;
        let committed = self.world.call(&self.life, &self.sender, &Request::End { commits: true });
        if !matches!(committed, Err(BrokerError::Abort(_))) {
            self.begun = false;
        }
        committed
    }

    fn abort(&mut self) -> Result<(), BrokerError> {
        self.drop_flights();
        (self.broken, self.begun) = (None, false);
        self.world.call(&self.life, &self.sender, &Request::End { commits: false })
    }
}

impl Drop for SimProducer {
    /// A process that dies leaves its transaction open.
    fn drop(&mut self) {
        self.drop_flights();
    }
}
