//! Steps of an event's awaitable: each is marked and timed as a call of its event.
//!
//! The event loop runs coroutines of several events in turn. The next process, which reads the mark, and the
//! alarm thread must find the one that runs now, so every step notes its event.

use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;

use super::call::late;
use super::home::calm;
use super::runtime::Runtime;
use crate::guard::Doing;

/// An awaitable whose steps are watched.
#[pyclass(frozen, module = "kaspr")]
pub struct Step {
    iterator: Py<PyAny>,
    runtime: Arc<Runtime>,
    limit: Duration,
    /// The unit and call as they were when the awaitable was made.
    doing: Option<Doing>,
}

impl Step {
    /// Wraps an awaitable of the call that runs now.
    pub fn of<'py>(
        awaitable: &Bound<'py, PyAny>,
        runtime: &Arc<Runtime>,
        limit: Duration,
    ) -> PyResult<Bound<'py, Step>> {
        let iterator = awaitable.call_method0("__await__")?.unbind();
        let doing = runtime.alarm.watch.doing();
        Bound::new(awaitable.py(), Step { iterator, runtime: runtime.clone(), limit, doing })
    }

    fn watched<'py>(
        &self,
        py: Python<'py>,
        run: impl FnOnce(&Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let run = || calm(|| run(self.iterator.bind(py)));
        let Some(doing) = &self.doing else { return run() };
        let alarm = &self.runtime.alarm;
        let outer = alarm.watch.enter(doing);
        let ran = run();
        match alarm.leave(py, outer) {
            None => ran,
            // The call fails whatever it gave; if the exception arrived, it knows the line.
            Some(why) => Err(self.late(py, ran, &late(why, self.limit).message)),
        }
    }

    fn late(&self, py: Python<'_>, ran: PyResult<Bound<'_, PyAny>>, message: &str) -> PyErr {
        let timeout = self.runtime.timeout.bind(py);
        if let Err(raised) = &ran
            && raised.matches(py, timeout).unwrap_or(false)
            && raised.value(py).setattr("args", (message,)).is_ok()
        {
            return raised.clone_ref(py);
        }
        timeout.call1((message,)).map_or_else(|error| error, PyErr::from_value)
    }
}

#[pymethods]
impl Step {
    fn __await__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.watched(py, |iterator| iterator.call_method0("__next__"))
    }

    fn send<'py>(&self, py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.watched(py, |iterator| iterator.call_method1("send", (value,)))
    }

    #[pyo3(signature = (*raised))]
    fn throw<'py>(&self, py: Python<'py>, raised: &Bound<'py, pyo3::types::PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        self.watched(py, |iterator| match iterator.getattr_opt("throw")? {
            Some(throw) => throw.call1(raised),
            // An iterator that takes no exceptions ends with them.
            None => {
                let raised = raised.get_item(0)?;
                let is_class = raised.is_instance_of::<pyo3::types::PyType>();
                Err(PyErr::from_value(if is_class { raised.call0()? } else { raised }))
            }
        })
    }

    fn close<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.watched(py, |iterator| match iterator.getattr_opt("close")? {
            Some(close) => close.call0(),
            None => Ok(py.None().into_bound(py)),
        })
    }
}
