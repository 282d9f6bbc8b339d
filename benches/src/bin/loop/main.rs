//! `loop`: CPU time per event of one worker, bytes in → its steps → bytes out, beside the loop that
//! one writes by hand with the standard library's json and with orjson; and whether its memory grows.
//!
//! Then, on the clock: events that await a service, a hundred at once, beside asyncio by hand; the worker whose port
//! is scraped beside the worker without one; and how long a snapshot for its readers takes.
//!
//! Contestants take turns, each in a process of its own, so that a disturbance of the machine strikes all;
//! medians and their ratios are printed. `loop worker CASE LAPS [PORT] FILE` is the worker's turn.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench speaks on its terminal")]
#![allow(clippy::disallowed_methods, reason = "a bench measures real time")]

mod served;

use std::cell::RefCell;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kaspr_benches::{Run, cpu_seconds, folder, machine, median, readings, resident_mib};
use kaspr_exec::broker::log::{Log, NewRecord};
use kaspr_exec::clock::{Clock, SystemClock};
use kaspr_exec::code::python::{self, Interpreter, PythonCode};
use kaspr_exec::config::Config;
use kaspr_exec::event::message::TopicPartition;
use kaspr_exec::run::assemble::{Assembly, Ends};
use kaspr_exec::status::board::Board;
use kaspr_exec::status::counters::SharedCounters;
use kaspr_exec::worker::Worker;
use kaspr_ir::plan::Plan;

const EVENTS: u64 = 200_000;
/// Events that each await 10 ms, of which 100 are in flight: no fewer than ten rounds.
const AWAITING: u64 = 1000;
/// The longest time in which a worker with nothing to do but await may be asleep.
const AWAIT_WAIT: Duration = Duration::from_millis(10);
const ROUNDS: usize = 7;
/// Events that the log is given at once: it holds no more of the input than it would at a broker.
const CHUNK: usize = 20_000;
/// Times that the events are given again to see whether memory grows.
const LAPS: u64 = 50;

/// A case of the bench: one kind of work on an event.
struct Case {
    name: &'static str,
    /// Its name in `by_hand.py` and in the file of the spec.
    word: &'static str,
    libraries: &'static [&'static str],
}

const CASES: [Case; 3] = [
    Case { name: "filter + map", word: "map", libraries: &["stdlib", "orjson"] },
    Case { name: "filter only, bytes forwarded", word: "filter", libraries: &["orjson"] },
    Case { name: "map that reads and writes a table", word: "table", libraries: &["orjson"] },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["worker", case, laps, file] => run_worker(case, laps, None, file),
        ["worker", case, laps, port, file] => run_worker(case, laps, Some(port), file),
        ["memory", file] => {
            worker("map", Path::new(file), (LAPS, true), None);
            python::exit(0)
        }
        ["snapshots", _] => {
            served::time_snapshots();
            python::exit(0)
        }
        [] => ended(compare(&[compare_cases, awaits, memory, served::compare, served::snapshots])),
        ["served"] => ended(compare(&[served::compare, served::snapshots])),
        _ => {
            eprintln!("usage: loop [served], with BENCH_PYTHON naming a Python that has orjson");
            ExitCode::from(2)
        }
    }
}

/// A worker's turn, as the arguments say it.
fn run_worker(case: &str, laps: &str, port: Option<&str>, file: &str) -> ExitCode {
    let laps = laps.parse().expect("a number of laps");
    let port = port.map(|port| port.parse().expect("a port"));
    println!("{}", worker(case, Path::new(file), (laps, false), port).to_json());
    python::exit(0)
}

