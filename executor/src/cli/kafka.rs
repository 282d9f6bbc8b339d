//! `kaspr-exec run` on a Kafka cluster.
//!
//! The start of a worker, in an order in which each step disturbs no more than it must: settings and names,
//! log, connection, topics (made where they are declared), stores on the disk, user code, and at last the
//! group. A fault in a step leaves the later ones untouched.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use kaspr_ir::plan::{Plan, Topics};
use tracing::{info, warn};

use super::app_flags::log_level;
use super::arguments::RunArguments;
use super::given::Given;
use super::served::{self, Idle};
use super::stop::{FINE, FORCED, Signals, Stop};
use super::stored::StateDir;
use super::supervisor::{Handover, dies_with, supervise};
use super::terminal::start_log;
use super::voice::{self, say_status, say_summary};
use crate::broker::kafka::Kafka;
use crate::broker::kafka::config::{BATCH_BYTES, ClientSettings};
use crate::broker::kafka::consumer::KafkaConsumer;
use crate::broker::kafka::rights::{Ids, Verdict};
use crate::broker::position::TRANSACTIONAL_ID_MAX;
use crate::broker::{Admin, Consumer};
use crate::check::topics::{self, Found};
use crate::check::{changelogs, leader};
use crate::clock::{Clock, SystemClock};
use crate::code::python::{self, Interpreter, PythonCode};
use crate::config::failpoint::Failpoint;
use crate::config::secret::Secret;
use crate::config::settings::Settings;
use crate::config::{Config, Guarantee};
use crate::event::message::TopicPartition;
use crate::guard::Patience;
use crate::run::assemble::{Assembly, Ends};
use crate::run::local::thousands;
use crate::run::member::{Ended, Member, ends};
use crate::status::board::Board;
use crate::status::counters::SharedCounters;
use crate::status::snapshot::State;
use crate::worker::Worker;

/// Runs the plan as a member of its group, or as the supervisor of several.
///
/// # Errors
///
/// Any end but a good one, with its exit status: see [`super::stop`].
pub fn run_on_kafka(
    plan: &Rc<Plan>,
    (arguments, given): (&RunArguments, &Given),
    settings: &Settings,
    (signals, idle): (&Signals, Option<Idle>),
) -> Result<(), Stop> {
    let clock: Rc<dyn Clock> = Rc::new(SystemClock::start());
    let worker = worker_number(arguments)?;
    let client_settings = given.kafka(&arguments.app.kafka, arguments.worker.is_some())?;
    let start = Start::new(plan, client_settings.all.clone(), settings, worker.unwrap_or(0))?;
    // Faults of names and settings are reported before it; from here on warnings go to the log.
    start_log(log_level(settings)?);
    given.warn();
    let workers = settings.workers().map_err(Stop::refused)?;
    let is_supervisor = workers > 1 && worker.is_none();
    let web = served::wanted(settings, false)?;
    let about = (&**plan, &start.config, settings);
    if is_supervisor {
        let posts = web.map(|web| served::supervise(web, workers, about, (signals, idle))).transpose()?;
        let arguments_of_worker: Vec<_> = given.for_worker().cloned().collect();
        let handover = Handover { arguments: arguments_of_worker, settings: client_settings.handed()?, posts };
        return match supervise(workers, &handover, &clock, signals) {
            0 => Ok(()),
            code => Err(Stop(code, String::new())),
        };
    }
    // Only a worker has a deadline; a supervisor ends when its workers have.
    signals.end_after(settings.duration("shutdownTimeout").map_err(Stop::refused)?);
    let board = match (web, client_settings.line) {
        (None, _) => None,
        // A port belongs to one process: the supervisor serves it, and a worker reports over the socket that handed
        // it its settings.
        (Some(_), Some(line)) => Some(served::relay(line, &start.config)?),
        (Some(web), None) => Some(served::serve(web, about, (signals, idle))?),
    };
    let start = Start { board, ..start };
    let interpreter = Interpreter::start(&arguments.app.python_path);
    interpreter.run(|py| {
        info!(version = python::version(), prefix = python::prefix(py), "CPython");
        start.run(&interpreter, (arguments, settings), (&clock, signals))
    })
}

