//! Exceptions as faults: class, message, the innermost line of the user's code.

use std::rc::Rc;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyString, PyTraceback};

use super::output;

use super::runtime::Runtime;
use crate::code::{Fault, Trace};
use crate::event::fault::Parts;

/// An exception, kept until its traceback is read.
struct Raised {
    error: Py<PyAny>,
    runtime: Arc<Runtime>,
}

impl Trace for Raised {
    fn text(&self) -> String {
        Python::attach(|py| {
            let text = self.runtime.text.bind(py).call1((self.error.bind(py),));
            let text = text.as_ref().ok().and_then(|text| text.cast::<PyString>().ok());
            text.map_or_else(|| "the traceback cannot be printed".to_owned(), output::text)
        })
    }
}

/// Makes an exception of any class a fault.
pub fn fault(py: Python<'_>, error: &PyErr, runtime: &Arc<Runtime>) -> Fault {
    let value = error.value(py);
    let kind = value.get_type().name().map_or_else(|_| "Exception".to_owned(), |name| name.to_string());
    let message = value.str().map_or_else(|_| "the exception cannot be printed".to_owned(), |text| output::text(&text));
    let at = error.traceback(py).and_then(|traceback| innermost(&traceback, runtime));
    // Converted to a value, the exception carries its traceback.
    let trace = Raised { error: error.clone_ref(py).into_value(py).into_any(), runtime: runtime.clone() };
    Fault::of(Parts { kind, message, at, trace: Some(Rc::new(trace)), passes: false, without_dead_letter: false })
}

/// The place of the innermost frame that stands in a spec.
fn innermost(traceback: &Bound<'_, PyTraceback>, runtime: &Runtime) -> Option<String> {
    let (mut innermost, mut next) = (None, Some(traceback.clone().into_any()));
    // A function that calls itself may stand here a hundred thousand times in a row: its file is looked up
    // once.
    let mut last: Option<(Bound<'_, PyAny>, bool)> = None;
    while let Some(entry) = next {
        let code = entry.getattr("tb_frame").and_then(|frame| frame.getattr("f_code")).ok()?;
        let is_ours = match &last {
            Some((same, is_ours)) if same.is(&code) => *is_ours,
            _ => file(&code).is_some_and(|file| runtime.lines.has(&file)),
        };
        last = Some((code, is_ours));
        if is_ours {
            innermost = Some(entry.clone());
        }
        next = entry.getattr("tb_next").ok().filter(|next| !next.is_none());
    }
    let entry = innermost?;
    let line: u32 = entry.getattr("tb_lineno").ok()?.extract().ok()?;
    let code = entry.getattr("tb_frame").ok()?.getattr("f_code").ok()?;
    Some(runtime.lines.place(&file(&code)?, line))
}

fn file(code: &Bound<'_, PyAny>) -> Option<String> {
    code.getattr("co_filename").ok()?.extract().ok()
}
