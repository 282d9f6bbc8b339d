//! The record format: one JSON object a line, the same for input, output and golden files.
//!
//! A value is exactly one of `value` (the bytes *are* this JSON text, verbatim in both directions),
//! `valueText` (text that is not JSON), `valueBase64`, or none of them, which is a tombstone.
//!
//! ```text
//! {"topic":"orders","partition":0,"offset":7,"timestamp":1700000000000,"key":"k","value":{"id":1},"headers":[["h","v"]]}
//! {"value":null}            the four bytes `null`          {}                 a tombstone
//! {"valueText":"NaN"}       text that is not JSON          {"valueBase64":"/w=="}   the byte ff
//! ```
//!
//! What is written here reads back to the same bytes. Local runs read and write it, golden specs and the
//! delivery proofs compare it, so a change of it is a change of a format.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::broker::OutgoingRecord;
use crate::event::failure::FailureRecord;
use crate::event::message::{Event, Header};

/// A record as a line gives it: what is not known is left out. A caller fills in what it knows better: the
/// topic of an input, the time of reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The topic.
    pub topic: Option<String>,
    /// The partition.
    pub partition: Option<i32>,
    /// The offset.
    pub offset: Option<i64>,
    /// Milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// `None`: a null key.
    pub key: Option<Bytes>,
    /// `None`: a tombstone.
    pub value: Option<Bytes>,
    /// The headers, in order.
    pub headers: Vec<Header>,
}

/// The error of a line that is no record. The text says what is wrong with the line, and not where: the
/// caller knows its number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoRecord(String);

/// The line as serde reads it. Unknown names are refused, since `vaule` would be a tombstone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Line<'a> {
    topic: Option<String>,
    partition: Option<i32>,
    offset: Option<i64>,
    timestamp: Option<i64>,
    #[serde(default)]
    key: Option<Text>,
    /// `null` here is the four bytes, so it must not become `None`.
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<&'a RawValue>,
    value_text: Option<String>,
    value_base64: Option<String>,
    #[serde(default)]
    headers: Vec<(String, Option<Text>)>,
}

/// Reads a field that is there: serde alone would make `null` the same as no field.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A key or a header's value: a string is its UTF-8 bytes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Text(String),
    Base64 { base64: String },
}

impl Text {
    /// The bytes that are meant; an error if they are not base64.
    fn bytes(self) -> Result<Bytes, NoRecord> {
        match self {
            Text::Text(text) => Ok(text.into()),
            Text::Base64 { base64 } => decode(&base64),
        }
    }
}

fn decode(base64: &str) -> Result<Bytes, NoRecord> {
    STANDARD.decode(base64).map(Into::into).map_err(|error| NoRecord(format!("\"{base64}\" is not base64: {error}")))
}

/// Reads a line.
///
/// # Errors
///
/// The line is no JSON object of this form, names a value twice, or its base64 cannot be read.
pub fn parse(line: &[u8]) -> Result<Record, NoRecord> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| NoRecord(error.to_string()))?;
    let given = [line.value.is_some(), line.value_text.is_some(), line.value_base64.is_some()];
    // Two values would leave it to the order of this code which one counts.
    if given.iter().filter(|given| **given).count() > 1 {
        return Err(NoRecord("a record has one of value, valueText and valueBase64".to_owned()));
    }
    // The raw text, not a parsed value: spaces, the order of keys and long numbers stay as they were written.
    let value = match (line.value, line.value_text, line.value_base64) {
        (Some(raw), ..) => Some(Bytes::copy_from_slice(raw.get().as_bytes())),
        (_, Some(text), _) => Some(text.into()),
        (.., Some(base64)) => Some(decode(&base64)?),
        _ => None,
    };
    // A list and not a map: a header's name may repeat, and the order is part of the record.
    let headers = line.headers.into_iter().map(|(name, value)| Ok((name, value.map(Text::bytes).transpose()?)));
    Ok(Record {
        topic: line.topic,
        partition: line.partition,
        offset: line.offset,
        timestamp_ms: line.timestamp,
        key: line.key.map(Text::bytes).transpose()?,
        value,
        headers: headers.collect::<Result<_, _>>()?,
    })
}

/// Appends a committed record as a line, without its end. All fields are written, `value` only if there is
/// one. No spaces, so that equal records are equal lines.
pub fn write(record: &OutgoingRecord<'_>, offset: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"topic\":");
    write_text(record.topic, out);
    let place = format!(
        ",\"partition\":{},\"offset\":{offset},\"timestamp\":{},\"key\":",
        record.partition, record.timestamp_ms
    );
    out.extend_from_slice(place.as_bytes());
    write_bytes(record.key, out);
    // A tombstone has no value at all: `null` would be the four bytes of JSON.
    if let Some(value) = record.value {
        write_value(value, out);
    }
    out.extend_from_slice(b",\"headers\":[");
    for (number, (name, value)) in record.headers.iter().enumerate() {
        out.extend_from_slice(if number == 0 { b"[" } else { b",[" });
        write_text(name, out);
        out.push(b',');
        write_bytes(value.as_deref(), out);
        out.push(b']');
    }
    out.extend_from_slice(b"]}");
}

