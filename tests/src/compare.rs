//! Expected lines against lines that came: only fields that are written are compared.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

/// A line as its fields, each as the text that stands there: values are compared to the byte.
fn fields(line: &str) -> BTreeMap<String, Box<RawValue>> {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("the line is no JSON object: {error}: {line}"))
}

/// The group to which a line belongs: its topic and partition, its table, or the failures.
pub fn group(line: &str) -> String {
    let fields: BTreeMap<String, Value> =
        serde_json::from_str(line).unwrap_or_else(|error| panic!("the line is no JSON object: {error}: {line}"));
    if fields.contains_key("failure") {
        return "failures".to_owned();
    }
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let partition = fields.get("partition").and_then(Value::as_i64).unwrap_or(0);
    match fields.contains_key("table") {
        true => format!("table {}", text("table")),
        false => format!("topic {}/{partition}", text("topic")),
    }
}

/// The first difference, in words; `None`: all that is expected came, and nothing else.
pub fn difference(expected: &[String], came: &[String]) -> Option<String> {
    let by_group = |lines: &[String]| {
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in lines {
            groups.entry(group(line)).or_default().push(line.clone());
        }
        groups
    };
    let (expected, came) = (by_group(expected), by_group(came));
    for name in expected.keys().chain(came.keys()) {
        let none = Vec::new();
        let (expected, came) = (expected.get(name).unwrap_or(&none), came.get(name).unwrap_or(&none));
        for number in 0..expected.len().max(came.len()) {
            let difference = match (expected.get(number), came.get(number)) {
                (Some(expected), Some(came)) => line_difference(expected, came),
                (Some(expected), None) => Some(format!("  expected {expected}\n  nothing came")),
                (None, Some(came)) => Some(format!("  nothing more expected\n  came     {came}")),
                (None, None) => None,
            };
            if let Some(difference) = difference {
                return Some(format!("{name}, line {}:\n{difference}", number + 1));
            }
        }
    }
    None
}

fn line_difference(expected: &str, came: &str) -> Option<String> {
    let (wanted, got) = (fields(expected), fields(came));
    // `value`, `valueText` and `valueBase64` are one field: a line without any is a tombstone.
    let value = |fields: &BTreeMap<String, Box<RawValue>>| {
        ["value", "valueText", "valueBase64"].map(|name| fields.get(name).map(|value| value.get().to_owned()))
    };
    let failure = wanted.contains_key("failure");
    let same_value = failure || value(&wanted) == value(&got);
    let same_fields = wanted.iter().all(|(name, wanted)| match got.get(name) {
        Some(got) if failure => fields(wanted.get())
            .iter()
            .all(|(name, wanted)| fields(got.get()).get(name).is_some_and(|got| got.get() == wanted.get())),
        Some(got) => got.get() == wanted.get(),
        None => false,
    });
    (!same_value || !same_fields).then(|| format!("  expected {expected}\n  came     {came}"))
}
