//! `on_kafka`: topic → filter + map → topic on a real Kafka, beside the script that one writes by hand
//! (confluent-kafka and orjson, batches of 1000). Both are processes of their own on the same broker and the
//! same events; wall and CPU time are those of the whole process, start included. The cost of exactly-once is
//! the ratio to the same worker at least once.
#![allow(clippy::print_stdout, reason = "a bench speaks on its terminal")]
#![allow(clippy::disallowed_methods, reason = "a bench measures real time")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kaspr_benches::{folder, machine, median, readings};
use kaspr_tests::kafka::{Broker, Record, unique};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

const EVENTS: u64 = 500_000;
const PARTITIONS: i32 = 4;
const ROUNDS: usize = 3;
/// Events of the latency's measurement, and how many come in a second.
const PACED: u64 = 10_000;
const RATE: u64 = 1_000;

struct Topics {
    input: String,
    output: String,
}

#[derive(Clone, Copy)]
enum Contestant {
    ByHand,
    AtLeastOnce,
    /// Exactly once, with a commit interval in ms.
    ExactlyOnce(u32),
}

/// The contestants whose throughput is measured, one after the other in each round.
const RUNNERS: [Contestant; 3] = [Contestant::ByHand, Contestant::AtLeastOnce, Contestant::ExactlyOnce(100)];
/// The contestants whose delay is measured.
const PACED_RUNNERS: [Contestant; 5] = [
    Contestant::ByHand,
    Contestant::AtLeastOnce,
    Contestant::ExactlyOnce(10),
    Contestant::ExactlyOnce(100),
    Contestant::ExactlyOnce(1000),
];

impl Contestant {
    fn name(self) -> String {
        match self {
            Contestant::ByHand => "by hand, orjson, at least once".to_owned(),
            Contestant::AtLeastOnce => "kaspr-exec, at-least-once".to_owned(),
            Contestant::ExactlyOnce(interval) => format!("kaspr-exec, exactly-once {interval} ms"),
        }
    }
}

fn main() {
    let broker = Broker::start();
    let texts = readings(EVENTS);
    let records = texts.lines().enumerate().map(|(n, line)| Record {
        partition: i32::try_from(n % 4).ok(),
        value: Some(line.as_bytes().to_vec()),
        ..Record::default()
    });
    let input = broker.topic("readings-raw", PARTITIONS);
    broker.produce(&input, records);
    println!("{EVENTS} events, {PARTITIONS} partitions, Apache Kafka on the same machine: {}", machine());
    let mut walls: [Vec<f64>; RUNNERS.len()] = Default::default();
    let mut cpus: [Vec<f64>; RUNNERS.len()] = Default::default();
    for _ in 0..ROUNDS {
        for (number, contestant) in RUNNERS.into_iter().enumerate() {
            let topics = Topics { input: input.clone(), output: broker.topic("readings", PARTITIONS) };
            let began = Instant::now();
            let child = start(contestant, &broker, &topics, EVENTS, true);
            let cpu = wait(child);
            walls[number].push(began.elapsed().as_secs_f64() * 1e6 / EVENTS as f64);
            cpus[number].push(cpu * 1e6 / EVENTS as f64);
            let expected = i64::try_from(EVENTS / 10 * 9).expect("few");
            assert_eq!(broker.count(&topics.output), expected, "every active reading came once");
        }
    }
    println!("{:<32} {:>13} {:>13}", "", "µs wall/event", "µs CPU/event");
    for (number, contestant) in RUNNERS.into_iter().enumerate() {
        println!("{:<32} {:>13.2} {:>13.2}", contestant.name(), median(&walls[number]), median(&cpus[number]));
    }
    let ratio = |figures: &[Vec<f64>; RUNNERS.len()], of: usize, to: usize| {
        let ratios: Vec<f64> = figures[to].iter().zip(&figures[of]).map(|(to, of)| to / of).collect();
        median(&ratios)
    };
    for (of, to, what) in [
        (1, 0, "at-least-once, of the script by hand"),
        (2, 0, "exactly-once, of the script by hand"),
        (2, 1, "exactly-once, of at-least-once"),
    ] {
        println!("throughput {:.2}x, CPU {:.2}x: {what}", ratio(&walls, of, to), ratio(&cpus, of, to));
    }
    println!("{:<32} {:>9} {:>9}", format!("at {RATE} events a second"), "p50 ms", "p99 ms");
    for contestant in PACED_RUNNERS {
        let delays = latency(contestant, &broker);
        let at = |share: f64| delays[(delays.len() as f64 * share) as usize];
        println!("{:<32} {:>9.1} {:>9.1}", contestant.name(), at(0.5), at(0.99));
    }
}

