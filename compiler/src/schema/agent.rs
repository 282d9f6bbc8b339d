//! The schema of an agent.
//!
//! One method a mapping, in the order of the spec. A sentence says what the field means to its author; what it may
//! hold is said by the schema beside it. The two forms differ in names and strictness, not in fields.
//!
//! ```text
//! field("timeout", duration(), "Longest time of one call, …").like("30s")
//!   ⇒ schema       "timeout": {"type": "string", "pattern": "…", "description": "Longest …", "examples": ["30s"]}
//!   ⇒ reference    timeout <duration>    Longest time of one call, …    | timeout: 30s
//! ```

use serde_json::{Value, json};

use super::values::{CODEC, TOPIC, TOPICS, array, between, boolean, code, duration, pairs, pattern, text, whole};
use super::{Field, Writer, field};
use crate::read::numbers;

impl Writer {
    /// The spec of a `KasprAgent`, or an entry of `agents`.
    pub(super) fn agent(&self) -> Value {
        // A resource has its name in `metadata`; a mounted entry has it here.
        let required: &[&str] = if self.is_strict() { &["input"] } else { &["name"] };
        self.object(
            vec![
                field(
                    "name",
                    text("The agent's name"),
                    "The agent's name; in the Kubernetes form it repeats metadata.name",
                )
                .like("enrich-orders"),
                field("description", text("Shown in plans"), "Text that plans and drawings show").like("Adds prices"),
                field(
                    "isolatedPartitions",
                    boolean(),
                    "Batches never mix partitions, and an await of one partition never holds up another",
                )
                .or(false)
                .like(true),
                field(
                    "concurrency",
                    whole(numbers::CONCURRENCY),
                    "Events of each partition that may await at once, with the same result as one after the other; else the setting concurrency counts. Agents of one reader, or with a common table, have the least of theirs",
                )
                .or(1)
                .like(100),
                field("input", self.input(), "Where events come from: topics or a channel"),
                field("output", self.output(), "Where values go; without it they go nowhere"),
                field("processors", self.processors(), "What happens to values between input and output"),
                field("onError", self.on_error(), "What happens to events that fail; else the setting onError counts"),
                field("timeout", duration(), "Longest time of one call, 240s at most; else the setting timeout counts")
                    .like("30s"),
            ],
            required,
        )
    }

    /// `spec.processors`: the pipeline and its operations.
    fn processors(&self) -> Value {
        self.object(
            vec![
                field(
                    "pipeline",
                    array(text("An operation's name")),
                    "Operations in the order in which they run; one may run more than once",
                )
                .like(json!(["validate", "enrich"])),
                field("init", code(), "Python that runs once per worker, before the first event")
                    .python("import os\nREGION = os.environ[\"REGION\"]"),
                field("operations", array(self.operation()), "The operations that the pipeline names"),
            ],
            &[],
        )
    }

    /// `spec.output`: topics, channels and sinks.
    fn output(&self) -> Value {
        self.object(
            vec![
                field("topics", array(self.topic_output(false)), "Kafka topics"),
                field("channels", array(self.channel_output()), "Channels that other agents of the app read"),
                field("sinks", array(self.sink()), "Custom sinks in Python; they run last and outside the transaction"),
            ],
            &[],
        )
    }

    /// `spec.input`: topics or a channel, in batches or one by one.
    fn input(&self) -> Value {
        let mut fields = vec![
            field("name", pattern(TOPICS), "One topic, or several separated by commas").like("orders"),
            field("pattern", text("A regular expression"), "A regular expression over whole topic names")
                .like("orders-.*"),
        ];
        fields.extend(settings());
        fields.extend(creation());
        // One of name and pattern, as the input around it demands one of topic and channel.
        let topic = self.one_of(self.object(fields, &[]), &["name", "pattern"]);
        let channel = field("name", text("Its name"), "A channel that an agent of the app writes").like("checked");
        // An object with one field, and not the name itself: that is how the operator's specs have it.
        let channel = self.object(vec![channel], &["name"]);
        let take = self.object(
            vec![
                field("max", whole(numbers::TAKE), "Most events of a batch").like(100),
                field("within", duration(), "Longest wait of a batch, from its first event").like("5s"),
            ],
            &["max", "within"],
        );
        let mut input = self.object(
            vec![
                field("topic", topic, "Kafka topics"),
                field("channel", channel, "A channel in place of topics"),
                field("take", take, "Collects events into batches: functions get a list of values"),
                field("declare", boolean(), "Creates input topics that are missing").or(false).like(true),
            ],
            &[],
        );
        input = self.one_of(input, &["topic", "channel"]);
        // A batch of a channel is K0110.
        if self.is_strict() {
            input["not"] = json!({ "required": ["channel", "take"] });
        }
        input
    }

    /// One of `output.topics`, or with `is_operation` a `topicSend`, which may pass its value through.
    fn topic_output(&self, is_operation: bool) -> Value {
        let mut fields = vec![
            field("name", pattern(TOPIC), "A fixed topic").like("priced-orders"),
            field("nameSelector", code(), "Returns the topic of a value")
                .python("def topic(value):\n    return value[\"kind\"]"),
            field("predicate", code(), "A falsy result keeps the value from being sent")
                .python("def should_send(value):\n    return \"id\" in value"),
            field("keySelector", code(), "Returns the key; without it the key is null")
                .python("def key(value):\n    return value[\"id\"]"),
            field("valueSelector", code(), "Returns what is sent in the value's place")
                .python("def slim(value):\n    return {\"id\": value[\"id\"]}"),
            field("partitionSelector", code(), "Returns the partition, or None for the partitioner's choice")
                .python("def partition(value):\n    return value[\"shard\"]"),
            field(
                "headersSelector",
                code(),
                "Returns the headers: a dict or a list of pairs; without it there are none",
            )
            .python("def headers(value):\n    return {\"source\": \"shop\"}"),
            field("ack", boolean(), "Always true; in topicSend it makes the record's metadata go on").like(true),
        ];
        // What a value becomes behind an output is a question only inside the pipeline.
        if is_operation {
            fields.push(
                field("passThrough", boolean(), "The value goes on unchanged, sent or not; else None goes on")
                    .or(false)
                    .like(true),
            );
        }
        fields.extend(settings());
        fields.extend(creation());
        self.one_of(self.object(fields, &[]), &["name", "nameSelector"])
    }

