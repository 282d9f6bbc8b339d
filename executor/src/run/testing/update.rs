//! Rewrites the expectations of a test: what came, in the fields that it names.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::compare::{Measure, failure, of_failure, of_record, pairs};
use super::faults::below;
use super::fields::{APPROX, FAILURE, PART, RECORD, VALUES};
use super::play::Came;
use super::suite::Expect;

/// A place within a test, as a JSON pointer, and the JSON text that belongs there.
pub type Put = (String, String);

/// All that a test names, and its failures, as they came.
pub fn puts(expect: &Expect, came: &Came) -> Vec<Put> {
    let none = Vec::new();
    let place = |part: &str, name: &str| below(&format!("/expect/{part}"), name);
    let mut puts = Vec::new();
    for (topic, expected) in &expect.topics {
        let lines = came.topics.get(topic).unwrap_or(&none);
        let measure = Measure::within(expect.approx);
        let records = aligned(expected, lines, |old, line| of_record(old, line, measure).is_none());
        puts.push((place("topics", topic), list(records, |old, line| record(old.or(expected.last()), line))));
    }
    for table in expect.tables.keys() {
        let pairs = serde_json::to_string(&pairs(table, came)).unwrap_or_default();
        puts.push((place("tables", table), pairs));
    }
    let failures: Vec<Value> = came.failures.iter().map(failure).collect();
    // A test that names no failures expects none, so writing an empty list would say nothing new.
    if !(failures.is_empty() && expect.failures.is_empty()) {
        let lines = aligned(&expect.failures, &failures, |old, line| of_failure(old, line).is_none());
        puts.push((
            "/expect/failures".to_owned(),
            list(lines, |old, line| failed(old.or(expect.failures.last()), line)),
        ));
    }
    puts
}

fn list<Old, New>(lines: Vec<(Option<&Old>, &New)>, text: impl Fn(Option<&Old>, &New) -> String) -> String {
    let lines: Vec<_> = lines.into_iter().map(|(old, new)| text(old, new)).collect();
    format!("[{}]", lines.join(","))
}

/// Pairs each line that came with the one expected in its place. A line that is expected in vain, or that
/// comes unexpected, at the end or in the middle, does not disturb the pairs behind it.
fn aligned<'a, Old, New>(
    expected: &'a [Old],
    came: &'a [New],
    fits: impl Fn(&Old, &New) -> bool,
) -> Vec<(Option<&'a Old>, &'a New)> {
    let mut next = 0;
    came.iter()
        .enumerate()
        .map(|(number, line)| {
            let rest = expected.get(next..).unwrap_or_default();
            let own = rest.iter().position(|old| fits(old, line));
            // One whose own expectation is still to come stands between two: it is new.
            let is_awaited = came[number + 1..].iter().any(|line| rest.first().is_some_and(|old| fits(old, line)));
            let at = own.or((!is_awaited && !rest.is_empty()).then_some(0));
            next += at.map_or(0, |at| at + 1);
            (at.and_then(|at| rest.get(at)), line)
        })
        .collect()
}

/// The fields of a record that the test names; key and value where it names none.
fn record(old: Option<&BTreeMap<String, Box<RawValue>>>, line: &str) -> String {
    let came: BTreeMap<String, Box<RawValue>> = serde_json::from_str(line).unwrap_or_default();
    let tells_value = |name: &&str| VALUES.contains(name) || *name == "tombstone";
    let part = old.and_then(|old| part(old.get(PART)?, came.get("value")?));
    let tells_part = |name: &&str| *name == PART && part.is_none();
    let names_value =
        old.is_none_or(|old| old.keys().map(String::as_str).any(|name| tells_value(&name) || tells_part(&name)));
    let is_wanted = |name: &str| match old {
        _ if VALUES.contains(&name) => names_value,
        None => name == "key" && came.get(name).is_some_and(|key| key.get() != "null"),
        Some(old) => old.contains_key(name),
    };
    let wanted = RECORD.iter().filter(|name| is_wanted(name));
    let mut fields: Vec<_> = wanted.filter_map(|name| came.get(*name).map(|raw| format!("\"{name}\":{raw}"))).collect();
    fields.extend(part.map(|part| format!("\"{PART}\":{part}")));
    fields.extend(old.and_then(|old| old.get(APPROX)).map(|approx| format!("\"{APPROX}\":{approx}")));
    if names_value && !VALUES.iter().any(|name| came.contains_key(*name)) {
        fields.push("\"tombstone\":true".to_owned());
    }
    format!("{{{}}}", fields.join(","))
}

/// The part of a value that an expectation names.
fn part(wanted: &RawValue, came: &RawValue) -> Option<Value> {
    let (wanted, came) = (serde_json::from_str(wanted.get()).ok()?, serde_json::from_str(came.get()).ok()?);
    Some(part_of(&wanted, came))
}

fn part_of(wanted: &Value, came: Value) -> Value {
    match (wanted, came) {
        (Value::Object(wanted), Value::Object(came)) => {
            let named = came.into_iter().filter_map(|(name, came)| Some((part_of(wanted.get(&name)?, came), name)));
            Value::Object(named.map(|(part, name)| (name, part)).collect())
        }
        // In lists of different lengths no place of the one belongs to a place of the other: then the whole list is
        // written.
        (Value::Array(wanted), Value::Array(came)) if wanted.len() == came.len() => {
            wanted.iter().zip(came).map(|(wanted, came)| part_of(wanted, came)).collect()
        }
        (_, came) => came,
    }
}

/// The fields of a failure that the test names; operation and kind where it names none.
fn failed(old: Option<&BTreeMap<String, Value>>, came: &Value) -> String {
    let is_wanted = |name: &str| old.map_or(matches!(name, "operation" | "kind"), |old| old.contains_key(name));
    let fields = FAILURE.iter().filter(|name| is_wanted(name));
    let fields: Vec<_> = fields.map(|name| format!("\"{name}\":{}", came.get(*name).unwrap_or(&Value::Null))).collect();
    format!("{{{}}}", fields.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expected: &str, came: &str, pairs: &str) {
        let (expected, came): (Vec<_>, Vec<_>) = (expected.chars().collect(), came.chars().collect());
        let pair = |(old, new): (Option<&char>, &char)| format!("{}{new}", old.unwrap_or(&'-'));
        let found: Vec<_> = aligned(&expected, &came, |old, new| old == new).into_iter().map(pair).collect();
        assert_eq!(found.join(" "), pairs);
    }

    #[test]
    fn what_came_meets_its_own_expectation() {
        check("abc", "abc", "aa bb cc");
        check("abc", "ac", "aa cc");
        check("ac", "abc", "aa -b cc");
        check("abc", "axc", "aa bx cc");
        check("ab", "abxy", "aa bb -x -y");
        check("", "a", "-a");
        check("abc", "x", "ax");
    }
}
