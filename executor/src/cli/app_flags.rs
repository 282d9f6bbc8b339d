//! The flags that an app runs with, wherever: those of `run` and `check` alike.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;

use clap::ValueEnum;
use tracing::Level;

use super::stop::Stop;
use crate::broker::kafka::config::is_known;
use crate::config::secret::{Secret, is_secret};
use crate::config::settings::{Settings, WORKERS_MAX};

/// The flags that an app runs with.
#[derive(Debug, clap::Args)]
pub struct AppArguments {
    /// Specs (files, folders, - for standard input), or a plan (plan.json) from `kasprc compile -o`. Without any, the
    /// folder that the setting definitionsDir names.
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The Kafka cluster [settings: bootstrapServers].
    #[arg(long, value_name = "HOST:PORT", help_heading = "Kafka")]
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
    /// Worker processes: each is a member of the group with Python of its own [settings: workers].
    #[arg(long, value_name = "N", help_heading = "Kafka", value_parser = clap::value_parser!(u32).range(1..=i64::from(WORKERS_MAX)))]
    pub workers: Option<u32>,
    /// Longest time from SIGTERM to the end [settings: shutdownTimeout].
    #[arg(long, value_name = "DURATION", help_heading = "Kafka")]
    pub shutdown_timeout: Option<String>,
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
    /// Events of each partition that may await at once where a spec does not say [settings: concurrency].
    #[arg(long, value_name = "N")]
    pub concurrency: Option<String>,
    /// Longest time from an event's completion to its commit [settings: commitInterval].
    #[arg(long, value_name = "DURATION")]
    pub commit_interval: Option<String>,
    /// A folder that outlives the process: tables are kept there, and an event that ends it three times in a row fails alone [settings: stateDir].
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<String>,
    /// Longest time that a partition stands still without a line that says why [settings: stallAfter].
    #[arg(long, value_name = "DURATION")]
    pub stall_after: Option<String>,
    /// The port of the HTTP server; none: no server [settings: webPort].
    #[arg(long, value_name = "PORT", help_heading = "HTTP")]
    pub web_port: Option<String>,
    /// The address that the HTTP server listens at; 127.0.0.1 with --web-port, [::] for all [settings: webBind].
    #[arg(long, value_name = "ADDRESS", help_heading = "HTTP")]
    pub web_bind: Option<String>,
    /// Add a folder to Python's path. VIRTUAL_ENV and PYTHONPATH are honoured too.
    #[arg(long, value_name = "DIR")]
    pub python_path: Vec<PathBuf>,
    /// Format of the log on standard error; text where nothing is said [settings: logFormat].
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormat>,
    /// Lowest level of lines that are logged: error, warn, info (where nothing is said), debug, trace [settings: logLevel].
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

impl AppArguments {
    /// Settings that were given as flags, by the names that they have in a spec. Flags that are no settings,
    /// such as `--local`, are read where they count.
    pub fn flags(&self) -> BTreeMap<&'static str, String> {
        let given = [
            ("app", &self.app),
            ("instance", &self.instance),
            ("onError", &self.on_error),
            ("deadLetterTopic", &self.dead_letter_topic),
            ("timeout", &self.timeout),
            ("concurrency", &self.concurrency),
            ("commitInterval", &self.commit_interval),
            ("bootstrapServers", &self.bootstrap_servers),
            ("guarantee", &self.guarantee),
            ("from", &self.from),
            ("shutdownTimeout", &self.shutdown_timeout),
            ("stateDir", &self.state_dir),
            ("stallAfter", &self.stall_after),
            ("webPort", &self.web_port),
            ("webBind", &self.web_bind),
            ("workers", &self.workers.map(|workers| workers.to_string())),
            ("logFormat", &self.log_format.map(|format| format.name().to_owned())),
            ("logLevel", &self.log_level),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
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

impl LogFormat {
    fn name(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }

    /// The format that the settings name.
    ///
    /// # Errors
    ///
    /// It is neither text nor json.
    pub fn of(settings: &Settings) -> Result<LogFormat, Stop> {
        let said = settings.get("logFormat").unwrap_or("text");
        let known =
            [LogFormat::Text, LogFormat::Json].into_iter().find(|format| format.name().eq_ignore_ascii_case(said));
        known.ok_or_else(|| Stop::refused(format!("the setting \"logFormat\" is \"{said}\": it is text or json")))
    }
}

/// The lowest level of lines that are logged, by the settings.
///
/// # Errors
///
/// It is no level.
pub fn log_level(settings: &Settings) -> Result<Level, Stop> {
    let said = settings.get("logLevel").unwrap_or("info");
    level(said).ok_or_else(|| {
        let levels = "error, warn, info, debug or trace";
        Stop::refused(format!("the setting \"logLevel\" is \"{said}\": it is {levels}"))
    })
}

/// A level by its name, or by the name or number that Python has for it: `warn`, `WARNING`, `30`.
pub fn level(text: &str) -> Option<Level> {
    match text.trim().to_ascii_lowercase().as_str() {
        // Levels end at error here and go on to CRITICAL in Python; a person has to act on both.
        "error" | "critical" | "fatal" | "40" | "50" => Some(Level::ERROR),
        "warn" | "warning" | "30" => Some(Level::WARN),
        "info" | "20" => Some(Level::INFO),
        "debug" | "10" => Some(Level::DEBUG),
        "trace" => Some(Level::TRACE),
        _ => None,
    }
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
            // A secret that was typed alone may hold a "=" too, as base64 does: so only what librdkafka could know
            // as a name counts as one.
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
            // An unknown name may be a secret's that is misspelt, as "sasl.pasword".
            KafkaFlag::Pair(key, _) => (is_secret(key) || !is_known(key)).then_some(key.len() + 1),
            KafkaFlag::Nameless => Some(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_the_names_of_both_worlds() {
        for (text, expected) in
            [("WARNING", Level::WARN), ("Debug", Level::DEBUG), ("critical", Level::ERROR), ("20", Level::INFO)]
        {
            assert_eq!(level(text), Some(expected), "{text}");
        }
        assert_eq!(level("verbose"), None);
    }
}
