//! Specs that `kasprc check` passes start: every golden spec, and specs with one field changed, compile, load
//! their Python and begin, on an input that is empty.
//!
//! Two things are no fault of `check`, which has neither the modules nor the variables of a pod: a module
//! that is not installed, and a dead letter topic that the deployment's settings name. It warns
//! of the latter.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use kaspr_exec::check::unsupported::unsupported;
use kaspr_exec::code::python::Interpreter;
use kaspr_exec::config::settings::Settings;
use kaspr_exec::config::variables::Variables;
use kaspr_exec::run::testing::{Suite, play};
use kaspr_tests::{golden_specs, root};
use kasprc::schema::{Form, schema};
use kasprc::{Options, SourceFile};
use serde_json::{Value, json};

/// Warnings that name a setting of the deployment on which the start hangs.
const HANGS_ON_A_SETTING: [&str; 1] = ["K0407"];
/// Values of each kind, some of them out of range or of a spelling that only one program might take.
const TEXTS: [&str; 24] = [
    "",
    " ",
    "x",
    "a b",
    "no",
    "1",
    "0",
    "-1",
    "1.5",
    "1e3",
    "5s",
    "1.5m",
    " 5s ",
    "0s",
    ".5s",
    "5m",
    "1..5s",
    "400d",
    "json",
    "binary",
    "pickle",
    "json|binary",
    "retry",
    "deadLetter",
];

/// The fate of a spec.
enum Verdict {
    /// `check` refuses it, or warns that the start hangs on a setting.
    Found,
    Starts,
    /// `check` passes it, and it does not start.
    Refused(String),
}

struct Trial {
    interpreter: Interpreter,
    suite: Suite,
    folder: std::path::PathBuf,
    started: usize,
    refused: Vec<String>,
}

impl Trial {
    fn verdict(&self, files: &[SourceFile]) -> Verdict {
        let compiled = kasprc::compile(files, &Options { only_checks: true, ..Options::default() });
        let hangs = |fault: &kasprc::Diagnostic| HANGS_ON_A_SETTING.contains(&fault.code.name());
        let (Some(plan), false) = (compiled.plan, compiled.diagnostics.iter().any(hangs)) else {
            return Verdict::Found;
        };
        let plan = Rc::new(plan);
        if plan.agents.is_empty() {
            return Verdict::Found;
        }
        let settings = Settings::resolve(&BTreeMap::new(), &Variables::default(), &plan.app);
        let config = match settings.config(&plan, 0).and_then(|config| {
            settings.duration("shutdownTimeout")?;
            Ok(config)
        }) {
            Ok(config) => config,
            Err(error) => return Verdict::Refused(error.to_string()),
        };
        if let Some(what) = unsupported(&plan, &config.policies(&plan)).first() {
            return Verdict::Refused(what.to_string());
        }
        let python = settings.for_python(&config);
        let case = (&self.suite.tests[0], self.folder.as_path());
        match play(&self.interpreter, &plan, &config, &python, case) {
            Err(why) if !why.contains("ModuleNotFoundError") => Verdict::Refused(why),
            _ => Verdict::Starts,
        }
    }

    fn check(&mut self, name: &str, files: &[SourceFile]) {
        match self.verdict(files) {
            Verdict::Found => {}
            Verdict::Starts => self.started += 1,
            Verdict::Refused(why) => self.refused.push(format!("{name}: {why}")),
        }
    }
}

/// A golden spec as documents.
struct Golden {
    name: String,
    documents: Vec<Value>,
}

impl Golden {
    fn read(folder: &Path) -> Golden {
        let name = folder.file_name().expect("a spec has a name").to_string_lossy().into_owned();
        let mut documents = Vec::new();
        for file in kasprc::load::files(&[folder.to_owned()]).expect("a spec can be read") {
            let text = String::from_utf8(file.bytes).expect("a spec is UTF-8");
            for part in format!("\n{text}").split("\n---") {
                let file = SourceFile { name: file.name.clone(), bytes: part.as_bytes().to_vec() };
                let json = kasprc::data::to_json(&file).expect("a golden spec is YAML");
                documents.push(serde_json::from_str(&json).expect("it is JSON"));
            }
        }
        documents.retain(|document: &Value| document.is_object());
        Golden { name, documents }
    }

