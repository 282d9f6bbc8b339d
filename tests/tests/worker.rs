//! The worker over the in-memory log, under a simulated clock and with code that is a stub in Rust.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use kaspr_exec::broker::log::{Log, NewRecord};
use kaspr_exec::broker::position::NameHash;
use kaspr_exec::broker::{Admin, BrokerError, NewTopic, TopicInfo};
use kaspr_exec::clock::SimulatedClock;
use kaspr_exec::code::{Called, Code, Encoded, Fault, Ticket, With};
use kaspr_exec::config::Config;
use kaspr_exec::event::message::{Header, TopicName, TopicPartition};
use kaspr_exec::run::assemble::{Assembly, Ends};
use kaspr_exec::worker::{Stopped, Worker};
use kaspr_ir::plan::{Codec, FunctionId, OnError, Plan};

/// Values are text; every function gives its value back, `fail` fails, `wait` waits for ever, `slow` takes
/// 15 ms, `broken` does not decode.
struct Stub(SimulatedClock);

impl Code for Stub {
    type Value = String;

    fn decode(&mut self, _: &Codec, bytes: Option<&[u8]>) -> Result<String, Fault> {
        match bytes.unwrap_or_default() {
            b"broken" => Err(Fault::new("Decode", "told to be broken")),
            bytes => Ok(String::from_utf8_lossy(bytes).into_owned()),
        }
    }

    fn validate(&mut self, _: &Codec, _: Option<&[u8]>) -> Result<(), Fault> {
        Ok(())
    }

    fn encode(&mut self, _: &Codec, value: &String, out: &mut Vec<u8>) -> Result<Encoded, Fault> {
        out.extend_from_slice(value.as_bytes());
        Ok(Encoded::Bytes)
    }

    fn list(&mut self, values: Vec<String>) -> Result<String, Fault> {
        Ok(values.join("+"))
    }

    fn none(&self) -> String {
        "none".to_owned()
    }

    fn sent(&mut self, topic: &str, _: i32, _: i64) -> Result<String, Fault> {
        Ok(topic.to_owned())
    }

    fn is_none(&self, value: &String) -> bool {
        value == "none"
    }

    fn call(&mut self, _: FunctionId, value: &String, _: With<'_, String>) -> Called<String> {
        match value.as_str() {
            "fail" => Called::Failed(Fault::new("Stub", "told to fail")),
            "wait" => Called::Pending(Ticket(1)),
            "slow" => {
                self.0.advance(Duration::from_millis(15));
                Called::Value(value.clone())
            }
            _ => Called::Value(value.clone()),
        }
    }

    fn next(&mut self, _: &String, _: With<'_, String>) -> Called<String> {
        Called::End
    }

    fn release(&mut self, _: &Self::Value, _: With<'_, Self::Value>) -> Called<Self::Value> {
        Called::End
    }

    fn take(&mut self, _: Ticket) -> Option<Called<String>> {
        None
    }

    fn cancel(&mut self, _: Ticket) {}

    fn truth(&mut self, _: &String) -> Result<bool, Fault> {
        Ok(true)
    }

    fn topic(&mut self, value: &String) -> Result<TopicName, Fault> {
        Ok(value.as_str().into())
    }

    fn partition(&mut self, _: &String) -> Result<Option<i32>, Fault> {
        Ok(None)
    }

    fn headers(&mut self, _: &String) -> Result<Vec<Header>, Fault> {
        Ok(Vec::new())
    }

    fn waits(&self, _: bool) -> bool {
        false
    }

    fn turn(&mut self, _: Duration, _: Option<RawFd>) {}
}

fn agent(name: &str, input: &str, take: &str, output: &str) -> String {
    format!(
        "apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata: {{name: {name}}}\nspec:\n  input:\n    topic: {{name: {input}}}\n{take}  \
         output:\n    topics: [{{name: {output}}}]\n  processors:\n    pipeline: [same]\n    operations:\n      - name: same\n        \
         map: {{python: \"def same(value): return value\"}}\n---\n"
    )
}

