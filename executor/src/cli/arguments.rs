//! The command line as it was typed.
//!
//! Doc comments of fields here are the help texts that users read. Values keep the form in which they were
//! typed: [`Settings`](crate::config::settings::Settings) reads them, since the same texts may stand in
//! variables and specs. A new setting is a flag and its name in [`AppArguments`], and a row in
//! `config/settings.rs`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use super::app_flags::AppArguments;
use super::last_words;
use crate::config::settings::SETTINGS;
use crate::run::local::feed::{Format, Input};

/// Runs KasprAgents: exactly once, on timely dataflow, with your Python inside.
#[derive(Debug, Parser)]
#[command(version, long_version = long_version(), propagate_version = true, after_long_help = format!("{}\n{EXIT}", settings_help()), after_help = format!("\
Examples:
  echo '{{\"id\":1}}' | kaspr-exec run agent.yaml --local --input demo-input=-
  kaspr-exec test specs/                                          every tests.yaml below
  kaspr-exec check plan.json --bootstrap-servers localhost:9092   could it run there?
  kaspr-exec run plan.json --bootstrap-servers localhost:9092 --workers 4
  kill -USR1 PID                                                  its status, as a line of JSON

{EXIT}"))]
pub struct Arguments {
    /// Colours: auto looks at the terminal, NO_COLOR and CLICOLOR_FORCE.
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = clap::ColorChoice::Auto)]
    pub color: clap::ColorChoice,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run agents.
    Run(Box<RunArguments>),
    /// Look whether agents could run: Python loads, Kafka answers, topics exist. Joins no group.
    Check(Box<CheckArguments>),
    /// Run the tests of specs: every tests.yaml in the folders, without Kafka and in simulated time.
    Test(TestArguments),
    /// Print the completions of a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a folder.
    Man {
        /// The folder, which must be there.
        folder: PathBuf,
    },
}

/// `kaspr-exec test`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
tests.yaml, beside the specs that it tests:
  tests:
    - name: what it shows
      tables: {prices: {lamp: 40}}              # what tables hold at the start
      events:                                   # or {file: events.jsonl}
        - {topic: orders, key: k, value: {item: lamp}}
        - {topic: orders, value: {item: pen}, at: 5s}
      advance: 10s                              # the clock, behind the last event
      expect:                                   # fields that are not written are not compared
        topics: {bills: [{value: {item: lamp, total: 40}}, {key: k, tombstone: true}]}
        tables: {prices: {lamp: 40}}
        failures: [{operation: price, kind: KeyError}]

--update writes what came in the place of what differs: the fields that a record names, for a new one those
of the last, and key and value where the list is empty (so `topics: {bills: []}` is a beginning); and
failures. All other text stays, comments too.

Exit status: 0 all passed or were updated, 1 some failed, 2 wrong use or spec refused.")]
pub struct TestArguments {
    /// Folders with a tests.yaml in them or below, or a spec beside one.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Only tests whose name contains this.
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Write what came into tests.yaml where a test expects something else; read the diff before you keep it.
    #[arg(long)]
    pub update: bool,
    /// Format of the results: text for people, json for programs (one object a test).
    #[arg(long, value_enum, default_value = "text")]
    pub format: ResultFormat,
    /// Add a folder to Python's path. VIRTUAL_ENV and PYTHONPATH are honoured too.
    #[arg(long, value_name = "DIR")]
    pub python_path: Vec<PathBuf>,
    /// Lowest level of lines that are logged while tests run: error, warn, info, debug, trace.
    #[arg(long, value_name = "LEVEL", default_value = "error")]
    pub log_level: tracing::Level,
}

/// Formats of the results of tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ResultFormat {
    /// For people.
    Text,
    /// One JSON object a test.
    Json,
}

/// Flags of runs on Kafka that a local run cannot have.
const OF_KAFKA: [&str; 3] = ["bootstrap_servers", "until_caught_up", "workers"];

