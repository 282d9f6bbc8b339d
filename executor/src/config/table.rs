//! The table of settings: one row a setting. `--help`, the resolution of values and warnings about names read it.

/// A setting: its names, and what it means.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The name as in `KasprApp.spec.config`.
    pub name: &'static str,
    /// The name as a variable behind `KASPR_` and `K_`.
    pub variable: &'static str,
    /// Its default, as text.
    pub default: &'static str,
    /// One line of help.
    pub help: &'static str,
}

/// All settings. `--help` and the docs print this table.
pub const SETTINGS: [Setting; 33] = [
    Setting { name: "app", variable: "APP_NAME", default: "", help: "the app's name: consumer group, prefix of ids" },
    Setting {
        name: "instance",
        variable: "CONSUMER_GROUP_INSTANCE_ID",
        default: "",
        help: "this instance's lasting name; random where none is given",
    },
    Setting {
        name: "onError",
        variable: "ON_ERROR",
        default: "skip",
        help: "what happens to events that fail where a spec does not say: skip, deadLetter, retry, halt, or the mapping as JSON",
    },
    Setting {
        name: "bootstrapServers",
        variable: "KAFKA_BOOTSTRAP_SERVERS",
        default: "",
        help: "the Kafka cluster, as host:port,host:port",
    },
    Setting {
        name: "guarantee",
        variable: "GUARANTEE",
        default: "exactly-once",
        help: "what a crash may repeat on Kafka: exactly-once (nothing) or at-least-once",
    },
    Setting {
        name: "from",
        variable: "FROM",
        default: "earliest",
        help: "where a group without commits begins: earliest, latest, or a time as ms since 1970",
    },
    Setting {
        name: "shutdownTimeout",
        variable: "SHUTDOWN_TIMEOUT",
        default: "25s",
        help: "longest time from SIGTERM to the end; then the exit status is 75",
    },
    Setting {
        name: "timeout",
        variable: "TIMEOUT",
        default: "240s",
        help: "longest time of one call of user code where a spec does not say; 240s at most",
    },
    Setting {
        name: "concurrency",
        variable: "CONCURRENCY",
        default: "1",
        help: "events of each partition that may await at once, where a spec does not say; 1000 at most",
    },
    Setting { name: "deadLetterTopic", variable: "DEAD_LETTER_TOPIC", default: "", help: "the topic of deadLetter" },
    Setting {
        name: "commitInterval",
        variable: "COMMIT_INTERVAL",
        default: "100ms",
        help: "longest time from an event's completion to its commit",
    },
    Setting {
        name: "stateDir",
        variable: "STATE_DIR",
        default: "",
        help: "a folder that outlives the process: tables, and which event ran when it ended",
    },
    Setting {
        name: "stallAfter",
        variable: "STALL_AFTER",
        default: "30s",
        help: "longest time that a partition stands still without a line in the log that says why",
    },
    Setting {
        name: "webPort",
        variable: "WEB_PORT",
        default: "",
        help: "the port of the HTTP server; none: no server",
    },
    Setting {
        name: "webBind",
        variable: "WEB_BIND",
        default: "",
        help: "the address that it listens at; all of them, or loopback where the port is a flag or the run is local",
    },
    Setting {
        name: "webHost",
        variable: "WEB_HOST",
        default: "",
        help: "the name by which others reach this process, for its status; the host's name",
    },
    Setting {
        name: "webMetricsBasePath",
        variable: "WEB_METRICS_BASE_PATH",
        default: "",
        help: "the path in front of /metrics",
    },
    Setting {
        name: "metricsCompat",
        variable: "METRICS_COMPAT",
        default: "true",
        help: "true, or false: metrics without the reference runtime's names",
    },
    Setting {
        name: "webMessages",
        variable: "WEB_MESSAGES",
        default: "false",
        help: "true: the status over HTTP has the messages of failures, which may quote payloads",
    },
    Setting {
        name: "workerOrdinalNumber",
        variable: "WORKER_ORDINAL_NUMBER",
        default: "",
        help: "this process's number among those of the app; the one at the end of the host's name",
    },
    Setting {
        name: "tableDir",
        variable: "TABLE_DIR",
        default: "",
        help: "the folder of stateDir, where that is not set",
    },
    Setting {
        name: "definitionsDir",
        variable: "DEFINITIONS_DIR",
        default: "",
        help: "the folder whose specs `run` and `check` load where no PATH is given",
    },
    Setting { name: "workers", variable: "WORKERS", default: "1", help: "worker processes" },
    Setting {
        name: "logFormat",
        variable: "LOG_FORMAT",
        default: "text",
        help: "text, or json: one object a line; from flags and variables alone",
    },
    Setting {
        name: "logLevel",
        variable: "LOG_LEVEL",
        default: "info",
        help: "lowest level of lines that are logged: error, warn, info, debug, trace",
    },
    Setting {
        name: "topicPartitions",
        variable: "TOPIC_PARTITIONS",
        default: "",
        help: "partitions of created topics whose spec says none; the broker's default",
    },
    Setting {
        name: "topicReplicationFactor",
        variable: "TOPIC_REPLICATION_FACTOR",
        default: "",
        help: "replicas of created topics whose spec says none, changelogs too; the broker's default",
    },
    Setting {
        name: "topicAllowDeclare",
        variable: "TOPIC_ALLOW_DECLARE",
        default: "true",
        help: "false: no topic is created, and one that is missing stops the start",
    },
    Setting {
        name: "keySerializer",
        variable: "KEY_SERIALIZER",
        default: "",
        help: "serializer of keys of topics whose spec says none",
    },
    Setting {
        name: "valueSerializer",
        variable: "VALUE_SERIALIZER",
        default: "",
        help: "serializer of values of topics whose spec says none",
    },
    Setting {
        name: "brokerSessionTimeout",
        variable: "BROKER_SESSION_TIMEOUT",
        default: "",
        help: "seconds after which the group gives up a silent member; 30",
    },
    Setting {
        name: "brokerHeartbeatInterval",
        variable: "BROKER_HEARTBEAT_INTERVAL",
        default: "",
        help: "seconds between two heartbeats; 1",
    },
    Setting {
        name: "brokerMaxPollInterval",
        variable: "BROKER_MAX_POLL_INTERVAL",
        default: "",
        help: "seconds between two polls after which a member leaves its group; 300, and no less",
    },
];
