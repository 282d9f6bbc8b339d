//! Bounds the agents that read one topic: their positions travel in the metadata of one offset.
//!
//! All readers of a topic commit one offset for each partition, the slowest one's. Those that are ahead are written
//! into that offset's metadata, 4,096 bytes by Kafka's default (`offset.metadata.max.bytes`), so their number is
//! bounded by `TOPIC_READERS_MAX`. Agents behind a channel have no position of their own and do not count.

use std::collections::{BTreeMap, BTreeSet};

use kaspr_ir::topics::TOPIC_READERS_MAX;
use regex::Regex;

use super::Checker;
use crate::ast::{self, Text};
use crate::diagnostics::{Code, Diagnostic};

impl Checker<'_> {
    /// Refuses more readers of a topic than its offsets can tell of. Patterns count where they match a
    /// topic that is named; of other topics a start says the same.
    ///
    /// K0114. Two agents with the same pattern read the same topics, so equal patterns are counted as a topic is.
    pub(super) fn check_readers(&mut self, agents: &[ast::Agent]) {
        let topics = || agents.iter().filter_map(|agent| agent.input.as_ref()?.topic.as_ref());
        let patterns: Vec<(&Text, Regex)> = topics()
            .filter_map(|topic| topic.pattern.as_ref())
            // Anchored: a pattern must match the whole name of a topic.
            .filter_map(|pattern| Some((pattern, Regex::new(&format!("^(?:{})$", pattern.value)).ok()?)))
            .collect();
        let mut readers: BTreeMap<&str, Vec<&Text>> = BTreeMap::new();
        for text in topics().filter_map(|topic| topic.name.as_ref()) {
            let names: BTreeSet<&str> = text.value.split(',').map(str::trim).collect();
            names.into_iter().for_each(|name| readers.entry(name).or_default().push(text));
        }
        for (name, mut texts) in readers {
            texts.extend(patterns.iter().filter(|(_, pattern)| pattern.is_match(name)).map(|(text, _)| *text));
            self.check_count(&format!("the topic \"{name}\""), &texts);
        }
        let mut same: BTreeMap<&str, Vec<&Text>> = BTreeMap::new();
        patterns.iter().for_each(|(text, _)| same.entry(&text.value).or_default().push(text));
        same.iter().for_each(|(pattern, texts)| self.check_count(&format!("the pattern \"{pattern}\""), texts));
    }

    /// Reports the first reader that is one too many; `what` is what they read, in words.
    fn check_count(&mut self, what: &str, readers: &[&Text]) {
        let Some(one_too_many) = readers.get(TOPIC_READERS_MAX) else { return };
        let message =
            format!("{what} has {} readers, and at most {TOPIC_READERS_MAX} agents can read one topic", readers.len());
        let hint = "let one agent read the topic and pass its events on through a channel: agents that read a channel count as one reader with it";
        self.fault(Diagnostic::new(Code::K0114, message, one_too_many.at.clone()).hint(hint));
    }
}
