//! The log as programs read it: every line is an object, and names its subject in fields.

use kaspr_tests::program::{run, stderr};
use serde_json::Value;

const SPEC: &str = r#"apiVersion: kaspr.io/v1alpha1
kind: KasprAgent
metadata:
  name: talks
spec:
  input:
    topic: {name: in}
  output:
    topics:
      - name: out
  processors:
    init:
      python: |
        import logging
        log = logging.getLogger("shop.prices")
    pipeline:
      - talk
    operations:
      - name: talk
        map:
          python: |
            def talk(value):
                print("printed\x1b[2J")
                log.warning("logged %s", value)
                unread = value["amount"]
                return value
"#;

/// The log of a local run, one object a line.
#[track_caller]
fn said(spec: &str, lines: &str, more: &[&str]) -> (Option<i32>, Vec<Value>) {
    let folder = tempfile::tempdir().expect("a folder is made");
    let path = folder.path().join("agents.yaml");
    std::fs::write(&path, spec).expect("a spec can be written");
    let path = path.display().to_string();
    let arguments = ["run", &path, "--local", "--input", "in=-", "--log-format", "json"];
    let output = run("kaspr-exec", &[&arguments, more].concat(), lines);
    let text = stderr(&output);
    let object = |line: &str| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}\n{text}"));
    (output.status.code(), text.lines().map(object).collect())
}

#[track_caller]
fn find<'a>(lines: &'a [Value], message: &str) -> &'a Value {
    lines.iter().find(|line| line["message"] == message).unwrap_or_else(|| panic!("{message}: {lines:#?}"))
}

#[test]
fn every_line_is_an_object_with_its_subject() {
    let (code, lines) = said(SPEC, "{\"amount\": 1}\n{}\n", &[]);
    assert_eq!(code, Some(0));
    for line in &lines {
        assert!(line["level"].is_string() && line["timestamp"].is_string() && line["message"].is_string(), "{line}");
    }
    let printed = find(&lines, "printed\u{1b}[2J");
    assert_eq!((&printed["agent"], &printed["level"]), (&"talks".into(), &"INFO".into()));
    let logged = find(&lines, "logged {'amount': 1}");
    assert_eq!((&logged["logger"], &logged["level"]), (&"shop.prices".into(), &"WARN".into()));
    let failed = find(&lines, "failed");
    for (field, value) in [
        ("agent", Value::from("talks")),
        ("operation", "talk".into()),
        ("topic", "in".into()),
        ("partition", 0.into()),
        ("offset", 1.into()),
        ("kind", "KeyError".into()),
        ("error", "'amount'".into()),
    ] {
        assert_eq!(failed[field], value, "{failed}");
    }
    assert!(failed["at"].as_str().is_some_and(|at| at.contains("agents.yaml:")), "{failed}");
    let summary = find(&lines, "summary");
    assert_eq!((&summary["events"], &summary["failed"]), (&2.into(), &1.into()), "{summary}");
    assert_eq!(summary["operations"].as_array().expect("a list").len(), 3, "{summary}");
}

#[test]
fn faults_and_final_errors_are_objects() {
    let (code, lines) = said(&SPEC.replace("- talk\n", "- tlak\n"), "", &[]);
    assert_eq!(code, Some(2));
    let fault = lines.iter().find(|line| line["code"] == "K0201").expect("the fault");
    assert_eq!((&fault["level"], fault["line"].is_number()), (&"ERROR".into(), true), "{fault}");
    let (code, lines) = said(SPEC, "{}\n", &["--on-error", "halt"]);
    assert_eq!(code, Some(1));
    let last = lines.last().expect("a line");
    assert_eq!(last["level"], "ERROR");
    assert!(last["message"].as_str().is_some_and(|message| message.starts_with("halted: agent \"talks\"")), "{last}");
    let (_, lines) = said(&SPEC.replace("unread = value[\"amount\"]\n                return value", "value"), "", &[]);
    let warning = lines.iter().find(|line| line["code"].is_string()).expect("a warning");
    assert_eq!(warning["level"], if warning["severity"] == "error" { "ERROR" } else { "WARN" }, "{warning}");
}

/// The text of a local run's log.
#[track_caller]
fn text(spec: &str, lines: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder is made");
    let path = folder.path().join("agents.yaml");
    std::fs::write(&path, spec).expect("a spec can be written");
    let output = run("kaspr-exec", &["run", &path.display().to_string(), "--local", "--input", "in=-"], lines);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn one_failing_place_floods_nobody() {
    let log = text(SPEC, &"{}\n".repeat(302));
    let failed: Vec<&str> =
        log.lines().filter(|line| line.contains(": failed: ") || line.contains(": more failed")).collect();
    assert!(failed[0].contains("in/0@0: failed: KeyError: 'amount'"), "{log}");
    assert_eq!(log.matches("Traceback").count(), 1, "{log}");
    // On a machine that takes longer than an interval there are more lines, and no failure is logged twice.
    let told: u64 =
        failed.iter().filter_map(|line| line.rsplit_once(" count=")?.1.split(' ').next()?.parse::<u64>().ok()).sum();
    assert_eq!(told, 301, "{log}");
    assert!(failed[failed.len() - 1].contains("in/0@301: more failed like this, this one last"), "{log}");
}

#[test]
fn a_batch_that_fails_is_one_line() {
    let spec = SPEC.replace("    topic: {name: in}", "    topic: {name: in}\n    take: {max: 20, within: 10m}");
    let log = text(&spec, &"{\"amount\": 1}\n".repeat(40));
    assert_eq!(log.matches("Traceback").count(), 1, "{log}");
    assert!(log.contains("in/0@0..19: failed: TypeError"), "{log}");
    assert!(
        log.contains("in/0@39: more failed like this, this one last: TypeError") && log.contains(" count=20 "),
        "{log}"
    );
}
