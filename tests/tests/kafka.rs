//! Agents on a real Kafka, as processes that come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use kaspr_exec::broker::partitioner::partition_for;
use kaspr_tests::clock::pause;
use kaspr_tests::figure;
use kaspr_tests::kafka::{Broker, Record, broker, unique};
use kaspr_tests::process;
use kaspr_tests::program::command;
use kaspr_tests::sleeps::{IDLE_MAX, Wakes};

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn agent(name: &str, input: &str, take: &str, output: &str, body: &str) -> String {
    format!(
        "apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata:\n  name: {name}\nspec:\n  input:\n    topic: {{name: {input}}}\n{take}\
         \x20 output:\n    topics:\n      - {{name: {output}}}\n  processors:\n    pipeline: [step]\n    operations:\n      - name: step\n        \
         map:\n          python: |\n            {body}\n---\n"
    )
}

const SAME: &str = "def step(value): return value";

/// A run on Kafka, in a folder of its own.
struct Run {
    folder: tempfile::TempDir,
    group: String,
    servers: String,
    flags: Vec<String>,
}

impl Run {
    fn new(broker: &Broker, specs: &str) -> Run {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("agents.yaml"), specs).expect("written");
        Run { folder, group: unique("app"), servers: broker.servers.clone(), flags: Vec::new() }
    }

    fn with(mut self, flags: &[&str]) -> Run {
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }

    fn log(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("log-{number}"))
    }

    fn start(&self, number: usize) -> Child {
        let specs = self.folder.path().join("agents.yaml");
        let mut command = command("kaspr-exec", &["run"]);
        command.arg(specs).args(["--bootstrap-servers", &self.servers, "--app", &self.group]).args(&self.flags);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log(number)).expect("a log");
        command.stdout(Stdio::null()).stderr(log).spawn().expect("it starts")
    }

    fn words(&self, number: usize) -> String {
        std::fs::read_to_string(self.log(number)).unwrap_or_default()
    }

    /// Runs to its own end; gives its exit status and its log.
    fn to_end(&self) -> (Option<i32>, String) {
        let status = self.start(0).wait().expect("it ends");
        (status.code(), self.words(0))
    }
}

impl Drop for Run {
    /// Shows what the members logged when a test fails.
    #[allow(clippy::print_stderr, reason = "only when a test fails")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            (0..2).for_each(|number| eprintln!("-- member {number}:\n{}", self.words(number)));
        }
    }
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: the child has not been waited for, so the number is its own.
    unsafe { libc::kill(i32::try_from(child.id()).expect("a process number"), signal) };
}

/// Ends a run as Kubernetes does; gives its exit status.
fn terminate(child: &mut Child) -> Option<i32> {
    process::terminate(child.id());
    child.wait().expect("it ends").code()
}

#[allow(clippy::disallowed_methods, reason = "a real broker takes real time")]
fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970.
fn wall_ms() -> i64 {
    kaspr_exec::clock::Clock::wall_ms(&kaspr_exec::clock::SystemClock::start())
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = now();
    while !is_so() {
        assert!(now() - began < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn numbered(count: u64, keys: u64) -> impl Iterator<Item = Record> {
    (0..count).map(move |n| Record::new(format!("key-{}", n % keys), format!("{{\"n\": {n}}}")))
}

fn numbers(records: &[Record]) -> Vec<u64> {
    let number = |record: &Record| {
        let text = record.text();
        text.trim_start_matches("{\"n\": ").trim_end_matches('}').parse().unwrap_or_else(|_| panic!("{text}"))
    };
    records.iter().map(number).collect()
}

/// Per key, the first time each number came is in the order of the numbers.
fn assert_order_per_key(records: &[Record], keys: u64) {
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for number in numbers(records) {
        if seen.insert(number) {
            let before = last.insert(number % keys, number);
            assert!(before.is_none_or(|before| before < number), "{number} came after {before:?}");
        }
    }
}

#[test]
fn records_make_the_round_trip() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 5), broker.topic("out", 5));
    let selectors = "valueSerializer: raw, keySelector: {python: \"def key(value): return context['event'].message.key\"}, \
                     headersSelector: {python: \"def headers(value): return context['event'].message.headers\"}";
    let spec = agent("echo", &input, "", &output, SAME)
        .replace("topic: {name: ", "topic: {valueSerializer: raw, name: ")
        .replace("- {name: ", &format!("- {{{selectors}, name: "));
    let records = vec![
        Record { headers: vec![("a".into(), Some(b"1".to_vec())), ("a".into(), None)], ..Record::new("k1", "v1") },
        Record { key: None, ..Record::new("", "no key") },
        Record::new("empty value", ""),
        Record { value: Some(vec![0, 159, 146, 150]), ..Record::new("bytes", "") },
        Record { value: None, ..Record::new("tombstone", "") },
    ];
    broker.produce(&input, records.clone());
    let run = Run::new(broker, &spec).with(&["--until-caught-up"]);
    let (status, words) = run.to_end();
    assert_eq!(status, Some(0), "{words}");
    let came = broker.read(&output);
    assert_eq!(came.len(), records.len(), "{words}");
    for record in &records {
        let found = came.iter().find(|came| came.key == record.key).expect("each key came");
        assert_eq!((&found.value, &found.headers), (&record.value, &record.headers), "{words}");
    }
    assert_eq!(broker.lag(&run.group, &input), 0);
}

