//! A process as the operator starts it: `kaspr-exec run` without arguments, told everything by variables.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::clock::{now, pause};
use crate::process::terminate;
use crate::program::command;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(90);

/// An agent that passes events on, and its topics' names in capitals, for variables to stand in.
pub const ECHO: &str = "\
agents:
- name: echo
  input: {topic: {name: INPUT}}
  output: {topics: [{name: OUTPUT}]}
  processors:
    pipeline: [pass_on]
    operations:
    - name: pass_on
      map: {python: \"def pass_on(value): return value\"}
";

/// A pod: a folder of definitions, a volume, a file for its last words, and variables.
pub struct Pod {
    folder: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Pod {
    /// A pod of this app, without definitions.
    pub fn new(app: &str) -> Pod {
        let folder = tempfile::tempdir().expect("a folder");
        let pod = Pod { folder, variables: Vec::new() };
        std::fs::write(pod.path("termination-log"), "").expect("written");
        let [definitions, last_words] =
            ["definitions", "termination-log"].map(|name| pod.path(name).display().to_string());
        pod.with("K_APP_NAME", app).with("K_DEFINITIONS_DIR", &definitions).with("KASPR_TERMINATION_LOG", &last_words)
    }

    /// Adds a variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Pod {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a file of definitions.
    #[must_use]
    pub fn defined(self, file: &str, text: &str) -> Pod {
        self.define(file, text);
        self
    }

    /// Writes a file of definitions, as the operator mounts one into a pod that runs.
    pub fn define(&self, file: &str, text: &str) {
        std::fs::create_dir_all(self.path("definitions")).expect("made");
        std::fs::write(self.path("definitions").join(file), text).expect("written");
    }

    /// A path in the pod's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a folder of authorities as OpenSSL reads it: each file under the hash of its subject.
    ///
    /// # Panics
    /// If OpenSSL cannot read the certificate.
    pub fn authorities(&self, file: &Path) -> String {
        let hash = Command::new("openssl").args(["x509", "-hash", "-noout", "-in"]).arg(file).output();
        let hash = String::from_utf8(hash.expect("openssl is installed").stdout).expect("a hash");
        std::fs::create_dir(self.path("authorities")).expect("made");
        std::fs::copy(file, self.path("authorities").join(format!("{}.0", hash.trim()))).expect("copied");
        self.path("authorities").display().to_string()
    }

    /// The command, with these arguments behind `run`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command("kaspr-exec", &[&["run"], arguments].concat());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub fn ends(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("it starts")
    }

    /// Starts it.
    pub fn start(&self) -> Started<'_> {
        self.start_as(|_| {})
    }

    /// Starts it with a command that was changed.
    pub fn start_as(&self, change: impl Fn(&mut Command)) -> Started<'_> {
        let log = std::fs::File::create(self.path("log")).expect("a log");
        let mut command = self.command(&[]);
        change(&mut command);
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("it starts");
        Started { child, pod: self }
    }

    /// Its last words.
    pub fn last_words(&self) -> String {
        read(&self.path("termination-log"))
    }
}

/// A pod's process. It is killed when it is dropped.
pub struct Started<'a> {
    child: Child,
    pod: &'a Pod,
}

impl Started<'_> {
    /// Everything that it has logged.
    pub fn words(&self) -> String {
        read(&self.pod.path("log"))
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until something is so.
    #[track_caller]
    pub fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let began = now();
        while !is_so() {
            assert!(now() - began < PATIENCE, "waited for {what}:\n{}", self.words());
            pause(Duration::from_millis(50));
        }
    }

    /// Waits until it has logged this.
    #[track_caller]
    pub fn wait_for(&self, words: &str) {
        self.wait_until(words, || self.words().contains(words));
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the child has not been waited for, so the number is its own.
        unsafe { libc::kill(i32::try_from(self.child.id()).expect("a process number"), signal) };
    }

    /// True if it has not ended.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("it can be asked").is_none()
    }

    /// Ends it as Kubernetes does; gives its exit status.
    pub fn terminate(&mut self) -> Option<i32> {
        terminate(self.child.id());
        self.wait()
    }

    /// Waits for its end; gives its exit status.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
