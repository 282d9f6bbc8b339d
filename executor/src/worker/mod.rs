//! A worker: one thread that owns a dataflow, a consumer, a producer and the tables of its
//! partitions, and turns in *epochs*: poll, give, step until the frontier has passed, commit.

mod counts;
mod redo;
mod restarts;
mod restoring;
mod standing;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use kaspr_ir::plan::{Plan, ReaderId, Table, TableId, Topics};
use timely::communication::Allocator;
use tracing::{debug, info, warn};

use crate::assignment::slots::Slots;
use crate::assignment::{Assignment, ReaderPosition};
use crate::broker::directory::Directory;
use crate::broker::{BrokerError, Change, Changelog, Committed, Consumer, Producer, Subscription};
use crate::check::counts::Counts;
use crate::check::topics::reserved;
use crate::clock::Clock;
use crate::code::{Code, Fault};
use crate::config::{Config, Guarantee};
use crate::dataflow::{Dataflow, ReaderRun, render};
use crate::delivery::{Around, Delivered, Delivery, Refused};
use crate::event::effects::{Epoch, Progress};
use crate::event::failure::FailureRecord;
use crate::event::frame::Unit;
use crate::event::message::{Event, TopicName, TopicPartition};
use crate::event::shown::{self, SHOWN_BYTES_MAX, Shown};
use crate::guard::{CRASHES_MAX, Guard};
use crate::stage::condemned::{Condemned, Sentence};
use crate::stage::program::Defaults;
use crate::stage::shared::{Share, Shared};
use crate::status::counters::SharedCounters;
use crate::status::stall::{Cause, Stalls};
use crate::tables::restore::Restore;
use crate::tables::store::StoreError;
use crate::tables::{Tables, changelog};
use crate::wake::Wake;
use redo::Redo;

/// Why a worker stopped.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// The outside world.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Tables cannot be read, or not be written where no changelog could give them back.
    #[error("tables cannot be used: {0}")]
    Store(#[from] StoreError),
    /// Topics have other partitions than their tables: a start would be refused.
    #[error("{0}")]
    Topics(String),
    /// An event failed where the policy is `halt`. What was complete before it is committed.
    #[error(
        "halted: agent \"{}\": operation \"{}\" failed on {}/{}@{}: {}: {}\n  --> {}",
        .0.agent, .0.operation, .0.topic, .0.partition, .0.offset, shown::name(&.0.kind),
        Shown(&.0.message, SHOWN_BYTES_MAX), .0.at
    )]
    Halted(Box<FailureRecord>),
}

/// What a worker is made of.
pub struct Parts<C: Code> {
    /// What to run.
    pub plan: Rc<Plan>,
    /// How to run it.
    pub config: Config,
    /// User code, loaded.
    pub code: Rc<RefCell<C>>,
    /// Where events come from.
    pub consumer: Box<dyn Consumer>,
    /// Where records go to.
    pub producer: Box<dyn Producer>,
    /// Topics that are written; user code stages into them too.
    pub directory: Directory,
    /// Where tables live. User code has the same tables in its hands.
    pub tables: Rc<RefCell<Tables>>,
    /// Where tables come back from. `None`: their store is all there is of them.
    pub changelog: Option<Box<dyn Changelog>>,
    /// Tells the time.
    pub clock: Rc<dyn Clock>,
    /// The table of counters.
    pub counters: SharedCounters,
    /// Recognises events that end the process.
    pub guard: Guard,
}

impl<C: Code> Parts<C> {
    /// Lets whatever comes from outside ring the worker's bell. False: the consumer does not.
    fn hang_bells(&mut self) -> bool {
        let Some(wake) = self.guard.watch.wake() else { return false };
        let bell = wake.bell();
        self.producer.rings(&bell);
        self.changelog.iter_mut().for_each(|changelog| changelog.rings(&bell));
        self.consumer.rings(&bell)
    }
}

/// Whether a worker may sleep.
struct Sleep {
    /// Whatever comes wakes the worker, wherever it sleeps.
    is_woken: bool,
    /// Something happened since the last look at the consumer: there may be more.
    is_eager: bool,
    /// When something last did.
    active: Duration,
}

/// What one turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Events that came from the broker.
    pub polled: usize,
    /// Something was committed.
    pub committed: bool,
}

