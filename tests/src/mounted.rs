//! Specs in the form in which the operator mounts them into a pod: one file a component, names in snake_case and
//! sorted, everything that is not set written as null or an empty list, and Python in quotes as PyYAML writes it.

use std::collections::BTreeMap;
use std::path::Path;

use kasprc::SourceFile;
use kasprc::schema::{Form, schema};
use serde_json::{Map, Value};

/// Characters after which PyYAML begins a new line, if it can.
const WIDTH: usize = 80;

/// The documents of a folder of specs.
pub fn documents(folder: &Path) -> Vec<Value> {
    let files = kasprc::load::files(&[folder.to_owned()]).expect("specs can be read");
    let mut documents = Vec::new();
    for file in files {
        let text = String::from_utf8(file.bytes).expect("a spec is UTF-8");
        for part in format!("\n{text}").split("\n---") {
            let file = SourceFile { name: file.name.clone(), bytes: part.as_bytes().to_vec() };
            let json = kasprc::data::to_json(&file).expect("a spec is YAML");
            documents.push(serde_json::from_str(&json).expect("it is JSON"));
        }
    }
    documents.retain(Value::is_object);
    documents
}

/// The variables that the operator would set for an app of these documents: its name, and each key of its config.
pub fn variables(documents: &[Value]) -> Vec<(String, String)> {
    let apps = documents.iter().filter(|document| document["kind"] == "KasprApp");
    let labels = documents.iter().filter_map(|document| document["metadata"]["labels"]["kaspr.io/app"].as_str());
    let name = apps.clone().filter_map(|app| app["metadata"]["name"].as_str()).chain(labels).next();
    let config = apps.filter_map(|app| app["spec"]["config"].as_object()).flatten();
    let config = config.map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (format!("K_{}", name.to_ascii_uppercase()), value)
    });
    name.map(|name| ("K_APP_NAME".to_owned(), name.to_owned())).into_iter().chain(config).collect()
}

/// The files that the operator would mount for these documents: names and texts.
///
/// A document of another kind than agents and tables is none of them.
pub fn mounted(documents: &[Value]) -> BTreeMap<String, String> {
    let schema = schema(Form::Definition);
    let of_lists = documents.iter().flat_map(|document| {
        let lists = ["agents", "tables"].into_iter().filter_map(|list| Some((list, document[list].as_array()?)));
        lists.flat_map(|(list, all)| all.iter().map(move |component| (list, component)))
    });
    let of_lists = of_lists.map(|(list, component)| {
        let name = component["name"].as_str().expect("a component has a name");
        (format!("{list}-{name}.yaml"), dumped(list, component))
    });
    let components = documents.iter().filter_map(|document| {
        let list = match document["kind"].as_str()? {
            "KasprAgent" => "agents",
            "KasprTable" => "tables",
            _ => return None,
        };
        let name = document["metadata"]["name"].as_str()?;
        let mut spec = document["spec"].as_object().cloned().unwrap_or_default();
        spec.insert("name".to_owned(), Value::from(name));
        let items = &inside(&schema["properties"][list])["items"];
        let component = filled(&Value::Object(spec), items, &schema);
        Some((format!("{list}-{name}.yaml"), dumped(list, &component)))
    });
    components.chain(of_lists).collect()
}

/// Components of files that have the mounted form already, each as a file of its own.
pub fn dumped(list: &str, component: &Value) -> String {
    let mut out = String::new();
    let document = serde_json::json!({ list: [component] });
    write(&document, 0, &mut out);
    out
}

/// A value with every field that the form knows, by its name there.
fn filled(value: &Value, schema: &Value, root: &Value) -> Value {
    let schema = meant(value, inside(schema), root);
    match value {
        Value::Array(items) => items.iter().map(|item| filled(item, &schema["items"], root)).collect(),
        Value::Object(fields) => {
            let Some(known) = schema["properties"].as_object() else { return value.clone() };
            let mut all = Map::new();
            for (name, value) in fields {
                let written = Form::Definition.written(name);
                let (name, inner) = match known.get(&written) {
                    Some(inner) => (written, inner),
                    None => (name.clone(), &Value::Null),
                };
                all.insert(name, filled(value, inner, root));
            }
            for (name, inner) in known.iter().filter(|(name, _)| *name != "output") {
                let unset = match (name.as_str(), inside(inner)["type"].as_str()) {
                    ("declare" | "pass_through", _) => Value::Bool(false),
                    (_, Some("array")) => Value::Array(Vec::new()),
                    _ => Value::Null,
                };
                all.entry(name.clone()).or_insert(unset);
            }
            Value::Object(all)
        }
        other => other.clone(),
    }
}

