//! The command line as it was typed.
//!
//! Doc comments of fields here are the help texts that users read. Values keep the form in which they were
//! typed: [`Settings`](crate::config::settings::Settings) reads them, since the same texts may stand in
//! variables and specs. A new setting is a flag here, its name in [`RunArguments::flags`], and a row in
//! `config/settings.rs`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::broker::kafka::config::is_known;
use crate::config::secret::{Secret, is_secret};
use crate::config::settings::SETTINGS;
use crate::run::local::feed::{Format, Input};

/// Runs KasprAgents: exactly once, on timely dataflow, with your Python inside.
#[derive(Debug, Parser)]
#[command(version, long_version = long_version(), propagate_version = true, after_long_help = settings_help(), after_help = "\
Examples:
  echo '{\"id\":1}' | kaspr-exec run agent.yaml --local --input demo-input=-
  kaspr-exec test specs/                                          every tests.yaml below
  kaspr-exec check plan.json --bootstrap-servers localhost:9092   could it run there?
  kaspr-exec run plan.json --bootstrap-servers localhost:9092 --workers 4
  kill -USR1 PID                                                  its status, as a line of JSON

Exit status: 0 drained, 1 stopped by a fault, 2 wrong use or spec refused, 75 watchdog or shutdown deadline,\n130 and 143 interrupted before its end.")]
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
    Check(Box<RunArguments>),
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

/// A setting of the Kafka clients as it was typed.
#[derive(Clone, Debug)]
pub enum KafkaFlag {
    /// `KEY=VALUE`.
    Pair(String, Secret),
    /// No key that a setting could have stands in front of a "=". It may be a secret.
    Nameless,
}

impl KafkaFlag {
    /// Reads what was typed. Nothing is refused here: clap prints an argument that it refuses, and this one
    /// may be a secret.
    ///
    /// ```text
    /// sasl.username=shop   →  Pair     Sasl.Username=shop   →  Nameless: no setting has capitals
    /// =secret, secret      →  Nameless
    /// ```
    pub fn read(text: &str) -> KafkaFlag {
        let is_name =
            |key: &str| key.chars().all(|letter| letter.is_ascii_lowercase() || "._0123456789".contains(letter));
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() && is_name(key) => {
                KafkaFlag::Pair(key.to_owned(), Secret::new(value))
            }
            _ => KafkaFlag::Nameless,
        }
    }

    /// For clap, which wants a result.
    fn parse(text: &str) -> Result<KafkaFlag, Infallible> {
        Ok(KafkaFlag::read(text))
    }

    /// Key and value.
    ///
    /// # Errors
    ///
    /// It has no name. The text does not repeat what was typed.
    pub fn pair(&self) -> Result<(&str, &Secret), &'static str> {
        match self {
            KafkaFlag::Pair(key, value) => Ok((key, value)),
            KafkaFlag::Nameless => Err(
                "--kafka needs KEY=VALUE, as in sasl.username=shop; what was given is not shown, it may be a secret",
            ),
        }
    }

    /// Its name, if its value is a secret.
    pub fn secret_name(&self) -> Option<String> {
        match self {
            KafkaFlag::Pair(key, _) => is_secret(key).then(|| key.clone()),
            KafkaFlag::Nameless => None,
        }
    }

    /// The first byte that must stay hidden: of secrets, and of values whose names are not known.
    ///
    /// `None`: nothing of it is secret. 0: the whole text, since it may be one.
    pub fn hidden_from(&self) -> Option<usize> {
        match self {
            KafkaFlag::Pair(key, _) => (is_secret(key) || !is_known(key)).then_some(key.len() + 1),
            KafkaFlag::Nameless => Some(0),
        }
    }
}

