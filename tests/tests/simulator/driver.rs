//! Runs one seed: workers, input, time and accidents in an order that the seed chooses.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use kaspr_exec::assignment::ReaderPosition;
use kaspr_exec::broker::BrokerError;
use kaspr_exec::broker::log::NewRecord;
use kaspr_exec::broker::log::sim::{Life, Seed, SimAdmin, SimChangelog, SimConsumer, SimProducer, World};
use kaspr_exec::clock::Clock;
use kaspr_exec::code::Code;
use kaspr_exec::config::Config;
use kaspr_exec::event::message::TopicPartition;
use kaspr_exec::run::assemble::{Assembly, Ends};
use kaspr_exec::tables::Tables;
use kaspr_exec::tables::store::{MemoryStore, Store};
use kaspr_exec::worker::{Stopped, Worker};
use kaspr_ir::plan::{Plan, TableId};

use crate::checker::{Checker, Violation};
use crate::code::Told;
use crate::store::Disk;
use crate::workload::{APP, CHANGELOG, INPUT, Input, KINDS, Kind, OUTPUTS, PARTITIONS, is_refused, specs};

/// Places where a worker may run; each has its own `transactional.id`.
const PLACES: usize = 3;
/// More than any event of the workload holds.
const EVENT_BYTES_MAX: usize = 200;
/// Times for which a group keeps a member that is silent, in ms: from one that was silent before to a whole
/// session.
const SESSIONS_MS: [u64; 3] = [50, 1000, 6000];
/// Rounds that a calm world gets to come to the end of its input.
const CALM_ROUNDS: usize = 3000;

/// The result of a seed, when all held.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Steps that were checked.
    pub steps: usize,
    /// Commits that were checked.
    pub commits: usize,
}

/// The parts from which each worker's user code is made.
pub struct Needs<'a> {
    /// Time and chance.
    pub world: &'a World,
    /// The services that it shares with its worker.
    pub assembly: &'a Assembly,
    /// The values that a sink was given.
    pub told: &'a Told,
    /// Calls take longer than a transaction may.
    pub drags: bool,
}

/// Makes user code.
pub type Maker<'a, C> = &'a dyn Fn(Needs<'_>) -> C;

/// The kind of user code, which decides the events and agents of a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// The stub: everything.
    Rust,
    /// Real Python: no call that waits for simulated time, and no sink.
    Python,
}

struct Running<C: Code> {
    worker: Worker<C>,
    life: Life,
    tables: Rc<RefCell<Tables>>,
}

/// A member whose process has gone without leaving the group.
struct Ghost {
    member: String,
    expires: Duration,
}

/// One seed.
pub struct Simulation<'a, C: Code> {
    world: World,
    language: Language,
    make: Maker<'a, C>,
    seed: Seed,
    plan: Rc<Plan>,
    kinds: Vec<Kind>,
    config: Config,
    places: [Option<Running<C>>; PLACES],
    places_used: usize,
    /// Chance, of 1000, that a process that has ended is started again in a step.
    restarts: u32,
    /// Disks on which tables outlive their workers; without them tables are restored at every start.
    disks: Option<[Disk; PLACES]>,
    ghosts: Vec<Ghost>,
    checker: Checker,
    told: Told,
    partitions: i32,
    events: usize,
    events_max: usize,
    gentle: bool,
    /// Some events lead to records that the broker refuses.
    refuses: bool,
    /// Calls take longer than a transaction may. Only where one worker is alone: no other worker's time may
    /// stand still meanwhile.
    drags: bool,
    records: BTreeMap<String, usize>,
    outcome: Outcome,
    /// A process ended: failures that it had not reported yet are lost.
    lost_failures: bool,
}

thread_local! {
    static PLANS: RefCell<BTreeMap<Vec<Kind>, Rc<Plan>>> = RefCell::default();
}

fn plan(kinds: &[Kind], language: Language) -> Rc<Plan> {
    let compile = || {
        let mut specs = specs(kinds);
        if language == Language::Python {
            specs = specs.replace("timeout: 30s", "timeout: 240s");
        }
        let file = kasprc::SourceFile { name: "agents.yaml".to_owned(), bytes: specs.into_bytes() };
        let compiled = kasprc::compile(&[file], &kasprc::Options::default());
        Rc::new(compiled.plan.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics)))
    };
    PLANS.with_borrow_mut(|plans| plans.entry(kinds.to_vec()).or_insert_with(compile).clone())
}

