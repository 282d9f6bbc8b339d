//! `soak`: an app under load, and every kind of trouble in random order for so many minutes, or one kind so
//! many times; then the judge's verdict.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use kaspr_tests::beginnings;
use kaspr_tests::clock::now;
use kaspr_tests::kafka::Broker;
use kaspr_tests::random::Random;
use kaspr_tests::trouble::{Role, STUCK_AFTER, Scene, Setting, Survived, Trouble};

/// Kills in a row, and cuts.
const TIMES: usize = 8;
/// Rows of kills among the others, in each round through all kinds.
const KILL_ROWS: usize = 4;
/// One coordinator in so many that are killed is that of transactions, the others those of the group.
const TRANSACTIONS_EVERY: usize = 4;
/// The calm between two troubles, and how much longer it must last than a commit may be late: a commit that
/// is later than the calm lasts cannot be seen.
const QUIET: Duration = Duration::from_millis(1500);
const QUIET_BEYOND: Duration = Duration::from_millis(500);
/// Most by which a commit may be late when nothing is wrong, beside an open window and a back-off.
const LATE_MAX: Duration = Duration::from_secs(1);
/// Factor on a machine that is slow for what it carries, as three brokers, of which two hold each record
/// before it counts: commits may be so many times as late as they were before the first trouble.
const LATE_TIMES: u32 = 3;
/// Quiet times of the beginning that are measured.
const CALMS: usize = 3;
const PROCESSES: usize = 3;

/// Runs agents under load through every kind of trouble, and judges what they leave.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit status: 0 all zeros, 1 something is duplicated, lost, reordered, torn, stuck or late, or a \
                  process has ended by itself."
)]
struct Arguments {
    /// Minutes for which trouble is made.
    #[arg(long, value_name = "N", default_value_t = 10)]
    minutes: u64,
    /// Brokers: 1 or 3.
    #[arg(long, value_name = "N", default_value = "1", value_parser = ["1", "3"])]
    brokers: String,
    /// In place of all that: kills coordinators so many times, on three brokers.
    #[arg(long, value_name = "N")]
    coordinator_kills: Option<usize>,
    /// In place of all that: so many starts on topics whose beginning is deleted.
    #[arg(long, value_name = "N", default_value_t = 0)]
    starts: usize,
    /// Beside the starts: so many rebalances.
    #[arg(long, value_name = "N", default_value_t = 0)]
    rebalances: usize,
    /// Events a second.
    #[arg(long, value_name = "N", default_value_t = 300)]
    rate: u64,
    /// The seed of the order of troubles.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let is_clean = if arguments.starts + arguments.rebalances > 0 {
        Ok(begin(&arguments))
    } else {
        match arguments.coordinator_kills {
            Some(kills) => kill_coordinators(&arguments, kills),
            None => soak(&arguments),
        }
    };
    match is_clean {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Starts and rebalances. False: a process died, or a partition was left behind.
fn begin(arguments: &Arguments) -> bool {
    let found = beginnings::survive(&Broker::start(), arguments.starts, arguments.rebalances);
    say(&found.to_string());
    found.is_clean()
}

/// Kills coordinators. False: something is wrong.
fn kill_coordinators(arguments: &Arguments, kills: usize) -> Result<bool, String> {
    let Arguments { rate, seed, .. } = *arguments;
    say(&format!("{kills} kills of coordinators, {rate} events a second, seed {seed}"));
    // A network between them would hide how connections of the dead end.
    let setting = Setting { brokers: 3, processes: PROCESSES, has_networks: false, rate, seed };
    let (mut scene, mut record) = (Scene::start(setting)?, Record::new());
    for kill in 1..=kills {
        let role = if kill.is_multiple_of(TRANSACTIONS_EVERY) { Role::Transactions } else { Role::Group };
        let trouble = Trouble::BrokerKilled(role);
        record.add(trouble, &scene.survive(trouble, 1)?);
    }
    let outcome = scene.end()?;
    say(&record.table());
    say(&outcome.to_string());
    Ok(outcome.is_clean())
}

/// Every kind of trouble. False: something is wrong, or commits were late when nothing was.
fn soak(arguments: &Arguments) -> Result<bool, String> {
    let Arguments { minutes, rate, seed, .. } = *arguments;
    let brokers: usize = arguments.brokers.parse().map_err(|error| format!("--brokers: {error}"))?;
    say(&format!("{minutes} minutes, brokers: {brokers}, {rate} events a second, seed {seed}"));
    let mut scene = Scene::start(Setting { brokers, processes: PROCESSES, has_networks: true, rate, seed })?;
    let (mut random, mut deck) = (Random::new(seed), Vec::new());
    let mut calm = Duration::ZERO;
    for _ in 0..CALMS {
        calm = calm.max(scene.quiet(QUIET)?);
    }
    let late_max = LATE_MAX.max(calm * LATE_TIMES);
    let (mut record, mut late) = (Record::new(), Duration::ZERO);
    while record.began.elapsed() < Duration::from_secs(60 * minutes) {
        if deck.is_empty() {
            deck = Trouble::all(brokers);
            deck.extend([Trouble::Kill; KILL_ROWS - 1]);
            random.shuffle(&mut deck);
        }
        let trouble = deck.pop().expect("it was just filled");
        record.add(trouble, &scene.survive(trouble, TIMES)?);
        let quiet = scene.quiet(QUIET.max(late_max + QUIET_BEYOND))?;
        if quiet > late_max {
            say(&format!("{:>7}  commits are late afterwards: {:.2} s", "", quiet.as_secs_f64()));
        }
        late = late.max(quiet);
    }
    let outcome = scene.end()?;
    say(&record.table());
    let [late_s, calm_s, max_s] = [late, calm, late_max].map(|time| time.as_secs_f64());
    say(&format!(
        "latest commit when nothing was wrong: after {late_s:.2} s; {calm_s:.2} s before the first trouble, so at most \
         {max_s:.2} s are allowed"
    ));
    say(&outcome.to_string());
    Ok(outcome.is_clean() && late <= late_max)
}

/// The troubles that were survived so far.
struct Record {
    began: Instant,
    rows: BTreeMap<Trouble, Row>,
}

#[derive(Default)]
struct Row {
    count: usize,
    recovery: Duration,
    standstill: Duration,
}

impl Record {
    fn new() -> Record {
        Record { began: now(), rows: BTreeMap::new() }
    }

    fn add(&mut self, trouble: Trouble, survived: &Survived) {
        let Survived { count, recovery, standstill } = *survived;
        let row = self.rows.entry(trouble).or_default();
        row.count += count;
        row.recovery = row.recovery.max(recovery);
        row.standstill = row.standstill.max(standstill);
        let (seconds, name) = (self.began.elapsed().as_secs(), trouble.name());
        let (back, still) = (recovery.as_secs_f64(), standstill.as_secs_f64());
        let told = format!("{seconds:>5} s  {name:<48} {count:>3}  back after {back:>5.1} s, stood {still:>5.1} s");
        say(&if standstill > STUCK_AFTER { told + "  STUCK" } else { told });
    }

    fn table(&self) -> String {
        let mut text = format!("\n{:<48} {:>5}  worst recovery  worst standstill\n", "fault survived", "count");
        for (trouble, Row { count, recovery, standstill }) in &self.rows {
            let (name, back, still) = (trouble.name(), recovery.as_secs_f64(), standstill.as_secs_f64());
            text += &format!("{name:<48} {count:>5}  {back:>12.1} s  {still:>14.1} s\n");
        }
        let total: usize = self.rows.values().map(|row| row.count).sum();
        text + &format!("{:<48} {total:>5}", "all")
    }
}
