//! A real Apache Kafka for the tests: started by the first test that asks, on loopback, and ended with the
//! test process, however that ends. `TEST_BOOTSTRAP=host:port` uses another one instead.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::{root, wire};

/// Longest wait for an answer of the broker.
const WAIT: Duration = Duration::from_secs(30);
/// The largest record that tests send, in bytes: as large as a broker takes at all.
const RECORD_BYTES_MAX: &str = "104857600";
/// Time for which a reader waits for the next record before it looks whether it is at the end.
const TURN: Duration = Duration::from_millis(50);

/// A broker on loopback, or a cluster as its clients see it.
pub struct Broker {
    /// `host:port`, of each with a comma between.
    pub servers: String,
    /// Brokers that hold each topic.
    replicas: usize,
    port: u16,
    folder: std::path::PathBuf,
    /// Settings of the script that starts it.
    settings: &'static [(&'static str, &'static str)],
    script: Option<Child>,
}

/// A record as it is produced or was read. `None` as a key or value is Kafka's null.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The partition; `None`: the client's partitioner decides.
    pub partition: Option<i32>,
    /// The offset, of a record that was read.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// In order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// A record with a key and a value.
    pub fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Record {
        Record { key: Some(key.into()), value: Some(value.into()), ..Record::default() }
    }

    /// The value as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }
}

/// A transaction that stays open: what is behind it in its topic stays hidden from those who read what is committed.
pub struct OpenTransaction(BaseProducer);

impl OpenTransaction {
    /// Aborts it.
    ///
    /// # Panics
    /// If the broker does not answer.
    pub fn abort(self) {
        self.0.abort_transaction(WAIT).expect("it ends");
    }
}

/// The broker that all tests of a process share.
pub fn broker() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(|| match std::env::var("TEST_BOOTSTRAP") {
        Ok(servers) => Broker::elsewhere(servers, 1),
        Err(_) => Broker::start(),
    })
}

