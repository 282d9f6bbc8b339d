//! From staged effects to the world: what was complete is committed, all of it or nothing.
//!
//! A commit takes whole epochs, oldest first. Exactly-once: their records, offsets and positions
//! are one transaction. At-least-once: records leave as soon as their epoch is complete, and
//! offsets follow when everything before them is acknowledged. The next epochs run while records
//! are in flight.

use std::cell::RefCell;
use std::time::Duration;

use tracing::{debug, warn};

use crate::assignment::Assignment;
use crate::broker::{BrokerError, Consumer, OffsetCommit, Producer, Taken};
use crate::config::{Bounds, Config, Guarantee};
use crate::counters::Counters;
use crate::dataflow::StagedEpochs;
use crate::effects::Effects;
use crate::failure::FailureRecord;
use crate::message::TopicPartition;
use crate::tables::Tables;

/// What a commit takes, and how far it has got.
#[derive(Debug, Default)]
struct Generation {
    number: u64,
    effects: Vec<Effects>,
    /// Effects and records that the producer has taken.
    sent: (usize, usize),
    /// Fixed when the commit begins.
    offsets: Vec<OffsetCommit>,
    bytes: usize,
    records: usize,
}

/// The sending end of a worker.
pub struct Delivery {
    producer: Box<dyn Producer>,
    guarantee: Guarantee,
    interval: Duration,
    bounds: Bounds,
    last_commit: Duration,
    /// At-least-once: what is being sent and has no offsets yet.
    open: Generation,
    /// The commit under way.
    closing: Option<Generation>,
    failures: Vec<FailureRecord>,
}

/// What a delivery works with at a turn.
pub struct Around<'a> {
    /// Effects of complete epochs.
    pub staged: &'a StagedEpochs,
    /// Positions.
    pub assignment: &'a mut Assignment,
    /// Whose offsets are committed.
    pub consumer: &'a mut dyn Consumer,
    /// Tables that take the writes of a commit.
    pub tables: &'a RefCell<Tables>,
    /// The table of counters.
    pub counters: &'a RefCell<Counters>,
    /// The time.
    pub now: Duration,
}

impl Delivery {
    /// A delivery with nothing on its way.
    pub fn start(mut producer: Box<dyn Producer>, config: &Config) -> Result<Delivery, BrokerError> {
        if config.guarantee == Guarantee::ExactlyOnce {
            producer.init_transactions()?;
        }
        Ok(Delivery {
            producer,
            guarantee: config.guarantee,
            interval: config.commit_interval,
            bounds: config.bounds.clone(),
            last_commit: Duration::ZERO,
            open: Generation::default(),
            closing: None,
            failures: Vec::new(),
        })
    }

    /// Moves what is on its way; begins a commit when it is time, or at once if `now_or_never`.
    /// True: something was committed.
    pub fn turn(&mut self, around: &mut Around<'_>, now_or_never: bool) -> Result<bool, BrokerError> {
        self.producer.poll(Duration::ZERO)?;
        if self.guarantee == Guarantee::AtLeastOnce {
            self.take_epochs(around);
            // Records leave in order: those of the commit under way first.
            let clear = match &mut self.closing {
                Some(closing) => send(self.producer.as_mut(), closing)?,
                None => true,
            };
            if clear {
                send(self.producer.as_mut(), &mut self.open)?;
            }
        }
        if self.closing.is_none() && (now_or_never || self.is_due(around)) {
            self.begin(around)?;
        }
        self.finish(around)
    }

    fn is_due(&self, around: &Around<'_>) -> bool {
        let (mut bytes, mut records) = (self.open.bytes, self.open.records);
        if around.now >= self.last_commit + self.interval {
            return true;
        }
        for effects in around.staged.borrow().values().flatten() {
            bytes += effects.size();
            records += effects.outgoing_count();
        }
        bytes >= self.bounds.staged_bytes_max || records >= self.bounds.staged_records_max
    }

    /// Takes complete epochs, oldest first.
    fn take_epochs(&mut self, around: &mut Around<'_>) {
        let mut staged = around.staged.borrow_mut();
        while let Some(epoch) = staged.first_entry() {
            for effects in epoch.remove() {
                for progress in &effects.progress {
                    around.assignment.commit_takes(progress);
                }
                self.open.bytes += effects.size();
                self.open.records += effects.outgoing_count();
                self.open.effects.push(effects);
            }
            let full = self.open.bytes >= self.bounds.staged_bytes_max;
            if full && self.guarantee == Guarantee::ExactlyOnce {
                return;
            }
        }
    }

