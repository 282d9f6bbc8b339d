//! The schemas beside what kasprc says itself, over the project's own specs.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Form, schema};
use crate::diagnostics::{Code, Severity, Sink};
use crate::yaml::data::json;
use crate::yaml::parse;

fn documents(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("the spec can be read");
    let nodes = parse(0, &text, &mut Sink::default());
    nodes.iter().map(|node| serde_json::from_str(&json(node)).expect("it is spelled as JSON")).collect()
}

fn specs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../specs")
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            files.extend(yaml_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Judges a document by the schema of the form that it is written in.
fn judge(document: &Value) -> Result<(), String> {
    let form = if document.get("kind").is_some() { Form::Kubernetes } else { Form::Definition };
    let validator = jsonschema::validator_for(&schema(form)).expect("the schema is one");
    let faults: Vec<String> =
        validator.iter_errors(document).map(|fault| format!("{}: {fault}", fault.instance_path())).collect();
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
}

#[test]
fn specs_fit_their_schema() {
    let is_spec = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        !matches!(name, "broken.yaml" | "tests.yaml" | "tables.yaml")
    };
    let files: Vec<PathBuf> = yaml_files(&specs()).into_iter().filter(is_spec).collect();
    assert!(files.len() > 60, "only {}", files.len());
    for path in files {
        for document in documents(&path) {
            judge(&document).unwrap_or_else(|faults| panic!("{}: {faults}", path.display()));
        }
    }
}

/// Errors that no schema sees: of the YAML itself, of names that refer to something, of numbers
/// beside each other, of the meaning of a text. Every fault of the Python (K05..) is one too.
const UNSEEN: [Code; 18] = [
    Code::K0001,
    Code::K0006,
    Code::K0007,
    Code::K0008,
    Code::K0107,
    Code::K0108,
    Code::K0114,
    Code::K0201,
    Code::K0202,
    Code::K0206,
    Code::K0301,
    Code::K0302,
    Code::K0303,
    Code::K0305,
    Code::K0306,
    Code::K0408,
    Code::K0411,
    // A codec that the executor does not have is a name like any other.
    Code::K0403,
];

#[test]
fn what_a_schema_can_refuse_it_refuses() {
    for code in Code::ALL {
        let path = specs().join("errors").join(code.folder()).join("broken.yaml");
        let is_refused = documents(&path).iter().any(|document| judge(document).is_err());
        let is_seen = code.severity() == Severity::Error && !UNSEEN.contains(code) && !code.name().starts_with("K05");
        assert_eq!(is_refused, is_seen, "{code:?}");
    }
}