/// Appends an event as a line, without its end. As [`write()`].
pub fn write_event(event: &Event, out: &mut Vec<u8>) {
    let record = OutgoingRecord {
        topic: &event.topic,
        partition: event.partition,
        timestamp_ms: event.timestamp_ms,
        key: event.key.as_deref(),
        value: event.value.as_deref(),
        headers: &event.headers,
        tracked: false,
    };
    write(&record, event.offset, out);
}

/// Appends a failure as a line, without its end.
///
/// ```text
/// {"failure":{"agent":"orders","operation":"price","topic":"orders","partition":0,"offset":7,"kind":"KeyError",…}}
/// ```
pub fn write_failure(failure: &FailureRecord, out: &mut Vec<u8>) {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        failure: &'a FailureRecord,
    }
    serde_json::to_writer(out, &Line { failure }).expect("a failure is plain text");
}

/// Appends a table's pair as a line, without its end: `{"partition","key","value"}`, keys and
/// values as the record format writes values.
///
/// ```text
/// {"partition":0,"key":"lamp","value":40}
/// ```
pub fn write_pair(partition: i32, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{{\"partition\":{partition}").as_bytes());
    write_named("key", key, out);
    write_named("value", value, out);
    out.push(b'}');
}

/// A record's value under its name.
fn write_value(value: &[u8], out: &mut Vec<u8>) {
    write_named("value", value, out);
}

/// `name`, `nameText` or `nameBase64`, whichever fits the bytes.
fn write_named(name: &str, value: &[u8], out: &mut Vec<u8>) {
    match std::str::from_utf8(value) {
        // A record is one line, so JSON over several is written as text.
        Ok(text) if !text.contains(['\n', '\r']) && serde_json::from_str::<IgnoredAny>(text).is_ok() => {
            out.extend_from_slice(format!(",\"{name}\":").as_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        Ok(text) => {
            out.extend_from_slice(format!(",\"{name}Text\":").as_bytes());
            write_text(text, out);
        }
        Err(_) => {
            out.extend_from_slice(format!(",\"{name}Base64\":").as_bytes());
            write_text(&STANDARD.encode(value), out);
        }
    }
}

/// A key or a header's value: `null`, text, or `{"base64": …}`.
fn write_bytes(bytes: Option<&[u8]>, out: &mut Vec<u8>) {
    match bytes.map(std::str::from_utf8) {
        None => out.extend_from_slice(b"null"),
        Some(Ok(text)) => write_text(text, out),
        Some(Err(_)) => {
            out.extend_from_slice(b"{\"base64\":");
            write_text(&STANDARD.encode(bytes.unwrap_or_default()), out);
            out.push(b'}');
        }
    }
}

/// A JSON string, escaped.
fn write_text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("text is always JSON");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(line: &str) {
        let record = parse(line.as_bytes()).expect(line);
        let event = Event {
            topic: record.topic.expect("it has one").as_str().into(),
            partition: record.partition.expect("it has one"),
            slot: 0,
            offset: record.offset.expect("it has one"),
            timestamp_ms: record.timestamp_ms.expect("it has one"),
            key: record.key,
            value: record.value,
            headers: record.headers,
        };
        let mut out = Vec::new();
        write_event(&event, &mut out);
        assert_eq!(String::from_utf8(out).expect("it is text"), line);
    }

    #[test]
    fn records_make_the_round_trip() {
        let start = r#"{"topic":"t","partition":0,"offset":1,"timestamp":2"#;
        for rest in [
            r#","key":null,"value":{"id": 1},"headers":[]}"#,
            r#","key":"k","value":null,"headers":[["h","v"],["h",null]]}"#,
            r#","key":{"base64":"/w=="},"headers":[["h",{"base64":"/w=="}]]}"#,
            r#","key":"","valueText":"not JSON \" \n","headers":[]}"#,
            r#","key":null,"valueText":"NaN","headers":[]}"#,
            r#","key":null,"valueBase64":"/w==","headers":[]}"#,
            r#","key":null,"value":[1.0, 2e5,  "ü"],"headers":[]}"#,
        ] {
            round_trip(&format!("{start}{rest}"));
        }
    }

    #[test]
    fn what_is_no_record_says_why() {
        for (line, why) in [
            ("{", "EOF"),
            (r#"{"value":1,"valueText":"1"}"#, "one of value"),
            (r#"{"key":5}"#, "did not match"),
            (r#"{"vaule":5}"#, "unknown field `vaule`"),
            (r#"{"valueBase64":"!"}"#, "not base64"),
        ] {
            let error = parse(line.as_bytes()).expect_err(line).to_string();
            assert!(error.contains(why), "{line}: {error}");
        }
    }

    #[test]
    fn an_empty_record_is_a_tombstone() {
        assert_eq!(parse(b"{}"), Ok(Record::default()));
        assert_eq!(parse(br#"{"value":null}"#).map(|record| record.value), Ok(Some("null".into())));
    }
}