fn start(contestant: Contestant, broker: &Broker, topics: &Topics, events: u64, ends: bool) -> Child {
    let group = unique("bench");
    let mut command = match contestant {
        Contestant::ByHand => {
            let python = std::env::var("KASPR_BENCH_PYTHON").expect("benches/run names it");
            let mut command = Command::new(python);
            command.arg(folder("loop").join("on_kafka.py")).args([&broker.servers, &group]);
            command.args([&topics.input, &topics.output]).arg(events.to_string());
            command
        }
        Contestant::AtLeastOnce | Contestant::ExactlyOnce(_) => {
            let spec = std::fs::read_to_string(folder("loop").join("agent.yaml")).expect("the bench's spec");
            let spec = spec.replace("name: readings-raw", &format!("name: {}", topics.input));
            let spec = spec.replace("- name: readings\n", &format!("- name: {}\n", topics.output));
            let file = std::env::temp_dir().join(format!("{}.yaml", unique("bench-agent")));
            std::fs::write(&file, spec).expect("the spec can be written");
            let program = std::env::current_exe().expect("a program knows its file").with_file_name("kaspr-exec");
            let mut command = Command::new(program);
            command.arg("run").arg(file).args(["--bootstrap-servers", &broker.servers, "--app", &group, "--quiet"]);
            if ends {
                command.arg("--until-caught-up");
            }
            match contestant {
                Contestant::ExactlyOnce(interval) => command.args(["--commit-interval", &format!("{interval}ms")]),
                _ => command.args(["--guarantee", "at-least-once"]),
            };
            command
        }
    };
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the contestant starts")
}

/// Seconds of CPU of a child that has ended well.
#[allow(clippy::zombie_processes, reason = "wait4 waits for it")]
fn wait(child: Child) -> f64 {
    let pid = i32::try_from(child.id()).expect("a process number");
    let mut status = 0;
    // SAFETY: an all-zero rusage is valid; the pointers are to live values.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::wait4(pid, &mut status, 0, &mut usage), pid);
        usage
    };
    assert_eq!(status, 0, "the contestant ends well");
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64() * 1e3
}

/// Milliseconds from sending an event to reading its record, sorted.
fn latency(contestant: Contestant, broker: &Broker) -> Vec<f64> {
    let topics = Topics { input: broker.topic("paced", PARTITIONS), output: broker.topic("paced-out", PARTITIONS) };
    let mut child = start(contestant, broker, &topics, PACED * 10, false);
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
    let began = Instant::now();
    for n in 0..PACED + warm {
        let value = format!("{{\"id\": {n}, \"sent\": {}, \"celsius\": 20.5, \"active\": true}}", now_ms());
        let record = BaseRecord::<(), [u8]>::to(&topics.input).payload(value.as_bytes());
        producer.send(record.partition(i32::try_from(n % 4).expect("small"))).expect("the queue has room");
        producer.poll(Duration::ZERO);
        while began.elapsed() < Duration::from_micros((n + 1) * 1_000_000 / RATE) {
            read(Duration::from_micros(200));
        }
    }
    producer.flush(Duration::from_secs(10)).expect("all is sent");
    while read(Duration::from_secs(2)) {}
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let mut delays: Vec<f64> = delays.into_iter().filter(|(n, _)| *n >= warm).map(|(_, delay)| delay).collect();
    assert!(delays.len() as u64 >= PACED, "every event came: {} of {PACED}", delays.len());
    delays.sort_by(f64::total_cmp);
    delays
}
