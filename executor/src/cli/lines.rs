//! Writes the log: an event is one line, whatever text of users is in it.
//!
//! A log call names its *subject* in fields (`agent`, `operation`, `reader`, `topic`, `partition`, `offset`)
//! and says the rest in a fragment. As JSON every field is a key; as text the subject stands first, then the
//! fragment, `kind`, `error` and `cause`, the other fields as `name=value`, and `at`, a place in a spec:
//!
//! ```text
//! WARN agent "orders": operation "price": orders/3@1207: failed: KeyError: 'amount'  --> shop.yaml:14
//! ```
//!
//! Architecture invariant: every text that goes to the log passes here. Control characters are escaped, and a
//! message or field is cut at [`SHOWN_BYTES_MAX`]; so an exception's text, a topic or a key cannot begin a
//! line that looks like one of the executor's. Only the field `traceback` has lines of its own, which are
//! indented: no other line begins with a space.

use std::fmt::{Debug, Display, Result, Write};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::registry::LookupSpan;

use crate::event::shown::{Bounded, SHOWN_BYTES_MAX, TRACEBACK_BYTES_MAX, cut_bytes};

/// The field that may have several lines.
const TRACEBACK: &str = "traceback";
/// The text before each of its lines.
const INDENT: &str = "\n    ";
/// The fields that say what a line is about, in the order in which text names them. Fields that are not here
/// come at the end of a line, as `name=value`.
const SUBJECT: [&str; 8] = ["worker", "agent", "operation", "reader", "topic", "partition", "offset", "last"];

/// Fields as text. `worker`: the number of this process, where a supervisor runs several. The formatter of
/// `tracing-subscriber` writes time and level in front.
pub struct TextFields {
    /// The worker's number.
    pub worker: Option<u32>,
}

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> Result {
        let mut text = Text::default();
        if let Some(worker) = self.worker {
            text.keep("worker", &worker);
        }
        fields.record(&mut text);
        text.write(&mut writer)
    }
}

/// The fields of an event as texts, by name. The traceback may have lines. In the order of the call. Names
/// are those of the code, so a search by name is quick enough.
#[derive(Default)]
struct Text(Vec<(&'static str, String)>);

impl Text {
    /// Takes a field over, escaped and cut.
    fn keep(&mut self, name: &'static str, value: &dyn Display) {
        let mut text = String::new();
        let written = match name {
            // Its line ends have to last until `write_traceback`, which escapes line by line.
            TRACEBACK => write!(text, "{value}"),
            _ => bounded(&mut text, value),
        };
        debug_assert!(written.is_ok(), "a string takes what is written");
        self.0.push((name, text));
    }

    /// Takes a field out, so that what is left at the end is written as `name=value`.
    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(other, _)| *other == name)?;
        Some(self.0.remove(at).1)
    }

    /// The subject first, then the fragment: the same fields in the same order, whatever the order of the
    /// call.
    fn write(mut self, out: &mut dyn Write) -> Result {
        let traceback = self.take(TRACEBACK);
        let place = self.take("at");
        let [worker, agent, operation, reader, topic, partition, offset, last] = SUBJECT.map(|name| self.take(name));
        worker.iter().try_for_each(|number| write!(out, "worker {number}: "))?;
        for (name, value) in [("agent", agent), ("operation", operation), ("reader", reader)] {
            value.iter().try_for_each(|value| write!(out, "{name} \"{value}\": "))?;
        }
        if let Some(topic) = topic {
            write!(out, "{topic}")?;
            partition.iter().try_for_each(|partition| write!(out, "/{partition}"))?;
            offset.iter().try_for_each(|offset| write!(out, "@{offset}"))?;
            last.iter().try_for_each(|last| write!(out, "..{last}"))?;
            out.write_str(": ")?;
        }
        self.take("logger").iter().try_for_each(|logger| write!(out, "{logger}: "))?;
        out.write_str(&self.take("message").unwrap_or_default())?;
        for name in ["kind", "error", "cause"] {
            self.take(name).iter().try_for_each(|value| write!(out, ": {value}"))?;
        }
        self.0.iter().try_for_each(|(name, value)| write!(out, " {name}={value}"))?;
        place.iter().try_for_each(|place| write!(out, "  --> {place}"))?;
        traceback.map_or(Ok(()), |traceback| write_traceback(out, &traceback))
    }
}