/// A name that no other test uses.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Broker {
    /// A broker of the test's own, which it may stop.
    pub fn start() -> Broker {
        Broker::start_at(free_ports(), &[])
    }

    /// A broker that speaks TLS, too, at the ports that are a proxy's otherwise.
    pub fn start_with_tls() -> Broker {
        Broker::start_at(free_ports(), &[("KAFKA_TLS", "1")])
    }

    /// A broker as [`Broker::start_with_tls`] that also lets bob in by SCRAM, and whoever brings a token.
    pub fn start_with_users() -> Broker {
        Broker::start_at(free_ports(), &[("KAFKA_TLS", "1"), ("KAFKA_USERS", "1")])
    }

    /// The same, where connections of those who bring a token end unless they bring the next one in time.
    pub fn start_with_short_sessions() -> Broker {
        Broker::start_at(free_ports(), &[("KAFKA_TLS", "1"), ("KAFKA_USERS", "1"), ("KAFKA_REAUTH_MS", "6000")])
    }

    /// A broker whose users with passwords may do only what they are allowed, with [`crate::acl`].
    pub fn closed() -> Broker {
        Broker::start_at(free_ports(), &[("KAFKA_OPEN", "false")])
    }

    /// A broker that ends no transaction by itself in the time of a test, however old it is.
    pub fn patient() -> Broker {
        Broker::start_at(free_ports(), &[("KAFKA_ABORTS_EVERY_MS", "3600000")])
    }

    fn start_at(port: u16, settings: &'static [(&'static str, &'static str)]) -> Broker {
        let folder = std::env::temp_dir().join(unique("kaspr-kafka"));
        let servers = format!("127.0.0.1:{port}");
        let mut broker = Broker { servers, replicas: 1, port, folder, settings, script: None };
        broker.start_again(true);
        broker
    }

    /// A file of the broker's folder: of one with TLS `ca.pem` of its authority, `broker.key`, and
    /// `expired.crt` for that key.
    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.join(name)
    }

    /// The address for TLS, of a broker that was started with it. Its certificate is for 127.0.0.1.
    pub fn with_tls(&self) -> String {
        format!("127.0.0.1:{}", self.port + 3)
    }

    /// The address for users with passwords over TLS.
    pub fn with_tls_and_passwords(&self) -> String {
        format!("127.0.0.1:{}", self.port + 4)
    }

    /// Brokers that were started elsewhere, so many of which are to hold each topic.
    pub(crate) fn elsewhere(servers: String, replicas: usize) -> Broker {
        Broker { servers, replicas, port: 0, folder: root(), settings: &[], script: None }
    }

    /// The address for users with passwords (SASL PLAIN; bob's is `bobs-secret`). Only a broker that the test
    /// has started has it.
    pub fn with_passwords(&self) -> String {
        format!("127.0.0.1:{}", self.port + 2)
    }

    /// The port behind a proxy, and the one that the proxy must take: the broker names it to clients
    /// that come that way.
    pub fn behind_proxy(&self) -> (u16, u16) {
        (self.port + 3, self.port + 4)
    }

    /// Stops the broker as it stands, or lets it go on.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { libc::SIGSTOP } else { libc::SIGCONT };
        let script = self.script.as_ref().expect("this process has started the broker").id();
        for child in children(script).into_iter().filter(|&child| is_java(child)) {
            // SAFETY: the process belongs to the script, which this process has started, and which runs.
            unsafe { libc::kill(child, signal) };
        }
    }

    /// Starts a broker that was stopped, with the data that it had; `last` forgets them at its end.
    pub fn start_again(&mut self, last: bool) {
        let mut command = Command::new(root().join("tests/kafka/broker"));
        command.arg("run").arg(self.port.to_string()).arg(&self.folder).stdin(Stdio::piped()).stdout(Stdio::null());
        if last {
            command.env("KAFKA_FORGETS", "1");
        }
        command.envs(self.settings.iter().copied());
        // The script ends when this process does and its standard input closes.
        self.script = Some(command.stderr(Stdio::null()).spawn().expect("the broker's script starts"));
        let client: BaseConsumer = self.config().create().expect("a client");
        for _ in 0..120 {
            if client.fetch_metadata(None, Duration::from_millis(500)).is_ok() {
                return;
            }
        }
        panic!("the broker at {} does not answer", self.servers);
    }

    /// Ends the broker as a crash would.
    pub fn stop(&mut self) {
        if let Some(mut script) = self.script.take() {
            drop(script.stdin.take());
            let _ = script.wait();
        }
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers).set("log_level", "0");
        config
    }

    /// Makes a topic with a unique name.
    pub fn topic(&self, name: &str, partitions: i32) -> String {
        let name = unique(name);
        self.named_topic(&name, partitions);
        name
    }

    /// Makes a topic with a unique name that takes records up to this size, in bytes.
    pub fn topic_for(&self, name: &str, partitions: i32, message_bytes_max: usize) -> String {
        let name = unique(name);
        self.make_topic(&name, partitions, &[("max.message.bytes", &message_bytes_max.to_string())]);
        name
    }

    /// Makes a topic with a unique name and these settings.
    pub fn topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> String {
        let name = unique(name);
        self.make_topic(&name, partitions, settings);
        name
    }

    /// Makes a topic.
    pub fn named_topic(&self, name: &str, partitions: i32) {
        self.make_topic(name, partitions, &[]);
    }

    fn make_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().expect("an admin client");
        let replicas = TopicReplication::Fixed(i32::try_from(self.replicas).expect("few"));
        let mut topic = NewTopic::new(name, partitions, replicas);
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let made = futures_executor::block_on(admin.create_topics([&topic], &AdminOptions::new()));
        made.expect("the broker answers").into_iter().for_each(|made| {
            made.expect("the topic is made");
        });
        while !self.all_know(name, partitions) {
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// True if every broker knows a topic: each learns of it in its own time.
    fn all_know(&self, topic: &str, partitions: i32) -> bool {
        if self.replicas == 1 {
            return self.partitions(topic) == partitions;
        }
        let count = usize::try_from(partitions).expect("a count");
        self.servers.split(',').all(|server| {
            let view = wire::view(server);
            view.is_ok_and(|view| view.topic(topic).is_some_and(|topic| topic.partitions.len() == count))
        })
    }

    /// Partitions of a topic; 0: it does not exist.
    pub fn partitions(&self, topic: &str) -> i32 {
        let client: BaseConsumer = self.config().create().expect("a client");
        let metadata = client.fetch_metadata(Some(topic), WAIT).expect("the broker answers");
        i32::try_from(metadata.topics()[0].partitions().len()).expect("few")
    }

    /// The first offset that each partition holds, and the one behind its last.
    pub fn ends(&self, topic: &str) -> Vec<(i64, i64)> {
        let client: BaseConsumer = self.config().create().expect("a client");
        let ends = |partition| client.fetch_watermarks(topic, partition, WAIT).expect("the broker answers");
        (0..self.partitions(topic)).map(ends).collect()
    }

    /// Deletes the records of each partition before an offset.
    pub fn delete_before(&self, topic: &str, offsets: &[i64]) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().expect("an admin client");
        let mut list = TopicPartitionList::new();
        for (partition, &offset) in (0..).zip(offsets) {
            list.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("an offset");
        }
        let deleted = futures_executor::block_on(admin.delete_records(&list, &AdminOptions::new()));
        let deleted = deleted.expect("the broker answers");
        deleted.elements().iter().for_each(|element| element.error().expect("the records are deleted"));
    }

    /// Writes a record into a topic in a transaction of a stranger, which stays open.
    ///
    /// # Panics
    /// If the broker does not answer.
    pub fn open_transaction(&self, topic: &str) -> OpenTransaction {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers).set("transactional.id", unique("stranger"));
        let stranger: BaseProducer = config.create().expect("a producer");
        stranger.init_transactions(WAIT).expect("it begins");
        stranger.begin_transaction().expect("a transaction begins");
        stranger.send(BaseRecord::to(topic).key("k").payload("1")).expect("it is taken");
        stranger.flush(WAIT).expect("it is acknowledged");
        OpenTransaction(stranger)
    }

    /// Sends records and waits until all are acknowledged.
    pub fn produce(&self, topic: &str, records: impl IntoIterator<Item = Record>) {
        let mut config = self.config();
        config.set("linger.ms", "5").set("enable.idempotence", "true").set("partitioner", "murmur2_random");
        config.set("message.max.bytes", RECORD_BYTES_MAX);
        let producer: BaseProducer = config.create().expect("a producer");
        for record in records {
            let mut native = BaseRecord::<[u8], [u8]>::to(topic);
            (native.partition, native.key, native.payload) =
                (record.partition, record.key.as_deref(), record.value.as_deref());
            if record.timestamp > 0 {
                native.timestamp = Some(record.timestamp);
            }
            if !record.headers.is_empty() {
                let add = |headers: OwnedHeaders, (key, value): &(String, Option<Vec<u8>>)| {
                    headers.insert(Header { key, value: value.as_ref() })
                };
                native.headers = Some(record.headers.iter().fold(OwnedHeaders::new(), add));
            }
            while let Err((_, again)) = producer.send(native) {
                native = again;
                producer.poll(Duration::from_millis(5));
            }
        }
        producer.flush(WAIT).expect("all is acknowledged");
    }

    /// Reads everything that a topic holds, partition by partition.
    pub fn read(&self, topic: &str) -> Vec<Record> {
        let mut config = self.config();
        config.set("group.id", unique("reader")).set("enable.auto.commit", "false");
        config.set("isolation.level", "read_committed").set("auto.offset.reset", "earliest");
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut records = Vec::new();
        for partition in 0..self.partitions(topic) {
            let (low, high) = consumer.fetch_watermarks(topic, partition, WAIT).expect("the broker answers");
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, partition, Offset::Offset(low)).expect("an offset");
            consumer.assign(&list).expect("the partition is there");
            let mut next = low;
            while next < high {
                let Some(message) = consumer.poll(TURN) else {
                    // The rest are markers of transactions, which no reader is given.
                    next = next.max(position(&consumer, topic, partition));
                    continue;
                };
                let message = match message {
                    // The client goes on with another broker by itself.
                    Err(KafkaError::MessageConsumption(RDKafkaErrorCode::BrokerTransportFailure)) => continue,
                    message => message.expect("no error"),
                };
                next = message.offset() + 1;
                let headers = message.headers().map_or(Vec::new(), |headers| {
                    headers.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect()
                });
                records.push(Record {
                    partition: Some(partition),
                    offset: message.offset(),
                    timestamp: message.timestamp().to_millis().unwrap_or_default(),
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    headers,
                });
            }
        }
        records
    }

    /// Committed records that a topic holds.
    pub fn count(&self, topic: &str) -> i64 {
        i64::try_from(self.read(topic).len()).expect("few")
    }

    /// The group's commits: offset and metadata per partition.
    pub fn committed(&self, group: &str, topic: &str) -> Vec<Option<(i64, String)>> {
        let mut config = self.config();
        let consumer: BaseConsumer = config.set("group.id", group).create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, self.partitions(topic) - 1);
        // A coordinator that has just been made is not known to all brokers at once.
        let answers = (0..20).map(|_| {
            let answer = consumer.committed_offsets(list.clone(), WAIT);
            if answer.is_err() {
                std::thread::park_timeout(Duration::from_millis(200));
            }
            answer
        });
        let committed = answers.flatten().next().expect("the broker answers");
        let of = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
            Offset::Offset(offset) => Some((offset, element.metadata().to_owned())),
            _ => None,
        };
        committed.elements().iter().map(of).collect()
    }

    /// Commits an offset with its metadata for a group that has no members.
    pub fn commit(&self, group: &str, topic: &str, partition: i32, (offset, metadata): (i64, &str)) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("an offset");
        list.find_partition(topic, partition).expect("it was added").set_metadata(metadata);
        self.commit_list(group, &list);
    }

    /// Commits an offset of the first partitions of a topic each, for a group that has no members.
    pub fn commit_all(&self, group: &str, topic: &str, offsets: &[i64]) {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in (0..).zip(offsets) {
            list.add_partition_offset(topic, partition, Offset::Offset(*offset)).expect("an offset");
        }
        self.commit_list(group, &list);
    }

    fn commit_list(&self, group: &str, list: &TopicPartitionList) {
        let mut config = self.config();
        let consumer: BaseConsumer = config.set("group.id", group).create().expect("a consumer");
        // A coordinator that has just been made is not known to all brokers at once.
        let committed = (0..20).any(|_| {
            let committed = consumer.commit(list, CommitMode::Sync).is_ok();
            if !committed {
                std::thread::park_timeout(Duration::from_millis(200));
            }
            committed
        });
        assert!(committed, "the group {group} cannot be given offsets");
    }

    /// Members of a group that is not rebalancing; `None`: it is, or no broker answers.
    pub fn members(&self, group: &str) -> Option<usize> {
        let client: BaseConsumer = self.config().create().expect("a client");
        let groups = client.fetch_group_list(Some(group), WAIT).ok()?;
        let group = groups.groups().iter().find(|info| info.name() == group)?;
        (group.state() == "Stable").then(|| group.members().len())
    }

    /// Records that a group has not passed yet, as tools that watch lag count them.
    pub fn lag(&self, group: &str, topic: &str) -> i64 {
        let client: BaseConsumer = self.config().create().expect("a client");
        let committed = self.committed(group, topic);
        let of = |(partition, committed): (usize, &Option<(i64, String)>)| {
            let partition = i32::try_from(partition).expect("few");
            let (low, high) = client.fetch_watermarks(topic, partition, WAIT).expect("the broker answers");
            high - committed.as_ref().map_or(low, |committed| committed.0)
        };
        committed.iter().enumerate().map(of).sum()
    }

    /// Runs one of Kafka's own tools with this standard input.
    pub fn tool(&self, class: &str, arguments: &[&str], input: &str) -> String {
        let mut command = Command::new(root().join("tests/kafka/broker"));
        command.arg("tool").arg(class).args(["--bootstrap-server", &self.servers]).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the tool starts");
        std::io::Write::write_all(&mut child.stdin.take().expect("piped"), input.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("the tool ends");
        assert!(output.status.success(), "{class}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// The next offset that a consumer would give.
fn position(consumer: &BaseConsumer, topic: &str, partition: i32) -> i64 {
    let positions = consumer.position().expect("it has partitions");
    match positions.find_partition(topic, partition).map(|element| element.offset()) {
        Some(Offset::Offset(offset)) => offset,
        _ => 0,
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The processes that a process has started.
pub fn children(process: u32) -> Vec<i32> {
    let list = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

fn is_java(process: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/comm")).is_ok_and(|name| name.trim() == "java")
}

/// The range in which ports of brokers begin. The system gives connections higher ones: it would give away a
/// port whose broker is away for a moment.
const PORTS: std::ops::Range<u32> = 10_000..30_000;
/// Ports of a broker: for clients, the controller, users with passwords, clients that come through a
/// proxy, and that proxy.
const PORTS_EACH: u32 = 5;

/// A port that is free and given to no broker.
pub fn free_port() -> u16 {
    free_ports()
}

/// The first of a broker's ports, all free and used by no other test process: each process begins elsewhere.
pub(crate) fn free_ports() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let places = PORTS.len() as u32 / PORTS_EACH;
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    for _ in 0..places {
        let place = std::process::id().wrapping_mul(37).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % places;
        let first = PORTS.start + place * PORTS_EACH;
        let ports = first..first + PORTS_EACH;
        if ports.clone().all(|port| is_free(u16::try_from(port).expect("below 30,000"))) {
            return u16::try_from(first).expect("below 30,000");
        }
    }
    panic!("no {PORTS_EACH} ports in a row are free");
}
