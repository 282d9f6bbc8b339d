//! Calls that run and do not do what was meant: coroutines that nothing awaits, and calls in
//! `async def` that block the loop.
//!
//! What a name means is settled later, with the init block beside it: here stands which calls are
//! to be asked about.
//!
//! ```text
//! async def f(v):
//!     asyncio.sleep(1)            is_dropped: true, names [asyncio, sleep]     K0512
//!     time.sleep(1)               is_dropped: false, names [time, sleep]       K0513
//!     await fetch(v)              nothing: what is awaited is neither dropped nor blocks
//! ```

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use ruff_python_ast::visitor::{Visitor, walk_expr, walk_stmt};
use ruff_python_ast::{Expr, ExprCall, Parameters, Stmt};
use ruff_text_size::Ranged;

use super::bindings::{Bindings, parameter_names, range};

/// Functions that block, by the module that has them; `requests` blocks in all of its verbs.
///
/// Full names, as imports resolve them.
const BLOCKING: [&str; 15] = [
    "time.sleep",
    "requests.get",
    "requests.post",
    "requests.put",
    "requests.patch",
    "requests.delete",
    "requests.head",
    "requests.options",
    "requests.request",
    "urllib.request.urlopen",
    "subprocess.run",
    "subprocess.call",
    "subprocess.check_call",
    "subprocess.check_output",
    "os.system",
];
/// Coroutines of the library that are called for what they do.
///
/// A call of one of them as a statement does nothing at all.
const COROUTINES: [&str; 4] = ["asyncio.sleep", "asyncio.wait_for", "asyncio.to_thread", "asyncio.wait"];

/// A call to be asked about.
///
/// `check` resolves its names and asks [`Loose::blocks`] and [`Loose::drops_of_library`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loose {
    /// Names of the callee: `time`, `sleep`. The first is a name of the module.
    pub names: Vec<String>,
    /// Its place.
    pub at: Range<usize>,
    /// Nothing awaits its result, or it runs on the loop.
    ///
    /// A call as a statement is noted twice in `async def`: once for each question.
    pub is_dropped: bool,
}

impl Loose {
    /// The whole name, where imports make its first part something.
    ///
    /// ```text
    /// names [sp, run], imports {sp: subprocess}   ⇒   subprocess.run
    /// ```
    fn full_name(&self, imports: &HashMap<String, String>) -> Option<String> {
        let first = imports.get(&self.names[0])?;
        Some(
            std::iter::once(first.as_str())
                .chain(self.names[1..].iter().map(String::as_str))
                .collect::<Vec<_>>()
                .join("."),
        )
    }

    /// The function that blocks the loop here.
    ///
    /// `None` where it does not block, or its name means something else.
    pub fn blocks(&self, imports: &HashMap<String, String>) -> Option<String> {
        self.full_name(imports).filter(|name| !self.is_dropped && BLOCKING.contains(&name.as_str()))
    }

    /// The coroutine of the library that is not awaited here.
    ///
    /// `None` where it is awaited, or no coroutine of the list.
    pub fn drops_of_library(&self, imports: &HashMap<String, String>) -> Option<String> {
        self.full_name(imports).filter(|name| self.is_dropped && COROUTINES.contains(&name.as_str()))
    }
}

/// Dotted names that a module's imports bind; names that mean several things are left out.
///
/// At any depth: an import inside a function is taken for one of the module, unless two of them disagree.
pub fn imports(suite: &[Stmt]) -> HashMap<String, String> {
    let mut finds = Imports::default();
    finds.visit_body(suite);
    finds.found.into_iter().filter_map(|(name, path)| Some((name, path?))).collect()
}

/// The dotted name that each name is bound to; `None` once it has been bound to two.
#[derive(Default)]
struct Imports {
    found: HashMap<String, Option<String>>,
}

impl Imports {
    /// Notes that an import binds a name to a dotted one.
    fn bind(&mut self, name: &str, path: String) {
        let known = self.found.entry(name.to_owned()).or_insert_with(|| Some(path.clone()));
        if known.as_ref() != Some(&path) {
            *known = None;
        }
    }
}