/// The facts of a run that are known before anything is connected. Made for a run and for a check alike.
pub(super) struct Start {
    pub(super) plan: Rc<Plan>,
    pub(super) config: Config,
    pub(super) client: ClientSettings,
    /// The number among the workers of this supervisor, 0 if there is none.
    worker: u32,
    /// The place of the worker's snapshots, where a port is served.
    board: Option<Arc<Board>>,
}

impl Start {
    /// `user` are the settings of the Kafka clients.
    ///
    /// # Errors
    ///
    /// A setting cannot be read, or a name cannot stand in a transactional id. The brokers have not been
    /// asked anything.
    pub(super) fn new(
        plan: &Rc<Plan>,
        user: BTreeMap<String, Secret>,
        settings: &Settings,
        worker: u32,
    ) -> Result<Start, Stop> {
        let mut config = settings.config(plan, worker).map_err(Stop::refused)?;
        config.app = settings.app(plan).map_err(Stop::refused)?;
        config.keeps_changelogs = true;
        config.failpoint = failpoint()?;
        let instance = settings.get("instance").map_or_else(random, str::to_owned);
        check_name("app", &config.app)?;
        check_name("instance", &instance)?;
        config.transactional_id = transactional_id(&config.app, &instance, worker);
        check_id(&config.transactional_id)?;
        let servers = settings.servers().map_err(Stop::refused)?.unwrap_or_default();
        let client = ClientSettings {
            servers,
            app: config.app.clone(),
            // Only a name that was given is lasting: a static member with a random one would keep its
            // partitions for a session after its end.
            instance: settings.get("instance").map(|_| config.transactional_id.clone()),
            transactional_id: config.transactional_id.clone(),
            guarantee: config.guarantee,
            assignor: plan.app.assignor,
            times: settings.group_times().map_err(Stop::refused)?,
            batch_bytes: BATCH_BYTES,
            has_statistics: settings.get("webPort").is_some(),
            user,
        };
        client.check().map_err(Stop::refused)?;
        Ok(Start { plan: plan.clone(), config, client, worker, board: None })
    }

    /// Runs the worker until it is asked to stop or has caught up.
    ///
    /// # Errors
    ///
    /// Faults of topics, code and stores before the group is joined; afterwards the end of the worker.
    fn run(
        &self,
        interpreter: &Interpreter,
        (arguments, settings): (&RunArguments, &Settings),
        (clock, signals): (&Rc<dyn Clock>, &Signals),
    ) -> Result<(), Stop> {
        tell_guarantee(self.config.guarantee);
        let begun = match self.begin(interpreter, (arguments, settings), (clock, signals)) {
            // What was waited for does not matter any more.
            Err(_) if signals.asked_to_stop() => return Err(before_the_start(arguments, signals)),
            begun => begun?,
        };
        let Begun { kafka, code, counters, until, worker } = begun;
        let began = clock.now();
        let member = Member {
            clock: clock.as_ref(),
            stop: &|| signals.asked_to_stop_in_python(),
            look: &|| kafka.look(),
            is_uneasy: &|| kafka.is_suspect(),
            tell: &|status| say_status(&status),
            until,
        };
        let ended = member.run(worker);
        // Also after a fault, so that generators of `init` run to their end.
        code.borrow_mut().close();
        if !arguments.quiet {
            say_summary(&counters.borrow(), clock.now() - began);
        }
        match ended? {
            // The log has said it already, so there is no further message.
            Ended::Uncommitted => Err(Stop(FORCED, String::new())),
            Ended::Interrupted(behind) => {
                let done = thousands(counters.borrow().completed);
                Err(signals.interrupted(format!("{done} events are complete, {} are left", thousands(behind))))
            }
            Ended::Stopped | Ended::CaughtUp => Ok(()),
        }
    }