#[test]
fn a_run_with_an_end_that_is_interrupted_before_it_says_what_is_left() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 1), broker.topic("out", 1));
    broker.produce(&input, numbered(20, 1));
    let body = "import asyncio\n            async def step(value):\n                if value['n'] == 5:\n                    await asyncio.sleep(3600)\n                return value";
    let spec = agent("waits", &input, "", &output, body);
    for more in [&[][..], &["--workers", "2"]] {
        let run = Run::new(broker, &spec).with(&["--until-caught-up"]).with(more);
        let before = broker.count(&output);
        let mut member = run.start(0);
        wait_until("the first records", || broker.count(&output) == before + 5);
        assert_eq!(terminate(&mut member), Some(143), "{}", run.words(0));
        assert!(run.words(0).contains("interrupted: 5 events are complete, 15 are left"), "{}", run.words(0));
    }
}

#[test]
fn keys_land_where_java_puts_them() {
    let broker = broker();
    let (input, output, java) = (broker.topic("in", 7), broker.topic("out", 7), broker.topic("java", 7));
    let keys: Vec<String> = (0..200).map(|n| format!("key-{}", n * 7919)).collect();
    broker.produce(&input, keys.iter().map(|key| Record::new(key.as_str(), format!("\"{key}\""))));
    let spec = agent("echo", &input, "", &output, SAME).replace(
        &format!("- {{name: {output}}}"),
        &format!("- name: {output}\n        keySelector:\n          python: \"def key(value): return value\""),
    );
    let run = Run::new(broker, &spec).with(&["--until-caught-up"]);
    let (status, words) = run.to_end();
    assert_eq!(status, Some(0), "{words}");
    let lines: String = keys.iter().map(|key| format!("{key}:1\n")).collect();
    let arguments = ["--topic", &java, "--property", "parse.key=true", "--property", "key.separator=:"];
    broker.tool("org.apache.kafka.tools.ConsoleProducer", &arguments, &lines);
    let places = |topic: &str| -> BTreeMap<Vec<u8>, i32> {
        broker.read(topic).into_iter().filter_map(|record| Some((record.key?, record.partition?))).collect()
    };
    let (ours, javas) = (places(&output), places(&java));
    assert_eq!(javas.len(), keys.len());
    assert_eq!(ours, javas, "{words}");
    for (key, partition) in javas {
        assert_eq!(partition_for(Some(&key), 7, 0), partition);
    }
}

