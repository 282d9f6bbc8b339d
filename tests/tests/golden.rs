//! The golden specs: each compiles to its plan and drawing, and makes of its events what it says.

use std::path::Path;

use kaspr_exec::web::PlanTexts;
use kaspr_tests::compare::{difference, group};
use kaspr_tests::mounted::{documents, mounted, variables};
use kaspr_tests::program::{command, run, stderr, stdout};
use kaspr_tests::{golden_specs, root, updates};

/// `specs/echo-agent`.
fn relative(folder: &Path) -> String {
    folder.strip_prefix(root()).expect("a spec stands in the project").display().to_string()
}

fn report(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n(UPDATE_EXPECT=1 rewrites plans and drawings)", faults.join("\n\n"));
}

#[test]
fn specs_compile_to_their_plans_and_drawings() {
    let mut faults = Vec::new();
    for folder in golden_specs() {
        let path = relative(&folder);
        for (emit, file) in [("plan", "plan.txt"), ("dot", "plan.dot")] {
            let output = run("kasprc", &["compile", &path, "--emit", emit], "");
            if !output.status.success() {
                faults.push(format!("{path} does not compile:\n{}", stderr(&output)));
                continue;
            }
            let came = stdout(&output);
            if updates() {
                std::fs::write(folder.join(file), &came).expect("a golden file can be written");
            }
            let expected = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
            if expected != came {
                faults.push(format!("{path}/{file} differs; it is now:\n{came}"));
            }
        }
    }
    report(&faults);
}

#[test]
fn plans_are_served_without_their_code() {
    let mut lines = 0;
    for folder in golden_specs() {
        let files = kasprc::load::files(std::slice::from_ref(&folder)).expect("specs can be read");
        let compiled = kasprc::compile(&files, &kasprc::Options::default());
        let plan = compiled.plan.expect("a golden spec has no errors");
        let forms = PlanTexts::of(&plan);
        let code = plan.blocks.iter().flat_map(|block| block.code.lines().map(str::trim));
        // Names of functions are shown, so a line that is one alone says nothing.
        for line in code.filter(|line| line.contains([' ', '('])) {
            lines += 1;
            let in_json = serde_json::Value::from(line).to_string();
            for (name, form) in forms.forms() {
                let form = std::str::from_utf8(form).expect("a form is text");
                let shows = form.contains(line) || form.contains(in_json.trim_matches('"'));
                assert!(!shows, "{}: {name} shows {line:?}", folder.display());
            }
        }
    }
    assert!(lines > 100, "{lines} lines were looked for");
}

#[test]
fn arrows_begin_and_end_at_shapes() {
    for folder in golden_specs() {
        let dot = std::fs::read_to_string(folder.join("plan.dot")).expect("each spec has a drawing");
        let named =
            |text: &str| text.trim_start().strip_prefix('"').and_then(|text| Some(text.split_once('"')?.0.to_owned()));
        let shapes: Vec<_> = dot.lines().filter(|line| !line.contains(" -> ")).filter_map(named).collect();
        for (from, to) in dot.lines().filter_map(|line| line.split_once(" -> ")) {
            let known = |end| named(end).is_some_and(|end| shapes.contains(&end));
            assert!(known(from) && known(to), "{}: no shape at an end of {from} -> {to}", folder.display());
        }
    }
}

#[test]
fn drawings_are_drawn_by_graphviz() {
    for folder in golden_specs() {
        let dot = folder.join("plan.dot");
        let output = std::process::Command::new("dot").arg("-Tsvg").arg(&dot).output().expect("graphviz is installed");
        assert!(output.status.success() && output.stderr.is_empty(), "{}: {}", dot.display(), stderr(&output));
        assert!(stdout(&output).contains("</svg>"), "{}", dot.display());
    }
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}

/// Runs a spec on its events; gives all lines that came.
fn run_spec(folder: &Path) -> Result<Vec<String>, String> {
    run_as(folder, relative(folder), &[])
}

