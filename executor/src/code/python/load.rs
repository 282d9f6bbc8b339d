//! Loads code blocks into namespaces, once per worker: user code runs here for the first time.
//!
//! Every block is a module of its own, whose names start as a copy of its agent's init globals. It is
//! compiled with the file and lines of the YAML, so that every traceback points there; see [`super::lines`] for
//! Python in quotes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kaspr_ir::plan::{AgentId, Block, BlockId, Function, FunctionId, LineMap, Place, Plan};
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict};

use super::fault::fault;
use super::rehearsal::Mocks;
use super::runtime::Runtime;
use crate::code::Fault;

/// A block that could not be loaded: the app does not start.
#[derive(Debug)]
pub struct LoadError {
    /// The owner of the block, and the block's role there.
    pub block: String,
    /// `file:line` of the block.
    pub at: String,
    /// The reason.
    pub fault: Box<Fault>,
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = self.fault.at.as_ref().unwrap_or(&self.at);
        write!(f, "{} cannot be loaded: {}: {}\n  --> {at}", self.block, self.fault.kind, self.fault.message)?;
        match &self.fault.trace {
            Some(trace) => write!(f, "\n{}", trace.text().trim_end()),
            None => Ok(()),
        }
    }
}

impl std::error::Error for LoadError {}

/// Loads the blocks of a plan.
pub struct Loader<'a, 'py> {
    /// The interpreter.
    pub py: Python<'py>,
    /// The plan with the blocks.
    pub plan: &'a Plan,
    /// Loop and tracebacks.
    pub runtime: &'a Arc<Runtime>,
    /// `context`.
    pub context: Bound<'py, PyAny>,
    /// Functions that a test replaces.
    pub mocks: Option<Mocks>,
    /// Names of modules that are made.
    pub modules: RefCell<BTreeSet<String>>,
    /// Init functions that are generators, and have come to their `yield`.
    pub lives: &'a RefCell<Vec<Life>>,
}

/// An init function that runs on when the worker ends.
pub struct Life {
    /// The agent whose block it is.
    pub agent: Option<AgentId>,
    /// Runs the part behind its `yield`.
    pub leave: Py<PyAny>,
}

