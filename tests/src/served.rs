//! A worker that serves a port, and an agent whose events say what it does.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::clock::{now, pause};
use crate::counting::{App, shop};
use crate::http::{Response, get};
use crate::kafka::{Broker, Record, free_port};

/// Longest time that anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// A port at which no broker listens.
pub const NOWHERE: &str = "127.0.0.1:1";

/// An agent with a table, whose values say what its worker does.
const STEP: &str = r#"
import asyncio, os, time

def step(value, counts):
    counts[str(value)] = counts.get(str(value), 0) + 1
    if value == "exit":
        os._exit(9)
    if value == "block":
        time.sleep(60)
    if value == "await":
        return asyncio.sleep(2, value)
    if value == "fail":
        raise KeyError("card 4711")
    return value
"#;

/// An agent from one topic to another with a table, and more of its spec.
pub fn spec(input: &str, output: &str, more: &str) -> String {
    let python: String = STEP.trim_start().lines().map(|line| format!("            {line}\n")).collect();
    format!(
        "apiVersion: kaspr.io/v1alpha1\nkind: KasprTable\nmetadata: {{name: counts}}\n---\n\
         apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata: {{name: shop}}\nspec:\n{more}\
         \x20 input: {{topic: {{name: {input}}}}}\n  output: {{topics: [{{name: {output}, declare: true}}]}}\n\
         \x20 processors:\n    pipeline: [step]\n    operations:\n      - name: step\n        \
         tables: [{{name: counts, paramName: counts}}]\n        \
         map:\n          entrypoint: step\n          python: |\n{python}"
    )
}

/// A worker that serves a port. It ends with its test.
pub struct Served {
    /// The app.
    pub app: App,
    /// The port.
    pub port: u16,
    /// The process.
    pub child: Child,
}

impl Served {
    /// Starts a worker of this app with the port as a flag.
    pub fn start(app: App, flags: &[&str]) -> Served {
        Served::start_by(app, flags, |_, _| {})
    }

    /// Starts a worker whose command gets something more.
    pub fn start_by(app: App, flags: &[&str], more: impl Fn(&mut Command, u16)) -> Served {
        let port = free_port();
        let said = port.to_string();
        let command = app.command(&[&["--web-port", &said], flags].concat());
        Served::spawn(app, port, command, more)
    }

    /// Starts this command, with something more.
    ///
    /// # Panics
    /// If it does not start.
    pub fn spawn(app: App, port: u16, mut command: Command, more: impl Fn(&mut Command, u16)) -> Served {
        more(&mut command, port);
        let log = std::fs::File::create(app.log(0)).expect("a log");
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("it starts");
        Served { app, port, child }
    }

    /// A page, once the port is served.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        let mut found = None;
        self.wait_until(path, || {
            found = get(self.port, path).ok();
            found.is_some()
        });
        found.expect("it was found")
    }

    /// Waits until something is so.
    #[track_caller]
    pub fn wait_until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let began = now();
        while !is_so() {
            let status = get(self.port, "/kaspr/status").map(|page| page.body).unwrap_or_default();
            assert!(now() - began < PATIENCE, "waited for {what}:\n{status}");
            pause(Duration::from_millis(50));
        }
    }

    /// Waits until the worker is ready.
    #[track_caller]
    pub fn ready(self) -> Served {
        self.wait_until("ready", || self.get("/health/ready").status == 200);
        self
    }

    /// Waits until a page says this of its only worker.
    #[track_caller]
    pub fn wait_for_worker(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        self.wait_until(what, || {
            last = self.get("/kaspr/status").json()["workers"][0].clone();
            is_so(&last)
        });
        last
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An app on the test's broker, with its topics.
pub fn app(broker: &Broker, partitions: i32, more: &str) -> (App, String, String) {
    let (input, output) = (broker.topic("in", partitions), broker.topic("out", partitions));
    (App::new(broker, &spec(&input, &output, more)), input, output)
}

/// An app that never finds its broker.
pub fn lost() -> App {
    App::at(NOWHERE, &shop("in", &["{name: out}".to_owned()], "pass"))
}

/// An event of the first partition.
pub fn event(value: &str) -> Record {
    Record { partition: Some(0), ..Record::new("k", format!("\"{value}\"")) }
}
