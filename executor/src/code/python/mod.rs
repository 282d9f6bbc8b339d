//! Python as the user's code: CPython in the worker's own process.
//!
//! The worker's thread is attached once, for its life. Functions and keyword dicts are resolved at
//! the start, so that an event costs its calls and nothing else.
//!
//! Architecture invariant: only this folder names pyo3.

mod alarm;
mod call;
mod codec;
mod entry;
mod fault;
mod home;
mod interpreter;
pub mod json;
mod lines;
mod load;
mod output;
mod prepare;
mod rehearsal;
mod runtime;
mod step;
mod table;
mod value;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use kaspr_ir::plan::{Codec, FunctionId, Plan, ReaderId};
use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use tracing::{error, warn};

use crate::broker::directory::Directory;
use crate::clock::Clock;
use crate::code::{Called, Code, Encoded, Fault, Ticket, With};
use crate::config::CALL_MAX;
use crate::event::message::{Header, TopicName};
use crate::guard::{NO_CALL, Watch};
use crate::tables::Tables;
pub use interpreter::{Interpreter, exit, prefix, signalled, version};
use json::{Decoder, Pick, Rest};
pub use load::LoadError;
use load::{Life, Loader, internal};
use prepare::{Prepared, end};
use rehearsal::Mocks;
pub use rehearsal::{Pending, Rehearsal};
use runtime::{Now, Running, Runtime};
use step::Step;
use table::TableView;
use value::Value;

/// The inputs from which a worker's Python is loaded.
pub struct Loading<'a> {
    /// The plan with the blocks.
    pub plan: &'a Plan,
    /// The tables that user code sees.
    pub tables: Rc<RefCell<Tables>>,
    /// Topics that `send` may write.
    pub directory: Directory,
    /// Stamps what `send` stages.
    pub clock: Rc<dyn Clock>,
    /// The app's settings, for `context["app"].conf`.
    pub settings: BTreeMap<String, String>,
    /// The longest time of one call where the spec writes none.
    pub timeout: Duration,
    /// Shows other threads what runs.
    pub watch: Arc<Watch>,
    /// Replaces parts of the world, in tests of users.
    pub rehearsal: Option<Rehearsal>,
}

/// A function, and what its calls need.
struct Callable {
    function: Py<PyAny>,
    /// It may look at the event that runs.
    needs_event: bool,
    /// Tables by keyword, made at its first call.
    tables: Option<Keywords>,
}

/// The arguments behind a value: the same objects at every call.
struct Keywords {
    names: Py<PyTuple>,
    values: Vec<Py<PyAny>>,
}

/// The task that a ticket waits for.
struct Waiting {
    task: Py<PyAny>,
    /// The value that the function was given.
    given: Value,
    /// It is the next value of an async generator.
    is_step: bool,
}

/// The user's Python.
pub struct PythonCode {
    runtime: Arc<Runtime>,
    /// The event whose plain function runs now.
    now: Rc<Now>,
    /// Init functions that run on at the end.
    lives: Vec<Life>,
    /// Writes what is printed and not ended by a line end.
    end_lines: Py<PyAny>,
    functions: Vec<Callable>,
    tables: Vec<Py<TableView>>,
    decoder: Decoder,
    /// The fields that each reader decodes of its values; `None`: all.
    picks: Vec<Option<Pick>>,
    /// The rest of the last value that was decoded in part: its room is used again.
    rest: Rc<Rest>,
    waiting: BTreeMap<Ticket, Waiting>,
    tickets: u64,
}

impl PythonCode {
    /// Runs all blocks and init functions.
    pub fn load(py: Python<'_>, loading: Loading<'_>) -> Result<PythonCode, LoadError> {
        let plan = loading.plan;
        let prepared = Prepared::new(py, &loading).map_err(|error| internal(py, &error))?;
        let lives = RefCell::default();
        let context = prepared.context.bind(py).clone();
        let mocks = loading.rehearsal.as_ref().map(|rehearsal| Mocks::new(py, &rehearsal.mocks)).transpose();
        let loader = Loader {
            py,
            plan,
            runtime: &prepared.runtime,
            context,
            modules: RefCell::default(),
            mocks: mocks.map_err(|error| internal(py, &error))?,
            lives: &lives,
        };
        let functions = loader.functions().and_then(|functions| {
            loader.check_mocks()?;
            let defaults = loader.defaults(&functions)?;
            Ok((functions, defaults))
        });
        match functions {
            Ok((functions, defaults)) => {
                PythonCode::assemble(py, plan, prepared, functions, defaults, lives.into_inner())
                    .map_err(|error| internal(py, &error))
            }
            Err(error) => {
                // Generators and tasks that have started already are ended.
                end(py, &prepared.runtime, &lives.into_inner(), &prepared.end_lines);
                prepared.runtime.alarm.stop();
                Err(error)
            }
        }
    }

