//! The schema of a table.
//!
//! Tables need no spec at all: a name is enough, and everything has a default.

use serde_json::{Value, json};

use super::values::{CODEC, boolean, code, pairs, pattern, seconds, text, whole};
use super::{Writer, field};
use crate::read::numbers;

impl Writer {
    /// The spec of a `KasprTable`, or an entry of `tables`.
    pub(super) fn table(&self) -> Value {
        let required: &[&str] = if self.is_strict() { &[] } else { &["name"] };
        self.object(
            vec![
                field(
                    "name",
                    text("The table's name"),
                    "The table's name; in the Kubernetes form it repeats metadata.name",
                )
                .like("prices"),
                field("description", text("Shown in plans"), "Text that plans and drawings show")
                    .like("Prices by item"),
                field("global", boolean(), "The whole table is on every worker").or(false).like(true),
                field("defaultSelector", code(), "Returns what a missing key gives: a class, a factory or a value")
                    .python("def default():\n    return 0"),
                field("keySerializer", pattern(CODEC), "How keys are written: raw or json").or("json").like("raw"),
                field("valueSerializer", pattern(CODEC), "How values are written: raw or json").or("json").like("raw"),
                field(
                    "partitions",
                    whole(numbers::PARTITIONS),
                    "Partitions of the changelog, which must be those of the input",
                )
                .like(4),
                field("extraTopicConfigs", pairs(), "Kafka's own settings of the changelog")
                    .like(json!({ "min.insync.replicas": 2 })),
                // Specs of the reference runtime have it, and it must not be an unknown field.
                field("options", json!({ "type": "object" }), "Options of the store; accepted and without effect"),
                field("window", self.window(), "Keys live per window of time (not supported yet by kaspr-exec)"),
            ],
            required,
        )
    }

    /// `spec.window`: tumbling or hopping, and the time that decides.
    fn window(&self) -> Value {
        // Both kinds of windows have these two.
        let size = || field("size", seconds(), "Length of a window, as a duration or in seconds").like("30s");
        let expires = || field("expires", seconds(), "How long a window is kept").like("1h");
        let tumbling = self.object(vec![size(), expires()], &["size"]);
        let step = field("step", seconds(), "From one window's start to the next").like("10s");
        let hopping = self.object(vec![size(), step, expires()], &["size", "step"]);
        let window = self.object(
            vec![
                field("tumbling", tumbling, "One window after the other"),
                field("hopping", hopping, "Windows that overlap"),
                field(
                    "relativeTo",
                    json!({ "enum": ["stream", "now", "custom"] }),
                    "The time that decides: the event's, the worker's, or the selector's",
                )
                .like("stream"),
                field("relativeToSelector", code(), "Returns the time of a value, in seconds")
                    .python("def time(value):\n    return value[\"time\"]"),
            ],
            &[],
        );
        self.one_of(window, &["tumbling", "hopping"])
    }
}