impl<'a> Visitor<'a> for Imports {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        match stmt {
            Stmt::Import(import) => {
                for alias in &import.names {
                    let root = alias.name.split('.').next().unwrap_or_default();
                    match &alias.asname {
                        Some(name) => self.bind(name, alias.name.to_string()),
                        // `import os.path` binds `os`, and `os.path` is found through it.
                        None => self.bind(root, root.to_owned()),
                    }
                }
            }
            // A relative import is a fault of its own (K0510), and what it would bind is not known.
            Stmt::ImportFrom(import) if import.level == 0 => {
                let module = import.module.as_deref().unwrap_or_default();
                for alias in &import.names {
                    let name = alias.asname.as_ref().unwrap_or(&alias.name);
                    self.bind(name, format!("{module}.{}", alias.name));
                }
            }
            _ => walk_stmt(self, stmt),
        }
    }
}

/// The calls of a module that are to be asked about.
///
/// In source order. Names are not resolved yet; only those that a function binds itself are left out.
pub fn of(suite: &[Stmt]) -> Vec<Loose> {
    let mut walker = Walker { frames: Vec::new(), found: Vec::new() };
    walker.visit_body(suite);
    walker.found
}

/// A function around the node that is visited.
///
/// Lambdas are functions too, and never `async`.
struct Frame<'a> {
    is_async: bool,
    /// Names that mean something of the function's own: nothing is known of them.
    locals: HashSet<&'a str>,
}

/// The walk over a module.
struct Walker<'a> {
    frames: Vec<Frame<'a>>,
    found: Vec<Loose>,
}

impl<'a> Walker<'a> {
    /// Notes a call whose callee is a dotted name that starts outside all functions around it.
    fn note(&mut self, call: &'a ExprCall, is_dropped: bool) {
        let Some(names) = dotted(&call.func) else { return };
        // The name is a parameter or a local of some function around: what it stands for is not known.
        if self.frames.iter().any(|frame| frame.locals.contains(names[0])) {
            return;
        }
        let names = names.into_iter().map(str::to_owned).collect();
        self.found.push(Loose { names, at: range(call.range()), is_dropped });
    }

    /// A function, whose names hide those of the module; what it imports itself hides nothing.
    fn inside(
        &mut self,
        is_async: bool,
        body: &'a [Stmt],
        parameters: Option<&'a Parameters>,
        visit: impl FnOnce(&mut Self),
    ) {
        let mut locals = Bindings::of(body).names;
        let own = imports(body);
        // `import time` inside the function binds the same `time` that the module's imports are asked for.
        locals.retain(|name| !own.contains_key(*name));
        locals.extend(parameters.into_iter().flat_map(parameter_names));
        self.frames.push(Frame { is_async, locals });
        visit(self);
        self.frames.pop();
    }

    /// True if the innermost function is `async def`: only its own calls run on the loop.
    fn is_async(&self) -> bool {
        self.frames.last().is_some_and(|frame| frame.is_async)
    }
}

/// `a.b.c` as its names.
///
/// `None` for `f().g` or `a[0].b`: what they name is not known.
fn dotted(expr: &Expr) -> Option<Vec<&str>> {
    match expr {
        Expr::Name(name) => Some(vec![name.id.as_str()]),
        Expr::Attribute(attribute) => {
            let mut names = dotted(&attribute.value)?;
            names.push(&attribute.attr);
            Some(names)
        }
        _ => None,
    }
}

