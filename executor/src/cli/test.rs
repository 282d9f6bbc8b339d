//! `kaspr-exec test`: finds the tests, plays them, reports what differs.
//!
//! Results go to standard output, logs to standard error. A test that fails ends nothing: all are played, and
//! the exit status tells at the end.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use kaspr_ir::plan::Plan;
use kasprc::load::leads_back;
use serde_json::json;

use super::arguments::{ResultFormat, TestArguments};
use super::colour;
use super::stop::{FAULT, Stop};
use super::terminal::start_log;
use crate::code::python::Interpreter;
use crate::config::settings::Settings;
use crate::run::testing::{Came, Case, Difference, Put, Suite, difference, play, puts};

/// The file that holds the tests of the specs beside it.
pub const TESTS: &str = "tests.yaml";

/// An app and its tests.
///
/// `main.rs` makes it: it reads the tests' file and compiles the specs.
pub struct Tested {
    /// The folder of both.
    pub folder: PathBuf,
    /// The app.
    pub plan: Rc<Plan>,
    /// Settings for the run.
    pub settings: Settings,
    /// The tests.
    pub suite: Suite,
}

/// The folders of the paths that hold tests, each once, sorted. A path may be a folder, or a spec beside the
/// tests.
///
/// # Errors
///
/// A folder that cannot be read, or one without tests in it or below.
pub fn tested_folders(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Stop> {
    let mut folders = Vec::new();
    for path in paths {
        let folder = if path.is_dir() { path.clone() } else { path.parent().unwrap_or(Path::new(".")).to_owned() };
        // The parent of a bare file name is the empty path, which no system call takes for the current folder.
        let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
        let before = folders.len();
        walk(&folder, &mut Vec::new(), &mut folders)
            .map_err(|error| Stop::refused(format!("cannot read \"{}\": {error}", folder.display())))?;
        if folders.len() == before {
            return Err(Stop::refused(format!("there is no {TESTS} in \"{}\" or below", folder.display())));
        }
    }
    folders.sort();
    folders.dedup();
    Ok(folders)
}

/// Adds the folders with tests, this one included.
fn walk(folder: &Path, above: &mut Vec<PathBuf>, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if leads_back(folder, above) {
        return Ok(());
    }
    above.push(folder.to_owned());
    if folder.join(TESTS).is_file() {
        found.push(folder.to_owned());
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, above, found)?;
        }
    }
    above.pop();
    Ok(())
}

/// Writes what came into the file of an app's tests; the error says why it cannot be written so. Given by
/// `main.rs`, which knows how to rewrite YAML and to keep its comments.
pub type Save<'a> = &'a dyn Fn(&Tested, &[Put]) -> Result<(), String>;

/// The line of a place in the file of an app's tests.
///
/// `None` if it cannot be found; the pointer is a JSON pointer into the tests.
pub type Line<'a> = &'a dyn Fn(&Tested, &str) -> Option<u32>;

/// Plays all tests; a fault where one fails and is not updated. With `--update`, a test that differs and is
/// written counts as updated, and not as failed.
///
/// # Errors
///
/// Some failed, or none was chosen.
pub fn run_tests(tested: &[Tested], arguments: &TestArguments, save: Save<'_>, line: Line<'_>) -> Result<(), Stop> {
    start_log(arguments.log_level);
    let interpreter = Interpreter::start(&arguments.python_path);
    let mut counts = Counts::default();
    interpreter.run(|_| {
        for app in tested {
            // All tests of a file are played before it is rewritten: their places in it stay true meanwhile.
            let played = run_app(&interpreter, app, arguments.only.as_deref());
            let saved = if arguments.update { saved(app, &played, save) } else { Ok(()) };
            for played in &played {
                let result = result(played, arguments.update, &saved);
                let at = played.difference.as_ref().and_then(|found| {
                    let line = line(app, &format!("/tests/{}{}", played.number, found.pointer))?;
                    Some(format!("{}:{line}", app.folder.join(TESTS).display()))
                });
                tell(app, (played.case, at), &result, arguments.format);
                counts.count(&result);
            }
        }
    });
    let Counts { passed, updated, failed } = counts;
    if arguments.format == ResultFormat::Text {
        let updates = if arguments.update { format!("{updated} updated, ") } else { String::new() };
        print_line(&format!("{passed} passed, {updates}{failed} failed"));
    }
    match (failed, passed + updated) {
        // A name in `--only` that no test has any more would otherwise pass for ever.
        (0, 0) => Err(Stop::refused("no test has such a name")),
        (0, _) => Ok(()),
        _ => Err(Stop(FAULT, String::new())),
    }
}

/// For the last line.
#[derive(Default)]
struct Counts {
    passed: usize,
    updated: usize,
    failed: usize,
}