    fn assemble(
        py: Python<'_>,
        plan: &Plan,
        prepared: Prepared,
        functions: Vec<Py<PyAny>>,
        defaults: Vec<Option<Py<PyAny>>>,
        lives: Vec<Life>,
    ) -> PyResult<PythonCode> {
        let Prepared { runtime, now, tables, end_lines, .. } = prepared;
        for (default, view) in defaults.into_iter().zip(&tables) {
            if let Some(default) = default {
                // No other code sets it.
                let _ = view.get().default.set(default);
            }
        }
        let functions = plan.functions.iter().zip(functions);
        let functions = functions.map(|(planned, function)| Callable {
            function,
            needs_event: planned.reads_context,
            tables: None,
        });
        Ok(PythonCode {
            runtime,
            now,
            lives,
            end_lines,
            functions: functions.collect(),
            tables,
            decoder: Decoder::new(py)?,
            picks: plan.readers.iter().map(|reader| Pick::new(py, reader.part.as_ref()?)).collect(),
            rest: Rc::default(),
            waiting: BTreeMap::new(),
            tickets: 0,
        })
    }

    /// The things that its event loop waits for.
    pub fn pending(&self) -> Pending {
        Python::attach(|py| Pending::of(py, &self.runtime)).unwrap_or_default()
    }

    /// Runs the end of user code, and ends what still runs: the process is about to end.
    pub fn close(&mut self) {
        Python::attach(|py| {
            self.runtime.alarm.arm(NO_CALL as usize);
            // Armed like a call: user code may hang in its end, too.
            end(py, &self.runtime, &std::mem::take(&mut self.lives), &self.end_lines);
            self.runtime.alarm.disarm(py);
        });
    }

    fn fault(&self, py: Python<'_>, error: &PyErr) -> Fault {
        fault::fault(py, error, &self.runtime)
    }

    /// Decides what an object that a call returned means.
    fn judge(
        &mut self,
        py: Python<'_>,
        result: Bound<'_, PyAny>,
        given: &Value,
        with: With<'_, Value>,
    ) -> Called<Value> {
        match kind(&result) {
            Kind::Value => Called::Value(Value::returned(result, given)),
            Kind::Values => Called::Values(result.into()),
            Kind::Awaitable => self.begin(py, &result, given, with, false),
        }
    }

    /// Starts an awaitable; most are finished before they wait for anything.
    fn begin(
        &mut self,
        py: Python<'_>,
        awaitable: &Bound<'_, PyAny>,
        given: &Value,
        with: With<'_, Value>,
        is_step: bool,
    ) -> Called<Value> {
        // The task carries its event in a context variable: when it resumes, another event may run.
        let entry = Py::new(py, self.runtime.entry_of(Running::of(with)));
        let task = entry.and_then(|entry| {
            let step = Step::of(awaitable, &self.runtime, with.limit)?;
            self.runtime.start.bind(py).call1((step, entry))
        });
        let task = match task {
            Ok(task) => task,
            Err(error) => return Called::Failed(self.fault(py, &error)),
        };
        // Most coroutines are done after their first turn of the loop, and need no ticket.
        match self.finished(py, &task, given, is_step) {
            Some(called) => called,
            None => {
                self.tickets += 1;
                let ticket = Ticket(self.tickets);
                self.waiting.insert(ticket, Waiting { task: task.unbind(), given: given.clone(), is_step });
                Called::Pending(ticket)
            }
        }
    }

