//! Settings of Kafka clients: the executor's own, those that users may set, and those that delivery fixes.
//!
//! ```text
//! common ─┬─ consumer ── visitor    a member, and a member that comes and goes
//!         ├─ reader                 changelogs
//!         ├─ producer               records, questions
//!         ├─ successor              takes a transactional id over
//!         ├─ unstable               committed offsets under open transactions
//!         └─ plain                  admin
//! ```
//!
//! The user's settings are laid over each of them, so a setting that is not listed as fixed wins over the
//! executor's own. Those that are fixed are refused at the start ([`ClientSettings::check`]).

use std::collections::BTreeMap;
use std::time::Duration;

use kaspr_ir::plan::Assignor;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka_sys::types::RDKafkaConfRes;

use super::{statistics, tokens};
use crate::broker::rights::User;
use crate::config::secret::Secret;
use crate::config::{GroupTimes, Guarantee};

/// Session of a client whose setting cannot be read: librdkafka's own.
const SESSION_MS: u64 = 45_000;
/// The largest record that a client sends at all; topics have their own, lower limits.
pub const RECORD_BYTES_MAX: usize = 100 << 20;

/// Most that a broker sends at once, in bytes, but for a batch that is larger: a slow link must carry it
/// within librdkafka's `socket.timeout.ms` (60 s), or the same is asked for again for ever. 20 kB/s carry
/// it in 13 s.
const FETCH_BYTES_MAX: &str = "262144";

/// Bytes that the producer sends to a partition at once, librdkafka's default. A topic's limit is for such
/// batches: where it is lower they become smaller.
pub const BATCH_BYTES: usize = 1_000_000;

/// Longest life of a transaction: [`crate::config::Bounds::transaction_timeout`].
pub const TRANSACTION_TIMEOUT_MS: &str = "15000";

/// Bytes that wait in the producer, in kB: more than the largest record. What is staged has a lower bound,
/// [`crate::config::Bounds::staged_bytes_max`].
const QUEUED_KBYTES_MAX: usize = (RECORD_BYTES_MAX >> 10) + 1024;

/// The mechanism where users are asked for and none is named. librdkafka's own, GSSAPI, is not built in.
const MECHANISM: &str = "PLAIN";

/// Settings that delivery depends on, each with the reason why users may not change it.
const FIXED: [(&str, &str); 18] = [
    ("acks", "a record counts as delivered when all in-sync replicas have it"),
    ("allow.auto.create.topics", "a topic that is missing is an error, or is declared in the spec"),
    ("auto.offset.reset", "where a group begins is said with --from"),
    ("client.id", "members of the group know one another's producers by it"),
    ("delivery.report.only.error", "the worker waits for the report of every record"),
    ("enable.auto.commit", "offsets are committed when their effects are durable"),
    ("enable.auto.offset.store", "offsets are committed when their effects are durable"),
    ("enable.idempotence", "a retried record must not arrive twice or out of order"),
    ("enable.partition.eof", "the worker asks for the ends of partitions itself"),
    ("group.id", "the group is the app's name: say it with --app"),
    ("group.instance.id", "the instance is said with --instance"),
    ("isolation.level", "only committed records are read"),
    ("message.max.bytes", "the topics' own limits hold"),
    ("partition.assignment.strategy", "the plan decides it: agents that share tables need their partitions together"),
    ("message.timeout.ms", "it must fit the transaction's timeout"),
    ("retry.backoff.ms", "a call that is slower counts as repeated"),
    ("transaction.timeout.ms", "the bounds of a transaction follow from it"),
    ("transactional.id", "it follows from the app, the instance and the worker"),
];