#[test]
fn a_chain_survives_kills() {
    const EVENTS: u64 = 100_000;
    const KEYS: u64 = 97;
    let broker = broker();
    let (first, between, last) = (broker.topic("first", 12), broker.topic("between", 12), broker.topic("last", 12));
    let specs = agent("front", &first, "", &between, SAME) + &agent("back", &between, "", &last, SAME);
    let keyed = |topic: &str| {
        (
            format!("- {{name: {topic}}}"),
            format!(
                "- name: {topic}\n        keySelector:\n          python: \"def key(value): return 'key-' + str(value['n'] % {KEYS})\""
            ),
        )
    };
    let specs = [&between, &last].iter().fold(specs, |specs, topic| {
        let (from, to) = keyed(topic);
        specs.replace(&from, &to)
    });
    let run =
        Run::new(broker, &specs).with(&["--kafka", "session.timeout.ms=3000", "--kafka", "heartbeat.interval.ms=500"]);
    let mut members = [run.start(0), run.start(1)];
    // Events flow all the time, so that every kill meets some on their way.
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            for part in 0..50 {
                let records = numbered(EVENTS, KEYS).skip(part * 2000).take(2000);
                broker.produce(&first, records);
                std::thread::park_timeout(Duration::from_millis(300));
            }
        });
        for turn in 0..10_u64 {
            std::thread::park_timeout(Duration::from_millis(700 + turn * 7919 % 900));
            let member = &mut members[usize::try_from(turn % 3 % 2).expect("small")];
            if turn % 2 == 0 {
                signal(member, libc::SIGKILL);
                let status = member.wait().expect("it ends");
                assert_eq!(status.signal(), Some(libc::SIGKILL));
            } else {
                let status = terminate(member);
                assert_eq!(status, Some(0), "{}\n{}", run.words(0), run.words(1));
            }
            *member = run.start(usize::try_from(turn % 3 % 2).expect("small"));
        }
        producer.join().expect("the producer ends well");
    });
    let drained = || broker.lag(&run.group, &first) == 0 && broker.lag(&run.group, &between) == 0;
    wait_until("the lag to be zero", drained);
    for member in &mut members {
        assert_eq!(terminate(member), Some(0), "{}\n{}", run.words(0), run.words(1));
    }
    let came = broker.read(&last);
    let set: BTreeSet<u64> = numbers(&came).into_iter().collect();
    assert_eq!(
        set.len() as u64,
        EVENTS,
        "lost {:?}",
        (0..EVENTS).filter(|n| !set.contains(n)).take(10).collect::<Vec<_>>()
    );
    assert_order_per_key(&came, KEYS);
}

#[test]
fn stops_by_signal_repeat_nothing() {
    const EVENTS: u64 = 20_000;
    let broker = broker();
    let (input, output) = (broker.topic("in", 6), broker.topic("out", 6));
    let run = Run::new(broker, &agent("echo", &input, "", &output, SAME));
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            for part in 0..20 {
                broker.produce(&input, numbered(EVENTS, 50).skip(part * 1000).take(1000));
                std::thread::park_timeout(Duration::from_millis(200));
            }
        });
        for _ in 0..4 {
            let mut member = run.start(0);
            std::thread::park_timeout(Duration::from_millis(1200));
            assert_eq!(terminate(&mut member), Some(0), "{}", run.words(0));
        }
        producer.join().expect("the producer ends well");
    });
    let run = run.with(&["--until-caught-up"]);
    let (status, words) = run.to_end();
    assert_eq!(status, Some(0), "{words}");
    let mut numbers = numbers(&broker.read(&output));
    numbers.sort_unstable();
    assert_eq!(numbers, (0..EVENTS).collect::<Vec<_>>(), "{words}");
}

#[test]
fn two_members_share_and_hand_over() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 4), broker.topic("out", 4));
    let run = Run::new(broker, &agent("echo", &input, "", &output, SAME));
    let mut members = [run.start(0), run.start(1)];
    let started = |number: usize| run.words(number).matches("started").count();
    wait_until("both to have partitions", || started(0) > 0 && started(1) > 0);
    let spread = |from: u64| {
        (from..from + 400).map(|n| Record {
            partition: Some(i32::try_from(n % 4).expect("small")),
            ..Record::new("k", format!("{{\"n\": {n}}}"))
        })
    };
    broker.produce(&input, spread(0));
    wait_until("400 records", || broker.count(&output) == 400);
    let before = started(0);
    assert_eq!(terminate(&mut members[1]), Some(0), "{}", run.words(1));
    wait_until("the other to take over", || started(0) > before);
    broker.produce(&input, spread(400));
    wait_until("all records", || broker.count(&output) >= 800 && broker.lag(&run.group, &input) == 0);
    assert_eq!(terminate(&mut members[0]), Some(0), "{}", run.words(0));
    let mut numbers = numbers(&broker.read(&output));
    numbers.sort_unstable();
    assert_eq!(numbers, (0..800).collect::<Vec<_>>());
}

