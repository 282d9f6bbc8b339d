//! The names that a scope binds, as CPython's symbol table finds them.
//!
//! In Python a name is local to a function if *any* statement of the function binds it, wherever it stands. So a
//! scope's names are collected before its statements are judged:
//!
//! ```text
//! def f(v):              names {x, g, n}: `x` by assignment, `g` by def, `n` by the walrus inside the comprehension
//!     x = [n := y for y in v]        (`y` belongs to the comprehension, `v` comes with the parameters)
//!     def g(): z = 1                 (`z` belongs to g)
//! ```

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use ruff_python_ast::visitor::{Visitor, walk_except_handler, walk_expr, walk_pattern, walk_stmt};
use ruff_python_ast::{Alias, ExceptHandler, Expr, Parameters, Pattern, Stmt};
use ruff_text_size::{Ranged, TextRange};

/// Names that the statements of one scope bind; scopes inside it apart.
#[derive(Default)]
pub struct Bindings<'a> {
    /// Names that are assigned, imported, defined or deleted here.
    pub names: HashSet<&'a str>,
    /// Names declared `global` here, and where first.
    pub globals: HashMap<&'a str, TextRange>,
}

impl<'a> Bindings<'a> {
    /// The bindings of a module, a class's body or a function's body.
    ///
    /// A class's body or a function's: its statements alone, without the name and parameters of the function itself.
    pub fn of(body: &'a [Stmt]) -> Bindings<'a> {
        let mut bindings = Bindings::default();
        bindings.visit_body(body);
        bindings
    }

    /// The same with a function's parameters.
    ///
    /// Parameters are bound before the first statement runs.
    pub fn with_parameters(mut self, parameters: &'a Parameters) -> Bindings<'a> {
        self.names.extend(parameter_names(parameters));
        self
    }

    /// The names that an assignment's target binds.
    ///
    /// Also for a lambda's body, where only `:=` can bind something.
    pub fn of_target(target: &'a Expr) -> Bindings<'a> {
        let mut bindings = Bindings::default();
        bindings.visit_expr(target);
        bindings
    }

    /// Visits the defaults of parameters, which are evaluated in the scope around the function.
    fn defaults(&mut self, parameters: &'a Parameters) {
        for default in parameters.iter_non_variadic_params().filter_map(|parameter| parameter.default.as_deref()) {
            self.visit_expr(default);
        }
    }
}

/// The names of a function's parameters.
///
/// In the order of the definition, `*args` and `**kwargs` included.
pub fn parameter_names(parameters: &Parameters) -> impl Iterator<Item = &str> {
    parameters.iter().map(|parameter| parameter.name().as_str())
}

/// The name that an import binds; `None`: every name of a module.
///
/// ```text
/// import os.path          os
/// import os.path as p     p
/// from os import *        None
/// ```
pub fn imported(alias: &Alias) -> Option<&str> {
    match &alias.asname {
        Some(name) => Some(name),
        None if alias.name.as_str() == "*" => None,
        None => alias.name.split('.').next(),
    }
}

impl<'a> Visitor<'a> for Bindings<'a> {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        match stmt {
            // The body is a scope of its own; decorators and defaults are evaluated here and may bind by `:=`.
            Stmt::FunctionDef(function) => {
                self.names.insert(&function.name);
                function.decorator_list.iter().for_each(|decorator| self.visit_decorator(decorator));
                self.defaults(&function.parameters);
            }
            Stmt::ClassDef(class) => {
                self.names.insert(&class.name);
                class.decorator_list.iter().for_each(|decorator| self.visit_decorator(decorator));
                class.arguments.iter().for_each(|arguments| self.visit_arguments(arguments));
            }
            Stmt::Import(import) => self.names.extend(import.names.iter().filter_map(imported)),
            Stmt::ImportFrom(import) => self.names.extend(import.names.iter().filter_map(imported)),
            Stmt::Global(global) => {
                for name in &global.names {
                    // The name itself is bound at the module's top level, not here.
                    self.globals.entry(name).or_insert(global.range());
                }
            }
            // `nonlocal` needs no case: a function around this one binds the name too.
            _ => walk_stmt(self, stmt),
        }
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        match expr {
            // Stored or deleted: `del x` makes a name local as well.
            Expr::Name(name) if !name.ctx.is_load() => {
                self.names.insert(&name.id);
            }
            Expr::Lambda(lambda) => {
                lambda.parameters.iter().for_each(|parameters| self.defaults(parameters));
            }
            _ => walk_expr(self, expr),
        }
    }

    /// A comprehension's targets are its own; what `:=` binds inside it belongs to this scope.
    fn visit_comprehension(&mut self, comprehension: &'a ruff_python_ast::Comprehension) {
        self.visit_expr(&comprehension.iter);
        comprehension.ifs.iter().for_each(|condition| self.visit_expr(condition));
    }

    /// `except E as name` binds the name, and deletes it at the end of the handler; for a scope it is bound.
    fn visit_except_handler(&mut self, handler: &'a ExceptHandler) {
        let ExceptHandler::ExceptHandler(inner) = handler;
        self.names.extend(inner.name.as_ref().map(ruff_python_ast::Identifier::as_str));
        walk_except_handler(self, handler);
    }

    /// A capture pattern binds: `case [first, *rest]`, `case {"a": a, **others}`, `case C() as c`.
    fn visit_pattern(&mut self, pattern: &'a Pattern) {
        let name = match pattern {
            Pattern::MatchAs(pattern) => pattern.name.as_ref(),
            Pattern::MatchStar(pattern) => pattern.name.as_ref(),
            Pattern::MatchMapping(pattern) => pattern.rest.as_ref(),
            _ => None,
        };
        self.names.extend(name.map(ruff_python_ast::Identifier::as_str));
        walk_pattern(self, pattern);
    }
}

/// A range as bytes of the text.
///
/// The parser counts in 32 bits, which blocks of 128 KiB cannot exceed.
pub fn range(range: TextRange) -> Range<usize> {
    range.start().to_usize()..range.end().to_usize()
}
