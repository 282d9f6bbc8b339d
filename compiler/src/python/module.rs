//! Text to [`Module`].

use std::ops::Range;

use kaspr_ir::plan::Shape;
use ruff_python_ast::visitor::{Visitor, walk_expr, walk_stmt};
use ruff_python_ast::{Expr, ParameterWithDefault, PythonVersion, Stmt};
use ruff_python_parser::{Mode, ParseOptions, parse_unchecked};
use ruff_text_size::{Ranged, TextRange};

use super::reads as only_reads;
use super::{Defined, Module, Parameters};

/// Reads a block. It never fails: what does not parse is among the faults.
pub fn read(text: &str, (major, minor): (u8, u8)) -> Module {
    let version = PythonVersion { major, minor };
    let parsed = parse_unchecked(text, ParseOptions::from(Mode::Module).with_target_version(version));
    let mut module = Module::default();
    for error in parsed.errors() {
        module.faults.push((range(error.location), error.error.to_string()));
    }
    if module.faults.is_empty() {
        for error in parsed.unsupported_syntax_errors() {
            module.faults.push((range(error.range()), error.to_string()));
        }
    }
    module.faults.truncate(1);
    if let Some(parsed) = parsed.try_into_module() {
        let mut reader = Reader { module, depth: 0 };
        for stmt in parsed.suite() {
            reader.top(stmt);
        }
        module = reader.module;
    }
    if only_reads::BUILTINS.iter().any(|name| module.names.contains(*name)) {
        module.functions.iter_mut().for_each(|function| function.only_reads = false);
    }
    module
}

fn range(range: TextRange) -> Range<usize> {
    range.start().to_usize()..range.end().to_usize()
}

/// Walks a module once for what it binds and mentions.
struct Reader {
    module: Module,
    depth: usize,
}

impl Reader {
    /// A statement of the module's top level, or of an `if`, `try`, `with`, `for` or `while` there.
    fn top(&mut self, stmt: &Stmt) {
        self.visit_stmt(stmt);
    }

    fn define(&mut self, defined: Defined) {
        self.module.names.insert(defined.name.clone());
        self.module.functions.push(defined);
    }

    fn bind(&mut self, target: &Expr) {
        match target {
            Expr::Name(name) => {
                self.module.names.insert(name.id.to_string());
            }
            Expr::Tuple(tuple) => tuple.elts.iter().for_each(|target| self.bind(target)),
            Expr::List(list) => list.elts.iter().for_each(|target| self.bind(target)),
            Expr::Starred(starred) => self.bind(&starred.value),
            _ => {}
        }
    }

    fn assign(&mut self, target: &Expr, value: &Expr) {
        if let (Expr::Name(name), Expr::Lambda(lambda)) = (target, value) {
            let parameters = lambda.parameters.as_deref();
            self.define(Defined {
                name: name.id.to_string(),
                at: range(name.range()),
                shape: Shape::Plain,
                parameters: Some(parameters.map(self::parameters).unwrap_or_default()),
                only_reads: parameters.and_then(first_name).is_some_and(|_| only_reads::expression(&lambda.body)),
                gives_value: true,
                returns_list: matches!(*lambda.body, Expr::List(_) | Expr::ListComp(_)),
            });
            return;
        }
        self.bind(target);
    }
}

impl<'a> Visitor<'a> for Reader {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        if self.depth == 0 {
            match stmt {
                Stmt::FunctionDef(function) => self.define(defined(function)),
                Stmt::ClassDef(class) => {
                    self.module.names.insert(class.name.to_string());
                }
                Stmt::Assign(assign) => assign.targets.iter().for_each(|target| self.assign(target, &assign.value)),
                Stmt::AnnAssign(assign) => {
                    if let Some(value) = &assign.value {
                        self.assign(&assign.target, value);
                    }
                }
                Stmt::AugAssign(assign) => self.bind(&assign.target),
                Stmt::For(stmt) => self.bind(&stmt.target),
                Stmt::With(with) => {
                    with.items
                        .iter()
                        .filter_map(|item| item.optional_vars.as_deref())
                        .for_each(|target| self.bind(target));
                }
                Stmt::Import(import) => {
                    for alias in &import.names {
                        let name = alias.asname.as_ref().map_or_else(
                            || alias.name.split('.').next().unwrap_or_default().to_owned(),
                            ToString::to_string,
                        );
                        self.module.names.insert(name);
                    }
                }
                Stmt::ImportFrom(import) => {
                    for alias in &import.names {
                        self.module.is_opaque |= alias.name.as_str() == "*";
                        self.module.names.insert(alias.asname.as_ref().unwrap_or(&alias.name).to_string());
                    }
                }
                _ => {}
            }
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
                "exec" | "eval" | "globals" | "vars" | "locals" | "setattr" | "__import__" => {
                    // What such code reaches cannot be seen.
                    self.module.is_opaque = true;
                    self.module.mentions_context = true;
                }
                _ => {}
            },
            Expr::Named(named) if self.depth == 0 => self.bind(&named.target),
            _ => {}
        }
        walk_expr(self, expr);
    }
}

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
    let reads =
        shape == Shape::Plain && first_name(&function.parameters).is_some_and(|_| only_reads::body(&function.body));
    Defined {
        name: function.name.to_string(),
        at: range(function.name.range()),
        shape,
        parameters: plain.then(|| parameters(&function.parameters)),
        only_reads: reads,
        gives_value: body.gives_value || body.yields || body.raises,
        returns_list: body.returns_list,
    }
}

fn first_name(parameters: &ruff_python_ast::Parameters) -> Option<String> {
    let first = parameters.posonlyargs.iter().chain(&parameters.args).next()?;
    Some(first.parameter.name.to_string())
}

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

/// What a function's own body does, nested functions apart.
#[derive(Default)]
struct Body {
    yields: bool,
    gives_value: bool,
    raises: bool,
    returns_list: bool,
}

impl<'a> Visitor<'a> for Body {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        match stmt {
            Stmt::FunctionDef(_) | Stmt::ClassDef(_) => return,
            Stmt::Return(returned) => {
                self.gives_value |= returned.value.is_some();
                let list =
                    returned.value.as_deref().is_some_and(|value| matches!(value, Expr::List(_) | Expr::ListComp(_)));
                self.returns_list |= list;
            }
            Stmt::Raise(_) => self.raises = true,
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