fn compile(text: &str) -> Rc<Plan> {
    let file = kasprc::SourceFile { name: "agents.yaml".to_owned(), bytes: text.as_bytes().to_vec() };
    let compiled = kasprc::compile(&[file], &kasprc::Options::default());
    Rc::new(compiled.plan.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics)))
}

fn start(log: &Log, plan: &Rc<Plan>, clock: &SimulatedClock) -> Worker<Stub> {
    start_with(log, plan, clock, Config::new("app", "test", 0))
}

fn start_with(log: &Log, plan: &Rc<Plan>, clock: &SimulatedClock, config: Config) -> Worker<Stub> {
    start_over(Box::new(log.admin()), log, plan, clock, config)
}

fn start_over(
    admin: Box<dyn Admin>,
    log: &Log,
    plan: &Rc<Plan>,
    clock: &SimulatedClock,
    config: Config,
) -> Worker<Stub> {
    let ends = Ends::of_log(log, &config);
    let assembly = Assembly::new(plan, config, Rc::new(clock.clone()), admin);
    let mut worker = assembly.start(&Rc::new(RefCell::new(Stub(clock.clone()))), ends).expect("the worker starts");
    // It takes its partitions and commits where it starts; the next interval begins.
    turns(&mut worker, 2);
    clock.advance(Duration::from_millis(100));
    worker
}

fn send(log: &Log, topic: &str, value: &str) {
    let record = NewRecord { value: Some(Bytes::copy_from_slice(value.as_bytes())), ..NewRecord::default() };
    log.append(&topic.into(), record).expect("it is appended");
}

fn values(log: &Log, topic: &str) -> Vec<String> {
    let (events, _) = log.read(&topic.into(), 0, 0, 1_000_000);
    events
        .iter()
        .map(|event| String::from_utf8_lossy(event.value.as_deref().unwrap_or_default()).into_owned())
        .collect()
}

/// A reader's position in the group's committed offset: a successor would start from it.
fn committed(log: &Log, topic: &str, reader: &str) -> Option<i64> {
    let committed = log.committed("app", &TopicPartition::new(topic, 0))?;
    let metadata = committed.metadata.expect("it is ours");
    Some(committed.offset + metadata.ahead.get(&NameHash::of(reader)).copied().unwrap_or(0))
}

fn turns(worker: &mut Worker<Stub>, count: usize) {
    for _ in 0..count {
        worker.turn(Duration::ZERO).expect("it turns");
    }
}

const WINDOW: &str = "    take: {max: 100000, within: 10m}\n";

#[test]
fn an_open_window_holds_back_nobody_else_and_comes_again_after_a_restart() {
    let text = agent("batcher", "readings", WINDOW, "batches") + &agent("echo", "readings", "", "echoes");
    let (plan, clock, log) = (compile(&text), SimulatedClock::default(), Log::new(1));
    let mut worker = start(&log, &plan, &clock);
    for number in 0..50 {
        send(&log, "readings", &number.to_string());
        clock.advance(Duration::from_millis(100));
        turns(&mut worker, 3);
        assert_eq!(committed(&log, "readings", "echo"), Some(number + 1), "committed at every commit interval");
        assert_eq!(committed(&log, "readings", "batcher"), Some(0), "the window holds its position");
    }
    assert_eq!(values(&log, "echoes").len(), 50);
    assert_eq!(values(&log, "batches"), Vec::<String>::new());

    // The worker dies with the window open.
    drop(worker);
    let mut worker = start(&log, &plan, &clock);
    turns(&mut worker, 3);
    clock.advance(Duration::from_secs(601));
    turns(&mut worker, 3);
    clock.advance(Duration::from_millis(100));
    turns(&mut worker, 3);
    let batch: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    assert_eq!(values(&log, "batches"), [batch.join("+")], "the window's own events come again");
    assert_eq!(values(&log, "echoes").len(), 50, "the other's do not");
    assert_eq!(committed(&log, "readings", "batcher"), Some(50));
}