/// One worker.
pub struct Worker<C: Code> {
    config: Config,
    shared: Shared<C>,
    consumer: Box<dyn Consumer>,
    sleep: Sleep,
    timely: timely::worker::Worker,
    dataflow: Dataflow<C>,
    assignment: Assignment,
    delivery: Delivery,
    restore: Restore,
    /// Changelogs may have more to read right now.
    has_restored: bool,
    /// Since when partitions that are ready wait for others, to start with them.
    ready_since: Option<Duration>,
    epoch: Epoch,
    polled: Vec<Event>,
    /// Partitions that came and have not started.
    coming: Vec<TopicPartition>,
    /// Units on their way to each reader.
    given: Vec<Vec<Unit>>,
    /// The way in which aborted work is done again.
    redo: Redo,
    /// Since when the committed offsets of partitions that came are not known.
    waits_since: Option<Duration>,
    /// When partitions that no broker leads are asked for again.
    leaders_asked_at: Duration,
    /// Until when user code counts as slow.
    slow_until: Duration,
    guard: Guard,
    stalls: Stalls,
    /// Topics that tables depend on.
    counts: Counts,
    /// Topics, with tables, about whose offsets was warned.
    warned: BTreeSet<(TopicName, Option<TableId>)>,
    /// Topics without commits when the first of their partitions started, while others of them still wait.
    uncommitted: BTreeSet<TopicName>,
    /// What holds partitions outside the stages.
    held: BTreeMap<TopicPartition, Cause>,
}

impl<C: Code> Worker<C> {
    /// Renders the plan and joins the group. The code is loaded already: what fails there fails
    /// before anyone is disturbed.
    pub fn start(mut parts: Parts<C>) -> Result<Worker<C>, Stopped> {
        let is_woken = parts.hang_bells();
        let Parts { plan, config, code, mut consumer, producer, directory, tables, changelog, clock, counters, guard } =
            parts;
        let restore = Restore::new(&plan, &config, changelog);
        follow_changelogs(&restore, &mut tables.borrow_mut(), (&plan, &config, &directory))?;
        directory.begin(reserved(&plan, &config.app), clock.clone());
        let revision = plan.revision.as_str().into();
        let shared = Shared {
            code,
            directory,
            counters,
            clock,
            tables,
            slots: Rc::new(RefCell::new(Slots::watched(guard.watch.clone()))),
            tracks: Rc::default(),
            queued: Rc::default(),
            share: Rc::default(),
            epoch_bytes_max: Rc::new(Cell::new(usize::MAX)),
            units_left: Rc::new(Cell::new(usize::MAX)),
            begins_nothing: Rc::new(Cell::new(false)),
            revision,
            watch: guard.watch.clone(),
            condemned: Rc::default(),
            recent: Rc::default(),
        };
        guard.watch.set_stall_after(config.stall_after);
        let allocator = Allocator::Thread(Default::default());
        let mut timely = timely::worker::Worker::new(timely::WorkerConfig::default(), allocator, None);
        let defaults = Defaults::of(&config);
        let dataflow = render(&mut timely, &plan, &defaults, config.bounds.window_bytes_max, &shared);
        condemn(&guard, &plan, &mut shared.condemned.borrow_mut(), &mut shared.slots.borrow_mut());
        let given = dataflow.readers.iter().map(|_| Vec::new()).collect();
        let assignment = Assignment::new(&plan, &config);
        let counts = Counts::new(&plan, &config);
        let delivery = Delivery::start(producer, &plan, &config)?;
        consumer.subscribe(&subscriptions(&plan))?;
        let stalls = Stalls::new(config.stall_after);
        Ok(Worker {
            config,
            shared,
            consumer,
            sleep: Sleep { is_woken, is_eager: true, active: Duration::ZERO },
            timely,
            dataflow,
            assignment,
            delivery,
            restore,
            has_restored: false,
            ready_since: None,
            epoch: 0,
            polled: Vec::new(),
            coming: Vec::new(),
            given,
            redo: Redo::default(),
            waits_since: None,
            leaders_asked_at: Duration::ZERO,
            slow_until: Duration::ZERO,
            guard,
            stalls,
            counts,
            warned: BTreeSet::new(),
            uncommitted: BTreeSet::new(),
            held: BTreeMap::new(),
        })
    }

    /// One epoch. Waits for events at most `wait`, and less where something is due before.
    pub fn turn(&mut self, wait: Duration) -> Result<Turn, Stopped> {
        self.look_at_topics()?;
        let (change, polled) = self.take_events(wait)?;
        self.sleep.is_eager = change.is_some() || polled > 0;
        if change.is_some() && polled > 0 {
            // Partitions that go take what waits in the stages with them, and nothing else.
            self.let_in();
        }
        self.restore_tables()?;
        match change {
            Some(change) => self.change(change)?,
            None => self.take_over()?,
        }
        if polled > 0 || self.wants_epoch() {
            self.run_epoch();
        }
        // Before a failure that only a damaged store has caused counts.
        self.mend_unread()?;
        self.ease_pressure()?;
        if let Some(failure) = self.halted() {
            self.flush()?;
            return Err(Stopped::Halted(Box::new(failure)));
        }
        let committed = self.deliver(self.redo.is_one_by_one())? | self.end_transaction()?;
        self.sleep.is_eager |= committed;
        if self.sleep.is_eager {
            self.sleep.active = self.shared.clock.now();
        }
        self.mend_tables()?;
        self.report_stalls();
        Ok(Turn { polled, committed })
    }

