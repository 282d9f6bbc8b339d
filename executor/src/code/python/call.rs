//! Calls of user code: plain, with tables, and the steps of generators.

use std::time::Duration;

use kaspr_ir::plan::FunctionId;
use pyo3::exceptions::PyStopIteration;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use super::value::Value;
use super::{Keywords, PythonCode};
use crate::code::{Called, Code, Fault, With};
use crate::config::CALL_MAX;
use crate::guard::Rang;

impl PythonCode {
    pub(super) fn called(
        &mut self,
        py: Python<'_>,
        function: FunctionId,
        value: &Value,
        with: With<'_, Value>,
    ) -> Called<Value> {
        let result = if with.tables.is_empty() {
            let callable = &self.functions[function.index()];
            let needs_event = callable.needs_event;
            if needs_event {
                self.enter(with);
            }
            let result = callable.function.bind(py).call1((&value.object,));
            if needs_event {
                self.leave();
            }
            result
        } else {
            self.call_with_tables(py, function, value, with)
        };
        match result {
            Ok(result) => self.judge(py, result, value, with),
            Err(error) => Called::Failed(self.fault(py, &error)),
        }
    }

    pub(super) fn stepped(&mut self, py: Python<'_>, values: &Value, with: With<'_, Value>) -> Called<Value> {
        let object = values.object.bind(py);
        self.runtime.set_agent(Some(with.agent));
        self.enter(with);
        let step = if object.get_type_ptr() == &raw mut ffi::PyAsyncGen_Type {
            object.call_method0("__anext__").map(|step| (step, true))
        } else {
            object.call_method0("__next__").map(|step| (step, false))
        };
        self.leave();
        match step {
            Ok((step, true)) => self.begin(py, &step, values, with, true),
            Ok((step, false)) => Called::Value(step.into()),
            Err(error) if error.is_instance_of::<PyStopIteration>(py) => Called::End,
            Err(error) => Called::Failed(self.fault(py, &error)),
        }
    }

    pub(super) fn released(&mut self, py: Python<'_>, values: &Value, with: With<'_, Value>) -> Called<Value> {
        let object = values.object.bind(py);
        let is_async = object.get_type_ptr() == &raw mut ffi::PyAsyncGen_Type;
        self.runtime.set_agent(Some(with.agent));
        self.enter(with);
        let closed = object.call_method0(if is_async { "aclose" } else { "close" });
        self.leave();
        match closed {
            Ok(closing) if is_async => self.begin(py, &closing, values, with, true),
            Ok(_) => Called::End,
            Err(error) => Called::Failed(self.fault(py, &error)),
        }
    }

    /// The result of a call, unless it took longer than it may: then it is a failure, whatever the call gave.
    pub(super) fn in_time(&mut self, py: Python<'_>, called: Called<Value>, with: With<'_, Value>) -> Called<Value> {
        let mut fault = match self.runtime.alarm.disarm(py) {
            None => return called,
            Some(why) => late(why, with.limit),
        };
        match called {
            Called::Failed(mut raised) => (fault.at, fault.trace) = (raised.at.take(), raised.trace.take()),
            Called::Pending(ticket) => self.cancel(ticket),
            _ => {}
        }
        Called::Failed(fault)
    }

    /// Tables by keyword for a function: the same at every call.
    fn keywords(&mut self, py: Python<'_>, function: FunctionId, with: With<'_, Value>) -> PyResult<&Keywords> {
        let callable = &mut self.functions[function.index()];
        if callable.tables.is_none() {
            // Interned, as the parameters' names are: CPython then finds them by their addresses.
            let names = with.tables.iter().map(|table| PyString::intern(py, &table.parameter));
            let values = with.tables.iter().map(|table| self.tables[table.table.index()].clone_ref(py).into_any());
            callable.tables = Some(Keywords { names: PyTuple::new(py, names)?.unbind(), values: values.collect() });
        }
        Ok(callable.tables.as_ref().expect("it was just made"))
    }

    fn call_with_tables<'py>(
        &mut self,
        py: Python<'py>,
        function: FunctionId,
        value: &Value,
        with: With<'_, Value>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let keywords = self.keywords(py, function, with)?;
        let tables = keywords.values.iter().map(Py::as_ptr);
        let arguments: Vec<_> = std::iter::once(value.object.as_ptr()).chain(tables).collect();
        let names = keywords.names.as_ptr();
        let callable = self.functions[function.index()].function.as_ptr();
        self.enter(with);
        // SAFETY: the function, its arguments and their names are alive, there is a name for each argument but the
        // first, and this thread is attached. A new reference or an exception comes back.
        let result = unsafe {
            Bound::from_owned_ptr_or_err(py, ffi::PyObject_Vectorcall(callable, arguments.as_ptr(), 1, names))
        };
        self.leave();
        result
    }
}

/// The fault of a call for which the alarm has rung.
pub(super) fn late(why: Rang, limit: Duration) -> Fault {
    match why {
        Rang::Call => Fault::timeout(limit),
        Rang::Event => Fault::new("Timeout", format!("the calls of the event took longer than {CALL_MAX:?} together")),
    }
}