/// A schema without the null that it allows.
fn inside(schema: &Value) -> &Value {
    match schema["anyOf"].as_array().map(Vec::as_slice) {
        Some([schema, null]) if null["type"] == "null" => schema,
        _ => schema,
    }
}

/// The schema itself, or of several that it allows the one of mappings, where the value is one.
fn meant<'a>(value: &Value, schema: &'a Value, root: &'a Value) -> &'a Value {
    if schema["allOf"][0]["$ref"].is_string() {
        return &root["definitions"]["code"];
    }
    let all = ["oneOf", "anyOf"].into_iter().find_map(|name| schema[name].as_array());
    let mapping = all.and_then(|all| all.iter().find(|schema| schema["properties"].is_object()));
    mapping.filter(|_| value.is_object()).unwrap_or(schema)
}

/// Writes a value in blocks. `indent` is that of the lines of a mapping here.
fn write(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(fields) => {
            for (number, (name, value)) in fields.iter().enumerate() {
                if number > 0 {
                    out.push_str(&" ".repeat(indent));
                }
                out.push_str(&scalar(name, indent, 0));
                out.push(':');
                write_behind(value, indent, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                out.push_str(&" ".repeat(indent));
                out.push_str("- ");
                match item {
                    Value::Object(fields) if !fields.is_empty() => write(item, indent + 2, out),
                    item => {
                        out.push_str(&shown(item, indent, indent + 2));
                        out.push('\n');
                    }
                }
            }
        }
        _ => unreachable!("scalars are written where they stand"),
    }
}

/// Writes the value of a key: on its line, or below it. A list stands as far left as its key.
fn write_behind(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            out.push('\n');
            out.push_str(&" ".repeat(indent + 2));
            write(value, indent + 2, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            write(value, indent, out);
        }
        value => {
            let column = out.len() - out.rfind('\n').map_or(0, |at| at + 1) + 1;
            out.push(' ');
            out.push_str(&shown(value, indent, column));
            out.push('\n');
        }
    }
}

fn shown(value: &Value, indent: usize, column: usize) -> String {
    match value {
        Value::String(text) => scalar(text, indent + 2, column),
        Value::Array(_) => "[]".to_owned(),
        Value::Object(_) => "{}".to_owned(),
        other => other.to_string(),
    }
}

/// A text as PyYAML writes it: plain where that cannot be read as something else, in single quotes where its lines
/// are not indented, else in double quotes with escapes.
fn scalar(text: &str, indent: usize, column: usize) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(is_word);
    let means_more = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if is_plain && !means_more.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    let is_special = |c: char| c != '\n' && !(' '..='~').contains(&c);
    let ends = text.starts_with([' ', '\n']) || text.ends_with(' ');
    if text.chars().any(is_special) || text.contains("\n ") || text.contains(" \n") || ends {
        return double_quoted(text, indent, column);
    }
    single_quoted(text, indent, column)
}

/// As PyYAML's `write_double_quoted`: a line that has become too long goes on behind a backslash.
fn double_quoted(text: &str, indent: usize, column: usize) -> String {
    let (mut out, mut column) = ("\"".to_owned(), column + 1);
    let letters: Vec<char> = text.chars().collect();
    let (mut start, mut end) = (0, 0);
    while end <= letters.len() {
        let letter = letters.get(end).copied();
        if letter.is_none_or(|c| matches!(c, '"' | '\\') || !(' '..='~').contains(&c)) {
            let plain: String = letters[start..end].iter().collect();
            column += end - start;
            out.push_str(&plain);
            start = end;
            if let Some(letter) = letter {
                let escape = escaped(letter);
                column += escape.len();
                out.push_str(&escape);
                start = end + 1;
            }
        }
        let is_inside = end > 0 && end + 1 < letters.len();
        if is_inside && (letter == Some(' ') || start >= end) && column + end.saturating_sub(start) > WIDTH {
            let plain: String = letters[start.min(end)..end].iter().collect();
            out.push_str(&plain);
            start = start.max(end);
            out.push_str("\\\n");
            out.push_str(&" ".repeat(indent));
            column = indent;
            if letters.get(start) == Some(&' ') {
                out.push('\\');
                column += 1;
            }
        }
        end += 1;
    }
    out.push('"');
    out
}