#[test]
fn an_open_window_holds_back_nobody_else() {
    let broker = broker();
    let (input, quick, slow) = (broker.topic("in", 1), broker.topic("quick", 1), broker.topic("slow", 1));
    let take = "    take: {max: 100000, within: 10m}\n";
    let specs = agent("quick", &input, "", &quick, SAME) + &agent("slow", &input, take, &slow, SAME);
    let run = Run::new(broker, &specs);
    let mut member = run.start(0);
    let mut sent = 0;
    // While the window is open, the quick agent's position follows every batch: were it held with the
    // window's, it would not come within the ten minutes that the window has.
    for _ in 0..20 {
        broker.produce(&input, (sent..sent + 20).map(|n| Record::new("k", format!("{{\"n\": {n}}}"))));
        sent += 20;
        wait_until("the quick agent's position", || {
            let committed = broker.committed(&run.group, &input).remove(0);
            let ahead = committed.as_ref().and_then(|(_, metadata)| metadata.rsplit_once("=+")?.1.parse().ok());
            let position = committed.map_or(0, |(offset, _)| offset) + ahead.unwrap_or(0);
            position >= i64::try_from(sent).expect("few")
        });
    }
    assert_eq!(
        broker.committed(&run.group, &input)[0].as_ref().expect("committed").0,
        0,
        "the window holds its offset"
    );
    assert_eq!(terminate(&mut member), Some(0), "{}", run.words(0));
    let run = run.with(&["--until-caught-up"]);
    let (status, words) = run.to_end();
    assert_eq!(status, Some(0), "{words}");
    assert_eq!(numbers(&broker.read(&quick)), (0..sent).collect::<Vec<_>>(), "the quick agent repeats nothing");
    let batches: String = broker.read(&slow).iter().map(Record::text).collect();
    assert_eq!(batches.matches("\"n\"").count() as u64, sent, "the window's events came again, once");
}

#[test]
fn idle_members_hardly_wake() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 12), broker.topic("out", 12));
    let take = "    take: {max: 100000, within: 10m}\n";
    let specs = agent("awaits", &input, "", &output, "async def step(value): return value")
        + &agent("window", &input, take, &output, SAME);
    let run = Run::new(broker, &specs);
    let mut member = run.start(0);
    broker.produce(&input, numbered(24, 24));
    wait_until("the records", || broker.count(&output) == 24);
    // A pause for all that follows the last commit.
    pause(Duration::from_secs(3));
    let wakes = Wakes::count(member.id(), Duration::from_secs(11));
    figure(&format!("an idle member wakes {:.1} times a second, its clients {:.1}", wakes.own(), wakes.of_clients()));
    assert!(wakes.own() <= IDLE_MAX, "{:.1} wake-ups a second: {wakes:?}", wakes.own());
    // The sleeping worker reacts to events and signals at once.
    broker.produce(&input, numbered(24, 24));
    wait_until("the other records", || broker.count(&output) >= 48);
    assert_eq!(terminate(&mut member), Some(0), "{}", run.words(0));
}

#[test]
fn an_idle_supervisor_wakes_for_its_workers_alone() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 2), broker.topic("out", 2));
    let run = Run::new(broker, &agent("echo", &input, "", &output, SAME)).with(&["--workers", "2"]);
    let mut supervisor = run.start(0);
    wait_until("both to have partitions", || run.words(0).matches("started").count() >= 2);
    let wakes = Wakes::count(supervisor.id(), Duration::from_secs(5));
    assert!(wakes.own() <= 1.0, "{wakes:?}");
    let worker = kaspr_tests::kafka::children(supervisor.id())[0];
    // SAFETY: the worker belongs to the supervisor, which waits for it.
    unsafe { libc::kill(worker, libc::SIGKILL) };
    wait_until("its next start", || run.words(0).contains("starting again in 1 s"));
    wait_until("its partitions", || run.words(0).matches("started").count() >= 3);
    assert_eq!(terminate(&mut supervisor), Some(0), "{}", run.words(0));
}

#[test]
fn a_broker_that_comes_back_is_waited_for() {
    let mut broker = Broker::start();
    broker.stop();
    broker.start_again(false);
    let (input, output) = (broker.topic("in", 2), broker.topic("out", 2));
    let run = Run::new(&broker, &agent("echo", &input, "", &output, SAME));
    let mut member = run.start(0);
    broker.produce(&input, numbered(100, 10));
    wait_until("the first records", || broker.count(&output) == 100);
    broker.stop();
    wait_until("the loss to be logged", || run.words(0).contains("waiting for a broker: none can be reached"));
    broker.start_again(true);
    wait_until("the return to be logged", || run.words(0).contains("are back"));
    broker.produce(&input, numbered(200, 10).skip(100));
    wait_until("the other records", || broker.count(&output) >= 200);
    assert_eq!(terminate(&mut member), Some(0), "{}", run.words(0));
    let set: BTreeSet<u64> = numbers(&broker.read(&output)).into_iter().collect();
    assert_eq!(set.len(), 200, "{}", run.words(0));
    let words = run.words(0);
    assert_eq!((words.matches("none can be reached").count(), words.matches("are back").count()), (1, 1), "{words}");
}

