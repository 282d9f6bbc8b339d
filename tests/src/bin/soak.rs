//! `soak`: an app under load, and every kind of trouble in random order for so many minutes; then the
//! judge's verdict.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use kaspr_tests::clock::now;
use kaspr_tests::random::Random;
use kaspr_tests::trouble::{Scene, Survived, Trouble};
use kaspr_tests::verify::Verdict;

/// Kills in a row, and cuts.
const TIMES: usize = 8;
/// Rows of kills among the others, in each round through all kinds.
const KILL_ROWS: usize = 4;
/// How long nothing happens between two troubles.
const QUIET: Duration = Duration::from_millis(1500);

/// Runs agents under load through every kind of trouble, and judges what they leave.
#[derive(Debug, Parser)]
#[command(version, after_help = "Exit status: 0 all zeros, 1 something is duplicated, lost, reordered, torn or stuck.")]
struct Arguments {
    /// How long trouble is made.
    #[arg(long, value_name = "N", default_value_t = 10)]
    minutes: u64,
    /// Events a second.
    #[arg(long, value_name = "N", default_value_t = 300)]
    rate: u64,
    /// The order of troubles follows from it.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

#[derive(Default)]
struct Row {
    count: usize,
    worst: Duration,
}

fn main() -> ExitCode {
    match soak(&Arguments::parse()) {
        Ok(verdict) if verdict.is_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn soak(arguments: &Arguments) -> Result<Verdict, String> {
    let Arguments { minutes, rate, seed } = *arguments;
    say(&format!("{minutes} minutes, {rate} events a second, seed {seed}"));
    let mut scene = Scene::start(rate, seed)?;
    let (mut random, mut deck) = (Random::new(seed), Vec::new());
    let (mut rows, mut oldest) = (BTreeMap::<Trouble, Row>::new(), Duration::ZERO);
    let began = now();
    while now() - began < Duration::from_secs(60 * minutes) {
        if deck.is_empty() {
            deck = Trouble::all();
            deck.extend([Trouble::Kill; KILL_ROWS - 1]);
            random.shuffle(&mut deck);
        }
        let trouble = deck.pop().expect("it was just filled");
        let Survived { count, recovery } = scene.survive(trouble, TIMES)?;
        let row = rows.entry(trouble).or_default();
        (row.count, row.worst) = (row.count + count, row.worst.max(recovery));
        let seconds = (now() - began).as_secs();
        say(&format!(
            "{seconds:>5} s  {:<44} {count:>3}  back after {:>5.1} s",
            trouble.name(),
            recovery.as_secs_f64()
        ));
        oldest = oldest.max(scene.quiet(QUIET));
    }
    let (verdict, ended) = scene.end()?;
    say(&table(&rows));
    say(&format!("oldest record when nothing was wrong: {:.2} s", oldest.as_secs_f64()));
    say(&format!("processes that ended by themselves: {}", ended.len()));
    ended.iter().for_each(|told| say(told));
    say(&verdict.to_string());
    Ok(verdict)
}

fn table(rows: &BTreeMap<Trouble, Row>) -> String {
    let mut text = format!("\n{:<44} {:>5}  worst recovery\n", "fault survived", "count");
    for (trouble, Row { count, worst }) in rows {
        text += &format!("{:<44} {count:>5}  {:>12.1} s\n", trouble.name(), worst.as_secs_f64());
    }
    let total: usize = rows.values().map(|row| row.count).sum();
    text + &format!("{:<44} {total:>5}", "all")
}
