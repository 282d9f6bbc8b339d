//! `loop`: CPU time per event of one worker, bytes in → filter + map → bytes out, beside the loop
//! that one writes by hand with the standard library's json and with orjson.
//!
//! Contestants take turns, each in a process of its own, so that what disturbs the machine
//! disturbs all; medians and their ratios are printed. `loop worker FILE` is the worker's turn.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench speaks on its terminal")]

use std::cell::RefCell;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use kaspr_benches::{Run, cpu_seconds, folder, machine, median, readings};
use kaspr_exec::clock::{Clock, SystemClock};
use kaspr_exec::config::Config;
use kaspr_exec::counters::SharedCounters;
use kaspr_exec::directory::Directory;
use kaspr_exec::guard::Guard;
use kaspr_exec::log::{Log, NewRecord};
use kaspr_exec::message::TopicPartition;
use kaspr_exec::python::{self, Interpreter, Loading, PythonCode};
use kaspr_exec::store::MemoryStore;
use kaspr_exec::tables::Tables;
use kaspr_exec::worker::{Parts, Worker};
use kaspr_ir::plan::Plan;

const EVENTS: u64 = 200_000;
const ROUNDS: usize = 7;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["worker", file] => {
            println!("{}", worker(Path::new(file)).to_json());
            python::exit(0)
        }
        [] => compare(),
        _ => {
            eprintln!("usage: loop, with KASPR_BENCH_PYTHON naming a Python that has orjson");
            ExitCode::from(2)
        }
    }
}

fn compare() -> ExitCode {
    let python = std::env::var("KASPR_BENCH_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let events = readings(EVENTS);
    let file = std::env::temp_dir().join(format!("kaspr-bench-{}.jsonl", std::process::id()));
    std::fs::write(&file, &events).expect("the events can be written");
    println!("{} events of {} bytes on {}", EVENTS, events.len() as u64 / EVENTS - 1, machine());
    let script = folder("loop").join("by_hand.py");
    let by_hand = |library: &str| {
        let mut command = Command::new(&python);
        command.arg(&script).arg(library).arg(&file);
        command
    };
    let worker = || {
        let mut command = Command::new(std::env::current_exe().expect("a program knows its file"));
        command.arg("worker").arg(&file);
        command
    };
    let names = ["by hand, json of the standard library", "by hand, orjson", "kaspr-exec, one worker"];
    let mut micros: [Vec<f64>; 3] = Default::default();
    let mut records = Vec::new();
    for _ in 0..ROUNDS {
        for (contestant, command) in [by_hand("stdlib"), by_hand("orjson"), worker()].into_iter().enumerate() {
            match turn(command) {
                Ok(run) => {
                    micros[contestant].push(run.micros());
                    records.push(run.records);
                }
                Err(why) => {
                    eprintln!("error: {}: {why}", names[contestant]);
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    let _ = std::fs::remove_file(&file);
    if records.windows(2).any(|pair| pair[0] != pair[1]) {
        eprintln!("error: the contestants wrote different numbers of records: {records:?}");
        return ExitCode::FAILURE;
    }
    println!("{:<40} {:>12} {:>20} {:>14}", "", "µs CPU/event", "faster than stdlib", "than orjson");
    for (name, own) in names.iter().zip(&micros) {
        let ratio = |other: &[f64]| {
            let ratios: Vec<f64> = other.iter().zip(own).map(|(other, own)| other / own).collect();
            median(&ratios)
        };
        println!("{name:<40} {:>12.2} {:>19.2}x {:>13.2}x", median(own), ratio(&micros[0]), ratio(&micros[1]));
    }
    ExitCode::SUCCESS
}

fn turn(mut command: Command) -> Result<Run, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    Run::from_json(&line).ok_or_else(|| format!("it printed no result: {line}"))
}

fn plan() -> Rc<Plan> {
    let files = kasprc::load::files(&[folder("loop").join("agent.yaml")]).expect("the bench's spec is there");
    let compiled = kasprc::compile(&files, &kasprc::Options::default());
    Rc::new(compiled.plan.unwrap_or_else(|| panic!("{}", kasprc::render(&compiled.diagnostics, &files, false))))
}

/// One worker on the in-memory log, from the first event to the last commit.
fn worker(file: &Path) -> Run {
    let plan = plan();
    let clock: Rc<dyn Clock> = Rc::new(SystemClock::start());
    let log = Log::new(1);
    let text = Bytes::from(std::fs::read(file).expect("the events are there"));
    let mut events = 0;
    let mut at = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let value = text.slice(at..at + line.len() - 1);
        at += line.len();
        let record =
            NewRecord { partition: Some(0), timestamp_ms: 0, key: None, value: Some(value), headers: Vec::new() };
        log.append(&"readings-raw".into(), record).expect("the log takes it");
        events += 1;
    }
    let interpreter = Interpreter::start(&[]);
    interpreter.run(|py| {
        let tables = Rc::new(RefCell::new(Tables::over(Box::<MemoryStore>::default())));
        let directory = Directory::new(Box::new(log.admin()));
        let guard = Guard::none();
        let loading = Loading {
            plan: &plan,
            tables: tables.clone(),
            directory: directory.clone(),
            clock: clock.clone(),
            settings: Default::default(),
            timeout: kaspr_exec::config::CALL_MAX,
            watch: guard.watch.clone(),
        };
        let code = PythonCode::load(py, loading).unwrap_or_else(|error| panic!("{error}"));
        let counters = SharedCounters::default();
        let mut worker = Worker::start(Parts {
            plan: plan.clone(),
            config: Config::new("bench", "loop", 0),
            code: Rc::new(RefCell::new(code)),
            consumer: Box::new(log.consumer("bench", None)),
            producer: Box::new(log.producer(Some("bench.loop.0"))),
            directory,
            tables,
            changelog: None,
            clock: clock.clone(),
            counters: counters.clone(),
            guard,
        })
        .expect("the worker starts");
        let written = TopicPartition { topic: "readings".into(), partition: 0 };
        let (wall, cpu) = (clock.now(), cpu_seconds());
        while counters.borrow().completed < events {
            if worker.turn(Duration::ZERO).expect("the worker runs").committed {
                // Nobody reads them; the contestants by hand drop their results too.
                log.forget_before(&written, counters.borrow().records.cast_signed());
            }
        }
        worker.flush().expect("the worker commits");
        let run = Run {
            cpu: cpu_seconds() - cpu,
            wall: (clock.now() - wall).as_secs_f64(),
            events,
            records: counters.borrow().records,
        };
        worker.close().expect("the worker closes");
        run
    })
}