impl Counts {
    fn count(&mut self, result: &Found) {
        match result {
            Found::Nothing => self.passed += 1,
            Found::Updated => self.updated += 1,
            Found::Difference(_) => self.failed += 1,
        }
    }
}

/// The result of a test.
enum Found {
    Nothing,
    /// It expects what came now.
    Updated,
    Difference(String),
}

/// A test that was played. Its number is its place in the file.
struct Played<'a> {
    number: usize,
    case: &'a Case,
    /// The error is why it could not be played.
    came: Result<Came, String>,
    difference: Option<Difference>,
}

/// Plays the tests of an app whose names contain `only`.
fn run_app<'a>(interpreter: &Interpreter, app: &'a Tested, only: Option<&str>) -> Vec<Played<'a>> {
    let cases = app.suite.tests.iter().enumerate();
    let cases = cases.filter(|(_, case)| only.is_none_or(|part| case.name.contains(part)));
    let played = cases.map(|(number, case)| {
        let came = run_case(interpreter, app, case);
        let difference = match &came {
            Ok(came) => difference(&case.expect, came),
            Err(why) => Some(Difference { pointer: String::new(), words: why.clone() }),
        };
        Played { number, case, came, difference }
    });
    played.collect()
}

/// A worker of its own for each test, so that none sees another's tables or modules.
///
/// # Errors
///
/// The text says why the test could not be played: its code does not load, or the worker stopped.
fn run_case(interpreter: &Interpreter, app: &Tested, case: &Case) -> Result<Came, String> {
    let config = app.settings.config(&app.plan, 0).map_err(|error| error.to_string())?;
    let (here, folder) = (std::env::current_dir(), std::path::absolute(&app.folder));
    let folder = folder.map_err(|error| error.to_string())?;
    let settings = app.settings.for_python(&config);
    let came = interpreter
        .with_variables(&case.variables(), || play(interpreter, &app.plan, &config, &settings, (case, &folder)));
    // User code may have changed the process's folder; the files that follow are named from the one at the
    // start.
    match here.and_then(std::env::set_current_dir) {
        Ok(()) => came?,
        Err(error) => Err(error.to_string()),
    }
}

/// Writes what came where it differs.
///
/// # Errors
///
/// The file cannot be rewritten so: the caller reports that with each test that differs.
fn saved(app: &Tested, played: &[Played<'_>], save: Save<'_>) -> Result<(), String> {
    let mut all = Vec::new();
    for Played { number, case, came, difference } in played {
        if let (Ok(came), Some(_)) = (came, difference) {
            all.extend(puts(&case.expect, came).into_iter().map(|(at, json)| (format!("/tests/{number}{at}"), json)));
        }
    }
    if all.is_empty() { Ok(()) } else { save(app, &all) }
}

/// A test that could not be played has nothing to be updated with.
fn result(played: &Played<'_>, updates: bool, saved: &Result<(), String>) -> Found {
    match (&played.difference, saved) {
        (None, _) => Found::Nothing,
        (Some(_), Ok(())) if updates && played.came.is_ok() => Found::Updated,
        (Some(found), Err(why)) if played.came.is_ok() => {
            Found::Difference(format!("{}\ncannot update {TESTS}: {why}", found.words))
        }
        (Some(found), _) => Found::Difference(found.words.clone()),
    }
}

/// Writes the result of a test, as text or as one JSON object. `at` is the line of what was expected.
fn tell(app: &Tested, (case, at): (&Case, Option<String>), result: &Found, format: ResultFormat) {
    let folder = app.folder.display();
    let found = match result {
        Found::Difference(found) => Some(found),
        Found::Nothing | Found::Updated => None,
    };
    if format == ResultFormat::Json {
        let result = json!({
            "folder": folder.to_string(), "name": case.name, "passed": found.is_none(),
            "updated": matches!(result, Found::Updated), "difference": found, "at": at.filter(|_| found.is_some()),
        });
        return print_line(&result.to_string());
    }
    let colour = |code: &str, text: &str| match colour::in_stream(&std::io::stdout()) {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text.to_owned(),
    };
    let (code, word) = match result {
        Found::Nothing => ("32", "ok  "),
        Found::Updated => ("33", "new "),
        Found::Difference(_) => ("31", "FAIL"),
    };
    print_line(&format!("{} {folder}: {}", colour(code, word), case.name));
    for line in found.into_iter().flat_map(|found| found.lines()) {
        let code = match line {
            line if line.starts_with("  expected") => "32",
            line if line.starts_with("  came") => "31",
            _ => "0",
        };
        print_line(&format!("     {}", colour(code, line)));
    }
    if let Some(at) = at.filter(|_| found.is_some()) {
        print_line(&format!("     --> {at}"));
    }
}

#[allow(clippy::print_stdout, reason = "the results of tests are its output")]
fn print_line(line: &str) {
    println!("{line}");
}