#[test]
fn retention_that_passes_one_reader_takes_nothing_from_another() {
    let text = agent("batcher", "readings", WINDOW, "batches") + &agent("echo", "readings", "", "echoes");
    let (plan, clock, log) = (compile(&text), SimulatedClock::default(), Log::new(1));
    let mut worker = start(&log, &plan, &clock);
    let commit = |worker: &mut Worker<Stub>| {
        turns(worker, 3);
        clock.advance(Duration::from_millis(100));
        turns(worker, 3);
    };
    let send_all = |numbers: std::ops::Range<i64>| numbers.for_each(|n| send(&log, "readings", &n.to_string()));
    send_all(0..20);
    commit(&mut worker);
    assert_eq!(committed(&log, "readings", "echo"), Some(20));
    drop(worker);
    send_all(20..40);
    for passed in [10, 30] {
        log.forget_before(&TopicPartition::new("readings", 0), passed);
        let mut worker = start(&log, &plan, &clock);
        commit(&mut worker);
        // It begins where it stood, or where anything is left.
        let echoes: Vec<i64> = values(&log, "echoes").iter().map(|value| value.parse().expect("a number")).collect();
        assert_eq!(echoes, (0..40).collect::<Vec<_>>(), "{passed} were deleted");
        assert_eq!(committed(&log, "readings", "batcher"), Some(passed), "its window holds the rest");
        assert_eq!(committed(&log, "readings", "echo"), Some(40));
    }
}

#[test]
fn a_window_that_meets_its_bound_is_handed_over_early() {
    let text = agent("batcher", "readings", WINDOW, "batches");
    let (plan, clock, log) = (compile(&text), SimulatedClock::default(), Log::new(1));
    let mut config = Config::new("app", "test", 0);
    config.bounds.window_bytes_max = 2000;
    let mut worker = start_with(&log, &plan, &clock, config);
    (0..50).for_each(|_| send(&log, "readings", &"x".repeat(100)));
    for _ in 0..3 {
        clock.advance(Duration::from_millis(100));
        turns(&mut worker, 3);
    }
    let sizes: Vec<_> = values(&log, "batches").iter().map(|batch| batch.split('+').count()).collect();
    assert!(sizes.len() >= 2 && sizes.iter().all(|size| (5..=20).contains(size)), "{sizes:?}");
    assert_eq!(committed(&log, "readings", "batcher"), i64::try_from(sizes.iter().sum::<usize>()).ok());
}

#[test]
fn a_window_that_fills_the_queue_of_a_partition_is_handed_over_early() {
    let text = agent("batcher", "readings", WINDOW, "batches") + &agent("quick", "readings", "", "quickly");
    let (plan, clock, log) = (compile(&text), SimulatedClock::default(), Log::new(1));
    let mut config = Config::new("app", "test", 0);
    (config.bounds.queued_bytes_high, config.bounds.queued_bytes_low) = (4000, 1000);
    config.bounds.poll_events_max = 5;
    let mut worker = start_with(&log, &plan, &clock, config);
    (0..200).for_each(|_| send(&log, "readings", &"x".repeat(100)));
    // Ten seconds: no window is over by itself.
    for _ in 0..100 {
        clock.advance(Duration::from_millis(100));
        turns(&mut worker, 3);
    }
    assert_eq!(values(&log, "quickly").len(), 200, "another reader goes on");
    let sizes: Vec<_> = values(&log, "batches").iter().map(|batch| batch.split('+').count()).collect();
    assert!(sizes.len() >= 4 && sizes.iter().all(|size| (5..=30).contains(size)), "{sizes:?}");
}