fn ended(compared: Result<(), String>) -> ExitCode {
    match compared {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Compares contestants on a file of events, and prints what came of it.
type Comparison = fn(&Path) -> Result<(), String>;

/// Makes these comparisons, one after the other, each on the file of events.
fn compare(all: &[Comparison]) -> Result<(), String> {
    let events = readings(EVENTS);
    let file = std::env::temp_dir().join(format!("kaspr-bench-{}.jsonl", std::process::id()));
    println!("{} events of {} bytes on {}", EVENTS, events.len() as u64 / EVENTS - 1, machine());
    let compared = all.iter().try_for_each(|comparison| {
        std::fs::write(&file, &events).map_err(|error| format!("{}: {error}", file.display()))?;
        comparison(&file)
    });
    let _ = std::fs::remove_file(&file);
    compared
}

fn compare_cases(file: &Path) -> Result<(), String> {
    println!("{:<34} {:<22} {:>12} {:>14} {:>12}", "", "", "µs CPU/event", "events/CPU s", "than orjson");
    CASES.iter().try_for_each(|case| compare_case(case, file))
}

fn compare_case(case: &Case, file: &Path) -> Result<(), String> {
    let mut contestants: Vec<(String, Box<dyn Fn() -> Command>)> = Vec::new();
    for &library in case.libraries {
        contestants.push((format!("by hand, {library}"), Box::new(move || by_hand(library, case.word, file))));
    }
    contestants.push(("kaspr-exec, one worker".to_owned(), Box::new(|| own(&["worker", case.word, "1"], file))));
    let mut micros = vec![Vec::new(); contestants.len()];
    let mut records = Vec::new();
    for _ in 0..ROUNDS {
        for ((name, command), micros) in contestants.iter().zip(&mut micros) {
            let run = turn(command()).map_err(|why| format!("{name}: {why}"))?;
            micros.push(run.micros());
            records.push(run.records);
        }
    }
    if records.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(format!("the contestants wrote different numbers of records: {records:?}"));
    }
    let orjson = &micros[case.libraries.iter().position(|library| *library == "orjson").expect("it takes part")];
    for ((contestant, _), own) in contestants.iter().zip(&micros) {
        let ratios: Vec<f64> = orjson.iter().zip(own).map(|(orjson, own)| orjson / own).collect();
        let (own, ratio) = (median(own), median(&ratios));
        println!("{:<34} {contestant:<22} {own:>12.2} {:>14.0} {ratio:>11.2}x", case.name, 1e6 / own);
    }
    Ok(())
}

/// Time until events are committed that each await 10 ms, 100 at once.
fn awaits(file: &Path) -> Result<(), String> {
    std::fs::write(file, readings(AWAITING)).map_err(|error| error.to_string())?;
    let (mut hand, mut own_seconds, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let by_hand = turn(by_hand("stdlib", "awaits", file))?.wall;
        let worker = turn(own(&["worker", "awaits", "1"], file))?.wall;
        hand.push(by_hand);
        own_seconds.push(worker);
        ratios.push(by_hand / worker);
    }
    let (hand, worker, ratio) = (median(&hand), median(&own_seconds), median(&ratios));
    println!(
        "\n{AWAITING} events that await 10 ms, 100 at once: asyncio by hand {hand:.2} s, kaspr-exec {worker:.2} s ({ratio:.2}x)"
    );
    Ok(())
}

/// Resident memory while the same events come again and again.
fn memory(file: &Path) -> Result<(), String> {
    println!("\nmemory of one worker, filter + map, {} events:", EVENTS * LAPS);
    let status = own(&["memory"], file).status().map_err(|error| error.to_string())?;
    status.success().then_some(()).ok_or_else(|| format!("the worker ended with {status}"))
}

fn by_hand(library: &str, case: &str, file: &Path) -> Command {
    let python = std::env::var("BENCH_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut command = Command::new(python);
    command.arg(folder("loop").join("by_hand.py")).args([library, case]).arg(file);
    command
}

/// This program again, as a process of its own.
fn own(words: &[&str], file: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a program knows its file"));
    command.args(words).arg(file);
    command
}

fn turn(mut command: Command) -> Result<Run, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    Run::from_json(&line).ok_or_else(|| format!("it printed no result: {line}"))
}

fn plan(case: &str) -> Rc<Plan> {
    let file = folder("loop").join(if case == "map" { "agent.yaml".to_owned() } else { format!("{case}.yaml") });
    let files = kasprc::load::files(&[file]).expect("the bench's spec is there");
    let compiled = kasprc::compile(&files, &kasprc::Options::default());
    Rc::new(compiled.plan.unwrap_or_else(|| panic!("{}", kasprc::render(&compiled.diagnostics, &files, false))))
}

/// The events of a file as values, again and again.
struct Events {
    values: Vec<Bytes>,
    given: usize,
    all: usize,
}

impl Events {
    fn read(file: &Path, laps: u64) -> Events {
        let text = Bytes::from(std::fs::read(file).expect("the events are there"));
        let mut at = 0;
        let value = |line: &[u8]| {
            at += line.len();
            text.slice(at - line.len()..at - 1)
        };
        let values: Vec<Bytes> = text.split_inclusive(|byte| *byte == b'\n').map(value).collect();
        let all = values.len() * usize::try_from(laps).expect("laps are few");
        Events { values, given: 0, all }
    }

    /// Gives the next events to the log.
    fn give(&mut self, log: &Log) {
        for _ in 0..CHUNK.min(self.all - self.given) {
            append(log, 0, self.values[self.given % self.values.len()].clone());
            self.given += 1;
        }
    }
}

/// Appends an event to a partition of the input.
fn append(log: &Log, partition: i32, value: Bytes) {
    let record =
        NewRecord { partition: Some(partition), timestamp_ms: 0, key: None, value: Some(value), headers: Vec::new() };
    log.append(&"readings-raw".into(), record).expect("the log takes it");
}

/// Starts a worker of a case on a log of its own, whose topics have so many partitions.
fn with_worker<T>(
    case: &str,
    partitions: i32,
    board: impl FnOnce(&Plan) -> Option<Arc<Board>>,
    run: impl FnOnce(&mut Worker<PythonCode>, &Log, &SharedCounters) -> T,
) -> T {
    let plan = plan(case);
    let clock: Rc<dyn Clock> = Rc::new(SystemClock::start());
    let log = Log::new(partitions);
    let board = board(&plan);
    let interpreter = Interpreter::start(&[]);
    interpreter.run(|_| {
        let config = Config::new("bench", "loop", 0);
        let ends = Ends::of_log(&log, &config);
        let assembly = Assembly::new(&plan, config, clock.clone(), Box::new(log.admin())).with_board(board);
        let code = assembly.python(&interpreter, Default::default()).unwrap_or_else(|error| panic!("{error}"));
        let counters = assembly.counters.clone();
        let mut worker = assembly.start(&Rc::new(RefCell::new(code)), ends).expect("the worker starts");
        let ran = run(&mut worker, &log, &counters);
        worker.close().expect("the worker closes");
        ran
    })
}

/// Runs one worker on the in-memory log, from the first event to the last commit. Giving events to the log
/// costs nothing here, as the contestants by hand find their lines in a list. It may print its memory at every lap's
/// fifth, and serve a port.
fn worker(case: &str, file: &Path, (laps, tells_memory): (u64, bool), port: Option<u16>) -> Run {
    let clock = SystemClock::start();
    let mut events = Events::read(file, laps);
    let wait = if case == "awaits" { AWAIT_WAIT } else { Duration::ZERO };
    let board = |plan: &Plan| port.map(|port| served::serve(plan, port));
    with_worker(case, 1, board, |worker, log, counters| {
        let read = TopicPartition { topic: "readings-raw".into(), partition: 0 };
        let written = TopicPartition { topic: "readings".into(), partition: 0 };
        let (wall, mut cpu, mut feeding, mut complete) = (clock.now(), cpu_seconds(), 0.0, 0);
        loop {
            // The counters know of an event with its commit: a loop that waited for these would measure the interval.
            let completed = worker.complete().get(&read).map_or(0, |done| done.cast_unsigned());
            if completed == events.all as u64 {
                break;
            }
            if events.given < events.all && events.given as u64 - completed < CHUNK as u64 / 2 {
                let before = cpu_seconds();
                events.give(log);
                feeding += cpu_seconds() - before;
                if tells_memory && (events.given as u64).is_multiple_of(laps * 20_000) {
                    println!("{:>12} events {:>8.1} MiB", events.given, resident_mib());
                }
            }
            if worker.turn(wait).expect("the worker runs").committed {
                // No reader needs them again; the contestants by hand drop theirs too.
                log.forget_before(&read, std::mem::replace(&mut complete, completed.cast_signed()));
                log.forget_before(&written, i64::MAX);
            }
        }
        worker.flush().expect("the worker commits");
        cpu = cpu_seconds() - cpu - feeding;
        Run {
            cpu,
            wall: (clock.now() - wall).as_secs_f64(),
            events: events.all as u64,
            records: counters.borrow().records,
        }
    })
}
