//! JSON Schemas of specs, for editors: names, types and what excludes what, as `read` and `check`
//! know them. What needs the whole app or the Python is left to `kasprc check`.

use serde_json::{Map, Value, json};

pub use crate::read::Form;
use crate::read::numbers::{self, Bounds};

/// The schema of one document of a form. Draft 7, which every YAML editor understands.
pub fn schema(form: Form) -> Value {
    let writer = Writer { form };
    let mut schema = match form {
        Form::Kubernetes => writer.kubernetes(),
        Form::Definition => writer.definitions(),
    };
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["definitions"] = json!({ "code": writer.code() });
    schema
}

const DURATION: &str = r"^\s*[0-9.]+\s*(ms|s|m|h|d)\s*$";
/// What names of Kubernetes look like, but for their length.
const NAME: &str = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$";
const TOPIC: &str = "^[a-zA-Z0-9._-]{1,249}$";
const TOPICS: &str = r"^\s*[a-zA-Z0-9._-]{1,249}\s*(,\s*[a-zA-Z0-9._-]{1,249}\s*)*$";
const CODEC: &str = r"^(raw|json|binary|pickle|yaml)(\|(raw|json|binary|pickle|yaml))*$";

/// Writes schemas in the names of one form.
struct Writer {
    form: Form,
}

/// A field: its name, what it holds, what it is for.
type Field<'a> = (&'a str, Value, &'a str);

impl Writer {
    fn is_strict(&self) -> bool {
        self.form == Form::Kubernetes
    }

    /// In the mounted form every field may be null.
    fn or_null(&self, schema: Value) -> Value {
        if self.is_strict() { schema } else { json!({ "anyOf": [schema, { "type": "null" }] }) }
    }

    fn object(&self, fields: Vec<Field<'_>>, required: &[&str]) -> Value {
        let mut properties = Map::new();
        for (name, schema, description) in fields {
            let mut schema = self.or_null(schema);
            schema["description"] = json!(description);
            properties.insert(self.form.written(name), schema);
        }
        let required: Vec<String> = required.iter().map(|name| self.form.written(name)).collect();
        let mut object = json!({ "type": "object", "properties": properties, "required": required });
        if self.is_strict() {
            object["additionalProperties"] = json!(false);
        }
        object
    }

    /// Exactly one of the fields is written. The mounted form writes all of them, most as null.
    fn one_of(&self, mut object: Value, names: &[&str]) -> Value {
        if self.is_strict() {
            let alternatives: Vec<Value> = names.iter().map(|name| json!({ "required": [name] })).collect();
            object["oneOf"] = json!(alternatives);
        }
        object
    }

    fn kubernetes(&self) -> Value {
        let kinds = [("KasprAgent", self.agent(), true), ("KasprTable", self.table(), false)];
        let mut branches: Vec<Value> = kinds
            .into_iter()
            .map(|(kind, spec, is_required)| {
                let required = if is_required { json!(["spec"]) } else { json!([]) };
                json!({
                    "if": { "properties": { "kind": { "const": kind } } },
                    "then": { "properties": { "spec": spec }, "required": required },
                })
            })
            .collect();
        branches.push(json!({
            "if": { "properties": { "kind": { "const": "KasprApp" } } },
            "then": { "properties": { "spec": { "type": "object", "properties": { "config": pairs() } } } },
        }));
        json!({
            "title": "A KasprAgent, KasprTable or KasprApp",
            "type": "object",
            "properties": {
                "apiVersion": { "const": "kaspr.io/v1alpha1" },
                "kind": { "enum": ["KasprAgent", "KasprTable", "KasprApp"] },
                "metadata": {
                    "type": "object",
                    "properties": { "name": { "type": "string", "pattern": NAME, "maxLength": 253 } },
                    "required": ["name"],
                },
                "spec": { "type": "object" },
                "status": { "type": "object" },
            },
            "required": ["apiVersion", "kind", "metadata"],
            "additionalProperties": false,
            "allOf": branches,
        })
    }

    fn definitions(&self) -> Value {
        let list = |item: Value| json!({ "anyOf": [{ "type": "array", "items": item }, { "type": "null" }] });
        let empty = json!({ "anyOf": [{ "type": "array", "maxItems": 0 }, { "type": "null" }] });
        json!({
            "title": "Agents and tables, as they are mounted into a pod",
            "type": "object",
            "properties": {
                "agents": list(self.agent()), "tables": list(self.table()),
                "joins": empty, "tasks": empty, "webviews": empty,
            },
            "anyOf": [{ "required": ["agents"] }, { "required": ["tables"] }],
        })
    }

