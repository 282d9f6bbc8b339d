//! `kaspr-exec`: the executor's program, and the only part of it that knows the compiler.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;
use kaspr_exec::cli::{Arguments, Command, RunArguments, Terminal, start_log};
use kaspr_exec::clock::{Clock, SystemClock};
use kaspr_exec::counters::SharedCounters;
use kaspr_exec::local::{Ended, Local, LocalError, Output, summary};
use kaspr_exec::program::Defaults;
use kaspr_exec::python::{self, Interpreter, PythonCode};
use kaspr_exec::settings::Settings;
use kaspr_exec::store::MemoryStore;
use kaspr_exec::tables::Tables;
use kaspr_exec::unsupported::unsupported;
use kaspr_ir::plan::{Plan, Topics};
use tracing::info;

/// Drained.
const FINE: i32 = 0;
/// Stopped by a fault.
const FAULT: i32 = 1;
/// Wrong use, or a spec that is refused.
const REFUSED: i32 = 2;
/// Told twice to stop.
const FORCED: i32 = 75;

/// What ends the program before its work is done: a message and an exit status.
struct Stop(i32, String);

fn main() {
    let Command::Run(arguments) = Arguments::parse().command;
    let code = match run(&arguments) {
        Ok(()) => FINE,
        Err(Stop(code, message)) => {
            say(&message);
            code
        }
    };
    python::exit(code)
}

#[allow(clippy::print_stderr, reason = "this is where the program speaks")]
fn say(message: &str) {
    if !message.is_empty() {
        eprintln!("{}", message.trim_end());
    }
}

fn run(arguments: &RunArguments) -> Result<(), Stop> {
    let plan = Rc::new(plan(&arguments.paths)?);
    let refused = |why: String| Stop(REFUSED, format!("error: {why}"));
    let settings = Settings::resolve(&arguments.flags(), &|name| std::env::var(name).ok(), &plan);
    let config = settings.config(&plan, 0).map_err(|error| refused(error.to_string()))?;
    let defaults = Defaults { on_error: config.on_error.clone(), dead_letter_topic: config.dead_letter_topic.clone() };
    let missing = unsupported(&plan, &defaults);
    if !missing.is_empty() {
        let lines: Vec<_> = missing.iter().map(|missing| format!("error: {missing}")).collect();
        return Err(Stop(REFUSED, lines.join("\n")));
    }
    if !arguments.local {
        return Err(refused("a run on Kafka is not supported yet: add --local to run on the in-memory log".to_owned()));
    }
    check_inputs(&plan, arguments)?;
    let bar = start_log(arguments.log_format, arguments.log_level);
    let signals = signals();
    let clock: Rc<dyn Clock> = Rc::new(SystemClock::start());
    let local = Local {
        plan: plan.clone(),
        config: config.clone(),
        inputs: arguments.input.clone(),
        format: arguments.input_format.into(),
        output: Output { folder: arguments.output_dir.clone(), failures: arguments.failures.clone() },
        partitions: arguments.partitions,
        clock: clock.clone(),
    };
    let counters = SharedCounters::default();
    let mut terminal = Terminal::new(bar, total_bytes(arguments), arguments.quiet);
    let interpreter = Interpreter::start(&arguments.python_path);
    let ended = interpreter.run(|py| {
        info!("CPython {} at {}", python::version(), python::prefix(py));
        let tables = Rc::new(RefCell::new(Tables::over(Box::<MemoryStore>::default())));
        let prepared = local.prepare();
        let loading = python::Loading {
            plan: &plan,
            tables: tables.clone(),
            directory: prepared.directory.clone(),
            clock: clock.clone(),
            settings: settings.for_python(&config),
        };
        let code = PythonCode::load(py, loading).map_err(|error| Stop(FAULT, format!("error: {error}")))?;
        let code = Rc::new(RefCell::new(code));
        let began = clock.now();
        let stop = || signals.load(Ordering::Relaxed) > 0;
        let ended = local.run(prepared, code.clone(), tables, counters.clone(), &stop, &mut |progress, _| {
            terminal.update(clock.now() - began, progress, counters.borrow().completed);
        });
        terminal.finish();
        code.borrow_mut().close();
        if !arguments.quiet && !matches!(ended, Ok(Ended::Closed)) {
            say(&summary(&counters.borrow(), clock.now() - began));
        }
        ended.map_err(|error| stopped(&error))
    });
    ended.map(drop)
}

fn stopped(error: &LocalError) -> Stop {
    let code = if matches!(error, LocalError::Refused(_)) { REFUSED } else { FAULT };
    Stop(code, format!("error: {error}"))
}

/// The plan of the paths: one plan.json, or specs that are compiled here.
fn plan(paths: &[PathBuf]) -> Result<Plan, Stop> {
    if let [path] = paths
        && path.extension().is_some_and(|extension| extension == "json")
    {
        let read = |error: std::io::Error| Stop(REFUSED, format!("error: cannot read \"{}\": {error}", path.display()));
        let text = std::fs::read_to_string(path).map_err(read)?;
        return Plan::from_json(&text).map_err(|error| Stop(REFUSED, format!("error: {}: {error}", path.display())));
    }
    let files = kasprc::load::files(paths).map_err(|error| Stop(REFUSED, format!("error: {error}")))?;
    let compiled = kasprc::compile(&files, &kasprc::Options::default());
    let faults = kasprc::render(&compiled.diagnostics, &files, std::io::stderr().is_terminal());
    match compiled.plan {
        Some(plan) => {
            say(&faults);
            Ok(plan)
        }
        None => Err(Stop(REFUSED, faults)),
    }
}

/// An input for a topic that nobody reads is a slip.
fn check_inputs(plan: &Plan, arguments: &RunArguments) -> Result<(), Stop> {
    if arguments.input.is_empty() {
        return Err(Stop(REFUSED, "error: nothing to read: name an input with --input TOPIC=FILE".to_owned()));
    }
    let names = |topics: &Topics| match topics {
        Topics::Names(names) => Some(names.clone()),
        Topics::Pattern(_) => None,
    };
    let read: Option<Vec<Vec<String>>> = plan.readers.iter().map(|reader| names(&reader.topics)).collect();
    // A pattern may read any topic.
    let Some(read) = read.map(|read| read.concat()) else { return Ok(()) };
    for input in &arguments.input {
        if !read.contains(&input.topic) {
            let near = kasprc::diagnostics::nearest(&input.topic, read.iter().map(String::as_str));
            let near = near.map(|near| format!(" Did you mean \"{near}\"?")).unwrap_or_default();
            let message = format!(
                "error: no agent reads the topic \"{}\".{near}\nthe topics that are read: {}",
                input.topic,
                read.join(", ")
            );
            return Err(Stop(REFUSED, message));
        }
    }
    Ok(())
}

/// Counts SIGTERM and SIGINT; the second ends the process at once.
fn signals() -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        let count = count.clone();
        let act = move || {
            if count.fetch_add(1, Ordering::SeqCst) > 0 {
                signal_hook::low_level::exit(FORCED);
            }
        };
        // SAFETY: the action only touches an atomic and `_exit`, both allowed in a handler.
        unsafe { signal_hook::low_level::register(signal, act) }.expect("SIGTERM and SIGINT can be handled");
    }
    count
}

/// Bytes of all inputs, where all are files.
fn total_bytes(arguments: &RunArguments) -> Option<u64> {
    arguments.input.iter().map(|input| std::fs::metadata(&input.file).ok().map(|file| file.len())).sum()
}
