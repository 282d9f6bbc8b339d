//! Text to [`Module`].
//!
//! Three passes: the parser's tree, one walk for functions and what the module mentions, one for scopes. The other
//! questions are asked of single functions on the way. All of it is bounded *before* anything recurses over the tree,
//! because a spec may come from anywhere and the stack must not decide what it does:
//!
//! ```text
//! bytes ≤ 128 KiB ─▶ brackets ≤ 1000 deep ─▶ parse ─▶ tree ≤ 1000 deep ─▶ walks, on a stack of 32 MiB
//! ```

use std::collections::HashSet;

use kaspr_ir::plan::Shape;
use ruff_python_ast::visitor::{Visitor, walk_expr, walk_stmt};
use ruff_python_ast::{Expr, ParameterWithDefault, PythonVersion, Stmt};
use ruff_python_parser::{Mode, ParseOptions, parse_unchecked};
use ruff_text_size::Ranged;

use super::bindings::{Bindings, range};
use super::depth::{DEPTH_MAX, is_deeper};
use super::reads as only_reads;
use super::{Defined, Module, Parameters, fields, flow, loose, scopes, state};

/// Largest block, in bytes of its text.
///
/// Blocks of people are a few KiB. It also bounds how deep a text can nest without brackets.
const BYTES_MAX: usize = 128 << 10;
/// Stack for walks over a module that nests as deep as is allowed.
///
/// 32 KiB for each of the 1000 levels, of which each is several frames of a visitor.
const STACK: usize = 32 << 20;
/// Stack to let go of a module that nests as deep as its text allows.
///
/// The parser has accepted the tree, and dropping it recurses as deep as it is.
const STACK_TO_DROP: usize = 256 << 20;

/// Runs something with room for the walks of all blocks that it reads: one stack for all of them.
///
/// Grows the stack only if less is left. Without it each block would ask for a stack of its own.
pub fn with_room<R>(run: impl FnOnce() -> R) -> R {
    stacker::maybe_grow(2 * STACK, 2 * STACK, run)
}

/// Reads a block. It never fails: what does not parse is among the faults.
///
/// The version is major and minor: newer syntax is a fault. With `faults`, what could be read of the rest is in the
/// module too; with `excess` nothing is.
pub fn read(text: &str, (major, minor): (u8, u8)) -> Module {
    if text.len() > BYTES_MAX {
        let excess = Some("128 KiB of Python".to_owned());
        return Module { excess, ..Module::default() };
    }
    // The parser recurses over brackets, so they are counted before it runs.
    if bracket_depth(text) > DEPTH_MAX {
        let excess = Some(format!("{DEPTH_MAX} levels of nesting"));
        return Module { excess, ..Module::default() };
    }
    stacker::maybe_grow(STACK, STACK, || read_within(text, PythonVersion { major, minor }))
}

/// Depth of brackets, those in strings and comments counted too: what no text that people write
/// comes near needs no exact answer, and CPython gives up at 200.
///
/// ```text
/// f([1, (2)])   ⇒   3
/// ```
fn bracket_depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        // Never negative: a text with more closing brackets than opening ones is a fault of the parser's.
        deepest = deepest.max(depth);
    }
    deepest
}

/// Reads a block that is within its bounds, on a stack that is large enough for them.
fn read_within(text: &str, version: PythonVersion) -> Module {
    let parsed = parse_unchecked(text, ParseOptions::from(Mode::Module).with_target_version(version));
    let mut module = Module::default();
    // Errors after the first are often its echoes.
    let first = parsed.errors().first().map(|error| (range(error.location), error.error.to_string()));
    let unsupported =
        || parsed.unsupported_syntax_errors().first().map(|error| (range(error.range()), error.to_string()));
    module.faults.extend(first.or_else(unsupported));
    let Some(parsed) = parsed.try_into_module() else { return module };
    if is_deeper(parsed.suite()) {
        // Where it is not: `drop` on the stack at hand would overflow it.
        stacker::grow(STACK_TO_DROP, || drop(parsed));
        return Module { excess: Some(format!("{DEPTH_MAX} levels of nesting")), ..Module::default() };
    }
    // First the functions, with what they mention; what the whole module does may then take proofs back below.
    let mut reader = Reader { module, depth: 0, globals: HashSet::new() };
    reader.visit_body(parsed.suite());
    module = std::mem::take(&mut reader.module);
    let found = scopes::walk(parsed.suite(), text, version);
    // Faults of the grammar come first: CPython would not get to those of its compiler.
    if module.faults.is_empty() {
        module.faults = found.faults;
    }
    module.names = found.names;
    module.unresolved = found.unresolved;
    module.hides_names = module.is_opaque || found.deletes;
    // A block that binds `len` itself may do anything in it.
    if only_reads::BUILTINS.iter().any(|name| module.names.contains(*name)) {
        module.functions.iter_mut().for_each(|function| function.only_reads = false);
    }
    // What a name means when it is called is known only if one statement binds it, once.
    let certain = bound_once(parsed.suite(), &reader.globals);
    // Only plain `async def`: an async generator is iterated, not awaited.
    let is_coroutine = |function: &&Defined| function.shape == Shape::Async && certain.contains(function.name.as_str());
    module.coroutines = module.functions.iter().filter(is_coroutine).map(|function| function.name.clone()).collect();
    module.imports = loose::imports(parsed.suite());
    module.loose = loose::of(parsed.suite());
    for function in &mut module.functions {
        // Its name may mean something else by the time it is called.
        if module.is_opaque || !certain.contains(function.name.as_str()) {
            (function.only_reads, function.uses) = (false, None);
        }
    }
    module
}