    fn agent(&self) -> Value {
        let processors = self.object(
            vec![
                ("pipeline", array(text("An operation's name")), "Operations in the order in which they run"),
                ("init", code(), "Python that runs once, when a worker starts"),
                ("operations", array(self.operation()), "What the pipeline names"),
            ],
            &[],
        );
        let output = self.object(
            vec![
                ("topics", array(self.topic_output(false)), "Kafka topics"),
                ("channels", array(self.channel_output()), "Channels that other agents of the app read"),
                ("sinks", array(self.sink()), "Custom sinks in Python"),
            ],
            &[],
        );
        let required: &[&str] = if self.is_strict() { &["input"] } else { &["name"] };
        self.object(
            vec![
                ("name", text("The agent's name"), "The agent's name"),
                ("description", text("Shown in plans"), "Shown in plans"),
                (
                    "isolatedPartitions",
                    boolean(),
                    "Batches never mix partitions, and partitions never wait for each other",
                ),
                ("input", self.input(), "Where events come from"),
                ("output", output, "Where values go"),
                ("processors", processors, "What happens to values"),
                ("onError", self.on_error(), "What happens to events that fail"),
                ("timeout", duration(), "Longest time of one call"),
            ],
            required,
        )
    }

    fn input(&self) -> Value {
        let mut fields = vec![
            ("name", pattern(TOPICS), "One topic, or several separated by commas"),
            ("pattern", text("A regular expression"), "A regular expression over topic names"),
        ];
        fields.extend(self.settings());
        let topic = self.one_of(self.object(fields, &[]), &["name", "pattern"]);
        let channel =
            self.object(vec![("name", text("Its name"), "A channel that an agent of the app writes")], &["name"]);
        let take = self.object(
            vec![
                ("max", whole(numbers::TAKE), "Most events of a batch"),
                ("within", duration(), "How long a batch may wait, from its first event"),
            ],
            &["max", "within"],
        );
        let mut input = self.object(
            vec![
                ("topic", topic, "Kafka topics"),
                ("channel", channel, "A channel"),
                ("take", take, "Collects events into batches"),
                ("declare", boolean(), "Creates input topics that are missing"),
            ],
            &[],
        );
        input = self.one_of(input, &["topic", "channel"]);
        if self.is_strict() {
            input["not"] = json!({ "required": ["channel", "take"] });
        }
        input
    }

