//! Exceptions as faults: class, message, the innermost line of the user's code.

use std::rc::Rc;

use pyo3::prelude::*;
use pyo3::types::PyTraceback;

use super::runtime::Runtime;
use crate::code::{Fault, Trace};

/// An exception kept until someone wants to read its traceback.
struct Raised {
    error: Py<PyAny>,
    runtime: Rc<Runtime>,
}

impl Trace for Raised {
    fn text(&self) -> String {
        Python::attach(|py| {
            let text = self.runtime.text.bind(py).call1((self.error.bind(py),));
            text.and_then(|text| text.extract()).unwrap_or_else(|_| "the traceback cannot be printed".to_owned())
        })
    }
}

/// The fault of an exception, whatever its class.
pub fn fault(py: Python<'_>, error: &PyErr, runtime: &Rc<Runtime>) -> Fault {
    let value = error.value(py);
    let kind = value.get_type().name().map_or_else(|_| "Exception".to_owned(), |name| name.to_string());
    let message = value
        .str()
        .map_or_else(|_| "the exception cannot be printed".to_owned(), |text| text.to_string_lossy().into_owned());
    let at = error.traceback(py).and_then(|traceback| innermost(&traceback, runtime));
    // Taken as a value, the exception carries its traceback.
    let trace = Raised { error: error.clone_ref(py).into_value(py).into_any(), runtime: runtime.clone() };
    Fault { kind, message, at, trace: Some(Rc::new(trace)), passes: false, without_letter: false }
}

/// `file:line` of the innermost frame that stands in a spec.
fn innermost(traceback: &Bound<'_, PyTraceback>, runtime: &Runtime) -> Option<String> {
    let mut innermost = None;
    let mut next = Some(traceback.clone().into_any());
    while let Some(entry) = next {
        if let Some(at) = at(&entry, runtime) {
            innermost = Some(at);
        }
        next = entry.getattr("tb_next").ok().filter(|next| !next.is_none());
    }
    innermost
}

fn at(entry: &Bound<'_, PyAny>, runtime: &Runtime) -> Option<String> {
    let code = entry.getattr("tb_frame").ok()?.getattr("f_code").ok()?;
    let file: String = code.getattr("co_filename").ok()?.extract().ok()?;
    let line: u32 = entry.getattr("tb_lineno").ok()?.extract().ok()?;
    runtime.files.contains(&file).then(|| format!("{file}:{line}"))
}
