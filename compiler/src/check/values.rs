//! Values with a meaning of their own: durations, serializers, topic names, policies.

use std::collections::BTreeMap;

use kaspr_ir::duration;
use kaspr_ir::plan::{Backoff, CALL_MS_MAX, Codec, OnError, Topic};
use kaspr_ir::topics::{TOPIC_NAME_RULE, is_internal, is_topic_name};

use super::Checker;
use crate::ast::{self, Text, TopicSettings};
use crate::diagnostics::{Code, Diagnostic};
use crate::source::Spanned;

const ACTIONS: [&str; 4] = ["skip", "retry", "deadLetter", "halt"];
const CODECS: [&str; 5] = ["raw", "json", "binary", "pickle", "yaml"];

impl Checker<'_> {
    pub(super) fn duration(&mut self, text: &Text) -> Option<u64> {
        let duration = duration::parse(&text.value);
        if duration.is_none() {
            let message = format!("\"{}\" is not a duration", text.value);
            self.fault(
                Diagnostic::new(Code::K0105, message, text.at.clone())
                    .hint("a duration is a number and one of ms, s, m, h, d: for example 5s"),
            );
        }
        duration
    }

    pub(super) fn timeout(&mut self, text: &Option<Text>) -> Option<u64> {
        let text = text.as_ref()?;
        let ms = self.duration(text)?;
        if ms == 0 || ms > CALL_MS_MAX {
            let message = match ms {
                0 => format!("\"timeout\" {} leaves no time for a call", text.value),
                _ => format!("\"timeout\" {} is longer than 240s", text.value),
            };
            self.fault(Diagnostic::new(Code::K0408, message, text.at.clone()));
            return None;
        }
        Some(ms)
    }

    pub(super) fn codec(&mut self, text: &Option<Text>, default: Codec) -> Codec {
        let Some(text) = text else { return default };
        match text.value.parse() {
            Ok(codec) => codec,
            Err(_) => {
                let message = format!("\"{}\" is not a serializer", text.value);
                let diagnostic = Diagnostic::new(Code::K0106, message, text.at.clone()).near(&text.value, CODECS);
                self.fault(diagnostic.hint("the serializers: raw, json, binary, pickle, yaml, or several as a|b"));
                default
            }
        }
    }

    pub(super) fn check_topic_name(&mut self, name: &str, at: &crate::source::At) {
        if !is_topic_name(name) {
            let message = format!("the topic name \"{name}\" is not allowed by Kafka");
            self.fault(Diagnostic::new(Code::K0109, message, at.clone()).hint(TOPIC_NAME_RULE));
        }
    }

    /// As [`Self::check_topic_name`], of a topic that the app writes.
    pub(super) fn check_written_topic(&mut self, name: &str, at: &crate::source::At) {
        self.check_topic_name(name, at);
        if is_internal(name) {
            let message = format!("the topic \"{name}\" is Kafka's own: only Kafka writes it");
            self.fault(Diagnostic::new(Code::K0109, message, at.clone()).hint("name a topic of yours"));
        }
    }

    /// Notes a topic that a spec names, with what it says of it; what is said first counts.
    pub(super) fn note_topic(&mut self, name: &str, settings: Option<&TopicSettings>, declare: bool) {
        let topic = self.topics.entry(name.to_owned()).or_insert_with(|| Topic {
            name: name.to_owned(),
            declare: false,
            partitions: None,
            replicas: None,
            config: BTreeMap::new(),
        });
        topic.declare |= declare;
        let Some(settings) = settings else { return };
        topic.declare |= settings.declare.as_ref().is_some_and(|declare| declare.value);
        topic.partitions = topic.partitions.or(settings.partitions.as_ref().map(|partitions| partitions.value));
        topic.replicas = topic.replicas.or(settings.replicas.as_ref().map(|replicas| replicas.value));
        for (name, value) in topic_config(settings) {
            topic.config.entry(name).or_insert(value);
        }
    }

    pub(super) fn on_error(&mut self, on_error: &Option<ast::OnError>) -> Option<OnError> {
        let on_error = on_error.as_ref()?;
        let action = self.required(&on_error.action, "onError.action", &on_error.at)?;
        self.policy(action, on_error, false)
    }

    fn policy(&mut self, action: &Spanned<String>, written: &ast::OnError, is_last: bool) -> Option<OnError> {
        match action.value.as_str() {
            "skip" => Some(OnError::Skip),
            "halt" => Some(OnError::Halt),
            "deadLetter" => {
                match &written.topic {
                    Some(topic) => {
                        self.check_written_topic(&topic.value, &topic.at);
                        self.note_topic(&topic.value, None, false);
                    }
                    None if self.names_dead_letters => {}
                    None => self.app_should_say(
                        Diagnostic::new(Code::K0407, "the dead letter topic is not named", action.at.clone()).hint(
                            "name it: onError: {action: deadLetter, topic: …}, or let the app set deadLetterTopic",
                        ),
                    ),
                }
                Some(OnError::DeadLetter { topic: written.topic.as_ref().map(|topic| topic.value.clone()) })
            }
            "retry" if !is_last => Some(self.retry(written)),
            other => {
                let field = if is_last { "onError.then" } else { "onError.action" };
                let allowed: &[&str] = if is_last { &["skip", "deadLetter", "halt"] } else { &ACTIONS };
                let message = format!("\"{field}\" must be one of {}, found \"{other}\"", allowed.join(", "));
                let diagnostic = Diagnostic::new(Code::K0406, message, action.at.clone());
                self.fault(diagnostic.near(other, allowed.iter().copied()));
                None
            }
        }
    }

    fn retry(&mut self, written: &ast::OnError) -> OnError {
        let mut ms =
            |text: &Option<Text>, default| text.as_ref().and_then(|text| self.duration(text)).unwrap_or(default);
        let default = Backoff::default();
        let (initial_ms, max_ms) = (ms(&written.initial, default.initial_ms), ms(&written.max, default.max_ms));
        let then = match &written.then {
            Some(then) => self.policy(then, written, true).unwrap_or(OnError::Skip),
            None => OnError::Skip,
        };
        OnError::Retry {
            attempts: written.attempts.as_ref().map_or(OnError::ATTEMPTS, |attempts| attempts.value),
            backoff: Backoff {
                initial_ms,
                max_ms,
                factor: written.factor.as_ref().map_or(default.factor, |factor| factor.value),
                jitter: written.jitter.as_ref().map_or(default.jitter, |jitter| jitter.value),
            },
            then: Box::new(then),
        }
    }
}

/// Kafka's settings of a topic: `config` wins over the fields that have a name of their own.
fn topic_config(settings: &TopicSettings) -> BTreeMap<String, String> {
    let mut config = BTreeMap::new();
    if let Some(retention) = &settings.retention {
        config.insert("retention.ms".to_owned(), retention.value.saturating_mul(1000).to_string());
    }
    let is = |flag: &Option<Spanned<bool>>| flag.as_ref().is_some_and(|flag| flag.value);
    let policy = match (is(&settings.compacting), is(&settings.deleting)) {
        (true, true) => Some("compact,delete"),
        (true, false) => Some("compact"),
        (false, true) => Some("delete"),
        (false, false) => None,
    };
    if let Some(policy) = policy {
        config.insert("cleanup.policy".to_owned(), policy.to_owned());
    }
    config.extend(settings.config.iter().map(|(name, value)| (name.value.clone(), value.value.clone())));
    config
}