    /// The spec as one file, with another document in the place of one of its own.
    fn with(&self, number: usize, document: &Value) -> SourceFile {
        let documents = self.documents.iter().enumerate().map(|(at, own)| if at == number { document } else { own });
        let texts: Vec<String> = documents.map(Value::to_string).collect();
        SourceFile { name: format!("{}.yaml", self.name), bytes: texts.join("\n---\n").into_bytes() }
    }
}

/// A field of a kind: the way to it, `[]` for a list's first, and its schema.
struct Field {
    kind: String,
    path: Vec<String>,
    schema: Value,
}

fn fields() -> Vec<Field> {
    let schema = schema(Form::Kubernetes);
    let mut fields = Vec::new();
    for branch in schema["allOf"].as_array().expect("it has a branch for each kind") {
        let kind = branch["if"]["properties"]["kind"]["const"].as_str().expect("a kind has a name");
        let spec = &branch["then"]["properties"]["spec"];
        walk(kind, &["spec".to_owned()], spec, &schema["definitions"]["code"], &mut fields);
    }
    fields
}

fn walk(kind: &str, path: &[String], schema: &Value, code: &Value, fields: &mut Vec<Field>) {
    fields.push(Field { kind: kind.to_owned(), path: path.to_vec(), schema: schema.clone() });
    let (object, more) = match schema["type"] == "array" {
        true => (&schema["items"], vec!["[]".to_owned()]),
        false if schema["allOf"].is_array() => (code, Vec::new()),
        false => (schema, Vec::new()),
    };
    for (name, field) in object["properties"].as_object().into_iter().flatten() {
        // `python` holds user code, which no schema judges.
        if name != "python" {
            let path = [path, &more, std::slice::from_ref(name)].concat();
            walk(kind, &path, field, code, fields);
        }
    }
}

/// Sets a field, and makes what has to be around it. False where something else stands in its way.
fn set(at: &mut Value, path: &[String], value: &Value) -> bool {
    let Some((step, rest)) = path.split_first() else {
        *at = value.clone();
        return true;
    };
    if at.is_null() {
        *at = if step == "[]" { json!([null]) } else { json!({}) };
    }
    match at {
        Value::Array(list) if step == "[]" => list.first_mut().is_some_and(|first| set(first, rest, value)),
        Value::Object(map) => set(map.entry(step.as_str()).or_insert(Value::Null), rest, value),
        _ => false,
    }
}

fn values(schema: &Value) -> Vec<Value> {
    let numbers = [json!(0), json!(1), json!(-1), json!(2.5), json!(7), json!(70_000), json!(4_294_967_296_u64)];
    let kinds = [Value::Null, json!(true), json!(false), json!([]), json!({}), json!([{}]), json!(["x", "x"])];
    let of_schema = [&schema["examples"], &schema["enum"]].into_iter().filter_map(Value::as_array).flatten().cloned();
    let texts = TEXTS.iter().map(|text| json!(text));
    texts.chain(numbers).chain(kinds).chain(of_schema).chain([schema["default"].clone()]).collect()
}

/// Every field of every kind with every value, each in one of the golden specs.
fn try_fields(trial: &mut Trial, goldens: &[Golden]) {
    for (number, field) in fields().iter().enumerate() {
        let of_kind = |document: &Value| document["kind"] == field.kind;
        let hosts: Vec<(&Golden, usize)> = goldens
            .iter()
            .flat_map(|golden| (0..golden.documents.len()).map(move |at| (golden, at)))
            .filter(|(golden, at)| of_kind(&golden.documents[*at]))
            .collect();
        for (turn, value) in values(&field.schema).iter().enumerate() {
            let Some((golden, at)) = hosts.get((number * 7 + turn) % hosts.len().max(1)) else { continue };
            let mut document = golden.documents[*at].clone();
            // Each partition takes memory in a local run.
            let is_large = field.path.ends_with(&["partitions".to_owned()]) && value.as_i64() > Some(1000);
            // A block that calls `globals()` may define names that cannot be known.
            let is_opaque =
                field.path.ends_with(&["entrypoint".to_owned()]) && document.to_string().contains("globals()");
            if !is_large && !is_opaque && set(&mut document, &field.path, value) {
                let name = format!("{}, {} {} = {value}", golden.name, field.kind, field.path.join("."));
                trial.check(&name, &[golden.with(*at, &document)]);
            }
        }
    }
}

