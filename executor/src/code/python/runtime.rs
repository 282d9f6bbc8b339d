//! The interpreter's side of the worker: the module of `runtime.py`, and the means by which every object in
//! user code's hands finds the event that runs.

use std::cell::RefCell;
use std::ffi::CString;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use kaspr_ir::plan::AgentId;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyModule};

use super::alarm::Alarm;
use super::entry::Entry;
use super::home::{Home, elsewhere};
use super::lines::Lines;
use super::value::Value;
use crate::code::{Via, With};
use crate::event::frame::Frame;
use crate::guard::Watch;

const SOURCE: &str = include_str!("runtime.py");
/// The number before any agent's code has run.
const NO_AGENT: u32 = u32::MAX;

/// The event that runs, and the agent whose code runs it.
#[derive(Clone, Debug)]
pub struct Running {
    /// The event's frame.
    pub frame: Rc<Frame>,
    /// The agent.
    pub agent: AgentId,
    /// The call's row in the table of counters.
    pub row: usize,
    /// Key and headers that a channel's selectors gave.
    pub via: Option<Rc<Via<Value>>>,
}

impl Running {
    /// The event and agent of a call.
    pub fn of(with: With<'_, Value>) -> Running {
        Running { frame: with.frame.clone(), agent: with.agent, row: with.row, via: with.via.cloned() }
    }
}

/// The event whose plain function runs now. Coroutines have theirs in a context variable.
pub type Now = RefCell<Option<Running>>;

/// The state that the code and all its objects share. Any thread may hold it.
pub struct Runtime {
    /// Lines of the plan's blocks: frames of other files are not the user's.
    pub lines: Lines,
    /// Names of the agents, for the log.
    pub agents: Vec<String>,
    /// The event whose plain function runs now.
    now: Home<Now>,
    /// The agent whose code runs now.
    agent: AtomicU32,
    /// Formats a traceback.
    pub text: Py<PyAny>,
    /// Starts an awaitable.
    pub start: Py<PyAny>,
    /// Lets tasks go on.
    pub turn: Py<PyAny>,
    /// Awaits to the end.
    pub finish: Py<PyAny>,
    /// Tells whether the loop has something to do.
    pub waits: Py<PyAny>,
    /// The loop, the callbacks that it runs next, and the descriptors that it watches.
    event_loop: (Py<PyAny>, Py<PyAny>, Py<PyAny>),
    /// Tells what the loop waits for.
    pub pending: Py<PyAny>,
    /// Has the loop go by a simulated time.
    pub simulate: Py<PyAny>,
    /// Ends tasks and loop.
    pub close: Py<PyAny>,
    /// Starts an init function that is a generator.
    pub enter: Py<PyAny>,
    /// Makes the namespace of a block.
    pub module: Py<PyAny>,
    /// Moves a syntax tree to its place in the YAML.
    pub place: Py<PyAny>,
    /// Compiles a block at its lines in the YAML.
    pub compile_below: Py<PyAny>,
    /// Gives tracebacks their lines.
    pub remember: Py<PyAny>,
    /// The context variable of coroutines.
    entry: Py<PyAny>,
    /// True once something was started that carries its event in that variable: before, every look would be in vain.
    carries: AtomicBool,
    /// The agent for which the current thread was started.
    thread_agent: Py<PyAny>,
    /// The exception by which a call that takes too long is interrupted.
    pub timeout: Py<PyAny>,
    /// Completes the classes of context and tables.
    pub complete: Py<PyAny>,
    /// Interrupts calls that take too long.
    pub alarm: Alarm,
}

impl Runtime {
    /// Runs `runtime.py` on the worker's thread.
    pub fn start(
        py: Python<'_>,
        lines: Lines,
        agents: Vec<String>,
        (watch, shortest): (Arc<Watch>, Duration),
        now: &Rc<Now>,
    ) -> PyResult<Arc<Runtime>> {
        let source = CString::new(SOURCE).expect("the source holds no NUL");
        let module = PyModule::from_code(py, &source, c"<kaspr>", c"kaspr_runtime")?;
        // Looked up once: by name they would cost a search of the module in every call of user code.
        let get = |name: &str| module.getattr(name).map(Bound::unbind);
        let timeout = get("Timeout")?;
        // While the loop waits, the threads that look may sleep, too: an idle worker wakes no core.
        let (resting, stirring, ringing) = (watch.clone(), watch.clone(), watch.clone());
        module.setattr("rest", PyCFunction::new_closure(py, None, None, move |_, _| resting.lookers().rest())?)?;
        module.setattr("stir", PyCFunction::new_closure(py, None, None, move |_, _| stirring.lookers().stir())?)?;
        module.setattr("ring", PyCFunction::new_closure(py, None, None, move |_, _| ringing.wake_up())?)?;
        let alarm = Alarm::start(py, watch, timeout.clone_ref(py), shortest)?;
        let runtime = Arc::new(Runtime {
            lines,
            agents,
            now: Home::new(now.clone()),
            agent: AtomicU32::new(NO_AGENT),
            text: get("text")?,
            start: get("start")?,
            turn: get("turn")?,
            finish: get("finish")?,
            waits: get("waits")?,
            event_loop: (get("loop")?, get("ready")?, get("files")?),
            pending: get("pending")?,
            simulate: get("simulate")?,
            close: get("close")?,
            enter: get("enter")?,
            module: get("module")?,
            place: get("place")?,
            compile_below: get("compile_below")?,
            remember: get("remember")?,
            entry: get("entry")?,
            carries: AtomicBool::new(false),
            thread_agent: get("thread_agent")?,
            timeout,
            complete: get("complete")?,
            alarm,
        });
        module.setattr("around", Py::new(py, Around { runtime: runtime.clone() })?)?;
        Ok(runtime)
    }

