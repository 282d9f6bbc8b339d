//! Values with a meaning of their own: durations, serializers, topic names.
//!
//! Each is parsed by the same code as in the executor (`kaspr_ir`), so that a spec and a flag mean the same.

use kaspr_ir::duration;
use kaspr_ir::plan::{CALL_MS_MAX, Codec, Creation, Topic, topic_config};
use kaspr_ir::topics::{TOPIC_NAME_RULE, is_internal, is_topic_name};

use super::Checker;
use crate::ast::{self, Text};
use crate::diagnostics::{Code, Diagnostic};
use crate::source::Spanned;

// Single codecs: chains of them are made with `|` and need no suggestions.
const CODECS: [&str; 5] = ["raw", "json", "binary", "pickle", "yaml"];

impl Checker<'_> {
    /// A duration in ms; `None`, with K0105, where it is none.
    ///
    /// ```text
    /// 100ms ⇒ 100     1.5m ⇒ 90000     5 ⇒ K0105: a unit is needed
    /// ```
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

    /// The longest time of a call in ms: more than 0, at most 240 s (K0408). `None` where none is written, or a faulty
    /// one.
    pub(super) fn timeout(&mut self, text: &Option<Text>) -> Option<u64> {
        let text = text.as_ref()?;
        let ms = self.duration(text)?;
        // A worker that is silent for longer loses its partitions to another, and both would process the event.
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

    /// A serializer by name, or a chain `a|b`; `default` where none is written, or a faulty one (K0106).
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

    /// Reports a name that no topic of Kafka can have (K0109).
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
    ///
    /// `declare` is added: one place that says so is enough for the topic to be created.
    pub(super) fn note_topic(&mut self, name: &str, creation: &Creation) {
        // Inputs, outputs, sends and dead letters of all agents meet here: the topic is created once.
        self.topics.entry(name.to_owned()).or_insert_with(|| Topic::named(name)).add(creation);
    }
}

/// The creation of a topic as a spec describes it: `config` wins over the fields that have a name of their own.
///
/// ```text
/// retention: 60, compacting: true, config: {retention.ms: 5}   ⇒   {cleanup.policy: compact, retention.ms: 5}
/// ```
pub(super) fn creation(written: &ast::Creation) -> Creation {
    let is = |flag: &Option<Spanned<bool>>| flag.as_ref().is_some_and(|flag| flag.value);
    let retention = written.retention.as_ref().map(|retention| retention.value);
    // `config` last: a setting by Kafka's own name is the more exact word.
    let mut config = topic_config(retention, is(&written.compacting), is(&written.deleting));
    config.extend(written.config.iter().map(|(name, value)| (name.value.clone(), value.value.clone())));
    Creation {
        declare: is(&written.declare),
        partitions: written.partitions.as_ref().map(|partitions| partitions.value),
        replicas: written.replicas.as_ref().map(|replicas| replicas.value),
        config,
    }
}
