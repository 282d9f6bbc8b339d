//! The simulator: real workers over a simulated broker, thousands of seeds, the invariants checked
//! after every step.
//!
//! A seed that fails prints how to replay it: `make sim SEED=17` shows its steps.

#![allow(clippy::print_stdout, reason = "a failing seed says how to replay it")]

mod checker;
mod code;
mod driver;
mod store;
mod workload;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use code::Stub;
use driver::{Language, Maker, Needs, Simulation};
use kaspr_exec::code::Code;
use kaspr_exec::code::python::Interpreter;

/// Seeds of a usual run.
const SEEDS: Range<u64> = 0..2000;
/// Threads that share them.
const THREADS: u64 = 2;

/// Runs a seed: its steps and commits, or the invariant that does not hold.
fn run<C: Code>(seed: u64, traces: bool, language: Language, make: Maker<'_, C>) -> Result<(usize, usize), String> {
    let simulation = Simulation::new(seed, traces, language, make);
    let world = simulation.world().clone();
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut simulation = simulation;
        simulation.run().map(|outcome| (outcome.steps, outcome.commits))
    }));
    if traces {
        println!("{}", world.notes().join("\n"));
    }
    ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("a panic: {}", text.unwrap_or_default()))
    })
}

/// `SEED=17` or `SEEDS=0..500` in the environment.
fn asked() -> (Range<u64>, bool) {
    let number = |text: &str| text.trim().parse::<u64>().expect("seeds are numbers");
    if let Ok(seed) = std::env::var("SEED") {
        let seed = number(&seed);
        return (seed..seed + 1, true);
    }
    match std::env::var("SEEDS") {
        Ok(range) => {
            let (first, end) = range.split_once("..").expect("SEEDS is like 0..2000");
            (number(first)..number(end), false)
        }
        Err(_) => (SEEDS, false),
    }
}

fn stub(needs: Needs<'_>) -> Stub {
    let Needs { world, assembly, told, drags } = needs;
    Stub::new(world, &assembly.plan, assembly.tables.clone(), told.clone(), drags)
}

/// Seeds with real Python: fewer, for loading it takes longer than a seed.
const PYTHON_SEEDS: Range<u64> = 0..40;

#[test]
fn real_python_keeps_them_too() {
    let (seeds, traces) = match std::env::var("PYTHON_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("a seed is a number");
            (seed..seed + 1, true)
        }
        Err(_) => (PYTHON_SEEDS, false),
    };
    let mut failed = 0;
    let interpreter = Interpreter::start(&[]);
    interpreter.run(|_| {
        let make = |needs: Needs<'_>| {
            let code = needs.assembly.python(&interpreter, Default::default());
            code.unwrap_or_else(|error| panic!("{error}"))
        };
        for seed in seeds {
            if let Err(why) = run(seed, traces, Language::Python, &make) {
                println!("seed {seed} with Python: {why}\n    make sim PYTHON_SEED={seed}");
                failed += 1;
            }
        }
    });
    assert_eq!(failed, 0, "seeds with Python that do not keep the invariants");
}

#[test]
fn every_seed_keeps_the_invariants() {
    let (seeds, traces) = asked();
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let seeds = seeds.clone();
            std::thread::spawn(move || {
                let mine = seeds.filter(|seed| seed % THREADS == thread);
                mine.map(|seed| (seed, run(seed, traces, Language::Rust, &stub))).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut outcomes: Vec<_> =
        threads.into_iter().flat_map(|thread| thread.join().expect("a seed's panic is caught")).collect();
    outcomes.sort_by_key(|(seed, _)| *seed);
    let failed: Vec<_> = outcomes.iter().filter_map(|(seed, outcome)| Some((seed, outcome.as_ref().err()?))).collect();
    for (seed, why) in &failed {
        println!("seed {seed}: {why}\n    make sim SEED={seed}");
    }
    let done = outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().ok());
    let (steps, commits) = done.fold((0, 0), |(steps, commits), (s, c)| (steps + s, commits + c));
    println!("{} seeds, {} failed; {steps} steps and {commits} commits checked", outcomes.len(), failed.len());
    assert!(failed.is_empty(), "{} seeds do not keep the invariants", failed.len());
}
