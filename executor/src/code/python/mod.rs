//! Python as the user's code: CPython in the worker's own process.
//!
//! The worker's thread is attached once, for its life. Functions and keyword dicts are resolved at
//! the start, so that an event costs its calls and nothing else.
//!
//! Architecture invariant: only this folder names pyo3.

mod alarm;
mod codec;
mod entry;
mod fault;
mod interpreter;
pub mod json;
mod load;
mod runtime;
mod step;
mod table;
mod value;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use kaspr_ir::plan::{AgentId, Codec, FunctionId, Plan, ReaderId, TableId};
use pyo3::exceptions::{PyStopAsyncIteration, PyStopIteration};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use tracing::field::display;
use tracing::{error, info, warn};

use crate::broker::directory::Directory;
use crate::clock::Clock;
use crate::code::{Called, Code, Encoded, Fault, Ticket, With};
use crate::config::CALL_MAX;
use crate::event::message::{Header, TopicName};
use crate::event::shown::{SHOWN_BYTES_MAX, cut_bytes};
use crate::guard::{NO_CALL, Rang, Watch};
use crate::tables::Tables;
use entry::{AppView, Context, Entry};
pub use interpreter::{Interpreter, exit, prefix, version};
use json::{Decoder, Pick, Rest};
pub use load::LoadError;
use load::Loader;
use runtime::{Running, Runtime};
use step::Step;
use table::TableView;
use value::Value;

/// What a worker's Python is loaded with.
pub struct Loading<'a> {
    /// Whose blocks.
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
    /// Says what runs, to whoever looks from outside.
    pub watch: Arc<Watch>,
}

/// A function, and what its calls need.
struct Callable {
    function: Py<PyAny>,
    /// It may look at the event that runs.
    needs_event: bool,
    /// Tables by keyword, made at its first call.
    tables: Option<Py<PyDict>>,
}

/// What a ticket waits for.
struct Waiting {
    task: Py<PyAny>,
    /// What the function was given.
    given: Value,
    /// It is the next value of an async generator.
    is_step: bool,
}

/// The user's Python.
pub struct PythonCode {
    runtime: Rc<Runtime>,
    functions: Vec<Callable>,
    tables: Vec<Py<TableView>>,
    decoder: Decoder,
    /// What each reader decodes of its values; `None`: all.
    picks: Vec<Option<Pick>>,
    /// The rest of the last value that was decoded in part: its room is used again.
    rest: Rc<Rest>,
    waiting: BTreeMap<Ticket, Waiting>,
    tickets: u64,
    /// Something awaitable has been seen: the loop may hold tasks.
    has_awaited: bool,
}

impl PythonCode {
    /// Runs all blocks and init functions.
    pub fn load(py: Python<'_>, loading: Loading<'_>) -> Result<PythonCode, LoadError> {
        let plan = loading.plan;
        PythonCode::prepare(py, &loading).map_err(|error| internal(py, &error)).and_then(
            |(runtime, tables, context)| {
                let functions = Loader { py, plan, runtime: &runtime, context }.functions()?;
                let code = PythonCode::assemble(py, plan, runtime, functions, tables);
                code.map_err(|error| internal(py, &error))
            },
        )
    }

