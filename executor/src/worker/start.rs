//! A worker's start: its parts, what it knows before the first event, and the group that it joins.
//!
//! The order of a start is the order of what it may disturb: first everything that can fail without the
//! outside world having noticed, then the producer (which fences an earlier process of the same name), last
//! the group (which rebalances).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use kaspr_ir::plan::{Plan, ReaderId, Table, Topics};

use super::arrivals::Arrivals;
use super::group::Group;
use super::pace::Pace;
use super::poll::{Intake, Sleep};
use super::restarts::Restarts;
use super::{Stopped, Worker};
use crate::assignment::Assignment;
use crate::assignment::slots::Slots;
use crate::broker::directory::Directory;
use crate::broker::{BrokerError, Changelog, Consumer, Producer, Subscription};
use crate::check::counts::Counts;
use crate::check::topics::reserved;
use crate::clock::Clock;
use crate::code::{Code, Fault};
use crate::config::{Config, Guarantee};
use crate::dataflow::Dataflow;
use crate::delivery::Delivery;
use crate::guard::{CRASHES_MAX, Guard};
use crate::stage::poison::{Poison, PoisonEvents};
use crate::stage::shared::Shared;
use crate::status::board::{Board, PUBLISH_EVERY};
use crate::status::counters::SharedCounters;
use crate::status::stall::Stalls;
use crate::tables::restore::Restore;
use crate::tables::{Tables, changelog};

/// The parts of a worker. Put together in `run/assemble.rs` alone.
pub struct Parts<C: Code> {
    /// The plan to run.
    pub plan: Rc<Plan>,
    /// The settings to run it with.
    pub config: Config,
    /// User code, loaded.
    pub code: Rc<RefCell<C>>,
    /// The consumer that events come from.
    pub consumer: Box<dyn Consumer>,
    /// The producer that records go to.
    pub producer: Box<dyn Producer>,
    /// Output topics; user code stages into them too.
    pub directory: Directory,
    /// The tables of the app. User code holds the same tables.
    pub tables: Rc<RefCell<Tables>>,
    /// The changelogs that restore tables. `None`: their store holds the only copy.
    pub changelog: Option<Box<dyn Changelog>>,
    /// Tells the time.
    pub clock: Rc<dyn Clock>,
    /// The table of counters.
    pub counters: SharedCounters,
    /// Recognises events that end the process.
    pub guard: Guard,
    /// Shows other threads how the worker stands, where a port is served.
    pub board: Option<Arc<Board>>,
}

impl<C: Code> Parts<C> {
    /// Lets the clients of the broker ring the worker's bell. Returns false if the consumer cannot. A worker
    /// that is not woken by all of them looks for news more often instead.
    fn hang_bells(&mut self) -> bool {
        let Some(wake) = self.guard.watch.wake() else { return false };
        let bell = wake.bell();
        self.producer.rings(&bell);
        self.changelog.iter_mut().for_each(|changelog| changelog.rings(&bell));
        self.consumer.rings(&bell)
    }
}

impl<C: Code> Worker<C> {
    /// Renders the plan and joins the group. User code is loaded already: if that fails, the group has not
    /// been disturbed.
    ///
    /// # Errors
    ///
    /// The limits of changelogs cannot be read, the producer's coordinator cannot be reached, or the
    /// subscription is refused.
    pub fn start(mut parts: Parts<C>) -> Result<Worker<C>, Stopped> {
        let is_woken = parts.hang_bells();
        let Parts { plan, mut config, code, mut consumer, producer, directory, tables, changelog, .. } = parts;
        let Parts { clock, counters, guard, board, .. } = parts;
        if board.is_some() {
            // An idle worker is not to be taken for one that hangs.
            config.bounds.idle_wait = config.bounds.idle_wait.min(PUBLISH_EVERY);
        }
        let restore = Restore::new(&plan, &config, changelog);
        follow_changelogs(&restore, &mut tables.borrow_mut(), (&plan, &config, &directory))?;
        directory.begin(reserved(&plan, &config.app), clock.clone());
        let shared = Rc::new(Shared {
            code,
            directory,
            counters,
            clock,
            tables,
            slots: RefCell::new(Slots::watched(guard.watch.clone())),
            tracks: RefCell::default(),
            queued: RefCell::default(),
            order: Cell::default(),
            units: Cell::default(),
            revision: plan.revision.as_str().into(),
            watch: guard.watch.clone(),
            poison: RefCell::default(),
            asks_to_be_alone: Cell::default(),
            recent: RefCell::default(),
            flood: RefCell::default(),
        });
        guard.watch.set_stall_after(config.stall_after);
        let dataflow = Dataflow::start(&plan, &config.policies(&plan), &config.bounds, &shared);
        // Before the first event can come: a poison event must not run a fourth time.
        mark_poison(&guard, &plan, &mut shared.poison.borrow_mut(), &mut shared.slots.borrow_mut());
        let delivery = Delivery::start(producer, &plan, &config)?;
        // Last: from here on the group knows this worker, and may take partitions from others for it.
        consumer.subscribe(&subscriptions(&plan))?;
        Ok(Worker {
            sleep: Sleep::new(is_woken, shared.clock.now()),
            board,
            group: Group::default(),
            commits_wait: None,
            intake: Intake::of(&dataflow),
            assignment: Assignment::new(&plan, &config),
            arrivals: Arrivals::default(),
            pace: Pace::new(&config),
            counts: Counts::new(&plan, &config),
            restarts: Restarts::default(),
            stalls: Stalls::new(config.stall_after),
            config,
            shared,
            consumer,
            dataflow,
            delivery,
            restore,
            guard,
        })
    }
}

/// Makes tables that have changelogs follow them from the first write on. Without changelogs the tables stay
/// as they were made: their store holds the only copy.
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

/// The largest record that each table's changelog takes. In the plan's order. A changelog that does not exist
/// yet has no limit here: the check has made it, or refused the start.
fn changelog_limits(plan: &Plan, config: &Config, directory: &Directory) -> Result<Vec<usize>, BrokerError> {
    let limit = |table: &Table| {
        let topic = directory.admin(|admin| admin.topic(&changelog(&config.app, &table.name)))?;
        Ok(topic.map_or(usize::MAX, |topic| topic.message_bytes_max))
    };
    plan.tables.iter().map(limit).collect()
}

/// Lets poison events fail when they come, and those that may be ones run alone. The guard has their names from
/// earlier processes, by topic; here they get the worker's numbers.
fn mark_poison(guard: &Guard, plan: &Plan, poison: &mut PoisonEvents, slots: &mut Slots) {
    let readers = (0..).map(ReaderId).zip(&plan.readers);
    for (id, reader) in readers {
        let name = &plan[reader.agents[0]].name;
        for crash in guard.poison_events().into_iter().filter(|crash| crash.reader == *name) {
            let what = if crash.events > 1 { "a batch that begins with it" } else { "it" };
            let why =
                format!("the process ended {CRASHES_MAX} times in a row while {what} ran, last in {}", crash.place());
            let partition = slots.number(&crash.topic.as_str().into(), crash.partition);
            let poison_event = Poison { fault: Fault::new("ProcessCrash", why), site: crash.call.clone() };
            poison.add(id, partition, crash.offset, poison_event);
        }
        for crash in guard.suspects().into_iter().filter(|crash| crash.reader == *name) {
            let partition = slots.number(&crash.topic.as_str().into(), crash.partition);
            poison.suspect(id, partition, crash.offset);
        }
    }
}

/// The topics and patterns that all readers together read, each once.
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
