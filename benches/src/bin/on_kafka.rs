//! `on_kafka`: topic → filter + map → topic on a real Kafka, beside what one would use instead: a script by hand
//! (confluent-kafka; json or orjson), Bytewax and Quix Streams. All are processes of their own on the same broker and
//! the same events. Broker and contestants are pinned to different cores.
//!
//! The cost of an event is the difference of two runs, of many and of few events: start and end count in neither.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench speaks on its terminal")]
#![allow(clippy::disallowed_methods, reason = "a bench measures real time")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kaspr_benches::scrapes::Scrapes;
use kaspr_benches::{cpu_seconds_of, folder, machine, median, pin, readings};
use kaspr_tests::kafka::{Broker, Record, free_port, unique};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

/// Events of the two runs whose difference is the cost of an event.
const FEW: u64 = 50_000;
const MANY: u64 = 550_000;
const PARTITIONS: i32 = 4;
/// Rounds, if the first argument says no other number.
const ROUNDS: usize = 5;
/// Events of the latency's measurement, and how many come in a second.
const PACED: u64 = 10_000;
const RATE: u64 = 1_000;
/// The second argument that leaves throughput out; any other names contestants of it.
const PACED_ONLY: &str = "paced";
/// The cores of the broker (and of the load), and of the contestants.
const BROKERS_CORE: usize = 1;
const CONTESTANTS_CORE: usize = 0;

struct Topics {
    input: String,
    output: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Contestant {
    /// The script, with the standard library's json.
    ByHandWithJson,
    ByHand,
    ByHandExactlyOnce,
    Bytewax,
    Quix,
    QuixExactlyOnce,
    AtLeastOnce,
    /// The same with its port served and scraped once a second.
    Scraped,
    /// Exactly once, with a commit interval in ms.
    ExactlyOnce(u32),
}

/// The contestants whose throughput is measured, one after the other in each round.
const RUNNERS: [Contestant; 9] = [
    Contestant::ByHandWithJson,
    Contestant::ByHand,
    Contestant::ByHandExactlyOnce,
    Contestant::Bytewax,
    Contestant::Quix,
    Contestant::QuixExactlyOnce,
    Contestant::AtLeastOnce,
    Contestant::Scraped,
    Contestant::ExactlyOnce(100),
];
/// The contestants whose delay is measured, and their CPU time at a steady rate.
const PACED_RUNNERS: [Contestant; 7] = [
    Contestant::ByHand,
    Contestant::ByHandExactlyOnce,
    Contestant::Quix,
    Contestant::AtLeastOnce,
    Contestant::ExactlyOnce(10),
    Contestant::ExactlyOnce(100),
    Contestant::ExactlyOnce(1000),
];
/// Ratios that are printed: of the first to the second.
const RATIOS: [(Contestant, Contestant); 8] = [
    (Contestant::AtLeastOnce, Contestant::ByHandWithJson),
    (Contestant::AtLeastOnce, Contestant::ByHand),
    (Contestant::ExactlyOnce(100), Contestant::ByHandExactlyOnce),
    (Contestant::AtLeastOnce, Contestant::Bytewax),
    (Contestant::AtLeastOnce, Contestant::Quix),
    (Contestant::ExactlyOnce(100), Contestant::QuixExactlyOnce),
    (Contestant::ExactlyOnce(100), Contestant::AtLeastOnce),
    (Contestant::Scraped, Contestant::AtLeastOnce),
];

impl Contestant {
    fn name(self) -> String {
        match self {
            Contestant::ByHandWithJson => "script, json".to_owned(),
            Contestant::ByHand => "script, orjson".to_owned(),
            Contestant::ByHandExactlyOnce => "script, orjson, exactly once".to_owned(),
            Contestant::Bytewax => "Bytewax, orjson".to_owned(),
            Contestant::Quix => "Quix Streams (orjson)".to_owned(),
            Contestant::QuixExactlyOnce => "Quix Streams, exactly once".to_owned(),
            Contestant::AtLeastOnce => "kaspr-exec, at least once".to_owned(),
            Contestant::Scraped => "kaspr-exec, at least once, scraped".to_owned(),
            Contestant::ExactlyOnce(interval) => format!("kaspr-exec, exactly once {interval} ms"),
        }
    }