#[test]
fn faults_name_the_thing_and_the_place() {
    let broker = broker();
    let input = broker.topic("in", 1);
    let spec = agent("echo", &input, "", "no-such-topic", SAME);
    let (status, words) = Run::new(broker, &spec).to_end();
    assert_eq!(status, Some(1), "{words}");
    assert!(words.contains("the topic \"no-such-topic\" (an output of agent \"echo\") does not exist"), "{words}");
    assert!(words.contains("agents.yaml:"), "{words}");

    let mut run = Run::new(broker, &spec);
    run.servers = "127.0.0.1:1".to_owned();
    let (status, words) = run.to_end();
    assert_eq!(status, Some(1), "{words}");
    assert!(words.contains("no broker answers at 127.0.0.1:1") && words.contains("refused"), "{words}");
    assert!(words.contains("still waiting for a broker") && words.contains("servers=127.0.0.1:1"), "{words}");

    let (status, words) = Run::new(broker, &spec).with(&["--guarantee", "at-most-once"]).to_end();
    assert_eq!(status, Some(2), "{words}");
    assert!(words.contains("it is exactly-once or at-least-once"), "{words}");

    let (status, words) = Run::new(broker, &spec).with(&["--kafka", "acks=0"]).to_end();
    assert_eq!(status, Some(2), "{words}");
    assert!(words.contains("\"acks\" is fixed"), "{words}");

    let (status, words) = Run::new(broker, &spec).with(&["--instance", "first;second"]).to_end();
    assert_eq!(status, Some(2), "{words}");
    assert!(words.contains("the instance \"first;second\" is no name that Kafka can keep"), "{words}");
}

#[test]
fn declared_topics_are_made() {
    let broker = broker();
    let (input, output) = (unique("declared-in"), broker.topic("out", 3));
    let declared = format!("topic: {{declare: true, partitions: 3, name: {input}}}");
    let spec = agent("echo", &input, "", &output, SAME)
        .replace(&format!("topic: {{name: {input}}}"), &declared)
        .replace(&format!("- {{name: {output}}}"), &format!("- {{declare: true, partitions: 5, name: {output}}}"));
    let (status, words) = Run::new(broker, &spec).with(&["--until-caught-up"]).to_end();
    assert_eq!(status, Some(0), "{words}");
    assert_eq!(broker.partitions(&input), 3);
    let differs = format!("{output}: the topic has another number of partitions than its spec says: left as it is");
    assert!(words.contains(&format!("{differs} found=3 declared=5")), "{words}");
}

#[test]
fn topics_of_dead_letters_are_made_where_a_policy_declares_them() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 1), broker.topic("out", 1));
    broker.produce(&input, [Record::new("k", "{}")]);
    let failing = "def step(value): return value[\"n\"]";
    let run = |policy: &str, flags: &[&str]| {
        let spec = agent("echo", &input, "", &output, failing).replacen("spec:\n", &format!("spec:\n{policy}"), 1);
        Run::new(broker, &spec).with(&["--until-caught-up"]).with(flags).to_end()
    };
    let named = unique("dead-of-the-spec");
    let policy = |declare: &str| format!("  onError: {{action: deadLetter, topic: {named}{declare}}}\n");
    let (status, words) = run(&policy(""), &[]);
    assert_eq!(status, Some(1), "{words}");
    assert!(words.contains("create it, or let onError say \"declare: true\""), "{words}");
    let (status, words) = run(&policy(", declare: true, partitions: 2"), &[]);
    assert_eq!(status, Some(0), "{words}");
    assert_eq!((broker.partitions(&named), broker.count(&named)), (2, 1));

    let of_app = unique("dead-of-the-app");
    let (status, words) =
        run("  onError: {action: deadLetter, declare: true, partitions: 3}\n", &["--dead-letter-topic", &of_app]);
    assert_eq!(status, Some(0), "{words}");
    assert_eq!((broker.partitions(&of_app), broker.count(&of_app)), (3, 1));

    let of_setting = unique("dead-of-the-setting");
    let policy = format!(r#"{{"action": "deadLetter", "topic": "{of_setting}", "declare": true, "partitions": 4}}"#);
    let (status, words) = run("", &["--on-error", &policy]);
    assert_eq!(status, Some(0), "{words}");
    assert_eq!((broker.partitions(&of_setting), broker.count(&of_setting)), (4, 1));
}

