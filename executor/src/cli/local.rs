//! `kaspr-exec run --local`.
//!
//! It ties a [`Local`] run to the program: paths, progress bar, signals, summary and exit status.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use kaspr_ir::plan::{Plan, Topics};
use tracing::info;

use super::app_flags::log_level;
use super::arguments::RunArguments;
use super::given::take_stdout;
use super::served;
use super::stop::{FAULT, REFUSED, Signals, Stop};
use super::stored::{StateDir, can_be_written, can_hold_files};
use super::terminal::{Terminal, start_log};
use super::voice::{self, say_status, say_summary};
use crate::clock::{Clock, SystemClock};
use crate::code::python::{self, Interpreter};
use crate::config::Config;
use crate::config::settings::Settings;
use crate::run::local::feed::Input;
use crate::run::local::{Ended, Local, LocalError, Output, thousands};

/// Finds the name that is nearest to a topic that no agent reads. The compiler has the measure; this room
/// must not know it.
pub type Nearest<'a> = &'a dyn Fn(&str, &[String]) -> Option<String>;

/// Runs the plan on the in-memory log until its input is used up.
///
/// # Errors
///
/// An input that cannot be used, code that cannot be loaded, the end of the worker, or a signal. What was
/// committed is written in each case.
pub fn run_locally(
    plan: &Rc<Plan>,
    arguments: &RunArguments,
    settings: &Settings,
    config: Config,
    signals: &Signals,
    nearest: Nearest<'_>,
) -> Result<(), Stop> {
    check_inputs(plan, arguments, nearest)?;
    check_outputs(arguments)?;
    let kept = StateDir::new(plan, settings, (&config.app, 0));
    kept.look()?;
    let bar = start_log(log_level(settings)?);
    let board =
        served::wanted(settings, true)?.map(|web| served::serve(web, (plan, &config, settings), (signals, None)));
    let board = board.transpose()?;
    let clock: Rc<dyn Clock> = Rc::new(SystemClock::start());
    // Before user code is loaded: it may change the folder from which paths count.
    let inputs: Vec<_> = arguments.input.iter().map(Input::absolute).collect();
    let local = Local {
        plan: plan.clone(),
        config: config.clone(),
        inputs: inputs.clone(),
        format: arguments.input_format.into(),
        output: Output {
            folder: arguments.output_dir.as_deref().map(absolute),
            // A run without standard output can write nothing in any case.
            stream: take_stdout().ok(),
            failures: arguments.failures.as_deref().map(absolute),
        },
        partitions: arguments.partitions,
        clock: clock.clone(),
    };
    let mut terminal = Terminal::new(bar, total_bytes(arguments), arguments.quiet);
    let interpreter = Interpreter::start(&arguments.app.python_path);
    interpreter.run(|py| {
        info!(version = python::version(), prefix = python::prefix(py), "CPython");
        let (log, assembly) = local.assemble();
        let assembly = assembly.with_board(board);
        assembly.guard.watch.speak_through(voice::form_last);
        signals.watch(assembly.guard.watch.clone());
        let code = assembly.python(&interpreter, settings.for_python(&config)).map_err(Stop::fault)?;
        let (code, counters) = (Rc::new(RefCell::new(code)), assembly.counters.clone());
        let assembly = kept.open(assembly, &clock).inspect_err(|_| code.borrow_mut().close())?;
        let began = clock.now();
        let stop = || signals.asked_to_stop_in_python();
        let ended = local.run((log, assembly), &code, &stop, &mut |progress, worker| {
            if worker.is_asked() {
                say_status(&worker.status().to_string());
            }
            terminal.update(clock.now() - began, progress, counters.borrow().completed);
        });
        // The bar goes first; the summary would be drawn over.
        terminal.finish();
        // Generators of `init` may still print: that stands before the summary.
        code.borrow_mut().close();
        if !arguments.quiet && !matches!(ended, Ok(Ended::Closed)) {
            say_summary(&counters.borrow(), clock.now() - began);
        }
        match ended {
            Ok(Ended::Stopped(done)) => Err(signals.interrupted(progress_words(done, &inputs))),
            Ok(Ended::Drained | Ended::Closed) => Ok(()),
            Err(error) => Err(stopped(&error)),
        }
    })
}

/// `906 of 5,000`, where all inputs are files.
///
/// Counts the lines of the files: only here, since a run that comes to its end does not need the number.
fn progress_words(done: u64, inputs: &[Input]) -> String {
    let done = thousands(done);
    match inputs.iter().map(Input::count).sum::<Option<u64>>() {
        Some(all) => format!("{done} of {} events are complete", thousands(all)),
        None => format!("{done} events are complete"),
    }
}

/// Makes a path absolute, so that it stays the same when user code changes the folder.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The exit status of a fault: whose fault it was.
fn stopped(error: &LocalError) -> Stop {
    let code = if matches!(error, LocalError::Refused(_)) { REFUSED } else { FAULT };
    Stop(code, format!("error: {error}"))
}

/// An input for a topic that no agent reads is a slip.
///
/// # Errors
///
/// There is no input, or one whose lines no agent would take. The text lists the topics that are read.
fn check_inputs(plan: &Plan, arguments: &RunArguments, nearest: Nearest<'_>) -> Result<(), Stop> {
    if arguments.input.is_empty() {
        return Err(Stop::refused("nothing to read: name an input with --input TOPIC=FILE"));
    }
    arguments.input.iter().try_for_each(Input::look).map_err(Stop::refused)?;
    let names = |topics: &Topics| match topics {
        Topics::Names(names) => Some(names.clone()),
        Topics::Pattern(_) => None,
    };
    let read: Option<Vec<Vec<String>>> = plan.readers.iter().map(|reader| names(&reader.topics)).collect();
    // A pattern may read any topic.
    let Some(read) = read.map(|read| read.concat()) else { return Ok(()) };
    for input in &arguments.input {
        if !read.contains(&input.topic) {
            let near =
                nearest(&input.topic, &read).map(|near| format!(" Did you mean \"{near}\"?")).unwrap_or_default();
            return Err(Stop::refused(format!(
                "no agent reads the topic \"{}\".{near}\nthe topics that are read: {}",
                input.topic,
                read.join(", ")
            )));
        }
    }
    Ok(())
}

/// Looks at the places that are written to, before user code runs: a start that fails makes nothing.
fn check_outputs(arguments: &RunArguments) -> Result<(), Stop> {
    let refused = |what: &str, path: &Path, error| {
        Stop::refused(format!("the {what} \"{}\" cannot be written: {error}", path.display()))
    };
    if let Some(folder) = &arguments.output_dir {
        can_hold_files(folder).map_err(|error| refused("output folder", folder, error))?;
    }
    match &arguments.failures {
        Some(file) => can_be_written(file).map_err(|error| refused("file of failures", file, error)),
        None => Ok(()),
    }
}

/// Bytes of all inputs, where all are files.
///
/// `None` if one of them is standard input, or cannot be looked at.
fn total_bytes(arguments: &RunArguments) -> Option<u64> {
    arguments.input.iter().map(|input| std::fs::metadata(&input.file).ok().map(|file| file.len())).sum()
}
