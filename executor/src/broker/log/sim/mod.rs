//! A simulated broker: the in-memory log behind clients that fail as librdkafka's clients over Kafka
//! do, when a seed says so.
//!
//! The *world* holds the log, the simulated clock, the seed and the requests that are still under
//! way. A *life* is one run of a worker's process: when it has ended, its clients answer nothing any
//! more, as if the process had been killed inside a call; what it left at the broker stays.
//!
//! ```text
//! World ─┬─ Log: the truth, as the brokers have it
//!        ├─ SimulatedClock: moves only when a call takes time, or the test lets it pass
//!        ├─ Seed: every choice, in the order of the calls
//!        └─ late requests: they arrive when the clock passes their time
//! Life ──── SimConsumer, SimProducer, SimChangelog, SimAdmin of one process
//! ```
//!
//! The same seed and the same calls give the same run, to the last record: so a failure is repeated by its number.
//! Nothing here may ask the machine's time, iterate over a hashed map or use another source of chance.
//!
//! A fault strikes at the client's side of a call, at the broker's or on the way between, but never does what Kafka
//! could not do: records keep their order, a fenced producer writes nothing, a transaction is decided as a whole.

mod admin;
mod changelog;
mod consumer;
mod producer;
mod request;
mod seed;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use crate::broker::BrokerError;
use crate::broker::log::{Commit, Log};
use crate::clock::{Clock, SimulatedClock};

pub use admin::SimAdmin;
pub use changelog::SimChangelog;
pub use consumer::SimConsumer;
pub use producer::SimProducer;
pub use seed::Seed;

use request::Late;

/// Faults that may strike, each at its own rate.
///
/// The number of a fault is its place in the table of rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process ends just before or after a call has had its effect.
    Crash,
    /// A question is not answered in time and must be asked again.
    Unanswered,
    /// A call succeeds because the client repeated its request; the first copy may arrive later.
    Repeated,
    /// A call on a transaction is answered with an error that demands its abort.
    Aborted,
    /// The outcome of a call is unknown: its request was lost, applied, or is late.
    Unknown,
    /// A record is not acknowledged in time.
    Undelivered,
    /// The producer's queue is full.
    QueueFull,
    /// Acknowledgements take long.
    Slow,
    /// The client does not know its member id or generation.
    Nameless,
    /// The client learns late of changes in its group.
    Deaf,
}

const FAULTS: usize = 10;

/// Longest life of an open transaction at the broker.
const TRANSACTION_MAX: Duration = Duration::from_secs(15);

/// One run of a worker's process.
///
/// A handle: all clients of the process share it. It never begins again; a process that is started anew is another
/// life, whose clients have other member ids.
#[derive(Clone, Debug)]
pub struct Life {
    /// The worker's name, for notes.
    name: Rc<str>,
    /// Set once: by a crash, or by the test.
    ended: Rc<Cell<bool>>,
    /// The last name that it had in its group.
    member: Rc<RefCell<String>>,
}

impl Life {
    /// A process that has just begun.
    pub fn new(name: &str) -> Life {
        Life { name: name.into(), ended: Rc::default(), member: Rc::default() }
    }

    /// True if the process is dead.
    pub fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// The last name that it had in its group, whether it has it still or not.
    pub fn member(&self) -> String {
        self.member.borrow().clone()
    }

    /// Kills the process.
    ///
    /// Its clients fail from now on; what they have under way still arrives.
    pub fn end(&self) {
        self.ended.set(true);
    }
}

/// The log, the time and the chance that all clients of a simulation share.
///
/// A handle: clients, driver and checker of one simulation hold clones.
#[derive(Clone)]
pub struct World {
    /// The truth: what all clients would see if nothing went wrong.
    pub log: Log,
    /// The time.
    pub clock: SimulatedClock,
    inner: Rc<RefCell<Inner>>,
}

