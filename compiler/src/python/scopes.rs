//! Scopes of a block: names that nothing defines, and what the grammar allows and CPython's
//! compiler refuses (`return` outside a function, `await` outside `async def`, …).
//!
//! Names resolve as Python's do: the scopes of functions from the inside out, then the module; a
//! class's body only from the body itself. Whether a name is bound *before* it is used is not asked.
//!
//! ```text
//! def f(v):
//!     return [w + k for w in v]         K0506: "k" is not defined, visible: [f, v, w]
//! return 1                              K0501: 'return' outside function
//! ```
//!
//! The second kind of fault is the parser's library's (`SemanticSyntaxChecker`): it is shown every node and asks back
//! where it stands, which [`Around`] answers.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::Range;

use ruff_python_ast::visitor::{Visitor, walk_expr, walk_stmt};
use ruff_python_ast::{
    Comprehension, ExceptHandler, Expr, Parameters, PythonVersion, Stmt, StmtClassDef, StmtFunctionDef, StmtTry,
    TypeParams,
};
use ruff_python_parser::semantic_errors::{
    LazyImportContext, SemanticSyntaxChecker, SemanticSyntaxContext, SemanticSyntaxError,
};
use ruff_text_size::{Ranged, TextRange};

use super::bindings::{Bindings, parameter_names, range};
use super::{Unresolved, is_builtin};

/// Findings of the walk.
///
/// Of one module; names are sorted out against the init block in `check`.
#[derive(Default)]
pub struct Found {
    /// Code that CPython's compiler refuses, and the reasons.
    pub faults: Vec<(Range<usize>, String)>,
    /// Names bound at the module's top level or declared `global` anywhere.
    pub names: HashSet<String>,
    /// Names that nothing here defines and that are no builtins; each at its first use.
    pub unresolved: Vec<Unresolved>,
    /// Some name is deleted.
    pub deletes: bool,
}

/// Walks a module.
///
/// `source` is the text that was parsed, which the library's checks look into.
pub fn walk(suite: &[Stmt], source: &str, version: PythonVersion) -> Found {
    let mut walker = Walker {
        checker: SemanticSyntaxChecker::new(),
        around: Around {
            scopes: vec![Scope::new(Kind::Module, Bindings::of(suite))],
            errors: RefCell::new(Vec::new()),
            source,
            version,
            lazy_annotations: version >= PythonVersion::PY314 || suite.iter().any(imports_annotations),
        },
        globals: HashSet::new(),
        unresolved: Vec::new(),
        deletes: false,
        guards: 0,
    };
    walker.visit_body(suite);
    let Walker { around, globals, mut unresolved, deletes, .. } = walker;
    let module = around.scopes.into_iter().next().map(|scope| scope.bindings).unwrap_or_default();
    // Only now are all `global` declarations known: a function further down may bind the name in the module.
    unresolved.retain(|unresolved| !globals.contains(unresolved.name.as_str()));
    // One slip that is used ten times is one fault.
    let mut seen = HashSet::new();
    unresolved.retain(|unresolved| seen.insert(unresolved.name.clone()));
    Found {
        faults: around.errors.into_inner().iter().map(|error| (range(error.range), error.to_string())).collect(),
        names: module.names.into_iter().chain(globals).map(str::to_owned).collect(),
        unresolved,
        deletes,
    }
}

/// `from __future__ import annotations`: annotations are not evaluated.
///
/// From Python 3.14 they never are, unless code asks for them (PEP 649).
fn imports_annotations(stmt: &Stmt) -> bool {
    let Stmt::ImportFrom(import) = stmt else { return false };
    import.module.as_deref() == Some("__future__")
        && import.names.iter().any(|name| name.name.as_str() == "annotations")
}

/// Kind of a scope. Type parameters (`def f[T]`) have one of their own between the function and its surroundings.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Module,
    Class,
    Function { is_async: bool },
    Lambda,
    Comprehension { is_async: bool, is_generator: bool },
    TypeParameters,
}

/// A scope that the walk is inside of.
struct Scope<'a> {
    kind: Kind,
    bindings: Bindings<'a>,
    /// Empty but for functions and lambdas.
    parameters: Vec<&'a str>,
    /// Loops around the current statement.
    loops: usize,
}