/// Names that one statement of the module binds, itself and no part of it, and no other ever does.
/// What an assignment binds in passing, by `:=`, makes it uncertain what it binds last.
///
/// ```text
/// def f(v): …                    f is certain
/// f = lambda v: v                f is certain
/// if x: f = g                    f is not: an `if` binds it
/// def f(v): … ; def f(v): …      f is not: bound twice
/// ```
fn bound_once<'a>(suite: &'a [Stmt], globals: &HashSet<String>) -> HashSet<&'a str> {
    let (mut once, mut again) = (HashSet::new(), HashSet::new());
    for stmt in suite {
        let is_simple = match stmt {
            Stmt::FunctionDef(_) => true,
            Stmt::Assign(assign) => assign.targets.iter().all(Expr::is_name_expr) && !binds_in_passing(stmt),
            Stmt::AnnAssign(assign) => assign.target.is_name_expr() && !binds_in_passing(stmt),
            _ => false,
        };
        for name in Bindings::of(std::slice::from_ref(stmt)).names {
            // A function that declares it `global` may bind it at any time.
            if !is_simple || globals.contains(name) || !once.insert(name) {
                again.insert(name);
            }
        }
    }
    &once - &again
}

/// Tells statements in which some expression binds a name by `:=`.
fn binds_in_passing(stmt: &Stmt) -> bool {
    struct Finds(bool);
    impl<'a> Visitor<'a> for Finds {
        fn visit_expr(&mut self, expr: &'a Expr) {
            self.0 |= expr.is_named_expr();
            walk_expr(self, expr);
        }
    }
    let mut finds = Finds(false);
    finds.visit_stmt(stmt);
    finds.0
}

/// Walks a module once for the functions it defines and what it mentions.
///
/// Functions are listed at depth 0 alone; names and imports count at every depth.
struct Reader {
    module: Module,
    /// Functions and classes around the statement.
    depth: usize,
    /// Names that some function declares `global`.
    globals: HashSet<String>,
}

impl Reader {
    /// Notes a lambda that is assigned to a plain name as a function of that name.
    fn assign(&mut self, target: &Expr, value: &Expr) {
        let (Expr::Name(name), Expr::Lambda(lambda)) = (target, value) else { return };
        let parameters = lambda.parameters.as_deref();
        self.module.functions.push(Defined {
            name: name.id.to_string(),
            at: range(name.range()),
            shape: Shape::Plain,
            parameters: Some(parameters.map(self::parameters).unwrap_or_default()),
            only_reads: parameters.and_then(first_name).is_some_and(|_| only_reads::expression(&lambda.body)),
            uses: parameters.and_then(first_name).and_then(|name| fields::of_expression(&name, &lambda.body)),
            uses_of_parameters: Vec::new(),
            gives_value: true,
            returns_list: matches!(*lambda.body, Expr::List(_) | Expr::ListComp(_)),
        });
    }
}

