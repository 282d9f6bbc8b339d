//! Schemas of single values.

use serde_json::{Value, json};

use crate::read::numbers::Bounds;

pub const DURATION: &str = r"^\s*[0-9.]+\s*(ms|s|m|h|d)\s*$";
/// Names of Kubernetes, but for their length.
pub const NAME: &str = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$";
pub const TOPIC: &str = "^[a-zA-Z0-9._-]{1,249}$";
pub const TOPICS: &str = r"^\s*[a-zA-Z0-9._-]{1,249}\s*(,\s*[a-zA-Z0-9._-]{1,249}\s*)*$";
pub const CODEC: &str = r"^(raw|json|binary|pickle|yaml)(\|(raw|json|binary|pickle|yaml))*$";

/// A scalar: numbers and booleans are taken as they are written.
pub fn text(description: &str) -> Value {
    json!({ "type": ["string", "number", "boolean"], "description": description })
}

pub fn pattern(pattern: &str) -> Value {
    json!({ "type": ["string", "number"], "pattern": pattern })
}

pub fn duration() -> Value {
    json!({ "type": "string", "pattern": DURATION })
}

/// A duration, or a number of seconds.
pub fn seconds() -> Value {
    json!({ "anyOf": [duration(), { "type": "number", "minimum": 0 }] })
}

pub fn between((min, max): (f64, f64)) -> Value {
    json!({ "type": "number", "minimum": min, "maximum": max })
}

pub fn boolean() -> Value {
    json!({ "type": "boolean" })
}

pub fn whole(bounds: Bounds) -> Value {
    json!({ "type": "integer", "minimum": bounds.min, "maximum": bounds.max })
}

pub fn array(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

pub fn pairs() -> Value {
    json!({ "type": "object", "additionalProperties": { "type": ["string", "number", "boolean"] } })
}

pub fn code() -> Value {
    json!({ "allOf": [{ "$ref": "#/definitions/code" }] })
}