/// Settings from which clients are made.
///
/// Made by the command line, checked once, and cloned into every part that makes clients. Only `batch_bytes`
/// changes while a worker runs.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// `host:port,…`.
    pub servers: String,
    /// The app's name, which is the group's.
    pub app: String,
    /// The member's lasting name.
    pub instance: Option<String>,
    /// The name of the worker's producer, lasting where the instance is.
    pub transactional_id: String,
    /// The guarantee: what a crash may repeat.
    pub guarantee: Guarantee,
    /// The strategy by which the group divides partitions.
    pub assignor: Assignor,
    /// Times of the member of the group.
    pub times: GroupTimes,
    /// Bytes that the producer sends to a partition at once, but for a single record that is larger.
    pub batch_bytes: usize,
    /// True if clients say something of themselves now and then, for metrics.
    pub has_statistics: bool,
    /// librdkafka's settings, as the user gave them.
    pub user: BTreeMap<String, Secret>,
}

impl ClientSettings {
    /// Refuses settings that are fixed, unknown, or have values that librdkafka does not take.
    ///
    /// The text names the setting and never its value. It is called before anything is connected.
    pub fn check(&self) -> Result<(), String> {
        for (name, reason) in FIXED {
            if self.user.contains_key(name) {
                return Err(format!("the Kafka setting \"{name}\" is fixed: {reason}"));
            }
        }
        let refused = |error: KafkaError| match error {
            KafkaError::ClientConfig(code, reason, name, value) => {
                format!("the Kafka setting \"{name}\" is refused: {}", why_refused(code, &reason, &value))
            }
            other => format!("the Kafka settings are refused: {other}"),
        };
        // First: its words say more than librdkafka's on the same setting.
        self.check_user()?;
        self.consumer().create_native_config().map_err(refused)?;
        self.producer().create_native_config().map_err(refused)?;
        Ok(())
    }

    /// Refuses a user without a password, or the other way round: the client's own words would say less.
    ///
    /// Needed are the mechanism and, for those with passwords, both halves of the user.
    fn check_user(&self) -> Result<(), String> {
        let (_, _, with_users) = self.protocol();
        if !with_users {
            return Ok(());
        }
        let mechanism = self.mechanism().to_ascii_uppercase();
        if mechanism == "GSSAPI" {
            return Err("the Kafka setting sasl.mechanisms is GSSAPI, which is not built in: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER are".to_owned());
        }
        tokens::source(&mechanism, &self.user)?;
        let has_password = mechanism == "PLAIN" || mechanism.starts_with("SCRAM");
        let missing = ["sasl.username", "sasl.password"].into_iter().find(|name| !self.user.contains_key(*name));
        match missing.filter(|_| has_password) {
            Some(name) => Err(format!(
                "the Kafka setting {name} is not set, and sasl.mechanisms is {}: the brokers admit no client without it",
                self.mechanism()
            )),
            None => Ok(()),
        }
    }

    /// The mechanism by which clients prove their identity, as librdkafka names it; PLAIN where none is named.
    pub fn mechanism(&self) -> &str {
        let given = self.user.get("sasl.mechanisms").or_else(|| self.user.get("sasl.mechanism"));
        given.map_or(MECHANISM, Secret::expose)
    }

    /// The way clients talk to brokers: `security.protocol`, and whether it has TLS, and users with passwords.
    ///
    /// `sasl_ssl` → (`sasl_ssl`, true, true). As written by the user; `plaintext` where nothing is.
    pub fn protocol(&self) -> (&str, bool, bool) {
        let protocol = self.user.get("security.protocol").map_or("plaintext", Secret::expose);
        let is = |part: &str| protocol.to_ascii_lowercase().contains(part);
        (protocol, is("ssl"), is("sasl"))
    }

    /// The user that brokers see.
    ///
    /// `User:shop`; `User:ANONYMOUS` without TLS and users; without a name where the brokers derive it.
    pub fn identity(&self) -> User {
        let (_, is_tls, with_users) = self.protocol();
        let has_name = ["PLAIN", "SCRAM"].iter().any(|kind| self.mechanism().to_ascii_uppercase().starts_with(kind));
        let name = match (with_users, is_tls) {
            (true, _) if has_name => self.user.get("sasl.username").map(Secret::expose),
            (false, false) => Some("ANONYMOUS"),
            // The brokers make a name of a ticket, a token or a certificate.
            _ => None,
        };
        User { principal: name.map(|name| format!("User:{name}")), servers: self.servers.clone() }
    }