#[test]
fn a_supervisor_replaces_workers_and_leaves_no_orphans() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 4), broker.topic("out", 4));
    let run = Run::new(broker, &agent("echo", &input, "", &output, SAME)).with(&["--workers", "2"]);
    let mut supervisor = run.start(0);
    let children = |pid: u32| -> Vec<i32> {
        let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        list.split_whitespace().map(|pid| pid.parse().expect("a number")).collect()
    };
    wait_until("two workers", || children(supervisor.id()).len() == 2 && run.words(0).matches("started").count() >= 4);
    let first = children(supervisor.id());
    // SAFETY: the worker is a child of a child that was just seen alive.
    unsafe { libc::kill(first[0], libc::SIGKILL) };
    wait_until("another worker", || {
        let now = children(supervisor.id());
        now.len() == 2 && !now.contains(&first[0])
    });
    broker.produce(&input, numbered(1000, 50));
    wait_until("all records", || broker.count(&output) >= 1000);
    let workers = children(supervisor.id());
    signal(&supervisor, libc::SIGKILL);
    supervisor.wait().expect("it ends");
    let alive = |pid: &i32| std::path::Path::new(&format!("/proc/{pid}/status")).exists();
    wait_until("the workers to end", || !workers.iter().any(alive));
    let mut supervisor = run.start(1);
    wait_until("two workers", || children(supervisor.id()).len() == 2);
    assert_eq!(terminate(&mut supervisor), Some(0), "{}", run.words(1));
}

#[test]
fn wrong_passwords_and_missing_permissions_are_told() {
    let broker = Broker::start();
    let (input, output) = (broker.topic("in", 2), broker.topic("out", 2));
    let spec = agent("echo", &input, "", &output, SAME);
    let with_password = |password: &str| {
        let password = format!("sasl.password={password}");
        let flags = ["security.protocol=sasl_plaintext", "sasl.mechanisms=PLAIN", "sasl.username=bob", &password];
        let mut run = Run::new(&broker, &spec).with(&["--until-caught-up"]);
        run = flags.iter().fold(run, |run, flag| run.with(&["--kafka", flag]));
        run.servers = broker.with_passwords();
        run
    };
    broker.produce(&input, numbered(10, 3));
    let (status, words) = with_password("guessed").to_end();
    assert_eq!(status, Some(1), "{words}");
    let told = format!("authentication failed at {} (mechanism PLAIN)", broker.with_passwords());
    assert!(words.contains(&told), "{words}");

    let (status, words) = with_password("bobs-secret").to_end();
    assert_eq!(status, Some(0), "{words}");
    assert_eq!(broker.count(&output), 10);

    let allow = |user: &str, operation: &str, resource: [&str; 2]| {
        let user = format!("User:{user}");
        let arguments = ["--add", "--force", "--allow-principal", &user, "--operation", operation];
        broker.tool("org.apache.kafka.tools.AclCommand", &[&arguments[..], &resource].concat(), "");
    };
    // Another user's permission does not count for bob.
    allow("alice", "Write", ["--topic", &output]);
    allow("bob", "Describe", ["--topic", &output]);
    let (status, words) = with_password("bobs-secret").to_end();
    assert_eq!(status, Some(1), "{words}");
    let told = format!("the topic \"{output}\" (an output of agent \"echo\") must be written");
    assert!(words.contains(&told) && words.contains("no permission"), "{words}");

    allow("bob", "Write", ["--topic", &output]);
    let run = with_password("bobs-secret");
    allow("alice", "Read", ["--group", &run.group]);
    let (status, words) = run.to_end();
    assert_eq!(status, Some(1), "{words}");
    let told = format!("User:bob has no permission: READ on the group \"{}\"; to allow it:", run.group);
    assert!(words.contains(&told), "{words}");
}