/// `kaspr-exec run`.
#[derive(Debug, clap::Args)]
pub struct RunArguments {
    /// Specs (files, folders, - for standard input), or a plan (plan.json) from `kasprc compile -o`.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Run on the embedded in-memory log: no Kafka needed.
    #[arg(long)]
    pub local: bool,
    /// Run on this Kafka cluster [settings: bootstrapServers].
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "local", help_heading = "Kafka")]
    pub bootstrap_servers: Option<String>,
    /// A setting of the Kafka clients, as librdkafka names it; KASPR_KAFKA_SASL_USERNAME=… is the same
    /// as --kafka sasl.username=…. Secrets are better named by their files:
    /// KASPR_KAFKA_SASL_PASSWORD_FILE=PATH. May be given more than once.
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Kafka", value_parser = KafkaFlag::parse)]
    pub kafka: Vec<KafkaFlag>,
    /// Guarantee on Kafka: exactly-once (a crash repeats nothing) or at-least-once [settings: guarantee].
    #[arg(long, value_name = "GUARANTEE", help_heading = "Kafka")]
    pub guarantee: Option<String>,
    /// Start of a group without commits: earliest, latest, or a time as ms since 1970 [settings: from].
    #[arg(long, value_name = "WHERE", help_heading = "Kafka")]
    pub from: Option<String>,
    /// Process up to the ends that the topics have at the start, commit and exit.
    #[arg(long, help_heading = "Kafka", conflicts_with = "local")]
    pub until_caught_up: bool,
    /// Worker processes: each is a member of the group with Python of its own.
    #[arg(long, value_name = "N", help_heading = "Kafka", default_value_t = 1, conflicts_with = "local", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub workers: u32,
    /// Longest time from SIGTERM to the end [settings: shutdownTimeout].
    #[arg(long, value_name = "DURATION", help_heading = "Kafka")]
    pub shutdown_timeout: Option<String>,
    /// The number of the supervisor's worker that this process is.
    #[arg(long, hide = true, value_name = "NUMBER:PID")]
    pub worker: Option<String>,
    /// Feed a topic with the lines of a file; - is standard input. May be given more than once.
    #[arg(long, value_name = "TOPIC=FILE")]
    pub input: Vec<Input>,
    /// Content of a line: json = the bytes of a value; record = a record with key and headers.
    #[arg(long, value_name = "FORMAT", default_value = "json")]
    pub input_format: InputFormat,
    /// Write every topic to DIR/{topic}.jsonl and every table to DIR/tables/ instead of standard output.
    #[arg(long, value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
    /// Record events that failed in FILE, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub failures: Option<PathBuf>,
    /// Partitions of topics whose spec names none.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=100_000))]
    pub partitions: i32,
    /// The app's name [settings: app].
    #[arg(long, value_name = "NAME")]
    pub app: Option<String>,
    /// This instance's name [settings: instance].
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// Action for events that fail, for specs that name none [settings: onError].
    #[arg(long, value_name = "ACTION")]
    pub on_error: Option<String>,
    /// The topic of deadLetter where a spec names none [settings: deadLetterTopic].
    #[arg(long, value_name = "TOPIC")]
    pub dead_letter_topic: Option<String>,
    /// Longest time of one call of user code where a spec does not say [settings: timeout].
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<String>,
    /// Longest time from an event's completion to its commit [settings: commitInterval].
    #[arg(long, value_name = "DURATION")]
    pub commit_interval: Option<String>,
    /// A folder that outlives the process: tables are kept there, and an event that ends it three times in a row fails alone [settings: stateDir].
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<String>,
    /// Longest time that a partition stands still without a line that says why [settings: stallAfter].
    #[arg(long, value_name = "DURATION")]
    pub stall_after: Option<String>,
    /// Add a folder to Python's path. VIRTUAL_ENV and PYTHONPATH are honoured too.
    #[arg(long, value_name = "DIR")]
    pub python_path: Vec<PathBuf>,
    /// Format of the log on standard error.
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Lowest level of lines that are logged: error, warn, info, debug, trace.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: tracing::Level,
    /// No summary and no progress bar.
    #[arg(long, short)]
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

/// Formats of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
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

    /// Settings that were given as flags. By the names that settings have in a spec. Flags that are no
    /// settings, such as `--local`, are read where they count.
    pub fn flags(&self) -> BTreeMap<&'static str, String> {
        let given = [
            ("app", &self.app),
            ("instance", &self.instance),
            ("onError", &self.on_error),
            ("deadLetterTopic", &self.dead_letter_topic),
            ("timeout", &self.timeout),
            ("commitInterval", &self.commit_interval),
            ("bootstrapServers", &self.bootstrap_servers),
            ("guarantee", &self.guarantee),
            ("from", &self.from),
            ("shutdownTimeout", &self.shutdown_timeout),
            ("stateDir", &self.state_dir),
            ("stallAfter", &self.stall_after),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }
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
    text.push_str("\nExit status: 0 drained, 1 stopped by a fault, 2 wrong use or spec refused, 75 watchdog or shutdown deadline,\n130 and 143 interrupted before its end.");
    text
}

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