fn escaped(letter: char) -> String {
    match letter {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        '\n' => "\\n".to_owned(),
        '\t' => "\\t".to_owned(),
        '\r' => "\\r".to_owned(),
        '\0' => "\\0".to_owned(),
        letter if u32::from(letter) <= 0xFF => format!("\\x{:02X}", u32::from(letter)),
        letter if u32::from(letter) <= 0xFFFF => format!("\\u{:04X}", u32::from(letter)),
        letter => format!("\\U{:08X}", u32::from(letter)),
    }
}

/// As PyYAML's `write_single_quoted`: a line ends at a single space, and an end of a line is an empty line.
fn single_quoted(text: &str, indent: usize, column: usize) -> String {
    let (mut out, mut column) = ("'".to_owned(), column + 1);
    let new_line = format!("\n{}", " ".repeat(indent));
    let letters: Vec<char> = text.chars().collect();
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| letters[at]);
        let is_alone = before != Some(' ') && letters.get(at + 1).is_some_and(|next| *next != ' ' && *next != '\n');
        match letter {
            '\n' => {
                // The first of several is written twice: one alone would be a space.
                out.push_str(if before == Some('\n') { "\n" } else { "\n\n" });
                if letters.get(at + 1) != Some(&'\n') {
                    out.push_str(&" ".repeat(indent));
                    column = indent;
                }
            }
            ' ' if is_alone && at > 0 && column > WIDTH => {
                out.push_str(&new_line);
                column = indent;
            }
            '\'' => {
                out.push_str("''");
                column += 2;
            }
            letter => {
                out.push(*letter);
                column += 1;
            }
        }
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_written_as_pyyaml_writes_them() {
        let shown = |text: &str| {
            let mut out = String::new();
            write(&serde_json::json!({ "python": text }), 0, &mut out);
            out
        };
        assert_eq!(shown("count"), "python: count\n");
        assert_eq!(shown("yes"), "python: 'yes'\n");
        assert_eq!(shown("import json\n"), "python: 'import json\n\n  '\n");
        assert_eq!(shown("it's (one)"), "python: 'it''s (one)'\n");
        assert_eq!(shown("def f(v):\n\treturn \"ü\"\n"), "python: \"def f(v):\\n\\treturn \\\"\\xFC\\\"\\n\"\n");
        // From PyYAML 6.0: yaml.safe_dump({"python": …}).
        let code = "def count(value, counts):\n    number = counts.get(value['customer'], 0) + 1\n    return number\n";
        let expected = "python: \"def count(value, counts):\\n    number = counts.get(value['customer'], 0)\\\n  \\ + 1\\n    return number\\n\"\n";
        assert_eq!(shown(code), expected);
        let code = "def enrich(value): return {**value, 'total': value['price'] * value['number'], 'currency': 'EUR'}";
        let expected = "python: 'def enrich(value): return {**value, ''total'': value[''price''] * value[''number''],\n  ''currency'': ''EUR''}'\n";
        assert_eq!(shown(code), expected);
    }

    #[test]
    fn what_is_not_set_is_null_or_an_empty_list() {
        let document = serde_json::json!({
            "kind": "KasprAgent",
            "metadata": { "name": "orders" },
            "spec": { "input": { "topic": { "name": "in", "config": { "retention.ms": 5 } } } },
        });
        let files = mounted(&[document]);
        let text = &files["agents-orders.yaml"];
        for line in [
            "agents:\n- concurrency: null\n  description: null\n",
            "    channel: null\n",
            "        retention.ms: 5\n",
            "      key_serializer: null\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        assert!(!text.contains("output:"), "{text}");
    }
}
