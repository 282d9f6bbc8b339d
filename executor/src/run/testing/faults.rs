//! Finds faults of a `tests.yaml`: fields and values that no test may have, and names that the app does not
//! have.
//!
//! A test that names a topic which does not exist would pass for ever; so would one that expects nothing.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use super::fields::{APPROX, FAILURE, PART, RECORD};
use super::known::Known;
use super::suite::{Case, timed};
use crate::config::settings::duration;

const CASE: &[&str] = &["name", "env", "mock", "tables", "events", "advance", "expect"];
const EXPECT: &[&str] = &["topics", "tables", "failures", APPROX];

/// A mistake in a file of tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuiteFault {
    /// The place, as a JSON pointer.
    pub pointer: String,
    /// The name at that place is meant, not what it names.
    pub of_name: bool,
    /// The fault in words.
    pub message: String,
    /// Advice.
    pub hints: Vec<String>,
}

/// Finds the name that is nearest to one that does not exist.
pub type Nearest<'a> = &'a dyn Fn(&str, &[String]) -> Option<String>;

/// Finds all faults of a file of tests, which is given as JSON text.
pub fn faults(json: &str, known: &Known, folder: &Path, nearest: Nearest<'_>) -> Vec<SuiteFault> {
    let mut judge = Judge { known, folder, nearest, faults: Vec::new() };
    let suite: Value = serde_json::from_str(json).unwrap_or_default();
    if let Some(suite) = judge.mapping("", &suite, "the file", &["tests"]) {
        match suite.get("tests").and_then(Value::as_array).filter(|tests| !tests.is_empty()) {
            Some(tests) => tests.iter().enumerate().for_each(|(number, test)| judge.case(number, test)),
            None => judge.add("/tests", "\"tests\" must be a list of tests", "each has a name, events and expect"),
        }
    }
    judge.faults
}

pub(super) struct Judge<'a> {
    pub(super) known: &'a Known,
    folder: &'a Path,
    nearest: Nearest<'a>,
    faults: Vec<SuiteFault>,
}