impl<'a> Scope<'a> {
    /// A scope without parameters.
    fn new(kind: Kind, bindings: Bindings<'a>) -> Scope<'a> {
        Scope { kind, bindings, parameters: Vec::new(), loops: 0 }
    }

    /// The scope of a function or a lambda, which binds its parameters too.
    fn with_parameters(kind: Kind, bindings: Bindings<'a>, parameters: Option<&'a Parameters>) -> Scope<'a> {
        match parameters {
            Some(parameters) => Scope {
                kind,
                bindings: bindings.with_parameters(parameters),
                parameters: parameter_names(parameters).collect(),
                loops: 0,
            },
            None => Scope::new(kind, bindings),
        }
    }
}

/// Surroundings of the node that is visited, as the parser's own checks ask for them.
///
/// The scopes are a stack, outermost first; the module's is always there.
struct Around<'a> {
    scopes: Vec<Scope<'a>>,
    /// Faults so far. The library reports through a shared reference, hence the cell.
    errors: RefCell<Vec<SemanticSyntaxError>>,
    source: &'a str,
    version: PythonVersion,
    /// Annotations are not evaluated, so names in them are not looked up.
    lazy_annotations: bool,
}

impl Around<'_> {
    /// Kinds of the scopes, innermost first.
    ///
    /// Without type parameters, which change nothing about `return`, `yield` and `await`.
    fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.scopes.iter().rev().map(|scope| scope.kind).filter(|kind| *kind != Kind::TypeParameters)
    }

    /// The kind of the innermost scope.
    fn kind(&self) -> Kind {
        self.kinds().next().unwrap_or(Kind::Module)
    }
}

impl SemanticSyntaxContext for Around<'_> {
    fn future_annotations_or_stub(&self) -> bool {
        self.lazy_annotations
    }

    // Lazy imports (PEP 810) are not known here.
    fn lazy_import_context(&self) -> Option<LazyImportContext> {
        None
    }

    fn python_version(&self) -> PythonVersion {
        self.version
    }

    fn source(&self) -> &str {
        self.source
    }

    fn global(&self, name: &str) -> Option<TextRange> {
        self.scopes.last().and_then(|scope| scope.bindings.globals.get(name).copied())
    }

    fn has_nonlocal_binding(&self, name: &str) -> bool {
        // Every method can name it: the compiler binds it around class bodies.
        if name == "__class__" {
            return true;
        }
        let around = self.scopes.split_last().map_or(&[] as &[_], |(_, around)| around);
        let is_function = |kind| matches!(kind, Kind::Function { .. } | Kind::Lambda | Kind::TypeParameters);
        around.iter().any(|scope| is_function(scope.kind) && scope.bindings.names.contains(name))
    }

    // Comprehensions are async where the function around them is.
    fn in_async_context(&self) -> bool {
        for kind in self.kinds() {
            match kind {
                Kind::Class | Kind::Lambda => return false,
                Kind::Function { is_async } => return is_async,
                _ => {}
            }
        }
        false
    }

    // A generator expression may await wherever it stands: it runs later, and is then an async generator.
    fn in_await_allowed_context(&self) -> bool {
        for kind in self.kinds() {
            match kind {
                Kind::Class => return false,
                Kind::Function { .. } | Kind::Lambda | Kind::Comprehension { is_generator: true, .. } => return true,
                _ => {}
            }
        }
        false
    }

    fn in_yield_allowed_context(&self) -> bool {
        matches!(self.kind(), Kind::Function { .. } | Kind::Lambda)
    }

    fn in_sync_comprehension(&self) -> bool {
        self.kinds().any(|kind| kind == Kind::Comprehension { is_async: false, is_generator: false })
    }

    fn in_class_body_comprehension(&self) -> bool {
        let mut kinds = self.kinds().skip_while(|kind| matches!(kind, Kind::Comprehension { .. }));
        kinds.next() == Some(Kind::Class)
    }

    fn in_module_scope(&self) -> bool {
        self.kind() == Kind::Module
    }

    fn in_function_scope(&self) -> bool {
        matches!(self.kind(), Kind::Function { .. } | Kind::Lambda)
    }

    fn in_generator_context(&self) -> bool {
        self.kinds().any(|kind| matches!(kind, Kind::Comprehension { is_generator: true, .. }))
    }

    // In a notebook `await` may stand at the top level; a block is an ordinary module.
    fn in_notebook(&self) -> bool {
        false
    }

    fn report_semantic_error(&self, error: SemanticSyntaxError) {
        self.errors.borrow_mut().push(error);
    }

    fn in_loop_context(&self) -> bool {
        self.scopes.last().is_some_and(|scope| scope.loops > 0)
    }

    fn is_bound_parameter(&self, name: &str) -> bool {
        self.scopes.last().is_some_and(|scope| scope.parameters.contains(&name))
    }
}