    /// How long the worker may sleep: nothing at all while it is busy.
    fn wait_until_due(&self, wait: Duration) -> Duration {
        let readers = &self.dataflow.readers;
        if self.units_of_epoch() > 0 && readers.iter().any(|reader| reader.stage.borrow().is_busy()) {
            return Duration::ZERO;
        }
        if self.sleep.is_woken && self.sleep.is_eager {
            // A bell may have rung for what came, and not again for what came with it.
            return Duration::ZERO;
        }
        let now = self.shared.clock.now();
        let mut wait = wait.min(self.longest_sleep(now));
        if !self.counts.is_idle() {
            wait = wait.min(self.counts.due().saturating_sub(now));
        }
        if let Some(deadline) = self.next_deadline() {
            wait = wait.min(deadline.saturating_sub(now));
        }
        let answer_wait = if self.sleep.is_woken { self.config.bounds.answer_wait } else { Duration::from_millis(1) };
        if self.restore.is_restoring() {
            wait = if self.has_restored { Duration::ZERO } else { wait.min(answer_wait) };
        }
        if self.delivery.is_sending() {
            return wait.min(answer_wait);
        }
        if !self.dataflow.staged.borrow().is_empty() {
            wait = wait.min(self.delivery.next_commit().saturating_sub(now));
        }
        wait
    }

    /// How long it may sleep though no event, window or commit is due.
    fn longest_sleep(&self, now: Duration) -> Duration {
        let bounds = &self.config.bounds;
        let is_idle = self.sleep.is_woken
            && self.coming.is_empty()
            && !self.redo.is_one_by_one()
            && self.delivery.is_idle()
            && !self.consumer.is_adrift()
            && !self.assignment.is_waiting();
        if !is_idle {
            return bounds.look_wait;
        }
        // The next commit takes what moved behind the last events: offsets of markers.
        let next_commit = Some(self.delivery.next_commit()).filter(|due| *due > now);
        let due = next_commit.into_iter().chain(self.stalls.next_look(self.sleep.active));
        due.map(|due| due.saturating_sub(now)).fold(bounds.idle_wait, Duration::min)
    }

    /// When the next window is handed over, the next back-off ends or the next await takes too long.
    pub fn next_deadline(&self) -> Option<Duration> {
        let readers = self.dataflow.readers.iter();
        let deadlines = readers.flat_map(|reader| {
            let window = reader.window.as_ref().and_then(|window| window.borrow().next_deadline());
            [window, reader.stage.borrow().next_deadline()]
        });
        deadlines.flatten().min()
    }

    /// Takes events and gives them to their readers, before anything starts anew: they come from where
    /// their partitions stood until now. Gives how many came.
    ///
    /// Events that come faster than they run stand before those of all other partitions. Where other
    /// readers have nothing to do meanwhile, they are taken in more than one part, until their partitions
    /// have full queues and are paused; else that would only cost the pauses.
    fn take_events(&mut self, wait: Duration) -> Result<(Option<Change>, usize), Stopped> {
        let readers = &self.dataflow.readers;
        let busy = readers.iter().filter(|reader| reader.stage.borrow().is_busy()).count();
        let is_uneven = busy > 0 && busy < readers.len();
        let polls = if is_uneven { self.config.bounds.polls_max } else { 1 };
        let (mut wait, mut all) = (self.wait_until_due(wait), 0);
        for poll in 1..=polls {
            let change = self.poll(wait)?;
            let polled = self.polled.len();
            self.look_at_keys()?;
            self.give();
            all += polled;
            if poll == polls || change.is_some() || polled < self.config.bounds.poll_events_max {
                return Ok((change, all));
            }
            self.ease_pressure()?;
            wait = Duration::ZERO;
        }
        Ok((None, all))
    }

    /// Lets what was given into the stages, without beginning any of it.
    fn let_in(&mut self) {
        self.shared.begins_nothing.set(true);
        self.run_epoch();
        self.shared.begins_nothing.set(false);
    }