#[test]
fn a_pending_await_holds_its_own_reader_only() {
    let text = agent("slow", "readings", "", "slowly") + &agent("quick", "readings", "", "quickly");
    let (plan, clock, log) = (compile(&text), SimulatedClock::default(), Log::new(1));
    let mut worker = start(&log, &plan, &clock);
    send(&log, "readings", "1");
    clock.advance(Duration::from_millis(100));
    turns(&mut worker, 4);
    assert_eq!(committed(&log, "readings", "slow"), Some(1));
    // Both call the same stub, so both wait; a reader of another topic goes on.
    send(&log, "readings", "wait");
    send(&log, "readings", "3");
    clock.advance(Duration::from_millis(100));
    turns(&mut worker, 4);
    assert!(worker.awaits());
    assert_eq!(committed(&log, "readings", "quick"), Some(1), "what waits holds its position");
    assert_eq!(values(&log, "quickly"), ["1"]);
}

#[test]
fn a_failure_leaves_no_effect_and_its_position_moves_on() {
    let text = agent("echo", "readings", "", "echoes");
    let (plan, clock, log) = (compile(&text), SimulatedClock::default(), Log::new(1));
    let mut worker = start(&log, &plan, &clock);
    for value in ["a", "fail", "b"] {
        send(&log, "readings", value);
    }
    clock.advance(Duration::from_millis(100));
    turns(&mut worker, 4);
    assert_eq!(values(&log, "echoes"), ["a", "b"]);
    let failures = worker.take_failures();
    assert_eq!(failures.iter().map(|failure| failure.offset).collect::<Vec<_>>(), [1]);
    assert_eq!(committed(&log, "readings", "echo"), Some(3));
}

/// A broker that does not say what this topic is like while it is silent.
struct Silent {
    about: &'static str,
    is_silent: Rc<Cell<bool>>,
    admin: Box<dyn Admin>,
}

impl Admin for Silent {
    fn topic(&mut self, name: &str) -> Result<Option<TopicInfo>, BrokerError> {
        if name == self.about && self.is_silent.get() {
            return Err(BrokerError::Retriable("told to be silent".to_owned()));
        }
        self.admin.topic(name)
    }

    fn topics(&mut self) -> Result<Vec<String>, BrokerError> {
        self.admin.topics()
    }

    fn setting(&mut self, topic: &str, name: &str) -> Result<Option<String>, BrokerError> {
        self.admin.setting(topic, name)
    }

    fn create(&mut self, topic: &NewTopic) -> Result<(), BrokerError> {
        self.admin.create(topic)
    }
}

/// A window, what is sent, the output and the dead letters.
type Case = (&'static str, [&'static str; 3], &'static [&'static str], &'static [&'static str]);

#[test]
fn a_dead_letter_waits_for_the_word_on_its_topic() {
    const ALONE: &str = "";
    const BATCH: &str = "    take: {max: 3, within: 10m}\n";
    // Alone: that fails, and that does not decode. In a batch: with others that are sent, that none is left of, and
    // that fails as a whole.
    let cases: [Case; 5] = [
        (ALONE, ["a", "fail", "b"], &["a", "b"], &["fail"]),
        (ALONE, ["a", "broken", "b"], &["a", "b"], &["broken"]),
        (BATCH, ["a", "broken", "b"], &["a+b"], &["broken"]),
        (BATCH, ["broken"; 3], &[], &["broken"; 3]),
        (BATCH, ["broken", "fail", "broken"], &[], &["broken", "fail", "broken"]),
    ];
    for (take, sent, output, letters) in cases {
        let text = agent("echo", "readings", take, "echoes")
            .replace("spec:\n", "spec:\n  onError: {action: deadLetter, topic: dead}\n");
        let (plan, clock, log) = (compile(&text), SimulatedClock::default(), Log::new(1));
        let is_silent = Rc::new(Cell::new(true));
        let admin = Silent { about: "dead", is_silent: is_silent.clone(), admin: Box::new(log.admin()) };
        let mut worker = start_over(Box::new(admin), &log, &plan, &clock, Config::new("app", "test", 0));
        let turn_for = |worker: &mut Worker<Stub>, seconds: u64| {
            for _ in 0..seconds * 10 {
                clock.advance(Duration::from_millis(100));
                turns(worker, 3);
            }
        };
        sent.iter().for_each(|value| send(&log, "readings", value));
        turn_for(&mut worker, 3);
        // Events before the failure are complete; the rest waits, with its effects.
        let before = i64::from(take == ALONE);
        assert_eq!(committed(&log, "readings", "echo"), Some(before), "{sent:?}");
        assert_eq!(values(&log, "echoes").len(), usize::from(take == ALONE), "{sent:?}");
        assert!(worker.take_failures().is_empty(), "{sent:?}: no failure without its dead letter");
        is_silent.set(false);
        turn_for(&mut worker, 3);
        assert_eq!(committed(&log, "readings", "echo"), Some(3), "{sent:?}");
        assert_eq!((values(&log, "dead"), values(&log, "echoes")), (texts(letters), texts(output)), "{sent:?}");
        assert_eq!(worker.take_failures().len(), letters.len(), "{sent:?}");
    }
}

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|&value| value.to_owned()).collect()
}

