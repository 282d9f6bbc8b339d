//! Compares what a test expects with what came: the first difference, in words.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::faults::below;
use super::fields::{APPROX, PART, VALUES};
use super::play::Came;
use super::suite::Expect;
use crate::event::failure::FailureRecord;

/// A difference from the expectations of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The place within the test that expects it, as a JSON pointer.
    pub pointer: String,
    /// The expected and the actual, in words.
    pub words: String,
}

/// The way in which two values are compared.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Measure {
    /// Only names that are expected count, at every depth.
    is_part: bool,
    /// The difference that numbers may have.
    approx: Option<f64>,
}

impl Measure {
    /// Compares whole values; numbers may differ by so much.
    pub(super) fn within(approx: Option<f64>) -> Measure {
        Measure { is_part: false, approx }
    }

    /// Compares texts of JSON that are no mapping and no list.
    fn is_same(self, wanted: &str, got: &str) -> bool {
        let (one, other) = (json(wanted), json(got));
        let near = |approx: f64| Some((one.as_f64()? - other.as_f64()?).abs() <= approx);
        // Whole numbers by their digits: beyond 64 bits two of them may be the same float.
        let is_equal = match is_whole(wanted) && is_whole(got) {
            true => wanted == got,
            false => one == other,
        };
        is_equal || self.approx.and_then(near).unwrap_or(false)
    }
}

/// The first difference; `None`: all that is expected came, and nothing else where it is named.
pub fn difference(expect: &Expect, came: &Came) -> Option<Difference> {
    let measure = Measure::within(expect.approx);
    // Failures first: they say why records are missing.
    failures(&expect.failures, &came.failures)
        .or_else(|| expect.topics.iter().find_map(|(topic, records)| of_topic(topic, records, came, measure)))
        .or_else(|| expect.tables.iter().find_map(|(table, pairs)| of_table(table, pairs, came, measure)))
}

fn two(expected: impl std::fmt::Display, came: impl std::fmt::Display) -> String {
    format!("  expected {expected}\n  came     {came}")
}

fn of_topic(
    topic: &str,
    expected: &[BTreeMap<String, Box<RawValue>>],
    came: &Came,
    measure: Measure,
) -> Option<Difference> {
    let none = Vec::new();
    let lines = came.topics.get(topic).unwrap_or(&none);
    let pointer = below("/expect/topics", topic);
    for number in 0..expected.len().max(lines.len()) {
        let place = format!("topic \"{topic}\", record {}", number + 1);
        let mut pointer = format!("{pointer}/{number}");
        let found = match (expected.get(number), lines.get(number)) {
            (Some(expected), Some(line)) => of_record(expected, line, measure).map(|(path, words)| {
                let field = path.trim_start_matches(", ").split(['.', '[']).next().unwrap_or_default();
                pointer = below(&pointer, field);
                format!("{place}{path}:\n{words}")
            }),
            (Some(expected), None) => {
                let expected = serde_json::to_string(expected).unwrap_or_default();
                Some(format!("{place}:\n{}", two(expected, "nothing more")))
            }
            (None, line) => Some(format!("{place}:\n{}", two("nothing more", line.map_or("", String::as_str)))),
        };
        if let Some(words) = found {
            return Some(Difference { pointer, words });
        }
    }
    None
}

