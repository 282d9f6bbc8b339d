//! Troubles under load, as whoever is on call sees them: each shows in metrics and status, with its cause.
//!
//! `make on-call` prints what each page shows, and how long after the trouble began.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kaspr_tests::clock::{now, pause};
use kaspr_tests::counting::App;
use kaspr_tests::http::{get, series};
use kaspr_tests::kafka::{Broker, broker, children, free_port};
use kaspr_tests::load::{Load, Shape};
use kaspr_tests::served::{PATIENCE, Served, app, event};
use serde_json::Value;

const METRICS: &str = "/metrics";
const STATUS: &str = "/kaspr/status";

/// A page, and its words on a trouble; `None`: it shows nothing yet.
type Sign<'a> = (&'a str, &'a dyn Fn(&str) -> Option<String>);

/// Waits until all signs of a trouble show, and prints when each came.
#[track_caller]
#[allow(clippy::print_stdout, reason = "observations are what make on-call is for")]
fn shows(served: &Served, trouble: &str, began: Instant, signs: &[Sign<'_>]) {
    let mut seen: Vec<Option<(Duration, String)>> = vec![None; signs.len()];
    while seen.iter().any(Option::is_none) {
        for ((page, sign), seen) in signs.iter().zip(&mut seen).filter(|(_, seen)| seen.is_none()) {
            let body = get(served.port, page).map(|page| page.body).unwrap_or_default();
            *seen = sign(&body).map(|found| (now() - began, found));
        }
        let missing = || signs.iter().zip(&seen).filter(|(_, seen)| seen.is_none()).map(|((page, _), _)| *page);
        let status = || served.get(STATUS).body;
        assert!(now() - began < PATIENCE, "{trouble}: {:?} does not show it: {}", missing().next(), status());
        pause(Duration::from_millis(100));
    }
    for ((page, _), seen) in signs.iter().zip(seen) {
        let (after, found) = seen.expect("all have shown it");
        println!("{trouble}: {page} after {:.1} s: {found}", after.as_secs_f64());
    }
}

/// The first series of a family that is so, as the page has it.
fn metric(page: &str, name: &str, is_so: impl Fn(&str, f64) -> bool) -> Option<String> {
    let found = series(page, name).into_iter().find(|(labels, value)| is_so(labels, *value));
    found.map(|(labels, value)| format!("{name}{{{labels}}} {value}"))
}

/// The words of the status on the first worker of which it says something.
fn of_worker(page: &str, find: impl Fn(&Value) -> Option<String>) -> Option<String> {
    let status: Value = serde_json::from_str(page).ok()?;
    status["workers"].as_array()?.iter().find_map(find)
}

/// Commits that wait, or a worker's thread that a call of Kafka's client keeps.
fn waits_for_a_broker(page: &str) -> Option<String> {
    let commits = metric(page, "kaspr_commit_age_seconds", |_, value| value > 1.0);
    commits.or_else(|| metric(page, "kaspr_turn_age_seconds", |_, value| value > 2.0))
}

/// The reason why a worker does not do its work, where it has these words.
fn why(page: &str, words: &str) -> Option<String> {
    of_worker(page, |worker| {
        let why = worker["why"].as_str().filter(|why| why.contains(words))?;
        Some(format!("\"why\": \"{why}\" ({})", worker["state"].as_str().unwrap_or_default()))
    })
}

/// The cause that holds a partition, the call that keeps the worker's thread, or commits that wait.
fn holds(page: &str) -> Option<String> {
    of_worker(page, |worker| {
        let readers = worker["partitions"].as_array()?.iter().filter_map(|part| part["readers"].as_array()).flatten();
        let held =
            readers.filter_map(|reader| reader["holds"].as_str()).find(|held| held.contains("waiting for the broker"));
        let call = worker["running"]["what"].as_str().map(|what| format!("\"running\": \"{what}\""));
        let waits = worker["commitAge"].as_f64().filter(|age| *age > 1.0).map(|age| format!("\"commitAge\": {age}"));
        held.map(|held| format!("\"holds\": \"{held}\"")).or(call).or(waits)
    })
}

/// A load of this many bytes an event.
fn load(broker: &Broker, topic: &str, padding: usize) -> Load {
    let shape = Shape { rate: 100, fails_every: 0, padding, ..Shape::default() };
    Load::start(&broker.servers, topic, shape, u64::MAX)
}

/// Waits until every event of a load has come out, once.
fn ends(served: &Served, broker: &Broker, output: &str, load: Load) {
    let sent = i64::try_from(load.end()).expect("few");
    served.wait_until("all events", || broker.count(output) == sent);
}

/// An app under load, from the time at which events come out.
fn under_load(app: App, args: &[&str], broker: &Broker, (input, output): (&str, &str)) -> (Served, Load) {
    let served = Served::start(app, args).ready();
    let load = load(broker, input, 0);
    served.wait_until("events", || broker.count(output) > 50);
    (served, load)
}

fn kill(process: i32, signal: i32) {
    // SAFETY: the process is a worker whose supervisor lives, so the number is its own.
    unsafe { libc::kill(process, signal) };
}

#[test]
fn a_worker_that_is_killed() {
    let broker = broker();
    let (app, input, output) = app(broker, 2, "");
    let (served, load) = under_load(app, &["--workers", "2"], broker, (&input, &output));
    let began = now();
    kill(children(served.child.id())[0], libc::SIGKILL);
    shows(
        &served,
        "a worker is killed",
        began,
        &[
            (METRICS, &|page| metric(page, "kaspr_ready", |_, value| value == 0.0)),
            (METRICS, &|page| metric(page, "kaspr_worker_restarts_total", |_, value| value == 1.0)),
            (STATUS, &|page| why(page, "SIGKILL")),
        ],
    );
    ends(&served, broker, &output, load);
}

#[test]
fn a_worker_that_is_paused() {
    let broker = broker();
    let (app, input, output) = app(broker, 2, "");
    let (served, load) = under_load(app, &["--workers", "2"], broker, (&input, &output));
    let (began, paused) = (now(), children(served.child.id())[0]);
    kill(paused, libc::SIGSTOP);
    shows(
        &served,
        "a worker is paused",
        began,
        &[
            (METRICS, &|page| metric(page, "kaspr_turn_age_seconds", |_, value| value > 3.0)),
            (STATUS, &|page| why(page, "has not reported")),
        ],
    );
    kill(paused, libc::SIGCONT);
    ends(&served, broker, &output, load);
}

#[test]
fn an_event_that_kills_its_process() {
    let broker = broker();
    let (app, input, output) = app(broker, 2, "");
    // As in a pod: its members have names, so that the group waits for none that is gone.
    let (served, load) =
        under_load(app.on_disk(), &["--workers", "2", "--instance", "pod-0"], broker, (&input, &output));
    let began = now();
    broker.produce(&input, [event("exit")]);
    shows(
        &served,
        "an event kills its process",
        began,
        &[
            (METRICS, &|page| metric(page, "kaspr_worker_restarts_total", |_, value| value > 0.0)),
            (STATUS, &|page| why(page, "exit status: 9")),
        ],
    );
    shows(
        &served,
        "it was tried three times, and has failed",
        began,
        &[
            (METRICS, &|page| metric(page, "kaspr_failures_total", |labels, _| labels.contains("ProcessCrash"))),
            (STATUS, &|page| {
                of_worker(page, |worker| {
                    let failures = worker["failures"].as_array()?;
                    failures.iter().find(|failure| failure["kind"] == "ProcessCrash").map(Value::to_string)
                })
            }),
        ],
    );
    ends(&served, broker, &output, load);
}

#[test]
fn a_broker_that_is_killed() {
    let mut broker = Broker::start();
    // One that keeps its data when it is killed.
    broker.stop();
    broker.start_again(false);
    let (app, input, output) = app(&broker, 2, "");
    let (served, load) = under_load(app, &[], &broker, (&input, &output));
    let began = now();
    broker.stop();
    shows(
        &served,
        "the broker is killed",
        began,
        &[
            (METRICS, &|page| {
                metric(page, "kaspr_kafka_broker_up", |_, value| value == 0.0).or_else(|| waits_for_a_broker(page))
            }),
            (STATUS, &holds),
        ],
    );
    broker.start_again(true);
    ends(&served, &broker, &output, load);
}

#[test]
fn a_broker_that_is_paused() {
    let broker = Broker::start();
    let (app, input, output) = app(&broker, 2, "");
    let (served, load) = under_load(app, &[], &broker, (&input, &output));
    let began = now();
    broker.freeze(true);
    shows(&served, "the broker is paused", began, &[(METRICS, &waits_for_a_broker), (STATUS, &holds)]);
    broker.freeze(false);
    ends(&served, &broker, &output, load);
}

/// The command on a disk of a few MB that holds this folder; where the system lets no disk be mounted, its files may
/// not grow beyond one.
fn on_a_small_disk(command: &Command, folder: &Path) -> Command {
    // SAFETY: the call has no conditions.
    let user: &[&str] = if unsafe { libc::geteuid() } == 0 { &[] } else { &["--user", "--map-root-user"] };
    let mounts = Command::new("unshare").args(user).args(["--mount", "true"]).stderr(Stdio::null()).status();
    let mut small = match mounts.is_ok_and(|status| status.success()) {
        true => {
            let mut small = Command::new("unshare");
            let mount = "mount -t tmpfs -o size=4m tmpfs \"$0\" && exec \"$@\"";
            small.args(user).args(["--mount", "sh", "-c", mount]).arg(folder);
            small
        }
        false => {
            let mut small = Command::new("sh");
            small.args(["-c", "ulimit -f 2048; exec \"$@\"", "sh"]);
            small
        }
    };
    small.arg(command.get_program()).args(command.get_args());
    small.current_dir(command.get_current_dir().expect("the project's root"));
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => small.env(name, value),
            None => small.env_remove(name),
        };
    }
    small
}

