//! Writes the log: an event is one line, whatever text of others is in it.
//!
//! Architecture invariant: every text that goes to the log passes here. Control characters are
//! escaped, and a message or field is cut at [`SHOWN_BYTES_MAX`]; so whoever chooses an exception's text,
//! a topic or a key cannot begin a line that looks like one of ours. Only the field `traceback` has lines
//! of its own, which are indented: no other line begins with a space.

use std::fmt::{Debug, Display, Result, Write};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
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

/// Fields as text: the message, then `name=value`, then the traceback.
pub struct TextFields;

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> Result {
        let mut text = Text { out: &mut writer, traceback: String::new(), is_first: true, result: Ok(()) };
        fields.record(&mut text);
        let Text { traceback, result, .. } = text;
        result?;
        let shown = cut_bytes(&traceback, TRACEBACK_BYTES_MAX);
        for line in shown.trim_end().split('\n').filter(|_| !shown.is_empty()) {
            writer.write_str(INDENT)?;
            bounded(&mut writer, &line)?;
        }
        match shown.len() == traceback.len() {
            true => Ok(()),
            false => write!(writer, "{INDENT}… ({} bytes)", traceback.len()),
        }
    }
}

struct Text<'a> {
    out: &'a mut dyn Write,
    traceback: String,
    is_first: bool,
    result: Result,
}

impl Text<'_> {
    fn write(&mut self, name: &str, value: &dyn Display) -> Result {
        if name == TRACEBACK {
            return write!(self.traceback, "{value}");
        }
        if !std::mem::take(&mut self.is_first) {
            self.out.write_char(' ')?;
        }
        if name != "message" {
            write!(self.out, "{name}=")?;
        }
        bounded(self.out, value)
    }
}

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if self.result.is_ok() {
            self.result = self.write(field.name(), &format_args!("{value:?}"));
        }
    }
}

fn bounded(out: &mut dyn Write, value: &dyn Display) -> Result {
    let mut bounded = Bounded::new(out, SHOWN_BYTES_MAX);
    write!(bounded, "{value}")?;
    bounded.finish()
}

/// Events as JSON, one object a line.
pub struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut fields = Json(Map::new());
        fields.0.insert("timestamp".to_owned(), timestamp.into());
        fields.0.insert("level".to_owned(), event.metadata().level().as_str().into());
        event.record(&mut fields);
        writeln!(writer, "{}", Value::Object(fields.0))
    }
}

/// Fields as JSON. Texts are cut, and escaped by their form.
struct Json(Map<String, Value>);

impl Json {
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

    /// The log's words on what is done.
    fn logged(is_json: bool, does: impl FnOnce()) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let log = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).with_target(false);
        match is_json {
            true => subscriber::with_default(log.event_format(JsonLines).finish(), does),
            false => subscriber::with_default(log.fmt_fields(TextFields).compact().finish(), does),
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
        assert!(lines[0].contains(r"it says x\n2026-01-01T00:00:00Z ERROR forged\r\u{1b}[2J topic=x\n2026"), "{text}");
        assert!(lines[1].ends_with("failed offset=7") && lines[2] == "    Traceback", "{text}");
        let text = logged(true, does);
        assert_eq!(text.lines().count(), 2, "{text}");
        for line in text.lines() {
            let object: Value = serde_json::from_str(line).expect("a line is an object");
            assert!(object["timestamp"].is_string() && object["level"].is_string(), "{text}");
        }
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