#[test]
fn a_back_off_holds_its_own_partition_and_reader_only() {
    let patient = agent("patient", "readings", "", "kept")
        .replace("spec:\n", "spec:\n  onError: {action: retry, attempts: 9, backoff: {initial: 10m, max: 10m}}\n");
    let text = patient + &agent("quick", "readings", "", "quickly");
    let (plan, clock, log) = (compile(&text), SimulatedClock::default(), Log::new(2));
    let mut worker = start(&log, &plan, &clock);
    let put = |partition: i32, value: &str| {
        let value = Some(Bytes::copy_from_slice(value.as_bytes()));
        let record = NewRecord { partition: Some(partition), value, ..NewRecord::default() };
        log.append(&"readings".into(), record).expect("it is appended");
    };
    let committed_in = |partition: i32, reader: &str| {
        let committed = log.committed("app", &TopicPartition::new("readings", partition))?;
        let metadata = committed.metadata.expect("it is ours");
        Some(committed.offset + metadata.ahead.get(&NameHash::of(reader)).copied().unwrap_or(0))
    };
    put(0, "fail");
    for number in 0..40 {
        put(0, "behind");
        put(1, "beside");
        clock.advance(Duration::from_millis(100));
        turns(&mut worker, 3);
        assert_eq!(committed_in(0, "patient"), Some(0), "the failed event holds its position");
        assert_eq!(committed_in(1, "patient"), Some(number + 1), "another partition goes on");
        assert_eq!(committed_in(0, "quick"), Some(number + 2), "another reader goes on");
    }
}

#[test]
fn a_full_queue_behind_a_back_off_holds_its_partition_until_it_ends() {
    let patient = agent("patient", "readings", "", "kept")
        .replace("spec:\n", "spec:\n  onError: {action: retry, attempts: 2, backoff: {initial: 10m, jitter: 0}}\n");
    let text = patient + &agent("quick", "readings", "", "quickly");
    let (plan, clock, log) = (compile(&text), SimulatedClock::default(), Log::new(2));
    let mut config = Config::new("app", "test", 0);
    (config.bounds.queued_bytes_high, config.bounds.queued_bytes_low) = (2000, 500);
    let mut worker = start_with(&log, &plan, &clock, config);
    let put = |partition: i32, value: &str| {
        let value = Some(Bytes::copy_from_slice(value.as_bytes()));
        let record = NewRecord { partition: Some(partition), value, ..NewRecord::default() };
        log.append(&"readings".into(), record).expect("it is appended");
    };
    let sent = |topic: &str| (0..2).map(|partition| log.read(&topic.into(), partition, 0, 1000).0.len()).sum::<usize>();
    let mut run = |turns_of_100_ms: u32| {
        for _ in 0..turns_of_100_ms {
            clock.advance(Duration::from_millis(100));
            turns(&mut worker, 3);
        }
    };
    put(0, "fail");
    for _ in 0..100 {
        put(0, &"x".repeat(100));
        put(1, &"y".repeat(100));
        run(1);
    }
    let (kept, quick) = (sent("kept"), sent("quickly"));
    assert_eq!(kept, 100, "another partition goes on");
    assert!((101..150).contains(&quick), "another reader goes on until the queue is full: {quick}");
    run(7000);
    assert_eq!((sent("kept"), sent("quickly")), (200, 200), "all goes on when the back-off is over");
}

