//! The interpreter's side of the worker: the module of `runtime.py`, and what every object that
//! user code holds needs to find the event that runs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use kaspr_ir::plan::AgentId;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyModule};

use super::alarm::Alarm;
use super::entry::Entry;
use super::value::Value;
use crate::code::{Via, With};
use crate::event::frame::Frame;
use crate::guard::Watch;

const SOURCE: &str = include_str!("runtime.py");

/// The event that runs, and whose code runs it.
#[derive(Clone)]
pub struct Running {
    /// The event's frame.
    pub frame: Rc<Frame>,
    /// The agent.
    pub agent: AgentId,
    /// Key and headers that a channel's selectors gave.
    pub via: Option<Rc<Via<Value>>>,
}

impl Running {
    /// What runs in a call.
    pub fn of(with: With<'_, Value>) -> Running {
        Running { frame: with.frame.clone(), agent: with.agent, via: with.via.cloned() }
    }
}

/// What the code and all its objects share.
pub struct Runtime {
    /// Files of the plan: frames of other files are not the user's.
    pub files: BTreeSet<String>,
    /// Names of the agents, for the log.
    pub agents: Vec<String>,
    /// The event whose plain function runs now. Coroutines have theirs in a context variable.
    pub running: RefCell<Option<Running>>,
    /// The agent whose code runs now.
    pub agent: Cell<Option<AgentId>>,
    /// Formats a traceback.
    pub text: Py<PyAny>,
    /// Starts an awaitable.
    pub start: Py<PyAny>,
    /// Lets tasks go on.
    pub turn: Py<PyAny>,
    /// Awaits to the end.
    pub finish: Py<PyAny>,
    /// Whether tasks exist.
    pub waits: Py<PyAny>,
    /// Ends tasks and loop.
    pub close: Py<PyAny>,
    /// Moves a syntax tree to its place in the YAML.
    pub place: Py<PyAny>,
    /// Gives tracebacks their lines.
    pub remember: Py<PyAny>,
    /// The context variable of coroutines.
    entry: Py<PyAny>,
    /// What a call that takes too long is interrupted with.
    pub timeout: Py<PyAny>,
    /// Redirects `print` and `logging`.
    pub take_output: Py<PyAny>,
    /// Interrupts calls that take too long.
    pub alarm: Alarm,
}

impl Runtime {
    /// Runs `runtime.py`.
    pub fn start(
        py: Python<'_>,
        files: BTreeSet<String>,
        agents: Vec<String>,
        (watch, shortest): (Arc<Watch>, Duration),
    ) -> PyResult<Runtime> {
        let source = CString::new(SOURCE).expect("the source holds no NUL");
        let module = PyModule::from_code(py, &source, c"<kaspr>", c"kaspr_runtime")?;
        let get = |name: &str| module.getattr(name).map(Bound::unbind);
        let timeout = get("Timeout")?;
        let (resting, stirring) = (watch.clone(), watch.clone());
        module.setattr("rest", PyCFunction::new_closure(py, None, None, move |_, _| resting.lookers().rest())?)?;
        module.setattr("stir", PyCFunction::new_closure(py, None, None, move |_, _| stirring.lookers().stir())?)?;
        let alarm = Alarm::start(py, watch, timeout.clone_ref(py), shortest)?;
        Ok(Runtime {
            files,
            agents,
            running: RefCell::default(),
            agent: Cell::default(),
            text: get("text")?,
            start: get("start")?,
            turn: get("turn")?,
            finish: get("finish")?,
            waits: get("waits")?,
            close: get("close")?,
            place: get("place")?,
            remember: get("remember")?,
            entry: get("entry")?,
            timeout,
            take_output: get("take_output")?,
            alarm,
        })
    }

    /// The event that runs here: a coroutine's own, else that of the plain function.
    pub fn current(&self, py: Python<'_>) -> Option<Running> {
        let entry = self.entry.bind(py).call_method0("get").ok()?;
        match entry.cast::<Entry>() {
            Ok(entry) => Some(entry.borrow().running.clone()),
            Err(_) => self.running.borrow().clone(),
        }
    }

    /// The name of the agent whose code runs here.
    pub fn agent_name(&self, py: Python<'_>) -> &str {
        let agent = self.current(py).map(|running| running.agent).or(self.agent.get());
        agent.map_or("kaspr", |agent| &self.agents[agent.index()])
    }
}