    #[allow(clippy::type_complexity, reason = "three things that are made together")]
    fn prepare<'py>(
        py: Python<'py>,
        loading: &Loading<'_>,
    ) -> PyResult<(Rc<Runtime>, Vec<Py<TableView>>, Bound<'py, PyAny>)> {
        let plan = loading.plan;
        let files: BTreeSet<String> = plan.files.iter().cloned().collect();
        let agents = plan.agents.iter().map(|agent| agent.name.clone()).collect();
        let watched = (loading.watch.clone(), shortest_timeout(plan, loading.timeout));
        let runtime = Rc::new(Runtime::start(py, files, agents, watched)?);
        take_output(py, &runtime)?;
        let tables: Vec<Py<TableView>> =
            (0..plan.tables.len()).map(|number| view(py, loading, &runtime, number)).collect::<PyResult<_>>()?;
        let by_name = PyDict::new(py);
        for (table, view) in plan.tables.iter().zip(&tables) {
            by_name.set_item(&table.name, view)?;
        }
        let conf = py.import("types")?.getattr("SimpleNamespace")?.call0()?;
        for (name, value) in &loading.settings {
            conf.setattr(name.as_str(), value)?;
        }
        let app = AppView {
            runtime: runtime.clone(),
            directory: loading.directory.clone(),
            clock: loading.clock.clone(),
            log: py.import("logging")?.call_method1("getLogger", ("kaspr",))?.unbind(),
            conf: conf.unbind(),
            tables: by_name.unbind(),
        };
        let codecs = Rc::new(codecs(plan));
        let context = Context { runtime: runtime.clone(), codecs, app: Py::new(py, app)? };
        Ok((runtime, tables, Bound::new(py, context)?.into_any()))
    }

    fn assemble(
        py: Python<'_>,
        plan: &Plan,
        runtime: Rc<Runtime>,
        functions: Vec<Py<PyAny>>,
        tables: Vec<Py<TableView>>,
    ) -> PyResult<PythonCode> {
        for (table, view) in plan.tables.iter().zip(&tables) {
            let default = table.default.map(|function| functions[function.index()].clone_ref(py));
            view.borrow(py).default.replace(default);
        }
        let functions = plan.functions.iter().zip(functions);
        let functions = functions.map(|(planned, function)| Callable {
            function,
            needs_event: planned.reads_context,
            tables: None,
        });
        Ok(PythonCode {
            runtime,
            functions: functions.collect(),
            tables,
            decoder: Decoder::new(py)?,
            picks: plan.readers.iter().map(|reader| Pick::new(py, reader.part.as_ref()?)).collect(),
            rest: Rc::default(),
            waiting: BTreeMap::new(),
            tickets: 0,
            has_awaited: false,
        })
    }

    /// Ends what still runs in the loop: the process is about to end.
    pub fn close(&mut self) {
        Python::attach(|py| {
            if let Err(error) = self.runtime.close.bind(py).call0() {
                warn!(%error, "the event loop did not close");
            }
            let atexit = py.import("atexit").and_then(|atexit| atexit.call_method0("_run_exitfuncs"));
            if let Err(error) = atexit {
                warn!(%error, "an exit function of Python failed");
            }
        });
    }

    fn fault(&self, py: Python<'_>, error: &PyErr) -> Fault {
        fault::fault(py, error, &self.runtime)
    }

    /// What an object that a call returned means.
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
        self.has_awaited = true;
        let entry = Py::new(py, Entry { running: Running::of(with) });
        let task = entry.and_then(|entry| {
            let step = Step::of(awaitable, &self.runtime, with.limit)?;
            self.runtime.start.bind(py).call1((step, entry))
        });
        let task = match task {
            Ok(task) => task,
            Err(error) => return Called::Failed(self.fault(py, &error)),
        };
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

    /// What a task came to, if it is done.
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
        *self.runtime.running.borrow_mut() = Some(running);
    }

    fn leave(&self) {
        *self.runtime.running.borrow_mut() = None;
    }

    /// Tables by keyword for a function: the same at every call.
    fn keywords(&mut self, py: Python<'_>, function: FunctionId, with: With<'_, Value>) -> PyResult<()> {
        if self.functions[function.index()].tables.is_none() {
            let keywords = PyDict::new(py);
            for table in with.tables {
                keywords.set_item(&table.parameter, &self.tables[table.table.index()])?;
            }
            self.functions[function.index()].tables = Some(keywords.unbind());
        }
        Ok(())
    }
}

impl Drop for PythonCode {
    fn drop(&mut self) {
        // The runtime lives on: Python's objects hold it.
        self.runtime.alarm.stop();
    }
}

/// What an object means where a function returned it.
enum Kind {
    Value,
    Values,
    Awaitable,
}