    /// One of `output.channels`.
    fn channel_output(&self) -> Value {
        self.object(
            vec![
                field("name", text("Its name"), "The channel").like("checked"),
                field("predicate", code(), "A falsy result keeps the value from being passed on")
                    .python("def is_large(value):\n    return value[\"amount\"] > 100"),
                field("valueSelector", code(), "Returns what is passed on in the value's place")
                    .python("def order(value):\n    return value[\"order\"]"),
                field("keySelector", code(), "Returns the key that readers see")
                    .python("def key(value):\n    return value[\"id\"]"),
                field("headersSelector", code(), "Returns the headers that readers see")
                    .python("def headers(value):\n    return {\"source\": \"shop\"}"),
            ],
            &["name"],
        )
    }

    /// One of `output.sinks`, with its code block beside its other fields.
    fn sink(&self) -> Value {
        self.object(
            vec![
                field("name", text("Its name"), "The sink's name").like("warehouse"),
                field("python", text("Python"), "Python with the function that is called with the value")
                    .like("def store(value):\n    warehouse.insert(value)"),
                field(
                    "entrypoint",
                    text("A function"),
                    "Name of the function that is called; else the first that the block defines",
                )
                .like("store"),
                field("predicate", code(), "A falsy result keeps the value from the sink")
                    .python("def is_new(value):\n    return value[\"new\"]"),
                field("valueSelector", code(), "Returns what the sink gets in the value's place")
                    .python("def row(value):\n    return [value[\"id\"]]"),
            ],
            &["name", "python"],
        )
    }

    /// One of `processors.operations`: a map, a filter or a topicSend.
    fn operation(&self) -> Value {
        let table = self.object(
            vec![
                field("name", text("A table"), "The table").like("prices"),
                field("paramName", text("A parameter"), "The function's parameter that gets the table").like("table"),
            ],
            &["name", "paramName"],
        );
        let operation = self.object(
            vec![
                field("name", text("Its name"), "The name that the pipeline calls it by").like("enrich"),
                field("map", code(), "Makes a new value; a generator makes any number")
                    .python("def enrich(value):\n    value[\"seen\"] = True\n    return value"),
                field("filter", code(), "A falsy result drops the value")
                    .python("def validate(value):\n    return value[\"amount\"] > 0"),
                field("topicSend", self.topic_output(true), "Sends the value to a topic on its way"),
                field("tables", array(table), "Tables that the function reads and writes"),
                field("onError", self.on_error(), "What happens to events that fail here; else the agent's counts"),
                field("timeout", duration(), "Longest time of one call; else the agent's counts").like("10s"),
            ],
            &["name"],
        );
        self.one_of(operation, &["map", "filter", "topicSend"])
    }

    /// A policy: of the agent, or of one operation.
    fn on_error(&self) -> Value {
        let backoff = self.object(
            vec![
                field("initial", duration(), "The wait before the second try").or("1s"),
                field("max", duration(), "The longest wait").or("1m"),
                field("factor", between(numbers::FACTOR), "The factor by which each wait grows").or(2),
                field("jitter", between(numbers::JITTER), "The share of a wait that is left to chance").or(0.2),
            ],
            &[],
        );
        let mut fields = vec![
            field("action", json!({ "enum": ["skip", "retry", "deadLetter", "halt"] }), "What happens").like("retry"),
            field("topic", pattern(TOPIC), "The topic of dead letters; else the setting deadLetterTopic counts")
                .like("orders-dead"),
            field("attempts", whole(numbers::ATTEMPTS), "All tries together").or(3),
            field("backoff", backoff, "The waits between tries"),
            field("then", json!({ "enum": ["skip", "deadLetter", "halt"] }), "What happens after the last try")
                .or("skip")
                .like("deadLetter"),
        ];
        fields.extend(creation());
        self.object(fields, &["action"])
    }
}

/// Fields that every topic has.
fn settings() -> Vec<Field> {
    vec![
        field("keySerializer", pattern(CODEC), "How keys are read or written: raw, json or binary (pickle, yaml and chains as a|b are not supported yet)")
            .or("raw")
            .like("json"),
        field("valueSerializer", pattern(CODEC), "How values are read or written: json, raw or binary (pickle, yaml and chains as a|b are not supported yet)")
            .or("json")
            .like("raw"),
    ]
}

/// Fields of a topic that is created.
fn creation() -> Vec<Field> {
    vec![
        field("declare", boolean(), "Creates the topic where it is missing").or(false).like(true),
        field("partitions", whole(numbers::PARTITIONS), "Partitions of a topic that is created").like(12),
        field("replicas", whole(numbers::REPLICAS), "Replicas of a topic that is created").like(3),
        field("retention", whole(numbers::RETENTION), "Seconds for which a created topic keeps its records")
            .like(86400),
        field("compacting", boolean(), "A created topic keeps the last record of each key").like(true),
        field("deleting", boolean(), "A created topic deletes old records").like(true),
        field("config", pairs(), "Kafka's own settings of a topic that is created; they win over the others")
            .like(json!({ "min.insync.replicas": 2 })),
    ]
}