/// Each line is escaped by itself and indented, so none can begin like a line of the log.
fn write_traceback(out: &mut dyn Write, traceback: &str) -> Result {
    let shown = cut_bytes(traceback, TRACEBACK_BYTES_MAX);
    // Splitting an empty text gives one empty line, which would stand in the log as a bare indent.
    for line in shown.trim_end().split('\n').filter(|_| !shown.is_empty()) {
        out.write_str(INDENT)?;
        bounded(out, &line)?;
    }
    match shown.len() == traceback.len() {
        true => Ok(()),
        false => write!(out, "{INDENT}… ({} bytes)", traceback.len()),
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // The fragment comes this way as well: its value is `format_args!`, whose Debug form is the text without
        // quotes.
        self.keep(field.name(), &format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep(field.name(), &value);
    }
}

/// Writes a text with control characters escaped, cut at [`SHOWN_BYTES_MAX`].
fn bounded(out: &mut dyn Write, value: &dyn Display) -> Result {
    let mut bounded = Bounded::new(out, SHOWN_BYTES_MAX);
    write!(bounded, "{value}")?;
    bounded.finish()
}

/// Events as JSON, one object a line. `worker`: as in [`TextFields`]. Keys are the names of the fields, with
/// `timestamp`, `level` and `worker` before them.
pub struct JsonLines {
    /// The worker's number.
    pub worker: Option<u32>,
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> Result {
        let mut fields = Json(begun(*event.metadata().level(), self.worker));
        event.record(&mut fields);
        writeln!(writer, "{}", Value::Object(fields.0))
    }
}

/// A line of the log as JSON that no log call writes: the final error, a summary, what the watchdog says.
/// Without a line end. The caller's fields win over those that every line has.
pub fn json_line(level: Level, worker: Option<u32>, fields: Map<String, Value>) -> String {
    let mut line = begun(level, worker);
    line.extend(fields);
    Value::Object(line).to_string()
}

/// The fields that every line has.
fn begun(level: Level, worker: Option<u32>) -> Map<String, Value> {
    let mut timestamp = String::new();
    // A clock that cannot be written leaves the time empty; the rest of the line is still worth having.
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    let mut line = Map::new();
    line.insert("timestamp".to_owned(), timestamp.into());
    line.insert("level".to_owned(), level.as_str().into());
    if let Some(worker) = worker {
        line.insert("worker".to_owned(), worker.into());
    }
    line
}

/// Fields as JSON. Texts are cut, and escaped by their form.
struct Json(Map<String, Value>);

impl Json {
    // JSON escapes control characters itself, so only the length is bounded here.
    fn text(&mut self, field: &Field, text: &str) {
        let max = if field.name() == TRACEBACK { TRACEBACK_BYTES_MAX } else { SHOWN_BYTES_MAX };
        let shown = cut_bytes(text, max);
        let text = match shown.len() == text.len() {
            true => text.to_owned(),
            false => format!("{shown}… ({} bytes)", text.len()),
        };
        self.0.insert(field.name().to_owned(), text.into());
    }
}

impl Visit for Json {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    // serde_json's numbers end at 64 bits; a larger one becomes text rather than another number.
    fn record_u128(&mut self, field: &Field, value: u128) {
        match u64::try_from(value) {
            Ok(value) => self.record_u64(field, value),
            Err(_) => self.text(field, &value.to_string()),
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{info, subscriber, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("nobody panicked").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Returns what the log holds after this is done.
    fn logged(is_json: bool, does: impl FnOnce()) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let log = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).with_target(false);
        match is_json {
            true => subscriber::with_default(log.event_format(JsonLines { worker: None }).finish(), does),
            false => subscriber::with_default(log.fmt_fields(TextFields { worker: Some(2) }).compact().finish(), does),
        }
        let bytes = kept.0.lock().expect("nobody panicked").clone();
        String::from_utf8(bytes).expect("it is text")
    }

    #[test]
    fn text_of_others_begins_no_line() {
        let evil = "x\n2026-01-01T00:00:00Z ERROR forged\r\u{1b}[2J";
        let does = || {
            info!(topic = %evil, key = evil, "it says {evil}");
            warn!(traceback = %format!("Traceback\n  line {evil}\nValueError: \n"), offset = 7, "failed");
        };
        let text = logged(false, does);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.iter().filter(|line| !line.starts_with("    ")).count(), 2, "{text}");
        let escaped = r"x\n2026-01-01T00:00:00Z ERROR forged\r\u{1b}[2J";
        assert!(lines[0].ends_with(&format!("worker 2: {escaped}: it says {escaped} key={escaped}")), "{text}");
        assert!(lines[1].ends_with("worker 2: failed") && lines[2] == "    Traceback", "{text}");
        let text = logged(true, does);
        assert_eq!(text.lines().count(), 2, "{text}");
        for line in text.lines() {
            let object: Value = serde_json::from_str(line).expect("a line is an object");
            assert!(object["timestamp"].is_string() && object["level"].is_string(), "{text}");
        }
    }

    #[test]
    fn a_line_begins_with_its_subject() {
        let does = || {
            let (agent, operation, at) = ("orders", "price", "shop.yaml:14");
            warn!(
                agent,
                operation,
                topic = "in",
                partition = 3,
                offset = 7,
                kind = "KeyError",
                error = "'x'",
                at,
                tries = 2,
                "failed"
            );
            info!(agent, logger = "urllib3", "connected");
            info!(topic = "in", "created");
            info!(topic = "in", partition = 0, offset = 60, last = 79, "failed");
        };
        let ends = [
            "agent \"orders\": operation \"price\": in/3@7: failed: KeyError: 'x' tries=2  --> shop.yaml:14",
            "agent \"orders\": urllib3: connected",
            "in: created",
            "in/0@60..79: failed",
        ];
        let text = logged(false, does);
        assert!(text.lines().zip(ends).all(|(line, end)| line.ends_with(&format!("worker 2: {end}"))), "{text}");
        let object: Value =
            serde_json::from_str(logged(true, does).lines().next().expect("a line")).expect("an object");
        assert_eq!((&object["partition"], &object["kind"]), (&3.into(), &"KeyError".into()));
    }

    #[test]
    fn long_texts_are_cut() {
        let long = "ü".repeat(100_000);
        for is_json in [false, true] {
            let text = logged(is_json, || warn!(traceback = %long, key = %long, "said {long}"));
            assert!(text.len() < 2 * SHOWN_BYTES_MAX + TRACEBACK_BYTES_MAX + 300, "{}", text.len());
            assert!(text.contains("… (200005 bytes)"), "{text}");
        }
    }
}
