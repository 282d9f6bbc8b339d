//! Rights that an app needs: `check` names each that is missing and has no effect on the app, `run` stops
//! with the same words, and an app that passes `check` starts.

use std::process::{Child, Output, Stdio};
use std::time::Duration;

use kaspr_tests::acl::{self, On, To};
use kaspr_tests::clock::{now, pause};
use kaspr_tests::kafka::{Broker, Record, unique};
use kaspr_tests::process;
use kaspr_tests::program::{command, stderr, stdout};

const PATIENCE: Duration = Duration::from_secs(60);

/// An app with a table, an output, an output that it declares, and dead letters, run by the user bob.
struct App<'a> {
    broker: &'a Broker,
    folder: tempfile::TempDir,
    name: String,
    input: String,
    output: String,
    made: String,
    dead: String,
}

impl<'a> App<'a> {
    fn new(broker: &'a Broker) -> App<'a> {
        let app = App {
            broker,
            folder: tempfile::tempdir().expect("a folder"),
            name: unique("app"),
            input: broker.topic("in", 2),
            output: broker.topic("out", 2),
            made: unique("made"),
            dead: broker.topic("dead", 1),
        };
        let App { input, output, made, dead, .. } = &app;
        let spec = format!(
            "apiVersion: kaspr.io/v1alpha1\nkind: KasprTable\nmetadata: {{name: counts}}\nspec: {{keySerializer: json}}\n---\n\
             apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata: {{name: counter}}\nspec:\n  \
             input: {{topic: {{name: {input}}}}}\n  \
             output:\n    topics:\n      - {{name: {output}}}\n      - {{name: {made}, declare: true, partitions: 1}}\n  \
             onError: {{action: deadLetter, topic: {dead}}}\n  \
             processors:\n    pipeline: [count]\n    operations:\n      - name: count\n        \
             tables: [{{name: counts, paramName: counts}}]\n        map:\n          entrypoint: count\n          python: |\n            \
             def count(value, counts):\n                counts['all'] = counts.get('all', 0) + 1\n                return value\n"
        );
        std::fs::write(app.folder.path().join("agent.yaml"), spec).expect("written");
        app
    }

    fn changelog(&self) -> String {
        format!("{}-counts-changelog", self.name)
    }

    fn ids(&self) -> String {
        format!("{}.", self.name)
    }

    /// All that the app needs, as (user's words, what, on what).
    fn needs(&self) -> Vec<(String, To, Thing)> {
        let topic = |right: &str, to, name: &str| {
            (format!("{right} on the topic \"{name}\""), to, Thing::Topic(name.to_owned()))
        };
        let log = self.changelog();
        vec![
            topic("READ", To::Read, &self.input),
            topic("WRITE", To::Write, &self.output),
            topic("WRITE", To::Write, &self.dead),
            topic("CREATE", To::Create, &self.made),
            topic("WRITE", To::Write, &self.made),
            topic("CREATE", To::Create, &log),
            topic("READ", To::Read, &log),
            topic("WRITE", To::Write, &log),
            (format!("READ on the group \"{}\"", self.name), To::Read, Thing::Group(self.name.clone())),
            (format!("WRITE on the transactional ids \"{}*\"", self.ids()), To::Write, Thing::Ids(self.ids())),
        ]
    }

    fn allow(&self, to: To, on: On<'_>) {
        acl::allow(&self.broker.servers, "bob", to, on);
    }

    fn revoke(&self, to: To, on: On<'_>) {
        acl::revoke(&self.broker.servers, "bob", to, on);
    }

    fn command(&self, what: &str, flags: &[&str]) -> std::process::Command {
        let mut command = command("kaspr-exec", &[what]);
        command.arg(self.folder.path().join("agent.yaml")).args(["--app", &self.name]).args(flags);
        command.args(["--bootstrap-servers", &self.broker.with_passwords()]);
        for setting in ["security.protocol=sasl_plaintext", "sasl.mechanisms=PLAIN", "sasl.username=bob"] {
            command.args(["--kafka", setting]);
        }
        command.env("KASPR_KAFKA_SASL_PASSWORD", "bobs-secret");
        command
    }

    fn check(&self, flags: &[&str]) -> Output {
        self.command("check", flags).output().expect("it runs")
    }

    /// Asserts that `check` finds this permission missing, and no other.
    fn misses(&self, flags: &[&str], told: &str) {
        let checked = self.check(flags);
        let words = stderr(&checked);
        assert_eq!(checked.status.code(), Some(1), "without {told}: {}{words}", stdout(&checked));
        assert!(words.contains(&format!("User:bob has no permission: {told}; to allow it:\n")), "{told}: {words}");
        assert_eq!(words.matches("has no permission").count(), 1, "nothing else is missing: {words}");
    }

    fn passes(&self, flags: &[&str]) {
        let checked = self.check(flags);
        assert_eq!(checked.status.code(), Some(0), "{}{}", stdout(&checked), stderr(&checked));
    }

    /// A run that stops at its start.
    fn stops(&self, flags: &[&str], told: &str) {
        let flags = [&["--until-caught-up", "--quiet"], flags].concat();
        let ended = self.command("run", &flags).output().expect("it runs");
        let words = stderr(&ended);
        assert_eq!(ended.status.code(), Some(1), "{told}: {words}");
        let line = format!("User:bob has no permission: {told}; to allow it:\n    kafka-acls.sh --bootstrap-server ");
        assert!(words.contains(&line), "{told}: {words}");
    }
}

/// A thing with its name.
enum Thing {
    Topic(String),
    Group(String),
    Ids(String),
}

impl Thing {
    fn on(&self) -> On<'_> {
        match self {
            Thing::Topic(name) => On::Topic(name),
            Thing::Group(name) => On::Group(name),
            Thing::Ids(name) => On::Ids(name),
        }
    }
}