/// The path and the words of the first field that differs. Only fields that are written count.
pub(super) fn of_record(
    expected: &BTreeMap<String, Box<RawValue>>,
    line: &str,
    measure: Measure,
) -> Option<(String, String)> {
    let own = expected.get(APPROX).and_then(|approx| json(approx.get()).as_f64());
    let measure = Measure { approx: own.or(measure.approx), ..measure };
    let came: BTreeMap<String, Box<RawValue>> = serde_json::from_str(line).unwrap_or_default();
    // The record format has no field for a tombstone: it is a record without any of the values.
    let is_tombstone = !VALUES.iter().any(|name| came.contains_key(*name));
    expected.iter().filter(|(name, _)| *name != APPROX).find_map(|(name, wanted)| {
        let is_part = name == PART;
        let got = came.get(if is_part { "value" } else { name }).map(|raw| raw.get());
        if got == Some(wanted.get()) {
            return None;
        }
        match name.as_str() {
            "tombstone" if (wanted.get() == "true") == is_tombstone => return None,
            "tombstone" if is_tombstone => return Some((String::new(), two("a value", "a tombstone"))),
            "tombstone" => return Some((String::new(), two("a tombstone", line))),
            name if is_tombstone && (is_part || VALUES.contains(&name)) => {
                return Some((format!(", {name}"), two(wanted, "a tombstone, which is \"tombstone: true\"")));
            }
            _ => {}
        }
        let wanted = wanted.get();
        match got {
            Some(got) => {
                let differs = in_value(wanted, got, Measure { is_part, ..measure });
                differs.map(|(path, words)| (format!(", {name}{path}"), words))
            }
            None => Some((format!(", {name}"), two(wanted, format!("a record without it: {line}")))),
        }
    })
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

/// True for the text of a whole number.
fn is_whole(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

/// The fields of a mapping; `None`: the text is another value's.
fn mapping(text: &str) -> Option<BTreeMap<String, &RawValue>> {
    text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()
}

/// The values of a list; `None`: the text is another value's.
fn list(text: &str) -> Option<Vec<&RawValue>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// The path and the words of the first difference within two values, which come as their texts.
fn in_value(expected: &str, came: &str, measure: Measure) -> Option<(String, String)> {
    if let (Some(wanted), Some(got)) = (mapping(expected), mapping(came)) {
        let others = got.keys().filter(|_| !measure.is_part);
        let names: std::collections::BTreeSet<_> = wanted.keys().chain(others).collect();
        return names.into_iter().find_map(|name| {
            let path = format!(".{name}");
            match (wanted.get(name), got.get(name)) {
                (Some(wanted), Some(got)) => {
                    in_value(wanted.get(), got.get(), measure).map(|(rest, words)| (path + &rest, words))
                }
                (Some(wanted), None) => Some((path, two(plain(wanted.get()), "nothing"))),
                (None, got) => Some((path, two("nothing", plain(got.map_or("null", |got| got.get()))))),
            }
        });
    }
    if let (Some(wanted), Some(got)) = (list(expected), list(came))
        && wanted.len() == got.len()
    {
        let pairs = wanted.iter().zip(got).enumerate();
        return pairs.into_iter().find_map(|(number, (wanted, got))| {
            in_value(wanted.get(), got.get(), measure).map(|(rest, words)| (format!("[{number}]{rest}"), words))
        });
    }
    (!measure.is_same(expected, came)).then(|| (String::new(), two(plain(expected), plain(came))))
}

/// A value as it is shown: on one line, numbers with all their digits.
fn plain(text: &str) -> String {
    if is_whole(text) { text.to_owned() } else { json(text).to_string() }
}

fn of_table(
    table: &str,
    expected: &BTreeMap<String, Box<RawValue>>,
    came: &Came,
    measure: Measure,
) -> Option<Difference> {
    let pointer = below("/expect/tables", table);
    let got = pairs(table, came);
    let names: std::collections::BTreeSet<_> = expected.keys().chain(got.keys()).collect();
    names.into_iter().find_map(|name| {
        let place = format!("table \"{table}\", key \"{name}\"");
        let words = match (expected.get(name).map(|raw| raw.get()), got.get(name).map(|raw| raw.get())) {
            (Some(wanted), Some(got)) => {
                in_value(wanted, got, measure).map(|(path, words)| format!("{place}{path}:\n{words}"))
            }
            (Some(wanted), None) => Some(format!("{place}:\n{}", two(plain(wanted), "nothing"))),
            (None, got) => Some(format!("{place}:\n{}", two("nothing", plain(got.unwrap_or("null"))))),
        };
        words.map(|words| Difference { pointer: below(&pointer, name), words })
    })
}

/// The content of a table, by key; a key that is no text stands as its JSON text.
pub(super) fn pairs(table: &str, came: &Came) -> BTreeMap<String, Box<RawValue>> {
    let lines = came.tables.get(table).into_iter().flatten();
    let pair = |line: &String| {
        let mut line: BTreeMap<String, Box<RawValue>> = serde_json::from_str(line).ok()?;
        let key = ["key", "keyText", "keyBase64"].iter().find_map(|name| line.remove(*name))?;
        let key = json(key.get());
        let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
        Some((key, ["value", "valueText", "valueBase64"].iter().find_map(|name| line.remove(*name))?))
    };
    lines.filter_map(pair).collect()
}

fn failures(expected: &[BTreeMap<String, Value>], came: &[FailureRecord]) -> Option<Difference> {
    for number in 0..expected.len().max(came.len()) {
        let place = format!("failure {}", number + 1);
        let found = match (expected.get(number), came.get(number).map(failure)) {
            (Some(expected), Some(line)) => {
                of_failure(expected, &line).map(|(path, words)| format!("{place}, {path}:\n{words}\n  of {line}"))
            }
            (Some(expected), None) => {
                let expected = serde_json::to_string(expected).unwrap_or_default();
                Some(format!("{place}:\n{}", two(expected, "no failure")))
            }
            (None, line) => Some(format!("{place}:\n{}", two("no failure", line.unwrap_or_default()))),
        };
        if let Some(words) = found {
            return Some(Difference { pointer: format!("/expect/failures/{number}"), words });
        }
    }
    None
}

/// The fields of a failure.
pub(super) fn failure(failure: &FailureRecord) -> Value {
    let mut line = Vec::new();
    crate::run::record::write_failure(failure, &mut line);
    json(&String::from_utf8_lossy(&line))["failure"].clone()
}

/// The path and the words of the first field that differs. Only fields that are written count.
pub(super) fn of_failure(expected: &BTreeMap<String, Value>, came: &Value) -> Option<(String, String)> {
    expected.iter().find_map(|(name, wanted)| {
        let got = came.get(name).cloned().unwrap_or_default();
        in_value(&wanted.to_string(), &got.to_string(), Measure::default())
            .map(|(path, words)| (format!("{name}{path}"), words))
    })
}
