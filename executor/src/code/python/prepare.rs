//! Makes everything that user code can reach, before its first line runs; and ends it after its last.

use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kaspr_ir::plan::{AgentId, Codec, Plan, TableId};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tracing::warn;

use super::entry::{AppView, Context, Outbox};
use super::home::Home;
use super::lines::Lines;
use super::load::Life;
use super::rehearsal::simulate;
use super::runtime::{Now, Runtime};
use super::table::{TableView, Views};
use super::{Loading, output};

/// The objects that exist before the first block runs.
pub struct Prepared {
    /// Loop and tracebacks.
    pub runtime: Arc<Runtime>,
    /// The event whose plain function runs now.
    pub now: Rc<Now>,
    /// The plan's tables.
    pub tables: Vec<Py<TableView>>,
    /// `context`.
    pub context: Py<PyAny>,
    /// Writes lines that are begun.
    pub end_lines: Py<PyAny>,
}

impl Prepared {
    /// Starts the runtime and makes the objects that user code reaches.
    pub fn new(py: Python<'_>, loading: &Loading<'_>) -> PyResult<Prepared> {
        let plan = loading.plan;
        let agents = plan.agents.iter().map(|agent| agent.name.clone()).collect();
        let watched = (loading.watch.clone(), shortest_timeout(plan, loading.timeout));
        let now: Rc<Now> = Rc::default();
        let runtime = Runtime::start(py, Lines::of(plan), agents, watched, &now)?;
        if let Some(rehearsal) = &loading.rehearsal {
            // Before a first timer can be set: by the real clock it would be due at a time that the simulated one
            // may never reach.
            simulate(py, &runtime, &rehearsal.clock)?;
        }
        let end_lines = output::take_output(py, &runtime)?;
        let views = runtime.complete.bind(py).call1((py.get_type::<Context>(), py.get_type::<TableView>()))?;
        let views: Arc<Views> = Arc::new(views.extract()?);
        let view = |number| view(py, loading, (&runtime, &views), number);
        let tables: Vec<Py<TableView>> = (0..plan.tables.len()).map(view).collect::<PyResult<_>>()?;
        let context = Bound::new(py, context(py, loading, &runtime, &tables)?)?.into_any().unbind();
        Ok(Prepared { runtime, now, tables, context, end_lines })
    }
}

fn context(
    py: Python<'_>,
    loading: &Loading<'_>,
    runtime: &Arc<Runtime>,
    tables: &[Py<TableView>],
) -> PyResult<Context> {
    let by_name = PyDict::new(py);
    for (table, view) in loading.plan.tables.iter().zip(tables) {
        by_name.set_item(&table.name, view)?;
    }
    let conf = py.import("types")?.getattr("SimpleNamespace")?.call0()?;
    for (name, value) in &loading.settings {
        conf.setattr(name.as_str(), value)?;
    }
    let outbox = Outbox { directory: loading.directory.clone(), clock: loading.clock.clone() };
    let app = AppView {
        runtime: runtime.clone(),
        outbox: Home::new(Rc::new(outbox)),
        log: py.import("logging")?.call_method1("getLogger", ("kaspr",))?.unbind(),
        conf: conf.unbind(),
        tables: by_name.unbind(),
    };
    Ok(Context { runtime: runtime.clone(), codecs: Arc::new(codecs(loading.plan)), app: Py::new(py, app)? })
}

fn view(
    py: Python<'_>,
    loading: &Loading<'_>,
    (runtime, views): (&Arc<Runtime>, &Arc<Views>),
    number: usize,
) -> PyResult<Py<TableView>> {
    let id = TableId(u32::try_from(number).expect("a plan counts tables in u32"));
    let table = &loading.plan[id];
    let view = TableView {
        id,
        name: table.name.clone(),
        global: table.global,
        key_codec: table.key_codec.clone(),
        value_codec: table.value_codec.clone(),
        default: OnceLock::new(),
        tables: Home::new(loading.tables.clone()),
        runtime: runtime.clone(),
        views: views.clone(),
    };
    Py::new(py, view)
}

/// Runs the rest of init functions, ends tasks, threads and loop, and does what Python does at its exit.
pub fn end(py: Python<'_>, runtime: &Runtime, lives: &[Life], end_lines: &Py<PyAny>) {
    // Backwards, as nested `with` blocks end: a later init function may use what an earlier one has opened.
    for Life { agent, leave } in lives.iter().rev() {
        runtime.set_agent(*agent);
        logged(py, runtime, "the end of init failed", leave.call0(py));
    }
    logged(py, runtime, "the event loop did not end well", runtime.close.call0(py));
    // By hand: the process ends without finalising the interpreter, which is when CPython would call them.
    let atexit = py.import("atexit").and_then(|atexit| atexit.call_method0("_run_exitfuncs"));
    logged(py, runtime, "an exit function of Python failed", atexit.map(Bound::unbind));
    // Last, since everything above may still print.
    logged(py, runtime, "the last line that was printed is lost", end_lines.call0(py));
}

fn logged(py: Python<'_>, runtime: &Runtime, what: &str, done: PyResult<Py<PyAny>>) {
    if let Err(error) = done {
        let agent = runtime.agent_name(py);
        let text = runtime.text.bind(py).call1((error.value(py),)).map(|text| text.to_string());
        warn!(agent, %error, traceback = text.ok(), "{what}");
    }
}

/// Collects the codecs of keys and values of each agent's reader: what `context["event"]` shows.
fn codecs(plan: &Plan) -> Vec<(Codec, Codec)> {
    let of = |agent: AgentId| {
        let reader = plan.readers.iter().find(|reader| reader.agents.contains(&agent));
        reader.map_or((Codec::Raw, Codec::Json), |reader| (reader.key_codec.clone(), reader.value_codec.clone()))
    };
    (0..plan.agents.len())
        .map(|number| of(AgentId(u32::try_from(number).expect("a plan counts agents in u32"))))
        .collect()
}

/// The shortest time that some call may take.
// The alarm's thread looks at a pace that fits it, and sleeps longer where all calls may take long.
fn shortest_timeout(plan: &Plan, default: Duration) -> Duration {
    let steps = plan.agents.iter().flat_map(|agent| agent.steps.iter().filter_map(|step| step.timeout_ms));
    let written = plan.agents.iter().filter_map(|agent| agent.timeout_ms).chain(steps).min();
    written.map_or(default, |ms| Duration::from_millis(ms).min(default))
}