#[test]
fn check_names_each_right_that_is_missing_and_a_run_with_all_starts() {
    let broker = Broker::closed();
    let app = App::new(&broker);
    app.needs().iter().for_each(|(_, to, on)| app.allow(*to, on.on()));
    app.passes(&[]);
    for (told, to, on) in app.needs() {
        // No broker says what may be done with records of a topic that does not exist yet.
        let is_made = told.contains(&app.made) || told.contains(&app.changelog());
        if to != To::Create && is_made {
            continue;
        }
        app.revoke(to, on.on());
        app.misses(&[], &told);
        // The right to see a thing is not enough.
        app.allow(To::Describe, on.on());
        app.misses(&[], &told);
        app.revoke(To::Describe, on.on());
        app.allow(to, on.on());
    }
    // No topic was made, and no member joined.
    assert_eq!((broker.partitions(&app.changelog()), broker.partitions(&app.made)), (0, 0));
    assert_eq!(broker.committed(&app.name, &app.input), [None, None]);

    let log = app.changelog();
    let stops = |told: &str, to: To| (to == To::Create && told.contains(&log)) || !told.contains("topic");
    let state = app.folder.path().join("state").display().to_string();
    for (told, to, on) in app.needs().into_iter().filter(|(told, to, _)| stops(told, *to)) {
        app.revoke(to, on.on());
        app.stops(&["--state-dir", &state], &told);
        app.allow(to, on.on());
    }
    // What is missing was found before anything was made.
    assert_eq!((broker.partitions(&app.changelog()), broker.partitions(&app.made)), (0, 0));
    assert!(!std::path::Path::new(&state).exists());
    broker.produce(&app.input, (0..10).map(|n| Record::new(format!("k{n}"), "1")));
    let ended = app.command("run", &["--until-caught-up", "--quiet"]).output().expect("it runs");
    assert_eq!((ended.status.code(), broker.count(&app.output)), (Some(0), 10), "{}", stderr(&ended));

    // Now that they exist, what may be done with their records is asked too.
    for (told, to, on) in app.needs() {
        if to == To::Create {
            app.revoke(to, on.on());
            app.passes(&[]);
        } else if matches!(on, Thing::Topic(_)) {
            app.revoke(to, on.on());
            app.misses(&[], &told);
            app.allow(to, on.on());
        }
    }
}

