//! Code blocks: which function runs, and whether it can be called as it will be.
//!
//! A code block is read once by `crate::python`, into a [`Module`] that knows names, functions and their shapes.
//! Here that is held against its use: the field it stands in, the arguments it will be called with, and the init
//! block whose globals it starts with.
//!
//! ```text
//! init: {python: "import json"}                      the block sees json: no K0506
//! operations:
//!   - name: parse
//!     tables: [{name: totals, paramName: t}]         called as f(value, t=…): K0303 if f has no parameter t
//!     map: {python: "def f(v): …"}                   Purpose::Map: K0507 if f never returns a value
//! ```
//!
//! Everything is conservative: where code could bind a name or change a function in a way that cannot be seen
//! (`Module::is_opaque`), nothing is said.

use kaspr_ir::plan::{Block, BlockId, Function, FunctionId, Init, Place, Shape};

use super::Checker;
use crate::ast::Code as Written;
use crate::block::{at, line_map, starts};
use crate::diagnostics::{Code, Diagnostic, nearest, nearest_within};
use crate::python::{Defined, Loose, Module, Refusal, TABLE_ATTRIBUTES, Unresolved, builtins};

/// Blocks and functions in the order in which they are used.
///
/// Ids are places in these lists, so nothing is ever taken out again, not even of an operation that proves faulty.
#[derive(Default)]
pub struct Blocks {
    blocks: Vec<Block>,
    functions: Vec<Function>,
}

impl Blocks {
    /// The lists of the plan.
    pub fn into_parts(self) -> (Vec<Block>, Vec<Function>) {
        (self.blocks, self.functions)
    }

    /// Tells a function that awaits, as far as can be seen.
    ///
    /// False for a function of unknown shape (imported, decorated): it is seen when it is called.
    pub fn awaits(&self, function: FunctionId) -> bool {
        matches!(self.functions[function.index()].shape, Shape::Async | Shape::AsyncGenerator)
    }

    /// Lists a function and gives its id.
    fn add_function(&mut self, function: Function) -> FunctionId {
        self.functions.push(function);
        FunctionId(u32::try_from(self.functions.len() - 1).expect("functions are counted in u32"))
    }
}

/// Owner of the blocks that are checked: an agent, and its init block.
///
/// Made for each agent and each table; an agent's `init` is set once its block has been read.
pub struct Scope {
    /// `agent "echo-agent"`.
    pub owner: String,
    /// The init block.
    pub init: Option<InitBlock>,
}

/// An agent's init block, and what it defines.
///
/// Its code is kept because faults about a function that init defines are shown there.
pub struct InitBlock {
    id: BlockId,
    module: Module,
    code: Written,
}

/// A call of a function: its arguments and its purpose.
///
/// One for each field that names a function; the executor will call it in just this way.
pub struct Call<'a> {
    /// `operation "echo"`.
    pub role: String,
    /// Parameters that tables are given to, and where they are named.
    pub tables: Vec<(&'a str, crate::source::At)>,
    /// True where these are all of them: where one is faulty, what the function is given is not known.
    ///
    /// With a parameter missing, a function that takes it would seem to take one too many.
    pub tables_are_known: bool,
    /// The value is a batch.
    pub is_batch: bool,
    /// Purpose of its result.
    pub purpose: Purpose,
}

impl<'a> Call<'a> {
    /// A call with the value alone.
    pub fn new(role: String, purpose: Purpose) -> Call<'a> {
        Call { role, tables: Vec::new(), tables_are_known: true, is_batch: false, purpose }
    }
}

/// Purpose of a function's result.
///
/// It decides which results make no sense, and how a warning describes the consequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It goes on.
    Map {
        /// The value is a batch and the result goes straight to a topic.
        batch_to_topic: bool,
        /// The value goes nowhere: the function is called for what else it does.
        is_end: bool,
    },
    /// Its truth keeps the value.
    Filter,
    /// It chooses something of what is sent, or whether: the field's name.
    Selector(&'static str),
    /// Nothing: it is called for what it does.
    Sink,
}

