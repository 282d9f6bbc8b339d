//! The reference of fields, written from the schema: for a terminal and for a page.
//!
//! ```text
//! $ kasprc fields spec.input.take
//! KasprAgent: spec.input.take <object>
//!   Collects events into batches: functions get a list of values
//!
//! Fields:
//!   max <integer> (required)
//!       Most events of a batch
//!       | max: 100
//! …
//! ```
//!
//! The schema of the Kubernetes form is flattened into a list of [`Entry`] first; both forms of the reference are
//! written from that list.

use std::collections::HashMap;

use serde_json::Value;

use super::{Form, schema};
use crate::diagnostics::nearest;

/// Width of the reference on a terminal.
const WIDTH: usize = 88;

/// A path names no field.
///
/// Shown to the user as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no field \"{path}\"{near}")]
pub struct UnknownField {
    path: String,
    near: String,
}

/// A field of a kind: `KasprAgent`, `spec.onError.action`.
///
/// Paths have `[]` behind lists, as diagnostics have: `spec.output.topics[].name`.
#[derive(Clone, Debug)]
struct Entry {
    kind: String,
    path: String,
    /// The type in words, see [`type_of`].
    of: &'static str,
    /// Required by the mapping around it.
    required: bool,
    /// The schema of what it holds, with description, default and example.
    schema: Value,
}

/// Describes the field at a path and those inside it, for a terminal; without a path, all of them.
///
/// A path is written as diagnostics write it (`spec.input.take.max`), with or without the kind before
/// it (`KasprTable.spec.global`) and the brackets of lists.
///
/// # Errors
/// Names the nearest field where the path is none.
///
/// ```
/// use kasprc::schema::explain;
///
/// let text = explain(Some("spec.input.take.max")).expect("there is such a field");
/// assert!(text.starts_with("KasprAgent: spec.input.take.max <integer> (required)"));
/// assert!(explain(Some("spec.imput")).is_err());
/// ```
pub fn explain(path: Option<&str>) -> Result<String, UnknownField> {
    let entries = entries();
    let Some(path) = path else { return Ok(listed(&entries)) };
    // Paths are copied from diagnostics and from the list of all fields, where lists have brackets.
    let wanted = path.replace("[]", "").trim_matches('.').to_owned();
    let names = |entry: &&Entry| plain(entry) == wanted || format!("{}.{}", entry.kind, plain(entry)) == wanted;
    if let Some(entry) = entries.iter().find(names) {
        return Ok(described(entry, &entries));
    }
    if entries.iter().any(|entry| entry.kind == wanted) {
        let of_kind: Vec<Entry> = entries.into_iter().filter(|entry| entry.kind == wanted).collect();
        return Ok(listed(&of_kind));
    }
    let known: Vec<String> = entries.iter().map(plain).collect();
    let near = nearest(&wanted, known.iter().map(String::as_str));
    let hint = near.map_or_else(
        || "; kasprc fields lists those that there are".to_owned(),
        |near| format!("; did you mean \"{near}\"?"),
    );
    Err(UnknownField { path: path.to_owned(), near: hint })
}

/// Writes the reference of all fields as Markdown: a table for each mapping.
///
/// A mapping whose table is the same as one before (`onError` of an operation) refers to that one, and what is inside
/// of it is left out. `docs/agents.md` holds this text.
pub fn reference() -> String {
    let entries = entries();
    let mut first: HashMap<String, &str> = HashMap::new();
    let mut text = String::new();
    let mut kind = "";
    let mut skipped: Vec<String> = Vec::new();
    for entry in entries.iter().filter(|entry| entry.of.starts_with("object") || entry.of == "list of objects") {
        let inside = children(entry, &entries);
        if inside.is_empty() || skipped.iter().any(|path| entry.path.starts_with(path.as_str())) {
            continue;
        }
        if entry.kind != kind {
            kind = &entry.kind;
            text.push_str(&format!("## {kind}\n\n"));
        }
        text.push_str(&format!("### `{}`\n\n", entry.path));
        let rows: Vec<String> = inside.iter().map(|field| row(field)).collect();
        let table = format!("| field | type | default | meaning | example |\n|---|---|---|---|---|\n{}", rows.concat());
        match first.get(&table) {
            Some(path) => {
                skipped.push(format!("{}.", entry.path));
                text.push_str(&format!("The fields of `{path}`.\n\n"));
            }
            None => {
                first.insert(table.clone(), &entry.path);
                text.push_str(&format!("{table}\n"));
            }
        }
    }
    format!("{}\n", text.trim_end())
}