    /// Starts the worker. Everything is looked at first, and user code is loaded: a start that fails has made
    /// nothing, neither topics nor folders.
    fn begin(
        &self,
        interpreter: &Interpreter,
        (arguments, settings): (&RunArguments, &Settings),
        (clock, signals): (&Rc<dyn Clock>, &Signals),
    ) -> Result<Begun, Stop> {
        self.note("waiting for a broker");
        // A pod that answers over HTTP waits for its brokers, where an exit would only be started again.
        let serves = settings.get("webPort").is_some() && !arguments.until_caught_up;
        let kafka = self.connect(&signals.patience, serves)?;
        self.note("loading user code");
        let kept = StateDir::new(&self.plan, settings, (&self.config.app, self.worker));
        let missing = self.look(&kafka, (settings, &kept))?;
        let mut consumer = kafka.consumer()?;
        let until = arguments.until_caught_up.then(|| self.ends_now(&kafka, &mut consumer)).transpose()?;
        let (producer, changelog) = (Box::new(kafka.producer()), Some(Box::new(kafka.changelog()?) as Box<_>));
        let assembly = self.assemble(&kafka, clock).with_board(self.board.clone());
        assembly.guard.watch.speak_through(voice::form_last);
        signals.watch(assembly.guard.watch.clone());
        let code = assembly.python(interpreter, settings.for_python(&self.config)).map_err(Stop::fault)?;
        let (code, counters) = (Rc::new(RefCell::new(code)), assembly.counters.clone());
        // In a closure, because code that has begun must be closed on each of its ways out.
        let started = || {
            if signals.asked_to_stop() {
                return Err(before_the_start(arguments, signals));
            }
            let assembly = kept.open(assembly, clock)?;
            if missing {
                refuse_faults(topics::faults(&self.topics(&mut kafka.admin(), true)?))?;
            }
            self.choose_leader(&kafka, &consumer)?;
            Ok(assembly.start(&code, Ends { consumer: Box::new(consumer), producer, changelog })?)
        };
        match started() {
            Ok(worker) => Ok(Begun { kafka, code, counters, until, worker }),
            Err(stop) => {
                code.borrow_mut().close();
                Err(stop)
            }
        }
    }