    fn begin(&mut self, around: &mut Around<'_>) -> Result<(), BrokerError> {
        self.take_epochs(around);
        if around.staged.borrow().is_empty() {
            around.assignment.pass_markers(around.consumer);
        }
        let offsets = around.assignment.offsets();
        if self.open.effects.is_empty() && offsets.is_empty() {
            // The first event after a quiet time does not wait for an interval.
            return Ok(());
        }
        if self.guarantee == Guarantee::ExactlyOnce {
            self.producer.begin()?;
        }
        let next = Generation { number: self.open.number + 1, ..Generation::default() };
        let mut generation = std::mem::replace(&mut self.open, next);
        generation.offsets = offsets;
        self.last_commit = around.now;
        self.closing = Some(generation);
        Ok(())
    }

    /// Commits when everything of the commit under way is acknowledged.
    fn finish(&mut self, around: &mut Around<'_>) -> Result<bool, BrokerError> {
        let Some(closing) = &mut self.closing else {
            return Ok(false);
        };
        if !send(self.producer.as_mut(), closing)? || self.producer.in_flight(closing.number) > 0 {
            return Ok(false);
        }
        match self.guarantee {
            Guarantee::ExactlyOnce => self.producer.commit(&closing.offsets, &around.consumer.group())?,
            Guarantee::AtLeastOnce if closing.offsets.is_empty() => {}
            Guarantee::AtLeastOnce => match around.consumer.commit(&closing.offsets) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(BrokerError::Retriable(why)) => {
                    debug!("offsets are not committed yet: {why}");
                    return Ok(false);
                }
                Err(BrokerError::Abort(why)) => {
                    warn!("offsets were not committed, so their events may come again: {why}");
                    closing.offsets.clear();
                }
                Err(error) => return Err(error),
            },
        }
        let closing = self.closing.take().expect("it was just looked at");
        around.assignment.committed(&closing.offsets);
        let (mut tables, mut counters) = (around.tables.borrow_mut(), around.counters.borrow_mut());
        let writes: Vec<&[_]> = closing.effects.iter().map(|effects| effects.writes.as_slice()).collect();
        tables.commit(&writes, &[]);
        for mut effects in closing.effects {
            counters.records += effects.outgoing_count() as u64;
            self.failures.append(&mut effects.failures);
        }
        counters.commits += 1;
        Ok(true)
    }

    /// Waits a moment for acknowledgements.
    pub fn wait(&mut self) -> Result<(), BrokerError> {
        self.producer.poll(Duration::from_millis(1))
    }

    /// Offsets of these partitions are not ours to commit any more.
    pub fn give_up(&mut self, names: &[TopicPartition]) {
        if let Some(closing) = &mut self.closing {
            closing.offsets.retain(|offset| !names.contains(&offset.partition));
        }
    }

    /// What waits to be acknowledged is as much as may wait: nothing new should come.
    pub fn is_full(&self) -> bool {
        let closing = self.closing.as_ref().map_or((0, 0), |closing| (closing.bytes, closing.records));
        self.open.bytes + closing.0 >= 2 * self.bounds.staged_bytes_max
            || self.open.records + closing.1 >= 2 * self.bounds.staged_records_max
    }

    /// Nothing is on its way.
    pub fn is_idle(&self) -> bool {
        self.closing.is_none() && self.open.effects.is_empty()
    }

    /// When the next commit is due.
    pub fn next_commit(&self) -> Duration {
        self.last_commit + self.interval
    }

    /// A commit waits for acknowledgements.
    pub fn is_sending(&self) -> bool {
        self.closing.is_some()
    }

    /// Failures whose records are committed since the last call.
    pub fn take_failures(&mut self) -> Vec<FailureRecord> {
        std::mem::take(&mut self.failures)
    }
}

/// Hands records to the producer while it takes them. True: it has all.
fn send(producer: &mut dyn Producer, generation: &mut Generation) -> Result<bool, BrokerError> {
    let (first, skip) = generation.sent;
    for (number, effects) in generation.effects.iter().enumerate().skip(first) {
        let skip = if number == first { skip } else { 0 };
        for (record, outgoing) in effects.records().enumerate().skip(skip) {
            if producer.send(outgoing, generation.number)? == Taken::QueueFull {
                generation.sent = (number, record);
                return Ok(false);
            }
        }
    }
    generation.sent = (generation.effects.len(), 0);
    Ok(true)
}