/// All fields in the order of the schema, of each kind in turn; the fields of code blocks once, as `code`.
///
/// Depth first: each mapping is followed by what is inside of it.
fn entries() -> Vec<Entry> {
    let schema = schema(Form::Kubernetes);
    let mut entries = Vec::new();
    for branch in schema["allOf"].as_array().into_iter().flatten() {
        let kind = branch["if"]["properties"]["kind"]["const"].as_str().unwrap_or_default();
        collect(kind, "spec", &branch["then"]["properties"]["spec"], true, &mut entries);
    }
    collect("Code block", "code", &schema["definitions"]["code"], false, &mut entries);
    entries
}

/// Adds a field and all fields inside it.
fn collect(kind: &str, path: &str, schema: &Value, required: bool, entries: &mut Vec<Entry>) {
    let is_list = schema["type"] == "array";
    let path = if is_list { format!("{path}[]") } else { path.to_owned() };
    let of = type_of(schema);
    entries.push(Entry { kind: kind.to_owned(), path: path.clone(), of, required, schema: schema.clone() });
    // Of a list the fields of its items count.
    let object = if is_list { &schema["items"] } else { schema };
    let needed = |name: &str| object["required"].as_array().is_some_and(|names| names.iter().any(|one| one == name));
    for (name, field) in object["properties"].as_object().into_iter().flatten() {
        collect(kind, &format!("{path}.{name}"), field, needed(name), entries);
    }
}

/// The type of a field in words, told by how this folder writes schemas.
fn type_of(schema: &Value) -> &'static str {
    // Only a code block is written so, see `values::code`.
    if schema["allOf"].is_array() {
        return "code block";
    }
    if schema["anyOf"].is_array() {
        return "duration or number of seconds";
    }
    if schema["enum"].is_array() {
        return "one of";
    }
    match schema["type"].as_str() {
        Some("array") if schema["items"]["properties"].is_object() => "list of objects",
        Some("array") => "list of strings",
        // Free names with values of one kind, as `config` has, and not a mapping with fields.
        Some("object") if schema["additionalProperties"].is_object() => "names and values",
        Some("object") => "object",
        Some("integer") => "integer",
        Some("number") => "number",
        Some("boolean") => "boolean",
        // By its pattern: JSON Schema has no type for it.
        _ if schema["pattern"] == super::values::DURATION => "duration",
        _ => "string",
    }
}

/// The type in words, with the values of an enumeration.
fn words(entry: &Entry) -> String {
    match entry.schema["enum"].as_array() {
        Some(values) => {
            let names: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
            format!("one of {}", names.join(", "))
        }
        None => entry.of.to_owned(),
    }
}

/// The path without brackets, as people type it.
fn plain(entry: &Entry) -> String {
    entry.path.replace("[]", "")
}

/// The last part of the path: the field's own name.
fn name(entry: &Entry) -> &str {
    entry.path.trim_end_matches("[]").rsplit('.').next().unwrap_or_default()
}

/// The sentence about the field.
fn sentence(entry: &Entry) -> &str {
    entry.schema["description"].as_str().unwrap_or_default()
}

/// Fields directly inside.
///
/// Of the same kind and one level down, in order.
fn children<'a>(of: &Entry, entries: &'a [Entry]) -> Vec<&'a Entry> {
    // With the dot, so that `spec.input` is no child of `spec.in`.
    let prefix = format!("{}.", of.path);
    let is_inside = |entry: &&Entry| {
        let rest = entry.path.strip_prefix(&prefix);
        entry.kind == of.kind && rest.is_some_and(|rest| !rest.contains('.'))
    };
    entries.iter().filter(is_inside).collect()
}

