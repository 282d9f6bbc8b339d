//! A rehearsal: user code as a test of the user's runs it, with simulated time for its event loop, and functions
//! that are replaced.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyModule};

use super::runtime::Runtime;
use crate::clock::{Clock, SimulatedClock};

const SOURCE: &str = include_str!("rehearsal.py");

/// The parts of the world that a test holds in its hand.
#[derive(Clone, Debug, Default)]
pub struct Rehearsal {
    /// The time by which the event loop goes.
    pub clock: SimulatedClock,
    /// Outcomes of functions, as JSON: by the function's name, or by block and name.
    pub mocks: BTreeMap<String, String>,
}

/// The things that the event loop waits for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pending {
    /// It has something to do now.
    pub is_ready: bool,
    /// A call on another thread has to come back.
    pub in_threads: bool,
    /// A file or socket is watched.
    pub has_files: bool,
    /// Time until its next timer is due.
    pub due: Option<Duration>,
}

impl Pending {
    pub(super) fn of(py: Python<'_>, runtime: &Runtime) -> PyResult<Pending> {
        let pending = runtime.pending.bind(py).call0()?;
        let (is_ready, in_threads, has_files, due) = pending.extract::<(bool, bool, bool, Option<f64>)>()?;
        // A timer may be set for a time that no duration holds.
        let due = due.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
        Ok(Pending { is_ready, in_threads, has_files, due })
    }
}

/// Functions that are replaced.
pub(super) struct Mocks(Py<PyAny>);

impl Mocks {
    pub(super) fn new(py: Python<'_>, outcomes: &BTreeMap<String, String>) -> PyResult<Mocks> {
        let source = CString::new(SOURCE).expect("the source holds no NUL");
        let module = PyModule::from_code(py, &source, c"<kaspr>", c"kaspr_rehearsal")?;
        Ok(Mocks(module.getattr("Mocks")?.call1((outcomes.clone(),))?.unbind()))
    }

    /// Replaces functions of a block that has run.
    pub(super) fn put(&self, block: &str, names: &Bound<'_, PyDict>) -> PyResult<()> {
        self.0.bind(names.py()).call_method1("put", (block, names)).map(drop)
    }

    /// Mocks that replace nothing, or raise an exception that does not exist: each with the error.
    pub(super) fn faults(&self, py: Python<'_>) -> PyResult<Vec<(String, PyErr)>> {
        let faults = self.0.bind(py).call_method0("faults")?;
        let fault = |fault: PyResult<Bound<'_, PyAny>>| {
            let (key, error) = fault?.extract::<(String, Bound<'_, PyAny>)>()?;
            Ok((key, PyErr::from_value(error)))
        };
        faults.try_iter()?.map(fault).collect()
    }
}

/// Has the event loop go by this clock.
pub(super) fn simulate(py: Python<'_>, runtime: &Runtime, clock: &SimulatedClock) -> PyResult<()> {
    let clock = clock.clone();
    let seconds = PyCFunction::new_closure(py, None, None, move |_, _| clock.now().as_secs_f64())?;
    runtime.simulate.bind(py).call1((seconds,)).map(drop)
}