/// The same of specs at another path, with more variables.
fn run_as(folder: &Path, path: String, variables: &[(String, String)]) -> Result<Vec<String>, String> {
    let out = tempfile::tempdir().expect("a folder is made");
    let mut inputs = std::collections::BTreeMap::<String, Vec<String>>::new();
    for line in lines(&folder.join("events.in.jsonl")) {
        let value: serde_json::Value = serde_json::from_str(&line).expect("an event is JSON");
        let topic = value["topic"].as_str().expect("an event names its topic").to_owned();
        inputs.entry(topic).or_default().push(line);
    }
    let mut arguments = vec!["run".to_owned(), path, "--local".into(), "--input-format".into(), "record".into()];
    for (topic, lines) in inputs {
        let file = out.path().join(format!("in-{topic}"));
        std::fs::write(&file, lines.join("\n")).expect("an input can be written");
        arguments.extend(["--input".into(), format!("{topic}={}", file.display())]);
    }
    let (output_dir, failures) = (out.path().join("out"), out.path().join("failures.jsonl"));
    arguments.extend(["--output-dir".into(), output_dir.display().to_string()]);
    arguments.extend(["--failures".into(), failures.display().to_string()]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command = command("kaspr-exec", &arguments);
    for line in lines(&folder.join("env")) {
        let (name, value) = line.split_once('=').expect("env holds NAME=VALUE lines");
        command.env(name, value);
    }
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let output = command.output().expect("kaspr-exec starts");
    if !output.status.success() {
        return Err(format!("exit status {:?}\n{}", output.status.code(), stderr(&output)));
    }
    let mut came = Vec::new();
    for file in sorted(&output_dir) {
        came.extend(lines(&file));
    }
    for file in sorted(&output_dir.join("tables")) {
        let table = file.file_stem().expect("a table's file has a name").to_string_lossy().into_owned();
        let named = |line: String| format!("{{\"table\":\"{table}\",{}", &line[1..]);
        came.extend(lines(&file).into_iter().map(named));
    }
    came.extend(lines(&failures));
    Ok(came)
}

fn sorted(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .map(|entries| entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect())
        .unwrap_or_default();
    files.retain(|file: &std::path::PathBuf| file.is_file());
    files.sort();
    files
}

#[test]
fn specs_pass_their_own_tests() {
    let update: &[&str] = if updates() { &["--update"] } else { &[] };
    let output = run("kaspr-exec", &[&["test", "specs"], update].concat(), "");
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    let idle = golden_specs().into_iter().filter(|folder| {
        let shows = |name: &str| folder.join(name).exists();
        !shows("tests.yaml") && !shows("events.out.jsonl")
    });
    let idle: Vec<_> = idle.map(|folder| format!("{} shows nothing", relative(&folder))).collect();
    report(&idle);
}

#[test]
fn specs_make_of_their_events_what_they_say() {
    let mut faults = Vec::new();
    for folder in golden_specs().into_iter().filter(|folder| folder.join("events.in.jsonl").exists()) {
        let expected = lines(&folder.join("events.out.jsonl"));
        let fault = run_spec(&folder).map_or_else(Some, |came| unlike(&expected, came));
        faults.extend(fault.map(|fault| format!("{}: {fault}", relative(&folder))));
    }
    report(&faults);
}

/// The difference to what a golden file expects.
fn unlike(expected: &[String], came: Vec<String>) -> Option<String> {
    // Tables are compared where the golden file speaks of one.
    let speaks = |line: &String| expected.iter().any(|other| group(other) == group(line));
    let came: Vec<_> = came.into_iter().filter(|line| !group(line).starts_with("table ") || speaks(line)).collect();
    difference(expected, &came)
}

/// A failure without its place, which differs with the form of the spec.
fn without_place(line: String) -> String {
    match line.split_once(",\"at\":\"") {
        Some((before, _)) if line.starts_with("{\"failure\"") => format!("{before}}}}}"),
        _ => line,
    }
}

/// Copies everything of a spec's folder but the specs.
fn copy_others(from: &Path, to: &Path) {
    for file in sorted(from) {
        let name = file.file_name().expect("a file has a name").to_owned();
        if name == "tests.yaml" || file.extension().is_none_or(|extension| extension != "yaml") {
            std::fs::copy(&file, to.join(name)).expect("a file can be copied");
        }
    }
}

#[test]
fn specs_do_the_same_as_the_operator_mounts_them() {
    let mut faults = Vec::new();
    for folder in golden_specs() {
        let mount = tempfile::tempdir().expect("a folder is made");
        let documents = documents(&folder);
        for (name, text) in mounted(&documents) {
            std::fs::write(mount.path().join(name), text).expect("a file can be written");
        }
        let path = mount.path().display().to_string();
        let fault = if folder.join("events.in.jsonl").exists() {
            let expected: Vec<_> = lines(&folder.join("events.out.jsonl")).into_iter().map(without_place).collect();
            let came = run_as(&folder, path, &variables(&documents));
            came.map_or_else(Some, |came| unlike(&expected, came.into_iter().map(without_place).collect()))
        } else {
            copy_others(&folder, mount.path());
            let mut command = command("kaspr-exec", &["test", &path]);
            let output = command.envs(variables(&documents)).output().expect("kaspr-exec starts");
            (!output.status.success()).then(|| stdout(&output) + &stderr(&output))
        };
        faults.extend(fault.map(|fault| format!("{} as the operator mounts it: {fault}", relative(&folder))));
    }
    report(&faults);
}