    /// What may be said of every topic.
    fn settings(&self) -> Vec<Field<'static>> {
        vec![
            (
                "keySerializer",
                pattern(CODEC),
                "raw (where nothing is written), json, binary, pickle, yaml, or several as a|b",
            ),
            (
                "valueSerializer",
                pattern(CODEC),
                "json (where nothing is written), raw, binary, pickle, yaml, or several as a|b",
            ),
            ("declare", boolean(), "Creates the topic where it is missing"),
            ("partitions", whole(numbers::PARTITIONS), "Partitions of a topic that is created"),
            ("replicas", whole(numbers::REPLICAS), "Replicas of a topic that is created"),
            ("retention", whole(numbers::RETENTION), "Seconds that a created topic keeps its records"),
            ("compacting", boolean(), "A created topic keeps the last record of each key"),
            ("deleting", boolean(), "A created topic deletes old records"),
            ("config", pairs(), "Kafka's own settings of a topic that is created"),
        ]
    }

    fn topic_output(&self, is_operation: bool) -> Value {
        let mut fields = vec![
            ("name", pattern(TOPIC), "A fixed topic"),
            ("nameSelector", code(), "Returns the topic of a value"),
            ("predicate", code(), "Whether a value is sent"),
            ("keySelector", code(), "Returns the key; without it the key is null"),
            ("valueSelector", code(), "Returns what is sent in the value's place"),
            ("partitionSelector", code(), "Returns the partition, or None for the partitioner's choice"),
            ("headersSelector", code(), "Returns the headers"),
            ("ack", boolean(), "Accepted, and always true"),
        ];
        if is_operation {
            fields.push(("passThrough", boolean(), "The value itself goes on"));
        }
        fields.extend(self.settings());
        self.one_of(self.object(fields, &[]), &["name", "nameSelector"])
    }

    fn channel_output(&self) -> Value {
        self.object(
            vec![
                ("name", text("Its name"), "The channel"),
                ("predicate", code(), "Whether a value is passed on"),
                ("valueSelector", code(), "Returns what is passed on in the value's place"),
                ("keySelector", code(), "Returns the key that readers see"),
                ("headersSelector", code(), "Returns the headers that readers see"),
            ],
            &["name"],
        )
    }

    fn sink(&self) -> Value {
        self.object(
            vec![
                ("name", text("Its name"), "The sink's name"),
                ("python", text("Python"), "Python with the function that is called"),
                ("entrypoint", text("A function"), "The function that is called"),
                ("predicate", code(), "Whether a value is given to the sink"),
                ("valueSelector", code(), "Returns what is given in the value's place"),
            ],
            &["name", "python"],
        )
    }

    fn operation(&self) -> Value {
        let table = self.object(
            vec![
                ("name", text("A table"), "The table"),
                ("paramName", text("A parameter"), "The function's parameter that is given the table"),
            ],
            &["name", "paramName"],
        );
        let operation = self.object(
            vec![
                ("name", text("Its name"), "What the pipeline calls it"),
                ("map", code(), "Makes a new value"),
                ("filter", code(), "Keeps or drops the value"),
                ("topicSend", self.topic_output(true), "Sends the value to a topic on its way"),
                ("tables", array(table), "Tables that the function reads and writes"),
                ("onError", self.on_error(), "What happens to events that fail here"),
                ("timeout", duration(), "Longest time of one call"),
            ],
            &["name"],
        );
        self.one_of(operation, &["map", "filter", "topicSend"])
    }

    fn on_error(&self) -> Value {
        let backoff = self.object(
            vec![
                ("initial", duration(), "Before the second try (1s)"),
                ("max", duration(), "The longest wait (1m)"),
                ("factor", between(numbers::FACTOR), "What each wait is multiplied by (2)"),
                ("jitter", between(numbers::JITTER), "The share of a wait that is left to chance (0.2)"),
            ],
            &[],
        );
        self.object(
            vec![
                ("action", json!({ "enum": ["skip", "retry", "deadLetter", "halt"] }), "What happens"),
                ("topic", pattern(TOPIC), "Where dead letters go"),
                ("attempts", whole(numbers::ATTEMPTS), "All tries together (3)"),
                ("backoff", backoff, "How long tries wait for each other"),
                ("then", json!({ "enum": ["skip", "deadLetter", "halt"] }), "What happens after the last try (skip)"),
            ],
            &["action"],
        )
    }

    fn table(&self) -> Value {
        let required: &[&str] = if self.is_strict() { &[] } else { &["name"] };
        self.object(
            vec![
                ("name", text("The table's name"), "The table's name"),
                ("description", text("Shown in plans"), "Shown in plans"),
                ("global", boolean(), "The whole table is on every worker"),
                ("defaultSelector", code(), "What a missing key gives"),
                ("keySerializer", pattern(CODEC), "raw or json"),
                ("valueSerializer", pattern(CODEC), "raw or json"),
                ("partitions", whole(numbers::PARTITIONS), "Partitions of the changelog: those of the input"),
                ("extraTopicConfigs", pairs(), "Kafka's own settings of the changelog"),
                ("options", json!({ "type": "object" }), "Options of the store"),
                ("window", self.window(), "Keys live per window of time"),
            ],
            required,
        )
    }

    fn window(&self) -> Value {
        let seconds = || json!({ "anyOf": [duration(), { "type": "number", "minimum": 0 }] });
        let size = || ("size", seconds(), "Length of a window: 30s, or a number of seconds");
        let expires = || ("expires", seconds(), "How long a window is kept");
        let tumbling = self.object(vec![size(), expires()], &["size"]);
        let step = ("step", seconds(), "From one window's start to the next");
        let hopping = self.object(vec![size(), step, expires()], &["size", "step"]);
        let window = self.object(
            vec![
                ("tumbling", tumbling, "One window after the other"),
                ("hopping", hopping, "Windows that overlap"),
                (
                    "relativeTo",
                    json!({ "enum": ["stream", "now", "custom"] }),
                    "Whose time decides: the event's, the worker's, or the selector's",
                ),
                ("relativeToSelector", code(), "Returns the time of a value, in seconds"),
            ],
            &[],
        );
        self.one_of(window, &["tumbling", "hopping"])
    }

    fn code(&self) -> Value {
        self.object(
            vec![
                ("python", text("Python"), "Python with the function that is called"),
                ("entrypoint", text("A function"), "The function that is called; else the first that is defined"),
            ],
            &["python"],
        )
    }
}

/// A scalar: numbers and booleans are taken as they are written.
fn text(description: &str) -> Value {
    json!({ "type": ["string", "number", "boolean"], "description": description })
}

fn pattern(pattern: &str) -> Value {
    json!({ "type": ["string", "number"], "pattern": pattern })
}

fn duration() -> Value {
    json!({ "type": "string", "pattern": DURATION })
}

fn boolean() -> Value {
    json!({ "type": "boolean" })
}

fn whole(bounds: Bounds) -> Value {
    json!({ "type": "integer", "minimum": bounds.min, "maximum": bounds.max })
}

fn between((min, max): (f64, f64)) -> Value {
    json!({ "type": "number", "minimum": min, "maximum": max })
}

fn array(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn pairs() -> Value {
    json!({ "type": "object", "additionalProperties": { "type": ["string", "number", "boolean"] } })
}

fn code() -> Value {
    json!({ "allOf": [{ "$ref": "#/definitions/code" }] })
}

#[cfg(test)]
mod tests;
