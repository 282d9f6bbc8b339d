//! The setting `onError` as text: read here for the compiler, which checks it, and for the executor.
//!
//! ```text
//! K_ON_ERROR=retry
//! K_ON_ERROR={"action": "retry", "attempts": 5, "backoff": {"initial": "1s"}, "then": "deadLetter"}
//! ```
//!
//! The same fields as in a spec, with the same bounds and defaults. It is not read by the code for specs, because
//! places in a YAML file and places in a variable have nothing in common.

use std::fmt;

use serde_json::{Map, Value};

use super::{Backoff, Creation, OnError, topic_config};
use crate::duration;

const ACTIONS: &[&str] = &["skip", "retry", "deadLetter", "halt"];
// What `then` may be: a retry cannot end with a retry.
const LAST_ACTIONS: &[&str] = &["skip", "deadLetter", "halt"];
// In the order in which a fault lists them.
const FIELDS: &[&str] = &[
    "action",
    "topic",
    "attempts",
    "backoff",
    "then",
    "declare",
    "partitions",
    "replicas",
    "retention",
    "compacting",
    "deleting",
    "config",
];
const WAITS: &[&str] = &["initial", "max", "factor", "jitter"];

/// A policy's text that makes no sense.
///
/// The caller names the setting and its source before `path`, and suggests the nearest of `allowed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFault {
    /// The field, as `.backoff.max`; empty: the whole.
    pub path: String,
    /// Values that the field may have, in words.
    pub needed: String,
    /// The value that it has.
    pub found: String,
    /// The words that it may be, where it may be a few words.
    pub allowed: &'static [&'static str],
}

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.strip_prefix('.') {
            Some(path) => write!(f, "\"{path}\" must be {}, found {}", self.needed, self.found),
            None => write!(f, "it must be {}, found {}", self.needed, self.found),
        }
    }
}

impl std::error::Error for PolicyFault {}

impl OnError {
    /// Reads an action's name, or the mapping as JSON. It accepts what `onError` in a spec may be.
    ///
    /// # Errors
    /// Says which field may not be so.
    ///
    /// ```
    /// use kaspr_ir::plan::OnError;
    ///
    /// assert_eq!(OnError::from_setting("halt"), Ok(OnError::Halt));
    /// let fault = OnError::from_setting(r#"{"action": "retry", "attempts": 0}"#).unwrap_err();
    /// assert_eq!(fault.path, ".attempts");
    /// assert!(OnError::from_setting("retri").unwrap_err().allowed.contains(&"retry"));
    /// ```
    pub fn from_setting(text: &str) -> Result<OnError, PolicyFault> {
        if !text.trim_start().starts_with('{') {
            // A bare name is the mapping with nothing but its action.
            return of(&[("action".to_owned(), Value::from(text))].into_iter().collect(), "");
        }
        let fault = |found: String| fault("", "the name of an action, or a mapping as JSON", found, &[]);
        let value: Value = serde_json::from_str(text).map_err(|error| fault(format!("no JSON: {error}")))?;
        of(value.as_object().ok_or_else(|| fault(value.to_string()))?, ".action")
    }
}

/// True if a setting is a mapping as Python prints it, `{'action': 'retry'}`: that is what the operator makes of a
/// mapping in `spec.config`.
pub fn is_python_mapping(text: &str) -> bool {
    let text = text.trim();
    let looks_so = (text.starts_with("{'") || text.starts_with("{\"")) && text.ends_with('}');
    looks_so && serde_json::from_str::<Value>(text).is_err()
}

/// A fault, in parts.
fn fault(path: &str, needed: &str, found: String, allowed: &'static [&'static str]) -> PolicyFault {
    PolicyFault { path: path.to_owned(), needed: needed.to_owned(), found, allowed }
}

/// The value that is found, as people read it.
fn found(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), Value::to_string)
}

/// `at` is the path of the action.
fn of(map: &Map<String, Value>, at: &str) -> Result<OnError, PolicyFault> {
    // First: a misspelled field would otherwise count for nothing, without a word.
    only(map, FIELDS, "")?;
    match word(map.get("action"), ACTIONS, at)? {
        "retry" => retry(map),
        action => last(map, action),
    }
}

