//! `on_kafka`: topic → filter + map → topic on a real Kafka, beside the script that one writes by
//! hand (confluent-kafka and orjson, batches of 1000). Both are processes of their own on the same
//! broker and the same events; wall and CPU time are those of the whole process, start included.
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
    Worker,
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
    let mut walls: [Vec<f64>; 2] = Default::default();
    let mut cpus: [Vec<f64>; 2] = Default::default();
    for _ in 0..ROUNDS {
        for (number, contestant) in [Contestant::ByHand, Contestant::Worker].into_iter().enumerate() {
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
    let delays: Vec<Vec<f64>> =
        [Contestant::ByHand, Contestant::Worker].into_iter().map(|contestant| latency(contestant, &broker)).collect();
    println!("{:<30} {:>13} {:>13} {:>9} {:>9}", "", "µs wall/event", "µs CPU/event", "p50 ms", "p99 ms");
    for (number, name) in ["by hand, orjson", "kaspr-exec, one worker"].into_iter().enumerate() {
        let at = |share: f64| delays[number][(delays[number].len() as f64 * share) as usize];
        let (wall, cpu) = (median(&walls[number]), median(&cpus[number]));
        println!("{name:<30} {wall:>13.2} {cpu:>13.2} {:>9.1} {:>9.1}", at(0.5), at(0.99));
    }
    let ratio = |figures: &[Vec<f64>; 2]| {
        let ratios: Vec<f64> = figures[0].iter().zip(&figures[1]).map(|(by_hand, own)| by_hand / own).collect();
        median(&ratios)
    };
    println!("throughput {:.2}x, CPU {:.2}x of the script by hand", ratio(&walls), ratio(&cpus));
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
        Contestant::Worker => {
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
    // SAFETY: an all-zero rusage is one; the pointers are to live values.
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