/// `kaspr-exec run`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = settings_help())]
pub struct RunArguments {
    /// The flags that an app runs with.
    #[command(flatten)]
    pub app: AppArguments,
    /// Process up to the ends that the topics have at the start, commit and exit.
    #[arg(long, help_heading = "Kafka")]
    pub until_caught_up: bool,
    /// The number of the supervisor's worker that this process is.
    #[arg(long, hide = true, value_name = "NUMBER:PID")]
    pub worker: Option<String>,
    /// Run on the embedded in-memory log: no Kafka needed.
    #[arg(long, help_heading = "Local runs", conflicts_with_all = OF_KAFKA)]
    pub local: bool,
    /// Feed a topic with the lines of a file; - is standard input. May be given more than once.
    #[arg(long, value_name = "TOPIC=FILE", help_heading = "Local runs", requires = "local", conflicts_with_all = OF_KAFKA)]
    pub input: Vec<Input>,
    /// Content of a line: json = the bytes of a value; record = a record with key and headers.
    #[arg(long, value_name = "FORMAT", default_value = "json", help_heading = "Local runs", requires = "local", conflicts_with_all = OF_KAFKA)]
    pub input_format: InputFormat,
    /// Write every topic to DIR/{topic}.jsonl and every table to DIR/tables/ instead of standard output.
    #[arg(long, value_name = "DIR", help_heading = "Local runs", requires = "local", conflicts_with_all = OF_KAFKA)]
    pub output_dir: Option<PathBuf>,
    /// Record events that failed in FILE, one JSON object a line.
    #[arg(long, value_name = "FILE", help_heading = "Local runs", requires = "local", conflicts_with_all = OF_KAFKA)]
    pub failures: Option<PathBuf>,
    /// Partitions of topics whose spec names none.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Local runs", requires = "local", conflicts_with_all = OF_KAFKA, value_parser = clap::value_parser!(i32).range(1..=100_000))]
    pub partitions: i32,
    /// No summary and no progress bar.
    #[arg(long, short)]
    pub quiet: bool,
}

/// `kaspr-exec check`. It takes the command line of a run on Kafka as it is.
#[derive(Debug, clap::Args)]
#[command(after_long_help = settings_help())]
pub struct CheckArguments {
    /// The flags that an app runs with.
    #[command(flatten)]
    pub app: AppArguments,
    /// Has no meaning for a check.
    #[arg(long, hide = true)]
    pub until_caught_up: bool,
    /// Has no meaning for a check.
    #[arg(long, short, hide = true)]
    pub quiet: bool,
}

/// Contents of a line of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// A value's bytes as they stand.
    Json,
    /// A record.
    Record,
}

impl From<InputFormat> for Format {
    fn from(format: InputFormat) -> Format {
        match format {
            InputFormat::Json => Format::Json,
            InputFormat::Record => Format::Record,
        }
    }
}

impl RunArguments {
    /// Number and process id that a supervisor gave this process in `--worker NUMBER:PID`: its own number, and
    /// the supervisor's id.
    ///
    /// `None` where there is no supervisor, or the text was typed by a person.
    pub fn post(&self) -> Option<(u32, u32)> {
        let (number, supervisor) = self.worker.as_deref()?.split_once(':')?;
        Some((number.parse().ok()?, supervisor.parse().ok()?))
    }
}

impl Arguments {
    /// Reads a command line; ends the process where it is wrong, or asks for help.
    pub fn read(arguments: &[OsString]) -> Arguments {
        Arguments::try_parse_from(arguments).unwrap_or_else(|error| {
            let error = belongs_elsewhere(error);
            // Help is no error, and goes to standard output.
            if error.use_stderr() {
                last_words::leave(error.render().to_string().trim_end().as_bytes());
            }
            error.exit()
        })
    }
}

/// Adds to an error about an unknown flag which command has it.
fn belongs_elsewhere(mut error: clap::Error) -> clap::Error {
    let (ErrorKind::UnknownArgument, Some(ContextValue::String(flag))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
    else {
        return error;
    };
    let name = flag.trim_start_matches("--").to_owned();
    let program = Arguments::command();
    let has = |command: &&clap::Command| {
        // A hidden flag is taken only because another command's line may hold it: it is no advice.
        command.get_arguments().any(|known| known.get_long() == Some(&name) && !known.is_hide_set())
    };
    let owners: Vec<String> =
        program.get_subcommands().filter(has).map(|owner| format!("\"kaspr-exec {}\"", owner.get_name())).collect();
    if !owners.is_empty() {
        let tip = StyledStr::from(format!("'--{name}' is an option of {}", owners.join(" and ")));
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
    error
}

/// The table of settings, for `--help`. It is written from the table of settings, so that a new one cannot be
/// forgotten.
fn settings_help() -> String {
    let mut text =
        "Settings, from the strongest source: flag, KASPR_*, K_*, KasprApp spec.config, default.\n".to_owned();
    for setting in SETTINGS {
        let default = if setting.default.is_empty() { "none" } else { setting.default };
        text.push_str(&format!(
            "  {:<16} KASPR_{:<27} {} (default: {default})\n",
            setting.name, setting.variable, setting.help
        ));
    }
    text
}

/// The exit statuses, for `--help`.
const EXIT: &str = "Exit status: 0 drained, 1 stopped by a fault, 2 wrong use or spec refused, 75 watchdog or shutdown deadline,\n130 and 143 interrupted before its end.";

/// The version with those of everything whose version matters in a report of a fault.
fn long_version() -> String {
    format!(
        "{}\nplan version {}\nlibrdkafka {}\nCPython {}",
        env!("CARGO_PKG_VERSION"),
        kaspr_ir::plan::PLAN_VERSION,
        crate::broker::kafka::version(),
        crate::code::python::version()
    )
}
