//! Settings in a `KasprApp`'s config: names and values as kaspr-exec takes them at its start.
//!
//! `kaspr-exec` would refuse a faulty setting at its start; here it is said before anything is deployed, and at its
//! place in the YAML. A setting that does not exist is only a warning (K0410), because it changes nothing there.
//! Names that flags and variables have are another matter; see "Settings" in `docs/operations.md`.

use kaspr_ir::addresses::{brokers, local_address};
use kaspr_ir::plan::{Codec, OnError, Overlap, PolicyFault, is_python_mapping};
use kaspr_ir::topics::{TOPIC_NAME_RULE, is_topic_name};

use super::Checker;
use crate::ast::{self, Text};
use crate::diagnostics::{Code, Diagnostic, nearest};
use crate::options::Options;

/// Kind of a setting's value.
///
/// Each accepts the same as `executor/src/config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Anything.
    Text,
    /// Brokers.
    Brokers,
    /// An address of the machine.
    Address,
    /// A name that stands in names of Kafka's: of a group, a producer, a topic.
    Name,
    /// A duration.
    Duration,
    /// A duration that is not 0.
    Time,
    /// The time of a call: a duration within bounds.
    Timeout,
    /// The number of units in flight.
    Concurrency,
    /// A topic's name.
    Topic,
    /// An action of `onError`, or the mapping as JSON.
    Policy,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Start of a group: a word, or a time.
    From,
    /// True or false, as YAML or Python write it.
    Truth,
    /// A whole number within bounds.
    Whole(i64, i64),
    /// Seconds, at most so many.
    Seconds(u32),
    /// A serializer.
    Codec,
    /// A level of the log, by the names and numbers of Python too.
    Level,
}

/// Levels of the log.
const LEVELS: [&str; 13] =
    ["error", "warn", "info", "debug", "trace", "warning", "critical", "fatal", "10", "20", "30", "40", "50"];
/// The first of them, which a fault lists.
const OWN_LEVELS: usize = 5;

/// All settings that kaspr-exec knows. A test compares them with its own table.
///
/// The order is that of the hint that lists them.
const SETTINGS: [(&str, Kind); 33] = [
    ("app", Kind::Name),
    ("instance", Kind::Name),
    ("onError", Kind::Policy),
    ("bootstrapServers", Kind::Brokers),
    ("guarantee", Kind::OneOf(&["exactly-once", "at-least-once"])),
    ("from", Kind::From),
    ("shutdownTimeout", Kind::Duration),
    ("timeout", Kind::Timeout),
    ("concurrency", Kind::Concurrency),
    ("deadLetterTopic", Kind::Topic),
    ("commitInterval", Kind::Duration),
    ("stateDir", Kind::Text),
    ("stallAfter", Kind::Time),
    ("webPort", Kind::Whole(1, 65_535)),
    ("webBind", Kind::Address),
    ("webHost", Kind::Text),
    ("webMetricsBasePath", Kind::Text),
    ("metricsCompat", Kind::Truth),
    ("webMessages", Kind::Truth),
    ("workerOrdinalNumber", Kind::Whole(0, u32::MAX as i64)),
    ("tableDir", Kind::Text),
    ("definitionsDir", Kind::Text),
    ("workers", Kind::Whole(1, 1000)),
    ("logFormat", Kind::OneOf(&["text", "json"])),
    ("logLevel", Kind::Level),
    ("topicPartitions", Kind::Whole(1, i32::MAX as i64)),
    ("topicReplicationFactor", Kind::Whole(1, i16::MAX as i64)),
    ("topicAllowDeclare", Kind::Truth),
    ("keySerializer", Kind::Codec),
    ("valueSerializer", Kind::Codec),
    ("brokerSessionTimeout", Kind::Seconds(3600)),
    ("brokerHeartbeatInterval", Kind::Seconds(3600)),
    ("brokerMaxPollInterval", Kind::Seconds(86_400)),
];

/// Seconds of the member's session where `brokerSessionTimeout` is not set, as in `executor/src/config`.
const SESSION_SECONDS: f64 = 30.0;

/// Settings that are planned and not built yet, with what they are without.
const LATER: [(&str, &str); 3] =
    [("allowPickle", "false"), ("schedulerEnabled", "false"), ("schedulerCronEnabled", "false")];

/// Names of all settings.
///
/// Public for the tests that compare them with the executor's.
pub fn names() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|(name, _)| *name)
}

/// A setting's value as it is written; the last one counts.
///
/// `None` where it is not set. Only the first app counts: a second one is a fault (K0008).
pub(super) fn get<'a>(apps: &'a [ast::App], name: &str) -> Option<&'a str> {
    let config = apps.first()?.config.iter();
    config.filter(|(written, _)| written.value == name).map(|(_, value)| value.value.as_str()).next_back()
}

