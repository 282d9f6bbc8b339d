//! The programs as they are built, and runs of them.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::root;

/// A program of the workspace, built beside the tests.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its file");
    let folder = test.parent().expect("programs are built in target/PROFILE");
    // Tests are built in target/PROFILE/deps.
    let folder = if folder.ends_with("deps") { folder.parent().expect("it has a parent") } else { folder };
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: build the workspace first (cargo build)", path.display());
    path
}

/// A command in the project's root, with a steady environment.
pub fn command(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program(name));
    command.args(arguments).current_dir(root()).env("PYTHONHASHSEED", "0").env("NO_COLOR", "1");
    for (name, _) in std::env::vars() {
        if name.starts_with("KASPR_") || name.starts_with("K_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a program to its end with this standard input.
pub fn run(name: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = command(name, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // A program that refuses its arguments does not read.
    let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
    child.wait_with_output().expect("the program ends")
}

/// Standard output as text.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard error as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Gives what `kaspr-exec test` says of the tests of a spec, with its exit status. The folder's name stands as `.`.
pub fn said_of_tests(spec: &str, tests: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder is made");
    std::fs::write(folder.path().join("agent.yaml"), spec).expect("a spec can be written");
    std::fs::write(folder.path().join("tests.yaml"), tests).expect("tests can be written");
    let path = folder.path().display().to_string();
    let output = run("kaspr-exec", &["test", &path], "");
    (output.status.code(), (stdout(&output) + &stderr(&output)).replace(&path, "."))
}