    /// The result of a task, if it is done.
    fn finished(&self, py: Python<'_>, task: &Bound<'_, PyAny>, given: &Value, is_step: bool) -> Option<Called<Value>> {
        match task.call_method0("done").and_then(|done| done.is_truthy()) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => return Some(Called::Failed(self.fault(py, &error))),
        }
        let outcome = task.call_method0("result").and_then(|result| result.extract::<(bool, Bound<'_, PyAny>)>());
        Some(match outcome {
            Ok((true, value)) => match kind(&value) {
                Kind::Values if !is_step => Called::Values(value.into()),
                _ => Called::Value(Value::returned(value, given)),
            },
            Ok((false, error)) => {
                let error = PyErr::from_value(error);
                if is_step && error.is_instance_of::<PyStopAsyncIteration>(py) {
                    return Some(Called::End);
                }
                Called::Failed(self.fault(py, &error))
            }
            Err(error) => Called::Failed(self.fault(py, &error)),
        })
    }

    fn enter(&self, with: With<'_, Value>) {
        let running = Running::of(with);
        self.now.replace(Some(running));
    }

    fn leave(&self) {
        self.now.replace(None);
    }
}

impl Drop for PythonCode {
    fn drop(&mut self) {
        // The runtime lives on: Python's objects hold it.
        self.runtime.alarm.stop();
    }
}

/// The meaning of an object that a function returned.
enum Kind {
    Value,
    Values,
    Awaitable,
}

fn kind(object: &Bound<'_, PyAny>) -> Kind {
    // The class alone decides, as in CPython: a `__await__` on the object itself means nothing.
    let class = object.get_type_ptr();
    // SAFETY: the object is alive and this thread is attached; its type outlives it. The generator types are
    // static; `tp_as_async` is null or points to a table that lives as long as the type.
    unsafe {
        if class == &raw mut ffi::PyGen_Type || class == &raw mut ffi::PyAsyncGen_Type {
            return Kind::Values;
        }
        let methods = (*class).tp_as_async;
        if !methods.is_null() && (*methods).am_await.is_some() {
            return Kind::Awaitable;
        }
    }
    Kind::Value
}

impl Code for PythonCode {
    type Value = Value;

    fn decode(&mut self, codec: &Codec, bytes: Option<&[u8]>) -> Result<Value, Fault> {
        Python::attach(|py| codec::decode(py, &mut self.decoder, codec, bytes).map(Value::from))
    }

    fn decode_for(&mut self, reader: ReaderId, codec: &Codec, bytes: Option<&[u8]>) -> Result<Value, Fault> {
        // The compiler has proven which fields the reader's functions look at; without a proof, all are made.
        let (Some(pick), Some(bytes)) = (&mut self.picks[reader.index()], bytes) else {
            return self.decode(codec, bytes);
        };
        if pick.keeps_text && Rc::get_mut(&mut self.rest).is_none() {
            // Some value still holds it as its rest.
            self.rest = Rc::default();
        }
        Python::attach(|py| {
            let rest = Rc::get_mut(&mut self.rest).filter(|_| pick.keeps_text);
            let (object, is_part) = codec::decode_part(py, &mut self.decoder, bytes, pick, rest)?;
            let rest = (is_part && pick.keeps_text).then(|| self.rest.clone());
            Ok(Value { object, rest })
        })
    }

    fn validate(&mut self, codec: &Codec, bytes: Option<&[u8]>) -> Result<(), Fault> {
        Python::attach(|py| codec::validate(py, &mut self.decoder, codec, bytes))
    }

    fn encode(&mut self, codec: &Codec, value: &Value, out: &mut Vec<u8>) -> Result<Encoded, Fault> {
        Python::attach(|py| match &value.rest {
            Some(rest) => codec::encode_part(py, codec, value.object.bind(py), rest, out),
            None => codec::encode(py, codec, value.object.bind(py), out),
        })
    }

    fn list(&mut self, values: Vec<Value>) -> Result<Value, Fault> {
        Python::attach(|py| {
            let objects = values.into_iter().map(|value| value.object);
            PyList::new(py, objects.collect::<Vec<_>>())
                .map(|list| list.into_any().into())
                .map_err(|error| self.fault(py, &error))
        })
    }

    fn none(&self) -> Value {
        Python::attach(|py| py.None().into())
    }

    fn is_none(&self, value: &Value) -> bool {
        Python::attach(|py| value.object.is_none(py))
    }

    fn sent(&mut self, topic: &str, partition: i32, timestamp_ms: i64) -> Result<Value, Fault> {
        Python::attach(|py| {
            let metadata = PyDict::new(py);
            let set = || -> PyResult<()> {
                metadata.set_item("topic", topic)?;
                metadata.set_item("partition", partition)?;
                metadata.set_item("offset", -1)?;
                metadata.set_item("timestamp", timestamp_ms as f64 / 1000.0)
            };
            set().map_err(|error| self.fault(py, &error))?;
            Ok(metadata.into_any().into())
        })
    }