/// A policy that tries no more.
///
/// Fields of other actions are checked and have no effect, as in a spec.
fn last(map: &Map<String, Value>, action: &str) -> Result<OnError, PolicyFault> {
    let topic = match map.get("topic") {
        None | Some(Value::Null) => None,
        Some(Value::String(topic)) => Some(topic.clone()),
        other => return Err(fault(".topic", "a text", found(other), &[])),
    };
    let creation = creation(map)?;
    Ok(match action {
        "halt" => OnError::Halt,
        "deadLetter" => OnError::DeadLetter { topic, creation },
        _ => OnError::Skip,
    })
}

/// Reads the fields of the topic's creation.
fn creation(map: &Map<String, Value>) -> Result<Creation, PolicyFault> {
    let retention = whole(map, "retention", Creation::RETENTION)?;
    let mut config = topic_config(retention, flag(map, "compacting")?, flag(map, "deleting")?);
    let own = match map.get("config") {
        None => &Map::new(),
        Some(value) => value.as_object().ok_or_else(|| fault(".config", "a mapping", value.to_string(), &[]))?,
    };
    for (name, value) in own {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => {
                return Err(fault(&format!(".config.{name}"), "a text, a number or a boolean", value.to_string(), &[]));
            }
        };
        config.insert(name.clone(), text);
    }
    Ok(Creation {
        declare: flag(map, "declare")?,
        partitions: whole(map, "partitions", Creation::PARTITIONS)?,
        replicas: whole(map, "replicas", Creation::REPLICAS)?,
        config,
    })
}

/// The policy `retry`, with its defaults where the mapping says nothing.
fn retry(map: &Map<String, Value>) -> Result<OnError, PolicyFault> {
    let attempts = whole(map, "attempts", OnError::TRIES)?.unwrap_or(OnError::ATTEMPTS);
    let none = Map::new();
    let waits = match map.get("backoff") {
        None => &none,
        Some(value) => value.as_object().ok_or_else(|| fault(".backoff", "a mapping", value.to_string(), &[]))?,
    };
    only(waits, WAITS, ".backoff")?;
    let default = Backoff::default();
    let then = match map.get("then") {
        None => last(map, "skip")?,
        then => last(map, word(then, LAST_ACTIONS, ".then")?)?,
    };
    Ok(OnError::Retry {
        attempts,
        backoff: Backoff {
            initial_ms: wait(waits, "initial", default.initial_ms)?,
            max_ms: wait(waits, "max", default.max_ms)?,
            factor: number(waits, "factor", Backoff::FACTOR, default.factor)?,
            jitter: number(waits, "jitter", Backoff::JITTER, default.jitter)?,
        },
        then: Box::new(then),
    })
}

/// Refuses fields that are not among these names.
fn only(map: &Map<String, Value>, names: &'static [&'static str], path: &str) -> Result<(), PolicyFault> {
    match map.keys().find(|name| !names.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let needed = format!("a mapping of {}", names.join(", "));
            Err(fault(path, &needed, format!("\"{name}\""), names))
        }
    }
}

/// One of these words, which must be there.
fn word<'a>(value: Option<&'a Value>, words: &'static [&'static str], path: &str) -> Result<&'a str, PolicyFault> {
    let word = value.and_then(Value::as_str).filter(|word| words.contains(word));
    word.ok_or_else(|| fault(path, &format!("one of {}", words.join(", ")), found(value), words))
}

/// A wait in ms; the default where none is written.
fn wait(waits: &Map<String, Value>, name: &str, default: u64) -> Result<u64, PolicyFault> {
    let Some(value) = waits.get(name) else { return Ok(default) };
    let ms = value.as_str().and_then(duration::parse);
    ms.ok_or_else(|| fault(&format!(".backoff.{name}"), "a duration, for example 5s", value.to_string(), &[]))
}

/// A boolean; false where none is written.
fn flag(map: &Map<String, Value>, name: &str) -> Result<bool, PolicyFault> {
    let Some(value) = map.get(name) else { return Ok(false) };
    value.as_bool().ok_or_else(|| fault(&format!(".{name}"), "true or false", value.to_string(), &[]))
}

