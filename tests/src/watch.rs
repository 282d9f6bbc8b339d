//! Watches what an output's readers see, live: when each partition last gave a committed record, how long it
//! stood still, which process wrote it and how old it was.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;

use crate::clock::{now, pause, since_1970};

/// The watch's knowledge of a partition.
#[derive(Clone, Debug)]
pub struct Partition {
    /// The time at which it last gave a record.
    pub last: Instant,
    /// The longest time between two records since the watch was last reset.
    pub gap: Duration,
    /// The process that wrote the last record.
    pub writer: u64,
    /// The time at which the event of the last record was sent, in ms since 1970.
    pub event_at: i64,
    /// Records since the watch was last reset.
    pub records: u64,
    /// The greatest age that a record had when it came, of those whose events were sent since the watch
    /// was last reset.
    pub age: Duration,
}

struct Seen {
    partitions: BTreeMap<i32, Partition>,
    /// The time at which the watch was last reset, in ms since 1970 and as an instant.
    reset_at: (i64, Instant),
}

/// The report of the watch's own client on itself.
#[derive(Clone, Default)]
struct Client {
    said: Arc<Mutex<String>>,
}

impl ClientContext for Client {
    fn stats_raw(&self, said: &[u8]) {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = String::from_utf8_lossy(said).into_owned();
    }
}

impl ConsumerContext for Client {}

/// A running watch.
pub struct Watch {
    client: Client,
    servers: String,
    topic: String,
    seen: Arc<Mutex<Seen>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches a topic from its end on.
    pub fn start(servers: &str, topic: &str, partitions: i32) -> Watch {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", servers).set("group.id", "kaspr-watch").set("log_level", "0");
        config.set("enable.auto.commit", "false").set("isolation.level", "read_committed");
        config.set("fetch.wait.max.ms", "10").set("reconnect.backoff.max.ms", "100");
        config.set("statistics.interval.ms", "1000");
        let client = Client::default();
        let consumer: BaseConsumer<Client> = config.create_with_context(client.clone()).expect("a consumer");
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            let ends =
                consumer.fetch_watermarks(topic, partition, Duration::from_secs(30)).expect("the topic is there");
            list.add_partition_offset(topic, partition, Offset::Offset(ends.1)).expect("an offset");
        }
        consumer.assign(&list).expect("the partitions are there");
        let seen = Seen { partitions: BTreeMap::new(), reset_at: (since_1970(), now()) };
        let (seen, ends) = (Arc::new(Mutex::new(seen)), Arc::new(AtomicBool::new(false)));
        let (sees, told) = (seen.clone(), ends.clone());
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                if let Some(Ok(message)) = consumer.poll(Duration::from_millis(20)) {
                    let value = serde_json::from_slice(message.payload().unwrap_or_default()).unwrap_or_default();
                    see(&mut lock(&sees), message.partition(), &value);
                }
            }
        });
        Watch { client, servers: servers.to_owned(), topic: topic.to_owned(), seen, ends, thread: Some(thread) }
    }

    /// Forgets gaps and ages, not when and by whom records were last written.
    pub fn reset(&self) {
        let mut seen = lock(&self.seen);
        seen.reset_at = (since_1970(), now());
        for partition in seen.partitions.values_mut() {
            (partition.gap, partition.records, partition.age) = (Duration::ZERO, 0, Duration::ZERO);
        }
    }

    /// The watch's knowledge of each partition; a gap that is open now counts.
    pub fn partitions(&self) -> BTreeMap<i32, Partition> {
        let mut partitions = lock(&self.seen).partitions.clone();
        for partition in partitions.values_mut() {
            partition.gap = partition.gap.max(now() - partition.last);
        }
        partitions
    }

    /// The most by which a commit was late since the watch was last reset: the greatest age of a record of an
    /// event that was sent since then, or the longest time that a partition has been silent for since then,
    /// if that is more. Output that the partition owes from before does not count.
    pub fn oldest(&self) -> Duration {
        let seen = lock(&self.seen);
        let silent = |partition: &Partition| now() - partition.last.max(seen.reset_at.1);
        let late = seen.partitions.values().map(|partition| partition.age.max(silent(partition)));
        late.max().unwrap_or_default()
    }

    /// Waits until every partition has given a record of an event that was sent after `at`, in ms since 1970.
    /// Gives how long that took; `None`: longer than `patience`.
    pub fn until_after(&self, at: i64, partitions: usize, patience: Duration) -> Option<Duration> {
        let began = now();
        loop {
            let is_past = |partition: &Partition| partition.event_at > at;
            let past = lock(&self.seen).partitions.values().filter(|&partition| is_past(partition)).count();
            match now() - began {
                time if past >= partitions => return Some(time),
                time if time > patience => return None,
                _ => pause(Duration::from_millis(10)),
            }
        }
    }

    /// Names the partitions that have given no record of an event that was sent after `at`, and the broker's
    /// word on their ends: for a test that fails.
    pub fn silent_since(&self, at: i64) -> String {
        let seen = self.partitions();
        let silent = seen.iter().filter(|(_, partition)| partition.event_at <= at);
        let end = |isolation: &str, partition: i32| {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", &self.servers).set("log_level", "0").set("isolation.level", isolation);
            let consumer: BaseConsumer = config.create().expect("a client");
            consumer.fetch_watermarks(&self.topic, partition, Duration::from_secs(5)).map(|(_, end)| end)
        };
        let told = silent.map(|(&number, partition)| {
            let (open, stable) = (end("read_uncommitted", number), end("read_committed", number));
            let (records, last) = (partition.records, now() - partition.last);
            format!("{number}: {records} records, the last {last:.1?} ago; the end {open:?}, stable {stable:?}\n")
        });
        let told: String = told.collect();
        let said = self.client.said.lock().unwrap_or_else(PoisonError::into_inner);
        let said: Value = serde_json::from_str(&said).unwrap_or_default();
        let partitions = said["topics"][&self.topic]["partitions"].as_object();
        let states = partitions.into_iter().flatten().map(|(number, state)| format!("{number}: {state}\n"));
        told + &states.collect::<String>()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn see(seen: &mut Seen, partition: i32, value: &Value) {
    let (now, event_at) = (now(), value["at"].as_i64().unwrap_or(0));
    let new = Partition { last: now, gap: Duration::ZERO, writer: 0, event_at: 0, records: 0, age: Duration::ZERO };
    let partition = seen.partitions.entry(partition).or_insert(new);
    if event_at >= seen.reset_at.0 {
        let age = Duration::from_millis(u64::try_from(since_1970() - event_at).unwrap_or(0));
        partition.age = partition.age.max(age);
    }
    partition.gap = partition.gap.max(now - partition.last);
    partition.last = now;
    partition.event_at = partition.event_at.max(event_at);
    partition.writer = value["process"].as_u64().unwrap_or(0);
    partition.records += 1;
}
