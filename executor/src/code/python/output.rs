//! Turns what user code prints and logs, on any thread, into lines of the log that bear the agent's name.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyString;
use tracing::field::display;
use tracing::{error, info, warn};

use super::home::calm;
use super::runtime::Runtime;
use crate::event::shown::{SHOWN_BYTES_MAX, cut_bytes};

const SOURCE: &str = include_str!("output.py");

/// Bytes of the pieces in which a long print goes to the log: a line of the log holds no more.
const PRINTED_BYTES_MAX: usize = SHOWN_BYTES_MAX - 256;

/// Sends `print` and `logging` to the log from here on, under the agent's name. Gives the function that
/// writes lines which are not ended yet.
pub fn take_output(py: Python<'_>, runtime: &Arc<Runtime>) -> PyResult<Py<PyAny>> {
    let source = std::ffi::CString::new(SOURCE).expect("the source holds no NUL");
    let module = PyModule::from_code(py, &source, c"<kaspr>", c"kaspr_output")?;
    let log = Py::new(py, Output { runtime: runtime.clone() })?;
    Ok(module.getattr("take_output")?.call1((log,))?.unbind())
}

/// The text of a `str`. Surrogates, which no text of UTF-8 holds, are escaped as `\udXXX`.
pub fn text(text: &Bound<'_, PyString>) -> String {
    if let Ok(text) = text.to_str() {
        return text.to_owned();
    }
    let bytes = text.call_method1("encode", ("utf-8", "backslashreplace"));
    match bytes.and_then(|bytes| bytes.extract::<Vec<u8>>()) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => text.to_string_lossy().into_owned(),
    }
}

#[pyclass(frozen, module = "kaspr")]
struct Output {
    runtime: Arc<Runtime>,
}

#[pymethods]
impl Output {
    /// The number of the agent whose code runs here.
    fn agent(&self, py: Python<'_>) -> Option<u32> {
        self.runtime.agent(py).map(|agent| agent.0)
    }

    /// A line that was printed, by this agent if one is named.
    fn line(&self, py: Python<'_>, agent: Option<u32>, line: &Bound<'_, PyString>) -> PyResult<()> {
        calm(|| {
            let agent = match agent.and_then(|agent| self.runtime.agents.get(agent as usize)) {
                Some(agent) => agent,
                None => self.runtime.agent_name(py),
            };
            let whole = text(line);
            let (mut line, mut is_first) = (whole.as_str(), true);
            // An empty print is a line of the log as well, so the first piece is written whatever is in it.
            while is_first || !line.is_empty() {
                let piece = cut_bytes(line, PRINTED_BYTES_MAX);
                info!(agent, "{piece}");
                (line, is_first) = (&line[piece.len()..], false);
            }
            Ok(())
        })
    }

    /// A record of `logging`.
    fn record(
        &self,
        py: Python<'_>,
        level: i32,
        name: &Bound<'_, PyString>,
        line: &Bound<'_, PyString>,
    ) -> PyResult<()> {
        calm(|| {
            let (agent, name, whole) = (self.runtime.agent_name(py), text(name), text(line));
            let (line, rest) =
                // `logging` puts the traceback behind the message, in one text; only the field `traceback` may have
                // lines.
                whole.split_once('\n').map_or((&*whole, None), |(line, rest)| (line, Some(display(rest))));
            match level {
                40.. => error!(agent, logger = name, traceback = rest, "{line}"),
                30..40 => warn!(agent, logger = name, traceback = rest, "{line}"),
                _ => info!(agent, logger = name, traceback = rest, "{line}"),
            }
            Ok(())
        })
    }
}