#[test]
fn records_too_large_are_failures_of_their_events() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 1), broker.topic("out", 1));
    broker.produce(&input, numbered(3, 3));
    let body = "def step(value): return 'x' * 3_000_000 if value['n'] == 1 else value";
    let run = Run::new(broker, &agent("grows", &input, "", &output, body)).with(&["--until-caught-up"]);
    let (status, words) = run.to_end();
    assert_eq!(status, Some(0), "{words}");
    let told = format!("is larger than the topic \"{output}\" takes");
    assert!(words.contains(&told) && words.contains(&format!("{input}/0@1")), "{words}");
    assert_eq!(numbers(&broker.read(&output)), [0, 2], "{words}");
}

/// Up to the topic's limit, which may be more than clients' queues usually hold, records are read and
/// written; one byte more is a failure of its event.
#[test]
fn records_as_large_as_the_topic_takes_pass() {
    const LIMIT: usize = 40 << 20;
    /// The most that Kafka counts besides the value.
    const OVERHEAD: usize = 93;
    let broker = broker();
    let (input, output) = (broker.topic_for("in", 1, LIMIT + 1000), broker.topic_for("out", 1, LIMIT));
    // JSON text of so many bytes.
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    let sizes = [10, 1_000_000, 20 << 20, LIMIT - OVERHEAD, LIMIT - OVERHEAD + 1, 20];
    broker.produce(&input, sizes.map(|bytes| Record { value: Some(text(bytes).into()), ..Record::default() }));
    let run = Run::new(broker, &agent("echo", &input, "", &output, SAME)).with(&["--until-caught-up"]);
    let (status, words) = run.to_end();
    assert_eq!(status, Some(0), "{words}");
    assert_eq!(words.matches("a record of 41943041 bytes is larger than the topic").count(), 1, "{words}");
    assert!(words.contains(&format!("{input}/0@4")), "{words}");
    let passed = broker.read(&output);
    let [.., _, last] = sizes;
    assert_eq!(passed.iter().map(|record| record.text().len()).collect::<Vec<_>>(), [&sizes[..4], &[last]].concat());
    assert!(passed.iter().all(|record| record.text() == text(record.text().len())), "they are as they were");
}

/// The topic's limit may change while the topic is written: then a broker refuses a record that was staged.
#[test]
fn a_record_that_the_broker_refuses_fails_its_event_alone() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 2), broker.topic("out", 1));
    let body = "def step(value): return {**value, 'pad': 'x' * 5000} if value['n'] == 501 else value";
    let run = Run::new(broker, &agent("grows", &input, "", &output, body));
    let mut member = run.start(0);
    broker.produce(&input, numbered(500, 7));
    wait_until("the first records", || broker.count(&output) == 500);
    let limit =
        ["--alter", "--entity-type", "topics", "--entity-name", &output, "--add-config", "max.message.bytes=2000"];
    broker.tool("kafka.admin.ConfigCommand", &limit, "");
    broker.produce(&input, numbered(1000, 7).skip(500));
    wait_until("the rest", || broker.lag(&run.group, &input) == 0);
    assert_eq!(terminate(&mut member), Some(0), "{}", run.words(0));
    let mut numbers = numbers(&broker.read(&output));
    numbers.sort_unstable();
    assert_eq!(numbers, (0..1000).filter(|n| *n != 501).collect::<Vec<_>>(), "{}", run.words(0));
    assert_eq!(run.words(0).matches("operation \"output:").count(), 1, "{}", run.words(0));
}

/// A topic's limit is for a whole batch, and clients gather records.
#[test]
fn many_small_records_pass_a_low_limit() {
    const RECORDS: usize = 400;
    let broker = broker();
    let (input, output) = (broker.topic("in", 1), broker.topic_for("out", 1, 20_000));
    let body = format!("def step(value): yield from ('x' * 1000 for _ in range({RECORDS}))");
    broker.produce(&input, numbered(3, 3));
    let run = Run::new(broker, &agent("spreads", &input, "", &output, &body)).with(&["--until-caught-up"]);
    let (status, words) = run.to_end();
    assert_eq!(status, Some(0), "{words}");
    assert_eq!(broker.read(&output).len(), 3 * RECORDS, "{words}");
    assert!(words.contains("batches of records are larger") && !words.contains("operation \"output:"), "{words}");
}