/// A running worker, with its log.
struct Worker(Child, std::path::PathBuf);

impl Worker {
    fn start(app: &App<'_>, flags: &[&str]) -> Worker {
        let path = app.folder.path().join("log");
        let log = std::fs::File::create(&path).expect("a log");
        let child = app.command("run", flags).stdout(Stdio::null()).stderr(log).spawn().expect("it starts");
        Worker(child, path)
    }

    fn words(&self) -> String {
        std::fs::read_to_string(&self.1).unwrap_or_default()
    }

    fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let began = now();
        while !is_so() {
            assert!(now() - began < PATIENCE, "waited for {what}\n{}", self.words());
            pause(Duration::from_millis(50));
        }
    }

    fn end(mut self) -> (Option<i32>, String) {
        process::terminate(self.0.id());
        (self.0.wait().expect("it ends").code(), self.words())
    }
}

#[test]
fn check_leaves_a_running_worker_alone() {
    let broker = Broker::closed();
    let app = App::new(&broker);
    app.needs().iter().for_each(|(_, to, on)| app.allow(*to, on.on()));
    let worker = Worker::start(&app, &["--instance", "a"]);
    let records = |numbers: std::ops::Range<u32>| numbers.map(|n| Record::new(format!("k{n}"), "1"));
    broker.produce(&app.input, records(0..10));
    worker.wait_until("the first records", || broker.count(&app.output) == 10);
    let members = || broker.members(&app.name);
    let before = members();
    app.passes(&["--instance", "a", "--workers", "2"]);

    // Single ids, of a worker that runs and of one that does not.
    app.revoke(To::Write, On::Ids(&app.ids()));
    let id = |number: u32| format!("{}a.{number}", app.ids());
    app.allow(To::Write, On::Id(&id(0)));
    app.passes(&["--instance", "a"]);
    let told = format!("WRITE on the transactional ids \"{}*\"", app.ids());
    app.misses(&["--instance", "a", "--workers", "2"], &told);
    app.misses(&[], &told);
    app.allow(To::Write, On::Id(&id(1)));
    app.passes(&["--instance", "a", "--workers", "2"]);

    broker.produce(&app.input, records(10..20));
    worker.wait_until("the others", || broker.count(&app.output) == 20);
    assert_eq!(members(), before);
    let (status, words) = worker.end();
    assert_eq!(status, Some(0), "{words}");
    assert!(!words.contains("WARN") && !words.contains("replaced"), "{words}");
    app.passes(&["--instance", "a"]);
}

#[test]
fn an_app_that_only_reads_needs_no_more_than_that() {
    let broker = Broker::closed();
    let app = App::new(&broker);
    let spec = format!(
        "apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata: {{name: reader}}\nspec:\n  input: {{topic: {{pattern: \"{}.*\"}}}}\n  \
         processors:\n    pipeline: [look]\n    operations:\n      - name: look\n        \
         map: {{python: \"def look(value): return value\"}}\n",
        app.input
    );
    std::fs::write(app.folder.path().join("agent.yaml"), spec).expect("written");
    broker.produce(&app.input, (0..10).map(|n| Record::new(format!("k{n}"), "1")));
    let (flags, told) = (["--guarantee", "at-least-once"], format!("READ on the topic \"{}\"", app.input));
    app.allow(To::Read, On::Group(&app.name));
    // Topics that cannot be seen do not match.
    app.passes(&flags);
    app.allow(To::Describe, On::Topic(&app.input));
    app.misses(&flags, &told);
    app.stops(&flags, &told);
    app.allow(To::Read, On::Topic(&app.input));
    app.passes(&flags);
    let ended =
        app.command("run", &[&["--until-caught-up", "--quiet"], &flags[..]].concat()).output().expect("it runs");
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    assert_eq!(broker.lag(&app.name, &app.input), 0);
}
