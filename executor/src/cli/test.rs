//! `kaspr-exec test`: finds the tests, plays them, tells what differs.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use kaspr_ir::plan::Plan;
use pyo3::Python;
use serde_json::json;

use super::arguments::{LogFormat, ResultFormat, TestArguments};
use super::stop::{FAULT, Stop};
use super::terminal::start_log;
use crate::python::Interpreter;
use crate::settings::Settings;
use crate::testing::{Case, Suite, difference, play};

/// The file that holds the tests of the specs beside it.
pub const TESTS: &str = "tests.yaml";

/// An app and its tests.
pub struct Tested {
    /// The folder of both.
    pub folder: PathBuf,
    /// The app.
    pub plan: Rc<Plan>,
    /// What it runs with.
    pub settings: Settings,
    /// The tests.
    pub suite: Suite,
}

/// The folders of the paths that hold tests, each once, sorted.
pub fn tested_folders(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Stop> {
    let mut folders = Vec::new();
    for path in paths {
        let folder = if path.is_dir() { path.clone() } else { path.parent().unwrap_or(Path::new(".")).to_owned() };
        let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
        let before = folders.len();
        walk(&folder, &mut folders)
            .map_err(|error| Stop::refused(format!("cannot read \"{}\": {error}", folder.display())))?;
        if folders.len() == before {
            return Err(Stop::refused(format!("there is no {TESTS} in \"{}\" or below", folder.display())));
        }
    }
    folders.sort();
    folders.dedup();
    Ok(folders)
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if folder.join(TESTS).is_file() {
        found.push(folder.to_owned());
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, found)?;
        }
    }
    Ok(())
}

/// Plays all tests; a fault where one fails.
pub fn run_tests(tested: &[Tested], arguments: &TestArguments) -> Result<(), Stop> {
    start_log(LogFormat::Text, arguments.log_level);
    let interpreter = Interpreter::start(&arguments.python_path);
    let (mut passed, mut failed) = (0, 0);
    interpreter.run(|py| {
        for app in tested {
            for case in &app.suite.tests {
                if arguments.only.as_ref().is_some_and(|part| !case.name.contains(part.as_str())) {
                    continue;
                }
                let found = run_case(py, app, case);
                tell(app, case, found.as_deref(), arguments.format);
                if found.is_none() { passed += 1 } else { failed += 1 }
            }
        }
    });
    if arguments.format == ResultFormat::Text {
        print_line(&format!("{passed} passed, {failed} failed"));
    }
    match (failed, passed) {
        (0, 0) => Err(Stop::refused("no test has such a name")),
        (0, _) => Ok(()),
        _ => Err(Stop(FAULT, String::new())),
    }
}

/// What differs, or why the test could not be played.
fn run_case(py: Python<'_>, app: &Tested, case: &Case) -> Option<String> {
    let config = match app.settings.config(&app.plan, 0) {
        Ok(config) => config,
        Err(error) => return Some(error.to_string()),
    };
    match play(py, &app.plan, &config, &app.settings.for_python(&config), (case, &app.folder)) {
        Ok(came) => difference(&case.expect, &came),
        Err(why) => Some(why),
    }
}

fn tell(app: &Tested, case: &Case, found: Option<&str>, format: ResultFormat) {
    let folder = app.folder.display();
    if format == ResultFormat::Json {
        let result = json!({
            "folder": folder.to_string(), "name": case.name, "passed": found.is_none(), "difference": found,
        });
        return print_line(&result.to_string());
    }
    let colour =
        |code: &str, text: &str| match std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        };
    match found {
        None => print_line(&format!("{} {folder}: {}", colour("32", "ok  "), case.name)),
        Some(found) => {
            print_line(&format!("{} {folder}: {}", colour("31", "FAIL"), case.name));
            for line in found.lines() {
                let code = if line.starts_with("  expected") {
                    "32"
                } else if line.starts_with("  came") {
                    "31"
                } else {
                    "0"
                };
                print_line(&format!("     {}", colour(code, line)));
            }
        }
    }
}

#[allow(clippy::print_stdout, reason = "the results of tests are its output")]
fn print_line(line: &str) {
    println!("{line}");
}
