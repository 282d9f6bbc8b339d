//! A producer whose records take their time and whose calls may fail.
//!
//! ```text
//! send ─▶ a flight, with its fate and the time of its report ─▶ the clock passes it ─▶ in the log, and reported
//!                                                            └▶ abort, takeover, crash: some arrive
//! ```
//!
//! The fate of a record is drawn when it is sent, and shows at a poll. Flights stay in their order, since an
//! idempotent producer writes in order. Calls on transactions are [`request`](super::request)s.

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
///
/// Made by a send; ends when its report is taken, or with the client.
struct Flight {
    /// The commit that it belongs to, for [`Producer::in_flight`].
    generation: u64,
    /// The time of its report; never before that of the record before it.
    due: Duration,
    fate: Fate,
    topic: TopicName,
    record: NewRecord,
    /// True for a record of a changelog, whose offset the worker asks for.
    tracked: bool,
}

/// A record's fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Arrives,
    /// It times out, though it may have been written.
    TimesOut {
        written: bool,
    },
    /// The broker refuses it, however often it is sent.
    Refused,
}

/// The producer of a simulated worker.
///
/// `broken` and `fenced` are what the next poll reports; until then the client takes no more records.
pub struct SimProducer {
    world: World,
    life: Life,
    sender: Sender,
    begun: bool,
    /// In the order sent; at most [`QUEUE_MAX`].
    flights: VecDeque<Flight>,
    /// Offsets after the last tracked record that was acknowledged, by partition.
    written: BTreeMap<TopicPartition, i64>,
    /// The fate of a record that went wrong.
    broken: Option<Fate>,
    /// A record came under an epoch that is not the newest.
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
    ///
    /// Those whose time has come, in the order sent; the first that went wrong is kept for the next poll.
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

    /// Writes a record that has arrived, and opens the transaction if it is the first in it.
    fn write(&mut self, flight: Flight) {
        let mut state = self.world.log.state.borrow_mut();
        let Sender { id, epoch } = &self.sender;
        let now = self.world.clock.now();
        // Where calls drag on, time has passed since the record came, and the transaction began then.
        let arrived = if self.world.inner.borrow().drags { flight.due.min(now) } else { now };
        let Ok(transaction) = state.coordinator.open(id, *epoch, arrived) else {
            self.fenced = true;
            return;
        };
        let partition = flight.record.partition.unwrap_or_default();
        let what = String::from_utf8_lossy(flight.record.value.as_deref().unwrap_or_default()).into_owned();
        let offset = state.append_sent(&flight.topic, flight.record, Some(transaction)).expect("its topic exists");
        self.world.note(|| format!("{id}: {what} at {}/{partition}@{offset}", flight.topic));
        // One that timed out may be written, but its offset is never reported.
        if flight.tracked && flight.fate == Fate::Arrives {
            self.written.insert(TopicPartition { topic: flight.topic, partition }, offset + 1);
        }
    }

    /// Empties the queue, as when the client goes away: records that are under way may still arrive.
    ///
    /// It is drawn how many do: the first ones, since records keep their order.
    fn drop_flights(&mut self) {
        let arrive = self.world.draw(|seed| seed.below(self.flights.len() + 1));
        for flight in self.flights.drain(..).take(arrive).collect::<Vec<_>>() {
            self.write(flight);
        }
        // Reports of the old client are not read any more.
        self.fenced = false;
    }

    /// Draws a record's fate, and how long its report takes.
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

    /// Fails where a worker calls out of turn: offsets and the end of a transaction come after all reports.
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
            // The request had its effect and its answer is lost: the epoch of this producer is old by now.
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
        // What went wrong before is the old client's.
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
        // Full at any length: the worker must not count on how much the client holds.
        if self.flights.len() >= QUEUE_MAX || self.world.hits(Fault::QueueFull) {
            return Ok(Taken::QueueFull);
        }
        let (fate, delay) = self.fate(&record);
        // Not before the last one, as an idempotent producer's records are written in order.
        let earliest = self.flights.back().map_or(Duration::ZERO, |flight| flight.due);
        let due = (self.world.clock.now() + delay).max(earliest);
        debug_assert!(due >= earliest, "reports come in the order of records");
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

    /// Fails at once where records are in flight: librdkafka would wait for them, and the worker must not rely on it.
    fn commit(&mut self) -> Result<(), BrokerError> {
        self.is_open("the commit")?;
        let committed = self.world.call(&self.life, &self.sender, &Request::End { commits: true });
        // A transaction that must be aborted is still under way: its abort comes next.
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