    /// The one place where a worker sleeps: on its wake-up descriptor, in the event loop while coroutines
    /// wait, or in the poll of a broker that wakes nobody.
    fn poll(&mut self, wait: Duration) -> Result<Option<Change>, Stopped> {
        let watch = self.shared.watch.clone();
        let wake = watch.wake().filter(|_| self.sleep.is_woken);
        let waits = self.shared.code.borrow().waits();
        let wait = match wake {
            _ if waits => {
                let began = self.shared.clock.now();
                self.shared.code.borrow_mut().turn(wait, wake.map(Wake::fd));
                self.note_time(began + wait);
                Duration::ZERO
            }
            Some(wake) if !wait.is_zero() => {
                watch.lookers().rest();
                self.shared.code.borrow().detached(&mut || wake.wait(Some(wait)));
                watch.lookers().stir();
                Duration::ZERO
            }
            _ => wait,
        };
        if let Some(wake) = wake {
            // Before the looks for news, which follow.
            wake.clear();
        }
        self.polled.clear();
        let (max, consumer, polled) = (self.config.bounds.poll_events_max, &mut self.consumer, &mut self.polled);
        if wait.is_zero() {
            return Ok(consumer.poll(wait, max, polled)?);
        }
        let mut change = Ok(None);
        self.shared.code.borrow().detached(&mut || change = consumer.poll(wait, max, polled));
        Ok(change?)
    }

    fn change(&mut self, change: Change) -> Result<(), Stopped> {
        match change {
            Change::Assigned(names) => {
                self.look_at_partitions(&names)?;
                names.iter().for_each(|name| self.restore.want(name));
                self.coming.extend(names);
                self.leaders_asked_at = Duration::ZERO;
                self.take_over()
            }
            Change::Revoked(names) => {
                self.await_calls_of(&names)?;
                let committed = self.flush()?;
                if !committed {
                    warn!("partitions are revoked before everything of them was committed: it comes again");
                }
                self.let_go(&names, committed)
            }
            Change::Lost(names) => self.let_go(&names, false),
        }
    }

    /// Partitions go to another member. Unless everything was `committed`, nothing that is not may
    /// be committed any more, and what stays here starts over.
    fn let_go(&mut self, names: &[TopicPartition], committed: bool) -> Result<(), Stopped> {
        let is_clear = committed || self.delivery.abandon(self.shared.clock.as_ref());
        self.give_up(names)?;
        self.consumer.release(names)?;
        if !committed && is_clear && self.config.guarantee == Guarantee::ExactlyOnce {
            self.start_over()?;
        }
        Ok(())
    }

    /// Lets pending calls that hold events of these partitions come to their end, for a while.
    fn await_calls_of(&mut self, names: &[TopicPartition]) -> Result<(), Stopped> {
        let asked =
            |event: &Event| names.iter().any(|name| name.partition == event.partition && name.topic == event.topic);
        let deadline = self.shared.clock.now() + self.config.bounds.revoke_wait_max;
        self.shared.begins_nothing.set(true);
        while self.dataflow.readers.iter().any(|reader| reader.stage.borrow().awaits_for(&asked))
            && self.shared.clock.now() < deadline
        {
            self.shared.code.borrow_mut().turn(Duration::from_millis(10), None);
            self.run_epoch();
            self.deliver(false)?;
        }
        self.shared.begins_nothing.set(false);
        Ok(())
    }

    /// The abort move: what is staged is gone, readers that had completed something of it go back to
    /// their committed positions with all that waits in them, and pending awaits run again.
    fn start_over(&mut self) -> Result<(), Stopped> {
        self.dataflow.staged.borrow_mut().clear();
        // What halts comes again: perhaps it met what is not so.
        let halted: Vec<bool> =
            self.dataflow.readers.iter().map(|reader| reader.stage.borrow().halted().is_some()).collect();
        self.shared.tables.borrow_mut().abort();
        let back = self.assignment.go_back(&halted);
        for (reader, goes_back) in self.dataflow.readers.iter().zip(back) {
            let mut stage = reader.stage.borrow_mut();
            if goes_back {
                stage.clear();
                if let Some(window) = &reader.window {
                    window.borrow_mut().clear();
                }
            } else {
                stage.cancel_awaits();
            }
        }
        self.count_queued();
        self.start_partitions()?;
        // Readers that did not go back may hold as much as may wait: then nothing comes meanwhile, however
        // often others start over.
        self.ease_pressure()
    }