impl<'py> Loader<'_, 'py> {
    /// Runs every block; gives the plan's functions in their order. The agents' init functions are
    /// called as soon as their block has run, before any block that starts with its globals.
    pub fn functions(&self) -> Result<Vec<Py<PyAny>>, LoadError> {
        self.remember_lines();
        let inits: BTreeMap<BlockId, Option<FunctionId>> = self
            .plan
            .agents
            .iter()
            .filter_map(|agent| agent.init.as_ref())
            .map(|init| (init.block, init.function))
            .collect();
        let mut namespaces: BTreeMap<BlockId, Bound<'py, PyDict>> = BTreeMap::new();
        let (first, rest): (Vec<_>, Vec<_>) = self.block_ids().partition(|id| inits.contains_key(id));
        let owners: BTreeMap<String, AgentId> = (0..)
            .zip(&self.plan.agents)
            .map(|(id, agent)| (format!("agent \"{}\"", agent.name), AgentId(id)))
            .collect();
        for id in first.into_iter().chain(rest) {
            let block = &self.plan[id];
            // A print of a block that is being loaded bears its agent's name.
            let agent = owners.get(&block.owner).copied();
            self.runtime.set_agent(agent);
            let globals = block.init.and_then(|init| namespaces.get(&init));
            let namespace = self.namespace(block, globals).map_err(|error| self.refused(block, &error))?;
            self.run(id, &namespace).map_err(|error| self.refused(block, &error))?;
            if let Some(mocks) = &self.mocks {
                // After the block has bound its names, and before its init function, which may call them.
                mocks.put(&block.name(), &namespace).map_err(|error| self.refused(block, &error))?;
            }
            if let Some(Some(function)) = inits.get(&id) {
                let function = &self.plan[*function];
                self.call_init(agent, &namespace, &function.name).map_err(|error| self.refused(block, &error))?;
            }
            namespaces.insert(id, namespace);
        }
        self.plan.functions.iter().map(|function| self.find(function, &namespaces)).collect()
    }

    fn block_ids(&self) -> impl Iterator<Item = BlockId> {
        (0..self.plan.blocks.len()).map(|number| BlockId(u32::try_from(number).expect("a plan counts in u32")))
    }

    fn namespace(&self, block: &Block, globals: Option<&Bound<'py, PyDict>>) -> PyResult<Bound<'py, PyDict>> {
        let names = match globals {
            Some(globals) => globals.clone(),
            None => [("context", &self.context)].into_py_dict(self.py)?,
        };
        let (name, file) = (self.module_name(block), &self.plan[block.file]);
        Ok(self.runtime.module.bind(self.py).call1((name, file, names))?.cast_into()?)
    }

    /// A name by which Python finds the block's module, and that no imported module has:
    /// `kaspr:orders/count`. No dot may stand in it: Python would look for a package.
    fn module_name(&self, block: &Block) -> String {
        let name = format!("kaspr:{}", block.name());
        let mut names = self.modules.borrow_mut();
        let numbered = (2..).map(|number| format!("{name}/{number}"));
        let free = std::iter::once(name.clone()).chain(numbered).find(|name| !names.contains(name));
        let free = free.unwrap_or(name);
        names.insert(free.clone());
        free
    }

    fn run(&self, id: BlockId, namespace: &Bound<'py, PyDict>) -> PyResult<()> {
        let code = self.compile(id)?;
        let exec = self.py.import("builtins")?.getattr("exec")?;
        exec.call1((code, namespace))?;
        Ok(())
    }

    /// Compiles a block at its lines in the YAML, or at its own where the YAML's would not tell them apart.
    fn compile(&self, id: BlockId) -> PyResult<Bound<'py, PyAny>> {
        let builtins = self.py.import("builtins")?;
        let compile = builtins.getattr("compile")?;
        let (block, file) = (&self.plan[id], self.runtime.lines.file(id));
        if self.runtime.lines.are_own(id) {
            return compile.call1((&block.code, file, "exec"));
        }
        if let LineMap::Literal { line, .. } = block.lines {
            let before = line.saturating_sub(1);
            return self.runtime.compile_below.bind(self.py).call1((&block.code, file, before));
        }
        let ast = self.py.import("ast")?;
        let tree = ast.getattr("parse")?.call1((&block.code, file))?;
        let LineMap::Each(lines) = &block.lines else { unreachable!("a literal was compiled above") };
        let lines: Vec<u32> = lines.iter().map(|(line, _)| *line).collect();
        let tree = self.runtime.place.bind(self.py).call1((tree, lines))?;
        compile.call1((tree, file, "exec"))
    }

    fn call_init(&self, agent: Option<AgentId>, namespace: &Bound<'py, PyDict>, name: &str) -> PyResult<()> {
        let Some(function) = namespace.get_item(name)? else {
            return Ok(());
        };
        let leave = self.runtime.enter.bind(self.py).call1((function.call0()?,))?;
        if !leave.is_none() {
            self.lives.borrow_mut().push(Life { agent, leave: leave.unbind() });
        }
        Ok(())
    }

    /// Loads the defaults of tables: what each selector returns, a factory or a value.
    pub fn defaults(&self, functions: &[Py<PyAny>]) -> Result<Vec<Option<Py<PyAny>>>, LoadError> {
        let default = |id: FunctionId| {
            let block = &self.plan[self.plan[id].block];
            self.default(&functions[id.index()]).map_err(|error| self.refused(block, &error))
        };
        self.plan.tables.iter().map(|table| table.default.map(default).transpose()).collect()
    }

    fn default(&self, selector: &Py<PyAny>) -> PyResult<Py<PyAny>> {
        let selector = selector.bind(self.py);
        if !selector.is_callable() {
            return Ok(selector.clone().unbind());
        }
        let default = selector.call0()?;
        // A class has the `__await__` of its instances: as a factory it is called later, and not awaited now.
        match default.hasattr("__await__")? && !default.is_callable() {
            true => Ok(self.runtime.finish.bind(self.py).call1((default,))?.unbind()),
            false => Ok(default.unbind()),
        }
    }

    fn find(
        &self,
        function: &Function,
        namespaces: &BTreeMap<BlockId, Bound<'py, PyDict>>,
    ) -> Result<Py<PyAny>, LoadError> {
        let block = &self.plan[function.block];
        let found = namespaces[&function.block].get_item(&function.name).ok().flatten();
        found.map(Bound::unbind).ok_or_else(|| LoadError {
            block: name(block),
            at: self.at(function.place),
            fault: Box::new(Fault::new(
                "NameError",
                format!("\"{}\" is not defined after the block has run", function.name),
            )),
        })
    }

    /// Refuses mocks that replace nothing: a test with them shows less than it says.
    pub fn check_mocks(&self) -> Result<(), LoadError> {
        let faults = self.mocks.as_ref().map(|mocks| mocks.faults(self.py)).transpose();
        let faults = faults.map_err(|error| internal(self.py, &error))?;
        match faults.into_iter().flatten().next() {
            None => Ok(()),
            Some((name, error)) => Err(LoadError {
                block: format!("the mock \"{name}\""),
                at: "tests.yaml".to_owned(),
                fault: Box::new(fault(self.py, &error, self.runtime)),
            }),
        }
    }

    fn refused(&self, block: &Block, error: &PyErr) -> LoadError {
        let (line, column) = block.lines.at(1, 1);
        let place = Place { file: block.file, line, column };
        LoadError { block: name(block), at: self.at(place), fault: Box::new(fault(self.py, error, self.runtime)) }
    }

    fn at(&self, place: Place) -> String {
        format!("{}:{}", self.plan[place.file], place.line)
    }

    /// Gives tracebacks the lines of the blocks, under the numbers that their code objects have.
    fn remember_lines(&self) {
        let mut files: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (id, block) in self.block_ids().zip(&self.plan.blocks) {
            let lines = files.entry(self.runtime.lines.file(id)).or_default();
            for (number, text) in block.code.lines().enumerate() {
                let row = u32::try_from(number + 1).unwrap_or(u32::MAX);
                let in_yaml = |row| block.lines.at(row, 1).0.saturating_sub(1) as usize;
                let at = if self.runtime.lines.are_own(id) { number } else { in_yaml(row) };
                if lines.len() <= at {
                    lines.resize(at + 1, "\n".to_owned());
                }
                lines[at] = format!("{text}\n");
            }
        }
        for (file, lines) in files {
            // Without them a traceback only lacks its source lines.
            let _ = self.runtime.remember.bind(self.py).call1((file, lines));
        }
    }
}

fn name(block: &Block) -> String {
    format!("{}: {}", block.owner, block.role)
}

/// The fault of the executor rather than of a block.
pub fn internal(py: Python<'_>, error: &PyErr) -> LoadError {
    let fault = Fault::new("PythonStart", error.value(py).to_string());
    LoadError { block: "Python".to_owned(), at: "-".to_owned(), fault: Box::new(fault) }
}
