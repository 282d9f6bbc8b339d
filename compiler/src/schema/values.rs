//! Schemas of single values.
//!
//! They are as strict as the compiler or less: what a pattern cannot say (a topic named `..`) is left to it.

use serde_json::{Value, json};

use crate::read::numbers::Bounds;

/// Durations as `kaspr_ir::duration` reads them.
pub const DURATION: &str = r"^\s*[0-9.]+\s*(ms|s|m|h|d)\s*$";
/// Names of Kubernetes, but for their length.
pub const NAME: &str = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$";
/// Names that Kafka allows, but for `.` and `..`.
pub const TOPIC: &str = "^[a-zA-Z0-9._-]{1,249}$";
/// The same, several with commas between.
pub const TOPICS: &str = r"^\s*[a-zA-Z0-9._-]{1,249}\s*(,\s*[a-zA-Z0-9._-]{1,249}\s*)*$";
/// Serializers, and chains of them.
pub const CODEC: &str = r"^(raw|json|binary|pickle|yaml)(\|(raw|json|binary|pickle|yaml))*$";

/// A scalar: numbers and booleans are taken as they are written.
pub fn text(description: &str) -> Value {
    json!({ "type": ["string", "number", "boolean"], "description": description })
}

/// Text of this pattern. A number is let through: it is text to the compiler.
///
/// ```text
/// pattern(TOPIC)   ⇒   {"type": ["string", "number"], "pattern": "^[a-zA-Z0-9._-]{1,249}$"}
/// ```
pub fn pattern(pattern: &str) -> Value {
    json!({ "type": ["string", "number"], "pattern": pattern })
}

/// A duration as text with a unit.
pub fn duration() -> Value {
    json!({ "type": "string", "pattern": DURATION })
}

/// A duration, or a number of seconds.
pub fn seconds() -> Value {
    json!({ "anyOf": [duration(), { "type": "number", "minimum": 0 }] })
}

/// A number between two others, both allowed.
pub fn between((min, max): (f64, f64)) -> Value {
    json!({ "type": "number", "minimum": min, "maximum": max })
}

/// A boolean.
pub fn boolean() -> Value {
    json!({ "type": "boolean" })
}

/// A whole number within the compiler's own bounds.
///
/// ```text
/// whole(numbers::TAKE)   ⇒   {"type": "integer", "minimum": 1, "maximum": 4294967295}
/// ```
pub fn whole(bounds: Bounds) -> Value {
    json!({ "type": "integer", "minimum": bounds.min, "maximum": bounds.max })
}

/// A list.
pub fn array(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

/// Names with scalars, as Kafka's settings are.
pub fn pairs() -> Value {
    json!({ "type": "object", "additionalProperties": { "type": ["string", "number", "boolean"] } })
}

/// A code block, by reference: in an `allOf`, because draft 7 ignores keywords beside a `$ref`.
pub fn code() -> Value {
    json!({ "allOf": [{ "$ref": "#/definitions/code" }] })
}
