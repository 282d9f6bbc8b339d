//! Faults: why an event could not be processed, before a policy decides what becomes of it.

use std::rc::Rc;
use std::time::Duration;

/// Why user code or a codec could not do its part of an event. It becomes a failure, never a panic.
#[derive(Clone)]
pub struct Fault {
    /// The exception's class, or one of the kinds of the failure record.
    pub kind: String,
    /// What the exception says.
    pub message: String,
    /// `file:line` of the innermost line of the user's code.
    pub at: Option<String>,
    /// The whole traceback, made when someone wants to read it.
    pub trace: Option<Rc<dyn Trace>>,
    /// Nobody's fault: the outside world did not answer. The event waits and runs again, however
    /// often, and no policy is asked.
    pub passes: bool,
    /// A dead letter that told of it was refused: it is only recorded.
    pub without_letter: bool,
}

impl Fault {
    /// A fault that no line of user code raised.
    pub fn new(kind: &str, message: impl Into<String>) -> Fault {
        let (kind, message) = (kind.to_owned(), message.into());
        Fault { kind, message, at: None, trace: None, passes: false, without_letter: false }
    }

    /// What stands in the way of an event and will pass.
    pub fn passing(message: impl Into<String>) -> Fault {
        Fault { passes: true, ..Fault::new("Wait", message) }
    }

    /// The fault of a call that took longer than it may.
    pub fn timeout(limit: Duration) -> Fault {
        Fault::new("Timeout", format!("the call took longer than {limit:?}"))
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