/// Every setting of an app with every value.
fn try_settings(trial: &mut Trial, golden: &Golden) {
    let policies = [
        json!({"action": "retry", "attempts": 0}),
        json!({"action": "retry", "attempts": "3"}),
        json!({"action": "retry", "attempts": 2.5}),
        json!({"action": "retry", "attempts": 4_294_967_296_u64}),
        json!({"action": "retry", "backoff": {"initial": "1.5s", "max": "1.5m"}}),
        json!({"action": "retry", "backoff": {"initial": 5}}),
        json!({"action": "retry", "backoff": {"max": "5 x"}}),
        json!({"action": "retry", "backoff": {"factor": 0.5}}),
        json!({"action": "retry", "backoff": {"jitter": "x"}}),
        json!({"action": "retry", "backoff": 5}),
        json!({"action": "retry", "then": "retry"}),
        json!({"action": "retry", "then": 5}),
        json!({"action": "retry", "then": "deadLetter"}),
        json!({"action": "retry", "atempts": 3}),
        json!({"action": "deadLetter"}),
        json!({"action": "deadLetter", "topic": 5}),
        json!({"action": "deadLetter", "topic": "a b"}),
        json!({"action": "deadLetter", "topic": "dead"}),
        json!({"action": 5}),
        json!({}),
    ];
    let policies: Vec<String> = policies.iter().map(Value::to_string).collect();
    let more = ["skip", "halt", "{", "{}}", "earliest", "latest", "at-least-once", "exactly-once", "true", "30s"];
    let texts: Vec<&str> = TEXTS.into_iter().chain(more).chain(policies.iter().map(String::as_str)).collect();
    for name in kasprc::setting_names() {
        for value in texts.iter().map(|text| json!(text)).chain([json!(5), json!(0), json!(2.5), json!(true)]) {
            let app = json!({
                "apiVersion": "kaspr.io/v1alpha1", "kind": "KasprApp", "metadata": {"name": "shop"},
                "spec": {"config": {name: value}},
            });
            let file = SourceFile { name: "app.yaml".to_owned(), bytes: app.to_string().into_bytes() };
            trial.check(&format!("setting {name} = {value}"), &[golden.with(usize::MAX, &Value::Null), file]);
        }
    }
}

/// Gives user code the variables that specs ask for.
fn set_variables(folders: &[std::path::PathBuf]) {
    // An example of the schema asks for it.
    let region = "REGION=eu".to_owned();
    let texts = folders.iter().map(|folder| std::fs::read_to_string(folder.join("env")).unwrap_or_default());
    for text in texts.chain([region]) {
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            // SAFETY: this is the program's only test, and Python has not started: no other thread reads them.
            unsafe { std::env::set_var(name, value) };
        }
    }
}

#[test]
fn what_check_passes_starts() {
    let folders = golden_specs();
    set_variables(&folders);
    let suite = Suite::from_json(r#"{"tests": [{"name": "start"}]}"#).expect("it is a suite");
    let interpreter = Interpreter::start(&[]);
    let mut trial = Trial { interpreter, suite, folder: root(), started: 0, refused: Vec::new() };
    for folder in &folders {
        let files = kasprc::load::files(std::slice::from_ref(folder)).expect("a spec can be read");
        trial.check(&folder.display().to_string(), &files);
    }
    assert_eq!(trial.started + trial.refused.len(), folders.len(), "a golden spec passes `check`");
    let goldens: Vec<Golden> = folders.iter().map(|folder| Golden::read(folder)).collect();
    try_fields(&mut trial, &goldens);
    let echo = goldens.iter().find(|golden| golden.name == "echo-agent").expect("there is an echo");
    try_settings(&mut trial, echo);
    let Trial { started, refused, .. } = trial;
    assert!(refused.is_empty(), "`check` passes these, and they do not start:\n{}", refused.join("\n"));
    assert!(started > 500, "only {started} specs came as far as a start");
}