    /// Looks at topics, rights and folders, and makes nothing. True: topics are missing that a run creates.
    fn look(&self, kafka: &Kafka, (settings, kept): (&Settings, &StateDir<'_>)) -> Result<bool, Stop> {
        let found = self.topics(&mut kafka.admin(), false)?;
        let mut faults = topics::lasting_faults(&found);
        let missing = found.iter().any(|found| found.is_made_by_run);
        if missing || kept.is_missing() {
            // The broker would refuse the worker only later.
            let (_, lacks) = self.rights(kafka, settings)?;
            faults.extend(lacks);
        }
        refuse_faults(faults)?;
        kept.look()?;
        Ok(missing)
    }

    /// Shows what the worker does before its first turn, where a port is served.
    fn note(&self, why: &str) {
        self.board.iter().for_each(|board| board.note(State::Loading, why));
    }

    /// Settles how it is known who leads the app, where a port is served and someone may ask.
    fn choose_leader(&self, kafka: &Kafka, consumer: &KafkaConsumer) -> Result<(), Stop> {
        let Some(board) = &self.board else { return Ok(()) };
        let topic = leader::topic(&self.config.app);
        match self.leader(&mut kafka.admin(), true)? {
            (leader::Found::Unusable(why), read) => {
                warn!("{}", leader::fallback(&topic, &why, read.as_deref()));
                read.iter().for_each(|read| board.lead_with(read, 0));
            }
            _ => board.lead_by(&topic, consumer.elect(&topic)),
        }
        Ok(())
    }

    /// Looks for the topic that says who leads, and for the first topic that is read. `make` creates the former where
    /// it is missing and may be created.
    pub(super) fn leader(&self, admin: &mut dyn Admin, make: bool) -> Result<(leader::Found, Option<String>), Stop> {
        let found = leader::prepare(&leader::topic(&self.config.app), (make, self.config.new_topics), admin)?;
        Ok((found, read_topics(&self.plan, admin)?.into_iter().next()))
    }

    /// Has the watch look at calls into the client, too.
    fn assemble(&self, kafka: &Kafka, clock: &Rc<dyn Clock>) -> Assembly {
        let assembly = Assembly::new(&self.plan, self.config.clone(), clock.clone(), Box::new(kafka.admin()));
        assembly.guard.watch.watch_calls(kafka.calls());
        kafka.spare(assembly.guard.watch.clone());
        assembly
    }

    /// The ends of everything that is read, as they are now. They are the ends of the run: events that come
    /// later are left to the next.
    fn ends_now(&self, kafka: &Kafka, consumer: &mut dyn Consumer) -> Result<BTreeMap<TopicPartition, i64>, Stop> {
        let mut admin = kafka.admin();
        Ok(ends(&read_topics(&self.plan, &mut admin)?, &mut admin, consumer)?)
    }

    /// # Errors
    ///
    /// The cluster cannot be used. Nothing was made there.
    pub(super) fn connect(&self, patience: &Patience, for_ever: bool) -> Result<Kafka, Stop> {
        let kafka = Kafka::connect(self.client.clone(), patience, for_ever)?;
        info!(app = %self.client.app, servers = %self.client.servers, transactional_id = %self.config.transactional_id, "connected");
        Ok(kafka)
    }

    /// Without `make` it only looks. The findings may hold faults: the caller decides what they end.
    pub(super) fn topics(&self, admin: &mut dyn Admin, make: bool) -> Result<Vec<Found>, Stop> {
        let (policies, reserved) = (self.config.policies(&self.plan), topics::reserved(&self.plan, &self.config.app));
        let how = (make, self.config.new_topics);
        let mut found = topics::prepare(&self.plan, &policies, &reserved, admin, how)?;
        let logs = changelogs::prepare(&self.plan, &self.config.app, &found, admin, how)?;
        found.extend(logs);
        Ok(found)
    }

    /// Describes the rights of this user besides those on topics, and collects those that it lacks.
    ///
    /// # Errors
    ///
    /// The brokers could not be asked. A right of which they do not tell is only mentioned.
    pub(super) fn rights(&self, kafka: &Kafka, settings: &Settings) -> Result<(String, Vec<String>), Stop> {
        let workers = settings.workers().map_err(Stop::refused)?;
        let (mut text, mut faults) = (String::new(), Vec::new());
        for (right, verdict) in kafka.rights(&self.ids(settings, workers))? {
            match verdict {
                Verdict::Granted => text.push_str(&format!("{right} is allowed\n")),
                Verdict::Missing => faults.push(self.client.identity().lacks(&[right])),
                Verdict::Unknown(why) => text.push_str(&format!("{right} is not known: {why}\n")),
            }
        }
        Ok((text, faults))
    }

    /// The transactional ids of the workers that these arguments would start. Without a lasting instance name
    /// every start has ids of its own: then one such id stands for all.
    fn ids(&self, settings: &Settings, workers: u32) -> Ids {
        let (app, workers) = (&self.config.app, workers.max(1));
        let of = |instance: &str| (0..workers).map(|worker| transactional_id(app, instance, worker)).collect();
        Ids { unused: transactional_id(app, &random(), 0), lasting: settings.get("instance").map_or_else(Vec::new, of) }
    }
}

/// A run that has started.
struct Begun {
    kafka: Kafka,
    code: Rc<RefCell<PythonCode>>,
    counters: SharedCounters,
    /// The ends up to which it runs, where it has an end.
    until: Option<BTreeMap<TopicPartition, i64>>,
    worker: Worker<PythonCode>,
}

/// The end of a run that was asked to stop while it started: it has done nothing.
fn before_the_start(arguments: &RunArguments, signals: &Signals) -> Stop {
    info!("asked to stop before the start was complete");
    match arguments.until_caught_up {
        true => signals.interrupted("no events are complete"),
        false => Stop(FINE, String::new()),
    }
}

/// Writes it to the log, since a wrong one is noticed late.
fn tell_guarantee(guarantee: Guarantee) {
    match guarantee {
        Guarantee::ExactlyOnce => info!("guarantee: exactly-once"),
        Guarantee::AtLeastOnce => info!("guarantee: at-least-once; a crash may repeat what was not committed"),
    }
}

/// All of them in one message, each behind `error:`.
fn refuse_faults(faults: Vec<String>) -> Result<(), Stop> {
    if faults.is_empty() {
        return Ok(());
    }
    Err(Stop::fault(faults.join("\nerror: ")))
}

/// Names of topics that are read, patterns resolved as the topics are now.
fn read_topics(plan: &Plan, admin: &mut dyn Admin) -> Result<Vec<String>, Stop> {
    let mut names = std::collections::BTreeSet::new();
    for reader in &plan.readers {
        match &reader.topics {
            Topics::Names(read) => names.extend(read.iter().cloned()),
            Topics::Pattern(pattern) => {
                let pattern = regex::Regex::new(&format!("^(?:{pattern})$")).map_err(Stop::refused)?;
                let all = admin.topics()?;
                names.extend(all.into_iter().filter(|name| pattern.is_match(name)));
            }
        }
    }
    Ok(names.into_iter().collect())
}

/// Checks a name of which names of producers, changelogs and positions are made.
///
/// # Errors
///
/// The name is empty or has other characters. `what` says which name it is.
fn check_name(what: &str, name: &str) -> Result<(), Stop> {
    let is_fine = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    if !name.is_empty() && name.chars().all(is_fine) {
        return Ok(());
    }
    let may = "may have the characters a-z, A-Z, 0-9, '.', '_' and '-'";
    Err(Stop::refused(format!("the {what} \"{name}\" is no name that Kafka can keep: it {may}")))
}

/// The name of a worker's producer.
///
/// ```text
/// app shop, instance pod-1, worker 0  →  shop.pod-1.0
/// ```
fn transactional_id(app: &str, instance: &str, worker: u32) -> String {
    format!("{app}.{instance}.{worker}")
}

/// Checks that the id fits: it stands in the metadata of every offset, which Kafka bounds.
fn check_id(transactional_id: &str) -> Result<(), Stop> {
    let length = transactional_id.len();
    if length <= TRANSACTIONAL_ID_MAX {
        return Ok(());
    }
    Err(Stop::refused(format!(
        "the names of app and instance are too long: the transactional id that is made of them has {length} characters, at most {TRANSACTIONAL_ID_MAX} are possible"
    )))
}

/// `--worker NUMBER:PID`: this process is a worker of that supervisor.
///
/// # Errors
///
/// The text was not made by a supervisor, or the supervisor is gone.
fn worker_number(arguments: &RunArguments) -> Result<Option<u32>, Stop> {
    if arguments.worker.is_none() {
        return Ok(None);
    }
    let (number, supervisor) = arguments.post().ok_or_else(|| Stop::refused("--worker is for the supervisor's use"))?;
    match dies_with(supervisor) {
        true => Ok(Some(number)),
        false => Err(Stop(FORCED, "error: the supervisor of this worker is gone".to_owned())),
    }
}

/// The place at which a test wants the process to end: `KASPR_FAILPOINT`. Not a setting: it is read here and
/// named in no help.
fn failpoint() -> Result<Failpoint, Stop> {
    let Ok(text) = std::env::var("KASPR_FAILPOINT") else { return Ok(Failpoint::default()) };
    Failpoint::parse(&text).map_err(|why| Stop::refused(format!("KASPR_FAILPOINT: {why}")))
}

/// A name that no other instance has. Eight hex digits from the seed that the standard library draws for its
/// maps, so no crate is needed for it.
fn random() -> String {
    use std::hash::{BuildHasher, Hasher};
    let number = std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("{:08x}", number & 0xFFFF_FFFF)
}