    fn call(&mut self, function: FunctionId, value: &Value, with: With<'_, Value>) -> Called<Value> {
        Python::attach(|py| {
            self.runtime.set_agent(Some(with.agent));
            self.runtime.alarm.arm(with.row);
            let called = self.called(py, function, value, with);
            self.in_time(py, called, with)
        })
    }

    fn next(&mut self, values: &Value, with: With<'_, Value>) -> Called<Value> {
        Python::attach(|py| {
            self.runtime.alarm.arm(with.row);
            let called = self.stepped(py, values, with);
            self.in_time(py, called, with)
        })
    }

    fn release(&mut self, values: &Value, with: With<'_, Value>) -> Called<Value> {
        Python::attach(|py| {
            self.runtime.alarm.arm(with.row);
            let called = self.released(py, values, with);
            self.in_time(py, called, with)
        })
    }

    fn take(&mut self, ticket: Ticket) -> Option<Called<Value>> {
        Python::attach(|py| {
            let waiting = self.waiting.get(&ticket)?;
            let called = self.finished(py, waiting.task.bind(py), &waiting.given, waiting.is_step)?;
            self.waiting.remove(&ticket);
            Some(called)
        })
    }

    fn cancel(&mut self, ticket: Ticket) {
        Python::attach(|py| {
            if let Some(waiting) = self.waiting.remove(&ticket)
                && let Err(error) = waiting.task.bind(py).call_method0("cancel")
            {
                warn!(%error, "a task could not be cancelled");
            }
        });
    }

    fn truth(&mut self, value: &Value) -> Result<bool, Fault> {
        Python::attach(|py| value.object.bind(py).is_truthy().map_err(|error| self.fault(py, &error)))
    }

    fn topic(&mut self, value: &Value) -> Result<TopicName, Fault> {
        Python::attach(|py| match value.object.bind(py).extract::<String>() {
            Ok(name) if !name.is_empty() => Ok(name.as_str().into()),
            Ok(_) => Err(Fault::new("Topic", "the name selector returned an empty str")),
            Err(_) => {
                let class = codec::type_name(value.object.bind(py));
                Err(Fault::new("Topic", format!("the name selector returned {class}: a str is needed")))
            }
        })
    }

    fn partition(&mut self, value: &Value) -> Result<Option<i32>, Fault> {
        Python::attach(|py| {
            let value = value.object.bind(py);
            if value.is_none() {
                return Ok(None);
            }
            // A bool is an int in Python, and `True` would silently be partition 1.
            let is_int = value.is_instance_of::<pyo3::types::PyInt>() && !value.is_instance_of::<pyo3::types::PyBool>();
            value.extract::<i32>().ok().filter(|_| is_int).map(Some).ok_or_else(|| {
                let class = codec::type_name(value);
                Fault::new("Partition", format!("the partition selector returned {class}: a small int is needed"))
            })
        })
    }

    fn headers(&mut self, value: &Value) -> Result<Vec<Header>, Fault> {
        Python::attach(|py| codec::headers(py, value.object.bind(py)))
    }

    fn waits(&self, is_busy: bool) -> bool {
        !self.waiting.is_empty()
            || Python::attach(|py| {
                if self.runtime.is_at_rest(py) {
                    return false;
                }
                self.runtime.waits.bind(py).call1((is_busy,)).and_then(|waits| waits.is_truthy()).unwrap_or(false)
            })
    }

    fn turn(&mut self, wait: Duration, wake: Option<RawFd>) {
        Python::attach(|py| {
            // Steps of events are timed each by itself; this is for tasks that user code started beside them.
            self.runtime.alarm.arm(NO_CALL as usize);
            let turned = self.runtime.turn.bind(py).call1((wait.as_secs_f64(), wake));
            let rang = self.runtime.alarm.disarm(py);
            if let Err(error) = turned {
                error!(%error, "the event loop failed");
            }
            if rang.is_some() {
                warn!("a task of the event loop took longer than {CALL_MAX:?}: it was interrupted");
            }
        });
    }

    fn detached(&self, wait: &mut dyn FnMut()) {
        // SAFETY: this thread is attached (the worker runs inside `Python::attach`), `wait` touches
        // no Python object, and the state is restored on the same thread before anything else.
        let state = unsafe { ffi::PyEval_SaveThread() };
        wait();
        // SAFETY: the state comes from the call above.
        unsafe { ffi::PyEval_RestoreThread(state) };
    }
}