#[test]
fn a_slow_reader_takes_no_time_of_others() {
    let text = agent("slow", "works", "", "slowly") + &agent("quick", "readings", "", "quickly");
    let (plan, clock, log) = (compile(&text), SimulatedClock::default(), Log::new(1));
    let mut worker = start(&log, &plan, &clock);
    (0..100).for_each(|_| send(&log, "works", "slow"));
    (0..100).for_each(|_| send(&log, "readings", "quick"));
    turns(&mut worker, 10);
    assert_eq!(values(&log, "quickly").len(), 100, "the quick one has had its time in each epoch");
    assert!((1..30).contains(&values(&log, "slowly").len()), "{}", values(&log, "slowly").len());
}

#[test]
fn an_await_that_takes_too_long_fails_and_its_partition_goes_on() {
    let text = agent("slow", "readings", "", "slowly").replace("spec:\n", "spec:\n  timeout: 30s\n");
    let (plan, clock, log) = (compile(&text), SimulatedClock::default(), Log::new(1));
    let mut worker = start(&log, &plan, &clock);
    for value in ["wait", "next"] {
        send(&log, "readings", value);
    }
    turns(&mut worker, 3);
    clock.advance(Duration::from_secs(29));
    turns(&mut worker, 3);
    assert!(worker.awaits() && worker.take_failures().is_empty());
    clock.advance(Duration::from_secs(1));
    turns(&mut worker, 3);
    clock.advance(Duration::from_millis(100));
    turns(&mut worker, 3);
    let kinds: Vec<_> = worker.take_failures().into_iter().map(|failure| failure.kind).collect();
    assert_eq!(
        (kinds.as_slice(), values(&log, "slowly").as_slice()),
        (["Timeout".to_owned()].as_slice(), ["next".to_owned()].as_slice())
    );
}

#[test]
fn halt_stops_before_the_event() {
    let text = agent("echo", "readings", "", "echoes");
    let (plan, clock, log) = (compile(&text), SimulatedClock::default(), Log::new(1));
    let config = Config { on_error: kaspr_ir::plan::OnError::Halt, ..Config::new("app", "test", 0) };
    let mut worker = start_with(&log, &plan, &clock, config);
    for value in ["a", "fail", "b"] {
        send(&log, "readings", value);
    }
    let stopped = (0..5).find_map(|_| worker.turn(Duration::ZERO).err());
    let Some(Stopped::Halted(failure)) = stopped else { panic!("it halts: {stopped:?}") };
    assert_eq!(failure.offset, 1);
    assert_eq!(committed(&log, "readings", "echo"), Some(1), "what came before is committed, the event is not");
    assert_eq!(values(&log, "echoes"), ["a"]);
}

#[test]
fn chains_flow_and_leave_no_lag() {
    let text = agent("first", "a", "", "b") + &agent("second", "b", "", "c");
    let (plan, clock, log) = (compile(&text), SimulatedClock::default(), Log::new(1));
    let mut worker = start(&log, &plan, &clock);
    for number in 0..10 {
        send(&log, "a", &number.to_string());
        clock.advance(Duration::from_millis(100));
        turns(&mut worker, 4);
    }
    for _ in 0..3 {
        clock.advance(Duration::from_millis(100));
        turns(&mut worker, 3);
    }
    assert_eq!(values(&log, "c").len(), 10);
    let (_, end) = log.read(&"b".into(), 0, 0, 1000);
    assert_eq!(committed(&log, "b", "second"), Some(end), "markers leave no lag");
}