/// The text of a default or an example as YAML writes it in one line.
///
/// ```text
/// {"a": [1, "x"]}   ⇒   {a: [1, x]}
/// ```
fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{name}: {}", inline(value))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        other => other.to_string(),
    }
}

/// The first example, if there is one.
fn example(entry: &Entry) -> Option<&Value> {
    entry.schema["examples"].get(0)
}

/// The example as it is written in a spec.
///
/// Code as a literal block, everything else on one line. `None` without an example.
fn written(entry: &Entry) -> Option<String> {
    let example = example(entry)?;
    let name = name(entry);
    let block = |text: &str, indent: &str| text.lines().map(|line| format!("{indent}{line}\n")).collect::<String>();
    Some(match (example, example["python"].as_str()) {
        // Longest form first: an example of a code block is a mapping too.
        (_, Some(code)) => format!("{name}:\n  python: |\n{}", block(code, "    ")),
        (Value::String(text), _) if text.contains('\n') => format!("{name}: |\n{}", block(text, "  ")),
        _ => format!("{name}: {}\n", inline(example)),
    })
}

/// One row of a table in Markdown. A `|` would end its cell, so it is escaped.
///
/// ```text
/// | `max` | integer | required | Most events of a batch | `100` |
/// ```
fn row(entry: &Entry) -> String {
    let default = match entry.schema.get("default") {
        Some(default) => format!("`{}`", inline(default)),
        None if entry.required => "required".to_owned(),
        None => String::new(),
    };
    let example = example(entry).map(|example| {
        let text = example["python"].as_str().map_or_else(|| inline(example), str::to_owned);
        // Each line in backquotes of its own, because a cell has no room for a block.
        let lines: Vec<String> = text.lines().map(|line| format!("`{}`", line.replace('|', "\\|"))).collect();
        lines.join("<br>")
    });
    format!(
        "| `{}` | {} | {default} | {} | {} |\n",
        name(entry),
        words(entry),
        sentence(entry).replace('|', "\\|"),
        example.unwrap_or_default()
    )
}

/// One line a field.
///
/// Kinds are headings, with an empty line between.
fn listed(entries: &[Entry]) -> String {
    let mut text = String::new();
    let mut kind = "";
    for entry in entries {
        if entry.kind != kind {
            kind = &entry.kind;
            text.push_str(&format!("{}{kind}\n", if text.is_empty() { "" } else { "\n" }));
        }
        text.push_str(&format!("  {} <{}>{}\n", entry.path, words(entry), note(entry)));
    }
    text
}

/// The default, or the word that the field is required; nothing for the rest.
fn note(entry: &Entry) -> String {
    match entry.schema.get("default") {
        Some(default) => format!(" (default: {})", inline(default)),
        None if entry.required => " (required)".to_owned(),
        None => String::new(),
    }
}

/// The page of one field: its sentence, an example, and the fields inside it.
///
/// A field that holds a code block shows the fields of code blocks.
fn described(entry: &Entry, entries: &[Entry]) -> String {
    let mut text = format!("{}: {} <{}>{}\n", entry.kind, entry.path, words(entry), note(entry));
    text.push_str(&filled(sentence(entry), "  "));
    if let Some(written) = written(entry) {
        text.push_str(&format!("\nExample:\n{}", indented(&written, "  ")));
    }
    // All code blocks have the same fields, which the list has once.
    let code = |entry: &Entry| entries.iter().find(|one| one.path == "code" && entry.of == "code block").cloned();
    let inside = code(entry).map_or_else(|| children(entry, entries), |code| children(&code, entries));
    if !inside.is_empty() {
        text.push_str("\nFields:\n");
    }
    for field in inside {
        let name = field.path.rsplit('.').next().unwrap_or_default();
        text.push_str(&format!("  {name} <{}>{}\n", words(field), note(field)));
        text.push_str(&filled(sentence(field), "      "));
        text.push_str(&written(field).map(|written| indented(&written, "      | ")).unwrap_or_default());
    }
    text
}