/// A compacted topic takes no record without a key. Records of the same transaction are innocent, and an
/// event whose dead letter is refused too is recorded only.
#[test]
fn records_without_keys_fail_alone_where_a_topic_is_compacted() {
    let broker = broker();
    let (input, output, dead) = (broker.topic("in", 1), broker.topic("out", 1), broker.topic("dead", 1));
    for topic in [&output, &dead] {
        let compacted =
            ["--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", "cleanup.policy=compact"];
        broker.tool("kafka.admin.ConfigCommand", &compacted, "");
    }
    let key = |n: u64| (n != 20).then(|| format!("{n}").into());
    broker.produce(&input, numbered(40, 40).zip(0..).map(|(record, n)| Record { key: key(n), ..record }));
    let letters = format!("  onError: {{action: deadLetter, topic: {dead}}}\n  input:");
    let key = "def key(value): return None if value['n'] == 20 else str(value['n'])";
    let keyed = format!("{{name: {output}, keySelector: {{python: \"{key}\"}}}}");
    let specs = agent("echo", &input, "", &output, SAME).replace("  input:", &letters);
    let run = Run::new(broker, &specs.replace(&format!("{{name: {output}}}"), &keyed));
    let run = run.with(&["--until-caught-up"]);
    let (status, words) = run.to_end();
    assert_eq!(status, Some(0), "{words}");
    assert_eq!(numbers(&broker.read(&output)), (0..40).filter(|n| *n != 20).collect::<Vec<_>>(), "{words}");
    assert!(words.contains("the broker refuses its dead letter"), "{words}");
    assert_eq!(broker.count(&dead), 0, "{words}");
}

#[test]
fn a_check_looks_and_touches_nothing() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 3), unique("declared-later"));
    let spec = agent("echo", &input, "", &output, SAME);
    let check = |spec: &str| {
        let run = Run::new(broker, spec);
        let mut command = command("kaspr-exec", &["check"]);
        command.arg(run.folder.path()).args(["--bootstrap-servers", &run.servers, "--app", &run.group]);
        let output = command.output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(broker.committed(&run.group, &input).iter().flatten().count(), 0);
        (output.status.code(), said)
    };
    let declared = spec.replace(&format!("- {{name: {output}}}"), &format!("- {{declare: true, name: {output}}}"));
    let (status, said) = check(&declared);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains(&format!("topic {input} has 3 partitions")), "{said}");
    assert!(said.contains(&format!("topic {output} does not exist yet: a run creates it")), "{said}");
    assert_eq!(broker.partitions(&output), 0, "a check makes nothing");

    let (status, said) = check(&spec);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains(&format!("the topic \"{output}\"")) && said.contains("agents.yaml:"), "{said}");

    let (status, said) =
        check(&declared.replace(SAME, "def step(value): return value\n            import no_such_module"));
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("no_such_module") && said.contains("agents.yaml:"), "{said}");
}

#[test]
fn a_group_begins_where_it_is_told() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 1), broker.topic("out", 1));
    // Within the topic's retention, or the broker deletes the records before they are read.
    let hour_ago = wall_ms() - 3_600_000;
    broker.produce(
        &input,
        (0..10).map(|n| Record { timestamp: hour_ago + n, ..Record::new("k", format!("{{\"n\": {n}}}")) }),
    );
    let spec = agent("echo", &input, "", &output, SAME);
    let seventh = (hour_ago + 7).to_string();
    for (from, expected) in [("latest", 0), (seventh.as_str(), 3), ("earliest", 10)] {
        let before = broker.count(&output);
        let (status, words) = Run::new(broker, &spec).with(&["--until-caught-up", "--from", from]).to_end();
        assert_eq!(status, Some(0), "{words}");
        assert_eq!(broker.count(&output) - before, expected, "--from {from}\n{words}");
    }
}

#[test]
fn a_stop_that_takes_too_long_is_forced() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 1), broker.topic("out", 1));
    let body = "import time\n            def step(value): print('sleeps'); time.sleep(100); return value";
    let spec = agent("sleeps", &input, "", &output, body);
    broker.produce(&input, numbered(1, 1));
    for (deadline, again) in [("1s", false), ("1h", true)] {
        let run = Run::new(broker, &spec).with(&["--shutdown-timeout", deadline]);
        let mut member = run.start(0);
        wait_until("the function to sleep", || run.words(0).contains("sleeps"));
        let began = now();
        if again {
            process::terminate(member.id());
        }
        assert_eq!(terminate(&mut member), Some(75), "{}", run.words(0));
        assert!(now() - began < PATIENCE, "{:?}", now() - began);
    }
}