#[test]
fn two_workers_share_the_partitions_and_one_inherits_them() {
    let text = agent("echo", "readings", "", "echoes");
    let (plan, clock, log) = (compile(&text), SimulatedClock::default(), Log::new(1));
    log.create("readings", 4);
    log.create("echoes", 1);
    let mut first = start(&log, &plan, &clock);
    turns(&mut first, 3);
    let mut second = start_with(&log, &plan, &clock, Config::new("app", "test", 1));
    let mut sent = 0;
    let mut both = |first: &mut Worker<Stub>, second: Option<&mut Worker<Stub>>| {
        for _ in 0..8 {
            send(&log, "readings", &sent.to_string());
            sent += 1;
        }
        clock.advance(Duration::from_millis(100));
        turns(first, 4);
        if let Some(second) = second {
            turns(second, 4);
        }
    };
    for _ in 0..5 {
        both(&mut first, Some(&mut second));
    }
    assert_eq!((first.positions().len(), second.positions().len()), (2, 2));
    second.close().expect("it leaves");
    for _ in 0..5 {
        both(&mut first, None);
    }
    assert_eq!(first.positions().len(), 4);
    let mut came: Vec<i32> = values(&log, "echoes").iter().map(|value| value.parse().expect("a number")).collect();
    came.sort_unstable();
    assert_eq!(came, (0..80).collect::<Vec<_>>(), "each event once, none lost");
}

#[test]
fn a_revoked_partition_leaves_open_windows_and_comes_again_elsewhere() {
    let text = agent("batcher", "readings", WINDOW, "batches");
    let (plan, clock, log) = (compile(&text), SimulatedClock::default(), Log::new(1));
    log.create("readings", 2);
    let mut first = start(&log, &plan, &clock);
    for partition in [0, 1, 0, 1] {
        let value = Some(Bytes::from(partition.to_string()));
        let record = NewRecord { partition: Some(partition), value, ..NewRecord::default() };
        log.append(&"readings".into(), record).expect("it is appended");
    }
    turns(&mut first, 4);
    assert!(first.has_open_windows());
    let mut second = start_with(&log, &plan, &clock, Config::new("app", "test", 1));
    for _ in 0..5 {
        clock.advance(Duration::from_millis(100));
        turns(&mut first, 4);
        turns(&mut second, 4);
    }
    assert_eq!((first.positions().len(), second.positions().len()), (1, 1));
    clock.advance(Duration::from_secs(600));
    for _ in 0..3 {
        clock.advance(Duration::from_millis(100));
        turns(&mut first, 4);
        turns(&mut second, 4);
    }
    let mut batches = values(&log, "batches");
    batches.sort_unstable();
    assert_eq!(batches, ["0+0", "1+1"], "each worker has a batch of its own partition, once");
}

/// Topics of dead letters that an agent names, where the app's settings say `deadLetter` to `app-letters`.
fn letters(of_agent: &str, of_step: &str) -> Vec<String> {
    let policies = format!("  processors:\n    pipeline: [same]\n    operations:\n      - name: same\n{of_step}");
    let text = agent("a", "in", of_agent, "out")
        .replace("  processors:\n    pipeline: [same]\n    operations:\n      - name: same\n", &policies);
    let plan = compile(&text);
    let mut config = Config::new("app", "test", 0);
    (config.on_error, config.dead_letter_topic) =
        (OnError::from_setting("deadLetter").expect("an action"), Some("app-letters".to_owned()));
    let named = kaspr_exec::check::topics::named(&plan, &config.policies(&plan));
    named.into_iter().filter(|topic| topic.by.contains("dead letters")).map(|topic| topic.name).collect()
}

#[test]
fn a_topic_of_dead_letters_is_needed_where_its_policy_counts() {
    let (skip, own) = ("  onError: {action: skip}\n", "        onError: {action: deadLetter, topic: own}\n");
    assert_eq!(letters("", ""), ["app-letters"]);
    assert!(letters(skip, "").is_empty(), "the agent's word counts in its steps, too");
    assert_eq!(letters(skip, own), ["own"]);
    assert_eq!(letters("", own), ["app-letters", "own"]);
    let retry = "        onError: {action: retry, then: deadLetter}\n";
    assert_eq!(letters(skip, retry), ["app-letters"], "a dead letter without a topic goes to the app's");
}