    /// The command that handles so many events of the input.
    fn command(self, broker: &Broker, topics: &Topics, events: u64, ends: bool) -> Command {
        let group = unique("bench");
        let Topics { input, output } = topics;
        let script = |python: &str, name: &str, more: &[&str]| {
            let mut command = Command::new(std::env::var(python).expect("benches/run names it"));
            command.arg(folder("rivals").join(name)).args([&broker.servers, &group, input, output]);
            command.arg(events.to_string()).args(more);
            command
        };
        match self {
            Contestant::ByHandWithJson => script("BENCH_PYTHON", "by_hand.py", &["json"]),
            Contestant::ByHand => script("BENCH_PYTHON", "by_hand.py", &["orjson"]),
            Contestant::ByHandExactlyOnce => script("BENCH_PYTHON", "by_hand.py", &["orjson", "once"]),
            Contestant::Quix => script("BENCH_RIVALS", "quix.py", &[]),
            Contestant::QuixExactlyOnce => script("BENCH_RIVALS", "quix.py", &["once"]),
            Contestant::Bytewax => {
                let mut command = Command::new(std::env::var("BENCH_RIVALS").expect("benches/run names it"));
                let flow = format!("bytewax_flow:flow('{}', '{input}', '{output}')", broker.servers);
                command.args(["-m", "bytewax.run", &flow]).current_dir(folder("rivals"));
                command
            }
            Contestant::AtLeastOnce | Contestant::Scraped => {
                let mut command = kaspr_exec(broker, topics, &group, ends);
                command.args(["--guarantee", "at-least-once"]);
                command
            }
            Contestant::ExactlyOnce(interval) => {
                let mut command = kaspr_exec(broker, topics, &group, ends);
                command.args(["--commit-interval", &format!("{interval}ms")]);
                command
            }
        }
    }
}

fn kaspr_exec(broker: &Broker, topics: &Topics, group: &str, ends: bool) -> Command {
    let spec = std::fs::read_to_string(folder("loop").join("agent.yaml")).expect("the bench's spec");
    let spec = spec.replace("name: readings-raw", &format!("name: {}", topics.input));
    let spec = spec.replace("- name: readings\n", &format!("- name: {}\n", topics.output));
    let file = std::env::temp_dir().join(format!("{}.yaml", unique("bench-agent")));
    std::fs::write(&file, spec).expect("the spec can be written");
    let program = std::env::current_exe().expect("a program knows its file").with_file_name("kaspr-exec");
    let mut command = Command::new(program);
    command.arg("run").arg(file).args(["--bootstrap-servers", &broker.servers, "--app", group, "--quiet"]);
    if ends {
        command.arg("--until-caught-up");
    }
    command
}

/// Starts a contestant on its core; what this thread does goes on on the broker's.
fn start(
    contestant: Contestant,
    broker: &Broker,
    (topics, events): (&Topics, u64),
    (port, ends): (Option<u16>, bool),
) -> Child {
    let mut command = contestant.command(broker, topics, events, ends);
    if let Some(port) = port {
        command.args(["--web-port", &port.to_string()]);
    }
    pin(CONTESTANTS_CORE);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    pin(BROKERS_CORE);
    child.expect("the contestant starts")
}

/// The cost of a run of a contestant, in seconds.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
}