/// The walk over a module: the library's checks and the resolution of names, side by side.
struct Walker<'a> {
    checker: SemanticSyntaxChecker,
    around: Around<'a>,
    globals: HashSet<&'a str>,
    unresolved: Vec<Unresolved>,
    deletes: bool,
    /// `try` bodies around here whose handlers catch a `NameError`.
    guards: usize,
}

impl<'a> Walker<'a> {
    /// Visits something inside a scope.
    fn inside(&mut self, scope: Scope<'a>, visit: impl FnOnce(&mut Self)) {
        self.globals.extend(scope.bindings.globals.keys());
        self.around.scopes.push(scope);
        visit(self);
        self.around.scopes.pop();
    }

    /// Visits something inside the scope of type parameters, where there are any.
    fn with_type_parameters(&mut self, parameters: Option<&'a TypeParams>, visit: impl FnOnce(&mut Self)) {
        let Some(parameters) = parameters else { return visit(self) };
        let mut bindings = Bindings::default();
        bindings.names.extend(parameters.iter().map(|parameter| parameter.name().as_str()));
        self.inside(Scope::new(Kind::TypeParameters, bindings), |walker| {
            walker.visit_type_params(parameters);
            visit(walker);
        });
    }

    /// A function: decorators and defaults outside it, annotations between, the body inside.
    fn function(&mut self, function: &'a StmtFunctionDef) {
        function.decorator_list.iter().for_each(|decorator| self.visit_decorator(decorator));
        self.defaults(&function.parameters);
        self.with_type_parameters(function.type_params.as_deref(), |walker| {
            if !walker.around.lazy_annotations {
                let of_parameters = function.parameters.iter().filter_map(ruff_python_ast::AnyParameterRef::annotation);
                of_parameters.chain(function.returns.as_deref()).for_each(|annotation| walker.visit_expr(annotation));
            }
            let kind = Kind::Function { is_async: function.is_async };
            let scope = Scope::with_parameters(kind, Bindings::of(&function.body), Some(&function.parameters));
            walker.inside(scope, |walker| walker.visit_body(&function.body));
        });
    }

    /// A class: decorators outside, bases within its type parameters, the body inside.
    fn class(&mut self, class: &'a StmtClassDef) {
        class.decorator_list.iter().for_each(|decorator| self.visit_decorator(decorator));
        self.with_type_parameters(class.type_params.as_deref(), |walker| {
            class.arguments.iter().for_each(|arguments| walker.visit_arguments(arguments));
            let scope = Scope::new(Kind::Class, Bindings::of(&class.body));
            walker.inside(scope, |walker| walker.visit_body(&class.body));
        });
    }

    /// Defaults of parameters, which are evaluated where the function is defined.
    fn defaults(&mut self, parameters: &'a Parameters) {
        for default in parameters.iter_non_variadic_params().filter_map(|parameter| parameter.default.as_deref()) {
            self.visit_expr(default);
        }
    }

    /// The body of a loop, where `break` and `continue` may stand, and its `else`, where they may not.
    fn in_loop(&mut self, body: &'a [Stmt], orelse: &'a [Stmt]) {
        let scope = self.around.scopes.len() - 1;
        self.around.scopes[scope].loops += 1;
        self.visit_body(body);
        self.around.scopes[scope].loops -= 1;
        self.visit_body(orelse);
    }

    /// A `try`. In a body whose handlers catch a `NameError` the code expects names to be missing, so none is reported.
    fn attempt(&mut self, attempt: &'a StmtTry) {
        let guards = usize::from(attempt.handlers.iter().any(catches_name_errors));
        self.guards += guards;
        self.visit_body(&attempt.body);
        self.guards -= guards;
        attempt.handlers.iter().for_each(|handler| self.visit_except_handler(handler));
        self.visit_body(&attempt.orelse);
        self.visit_body(&attempt.finalbody);
    }