struct Inner {
    /// The source of everything that is left to chance.
    seed: Seed,
    /// Of a thousand chances for each fault, how many it takes.
    rates: [u32; FAULTS],
    /// Requests and takeovers that are under way, in the order in which they were sent.
    late: Vec<Late>,
    /// Every member that ever was, and its producer's id.
    members: Vec<(String, String)>,
    /// Notes for a person who repeats a seed; `None`: none are kept.
    trace: Option<Vec<String>>,
    /// Set by [`World::refuse`]; no record is refused before.
    refuses: Refuses,
    /// True if the broker does not say that a record is why it refuses a transaction.
    is_vague: bool,
    /// See [`World::drag`].
    drags: bool,
    /// See [`World::timed_out`].
    timed_out: usize,
    /// Calls of clients since the last look.
    calls: usize,
}

/// Tells whether the broker will never take a record of this topic with this value.
pub type Refuses = fn(&str, &[u8]) -> bool;

/// Calls of clients within one turn of a worker: one that needs more does not end.
const CALLS_MAX: usize = 50_000;

impl World {
    /// A world without topics. Each fault is on in about half of all seeds, at a rate of its own; a
    /// `gentle` world has none at all. With `traces`, what happens is noted.
    pub fn new(mut seed: Seed, gentle: bool, traces: bool) -> World {
        let mut rates = [0; FAULTS];
        for rate in &mut rates {
            // Drawn in a gentle world too: the rest of the seed means the same with and without faults.
            let drawn = *seed.pick(&[0, 0, 0, 5, 20, 60, 150]);
            *rate = if gentle { 0 } else { drawn };
        }
        // A process that dies at every tenth call never gets anywhere.
        rates[Fault::Crash as usize] /= 15;
        let log = Log::new(1);
        log.state.borrow_mut().journal = Some(Vec::new());
        let trace = traces.then(Vec::new);
        let inner = Inner {
            seed,
            rates,
            late: Vec::new(),
            members: Vec::new(),
            trace,
            refuses: |_, _| false,
            is_vague: false,
            drags: false,
            timed_out: 0,
            calls: 0,
        };
        World { log, clock: SimulatedClock::default(), inner: Rc::new(RefCell::new(inner)) }
    }

    /// Draws from the seed.
    pub fn draw<R>(&self, draw: impl FnOnce(&mut Seed) -> R) -> R {
        draw(&mut self.inner.borrow_mut().seed)
    }

    /// Decides whether this fault strikes now.
    ///
    /// A fault whose rate is 0 draws no number.
    pub fn hits(&self, fault: Fault) -> bool {
        let mut inner = self.inner.borrow_mut();
        let rate = inner.rates[fault as usize];
        rate > 0 && inner.seed.hits(rate)
    }

    /// Has the broker refuse such records, always; where `is_vague`, it does not say that a record is the
    /// reason.
    ///
    /// For a record that every broker of the cluster would refuse, as one that its topic's settings do not allow.
    pub fn refuse(&self, refuses: Refuses, is_vague: bool) {
        let mut inner = self.inner.borrow_mut();
        (inner.refuses, inner.is_vague) = (refuses, is_vague);
    }

    /// Makes calls take so long that requests arrive while they run, not after them.
    ///
    /// Tests do not ask then that no transaction of a worker that lives times out.
    pub fn drag(&self) {
        self.inner.borrow_mut().drags = true;
    }

    /// Lets nothing go wrong from here on; requests that are under way still arrive.
    ///
    /// Refused records stay refused: that is no fault of a moment. What must hold in the end is checked after this.
    pub fn calm_down(&self) {
        self.inner.borrow_mut().rates = [0; FAULTS];
        self.note(|| "the faults end".to_owned());
    }

    /// Lets time pass, between these bounds in milliseconds.
    pub fn takes(&self, least_ms: u64, most_ms: u64) {
        let took = self.draw(|seed| seed.millis(least_ms, most_ms));
        self.passes(took);
    }

    /// Lets time pass: late requests arrive, transactions that are open for too long end.
    pub fn passes(&self, time: Duration) {
        if time.is_zero() {
            return;
        }
        self.clock.advance(time);
        let now = self.clock.now();
        // Requests first: one that ends a transaction may come just before its time is over.
        while let Some(late) = self.next_late(now) {
            self.arrive(late);
        }
        self.expire();
    }

