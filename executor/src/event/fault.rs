//! Faults: the reasons for which an event could not be processed, before a policy decides what happens to it.

use std::rc::Rc;
use std::time::Duration;

use kaspr_ir::plan::Codec;

/// Bytes that are shown of a key or value which cannot be read.
const FIRST_BYTES: usize = 32;

/// The reason for which user code or a codec could not do its part of an event. It becomes a failure, never a
/// panic.
///
/// As small as a pointer: every step of an event returns one perhaps, and hardly any does.
#[derive(Clone)]
pub struct Fault(Box<Parts>);

/// The parts of a fault.
#[derive(Clone)]
pub struct Parts {
    /// The exception's class, or one of the kinds of the failure record.
    pub kind: String,
    /// The exception's message.
    pub message: String,
    /// `file:line` of the innermost line of the user's code.
    pub at: Option<String>,
    /// The whole traceback, written only if it is read.
    pub trace: Option<Rc<dyn Trace>>,
    /// True if the outside world did not answer: the event waits and runs again, however often, and no policy
    /// is asked.
    pub passes: bool,
    /// True if the broker refused the event's dead letter: then the failure is only recorded.
    pub without_dead_letter: bool,
}

impl Fault {
    /// A fault with these parts.
    pub fn of(parts: Parts) -> Fault {
        Fault(Box::new(parts))
    }

    /// A fault that no line of user code raised.
    pub fn new(kind: &str, message: impl Into<String>) -> Fault {
        let (kind, message) = (kind.to_owned(), message.into());
        Fault::of(Parts { kind, message, at: None, trace: None, passes: false, without_dead_letter: false })
    }

    /// The same fault, of an event's key or value that its codec cannot read: with the first bytes, at the line
    /// of the serializer.
    pub fn of_bytes(mut self, (what, codec): (&str, &Codec), bytes: Option<&[u8]>, at: &Option<String>) -> Fault {
        // Any other kind is an exception of user code, whose own message says more.
        if self.kind != "Decode" {
            return self;
        }
        let bytes = bytes.unwrap_or_default();
        let first = bytes[..bytes.len().min(FIRST_BYTES)].escape_ascii();
        let more = if bytes.len() > FIRST_BYTES { "…" } else { "" };
        self.message = format!("the {what} b\"{first}{more}\" cannot be read as {codec}: {}", self.message);
        // Its own line is nearer to the cause than the serializer's.
        if self.at.is_none() {
            self.at.clone_from(at);
        }
        self
    }

    /// A reason that stands in the way of an event and will pass.
    pub fn passing(message: impl Into<String>) -> Fault {
        let mut fault = Fault::new("Wait", message);
        fault.passes = true;
        fault
    }

    /// The fault of a call that took longer than it may.
    pub fn timeout(limit: Duration) -> Fault {
        Fault::new("Timeout", format!("the call took longer than {limit:?}"))
    }
}

impl std::ops::Deref for Fault {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl std::ops::DerefMut for Fault {
    fn deref_mut(&mut self) -> &mut Parts {
        &mut self.0
    }
}

impl std::fmt::Debug for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} ({})", self.kind, self.message, self.at.as_deref().unwrap_or("-"))
    }
}

/// A traceback that is written only when it is read.
pub trait Trace {
    /// The text, as the language prints it.
    fn text(&self) -> String;
}