impl<'a> Visitor<'a> for Reader {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        match stmt {
            Stmt::FunctionDef(function) if self.depth == 0 => self.module.functions.push(defined(function)),
            Stmt::Assign(assign) if self.depth == 0 => {
                assign.targets.iter().for_each(|target| self.assign(target, &assign.value));
            }
            Stmt::AnnAssign(assign) if self.depth == 0 => {
                assign.value.iter().for_each(|value| self.assign(&assign.target, value));
            }
            Stmt::Global(global) => self.globals.extend(global.names.iter().map(ToString::to_string)),
            Stmt::ImportFrom(import) => {
                self.module.is_opaque |= import.names.iter().any(|alias| alias.name.as_str() == "*");
                if import.level > 0 {
                    self.module.relative_imports.push(range(import.range()));
                }
            }
            _ => {}
        }
        let scope = matches!(stmt, Stmt::FunctionDef(_) | Stmt::ClassDef(_));
        self.depth += usize::from(scope);
        walk_stmt(self, stmt);
        self.depth -= usize::from(scope);
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        match expr {
            Expr::Name(name) => match name.id.as_str() {
                "context" => self.module.mentions_context = true,
                "exec" | "eval" | "globals" | "vars" | "locals" | "setattr" | "__import__" | "global_enum" => {
                    // What such code reaches cannot be seen.
                    self.module.is_opaque = true;
                    self.module.mentions_context = true;
                }
                _ => {}
            },
            // Puts the members of an enumeration into its module; so does `enum.global_enum`.
            Expr::Attribute(attribute) if matches!(attribute.attr.as_str(), "_convert_" | "global_enum") => {
                self.module.is_opaque = true;
            }
            _ => {}
        }
        walk_expr(self, expr);
    }
}

/// Answers all questions about one `def`.
///
/// Behind a decorator the function that is called may be another one: its shape is unknown, its parameters may be
/// others, and no proof about its body holds.
fn defined(function: &ruff_python_ast::StmtFunctionDef) -> Defined {
    let mut body = Body::default();
    function.body.iter().for_each(|stmt| body.visit_stmt(stmt));
    let plain = function.decorator_list.is_empty();
    let shape = match (plain, function.is_async, body.yields) {
        (false, ..) => Shape::Unknown,
        (true, true, true) => Shape::AsyncGenerator,
        (true, true, false) => Shape::Async,
        (true, false, true) => Shape::Generator,
        (true, false, false) => Shape::Plain,
    };
    // A generator or a coroutine runs on after its call has returned.
    let reads =
        shape == Shape::Plain && first_name(&function.parameters).is_some_and(|_| only_reads::body(&function.body));
    Defined {
        name: function.name.to_string(),
        at: range(function.name.range()),
        shape,
        parameters: plain.then(|| parameters(&function.parameters)),
        only_reads: reads,
        uses: first_name(&function.parameters)
            .filter(|_| plain)
            .and_then(|name| fields::of_body(&name, &function.body)),
        uses_of_parameters: state::of(function),
        gives_value: body.gives_value || body.yields || !flow::ends_without_value(&function.body),
        returns_list: body.returns_list,
    }
}

/// The name of the first positional parameter: the one that gets the value.
fn first_name(parameters: &ruff_python_ast::Parameters) -> Option<String> {
    let first = parameters.posonlyargs.iter().chain(&parameters.args).next()?;
    Some(first.parameter.name.to_string())
}

/// The parameters of a function or a lambda.
fn parameters(parameters: &ruff_python_ast::Parameters) -> Parameters {
    let named = |parameter: &ParameterWithDefault| (parameter.parameter.name.to_string(), parameter.default.is_some());
    Parameters {
        positional: parameters.posonlyargs.iter().chain(&parameters.args).map(named).collect(),
        positional_only: parameters.posonlyargs.len(),
        keyword_only: parameters.kwonlyargs.iter().map(named).collect(),
        takes_more: parameters.vararg.is_some(),
        takes_keywords: parameters.kwarg.is_some(),
    }
}

/// Features of a function's own body, nested functions apart.
///
/// Filled by visiting each of its statements.
#[derive(Default)]
struct Body {
    yields: bool,
    gives_value: bool,
    returns_list: bool,
}

impl<'a> Visitor<'a> for Body {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        match stmt {
            // What a nested function returns or yields is its own.
            Stmt::FunctionDef(_) | Stmt::ClassDef(_) => return,
            Stmt::Return(returned) => {
                self.gives_value |= returned.value.is_some();
                let list =
                    returned.value.as_deref().is_some_and(|value| matches!(value, Expr::List(_) | Expr::ListComp(_)));
                self.returns_list |= list;
            }
            _ => {}
        }
        walk_stmt(self, stmt);
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        match expr {
            Expr::Lambda(_) => return,
            Expr::Yield(_) | Expr::YieldFrom(_) => self.yields = true,
            _ => {}
        }
        walk_expr(self, expr);
    }
}