impl Purpose {
    /// Names a function that serves this, and the meaning of its silence; `None` where nothing
    /// is expected of it.
    ///
    /// The second text completes "the map "f" never returns a value", as its hint.
    fn needs_value(self) -> Option<(&'static str, &'static str)> {
        Some(match self {
            Purpose::Map { is_end: true, .. } | Purpose::Sink => return None,
            Purpose::Map { .. } => ("map", "without a value None goes on in the event's place"),
            Purpose::Filter => ("filter", "without a value every event is dropped"),
            Purpose::Selector("predicate") => ("predicate", "without a value nothing is sent"),
            Purpose::Selector("nameSelector") => {
                ("nameSelector", "without a value no topic is chosen, and the event fails")
            }
            Purpose::Selector(name @ "keySelector") => (name, "without a value every key is null"),
            Purpose::Selector(name @ "valueSelector") => (name, "without a value None is sent"),
            Purpose::Selector(name @ "partitionSelector") => (name, "without a value it chooses no partition"),
            Purpose::Selector(name @ "headersSelector") => (name, "without a value it chooses no headers"),
            Purpose::Selector(name) => (name, "without a value it chooses nothing"),
        })
    }
}

/// The role of an agent's init block.
const INIT: &str = "init";
/// Modules that are often used and forgotten to be imported.
///
/// A name that is not defined and is one of them gets the hint `import json`.
const MODULES: [&str; 24] = [
    "asyncio",
    "base64",
    "collections",
    "copy",
    "csv",
    "datetime",
    "decimal",
    "functools",
    "hashlib",
    "itertools",
    "json",
    "logging",
    "math",
    "operator",
    "os",
    "random",
    "re",
    "statistics",
    "string",
    "sys",
    "time",
    "typing",
    "urllib",
    "uuid",
];

/// A parser's words as the rest of a sentence.
///
/// ```text
/// Syntax Error: Expected ':'   ⇒   expected ':'
/// ```
fn in_lower_case(reason: &str) -> String {
    let mut reason = reason.strip_prefix("Syntax Error: ").unwrap_or(reason).to_owned();
    if let Some(first) = reason.get(..1).map(str::to_lowercase) {
        reason.replace_range(..1, &first);
    }
    reason
}

