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
/// How late a commit may be when nothing is wrong, beside an open window and a back-off.
const LATE_MAX: Duration = Duration::from_secs(1);

/// Runs agents under load through every kind of trouble, and judges what they leave.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit status: 0 all zeros, 1 something is duplicated, lost, reordered, torn, stuck or late."
)]
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
        Ok((verdict, late)) if verdict.is_clean() && late <= LATE_MAX => ExitCode::SUCCESS,
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

/// Gives the verdict, and how late commits were at most when nothing was wrong.
fn soak(arguments: &Arguments) -> Result<(Verdict, Duration), String> {
    let Arguments { minutes, rate, seed } = *arguments;
    say(&format!("{minutes} minutes, {rate} events a second, seed {seed}"));
    let mut scene = Scene::start(rate, seed)?;
    let (mut random, mut deck) = (Random::new(seed), Vec::new());
    let (mut rows, mut late) = (BTreeMap::<Trouble, Row>::new(), Duration::ZERO);
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
        let quiet = scene.quiet(QUIET)?;
        if quiet > LATE_MAX {
            say(&format!("{:>7}  commits are late afterwards: {:.2} s", "", quiet.as_secs_f64()));
        }
        late = late.max(quiet);
    }
    let (verdict, ended) = scene.end()?;
    say(&table(&rows));
    let (late_s, max_s) = (late.as_secs_f64(), LATE_MAX.as_secs_f64());
    say(&format!("latest commit when nothing was wrong: after {late_s:.2} s, at most {max_s} s are allowed"));
    say(&format!("processes that ended by themselves: {}", ended.len()));
    ended.iter().for_each(|told| say(told));
    say(&verdict.to_string());
    Ok((verdict, late))
}

fn table(rows: &BTreeMap<Trouble, Row>) -> String {
    let mut text = format!("\n{:<44} {:>5}  worst recovery\n", "fault survived", "count");
    for (trouble, Row { count, worst }) in rows {
        text += &format!("{:<44} {count:>5}  {:>12.1} s\n", trouble.name(), worst.as_secs_f64());
    }
    let total: usize = rows.values().map(|row| row.count).sum();
    text + &format!("{:<44} {total:>5}", "all")
}