    /// A comprehension or generator expression: `elements` are what it gives, two for a dict.
    fn comprehension(&mut self, generators: &'a [Comprehension], is_generator: bool, elements: [Option<&'a Expr>; 2]) {
        let Some((first, rest)) = generators.split_first() else { return };
        // The first iterable belongs to the scope around the comprehension.
        self.visit_expr(&first.iter);
        let mut bindings = Bindings::default();
        generators.iter().for_each(|part| bindings.names.extend(Bindings::of_target(&part.target).names));
        let kind = Kind::Comprehension { is_async: generators.iter().any(|part| part.is_async), is_generator };
        self.inside(Scope::new(kind, bindings), |walker| {
            walker.visit_expr(&first.target);
            first.ifs.iter().for_each(|condition| walker.visit_expr(condition));
            rest.iter().for_each(|part| walker.visit_comprehension(part));
            elements.into_iter().flatten().for_each(|element| walker.visit_expr(element));
        });
    }

    /// Looks a name up, and notes it where no scope that can be seen from here binds it.
    ///
    /// `_` and dunder names are never reported: they are there in ways that no statement shows.
    fn resolve(&mut self, name: &'a str, at: TextRange) {
        let is_hidden = name == "_" || (name.starts_with("__") && name.ends_with("__"));
        if self.guards > 0 || is_hidden || is_builtin(name) || self.visible().any(|scope| scope.names.contains(name)) {
            return;
        }
        // Only for the rare name that is missing: these copies are not made for every name.
        let visible = self.visible().flat_map(|scope| scope.names.iter().map(|name| (*name).to_owned())).collect();
        self.unresolved.push(Unresolved { name: name.to_owned(), at: range(at), visible });
    }

    /// Scopes whose names can be seen from here: a class's only from its own body.
    ///
    /// A method does not see the names of its class, but the class's own statements do.
    fn visible(&self) -> impl Iterator<Item = &Bindings<'a>> {
        let mut is_own = true;
        self.around.scopes.iter().rev().filter_map(move |scope| {
            let was_own = is_own;
            is_own &= scope.kind == Kind::TypeParameters;
            (scope.kind != Kind::Class || was_own).then_some(&scope.bindings)
        })
    }
}

/// Tells handlers that may catch a `NameError`.
///
/// An exception that is no plain name may be any, so it counts.
fn catches_name_errors(handler: &ExceptHandler) -> bool {
    let ExceptHandler::ExceptHandler(handler) = handler;
    let catches = |expr: &Expr| match expr {
        Expr::Name(name) => {
            matches!(name.id.as_str(), "NameError" | "Exception" | "BaseException" | "UnboundLocalError")
        }
        _ => true,
    };
    match handler.type_.as_deref() {
        None => true,
        Some(Expr::Tuple(tuple)) => tuple.elts.iter().any(catches),
        Some(expr) => catches(expr),
    }
}

impl<'a> Visitor<'a> for Walker<'a> {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        self.checker.visit_stmt(stmt, &self.around);
        match stmt {
            Stmt::FunctionDef(function) => self.function(function),
            Stmt::ClassDef(class) => self.class(class),
            Stmt::Try(attempt) => self.attempt(attempt),
            Stmt::For(each) => {
                self.visit_expr(&each.iter);
                self.visit_expr(&each.target);
                self.in_loop(&each.body, &each.orelse);
            }
            Stmt::While(each) => {
                self.visit_expr(&each.test);
                self.in_loop(&each.body, &each.orelse);
            }
            Stmt::AnnAssign(assign) => {
                // Annotations of local variables are never evaluated.
                let is_evaluated = !self.around.lazy_annotations && !self.around.in_function_scope();
                assign.value.iter().for_each(|value| self.visit_expr(value));
                is_evaluated.then(|| self.visit_expr(&assign.annotation));
                self.visit_expr(&assign.target);
            }
            // Its value is evaluated when code asks for it.
            Stmt::TypeAlias(alias) => self.visit_expr(&alias.name),
            Stmt::Delete(delete) => {
                self.deletes |= delete.targets.iter().any(Expr::is_name_expr);
                walk_stmt(self, stmt);
            }
            _ => walk_stmt(self, stmt),
        }
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        self.checker.visit_expr(expr, &self.around);
        match expr {
            // Names that are bound were collected with the scope.
            Expr::Name(name) if name.ctx.is_load() => self.resolve(&name.id, name.range()),
            Expr::Lambda(lambda) => {
                let parameters = lambda.parameters.as_deref();
                parameters.iter().for_each(|parameters| self.defaults(parameters));
                let scope = Scope::with_parameters(Kind::Lambda, Bindings::of_target(&lambda.body), parameters);
                self.inside(scope, |walker| walker.visit_expr(&lambda.body));
            }
            Expr::ListComp(list) => self.comprehension(&list.generators, false, [Some(&list.elt), None]),
            Expr::SetComp(set) => self.comprehension(&set.generators, false, [Some(&set.elt), None]),
            Expr::Generator(generator) => self.comprehension(&generator.generators, true, [Some(&generator.elt), None]),
            Expr::DictComp(dict) => {
                self.comprehension(&dict.generators, false, [dict.key.as_deref(), Some(&dict.value)]);
            }
            _ => walk_expr(self, expr),
        }
    }
}