/// A text with the same indentation before each line.
fn indented(text: &str, indent: &str) -> String {
    text.lines().map(|line| format!("{indent}{line}\n")).collect()
}

/// A sentence in lines of the terminal's width.
///
/// A word that is longer than the line stands alone on one.
fn filled(text: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if !line.is_empty() && indent.len() + line.len() + 1 + word.len() > WIDTH {
            lines.push(word.to_owned());
        } else {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines.iter().filter(|line| !line.is_empty()).map(|line| format!("{indent}{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_field_is_described_with_those_inside_it() {
        expect![[r#"
            KasprAgent: spec.onError <object>
              What happens to events that fail; else the setting onError counts

            Fields:
              action <one of skip, retry, deadLetter, halt> (required)
                  What happens
                  | action: retry
              attempts <integer> (default: 3)
                  All tries together
              backoff <object>
                  The waits between tries
              compacting <boolean>
                  A created topic keeps the last record of each key
                  | compacting: true
              config <names and values>
                  Kafka's own settings of a topic that is created; they win over the others
                  | config: {min.insync.replicas: 2}
              declare <boolean> (default: false)
                  Creates the topic where it is missing
                  | declare: true
              deleting <boolean>
                  A created topic deletes old records
                  | deleting: true
              partitions <integer>
                  Partitions of a topic that is created
                  | partitions: 12
              replicas <integer>
                  Replicas of a topic that is created
                  | replicas: 3
              retention <integer>
                  Seconds for which a created topic keeps its records
                  | retention: 86400
              then <one of skip, deadLetter, halt> (default: skip)
                  What happens after the last try
                  | then: deadLetter
              topic <string>
                  The topic of dead letters; else the setting deadLetterTopic counts
                  | topic: orders-dead
        "#]]
        .assert_eq(&explain(Some("spec.onError")).expect("the field is there"));
        expect![[r#"
            KasprAgent: spec.output.topics[].keySelector <code block>
              Returns the key; without it the key is null

            Example:
              keySelector:
                python: |
                  def key(value):
                      return value["id"]

            Fields:
              entrypoint <string>
                  Name of the function that is called, of this block or of init; else the first that
                  the block defines
                  | entrypoint: enrich
              python <string> (required)
                  Python with the function that is called
                  | python: |
                  |   def enrich(value):
                  |       return value
        "#]]
        .assert_eq(&explain(Some("spec.output.topics[].keySelector")).expect("the field is there"));
    }

    #[test]
    fn kinds_and_lists_need_not_be_written() {
        for path in ["spec.output.topics.name", "spec.output.topics[].name", "KasprAgent.spec.output.topics.name"] {
            let text = explain(Some(path)).expect("the field is there");
            assert!(text.starts_with("KasprAgent: spec.output.topics[].name <string>"), "{text}");
        }
        assert!(explain(Some("KasprTable.spec.name")).is_ok_and(|text| text.starts_with("KasprTable: ")));
        assert!(explain(Some("KasprTable")).is_ok_and(|text| !text.contains("KasprAgent")));
    }

    #[test]
    fn an_unknown_field_is_refused_with_the_nearest() {
        let refused = explain(Some("spec.onEror")).expect_err("there is none");
        assert_eq!(refused.to_string(), "there is no field \"spec.onEror\"; did you mean \"spec.onError\"?");
    }

    #[test]
    fn every_field_has_a_sentence_and_every_value_an_example_or_a_default() {
        for entry in entries().iter().filter(|entry| entry.path.contains('.')) {
            assert!(!sentence(entry).is_empty(), "{}: no sentence", entry.path);
            let is_value = !matches!(entry.of, "object" | "list of objects");
            let is_shown = example(entry).is_some() || entry.schema.get("default").is_some();
            assert!(!is_value || is_shown, "{}: neither example nor default", entry.path);
        }
    }
}