fn kind(object: &Bound<'_, PyAny>) -> Kind {
    let class = object.get_type_ptr();
    // SAFETY: the object is alive and we are attached; its type outlives it. The generator types
    // are static; `tp_as_async` is null or points to a table that lives as long as the type.
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
        let (Some(pick), Some(bytes)) = (&mut self.picks[reader.index()], bytes) else {
            return self.decode(codec, bytes);
        };
        if pick.keeps_text && Rc::get_mut(&mut self.rest).is_none() {
            // Somebody still has a value of which it is the rest.
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
            self.runtime.agent.set(Some(with.agent));
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

    fn waits(&self) -> bool {
        if !self.has_awaited {
            return false;
        }
        !self.waiting.is_empty()
            || Python::attach(|py| {
                self.runtime.waits.bind(py).call0().and_then(|waits| waits.is_truthy()).unwrap_or(false)
            })
    }

    fn turn(&mut self, wait: Duration, wake: Option<RawFd>) {
        Python::attach(|py| {
            // Steps of events are timed each by itself; this is for what user code started beside them.
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

impl PythonCode {
    fn called(&mut self, py: Python<'_>, function: FunctionId, value: &Value, with: With<'_, Value>) -> Called<Value> {
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

    fn stepped(&mut self, py: Python<'_>, values: &Value, with: With<'_, Value>) -> Called<Value> {
        let object = values.object.bind(py);
        self.runtime.agent.set(Some(with.agent));
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

    /// What a call gave, unless it took longer than it may: then it fails, whatever it gave.
    fn in_time(&mut self, py: Python<'_>, called: Called<Value>, with: With<'_, Value>) -> Called<Value> {
        let mut fault = match self.runtime.alarm.disarm(py) {
            None => return called,
            Some(why) => late(why, with.limit),
        };
        match called {
            Called::Failed(raised) => (fault.at, fault.trace) = (raised.at, raised.trace),
            Called::Pending(ticket) => self.cancel(ticket),
            _ => {}
        }
        Called::Failed(fault)
    }

    fn call_with_tables<'py>(
        &mut self,
        py: Python<'py>,
        function: FunctionId,
        value: &Value,
        with: With<'_, Value>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.keywords(py, function, with)?;
        let callable = &self.functions[function.index()];
        let keywords = callable.tables.as_ref().map(|keywords| keywords.bind(py));
        self.enter(with);
        let result = callable.function.bind(py).call((&value.object,), keywords);
        self.leave();
        result
    }
}

/// The fault of a call for which the alarm has rung.
fn late(why: Rang, limit: Duration) -> Fault {
    match why {
        Rang::Call => Fault::timeout(limit),
        Rang::Event => Fault::new("Timeout", format!("the calls of the event took longer than {CALL_MAX:?} together")),
    }
}

/// The shortest time that some call may take.
fn shortest_timeout(plan: &Plan, default: Duration) -> Duration {
    let steps = plan.agents.iter().flat_map(|agent| agent.steps.iter().filter_map(|step| step.timeout_ms));
    let written = plan.agents.iter().filter_map(|agent| agent.timeout_ms).chain(steps).min();
    written.map_or(default, |ms| Duration::from_millis(ms).min(default))
}

/// A fault of this program rather than of a block.
fn internal(py: Python<'_>, error: &PyErr) -> LoadError {
    let fault = Fault::new("PythonStart", error.value(py).to_string());
    LoadError { block: "Python".to_owned(), at: "-".to_owned(), fault: Box::new(fault) }
}

fn view(py: Python<'_>, loading: &Loading<'_>, runtime: &Rc<Runtime>, number: usize) -> PyResult<Py<TableView>> {
    let id = TableId(u32::try_from(number).expect("a plan counts tables in u32"));
    let table = &loading.plan[id];
    let view = TableView {
        id,
        name: table.name.clone(),
        global: table.global,
        key_codec: table.key_codec.clone(),
        value_codec: table.value_codec.clone(),
        default: RefCell::default(),
        tables: loading.tables.clone(),
        runtime: runtime.clone(),
    };
    Py::new(py, view)
}

/// How each agent's reader reads keys and values: what `context["event"]` shows.
fn codecs(plan: &Plan) -> Vec<(Codec, Codec)> {
    let of = |agent: AgentId| {
        let reader = plan.readers.iter().find(|reader| reader.agents.contains(&agent));
        reader.map_or((Codec::Raw, Codec::Json), |reader| (reader.key_codec.clone(), reader.value_codec.clone()))
    };
    (0..plan.agents.len())
        .map(|number| of(AgentId(u32::try_from(number).expect("a plan counts agents in u32"))))
        .collect()
}

/// `print` and `logging` go to the log from here on, under the agent's name.
fn take_output(py: Python<'_>, runtime: &Rc<Runtime>) -> PyResult<()> {
    let log_line = Py::new(py, LogLine { runtime: runtime.clone() })?;
    let log_record = Py::new(py, LogRecord { runtime: runtime.clone() })?;
    runtime.take_output.bind(py).call1((log_line, log_record))?;
    Ok(())
}

/// What is printed at once goes to the log in pieces of so many bytes: a line of the log holds no more.
const PRINTED_BYTES_MAX: usize = SHOWN_BYTES_MAX - 256;

#[pyclass(unsendable, module = "kaspr")]
struct LogLine {
    runtime: Rc<Runtime>,
}

#[pymethods]
impl LogLine {
    fn __call__(&self, py: Python<'_>, line: &str) {
        let agent = self.runtime.agent_name(py);
        let (mut line, mut is_first) = (line, true);
        while is_first || !line.is_empty() {
            let piece = cut_bytes(line, PRINTED_BYTES_MAX);
            info!(agent, "{piece}");
            (line, is_first) = (&line[piece.len()..], false);
        }
    }
}

#[pyclass(unsendable, module = "kaspr")]
struct LogRecord {
    runtime: Rc<Runtime>,
}

#[pymethods]
impl LogRecord {
    fn __call__(&self, py: Python<'_>, level: i32, name: &str, line: &str) {
        let agent = self.runtime.agent_name(py);
        let (line, rest) = line.split_once('\n').map_or((line, None), |(line, rest)| (line, Some(display(rest))));
        match level {
            40.. => error!(agent, logger = name, traceback = rest, "{line}"),
            30..40 => warn!(agent, logger = name, traceback = rest, "{line}"),
            _ => info!(agent, logger = name, traceback = rest, "{line}"),
        }
    }
}
