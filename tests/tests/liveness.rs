//! Liveness in everyday operation: partitions whose beginning is deleted, and many partitions that come
//! at once.

use std::time::Duration;

use kaspr_tests::app::{App, Member};
use kaspr_tests::clock::{now, pause, since_1970};
use kaspr_tests::kafka::{Broker, Record, broker};
use kaspr_tests::verify::read::Topics;
use kaspr_tests::watch::Watch;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord};

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// An agent that passes on every event, after `seconds`.
fn passes_on(input: &str, output: &str, seconds: f64) -> String {
    format!(
        "apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata:\n  name: passes-on\nspec:\n  input:\n    topic: {{name: {input}, \
         valueSerializer: raw}}\n  output:\n    topics:\n      - {{name: {output}, valueSerializer: raw}}\n  processors:\n    pipeline: [step]\n    \
         operations:\n      - name: step\n        map:\n          python: |\n            import time\n            def step(value):\n              \
         if {seconds} > 0: time.sleep({seconds})\n              return value\n"
    )
}

/// An app of that agent over these topics, with a name of its own.
fn app(broker: &Broker, input: &str, output: &str, seconds: f64) -> App {
    let topics = Topics { input: input.to_owned(), outputs: vec![output.to_owned()], ..Topics::default() };
    App::of(broker, &passes_on(input, output, seconds), "passes-on", topics, 1)
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let began = now();
    while !is_so() {
        assert!(now() - began < PATIENCE, "waited {PATIENCE:?} for {what}");
        pause(Duration::from_millis(20));
    }
    now() - began
}

/// Small records, in turn for each partition.
fn records(partitions: i32, each: i64) -> impl Iterator<Item = Record> {
    let record = |partition| Record { partition: Some(partition), ..Record::new("", "1") };
    (0..each).flat_map(move |_| (0..partitions).map(record))
}

#[test]
fn topics_whose_beginning_is_deleted_are_read() {
    const PARTITIONS: i32 = 12;
    let broker = broker();
    let (input, output) = (broker.topic("in", PARTITIONS), broker.topic("out", 1));
    broker.produce(&input, records(PARTITIONS, 200));
    broker.delete_before(&input, &[100; PARTITIONS as usize]);
    // Of every second app some commits lie before the first record that is left, of the others all behind it.
    for round in 0..4 {
        let apps: Vec<(App, bool)> = (0..4).map(|n| (app(broker, &input, &output, 0.0), n % 2 == 0)).collect();
        for (app, deleted) in &apps {
            let offset = |partition: i64| if *deleted && partition % 3 == 0 { 50 } else { 195 };
            broker.commit_all(&app.name, &input, &(0..i64::from(PARTITIONS)).map(offset).collect::<Vec<_>>());
        }
        let mut members: Vec<Member> =
            apps.iter().map(|(app, _)| app.start_with(0, &["--until-caught-up"], None)).collect();
        for ((app, deleted), member) in apps.iter().zip(&mut members) {
            let ended = member.ends_within(PATIENCE);
            let words = app.words(0);
            assert_eq!(ended, Some(Some(0)), "round {round}: {words}");
            assert_eq!(words.matches("retention deleted").count(), if *deleted { 4 } else { 0 }, "{words}");
        }
    }
}

#[test]
fn rebalances_of_topics_whose_beginning_is_deleted_stop_nobody() {
    const PARTITIONS: i32 = 12;
    let broker = broker();
    let (input, output) = (broker.topic("in", PARTITIONS), broker.topic("out", 1));
    broker.produce(&input, records(PARTITIONS, 200));
    broker.delete_before(&input, &[100; PARTITIONS as usize]);
    let app = app(broker, &input, &output, 0.0);
    broker.commit_all(&app.name, &input, &[195; PARTITIONS as usize]);
    let mut first = app.start(0);
    wait_until("the first member", || broker.lag(&app.name, &input) == 0);
    for round in 1..=6 {
        let mut second = app.start(round);
        wait_until("the second member", || app.words(round).matches(" started").count() >= 6);
        assert_eq!(second.terminate(), Some(0), "{}", app.words(round));
        let came_back = || app.words(0).matches(" started").count() >= 12 + 6 * round;
        wait_until("its partitions to come back", || first.ended().is_some() || came_back());
        assert_eq!(first.ended(), None, "{}", app.words(0));
    }
    broker.produce(&input, records(PARTITIONS, 1));
    wait_until("every partition to be read", || broker.lag(&app.name, &input) == 0);
    assert_eq!(first.terminate(), Some(0), "{}", app.words(0));
}