impl Judge<'_> {
    pub(super) fn add(&mut self, pointer: &str, message: impl Into<String>, hint: &str) {
        let hints = if hint.is_empty() { Vec::new() } else { vec![hint.to_owned()] };
        self.faults.push(SuiteFault { pointer: pointer.to_owned(), of_name: false, message: message.into(), hints });
    }

    /// Reports a name that neither the app nor a test has. The hint names the nearest, or all.
    pub(super) fn unknown(
        &mut self,
        pointer: &str,
        of_name: bool,
        message: String,
        (name, there): (&str, &BTreeSet<String>),
    ) {
        let there: Vec<String> = there.iter().cloned().collect();
        let hint = match (self.nearest)(name, &there) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None if there.is_empty() => "there is none".to_owned(),
            None => format!("there are: {}", there.join(", ")),
        };
        self.faults.push(SuiteFault { pointer: pointer.to_owned(), of_name, message, hints: vec![hint] });
    }

    /// Checks for a mapping with no other fields than these.
    pub(super) fn mapping<'v>(
        &mut self,
        pointer: &str,
        value: &'v Value,
        what: &str,
        names: &[&str],
    ) -> Option<&'v Map<String, Value>> {
        let Some(map) = value.as_object() else {
            self.add(pointer, format!("{what} must be a mapping of {}", names.join(", ")), "");
            return None;
        };
        let names: BTreeSet<String> = names.iter().map(|&name| name.to_owned()).collect();
        for name in map.keys().filter(|name| !names.contains(*name)) {
            self.unknown(&below(pointer, name), true, format!("unknown field \"{name}\""), (name, &names));
        }
        Some(map)
    }

    fn case(&mut self, number: usize, test: &Value) {
        let pointer = format!("/tests/{number}");
        let Some(test) = self.mapping(&pointer, test, "a test", CASE) else { return };
        if !test.get("name").is_some_and(Value::is_string) {
            self.add(&format!("{pointer}/name"), "a test needs a name", "name: what it shows");
        }
        self.variables(&format!("{pointer}/env"), test.get("env"));
        self.mocks(&format!("{pointer}/mock"), test.get("mock"));
        self.tables(&format!("{pointer}/tables"), test.get("tables"));
        self.events(&format!("{pointer}/events"), test.get("events"));
        if let Some(advance) = test.get("advance").filter(|advance| advance.as_str().and_then(duration).is_none()) {
            let message = format!("\"advance\" must be a duration, found {advance}");
            self.add(&format!("{pointer}/advance"), message, "a number and one of ms, s, m, h, d: for example 5s");
        }
        match test.get("expect").filter(|expect| !expect.is_null()) {
            Some(expect) => self.expect(&format!("{pointer}/expect"), expect),
            None => self.nothing(&pointer),
        }
    }

    fn nothing(&mut self, pointer: &str) {
        let hint = "name what must come: expect: {topics: {…: […]}}; that nothing fails is failures: []";
        self.add(pointer, "the test expects nothing: it can never fail", hint);
    }

    fn tables(&mut self, pointer: &str, tables: Option<&Value>) {
        let Some(tables) = tables else { return };
        let Some(tables) = tables.as_object() else {
            return self.add(pointer, "\"tables\" must be a mapping of tables to their pairs", "");
        };
        for (table, pairs) in tables {
            let pointer = below(pointer, table);
            if !self.known.tables.contains(table) {
                let known = &self.known.tables;
                self.unknown(&pointer, true, format!("the app has no table \"{table}\""), (table, known));
            }
            if !pairs.is_object() {
                self.add(&pointer, "what a table holds must be a mapping", "an empty one is {}");
            }
        }
    }

    fn events(&mut self, pointer: &str, events: Option<&Value>) {
        match events.filter(|events| !events.is_null()) {
            None => {}
            Some(Value::Array(events)) => {
                for (number, event) in events.iter().enumerate() {
                    self.event(&format!("{pointer}/{number}"), event);
                }
            }
            Some(Value::Object(_)) => {
                let raw =
                    events.map(Value::to_string).and_then(|text| serde_json::value::RawValue::from_string(text).ok());
                // The file is read here as well, so that its faults are reported with all others before any test is
                // played.
                match Case::read(raw.as_deref(), self.folder) {
                    Err(why) => self.add(pointer, why, ""),
                    Ok(events) => {
                        for topic in events.iter().filter_map(|event| event.record.topic.as_deref()) {
                            self.is_read(pointer, topic);
                        }
                    }
                }
            }
            Some(_) => self.add(pointer, "\"events\" must be a list of events, or {file: x.jsonl}", ""),
        }
    }

    fn event(&mut self, pointer: &str, event: &Value) {
        let names: Vec<&str> = RECORD.into_iter().chain(["at"]).collect();
        let before = self.faults.len();
        let Some(fields) = self.mapping(pointer, event, "an event", &names) else { return };
        if let Some(topic) = fields.get("topic").and_then(Value::as_str) {
            self.is_read(&format!("{pointer}/topic"), topic);
        }
        // Reading the event would repeat a fault of its fields, in vaguer words.
        if self.faults.len() == before
            && let Err(why) = timed(&event.to_string())
        {
            self.add(pointer, why, "");
        }
    }

    fn is_read(&mut self, pointer: &str, topic: &str) {
        if !self.known.reads(topic) {
            let message = format!("no agent reads the topic \"{topic}\"");
            // The events of a file may repeat a fault many times.
            if self.faults.last().is_none_or(|last| last.message != message) {
                let known = &self.known.read;
                self.unknown(pointer, false, message, (topic, known));
            }
        }
    }

    fn expect(&mut self, pointer: &str, expect: &Value) {
        let Some(expect) = self.mapping(pointer, expect, "\"expect\"", EXPECT) else { return };
        let is_empty = |name: &str| {
            let part = expect.get(name).filter(|part| !part.is_null());
            // An empty list of failures is no empty part: it expects that nothing fails.
            part.is_none_or(|part| part.as_object().is_some_and(Map::is_empty))
        };
        if EXPECT.iter().filter(|name| **name != APPROX).all(|name| is_empty(name))
            // A misspelt field has been reported: that the test expects nothing would only be its echo.
            && expect.keys().all(|name| EXPECT.contains(&name.as_str()))
        {
            self.nothing(pointer);
        }
        self.approx(pointer, expect);
        self.tables(&format!("{pointer}/tables"), expect.get("tables"));
        self.topics(&format!("{pointer}/topics"), expect.get("topics"));
        self.failures(&format!("{pointer}/failures"), expect.get("failures"));
    }

    fn topics(&mut self, pointer: &str, topics: Option<&Value>) {
        let Some(topics) = topics else { return };
        let Some(topics) = topics.as_object() else {
            return self.add(pointer, "\"topics\" must be a mapping of topics to lists of records", "");
        };
        for (topic, records) in topics {
            let pointer = below(pointer, topic);
            if !self.known.has_topic(topic) {
                let known = self.known.topics();
                self.unknown(&pointer, true, format!("the app has no topic \"{topic}\""), (topic, known));
            }
            let Some(records) = records.as_array() else {
                self.add(&pointer, "the records of a topic must be a list", "none is []");
                continue;
            };
            for (number, record) in records.iter().enumerate() {
                self.record(&format!("{pointer}/{number}"), record);
            }
        }
    }

    fn record(&mut self, pointer: &str, record: &Value) {
        let names: Vec<&str> = RECORD.into_iter().chain([PART, APPROX]).collect();
        let Some(fields) = self.mapping(pointer, record, "a record", &names) else { return };
        self.approx(pointer, fields);
        let values = ["value", PART, "valueText", "valueBase64", "tombstone"];
        if values.iter().filter(|name| fields.contains_key(**name)).count() > 1 {
            self.add(pointer, format!("a record has one of {}", values.join(", ")), "");
        }
        if fields.get("tombstone").is_some_and(|tombstone| !tombstone.is_boolean()) {
            self.add(&format!("{pointer}/tombstone"), "\"tombstone\" must be true or false", "");
        }
    }

    fn approx(&mut self, pointer: &str, fields: &Map<String, Value>) {
        let is_wrong = |approx: &&Value| approx.as_f64().is_none_or(|approx| approx < 0.0);
        if let Some(approx) = fields.get(APPROX).filter(is_wrong) {
            let message = format!("\"{APPROX}\" must be the difference that numbers may have, found {approx}");
            self.add(&below(pointer, APPROX), message, "for example 0.001");
        }
    }

    fn failures(&mut self, pointer: &str, failures: Option<&Value>) {
        let Some(failures) = failures else { return };
        let Some(failures) = failures.as_array() else {
            return self.add(pointer, "\"failures\" must be a list", "none is []");
        };
        for (number, failure) in failures.iter().enumerate() {
            let pointer = format!("{pointer}/{number}");
            let Some(failure) = self.mapping(&pointer, failure, "a failure", &FAILURE) else { continue };
            let text = |name: &str| failure.get(name).and_then(Value::as_str);
            let agent = text("agent").filter(|agent| self.known.agents.contains(*agent));
            if let Some(name) = text("agent").filter(|_| agent.is_none()) {
                let known = &self.known.agents;
                self.unknown(
                    &format!("{pointer}/agent"),
                    false,
                    format!("the app has no agent \"{name}\""),
                    (name, known),
                );
            }
            // Below an agent that does not exist, the operations of all agents count: one mistake is one fault.
            let operations = self.known.operations(agent);
            if let Some(name) = text("operation").filter(|name| !operations.contains(*name)) {
                let of = agent.map_or_else(|| "the app".to_owned(), |agent| format!("the agent \"{agent}\""));
                let message = format!("{of} has no operation \"{name}\" that can fail");
                self.unknown(&format!("{pointer}/operation"), false, message, (name, &operations));
            }
        }
    }
}

/// Returns the pointer of a name's value.
pub(super) fn below(pointer: &str, name: &str) -> String {
    // In this order (RFC 6901): the second replacement writes a "~" of its own.
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}