#[test]
fn a_disk_that_is_full() {
    let broker = broker();
    let (app, input, output) = app(broker, 2, "");
    let (app, port) = (app.on_disk(), free_port());
    std::fs::create_dir_all(app.state()).expect("made");
    let command = on_a_small_disk(&app.command(&["--web-port", &port.to_string()]), &app.state());
    let served = Served::spawn(app, port, command, |_, _| {}).ready();
    let writable = |page: &str, value: f64| metric(page, "kaspr_state_dir_writable", |_, seen| seen == value);
    assert!(writable(&served.get(METRICS).body, 1.0).is_some());
    // Each event is a key of the table: its disk holds some thousand.
    let load = load(broker, &input, 20_000);
    served.wait_until("the store to meet it", || served.app.words(0).contains("the store of tables cannot be written"));
    shows(
        &served,
        "the disk is full",
        now(),
        &[
            (METRICS, &|page| writable(page, 0.0)),
            (STATUS, &|page| {
                let status: Value = serde_json::from_str(page).ok()?;
                status["stateDirFault"].as_str().map(|fault| format!("\"stateDirFault\": \"{fault}\""))
            }),
        ],
    );
    let fault = served.get(STATUS).json()["stateDirFault"].as_str().unwrap_or_default().to_owned();
    assert!(fault.contains("No space left") || fault.contains("File too large"), "{fault}");
    // Its tables are restored from their changelog, and it goes on without a disk.
    ends(&served, broker, &output, load);
    served.wait_until("readiness", || served.get("/health/ready").status == 200);
}