impl Checker<'_> {
    /// Adds a block; reports what does not parse.
    ///
    /// `role` names the block in plans, tracebacks and messages: `operation "echo"`. A block that does not parse is
    /// added too, so that ids stay in step.
    fn block(&mut self, scope: &Scope, role: &str, code: &Written) -> (BlockId, Module) {
        let module = self.ahead.take(code, self.python_version);
        if !code.literal {
            let rows = starts(code, self.texts[code.at.file].text);
            self.sink.note_quoted(&code.at, Block::name_of(&scope.owner, role), rows);
        }
        self.check_module(scope, role, code, &module);
        self.blocks.blocks.push(Block {
            owner: scope.owner.clone(),
            role: role.to_owned(),
            init: scope.init.as_ref().map(|init| init.id),
            file: self.place(&code.at).file,
            lines: line_map(code, &self.texts[code.at.file]),
            code: code.text.clone(),
        });
        (BlockId(u32::try_from(self.blocks.blocks.len() - 1).expect("blocks are counted in u32")), module)
    }

    /// Reports the faults that a block has whatever it is for.
    ///
    /// Names are checked only where all that could define them is known: the block and its init parse, and neither
    /// binds names in ways that cannot be seen.
    fn check_module(&mut self, scope: &Scope, role: &str, code: &Written, module: &Module) {
        let text = self.texts[code.at.file].text;
        if let Some(limit) = &module.excess {
            let message = format!("the block exceeds {limit}");
            let hint = "move the code to a module that is installed, and import it";
            self.fault(Diagnostic::new(Code::K0006, message, code.at.head()).hint(hint));
        }
        for (range, reason) in &module.faults {
            let message = format!("the Python does not parse: {}", in_lower_case(reason));
            self.fault(Diagnostic::new(Code::K0501, message, at(code, text, range)));
        }
        for range in &module.relative_imports {
            let message = "relative imports have nothing to be relative to";
            let hint = "a block is not part of a package: import by the full name";
            self.fault(Diagnostic::new(Code::K0510, message, at(code, text, range)).hint(hint));
        }
        let init = scope.init.as_ref().map(|init| &init.module);
        module.loose.iter().for_each(|loose| self.check_loose(code, loose, module, init));
        // A block without a function is a fault of its own (K0503), and its names would echo it.
        let lacks_function = role != INIT && module.functions.is_empty() && code.entrypoint.is_none();
        // What a broken init defines is not known either.
        let hides_names = module.hides_names || init.is_some_and(|init| init.hides_names || !init.is_read());
        let is_sure = module.is_read() && !lacks_function && !hides_names;
        if is_sure {
            module.unresolved.iter().for_each(|unresolved| self.check_name(code, unresolved, init));
        }
    }

    /// A call whose result nothing awaits, or that blocks the loop.
    ///
    /// K0513 and K0512. The first name of the call is looked up as Python would at that place: the block's own bindings
    /// hide init's.
    fn check_loose(&mut self, code: &Written, loose: &Loose, module: &Module, init: Option<&Module>) {
        let name = loose.names[0].as_str();
        let is_own = module.names.contains(name);
        let meant = match init {
            Some(init) if !is_own && !module.imports.contains_key(name) => init,
            _ => module,
        };
        if module.is_opaque || meant.is_opaque {
            return;
        }
        let place = || at(code, self.texts[code.at.file].text, &loose.at);
        if let Some(function) = loose.blocks(&meant.imports) {
            let message = format!("\"{function}\" blocks the event loop");
            let fault = Diagnostic::new(Code::K0513, message, place());
            let hint = match function.as_str() {
                "time.sleep" => "await asyncio.sleep(…), or make the function a plain def".to_owned(),
                _ => format!("await asyncio.to_thread({function}, …), or make the function a plain def"),
            };
            return self.fault(fault.hint(hint));
        }
        // A plain name only: `x.fetch()` may be any object's method.
        let is_coroutine = loose.is_dropped && loose.names.len() == 1 && meant.coroutines.contains(name);
        let dropped = loose.drops_of_library(&meant.imports).or_else(|| is_coroutine.then(|| name.to_owned()));
        if let Some(dropped) = dropped {
            let message = format!("the coroutine \"{dropped}\" is not awaited");
            let fault = Diagnostic::new(Code::K0512, message, place());
            self.fault(fault.hint("write await before it, in an async def: without it nothing of it runs"));
        }
    }

    /// Checks the function's use of the tables and the batch that it is given.
    ///
    /// K0514, K0515 and K0516, from what `crate::python` has found of each parameter.
    fn check_uses(&mut self, code: &Written, found: &Defined, call: &Call<'_>) {
        let text = self.texts[code.at.file].text;
        let of = |name: &str| found.uses_of_parameters.iter().find(|used| used.parameter == name);
        for used in call.tables.iter().filter_map(|(parameter, _)| of(parameter)) {
            let table = &used.parameter;
            if let Some(lost) = &used.lost {
                let message = format!("a change of a value of the table \"{table}\" is never assigned back");
                let fault = Diagnostic::new(Code::K0514, message, at(code, text, lost));
                self.fault(fault.hint(format!("a table gives copies: {table}[key] = value keeps what was changed")));
            }
            for (name, place) in &used.unknown {
                let message = format!("tables have no attribute \"{name}\"");
                let fault = Diagnostic::new(Code::K0515, message, at(code, text, place));
                self.fault(fault.near(name, TABLE_ATTRIBUTES));
            }
        }
        // The batch comes as the first positional argument, whatever that is called.
        let first = found.parameters.as_ref().and_then(|parameters| parameters.positional.first());
        let batch = first.filter(|_| call.is_batch).and_then(|(name, _)| of(name.as_str()));
        if let Some(place) = batch.and_then(|batch| batch.as_dict.as_ref()) {
            let message = format!("\"{}\" is given a list of values and asks it like a dict", found.name);
            let fault = Diagnostic::new(Code::K0516, message, at(code, text, place));
            self.fault(fault.hint("under take a function is given the whole batch: for value in …"));
        }
    }

    /// A name that neither its block nor Python defines.
    ///
    /// `visible` names of the block and those of init are offered as corrections, then Python's builtins.
    fn check_name(&mut self, code: &Written, unresolved: &Unresolved, init: Option<&Module>) {
        let name = unresolved.name.as_str();
        if init.is_some_and(|init| init.names.contains(name)) {
            return;
        }
        let message = format!("\"{name}\" is not defined");
        let own = unresolved.visible.iter().chain(init.into_iter().flat_map(|init| &init.names));
        // Python's own names are many and short: only a slip of the fingers means one of them.
        let near = nearest(name, own.map(String::as_str)).or_else(|| nearest_within(1, name, builtins()));
        let mut diagnostic =
            Diagnostic::new(Code::K0506, message, at(code, self.texts[code.at.file].text, &unresolved.at));
        if let Some(near) = near {
            diagnostic = diagnostic.hint(format!("did you mean \"{near}\"?"));
        }
        if MODULES.contains(&name) {
            diagnostic = diagnostic.hint(format!("import {name}"));
        }
        self.fault(diagnostic.under("neither this block, init nor Python defines it"));
    }

    /// The init block of an agent: what runs, and which function is called then.
    ///
    /// Without an entrypoint, a function named `init` that can be called without arguments is the one; without such a
    /// function the code alone runs. Sets the scope's init block, which all later blocks of the agent start with.
    pub(super) fn init(&mut self, scope: &mut Scope, code: &Written) -> Init {
        let (block, module) = self.block(scope, INIT, code);
        let named = code.entrypoint.as_ref();
        if let Some(entrypoint) = named {
            self.entrypoint_exists(entrypoint, &module, None);
        }
        let called = match named {
            Some(entrypoint) => Some(entrypoint.value.clone()),
            None => {
                // The last definition of a name is the one that Python calls.
                let init = module.functions.iter().rev().find(|found| found.name == "init");
                let callable = |found: &&Defined| found.parameters.as_ref().is_none_or(|p| p.refuses(0, &[]).is_none());
                init.filter(callable).map(|found| found.name.clone())
            }
        };
        let function = called.map(|name| {
            let function = self.function(block, name, &module, code);
            self.blocks.add_function(function)
        });
        scope.init = Some(InitBlock { id: block, module, code: code.clone() });
        Init { block, function }
    }

    /// The function of a block that is called, checked against how.
    ///
    /// `None` where the block has a fault that leaves the function unknown. A function that init defines is checked at
    /// its own place, against this call.
    pub(super) fn call(&mut self, scope: &Scope, code: &Written, call: &Call<'_>) -> Option<FunctionId> {
        let (block, module) = self.block(scope, &call.role, code);
        // What does not parse has been reported, and says nothing about its functions.
        if !module.is_read() {
            return None;
        }
        let name = self.choose(scope, code, &module)?;
        let named = |module: &'_ Module| module.functions.iter().rev().find(|found| found.name == name).cloned();
        if let Some(found) = named(&module) {
            self.check_call(code, &found, call);
        } else if let Some(init) = scope.init.as_ref().filter(|_| !module.names.contains(&name) && !module.is_opaque)
            && let Some(found) = named(&init.module).filter(|_| !init.module.is_opaque)
        {
            self.check_call(&init.code, &found, call);
        }
        let function = self.function(block, name, &module, code);
        Some(self.blocks.add_function(function))
    }

    /// The function that gives a table's missing values.
    ///
    /// Called without a value, or not at all if it is a class or a value: only its result is judged.
    pub(super) fn default_selector(&mut self, owner: &str, code: &Written) -> Option<FunctionId> {
        let scope = Scope { owner: owner.to_owned(), init: None };
        let (block, module) = self.block(&scope, "defaultSelector", code);
        if !module.is_read() {
            return None;
        }
        let name = self.choose(&scope, code, &module)?;
        if let Some(found) = module.functions.iter().rev().find(|found| found.name == name) {
            let place = at(code, self.texts[code.at.file].text, &found.at);
            self.check_value(found, place, Purpose::Selector("defaultSelector"));
        }
        let function = self.function(block, name, &module, code);
        Some(self.blocks.add_function(function))
    }

    /// The entrypoint, else the first function defined in the block.
    ///
    /// Imported functions do not count, and neither do those of init (see "Code blocks" in `docs/semantics.md`).
    /// Without any, K0503; with several and no entrypoint, K0504, a warning, and the first one runs.
    fn choose(&mut self, scope: &Scope, code: &Written, module: &Module) -> Option<String> {
        if let Some(entrypoint) = &code.entrypoint {
            let init = scope.init.as_ref().map(|init| &init.module);
            return self.entrypoint_exists(entrypoint, module, init).then(|| entrypoint.value.clone());
        }
        let text = self.texts[code.at.file].text;
        match module.functions.as_slice() {
            [] => {
                // The first line stands for the block: a label is one line high.
                let whole = 0..code.text.lines().next().map_or(0, str::len);
                let fault = if code.text.trim().is_empty() {
                    Diagnostic::new(Code::K0503, "the block is empty", code.at.clone())
                        .hint("write a function under it, indented further than its name")
                } else {
                    Diagnostic::new(Code::K0503, "the block defines no function", at(code, text, &whole))
                        .hint("define one with def, or name one of init's with entrypoint")
                };
                self.fault(fault);
                None
            }
            [first, rest @ ..] => {
                if let Some(second) = rest.iter().find(|other| other.name != first.name) {
                    let message = format!("several functions and no entrypoint: \"{}\" runs", first.name);
                    self.fault(
                        Diagnostic::new(Code::K0504, message, at(code, text, &first.at))
                            .under("the first one")
                            .label(at(code, text, &second.at), "not this one")
                            .hint(format!("name it: entrypoint: {}", first.name)),
                    );
                }
                Some(first.name.clone())
            }
        }
    }

    /// Reports an entrypoint that neither the block nor init defines (K0502).
    ///
    /// Any name will do, not only a function's: `f = functools.partial(…)` can be called too.
    fn entrypoint_exists(&mut self, entrypoint: &crate::ast::Text, module: &Module, init: Option<&Module>) -> bool {
        // What a broken init defines is not known.
        let known = |module: &Module| !module.is_read() || module.is_opaque || module.names.contains(&entrypoint.value);
        if known(module) || init.is_some_and(known) {
            return true;
        }
        let message = match init {
            Some(_) => format!("the entrypoint \"{}\" is not defined in this block or in init", entrypoint.value),
            None => format!("the entrypoint \"{}\" is not defined in this block", entrypoint.value),
        };
        let functions = module.functions.iter().chain(init.into_iter().flat_map(|init| &init.functions));
        let names: Vec<_> = functions.map(|found| found.name.as_str()).collect();
        let mut diagnostic = Diagnostic::new(Code::K0502, message, entrypoint.at.clone());
        diagnostic = diagnostic.near(&entrypoint.value, names.iter().copied());
        if !names.is_empty() {
            diagnostic = diagnostic.hint(format!("the functions that are: {}", names.join(", ")));
        }
        self.fault(diagnostic);
        false
    }

    /// Checks that a function can be called as it will be, and that its result suits the purpose.
    ///
    /// The first misfit is enough: a function that refuses its arguments never gets to a result.
    fn check_call(&mut self, code: &Written, found: &Defined, call: &Call<'_>) {
        let text = self.texts[code.at.file].text;
        let place = at(code, text, &found.at);
        let name = &found.name;
        let tables: Vec<_> = call.tables.iter().map(|(parameter, _)| *parameter).collect();
        match found.parameters.as_ref().and_then(|parameters| parameters.refuses(1, &tables)) {
            // A table that is faulty may be the argument that seems to be missing.
            Some(_) if !call.tables_are_known => {}
            Some(Refusal::Keyword(parameter)) => {
                let message = format!("the function does not take the table parameter \"{parameter}\"");
                let named = call.tables.iter().find(|(other, _)| **other == parameter).map(|(_, at)| at.clone());
                let mut diagnostic = Diagnostic::new(Code::K0303, message, place);
                if let Some(named) = named {
                    diagnostic = diagnostic.label(named, "given here");
                }
                let all = std::iter::once("value").chain(tables.iter().copied()).collect::<Vec<_>>().join(", ");
                self.fault(diagnostic.hint(format!("def {name}({all}):")));
            }
            Some(Refusal::Count(takes)) => {
                let plural = if takes == 1 { "" } else { "s" };
                let message = format!("the function \"{name}\" takes {takes} value{plural}, 1 is passed");
                self.fault(Diagnostic::new(Code::K0505, message, place).hint("further parameters need defaults"));
            }
            None => {
                self.check_uses(code, found, call);
                self.check_purpose(found, place, call.purpose);
            }
        }
    }

    /// Checks a result against its purpose: K0511 for a generator as a filter, K0508 for a list of a batch, else K0507.
    fn check_purpose(&mut self, found: &Defined, place: crate::source::At, purpose: Purpose) {
        let name = &found.name;
        let yields = matches!(found.shape, Shape::Generator | Shape::AsyncGenerator);
        match purpose {
            Purpose::Filter if yields => {
                let message = format!("the filter \"{name}\" is a generator: it is always true");
                self.fault(Diagnostic::new(Code::K0511, message, place).hint("return True or False"));
            }
            Purpose::Map { batch_to_topic: true, .. } if found.returns_list => {
                let message = format!("the batch function \"{name}\" returns a list: it is sent as one message");
                self.fault(
                    Diagnostic::new(Code::K0508, message, place).hint("use yield to send one message per event"),
                );
            }
            _ => self.check_value(found, place, purpose),
        }
    }

    /// A function that is called for its value has one.
    ///
    /// A warning (K0507): the function may be right, and its author must look.
    fn check_value(&mut self, found: &Defined, place: crate::source::At, purpose: Purpose) {
        let Some((called, consequence)) = purpose.needs_value() else { return };
        if !found.gives_value && found.shape != Shape::Unknown {
            let message = format!("the {called} \"{}\" never returns a value", found.name);
            self.fault(Diagnostic::new(Code::K0507, message, place).hint(consequence));
        }
    }

    /// The function for the plan. Whether it reads `context` is settled by a rule, with its init.
    ///
    /// A name that the block does not define as a function (imported, assigned, init's) gets the block's place and an
    /// unknown shape: the executor looks at what it returns.
    fn function(&self, block: BlockId, name: String, module: &Module, code: &Written) -> Function {
        let text = self.texts[code.at.file].text;
        let found = module.functions.iter().rev().find(|found| found.name == name);
        let place: Place = match found {
            Some(found) => self.place(&at(code, text, &found.at)),
            None => self.place(&code.at),
        };
        Function {
            block,
            name,
            place,
            shape: found.map_or(Shape::Unknown, |found| found.shape),
            reads_context: module.mentions_context,
            only_reads: found.is_some_and(|found| found.only_reads),
            uses: found.and_then(|found| found.uses.clone()),
        }
    }
}