/// Codecs of keys and values of topics where a spec names none: the options' (a variable in the pod), the app's, or
/// raw and JSON. One that makes no sense is reported where settings are checked.
pub(super) fn codecs(apps: &[ast::App], options: &Options) -> (Codec, Codec) {
    let of_app = |name| get(apps, name).and_then(|text| text.parse().ok());
    let key = options.key_codec.clone().or_else(|| of_app("keySerializer"));
    let value = options.value_codec.clone().or_else(|| of_app("valueSerializer"));
    (key.unwrap_or(Codec::Raw), value.unwrap_or(Codec::Json))
}

impl Checker<'_> {
    /// Checks that kaspr-exec would take an app's settings.
    ///
    /// An empty value counts as not set, as it does in the environment.
    pub(super) fn check_settings(&mut self, apps: &[ast::App]) {
        for (name, value) in apps.iter().flat_map(|app| &app.config) {
            match SETTINGS.iter().find(|(known, _)| *known == name.value) {
                // Empty is not set, so there is nothing to judge.
                Some((_, kind)) if !value.value.is_empty() => self.check_setting(&name.value, *kind, value),
                Some(_) => {}
                None => self.unknown_setting(name, value),
            }
        }
        self.check_heartbeats(apps);
    }

    /// Checks that heartbeats come more often than the session of the group's member times out.
    fn check_heartbeats(&mut self, apps: &[ast::App]) {
        let seconds = |name| get(apps, name).and_then(|text| text.parse::<f64>().ok());
        let (Some(heartbeat), session) = (seconds("brokerHeartbeatInterval"), seconds("brokerSessionTimeout")) else {
            return;
        };
        let session = session.unwrap_or(SESSION_SECONDS);
        let written = apps.iter().flat_map(|app| &app.config).find(|(name, _)| name.value == "brokerHeartbeatInterval");
        if let Some((_, value)) = written.filter(|_| heartbeat >= session) {
            let message = format!("\"brokerHeartbeatInterval\" must be shorter than the session of {session} s");
            let fault = Diagnostic::new(Code::K0411, message, value.at.clone());
            self.fault(fault.hint("a third of brokerSessionTimeout is usual"));
        }
    }

    /// Warns of a setting that does not exist (K0410), with the nearest that does; one that is planned is K0601.
    fn unknown_setting(&mut self, name: &Text, value: &Text) {
        match LATER.iter().find(|(later, _)| *later == name.value) {
            // Written as what holds without it, it promises nothing that is not built.
            Some((_, without)) if *without == value.value => return,
            Some((_, without)) => {
                let message = format!("the setting \"{}\" is not supported yet", name.value);
                let fault = Diagnostic::new(Code::K0601, message, name.at.clone());
                return self.fault(fault.hint(format!("it is as if it were {without}")));
            }
            None => {}
        }
        let message = format!("kaspr-exec has no setting \"{}\"", name.value);
        let fault = Diagnostic::new(Code::K0410, message, name.at.clone());
        self.fault(match nearest(&name.value, names()) {
            Some(near) => fault.hint(format!("did you mean \"{near}\"?")),
            None => fault.hint(format!("the settings: {}", names().collect::<Vec<_>>().join(", "))),
        });
    }

    /// Checks one value by its kind (K0411, or the code that the same fault has in a spec).
    ///
    /// ```text
    /// guarantee: exactly_once     K0411, did you mean "exactly-once"?
    /// commitInterval: 50          K0105: a duration needs a unit
    /// deadLetterTopic: a/b        K0109, as for a topic of a spec
    /// ```
    fn check_setting(&mut self, name: &str, kind: Kind, value: &Text) {
        // Before its kind is looked at: each kind would find another fault in such a text, and none its cause.
        if is_python_mapping(&value.value) {
            let message = format!("\"{name}\" is a mapping as Python prints it");
            let hint = "put the mapping in quotes as JSON: '{\"action\": \"retry\"}'";
            return self.fault(Diagnostic::new(Code::K0411, message, value.at.clone()).hint(hint));
        }
        let words = |words: &[&str]| format!("\"{name}\" must be {}, found \"{}\"", words.join(" or "), value.value);
        match kind {
            Kind::Text => {}
            Kind::Brokers => {
                if let Err(why) = brokers(&value.value) {
                    // A user may stand in it, with a password.
                    let why = if value.value.contains('@') { "a user stands in it".to_owned() } else { why };
                    let fault =
                        Diagnostic::new(Code::K0411, format!("\"{name}\" names no brokers: {why}"), value.at.clone());
                    self.fault(fault.hint("host:port,host:port; users and passwords have settings of their own"));
                }
            }
            Kind::Address if local_address(&value.value).is_some() => {}
            Kind::Address => {
                let message = words(&["an address of the pod"]);
                let fault = Diagnostic::new(Code::K0411, message, value.at.clone());
                self.fault(fault.hint("0.0.0.0, 127.0.0.1, or [::] for all of both families"));
            }
            Kind::Name if is_topic_name(&value.value) => {}
            Kind::Name => {
                let message = format!("\"{name}\" is no name that Kafka can keep: \"{}\"", value.value);
                self.fault(Diagnostic::new(Code::K0411, message, value.at.clone()).hint(TOPIC_NAME_RULE));
            }
            Kind::Duration | Kind::Time => {
                if self.duration(value) == Some(0) && kind == Kind::Time {
                    let message = format!("\"{name}\" must be longer than 0");
                    self.fault(Diagnostic::new(Code::K0411, message, value.at.clone()));
                }
            }
            Kind::Timeout => {
                self.timeout(&Some(value.clone()));
            }
            Kind::Concurrency => {
                if !value.value.parse::<u32>().is_ok_and(|units| (1..=Overlap::MAX).contains(&units)) {
                    let message = words(&[&format!("a whole number from 1 to {}", Overlap::MAX)]);
                    self.fault(Diagnostic::new(Code::K0411, message, value.at.clone()));
                }
            }
            Kind::Topic => self.check_written_topic(&value.value, &value.at),
            Kind::Policy => self.check_policy_text(name, value),
            Kind::OneOf(known) if known.contains(&value.value.as_str()) => {}
            Kind::OneOf(known) => {
                let fault = Diagnostic::new(Code::K0411, words(known), value.at.clone());
                self.fault(fault.near(&value.value, known.iter().copied()));
            }
            Kind::Truth | Kind::Whole(..) | Kind::Seconds(_) | Kind::Level => self.check_plain(name, kind, value),
            Kind::Codec => {
                let written = Some(value.clone());
                let codec = self.codec(&written, Codec::Raw);
                self.check_codec_is_built(&codec, &written);
            }
            Kind::From => {
                let is_word = matches!(value.value.as_str(), "earliest" | "latest");
                if !is_word && !value.value.parse::<i64>().is_ok_and(|time| time >= 0) {
                    let message = words(&["earliest", "latest", "a time in ms since 1970"]);
                    let fault = Diagnostic::new(Code::K0411, message, value.at.clone());
                    self.fault(fault.near(&value.value, ["earliest", "latest"]));
                }
            }
        }
    }

    /// Checks a truth, a number or a level.
    fn check_plain(&mut self, name: &str, kind: Kind, value: &Text) {
        let text = value.value.to_ascii_lowercase();
        let is_fine = match kind {
            Kind::Truth => ["true", "false", "yes", "no", "1", "0"].contains(&text.as_str()),
            Kind::Whole(least, most) => text.parse().is_ok_and(|number: i64| (least..=most).contains(&number)),
            Kind::Seconds(most) => {
                text.parse().is_ok_and(|seconds: f64| seconds >= 0.001 && seconds <= f64::from(most))
            }
            _ => LEVELS.contains(&text.as_str()),
        };
        if is_fine {
            return;
        }
        let needed = match kind {
            Kind::Truth => "true or false".to_owned(),
            Kind::Whole(least, most) => format!("a whole number from {least} to {most}"),
            Kind::Seconds(most) => format!("seconds up to {most}"),
            _ => LEVELS[..OWN_LEVELS].join(" or "),
        };
        let message = format!("\"{name}\" must be {needed}, found \"{}\"", value.value);
        let fault = Diagnostic::new(Code::K0411, message, value.at.clone());
        self.fault(if kind == Kind::Level { fault.near(&text, LEVELS) } else { fault });
    }

    /// An action's name, or the mapping as JSON, as kaspr-exec reads it.
    ///
    /// ```text
    /// onError: retry
    /// onError: '{"action": "retry", "attempts": 5, "then": "deadLetter"}'
    /// ```
    fn check_policy_text(&mut self, name: &str, value: &Text) {
        let policy = match OnError::from_setting(&value.value) {
            Ok(policy) => policy,
            Err(PolicyFault { path, needed, found, allowed }) => {
                // An unknown action has the code that it has in a spec; every other fault is one of the setting.
                let is_action = allowed.contains(&"skip");
                let path = path.strip_suffix(".action").unwrap_or(&path);
                let message = format!("\"{name}{path}\" must be {needed}, found {found}");
                let code = if is_action { Code::K0406 } else { Code::K0411 };
                let fault = Diagnostic::new(code, message, value.at.clone());
                return self.fault(fault.near(found.trim_matches('"'), allowed.iter().copied()));
            }
        };
        match policy.last_resort() {
            OnError::DeadLetter { topic: Some(topic), .. } => self.check_written_topic(topic, &value.at),
            OnError::DeadLetter { topic: None, .. } if !self.names_dead_letters => {
                let fault = Diagnostic::new(Code::K0407, "the dead letter topic is not named", value.at.clone());
                self.fault(fault.hint("name it: deadLetterTopic, beside onError"));
            }
            _ => {}
        }
    }

    /// Codecs that kaspr-exec cannot read or write yet.
    ///
    /// Said here (K0601) because the start would refuse it. A codec that is a default is always built.
    pub(super) fn check_codec_is_built(&mut self, codec: &Codec, written: &Option<Text>) {
        let Some(written) = written else { return };
        if !matches!(codec, Codec::Raw | Codec::Json | Codec::Binary) {
            let message = format!("the serializer \"{}\" is not supported yet", written.value);
            let fault = Diagnostic::new(Code::K0601, message, written.at.clone());
            self.fault(fault.hint("the serializers that are: raw, json, binary"));
        }
    }
}
