//! What a field needs before it is done, as far as a machine can count it: a sentence, an example or a list of
//! its values, and a golden spec that uses it. The form of definitions spells the same fields in another way.

use std::collections::BTreeSet;
use std::path::Path;

use kaspr_tests::root;
use kasprc::schema::{Form, schema};
use serde_json::Value;

/// Kubernetes' own fields, and lists of whole documents.
/// They need neither sentence nor example.
const NOT_OURS: [&str; 9] =
    [".metadata", ".metadata.name", ".spec", ".status", ".agents", ".tables", ".joins", ".tasks", ".webviews"];

/// Fields that the compiler knows and the executor refuses to run. The list shrinks.
const NOT_RUN: [&str; 4] = ["hopping", "step", "expires", "relativeToSelector"];

/// A field of a form, by the names on the way to it.
struct Field {
    path: String,
    name: String,
    schema: Value,
}

fn fields_of(form: Form) -> Vec<Field> {
    let mut fields = Vec::new();
    collect(&schema(form), "", &mut fields);
    fields
}

/// Collects the properties of a schema and of all that stands inside it.
fn collect(schema: &Value, path: &str, fields: &mut Vec<Field>) {
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        collect(inner, &path, fields);
        fields.push(Field { path, name: name.clone(), schema: inner.clone() });
    }
    for list in ["oneOf", "anyOf", "allOf"] {
        schema[list].as_array().into_iter().flatten().for_each(|inner| collect(inner, path, fields));
    }
    for inner in ["items", "then", "else", "additionalProperties"] {
        schema.get(inner).into_iter().for_each(|inner| collect(inner, path, fields));
    }
    schema["definitions"].as_object().into_iter().flatten().for_each(|(_, inner)| collect(inner, path, fields));
}

/// Keys that the YAML files of a folder hold at any place.
fn keys_in(folder: &Path, keys: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("specs can be read") {
        let path = entry.expect("specs can be read").path();
        if path.is_dir() {
            keys_in(&path, keys);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&path).expect("a spec can be read");
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            for (at, _) in text.match_indices(':') {
                let start = text[..at].rfind(|c| !is_name(c)).map_or(0, |before| before + 1);
                keys.insert(text[start..at].to_owned());
            }
        }
    }
}

/// The name as the Kubernetes form spells it.
fn in_kubernetes(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| match word.split_at_checked(1) {
        Some((initial, rest)) => name + &initial.to_uppercase() + rest,
        None => name,
    })
}

fn undone(fields: &[Field], used: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for Field { path, name, schema } in fields.iter().filter(|field| !NOT_OURS.contains(&field.path.as_str())) {
        let has = |key: &str| schema.get(key).is_some();
        let holds_fields = schema["type"] == "object" || ["oneOf", "$ref", "properties"].into_iter().any(has);
        let name = in_kubernetes(name);
        if !has("description") && !has("const") && !has("enum") {
            faults.push(format!("{path} has no sentence"));
        }
        if path.starts_with(".spec")
            && !holds_fields
            && !has("items")
            && !["examples", "default", "const", "enum"].into_iter().any(has)
        {
            faults.push(format!("{path} has neither example nor default"));
        }
        if !used.contains(&name) && !NOT_RUN.contains(&name.as_str()) {
            faults.push(format!("{path} stands in no spec under specs/"));
        }
    }
    faults
}

#[test]
fn every_field_is_described_and_stands_in_a_golden_spec() {
    let mut used = BTreeSet::new();
    keys_in(&root().join("specs"), &mut used);
    let fields: Vec<Field> = [Form::Kubernetes, Form::Definition].into_iter().flat_map(fields_of).collect();
    assert!(fields.len() > 100, "only {} fields", fields.len());
    let faults: BTreeSet<String> = undone(&fields, &used).into_iter().collect();
    assert!(faults.is_empty(), "\n{}", faults.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_field_that_is_not_done_is_named() {
    let schema = serde_json::json!({ "type": "string" });
    let new = [Field { path: ".spec.dedupe".to_owned(), name: "dedupe".to_owned(), schema }];
    let faults = undone(&new, &BTreeSet::new()).join("\n");
    for fault in ["no sentence", "neither example nor default", "in no spec under specs/"] {
        assert!(faults.contains(".spec.dedupe") && faults.contains(fault), "{fault}: {faults}");
    }
}