/// A whole number within bounds that its type holds.
fn whole<T: TryFrom<i64>>(
    map: &Map<String, Value>,
    name: &str,
    (min, max): (i64, i64),
) -> Result<Option<T>, PolicyFault> {
    let Some(value) = map.get(name) else { return Ok(None) };
    let number = value.as_i64().filter(|number| (min..=max).contains(number)).and_then(|number| number.try_into().ok());
    let needed = format!("a whole number from {min} to {max}");
    number.map(Some).ok_or_else(|| fault(&format!(".{name}"), &needed, value.to_string(), &[]))
}

/// A number between two others; the default where none is written.
fn number(waits: &Map<String, Value>, name: &str, (min, max): (f64, f64), default: f64) -> Result<f64, PolicyFault> {
    let Some(value) = waits.get(name) else { return Ok(default) };
    let number = value.as_f64().filter(|number| (min..=max).contains(number));
    let needed = format!("a number from {min} to {max}");
    number.ok_or_else(|| fault(&format!(".backoff.{name}"), &needed, value.to_string(), &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_names_or_mappings() {
        assert_eq!(OnError::from_setting("halt"), Ok(OnError::Halt));
        let letter = OnError::from_setting(r#"{"action": "deadLetter", "topic": "t"}"#);
        assert_eq!(letter, Ok(OnError::DeadLetter { topic: Some("t".into()), creation: Creation::default() }));
        let retry = r#"{"action":"retry","attempts":5,"backoff":{"initial":"10ms","max":"1.5m"},"then":"halt"}"#;
        let retry = OnError::from_setting(retry);
        let Ok(OnError::Retry { attempts: 5, backoff, then }) = retry else { panic!("{retry:?}") };
        assert_eq!((backoff.initial_ms, backoff.max_ms, *then), (10, 90_000, OnError::Halt));
    }

    #[test]
    fn a_topic_of_dead_letters_is_declared_as_in_a_spec() {
        let text = r#"{"action": "retry", "then": "deadLetter", "declare": true, "partitions": 3, "retention": 60, "config": {"min.insync.replicas": 2}}"#;
        let Ok(OnError::Retry { then, .. }) = OnError::from_setting(text) else { panic!("it is a policy") };
        let OnError::DeadLetter { topic: None, creation } = *then else { panic!("{then:?}") };
        let config = [("min.insync.replicas", "2"), ("retention.ms", "60000")];
        let config = config.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(creation, Creation { declare: true, partitions: Some(3), replicas: None, config: config.into() });
    }

    #[test]
    fn retry_is_what_a_spec_means_by_it() {
        let then = Box::new(OnError::Skip);
        let retry = OnError::Retry { attempts: OnError::ATTEMPTS, backoff: Backoff::default(), then };
        assert_eq!(OnError::from_setting("retry"), Ok(retry));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let retry = |rest: &str| format!(r#"{{"action": "retry", {rest}}}"#);
        for (text, words) in [
            ("ignore".to_owned(), "it must be one of skip, retry, deadLetter, halt, found \"ignore\""),
            ("{}".to_owned(), "\"action\" must be one of skip, retry, deadLetter, halt, found nothing"),
            (retry(r#""attempts": 0"#), "\"attempts\" must be a whole number from 1 to 4294967295, found 0"),
            (retry(r#""attempts": "3""#), "\"attempts\" must be a whole number from 1 to 4294967295, found \"3\""),
            (retry(r#""backoff": {"max": 5}"#), "\"backoff.max\" must be a duration, for example 5s, found 5"),
            (retry(r#""backoff": {"factor": 0.5}"#), "\"backoff.factor\" must be a number from 1 to 1000, found 0.5"),
            (retry(r#""declare": "yes""#), "\"declare\" must be true or false, found \"yes\""),
            (retry(r#""partitions": 0"#), "\"partitions\" must be a whole number from 1 to 2147483647, found 0"),
            (retry(r#""config": {"a": []}"#), "\"config.a\" must be a text, a number or a boolean, found []"),
            (retry(r#""then": "retry""#), "\"then\" must be one of skip, deadLetter, halt, found \"retry\""),
            (
                retry(r#""atempts": 3"#),
                "it must be a mapping of action, topic, attempts, backoff, then, declare, partitions, replicas, retention, compacting, deleting, config, found \"atempts\"",
            ),
        ] {
            assert_eq!(
                OnError::from_setting(&text).map_err(|fault| fault.to_string()),
                Err(words.to_owned()),
                "{text}"
            );
        }
    }
}