    /// Without the user's settings, which each caller lays over it last.
    fn common(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("client.id", &self.app)
            .set("bootstrap.servers", &self.servers)
            .set("allow.auto.create.topics", "false")
            // A reader does not need it, but librdkafka wants a fetch to be no smaller.
            .set("message.max.bytes", FETCH_BYTES_MAX)
            // Reconnects of idle connections are not worth a line.
            .set("log.connection.close", "false")
            .set("reconnect.backoff.max.ms", "2000");
        config
    }

    /// Time after which the group gives up a member of which it hears nothing.
    pub fn session(&self) -> Duration {
        let ms = self.consumer().get("session.timeout.ms").and_then(|ms| ms.parse().ok());
        Duration::from_millis(ms.unwrap_or(SESSION_MS))
    }

    /// Settings of the member of the group.
    ///
    /// Members learn of a rebalance by their heartbeats: within a second, at the interval set here. 300 s between polls
    /// are more than the longest call of user code ([`crate::config::CALL_MAX`]).
    pub fn consumer(&self) -> ClientConfig {
        let mut config = self.common();
        config
            .set("group.id", &self.app)
            // Other members see by it whether the member of a producer is gone.
            .set("client.id", &self.transactional_id)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // The worker names every offset itself: a client that chose one would skip or repeat events in silence.
            .set("auto.offset.reset", "error")
            // It makes committed offsets stable, too: none are given while a transaction over them is open.
            .set("isolation.level", "read_committed")
            .set("heartbeat.interval.ms", self.times.heartbeat.as_millis().to_string())
            .set("session.timeout.ms", self.times.session.as_millis().to_string())
            .set("max.poll.interval.ms", self.times.poll.as_millis().to_string())
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.queue.backoff.ms", "10")
            .set("fetch.max.bytes", FETCH_BYTES_MAX)
            .set("check.crcs", "true")
            // Partitions that are added to a topic, and topics that match a pattern, are found within it.
            .set("topic.metadata.refresh.interval.ms", "30000");
        let strategy = match self.assignor {
            Assignor::CooperativeSticky => "cooperative-sticky",
            Assignor::Range => "range",
        };
        config.set("partition.assignment.strategy", strategy);
        self.add_statistics(&mut config);
        if let Some(instance) = &self.instance {
            config.set("group.instance.id", instance);
        }
        self.with_user(config)
    }

    /// Settings of a member without a name, which comes and goes.
    ///
    /// It gets partitions for a moment, and commits nothing.
    pub fn visitor(&self) -> ClientConfig {
        let mut config = self.consumer();
        config.remove("group.instance.id");
        config.remove("statistics.interval.ms");
        config.set("client.id", &self.app);
        config
    }

    /// True if effects and positions are one transaction.
    pub fn is_exact(&self) -> bool {
        self.guarantee == Guarantee::ExactlyOnce
    }

    /// Settings of a client that neither reads nor writes records.
    ///
    /// For admin questions and for looks at certificates and mechanisms.
    pub fn plain(&self) -> ClientConfig {
        self.with_user(self.common())
    }

    /// Settings of a reader of changelogs, which joins no group.
    ///
    /// It names the group and never joins it.
    pub fn reader(&self) -> ClientConfig {
        let mut config = self.common();
        config
            .set("group.id", &self.app)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            // A partition that is added waits for the fetch under way.
            .set("fetch.wait.max.ms", "100")
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.queue.backoff.ms", "10")
            .set("fetch.max.bytes", FETCH_BYTES_MAX)
            .set("check.crcs", "true");
        self.with_user(config)
    }