/// Runs a contestant on all events of a topic.
fn cost(contestant: Contestant, broker: &Broker, input: &str, events: u64) -> Cost {
    let topics = Topics { input: input.to_owned(), output: broker.topic("readings", PARTITIONS) };
    let port = (contestant == Contestant::Scraped).then(free_port);
    let began = Instant::now();
    let child = start(contestant, broker, (&topics, events), (port, true));
    // On the broker's core, as all clients are.
    let scrapes = port.map(Scrapes::each_second);
    let cpu = wait(child, contestant);
    let wall = began.elapsed().as_secs_f64();
    if let Some(scrapes) = scrapes {
        assert!(scrapes.end().pages > 0 || events == FEW, "no page of metrics came");
    }
    let expected = i64::try_from(events / 10 * 9).expect("few");
    assert_eq!(broker.count(&topics.output), expected, "every active reading came once: {}", contestant.name());
    Cost { wall, cpu }
}

/// Microseconds per event, by contestant and round.
type Figures = Vec<(Contestant, Vec<Cost>)>;

/// The figures of the contestants whose names contain these words.
fn throughput(broker: &Broker, (few, many): (&str, &str), rounds: usize, only: &str) -> Figures {
    let runners = RUNNERS.into_iter().filter(|runner| runner.name().contains(only));
    let mut figures: Figures = runners.map(|runner| (runner, Vec::new())).collect();
    for round in 1..=rounds {
        for (contestant, figures) in &mut figures {
            let contestant = *contestant;
            eprintln!("round {round} of {rounds}: {}", contestant.name());
            let of_few = cost(contestant, broker, few, FEW);
            let of_many = cost(contestant, broker, many, MANY);
            let per_event = |few: f64, many: f64| (many - few) * 1e6 / (MANY - FEW) as f64;
            let (wall, cpu) = (per_event(of_few.wall, of_many.wall), per_event(of_few.cpu, of_many.cpu));
            figures.push(Cost { wall, cpu });
        }
    }
    figures
}

fn print_throughput(figures: &Figures) {
    let medians = |costs: &[Cost], of: fn(&Cost) -> f64| median(&costs.iter().map(of).collect::<Vec<_>>());
    println!("{:<34} {:>13} {:>13}", "", "µs wall/event", "µs CPU/event");
    for (contestant, costs) in figures {
        let (wall, cpu) = (medians(costs, |cost| cost.wall), medians(costs, |cost| cost.cpu));
        println!("{:<34} {wall:>13.2} {cpu:>13.2}", contestant.name());
    }
    for (of, to) in RATIOS {
        let costs = |of| figures.iter().find(|(runner, _)| *runner == of).map(|(_, costs)| costs);
        let (Some(costs_of), Some(costs_to)) = (costs(of), costs(to)) else { continue };
        // Of costs of the same round: what troubles the machine troubles both.
        let ratio = |by: fn(&Cost) -> f64| {
            let rounds = costs_of.iter().zip(costs_to);
            median(&rounds.map(|(of, to)| by(to) / by(of)).collect::<Vec<_>>())
        };
        let (wall, cpu) = (ratio(|cost| cost.wall), ratio(|cost| cost.cpu));
        println!("throughput {wall:.2}x, events per CPU second {cpu:.2}x: {}, of {}", of.name(), to.name());
    }
}

fn main() {
    let rounds = std::env::args().nth(1).map_or(ROUNDS, |text| text.parse().expect("a number of rounds"));
    let only = std::env::args().nth(2).unwrap_or_default();
    pin(BROKERS_CORE);
    let broker = Broker::start();
    let texts = readings(MANY);
    let [few, many] = [FEW, MANY].map(|events| {
        let input = broker.topic("readings-raw", PARTITIONS);
        let lines = texts.lines().enumerate().take(usize::try_from(events).expect("few"));
        let record = |(n, line): (usize, &str)| Record {
            partition: i32::try_from(n % 4).ok(),
            value: Some(line.as_bytes().to_vec()),
            ..Record::default()
        };
        broker.produce(&input, lines.map(record));
        input
    });
    println!("{MANY} events less {FEW}, {PARTITIONS} partitions, Apache Kafka on the same machine: {}", machine());
    if only != PACED_ONLY {
        print_throughput(&throughput(&broker, (&few, &many), rounds, &only));
        if !only.is_empty() {
            return;
        }
    }
    println!("{:<34} {:>9} {:>9} {:>13}", format!("at {RATE} events a second"), "p50 ms", "p99 ms", "µs CPU/event");
    for contestant in PACED_RUNNERS {
        let Paced { delays, cpu } = paced(contestant, &broker);
        let at = |share: f64| delays[(delays.len() as f64 * share) as usize];
        println!("{:<34} {:>9.1} {:>9.1} {cpu:>13.0}", contestant.name(), at(0.5), at(0.99));
    }
}

