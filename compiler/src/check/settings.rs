//! Settings in a `KasprApp`'s config: names and values as kaspr-exec takes them at its start.

use kaspr_ir::plan::Codec;

use super::Checker;
use crate::ast::{self, Text};
use crate::diagnostics::{Code, Diagnostic, nearest};

/// Kind of a setting's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Anything.
    Text,
    /// A duration.
    Duration,
    /// A duration that is not 0.
    Time,
    /// The time of a call: a duration within bounds.
    Timeout,
    /// A topic's name.
    Topic,
    /// An action of `onError`, or the mapping as JSON.
    Policy,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Start of a group: a word, or a time.
    From,
}

/// All settings that kaspr-exec knows. A test compares them with its own table.
const SETTINGS: [(&str, Kind); 13] = [
    ("app", Kind::Text),
    ("instance", Kind::Text),
    ("onError", Kind::Policy),
    ("bootstrapServers", Kind::Text),
    ("guarantee", Kind::OneOf(&["exactly-once", "at-least-once"])),
    ("from", Kind::From),
    ("shutdownTimeout", Kind::Duration),
    ("timeout", Kind::Timeout),
    ("deadLetterTopic", Kind::Topic),
    ("allowPickle", Kind::OneOf(&["true", "false"])),
    ("commitInterval", Kind::Duration),
    ("stateDir", Kind::Text),
    ("stallAfter", Kind::Time),
];
const ACTIONS: [&str; 4] = ["skip", "retry", "deadLetter", "halt"];

/// Names of all settings.
pub fn names() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|(name, _)| *name)
}

/// A setting's value as it is written; the last one counts.
pub(super) fn get<'a>(apps: &'a [ast::App], name: &str) -> Option<&'a str> {
    let config = apps.first()?.config.iter();
    config.filter(|(written, _)| written.value == name).map(|(_, value)| value.value.as_str()).next_back()
}

impl Checker<'_> {
    /// Checks that kaspr-exec would take an app's settings.
    pub(super) fn check_settings(&mut self, apps: &[ast::App]) {
        for (name, value) in apps.iter().flat_map(|app| &app.config) {
            match SETTINGS.iter().find(|(known, _)| *known == name.value) {
                Some((_, kind)) if !value.value.is_empty() => self.check_setting(&name.value, *kind, value),
                Some(_) => {}
                None => self.unknown_setting(name),
            }
        }
        if get(apps, "onError") == Some("deadLetter") && get(apps, "deadLetterTopic").is_none() {
            let value = apps[0].config.iter().find(|(name, _)| name.value == "onError").map(|(_, value)| value);
            let at = value.expect("it was found").at.clone();
            let fault = Diagnostic::new(Code::K0407, "the dead letter topic is not named", at);
            self.fault(fault.hint("name it: deadLetterTopic, beside onError"));
        }
    }

    fn unknown_setting(&mut self, name: &Text) {
        let message = format!("kaspr-exec has no setting \"{}\"", name.value);
        let fault = Diagnostic::new(Code::K0410, message, name.at.clone());
        self.fault(match nearest(&name.value, names()) {
            Some(near) => fault.hint(format!("did you mean \"{near}\"?")),
            None => fault.hint(format!("the settings: {}", names().collect::<Vec<_>>().join(", "))),
        });
    }

    fn check_setting(&mut self, name: &str, kind: Kind, value: &Text) {
        let words = |words: &[&str]| format!("\"{name}\" must be {}, found \"{}\"", words.join(" or "), value.value);
        match kind {
            Kind::Text => {}
            Kind::Duration | Kind::Time => {
                if self.whole_duration(value) == Some(0) && kind == Kind::Time {
                    let message = format!("\"{name}\" must be longer than 0");
                    self.fault(Diagnostic::new(Code::K0411, message, value.at.clone()));
                }
            }
            Kind::Timeout => {
                if self.whole_duration(value).is_some() {
                    self.timeout(&Some(value.clone()));
                }
            }
            Kind::Topic => self.check_topic_name(&value.value, &value.at),
            Kind::Policy => self.check_policy_text(name, value),
            Kind::OneOf(known) if known.contains(&value.value.as_str()) => {}
            Kind::OneOf(known) => {
                let fault = Diagnostic::new(Code::K0411, words(known), value.at.clone());
                self.fault(fault.near(&value.value, known.iter().copied()));
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

    /// A duration as settings write it: in whole numbers.
    fn whole_duration(&mut self, value: &Text) -> Option<u64> {
        let ms = self.duration(value)?;
        if value.value.contains('.') || value.value.trim() != value.value {
            let message = format!("\"{}\" is not a duration that a setting can have", value.value);
            let fault = Diagnostic::new(Code::K0105, message, value.at.clone());
            self.fault(fault.hint("in settings it is a whole number and one of ms, s, m, h, d: for example 1500ms"));
            return None;
        }
        Some(ms)
    }

    /// An action's name, or the mapping as JSON.
    fn check_policy_text(&mut self, name: &str, value: &Text) {
        if !value.value.trim_start().starts_with('{') {
            self.check_action(name, value, &value.value, &ACTIONS);
            return;
        }
        let policy: serde_json::Value = match serde_json::from_str(&value.value) {
            Ok(policy) => policy,
            Err(error) => {
                let message = format!("\"{name}\" begins as JSON and is none: {error}");
                return self.fault(Diagnostic::new(Code::K0411, message, value.at.clone()));
            }
        };
        let text = |field: &str| policy.get(field).and_then(serde_json::Value::as_str);
        let Some(action) = text("action") else {
            let message = format!("\"{name}\" names no action");
            let fault = Diagnostic::new(Code::K0411, message, value.at.clone());
            return self.fault(fault.hint("{\"action\": …}: skip, retry, deadLetter or halt"));
        };
        self.check_action(name, value, action, &ACTIONS);
        if action == "retry" && policy.get("then").is_some() {
            self.check_action(
                &format!("{name}.then"),
                value,
                text("then").unwrap_or_default(),
                &["skip", "deadLetter", "halt"],
            );
        }
        for field in ["initial", "max"] {
            let wait = policy.get("backoff").and_then(|backoff| backoff.get(field)).and_then(serde_json::Value::as_str);
            if let Some(wait) = wait {
                self.whole_duration(&Text { value: wait.to_owned(), at: value.at.clone() });
            }
        }
        if policy.get("attempts").is_some_and(|attempts| attempts.as_u64().is_none_or(|attempts| attempts == 0)) {
            let message = format!("\"{name}.attempts\" must be a whole number from 1 on");
            self.fault(Diagnostic::new(Code::K0411, message, value.at.clone()));
        }
    }

    fn check_action(&mut self, name: &str, value: &Text, action: &str, allowed: &[&str]) {
        if !allowed.contains(&action) {
            let message = format!("\"{name}\" must be one of {}, found \"{action}\"", allowed.join(", "));
            let fault = Diagnostic::new(Code::K0406, message, value.at.clone());
            self.fault(fault.near(action, allowed.iter().copied()));
        }
    }

    /// Codecs that kaspr-exec cannot read or write yet.
    pub(super) fn check_codec_is_built(&mut self, codec: &Codec, written: &Option<Text>) {
        let Some(written) = written else { return };
        if !matches!(codec, Codec::Raw | Codec::Json | Codec::Binary) {
            let message = format!("the serializer \"{}\" is not supported yet", written.value);
            let fault = Diagnostic::new(Code::K0601, message, written.at.clone());
            self.fault(fault.hint("the serializers that are: raw, json, binary"));
        }
    }
}