    /// True if the loop is idle. Cheaper than `waits`, which would otherwise be called at every turn of the worker.
    pub fn is_at_rest(&self, py: Python<'_>) -> bool {
        let (event_loop, ready, files) = &self.event_loop;
        let holds = |object: &Bound<'_, PyAny>| object.len().unwrap_or(usize::MAX);
        // A list of timers with many cancelled ones is replaced by another, so it is asked for each time.
        let timers =
            || event_loop.bind(py).getattr(intern!(py, "_scheduled")).map_or(usize::MAX, |timers| holds(&timers));
        holds(ready.bind(py)) == 0 && holds(files.bind(py)) <= 1 && timers() == 0
    }

    /// The event that runs here: a coroutine's own, else that of the plain function. An error on other
    /// threads than the worker's.
    pub fn current(&self, py: Python<'_>, what: &str) -> PyResult<Option<Running>> {
        // The variable first: a task that goes on while another event's function runs must find its own event.
        if let Some(entry) = self.carried(py)? {
            // Not `now` instead: a task that `init` has started belongs to no event, whatever runs at the moment.
            let Some(running) = &entry.get().running else { return Ok(None) };
            return running.get().map(|running| Some((*running).clone())).ok_or_else(|| elsewhere(what));
        }
        let now = self.now.get().ok_or_else(|| elsewhere(what))?;
        Ok(now.borrow().clone())
    }

    /// The event and agent that the coroutine, task or timer that runs here carries along.
    fn carried<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, Entry>>> {
        if !self.carries.load(Ordering::Relaxed) {
            return Ok(None);
        }
        Ok(self.entry.bind(py).call_method0("get")?.cast_into().ok())
    }

    /// Makes the entry of a call that is to be carried along.
    pub fn entry_of(&self, running: Running) -> Entry {
        self.carries.store(true, Ordering::Relaxed);
        Entry { agent: Some(running.agent), running: Some(Home::new(Rc::new(running))) }
    }

    /// Notes that the agent's code runs from now on.
    pub fn set_agent(&self, agent: Option<AgentId>) {
        // Other threads read it to put a name to a line of the log, so nothing hangs on the order.
        self.agent.store(agent.map_or(NO_AGENT, |agent| agent.0), Ordering::Relaxed);
    }

    /// The agent whose code runs here: the coroutine's, the thread's, else the one that runs now.
    pub fn agent(&self, py: Python<'_>) -> Option<AgentId> {
        if let Ok(Some(entry)) = self.carried(py) {
            return entry.get().agent;
        }
        let thread = match self.now.get() {
            // Here the agent that runs is known for certain; another thread goes by the one that has started it.
            Some(_) => None,
            None => self.thread_agent.bind(py).call0().and_then(|agent| agent.extract::<u32>()).ok(),
        };
        let agent = thread.unwrap_or_else(|| self.agent.load(Ordering::Relaxed));
        (agent != NO_AGENT).then_some(AgentId(agent))
    }

    /// The name of the agent whose code runs here.
    pub fn agent_name(&self, py: Python<'_>) -> &str {
        self.agent(py).and_then(|agent| self.agents.get(agent.index())).map_or("kaspr", String::as_str)
    }
}

/// Shows `runtime.py` what runs now: tasks, timers and threads that plain functions start carry it along.
#[pyclass(frozen, module = "kaspr")]
struct Around {
    runtime: Arc<Runtime>,
}

#[pymethods]
impl Around {
    /// The content of the context variable of event and agent; `None` where no agent's code runs.
    fn entry(&self, py: Python<'_>) -> PyResult<Option<Entry>> {
        let agent = self.runtime.agent(py);
        // Cloned, so that no borrow is open when user code runs on.
        let running = self.runtime.now.get().and_then(|now| now.borrow().clone());
        let running = running.map(|running| Home::new(Rc::new(running)));
        self.runtime.carries.store(true, Ordering::Relaxed);
        Ok(agent.map(|agent| Entry { agent: Some(agent), running }))
    }

    /// The agent's number.
    fn agent(&self, py: Python<'_>) -> Option<u32> {
        self.runtime.agent(py).map(|agent| agent.0)
    }
}