fn kinds(language: Language, seed: &mut Seed) -> Vec<Kind> {
    let mut kinds = Vec::new();
    let count = 1 + seed.below(3);
    while kinds.len() < count {
        let kind = *seed.pick(&KINDS);
        let fits = kind != Kind::Teller || language == Language::Rust;
        if fits && !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if kinds.contains(&Kind::Echo) {
        kinds.push(Kind::Second);
    }
    kinds.sort_unstable();
    kinds
}

fn config(seed: &mut Seed) -> Config {
    let mut config = Config::new(APP, "x", 0);
    config.keeps_changelogs = true;
    config.commit_interval = Duration::from_millis(*seed.pick(&[100, 100, 10, 1000]));
    let bounds = &mut config.bounds;
    // With one event at a poll the bound on queues is close.
    bounds.poll_events_max = *seed.pick(&[1, 3, 10, 1000]);
    bounds.staged_bytes_max = *seed.pick(&[16 << 20, 16 << 20, 2000, 300]);
    bounds.staged_records_max = *seed.pick(&[100_000, 4]);
    bounds.window_bytes_max = *seed.pick(&[64 << 20, 600]);
    (bounds.queued_bytes_high, bounds.queued_bytes_low) = *seed.pick(&[(8 << 20, 2 << 20), (1200, 400)]);
    bounds.flush_wait_max = Duration::from_secs(*seed.pick(&[20, 2]));
    config
}

/// Units of a partition in flight: in half of the seeds awaits overlap.
fn concurrency(number: u64) -> NonZeroU32 {
    const UNITS: [u32; 4] = [1, 3, 1, 1000];
    NonZeroU32::new(UNITS[(number % 4) as usize]).expect("none is 0")
}

impl<'a, C: Code> Simulation<'a, C> {
    /// A simulation of this seed. With `traces`, what happens can be read.
    pub fn new(number: u64, traces: bool, language: Language, make: Maker<'a, C>) -> Simulation<'a, C> {
        let mut seed = Seed::new(number);
        let gentle = seed.hits(50);
        let world = World::new(Seed::new(seed.draw()), gentle, traces);
        let kinds = kinds(language, &mut seed);
        world.log.create(INPUT, PARTITIONS);
        world.log.create(CHANGELOG, PARTITIONS);
        for (topic, partitions) in OUTPUTS {
            world.log.create(topic, partitions);
        }
        world.refuse(is_refused, number % 2 == 1);
        // A batch would fail as one, and so would events that are no fault of it.
        let refuses = seed.hits(250) && !kinds.contains(&Kind::Batcher);
        let told = Told::default();
        let mut config = Config { concurrency: concurrency(number), ..config(&mut seed) };
        if number % 8 == 3 {
            // Few units fit into it.
            config.bounds.overlap_bytes_max = 100;
        }
        // A process has one Python, and so one worker.
        let restarts = *seed.pick(&[1000, 1000, 100, 20]);
        let places_used = if language == Language::Python { 1 } else { 1 + seed.below(PLACES) };
        let disks = seed.hits(500).then(Default::default);
        let events_max = 10 + seed.below(50);
        let drags = places_used == 1 && seed.hits(100);
        if drags {
            world.drag();
        }
        Simulation {
            plan: plan(&kinds, language),
            checker: Checker::new(&kinds, told.clone()),
            told,
            kinds,
            config,
            places: [const { None }; PLACES],
            restarts,
            places_used,
            disks,
            ghosts: Vec::new(),
            partitions: PARTITIONS,
            events: 0,
            events_max,
            gentle,
            refuses,
            drags,
            language,
            make,
            records: BTreeMap::new(),
            outcome: Outcome::default(),
            lost_failures: false,
            world,
            seed,
        }
    }

    /// The world, for what it has noted.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Runs to the end of the input, or to the first thing that does not hold.
    pub fn run(&mut self) -> Result<&Outcome, Violation> {
        let names: Vec<_> = self.kinds.iter().map(|kind| kind.name()).collect();
        self.world.note(|| format!("agents: {}", names.join(", ")));
        let steps = 80 + self.seed.below(240);
        for _ in 0..steps {
            self.step()?;
            self.check()?;
        }
        self.settle()?;
        self.compare_with_readers()?;
        Ok(&self.outcome)
    }

    fn step(&mut self) -> Result<(), Violation> {
        let place = self.seed.below(self.places_used);
        match self.seed.below(1000) {
            0..180 => self.feed(),
            180..260 => {
                let most = *self.seed.pick(&[5, 50, 50, 120, 1500, 8000]);
                self.world.takes(1, most);
            }
            260..263 if !self.awaits_in_real_time() => self.world.passes(Duration::from_secs(630)),
            263..268 if !self.gentle => self.kill(place),
            268..275 if !self.gentle => self.close(place)?,
            275..280 if !self.gentle => self.cut(place),
            280..284 if self.partitions < 4 => self.grow(),
            284..300 => self.gap(),
            _ if self.places[place].is_none() => {
                if self.seed.hits(self.restarts) {
                    self.start(place)?;
                }
            }
            _ => {
                let wait = Duration::from_millis(*self.seed.pick(&[0, 0, 1, 5, 20, 100]));
                self.turn(place, wait)?;
            }
        }
        Ok(())
    }

    /// Python's calls wait in real time: a leap of the simulated one would be their timeout.
    fn awaits_in_real_time(&self) -> bool {
        let awaits = self.kinds.contains(&Kind::Waiter) || self.kinds.contains(&Kind::Counter);
        self.language == Language::Python && awaits
    }

    fn feed(&mut self) {
        let count = (1 + self.seed.below(4)).min(self.events_max - self.events);
        for _ in 0..count {
            let mut input = Input::draw(self.events, self.refuses, &mut self.seed);
            if self.language == Language::Python {
                input.value.retain(|flag| flag != 'W');
            }
            let partition =
                i32::try_from(self.seed.below(usize::try_from(self.partitions).expect("few"))).expect("few");
            let record = NewRecord {
                partition: Some(partition),
                timestamp_ms: self.world.clock.wall_ms(),
                key: Some(Bytes::from(input.key.clone())),
                value: Some(Bytes::from(input.value.clone())),
                headers: Vec::new(),
            };
            let (_, offset) = self.world.log.append(&INPUT.into(), record).expect("the input exists");
            self.world.note(|| format!("event {} ({}) at {INPUT}/{partition}@{offset}", input.value, input.key));
            self.checker.input(TopicPartition::new(INPUT, partition), offset, input);
            self.events += 1;
        }
    }

    /// Has another producer leave markers and aborted records in the input.
    fn gap(&mut self) {
        use kaspr_exec::broker::{OutgoingRecord, Producer};
        let mut producer = self.world.log.producer(Some("stranger"));
        let topic = INPUT.into();
        let partition = i32::try_from(self.seed.below(usize::try_from(self.partitions).expect("few"))).expect("few");
        let value = Some(b"aborted".as_slice());
        let record = OutgoingRecord {
            topic: &topic,
            partition,
            timestamp_ms: 0,
            key: None,
            value,
            headers: &[],
            tracked: false,
        };
        producer.init_transactions().expect("the log takes it");
        producer.begin().expect("nothing is open");
        producer.send(record, 0).expect("the input exists");
        producer.abort().expect("it is open");
        self.world.note(|| format!("an aborted record and its marker in {INPUT}/{partition}"));
    }

    fn grow(&mut self) {
        self.partitions += 1;
        self.world.note(|| format!("{INPUT} grows to {} partitions", self.partitions));
        self.world.log.grow(CHANGELOG, self.partitions);
        self.world.log.grow(INPUT, self.partitions);
    }

    fn start(&mut self, place: usize) -> Result<(), Violation> {
        let name = ["a", "b", "c"][place];
        let life = Life::new(name);
        self.world.note(|| format!("{name} starts"));
        let world = &self.world;
        let store: Box<dyn Store> = match &self.disks {
            Some(disks) => Box::new(disks[place].clone()),
            None => Box::<MemoryStore>::default(),
        };
        let config = Config { transactional_id: format!("{APP}.{name}.0"), ..self.config.clone() };
        let ends = Ends {
            consumer: Box::new(SimConsumer::new(world, &life, APP, &config.transactional_id)),
            producer: Box::new(SimProducer::new(world, &life, &config.transactional_id)),
            changelog: Some(Box::new(SimChangelog::new(world, &life))),
        };
        let clock = Rc::new(world.clock.clone());
        let assembly = Assembly::new(&self.plan, config, clock, Box::new(SimAdmin::new(world))).with_store(store);
        let code = (self.make)(Needs { world, assembly: &assembly, told: &self.told, drags: self.drags });
        let tables = assembly.tables.clone();
        let started = assembly.start(&Rc::new(RefCell::new(code)), ends);
        match started {
            Ok(worker) => {
                self.places[place] = Some(Running { worker, life, tables });
                Ok(())
            }
            Err(stopped) => self.stopped(&life, &stopped),
        }
    }

    fn turn(&mut self, place: usize, wait: Duration) -> Result<(), Violation> {
        let running = self.places[place].as_mut().expect("the caller has looked");
        if let Err(stopped) = running.worker.turn(wait) {
            let Running { worker, life, .. } = self.places[place].take().expect("it was just here");
            drop(worker);
            return self.stopped(&life, &stopped);
        }
        Ok(())
    }

    /// Handles the end of a process: killed, or by an error that may end it.
    fn stopped(&mut self, life: &Life, stopped: &Stopped) -> Result<(), Violation> {
        self.lost_failures = true;
        if !life.has_ended() {
            self.world.note(|| format!("{} stops: {stopped}", life.member()));
            let may_stop = match stopped {
                Stopped::Broker(BrokerError::Fatal(why)) => why.contains("another worker runs under"),
                Stopped::Broker(BrokerError::Retriable(why)) => why.contains("coordinator"),
                _ => false,
            };
            if !may_stop {
                return Err(format!("I7: a worker stops: {stopped}"));
            }
        }
        life.end();
        self.haunt(life);
        Ok(())
    }

    /// Keeps a member in its group for a while, though its process is gone.
    fn haunt(&mut self, life: &Life) {
        let session = Duration::from_millis(*self.seed.pick(&SESSIONS_MS));
        self.ghosts.push(Ghost { member: life.member(), expires: self.world.clock.now() + session });
    }

    fn kill(&mut self, place: usize) {
        if let Some(Running { worker, life, .. }) = self.places[place].take() {
            self.world.note(|| format!("{} is killed", life.member()));
            self.lost_failures = true;
            life.end();
            drop(worker);
            self.haunt(&life);
        }
    }

    fn close(&mut self, place: usize) -> Result<(), Violation> {
        let Some(Running { mut worker, life, .. }) = self.places[place].take() else { return Ok(()) };
        self.world.note(|| format!("{} is asked to stop", life.member()));
        let drained = if self.seed.hits(500) { worker.drain() } else { Ok(()) };
        // Failures that it has not reported end with it.
        self.lost_failures = true;
        match drained.and_then(|()| worker.close()) {
            Ok(_) => Ok(()),
            Err(stopped) => self.stopped(&life, &stopped),
        }
    }

    /// Has the group lose sight of a member that lives.
    fn cut(&mut self, place: usize) {
        if let Some(running) = &self.places[place] {
            self.lost_failures = true;
            self.world.expel(APP, &running.life.member());
        }
    }

    fn expire_ghosts(&mut self) {
        let now = self.world.clock.now();
        let world = self.world.clone();
        self.ghosts.retain(|ghost| {
            let expires = ghost.expires <= now;
            if expires {
                world.expel(APP, &ghost.member);
            }
            !expires
        });
    }

    /// Checks all invariants, after a step.
    fn check(&mut self) -> Result<(), Violation> {
        self.outcome.steps += 1;
        self.expire_ghosts();
        for commit in self.world.commits() {
            self.outcome.commits += 1;
            for event in &commit.records {
                *self.records.entry(event.topic.to_string()).or_default() += 1;
            }
            self.checker.commit(&commit)?;
        }
        let queued_max = self.queued_max();
        for place in 0..PLACES {
            let Some(running) = &mut self.places[place] else { continue };
            for failure in running.worker.take_failures() {
                self.checker.failure(&failure)?;
            }
            let queued = running.worker.queued_most();
            if queued > queued_max {
                return Err(format!(
                    "I6: {} holds {queued} bytes of one partition, {queued_max} at most",
                    running.life.member()
                ));
            }
            // A worker that is no member any more may hold stale state, and one that commits learns of the
            // outcome later.
            let member = running.life.member();
            if running.worker.is_committing() || !self.world.is_member(APP, &member) {
                continue;
            }
            self.check_tables(place)?;
        }
        Ok(())
    }

    /// Most bytes of a partition that may wait: those at which it is paused, and one more poll for every
    /// reader.
    fn queued_max(&self) -> usize {
        let bounds = &self.config.bounds;
        bounds.queued_bytes_high + bounds.poll_events_max * EVENT_BYTES_MAX * self.kinds.len()
    }

    /// I4: in every partition that the counter reads, its worker's table is what the changelog says.
    fn check_tables(&self, place: usize) -> Result<(), Violation> {
        let Some(running) = self.places[place].as_ref().filter(|_| self.kinds.contains(&Kind::Counter)) else {
            return Ok(());
        };
        let held: BTreeMap<i32, _> = running.tables.borrow().committed(TableId(0)).into_iter().collect();
        for ReaderPosition { partition: name, reader, .. } in running.worker.positions() {
            if reader == Kind::Counter.name() {
                let pairs = held.get(&name.partition).map_or(&[] as &[_], Vec::as_slice);
                self.checker.table(&running.life.member(), name.partition, pairs)?;
            }
        }
        Ok(())
    }

    /// Checks I7: after the faults, all input is processed; and I5: no transaction stays open.
    fn settle(&mut self) -> Result<(), Violation> {
        self.world.calm_down();
        let began = self.world.clock.now();
        let mut timed_out = None;
        for round in 0..CALM_ROUNDS {
            for place in 0..self.places_used {
                match self.places[place] {
                    Some(_) => self.turn(place, Duration::from_millis(5))?,
                    None if round % 50 == 0 => self.start(place)?,
                    None => {}
                }
                self.check()?;
            }
            self.world.takes(25, 35);
            let is_open = self.world.oldest_open().is_some();
            if self.checker.unprocessed().is_none() && !is_open {
                return if self.lost_failures { Ok(()) } else { self.checker.all_recorded() };
            }
            if round % 20 == 19 {
                self.jump();
            }
            // A minute is enough for what was open when the faults ended.
            if self.world.clock.now() - began > Duration::from_secs(60) {
                let now = self.world.timed_out();
                if *timed_out.get_or_insert(now) < now && !self.drags {
                    return Err("I5: a transaction is left open by workers that live".to_owned());
                }
            }
        }
        let why = self.checker.unprocessed().unwrap_or_else(|| format!("open: {:?}", self.world.oldest_open()));
        Err(format!("I7: the input is not processed in the end: {why}"))
    }

    /// Moves the clock to the next moment for which some worker waits.
    fn jump(&mut self) {
        let now = self.world.clock.now();
        let real = self.awaits_in_real_time();
        let workers = self.places.iter().flatten().filter(|running| !real || !running.worker.awaits());
        let next = workers.filter_map(|running| running.worker.next_deadline()).filter(|due| *due > now).min();
        if let Some(due) = next {
            self.world.passes(due - now);
        }
    }

    /// I5: readers see what was committed.
    fn compare_with_readers(&mut self) -> Result<(), Violation> {
        for (topic, partitions) in self.world.log.topics() {
            if matches!(&*topic, INPUT) {
                continue;
            }
            let seen = (0..partitions).map(|partition| self.world.log.read(&topic, partition, 0, usize::MAX).0.len());
            let committed = self.records.get(&*topic).copied().unwrap_or(0);
            self.checker.seen(&topic, seen.sum(), committed)?;
        }
        Ok(())
    }
}