    /// Settings of a client that sees what the group has committed, whatever transactions are open over it.
    ///
    /// It joins nothing either. The fence asks by it whose transaction hides an offset.
    pub fn unstable(&self) -> ClientConfig {
        let mut config = self.common();
        config.set("group.id", &self.app).set("enable.auto.commit", "false").set("isolation.level", "read_uncommitted");
        self.with_user(config)
    }

    /// Settings of a producer that takes a `transactional.id` over.
    ///
    /// A producer that sends nothing: its beginning alone ends what is open under the id.
    pub fn successor(&self, transactional_id: &str) -> ClientConfig {
        let mut config = self.common();
        config.set("transactional.id", transactional_id);
        self.with_user(config)
    }

    /// Settings of the producer, whose connection serves questions about topics too.
    ///
    /// At-least-once a record is sent until a broker takes it, however long that takes; exactly-once for 10 s, which is
    /// less than its transaction lives.
    pub fn producer(&self) -> ClientConfig {
        let mut config = self.common();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.max.bytes", RECORD_BYTES_MAX.to_string())
            .set("batch.size", self.batch_bytes.to_string())
            .set("retry.backoff.ms", "250")
            .set("queue.buffering.max.kbytes", QUEUED_KBYTES_MAX.to_string())
            // What is handed over to different partitions within a moment leaves together. A busy worker gathers records
            // for longer, before it hands them over.
            .set("linger.ms", "1");
        if self.is_exact() {
            config
                .set("transactional.id", &self.transactional_id)
                .set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS)
                // Not longer than the transaction lives; a record that takes longer has been aborted with it.
                .set("message.timeout.ms", "10000");
        } else {
            // The producer waits for a broker that is away; the queue above is the bound.
            config.set("message.timeout.ms", "0");
        }
        self.add_statistics(&mut config);
        self.with_user(config)
    }

    /// Records, and bytes of their values, that the producer's queue takes. librdkafka takes 0 records for no bound.
    pub fn room(&self) -> (usize, usize) {
        let config = self.producer().create_native_config();
        let number = |name| config.as_ref().ok()?.get(name).ok()?.parse::<usize>().ok();
        let records = number("queue.buffering.max.messages").filter(|records| *records > 0);
        let kbytes = number("queue.buffering.max.kbytes").unwrap_or(QUEUED_KBYTES_MAX);
        (records.unwrap_or(usize::MAX), kbytes << 10)
    }

    fn add_statistics(&self, config: &mut ClientConfig) {
        if self.has_statistics {
            config.set("statistics.interval.ms", statistics::EVERY_MS);
        }
    }

    fn with_user(&self, mut config: ClientConfig) -> ClientConfig {
        // Two names of one setting: only one of them may be set.
        if self.protocol().2 && !self.user.contains_key("sasl.mechanism") {
            config.set("sasl.mechanisms", self.mechanism());
        }
        for (name, value) in self.user.iter().filter(|(name, _)| !tokens::is_ours(name, &self.user)) {
            config.set(name, value.expose());
        }
        config
    }
}

/// True if librdkafka has a setting of this name.
pub fn is_known(name: &str) -> bool {
    let mut settings = ClientConfig::new();
    let set = settings.set(name, "").create_native_config();
    !matches!(set, Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)))
}

