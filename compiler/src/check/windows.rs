//! Windows of tables: keys that live for a while.
//!
//! Checked in full although the executor does not support them yet: a spec with a window is refused (K0601) once its
//! window makes sense, so that there is one thing to mend at a time and no second round later.

use kaspr_ir::plan::{FunctionId, RelativeTo, TableWindow};

use super::Checker;
use super::blocks::{Call, Purpose, Scope};
use crate::ast::{self, Text};
use crate::diagnostics::{Code, Diagnostic};

// The event's time, the worker's clock, the result of relativeToSelector.
const TIMES: [&str; 3] = ["stream", "now", "custom"];

impl Checker<'_> {
    /// The window of a table; `None` where it is faulty.
    ///
    /// Exactly one of tumbling and hopping (K0307); a tumbling window is a hopping one whose step is its size.
    ///
    /// ```text
    /// hopping: {size: 10s, step: 5s, expires: 1h}   ⇒   size_ms 10000, step_ms 5000, expires_ms 3600000
    /// tumbling: {size: 30}                          ⇒   size_ms 30000, step_ms 30000
    /// ```
    pub(super) fn window(&mut self, owner: &str, window: &ast::Window) -> Option<TableWindow> {
        let selector = window.selector.as_ref().and_then(|code| {
            let scope = Scope { owner: owner.to_owned(), init: None };
            let call = Call::new("relativeToSelector".to_owned(), Purpose::Selector("relativeToSelector"));
            self.call(&scope, code, &call)
        });
        let relative_to = self.relative_to(window, selector);
        let (name, frame) = match (&window.tumbling, &window.hopping) {
            (Some(frame), None) => ("tumbling", frame),
            (None, Some(frame)) => ("hopping", frame),
            (None, None) if self.is_faulty(&window.at, &["tumbling", "hopping"]) => return None,
            (both, _) => {
                let count = if both.is_some() { "both tumbling and hopping" } else { "neither tumbling nor hopping" };
                let message = format!("the window is {count}");
                let hint = "tumbling: {size}, one window after the other; hopping: {size, step}, windows that overlap";
                self.fault(Diagnostic::new(Code::K0307, message, window.at.head()).hint(hint));
                return None;
            }
        };
        let size = self.required(&frame.size, &format!("window.{name}.size"), &frame.at).cloned();
        let step = match name {
            "hopping" => self.required(&frame.step, "window.hopping.step", &frame.at).cloned(),
            _ => None,
        };
        let size_ms = size.as_ref().and_then(|size| self.seconds(size));
        let step_ms = step.as_ref().and_then(|step| self.seconds(step));
        let expires_ms = frame.expires.as_ref().and_then(|expires| self.seconds(expires));
        // Not before: all durations are parsed, so that all faulty ones are reported.
        let size_ms = size_ms?;
        Some(TableWindow {
            size_ms,
            step_ms: if step.is_some() { step_ms? } else { size_ms },
            expires_ms,
            relative_to: relative_to?,
        })
    }

    /// Finds the time that decides; the event's where nothing is written.
    ///
    /// A selector without `custom`, and `custom` without a selector, are K0308.
    ///
    /// ```text
    /// nothing, stream      Stream: the event's timestamp
    /// now                  Now: the worker's clock
    /// custom + selector    Custom: what the function returns for the value
    /// ```
    fn relative_to(&mut self, window: &ast::Window, selector: Option<FunctionId>) -> Option<RelativeTo> {
        let written = window.relative_to.as_ref();
        let fault = |message: String, at| Diagnostic::new(Code::K0308, message, at);
        match (written.map_or("stream", |written| written.value.as_str()), &window.selector) {
            ("stream", None) => Some(RelativeTo::Stream),
            ("now", None) => Some(RelativeTo::Now),
            ("custom", Some(_)) => selector.map(RelativeTo::Custom),
            ("custom", None) => {
                let at = written.map_or_else(|| window.at.head(), |written| written.at.clone());
                let hint = "relativeToSelector: a function that returns the time of a value, in seconds";
                self.fault(
                    fault("\"relativeTo\" is custom and there is no relativeToSelector".to_owned(), at).hint(hint),
                );
                None
            }
            ("stream" | "now", Some(code)) => {
                let message = "\"relativeToSelector\" counts only with relativeTo: custom";
                self.fault(fault(message.to_owned(), code.at.head()));
                None
            }
            (other, _) => {
                let at = written.map_or_else(|| window.at.head(), |written| written.at.clone());
                let message = format!("\"relativeTo\" must be one of {}, found \"{other}\"", TIMES.join(", "));
                self.fault(fault(message, at).near(other, TIMES));
                None
            }
        }
    }

    /// A duration as text with a unit, or as a number of seconds.
    ///
    /// In ms. `1e12` seconds bound it, far from what 64 bits of ms hold.
    fn seconds(&mut self, text: &Text) -> Option<u64> {
        match text.value.parse::<f64>() {
            Ok(seconds) if (0.0..1e12).contains(&seconds) => Some((seconds * 1000.0).round() as u64),
            _ => self.duration(text),
        }
    }
}
