//! `tests.yaml`, read as JSON text.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::fields::VALUES;
use crate::config::settings::duration;
use crate::run::record::{self, Record};

/// All tests of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The tests, in order.
    pub tests: Vec<Case>,
}

/// One test.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// One line that says what it shows.
    pub name: String,
    /// Variables of the environment that user code sees; null takes one away.
    #[serde(default)]
    env: BTreeMap<String, Value>,
    /// Outcomes of functions that are replaced, by name.
    #[serde(default)]
    pub mock: BTreeMap<String, Box<RawValue>>,
    /// The contents of tables at the start, by name.
    #[serde(default)]
    pub tables: BTreeMap<String, BTreeMap<String, Box<RawValue>>>,
    /// A list of records, each with `at`, or `{file: x.jsonl}`.
    #[serde(default)]
    events: Option<Box<RawValue>>,
    /// Time by which the clock moves behind the last event.
    #[serde(default)]
    advance: Option<String>,
    /// The results that must come.
    #[serde(default)]
    pub expect: Expect,
}

/// The expectations of a test: what it does not name is not compared, but for failures.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The difference that numbers in values may have.
    #[serde(default)]
    pub approx: Option<f64>,
    /// Records by topic, all of them and in order.
    #[serde(default)]
    pub topics: BTreeMap<String, Vec<BTreeMap<String, Box<RawValue>>>>,
    /// Pairs by table, all of them.
    #[serde(default)]
    pub tables: BTreeMap<String, BTreeMap<String, Box<RawValue>>>,
    /// Failures, all of them and in order; none where nothing is written.
    #[serde(default)]
    pub failures: Vec<BTreeMap<String, Value>>,
}

/// An event, and when it comes.
pub struct Timed {
    /// The time since the start.
    pub at: Duration,
    /// The record that comes in.
    pub record: Record,
}

impl Suite {
    /// Reads a file's JSON text.
    pub fn from_json(text: &str) -> Result<Suite, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }
}

impl Case {
    /// Variables of the environment that user code sees; `None` takes one away.
    pub fn variables(&self) -> BTreeMap<String, Option<String>> {
        let text = |value: &Value| match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        self.env.iter().map(|(name, value)| (name.clone(), text(value))).collect()
    }

    /// The events, in the order written; each no earlier than the one before it.
    pub fn events(&self, folder: &Path) -> Result<Vec<Timed>, String> {
        Case::read(self.events.as_deref(), folder)
    }

    /// Reads the events that a test writes, or names a file of.
    pub(super) fn read(events: Option<&RawValue>, folder: &Path) -> Result<Vec<Timed>, String> {
        let Some(raw) = events else { return Ok(Vec::new()) };
        let mut events: Vec<Timed> = if raw.get().starts_with('{') {
            let file: BTreeMap<String, String> = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
            let name = file.get("file").ok_or("\"events\" is a list, or a mapping with \"file\"")?;
            let text = std::fs::read_to_string(folder.join(name))
                .map_err(|error| format!("cannot read \"{name}\": {error}"))?;
            let lines = text.lines().filter(|line| !line.trim().is_empty()).enumerate();
            lines
                .map(|(number, line)| timed(line).map_err(|why| format!("{name}:{}: {why}", number + 1)))
                .collect::<Result<_, _>>()?
        } else {
            let list: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
            let list = list.iter().enumerate();
            list.map(|(number, event)| timed(event.get()).map_err(|why| format!("event {}: {why}", number + 1)))
                .collect::<Result<_, _>>()?
        };
        let mut before = Duration::ZERO;
        for event in &mut events {
            event.at = event.at.max(before);
            before = event.at;
        }
        Ok(events)
    }

    /// Time by which the clock moves behind the last event.
    pub fn advance(&self) -> Result<Duration, String> {
        match &self.advance {
            None => Ok(Duration::ZERO),
            Some(text) => duration(text)
                .ok_or_else(|| format!("\"advance\" is \"{text}\": a duration is a number and one of ms, s, m, h, d")),
        }
    }
}

/// A record with `at`. One without a value is a tombstone, and may say so.
pub(super) fn timed(text: &str) -> Result<Timed, String> {
    let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    // The record format, which local runs share, knows neither `at` nor `tombstone`: both are taken out before it
    // reads the rest.
    let at = match fields.remove("at") {
        None => Duration::ZERO,
        Some(raw) => {
            let text: String = serde_json::from_str(raw.get()).map_err(|_| "\"at\" is a duration: 5s".to_owned())?;
            duration(&text)
                .ok_or_else(|| format!("\"at\" is \"{text}\": a duration is a number and one of ms, s, m, h, d"))?
        }
    };
    let is_tombstone = fields.remove("tombstone").is_some_and(|raw| raw.get() == "true");
    if is_tombstone && VALUES.iter().any(|name| fields.contains_key(*name)) {
        return Err("a tombstone has no value".to_owned());
    }
    let rest = serde_json::to_string(&fields).map_err(|error| error.to_string())?;
    let record = record::parse(rest.as_bytes()).map_err(|error| error.to_string())?;
    if record.topic.is_none() {
        return Err("an event names its topic".to_owned());
    }
    Ok(Timed { at, record })
}