/// The objection of librdkafka to a value, without the value: it may be a secret in the wrong place.
///
/// ```text
/// linger.ms=1000000: "Configuration property "linger.ms" value 1000000 is outside allowed range 0..900000"
///                    ─▶ its value is outside the allowed range 0..900000
/// ```
fn why_refused(code: RDKafkaConfRes, reason: &str, value: &str) -> String {
    if code == RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN {
        return "librdkafka has no setting of this name".to_owned();
    }
    let range = reason.split_once("is outside ").map(|(_, range)| range.trim());
    let shown = range.map(|range| format!("its value is outside the {range}"));
    shown.filter(|shown| !shown.contains(value)).unwrap_or_else(|| "its value is not accepted".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(name: &str, value: &str) -> ClientSettings {
        ClientSettings {
            has_statistics: false,
            servers: "localhost:9092".to_owned(),
            app: "shop".to_owned(),
            instance: None,
            transactional_id: "shop.a.0".to_owned(),
            guarantee: Guarantee::AtLeastOnce,
            assignor: Assignor::default(),
            times: GroupTimes::default(),
            batch_bytes: BATCH_BYTES,
            user: [(name.to_owned(), Secret::new(value))].into(),
        }
    }

    #[test]
    fn fixed_unknown_and_senseless_settings_are_refused() {
        assert_eq!(settings("linger.ms", "7").check(), Ok(()));
        for (name, value, expected) in [
            ("acks", "1", "\"acks\" is fixed"),
            ("no.such.thing", "hunter2", "\"no.such.thing\" is refused: librdkafka has no setting of this name"),
            ("linger.ms", "soon", "\"linger.ms\" is refused: its value is not accepted"),
            ("linger.ms", "1000000", "\"linger.ms\" is refused: its value is outside the allowed range 0..900000"),
            ("debug", "hunter2", "\"debug\" is refused: its value is not accepted"),
        ] {
            let refused = settings(name, value).check().expect_err(name);
            assert!(refused.contains(expected), "{refused}");
            assert!(!refused.contains("hunter2"), "{refused}");
        }
    }

    #[test]
    fn a_user_is_named_as_a_whole() {
        let check = |user: &[(&str, &str)]| {
            let user = user.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value)));
            ClientSettings { user: user.collect(), ..settings("linger.ms", "5") }.check()
        };
        let mut user = vec![("security.protocol", "sasl_plaintext")];
        for (named, told) in [
            (("sasl.mechanisms", "SCRAM-SHA-256"), "sasl.username is not set, and sasl.mechanisms is PLAIN"),
            (("sasl.username", "bob"), "sasl.username is not set, and sasl.mechanisms is SCRAM-SHA-256"),
            (("sasl.password", "hunter2"), "sasl.password is not set"),
        ] {
            let refused = check(&user).expect_err(told);
            assert!(refused.contains(told), "{refused}");
            user.push(named);
        }
        assert_eq!(check(&user), Ok(()));
        user[1].1 = "GSSAPI";
        assert!(check(&user).expect_err("it is not built in").contains("not built in"));
        let bearer = [("security.protocol", "sasl_ssl"), ("sasl.mechanism", "OAUTHBEARER")];
        assert!(check(&bearer).expect_err("no source of tokens").contains("nothing says where tokens come from"));
        let aws = [("aws.access.key.id", "AKID"), ("aws.secret.access.key", "hunter2"), ("aws.region", "eu-west-1")];
        let method = [("sasl.oauthbearer.method", "aws_msk_iam")];
        assert_eq!(check(&[&bearer[..], &method, &aws].concat()), Ok(()), "librdkafka is told nothing of it");
    }

    #[test]
    fn the_room_of_the_queue_is_what_is_set() {
        let room = |name, value| settings(name, value).room();
        assert_eq!(room("linger.ms", "5"), (100_000, QUEUED_KBYTES_MAX << 10));
        assert_eq!(room("queue.buffering.max.messages", "7"), (7, QUEUED_KBYTES_MAX << 10));
        assert_eq!(room("queue.buffering.max.messages", "0"), (usize::MAX, QUEUED_KBYTES_MAX << 10));
        assert_eq!(room("queue.buffering.max.kbytes", "2"), (100_000, 2048));
    }

    #[test]
    fn librdkafka_knows_its_settings() {
        for name in ["linger.ms", "sasl.password", "compression.type", "ssl.key.pem", "sasl.oauthbearer.assertion.file"]
        {
            assert!(is_known(name), "{name}");
        }
        assert!(!is_known("sasl.pasword") && !is_known("sasl.password.file"));
    }
}
