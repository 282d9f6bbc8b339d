//! `kaspr-exec check` on a Kafka cluster: finds out whether a run could begin, without any effect on the app.
//!
//! It takes the same steps as the start of a run, up to the point at which the group would notice: settings,
//! connection, topics and changelogs, code, rights. Faults are collected; the text says what is fine, too.

use std::rc::Rc;

use kaspr_ir::plan::Plan;

use super::app_flags::{AppArguments, log_level};
use super::given::Given;
use super::kafka::Start;
use super::stop::Stop;
use super::terminal::start_log;
use crate::broker::Admin;
use crate::broker::kafka::Kafka;
use crate::check::leader;
use crate::check::topics::{self, Found};
use crate::clock::SystemClock;
use crate::code::python::{self, Interpreter};
use crate::config::settings::Settings;
use crate::guard::Patience;
use crate::run::assemble::Assembly;

/// Looks whether the plan could run, and reports what it found. Joins no group, makes nothing, and leaves the
/// producers of running workers alone.
///
/// # Errors
///
/// All faults that were found, behind what is fine. A fault that keeps the check itself from going on ends it
/// at once.
pub fn check_on_kafka(
    plan: &Rc<Plan>,
    (arguments, given): (&AppArguments, &Given),
    settings: &Settings,
) -> Result<String, Stop> {
    let start = Start::new(plan, given.kafka(&arguments.kafka, false)?.all, settings, 0)?;
    start_log(log_level(settings)?);
    given.warn();
    let interpreter = Interpreter::start(&arguments.python_path);
    let kafka = start.connect(&Patience::default(), false)?;
    let mut admin = kafka.admin();
    let mut found = start.topics(&mut admin, false)?;
    found.extend(topics::matching(plan, &found, &mut admin)?);
    // After the topics: loading runs user code, which may take long or print, and the cheap answers come
    // first.
    load(&interpreter, &start, &kafka, settings)?;
    let mut text = format!("app {}\nbrokers {} answer\n", start.client.app, start.client.servers);
    text.push_str(&format!("CPython {} loads every block\n", python::version()));
    let (lines, mut faults) = of_topics(&found);
    text.push_str(&lines);
    if settings.get("webPort").is_some() {
        text.push_str(&of_leader(&start, &mut admin)?);
    }
    let (lines, more) = start.rights(&kafka, settings)?;
    text.push_str(&lines);
    faults.extend(more);
    match faults.is_empty() {
        true => Ok(text),
        false => {
            Err(Stop::fault(faults.join("\nerror: "))).map_err(|Stop(code, why)| Stop(code, format!("{text}{why}")))
        }
    }
}

/// Lets CPython load every block. Runs `init` as a start would, and closes everything again.
///
/// # Errors
///
/// The text of the first block that cannot be loaded.
fn load(interpreter: &Interpreter, start: &Start, kafka: &Kafka, settings: &Settings) -> Result<(), Stop> {
    let clock = Rc::new(SystemClock::start());
    let assembly = Assembly::new(&start.plan, start.config.clone(), clock, Box::new(kafka.admin()));
    interpreter.run(|_| {
        let code = assembly.python(interpreter, settings.for_python(&start.config));
        code.map(|mut code| code.close()).map_err(Stop::fault)
    })
}

/// Describes how it is known who leads. No fault: there is another rule.
fn of_leader(start: &Start, admin: &mut dyn Admin) -> Result<String, Stop> {
    let topic = leader::topic(&start.config.app);
    Ok(match start.leader(admin, false)? {
        (leader::Found::Usable, _) => format!("topic {topic} says who leads\n"),
        (leader::Found::MadeByRun, _) => {
            format!("topic {topic} does not exist yet: a run creates it (it says who leads)\n")
        }
        (leader::Found::Unusable(why), read) => format!("{}\n", leader::fallback(&topic, &why, read.as_deref())),
    })
}

/// Describes the topics that were found, and collects the faults. Topics that a run creates are no faults.
fn of_topics(found: &[Found]) -> (String, Vec<String>) {
    let mut text = String::new();
    for Found { named, partitions, .. } in found {
        if let Ok(partitions) = partitions {
            text.push_str(&format!("topic {} has {partitions} partitions ({})\n", named.name, named.by));
        }
    }
    for Found { named, .. } in found.iter().filter(|found| found.is_made_by_run) {
        text.push_str(&format!("topic {} does not exist yet: a run creates it ({})\n", named.name, named.by));
    }
    (text, topics::lasting_faults(found))
}