    /// Counts anew what waits of each partition.
    fn count_queued(&mut self) {
        let mut queued = self.shared.queued.borrow_mut();
        let mut slots = self.shared.slots.borrow_mut();
        queued.iter_mut().for_each(|bytes| *bytes = 0);
        let mut count = |event: &Rc<Event>| queued[slots.of(event)] += event.size();
        for reader in &self.dataflow.readers {
            reader.stage.borrow().waiting().for_each(&mut count);
            if let Some(window) = &reader.window {
                window.borrow().waiting().for_each(&mut count);
            }
        }
    }

    /// Starts the consumer on partitions that stand still; a broker that does not answer is asked
    /// again at the next turn.
    fn start_partitions(&mut self) -> Result<(), Stopped> {
        match self.assignment.start(self.consumer.as_mut()) {
            Err(BrokerError::Retriable(why)) => {
                info!(error = %why, "partitions wait to be started");
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// How many units may begin in an epoch: where one is run after the other, none before the last is
    /// committed; where they are slow, none while a transaction is open.
    fn units_of_epoch(&self) -> usize {
        let is_quiet = self.delivery.is_idle() && self.dataflow.staged.borrow().is_empty();
        match self.redo.is_one_by_one() {
            true => usize::from(is_quiet),
            false if self.is_slow() && self.delivery.is_sending() => 0,
            false => usize::MAX,
        }
    }

    /// User code has run since then.
    fn note_time(&mut self, began: Duration) {
        let now = self.shared.clock.now();
        if now.saturating_sub(began) >= self.config.bounds.slow_code {
            self.slow_until = now + self.config.bounds.slow_code_for;
        }
    }

    /// User code might outlast a transaction.
    fn is_slow(&self) -> bool {
        self.config.guarantee == Guarantee::ExactlyOnce && self.shared.clock.now() < self.slow_until
    }

    /// Where user code is slow, a transaction ends before more of it runs, if the broker answers in time.
    fn end_transaction(&mut self) -> Result<bool, Stopped> {
        let (mut committed, deadline) = (false, self.shared.clock.now() + self.config.bounds.slow_code);
        while self.is_slow() && self.delivery.is_sending() && self.may_commit() && self.shared.clock.now() < deadline {
            self.delivery.wait();
            committed |= self.deliver(false)?;
        }
        Ok(committed)
    }

    /// Starts on partitions that came, as their tables are whole. A broker that does not answer is
    /// asked again at the next turn.
    fn take_over(&mut self) -> Result<(), Stopped> {
        // A transaction in doubt may hold writes to tables of a partition that comes back.
        let now = self.shared.clock.now();
        let waits = self.delivery.is_in_doubt() || now < self.leaders_asked_at;
        let names = if waits { Vec::new() } else { self.take_ready() };
        if names.is_empty() {
            return self.start_partitions();
        }
        match self.start_on(&names) {
            Err(BrokerError::Retriable(why)) => {
                let since = *self.waits_since.get_or_insert(now);
                debug!(error = %why, "partitions wait to be started");
                if now - since >= self.config.bounds.unblock_after {
                    self.waits_since = Some(now);
                    info!(error = %why, "partitions wait to be started");
                    if self.consumer.committed(&names).is_err() {
                        info!("aborting open transactions of members that are gone");
                        self.consumer.unblock(&names);
                    }
                }
                self.coming.extend(names);
                self.start_partitions()
            }
            left => {
                self.waits_since = None;
                let left = left?;
                if !left.is_empty() {
                    info!(topic = %left[0].topic, partition = left[0].partition, partitions = left.len(), "partitions wait for a leader, this one first");
                    self.leaders_asked_at = now + self.config.bounds.unblock_after;
                    self.coming.extend(left);
                }
                // They are known now: a start that fails is tried again without asking once more.
                self.start_partitions()
            }
        }
    }

    /// Takes partitions over. Gives back those that no broker leads at the moment.
    fn start_on(&mut self, names: &[TopicPartition]) -> Result<Vec<TopicPartition>, BrokerError> {
        let mut counts = BTreeMap::new();
        for name in names {
            if !counts.contains_key(&name.topic) {
                let count = self.shared.directory.partitions(&name.topic)?;
                counts.insert(name.topic.clone(), count.unwrap_or(0));
            }
        }
        let takeover = {
            let mut slots = self.shared.slots.borrow_mut();
            self.assignment.add(names, &counts, &mut slots, self.consumer.as_mut())?
        };
        self.warn_of_restarts(&takeover);
        Ok(takeover.leaderless)
    }

    /// Drops queues, windows and awaits of partitions that are no longer ours.
    fn give_up(&mut self, names: &[TopicPartition]) -> Result<(), Stopped> {
        let numbers: Vec<usize> = {
            let mut slots = self.shared.slots.borrow_mut();
            names.iter().map(|name| slots.number(&name.topic, name.partition)).collect()
        };
        let gone = |number: usize| numbers.contains(&number);
        for reader in &self.dataflow.readers {
            if let Some(window) = &reader.window {
                window.borrow_mut().drop_partitions(&gone);
            }
            reader.stage.borrow_mut().drop_partitions(&gone);
        }
        let mut queued = self.shared.queued.borrow_mut();
        for &number in &numbers {
            if let Some(bytes) = queued.get_mut(number) {
                *bytes = 0;
            }
        }
        self.assignment.remove(&numbers);
        self.delivery.give_up(names);
        self.coming.retain(|name| !names.contains(name));
        let left = self.assignment.names().chain(&self.coming);
        Ok(self.restore.release(names, left, &mut self.shared.tables.borrow_mut())?)
    }

    /// Gives what was polled to the readers that accept it.
    fn give(&mut self) {
        let mut slots = self.shared.slots.borrow_mut();
        let mut queued = self.shared.queued.borrow_mut();
        let mut accepted = 0;
        for event in self.polled.drain(..) {
            let number = slots.of(&event);
            if queued.len() <= number {
                queued.resize(number + 1, 0);
            }
            let (offset, size) = (event.offset, event.size());
            let event = Rc::new(event);
            self.assignment.take(number, offset, |reader| {
                queued[number] += size;
                accepted += 1;
                self.given[reader].push(Unit::Event(event.clone()));
            });
        }
        self.shared.counters.borrow_mut().events += accepted;
        for (reader, units) in self.dataflow.readers.iter_mut().zip(&mut self.given) {
            if !units.is_empty() {
                reader.input.send_batch(units);
                reader.was_given = true;
                units.clear();
            }
        }
    }

    /// Something in a reader can go on though nothing came.
    fn wants_epoch(&self) -> bool {
        let now = self.shared.clock.now();
        self.dataflow.hand_over.get()
            || self.dataflow.readers.iter().any(|reader| {
                let due = |window: &Rc<RefCell<crate::dataflow::window::Window<C>>>| {
                    window.borrow().next_deadline().is_some_and(|due| due <= now)
                };
                reader.stage.borrow().wants_turn() || reader.window.as_ref().is_some_and(due)
            })
    }

    /// What part of this epoch's time each reader gets.
    fn share(&mut self) -> Share {
        let has_work =
            |reader: &mut ReaderRun<C>| std::mem::take(&mut reader.was_given) || reader.stage.borrow().is_busy();
        let readers: u32 = self.dataflow.readers.iter_mut().map(|reader| u32::from(has_work(reader))).sum();
        Share { epoch: self.epoch, time: self.config.bounds.epoch_budget / readers.max(1) }
    }

    /// Steps until the frontier has passed the epoch: all that was handed over in it has run.
    fn run_epoch(&mut self) {
        let began = self.shared.clock.now();
        self.epoch += 1;
        let share = self.share();
        self.shared.share.set(share);
        self.shared.epoch_bytes_max.set(self.delivery.epoch_bytes_max());
        self.shared.units_left.set(self.units_of_epoch());
        for reader in &mut self.dataflow.readers {
            reader.input.advance_to(self.epoch);
        }
        while self.dataflow.probe.less_than(&self.epoch) {
            self.timely.step();
        }
        self.note_time(began);
        let passed = self.epoch - 1;
        if let Some(effects) = self.dataflow.staged.borrow().get(&passed) {
            for progress in effects.iter().flat_map(|effects| &effects.progress) {
                self.assignment.complete(progress);
                if self.guard.has_suspects() {
                    let slots = self.shared.slots.borrow();
                    let (name, reader) =
                        (slots.name(progress.partition), &self.dataflow.readers[progress.reader.index()]);
                    self.guard.completed(&reader.name, (&name.topic, name.partition), progress.done);
                }
            }
        }
    }

    fn ease_pressure(&mut self) -> Result<(), Stopped> {
        let bounds = &self.config.bounds;
        let queued = self.shared.queued.borrow();
        let marks = (bounds.queued_bytes_high, bounds.queued_bytes_low);
        let full = self.delivery.is_full(&self.dataflow.staged);
        let (pause, resume) = self.assignment.back_pressure(&queued, marks, full);
        if !pause.is_empty() {
            self.consumer.pause(&pause)?;
        }
        if !resume.is_empty() {
            self.consumer.resume(&resume)?;
        }
        Ok(())
    }

    fn halted(&self) -> Option<FailureRecord> {
        self.dataflow.readers.iter().find_map(|reader| reader.stage.borrow().halted().cloned())
    }

    fn deliver(&mut self, now_or_never: bool) -> Result<bool, Stopped> {
        Ok(self.delivered(now_or_never)? == Delivered::Committed)
    }

    fn delivered(&mut self, now_or_never: bool) -> Result<Delivered, Stopped> {
        if self.mend_unread()? {
            return Ok(Delivered::Nothing);
        }
        let (delivery, mut around) = self.around();
        let delivered = delivery.turn(&mut around, now_or_never)?;
        match &delivered {
            Delivered::Undone { why, progress, refused } => {
                warn!(error = %why, "aborted: everything since the last commit runs again");
                self.undone(progress, refused.as_ref())?;
            }
            Delivered::Committed => {
                self.leave_one_by_one();
                self.forget_condemned();
            }
            Delivered::Nothing => {}
        }
        Ok(delivered)
    }

    /// Units run one by one until all that a refused transaction would have completed is committed.
    fn leave_one_by_one(&mut self) {
        let committed: Vec<_> = match self.redo.is_one_by_one() {
            true => self.assignment.committed_positions().collect(),
            false => Vec::new(),
        };
        self.redo.committed(|Progress { reader, partition, done }| {
            committed.iter().any(|(of, at, position)| (of, at) == (reader, partition) && position < done)
        });
    }

    /// Failures that are committed need no sentence any more.
    fn forget_condemned(&mut self) {
        let mut condemned = self.shared.condemned.borrow_mut();
        if !condemned.is_empty() {
            for (reader, partition, offset) in self.assignment.committed_positions() {
                condemned.passed(reader, partition, offset);
            }
        }
    }

    /// Everything is done again. Where the broker refuses a record, or nothing is committed again and
    /// again, unit by unit: so the one whose record it is stands alone, and fails.
    fn undone(&mut self, progress: &[Progress], refused: Option<&Refused>) -> Result<(), Stopped> {
        let is_cause = self.redo.undone(progress, refused);
        if refused.is_some() || self.redo.is_repeated() {
            // What the topics take now is found when their records are staged again.
            self.shared.directory.forget();
        }
        if let Some(Refused { kind, why, .. }) = refused.filter(|_| is_cause) {
            let mut condemned = self.shared.condemned.borrow_mut();
            for Progress { reader, partition, done } in progress.iter().copied() {
                condemned.refuse(reader, partition, done - 1, Fault::new(kind, why));
            }
        }
        self.start_over()
    }

    /// Commits everything that is complete. False: the broker took too long.
    pub fn flush(&mut self) -> Result<bool, Stopped> {
        let deadline = self.shared.clock.now() + self.config.bounds.flush_wait_max;
        loop {
            // What is undone comes again: then, too, nothing is left to be committed.
            self.deliver(true)?;
            if self.delivery.is_idle() && self.dataflow.staged.borrow().is_empty() {
                return Ok(true);
            }
            if !self.may_commit() || self.shared.clock.now() >= deadline {
                return Ok(false);
            }
            self.delivery.wait();
        }
    }

    /// A worker that is no member of its group commits nothing.
    fn may_commit(&self) -> bool {
        self.config.guarantee == Guarantee::AtLeastOnce || self.consumer.group().is_member()
    }

    /// Lets calls that have begun come to their end, without taking events. What waits for a
    /// retry or in a window comes again.
    pub fn drain(&mut self) -> Result<(), Stopped> {
        let deadline = self.shared.clock.now() + self.config.bounds.drain_wait_max;
        while self.shared.clock.now() < deadline {
            let busy = self.dataflow.readers.iter().any(|reader| reader.stage.borrow().is_busy());
            if !busy && !self.awaits() {
                break;
            }
            if !busy {
                self.shared.code.borrow_mut().turn(Duration::from_millis(10), None);
            } else if self.units_of_epoch() == 0 {
                // The next may begin when the last is committed.
                self.delivery.wait();
            }
            self.run_epoch();
            self.deliver(self.redo.is_one_by_one())?;
        }
        Ok(())
    }

    /// What the group has committed in these partitions.
    pub fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, Stopped> {
        Ok(self.consumer.committed(partitions)?)
    }

    fn around(&mut self) -> (&mut Delivery, Around<'_>) {
        let around = Around {
            staged: &self.dataflow.staged,
            assignment: &mut self.assignment,
            consumer: self.consumer.as_mut(),
            tables: &self.shared.tables,
            counters: &self.shared.counters,
            clock: self.shared.clock.as_ref(),
        };
        (&mut self.delivery, around)
    }

    /// Lets open windows hand over what they hold, in an epoch of their own: the input has ended.
    pub fn hand_over_windows(&mut self) -> Result<(), Stopped> {
        self.dataflow.hand_over.set(true);
        let turned = self.turn(Duration::ZERO);
        self.dataflow.hand_over.set(false);
        turned.map(drop)
    }

    /// Everything up to the ends of the partitions is complete and committed, but for open windows.
    pub fn is_drained(&mut self) -> Result<bool, Stopped> {
        let quiet = self.is_settled() && self.dataflow.staged.borrow().is_empty() && self.delivery.is_idle();
        Ok(quiet && self.assignment.is_polled(self.consumer.as_mut())?)
    }

    /// Nothing waits in any stage, and nothing is staged.
    pub fn is_settled(&self) -> bool {
        self.dataflow.readers.iter().all(|reader| reader.stage.borrow().is_empty())
    }

    /// Some window holds events.
    pub fn has_open_windows(&self) -> bool {
        self.dataflow.readers.iter().any(|reader| reader.window.as_ref().is_some_and(|w| !w.borrow().is_empty()))
    }

    /// Commits what is complete, drops what waits (it comes again) and leaves the group.
    pub fn close(mut self) -> Result<SharedCounters, Stopped> {
        if !self.flush()? {
            self.delivery.abandon(self.shared.clock.as_ref());
        }
        let names: Vec<_> = self.assignment.names().cloned().collect();
        self.give_up(&names)?;
        self.consumer.close()?;
        info!("left the group");
        Ok(self.shared.counters.clone())
    }

    /// An await is pending somewhere.
    pub fn awaits(&self) -> bool {
        self.dataflow.readers.iter().any(|reader| reader.stage.borrow().awaits())
    }

    /// Bytes of the events that wait in the partition that holds most, all readers together.
    pub fn queued_most(&self) -> usize {
        self.shared.queued.borrow().iter().copied().max().unwrap_or(0)
    }

    /// A commit is under way: whether it comes to something is not known yet.
    pub fn is_committing(&self) -> bool {
        self.delivery.is_sending()
    }

    /// Failures whose records are committed since the last call.
    pub fn take_failures(&mut self) -> Vec<FailureRecord> {
        self.delivery.take_failures()
    }

    /// Where each reader is in each of its partitions.
    pub fn positions(&self) -> Vec<ReaderPosition> {
        self.assignment.positions()
    }
}

/// Where tables come back from their changelogs, they follow them from the first write on.
fn follow_changelogs(
    restore: &Restore,
    tables: &mut Tables,
    (plan, config, directory): (&Plan, &Config, &Directory),
) -> Result<(), BrokerError> {
    if restore.has_changelogs() {
        tables.follow_changelogs(restore.fed(), config.guarantee == Guarantee::ExactlyOnce);
        tables.limit(changelog_limits(plan, config, directory)?);
    }
    Ok(())
}

/// The largest record that each table's changelog takes.
fn changelog_limits(plan: &Plan, config: &Config, directory: &Directory) -> Result<Vec<usize>, BrokerError> {
    let limit = |table: &Table| {
        let topic = directory.admin(|admin| admin.topic(&changelog(&config.app, &table.name)))?;
        Ok(topic.map_or(usize::MAX, |topic| topic.message_bytes_max))
    };
    plan.tables.iter().map(limit).collect()
}

/// What has ended the process too often fails when it comes.
fn condemn(guard: &Guard, plan: &Plan, condemned: &mut Condemned, slots: &mut Slots) {
    let readers = (0..).map(ReaderId).zip(&plan.readers);
    for (id, reader) in readers {
        let name = &plan[reader.agents[0]].name;
        for crash in guard.condemned().into_iter().filter(|crash| crash.reader == *name) {
            let what = if crash.events > 1 { "a batch that begins with it" } else { "it" };
            let why =
                format!("the process ended {CRASHES_MAX} times in a row while {what} ran, last in {}", crash.place());
            let partition = slots.number(&crash.topic.as_str().into(), crash.partition);
            let sentence = Sentence { fault: Fault::new("ProcessCrash", why), site: crash.call.clone() };
            condemned.condemn(id, partition, crash.offset, sentence);
        }
    }
}

fn subscriptions(plan: &Plan) -> Vec<Subscription> {
    let mut subscriptions: Vec<Subscription> = Vec::new();
    for reader in &plan.readers {
        let read: Vec<_> = match &reader.topics {
            Topics::Names(names) => names.iter().map(|name| Subscription::Topic(name.as_str().into())).collect(),
            Topics::Pattern(pattern) => vec![Subscription::Pattern(pattern.clone())],
        };
        for subscription in read {
            if !subscriptions.contains(&subscription) {
                subscriptions.push(subscription);
            }
        }
    }
    subscriptions
}