#[test]
fn a_slow_reader_that_retention_passes_goes_on() {
    const EACH: usize = 100_000;
    let broker = broker();
    let (input, output) = (broker.topic("in", 1), broker.topic("out", 1));
    // More than the worker and its client hold.
    let large = || Record { partition: Some(0), ..Record::new("", vec![b'x'; EACH]) };
    broker.produce(&input, (0..500).map(|_| large()));
    // Twenty-five seconds in all: the records are deleted long before they are read, on a busy machine too.
    let app = app(broker, &input, &output, 0.05);
    let mut member = app.start(0);
    wait_until("the first output", || broker.lag(&app.name, &input) < 500 && !broker.read(&output).is_empty());
    broker.delete_before(&input, &[490]);
    wait_until("the end of the topic", || member.ended().is_some() || broker.lag(&app.name, &input) == 0);
    let words = app.words(0);
    assert_eq!(member.ended(), None, "{words}");
    assert!(words.contains("@490: starting here: retention deleted offsets"), "{words}");
    assert_eq!(member.terminate(), Some(0), "{words}");
    let passed = broker.count(&output);
    assert!((10..400).contains(&passed), "{passed} of 500 records were read, the last 10 at least");
}

/// Measures the time of an app from its start until it has started on so many partitions and passed an event
/// on.
#[allow(clippy::print_stdout, reason = "figures of a test")]
fn start(broker: &Broker, partitions: i32) -> Duration {
    let (input, output) = (broker.topic("in", partitions), broker.topic("out", 1));
    let app = app(broker, &input, &output, 0.0);
    let began = now();
    let mut member = app.start(0);
    let count = usize::try_from(partitions).expect("few");
    wait_until("the start of all partitions", || app.words(0).matches(" started").count() >= count);
    broker.produce(&input, [Record { partition: Some(partitions - 1), ..Record::new("", "1") }]);
    wait_until("an event of the last partition", || broker.count(&output) == 1);
    let took = now() - began;
    println!("{partitions} partitions begin in {:.1} s", took.as_secs_f64());
    assert_eq!(member.terminate(), Some(0), "{}", app.words(0));
    took
}

#[test]
fn many_quiet_partitions_begin_as_fast_as_one() {
    let broker = broker();
    let (one, many) = (start(broker, 1), start(broker, 600));
    assert!(many < one + Duration::from_secs(5), "one partition begins in {one:.1?}, 600 in {many:.1?}");
}

#[test]
#[allow(clippy::print_stdout, reason = "figures of a test")]
fn a_takeover_of_quiet_partitions_delays_no_other_events() {
    const PARTITIONS: i32 = 200;
    let broker = broker();
    let (input, output) = (broker.topic("in", PARTITIONS), broker.topic("out", 1));
    let app = app(broker, &input, &output, 0.0);
    let mut first = app.start(0);
    let starts = |number: usize| app.words(number).matches(" started").count();
    wait_until("the first member", || starts(0) == 200);
    let mut second = app.start(1);
    wait_until("the second member", || starts(1) == 100);
    // What the first has kept, the second does not start on.
    let words = app.words(1);
    let kept = (0..PARTITIONS).find(|number| !words.contains(&format!("partition={input}/{number} "))).expect("some");
    let watch = Watch::start(&broker.servers, &output, 1);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &broker.servers).set("linger.ms", "0");
    let producer: BaseProducer = config.create().expect("a producer");
    let send = |until: &dyn Fn() -> bool| {
        let mut ages = Vec::new();
        while !until() {
            let value = format!("{{\"at\": {}}}", since_1970());
            producer.send(BaseRecord::<[u8], _>::to(&input).partition(kept).payload(&value)).expect("it is queued");
            producer.poll(Duration::ZERO);
            pause(Duration::from_millis(10));
            ages.push(watch.oldest());
        }
        ages.into_iter().max().unwrap_or_default()
    };
    let began = now();
    send(&|| now() - began > Duration::from_secs(2));
    watch.reset();
    let began = now();
    let before = send(&|| now() - began > Duration::from_secs(3));
    watch.reset();
    assert_eq!(second.terminate(), Some(0), "{}", app.words(1));
    let during = send(&|| starts(0) == 300);
    println!("events of other partitions are at most {before:.1?} old, and {during:.1?} during a takeover of 100");
    assert!(during < before + Duration::from_secs(2), "{during:?} during a takeover, {before:?} before it");
    assert_eq!(first.terminate(), Some(0), "{}", app.words(0));
}