/// Seconds of CPU of a child that has ended well.
#[allow(clippy::zombie_processes, reason = "wait4 waits for it")]
fn wait(child: Child, contestant: Contestant) -> f64 {
    let pid = i32::try_from(child.id()).expect("a process number");
    let mut status = 0;
    // SAFETY: an all-zero rusage is valid; the pointers are to live values.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::wait4(pid, &mut status, 0, &mut usage), pid);
        usage
    };
    assert_eq!(status, 0, "the contestant ends well: {}", contestant.name());
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64() * 1e3
}

/// Figures of a contestant at a steady rate.
struct Paced {
    /// Milliseconds from sending an event to reading its record, sorted.
    delays: Vec<f64>,
    /// Microseconds of CPU per event.
    cpu: f64,
}

/// Gives a contestant events at a steady rate.
fn paced(contestant: Contestant, broker: &Broker) -> Paced {
    let topics = Topics { input: broker.topic("paced", PARTITIONS), output: broker.topic("paced-out", PARTITIONS) };
    let mut child = start(contestant, broker, (&topics, PACED * 10), (None, false));
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &broker.servers).set("linger.ms", "0");
    let producer: BaseProducer = config.create().expect("a producer");
    config.set("isolation.level", "read_committed");
    config.set("group.id", unique("latency")).set("auto.offset.reset", "earliest").set("fetch.wait.max.ms", "10");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_range(&topics.output, 0, PARTITIONS - 1);
    list.set_all_offsets(rdkafka::Offset::Beginning).expect("an offset");
    consumer.assign(&list).expect("the partitions are there");
    let mut delays = Vec::new();
    let mut read = |wait: Duration| {
        let Some(message) = consumer.poll(wait) else { return false };
        let message = message.expect("no error");
        let value: serde_json::Value = serde_json::from_slice(message.payload().expect("a value")).expect("JSON");
        delays.push((value["id"].as_u64().expect("a number"), now_ms() - value["sent"].as_f64().expect("a time")));
        true
    };
    // Both have joined and warmed up before the clock counts.
    let warm = 2 * RATE;
    let (began, mut cpu) = (Instant::now(), 0.0);
    for n in 0..PACED + warm {
        if n == warm {
            cpu = cpu_seconds_of(child.id());
        }
        let value = format!("{{\"id\": {n}, \"sent\": {}, \"celsius\": 20.5, \"active\": true}}", now_ms());
        let record = BaseRecord::<(), [u8]>::to(&topics.input).payload(value.as_bytes());
        producer.send(record.partition(i32::try_from(n % 4).expect("small"))).expect("the queue has room");
        producer.poll(Duration::ZERO);
        while began.elapsed() < Duration::from_micros((n + 1) * 1_000_000 / RATE) {
            read(Duration::from_micros(200));
        }
    }
    let cpu = (cpu_seconds_of(child.id()) - cpu) * 1e6 / PACED as f64;
    producer.flush(Duration::from_secs(10)).expect("all is sent");
    while read(Duration::from_secs(2)) {}
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let mut delays: Vec<f64> = delays.into_iter().filter(|(n, _)| *n >= warm).map(|(_, delay)| delay).collect();
    assert!(delays.len() as u64 >= PACED, "every event came: {} of {PACED}", delays.len());
    delays.sort_by(f64::total_cmp);
    Paced { delays, cpu }
}