impl<'a> Visitor<'a> for Walker<'a> {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        match stmt {
            Stmt::FunctionDef(function) => {
                // Outside the function: decorators run where it is defined, not when it is called.
                function.decorator_list.iter().for_each(|decorator| self.visit_decorator(decorator));
                self.inside(function.is_async, &function.body, Some(&function.parameters), |walker| {
                    walker.visit_body(&function.body);
                });
            }
            Stmt::Expr(stmt) => {
                if let Expr::Call(call) = &*stmt.value {
                    self.note(call, true);
                }
                self.visit_expr(&stmt.value);
            }
            _ => walk_stmt(self, stmt),
        }
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        match expr {
            Expr::Lambda(lambda) => {
                self.inside(false, &[], lambda.parameters.as_deref(), |walker| walker.visit_expr(&lambda.body));
            }
            Expr::Await(awaited) => match &*awaited.value {
                // What is awaited does not block, whatever it is called.
                Expr::Call(call) => {
                    self.visit_expr(&call.func);
                    self.visit_arguments(&call.arguments);
                }
                other => self.visit_expr(other),
            },
            // A coroutine that is yielded goes on as a value, and nothing awaits it there.
            Expr::Yield(given) => {
                if let Some(Expr::Call(call)) = given.value.as_deref() {
                    self.note(call, true);
                }
                walk_expr(self, expr);
            }
            Expr::Call(call) => {
                if self.is_async() {
                    self.note(call, false);
                }
                walk_expr(self, expr);
            }
            _ => walk_expr(self, expr),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{VERSION, read};

    fn blocking(text: &str) -> Vec<String> {
        let module = read(text, VERSION);
        module.loose.iter().filter_map(|loose| loose.blocks(&module.imports)).collect()
    }

    #[test]
    fn blocking_calls_are_seen_whatever_they_are_called() {
        for text in [
            "import time\nasync def f(v):\n    time.sleep(1)",
            "async def f(v):\n    import time\n    time.sleep(1)",
            "from time import sleep as wait\nasync def f(v):\n    for x in v: wait(1)",
            "import time as t\nasync def f(v):\n    return [t.sleep(1) for x in v]",
        ] {
            assert_eq!(blocking(text), ["time.sleep"], "{text}");
        }
        let text = "import urllib.request, subprocess, requests\nasync def f(v):\n    urllib.request.urlopen(v)\n    \
                    subprocess.run(v)\n    return requests.get(v)";
        assert_eq!(blocking(text), ["urllib.request.urlopen", "subprocess.run", "requests.get"]);
    }

    #[test]
    fn what_does_not_block_the_loop_is_not_said_to() {
        for text in [
            "import time\ndef f(v): time.sleep(1)",
            "import time\nasync def f(v):\n    def g(): time.sleep(1)\n    return g",
            "import time, asyncio\nasync def f(v): await asyncio.to_thread(time.sleep, 1)",
            "import time, asyncio\nasync def f(v): await asyncio.to_thread(lambda: time.sleep(1))",
            "import time\nasync def f(v, time): time.sleep(1)",
            "import time\nasync def f(v):\n    time = v\n    time.sleep(1)",
            "import requests\nasync def f(v): return await requests.get(v)",
            "from trio import sleep\nfrom time import sleep\nasync def f(v): sleep(1)",
            "async def f(v): time.sleep(1)",
        ] {
            assert!(blocking(text).is_empty(), "{text}");
        }
    }

    fn dropped(text: &str) -> Vec<String> {
        let module = read(text, VERSION);
        let own = |loose: &super::Loose| {
            loose.is_dropped && loose.names.len() == 1 && module.coroutines.contains(&loose.names[0])
        };
        module.loose.iter().filter(|loose| own(loose)).map(|loose| loose.names[0].clone()).collect()
    }

    #[test]
    fn coroutines_that_nothing_awaits_are_seen() {
        let lookup = "async def lookup(v): return v\n";
        for text in [
            "async def f(v): lookup(v)",
            "def f(v): yield lookup(v)",
            "async def f(v):\n    if v: lookup(v)\n    yield v",
        ] {
            assert_eq!(dropped(&format!("{lookup}{text}")), ["lookup"], "{text}");
        }
        for text in [
            "async def f(v): await lookup(v)",
            "async def f(v): return await lookup(v)",
            "def f(v): return lookup(v)",
            "async def f(v):\n    x = lookup(v)\n    await x",
            "async def f(v): create_task(lookup(v))",
            "async def f(v, lookup): lookup(v)",
            "def lookup(v): return v\ndef f(v): yield lookup(v)",
        ] {
            assert!(dropped(&format!("{lookup}{text}")).is_empty(), "{text}");
        }
    }
}