    /// Has the broker end transactions that have been open for too long.
    ///
    /// As `transaction.timeout.ms` has it: their producers are fenced with them.
    fn expire(&self) {
        let expired = self.log.state.borrow_mut().expire(self.clock.now(), TRANSACTION_MAX);
        for id in expired {
            self.inner.borrow_mut().timed_out += 1;
            self.note(|| format!("the broker aborts what {id} left open"));
        }
    }

    /// Transactions that the broker has aborted because they were open for too long.
    ///
    /// A worker that lives must end its own in time: the checker counts these.
    pub fn timed_out(&self) -> usize {
        self.inner.borrow().timed_out
    }

    /// Since when the oldest open transaction is open, and under which id.
    ///
    /// `None`: no transaction is open.
    pub fn oldest_open(&self) -> Option<(String, Duration)> {
        let state = self.log.state.borrow();
        let oldest = state.coordinator.all_open().min_by_key(|(_, since)| *since);
        oldest.map(|(id, since)| (id.to_owned(), since))
    }

    /// Commits since the last call. The turn has ended.
    ///
    /// Each in the order in which it became visible.
    pub fn commits(&self) -> Vec<Commit> {
        self.inner.borrow_mut().calls = 0;
        self.log.state.borrow_mut().journal.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Ends the group's session with a member: others get its partitions. False: there is no such member.
    ///
    /// The worker learns of it late, at a poll, and goes on until then.
    pub fn expel(&self, group: &str, member: &str) -> bool {
        let mut state = self.log.state.borrow_mut();
        let known = state.groups.get(group).is_some_and(|group| group.generation(member).is_some());
        if known {
            state.groups.get_mut(group).expect("it was just found").leave(member);
            state.rebalance(group);
        }
        drop(state);
        if known {
            self.note(|| format!("the session of {member} ends"));
        }
        known
    }

    /// True if this member is in the group.
    ///
    /// As the group sees it, whatever the client believes.
    pub fn is_member(&self, group: &str, member: &str) -> bool {
        self.log.state.borrow().groups.get(group).is_some_and(|group| group.generation(member).is_some())
    }

    /// Notes what happens, if notes are kept.
    ///
    /// With the time in front; `what` is only made if it is kept.
    pub fn note(&self, what: impl FnOnce() -> String) {
        let now = self.clock.now();
        if let Some(trace) = &mut self.inner.borrow_mut().trace {
            trace.push(format!("{:>10.3} s  {}", now.as_secs_f64(), what()));
        }
    }

    /// The notes since the last call.
    ///
    /// Empty where none are kept.
    pub fn notes(&self) -> Vec<String> {
        self.inner.borrow_mut().trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// A member id that no member had before, for a worker whose producer has this id.
    fn member(&self, life: &Life, id: &str) -> String {
        let mut inner = self.inner.borrow_mut();
        // Numbered over all lives: a name that came twice would pass for the member that is gone.
        let member = format!("{}-{}", life.name, inner.members.len() + 1);
        inner.members.push((member.clone(), id.to_owned()));
        member
    }

    /// True if the worker whose producer has this id is a member of the group.
    ///
    /// As the group says, which may not know yet that a member is dead.
    fn is_alive(&self, group: &str, id: &str) -> bool {
        let inner = self.inner.borrow();
        inner.members.iter().any(|(member, of)| of == id && self.is_member(group, member))
    }

    /// Marks a point before or after a client's call has its effect: here the process may end.
    ///
    /// Most calls have one before their effect; those whose effect and answer may come apart have one behind it too. A
    /// worker that calls without end is stopped by a panic.
    fn step(&self, life: &Life, what: &str) -> Result<(), BrokerError> {
        self.inner.borrow_mut().calls += 1;
        assert!(self.inner.borrow().calls < CALLS_MAX, "a turn of {} does not end", life.name);
        // A process that is dead is not killed again.
        if !life.has_ended() && self.hits(Fault::Crash) {
            self.note(|| format!("{} is killed at {what}", life.name));
            life.end();
        }
        match life.has_ended() {
            true => Err(BrokerError::Fatal("the process was killed".to_owned())),
            false => Ok(()),
        }
    }
}
