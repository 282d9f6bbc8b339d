//! Fields that a function uses of its value, as far as that can be proven.
//!
//! `v["a"]` read or set, `v.get("a")`, `"a" in v`, `v is None` and `return v` use a field or none;
//! every other mention of the name could show the whole object to other code, and ends the proof. What
//! a field holds may go anywhere: it is decoded whole. Removing a field ends the proof too, because
//! one that is removed and set again moves to the end of its object.
//!
//! ```text
//! def f(v):
//!     if "a" in v and v["b"] > 1:         fields: [a, b, c], gives_it: true
//!         v["c"] = v.get("b")
//!     return v
//!
//! def f(v): return {"x": v}               None: the object goes where it is not seen
//! def f(v): return v.copy()               None: an attribute other than get
//! def f(v): return v[key]                 None: which field is not known
//! ```
//!
//! The rule `project` decodes no more of a value than these fields, so a proof that is wrong would lose data.

use std::collections::BTreeSet;

use kaspr_ir::plan::FieldUse;
use ruff_python_ast::visitor::{Visitor, walk_expr, walk_stmt};
use ruff_python_ast::{CmpOp, Expr, ExprCall, ExprCompare, ExprContext, ExprSubscript, Stmt};

/// Finds the fields of a name's object that statements use; `None`: they may use more of it.
///
/// `name` is the first parameter, `body` the function's. A body that never mentions it uses no fields: `Some` of none.
pub fn of_body(name: &str, body: &[Stmt]) -> Option<FieldUse> {
    let mut uses = Uses { name, ..Uses::default() };
    uses.visit_body(body);
    uses.found()
}

/// Finds the fields of it that a lambda's expression uses.
///
/// The result of the expression is what the lambda returns.
pub fn of_expression(name: &str, expr: &Expr) -> Option<FieldUse> {
    let mut uses = Uses { name, ..Uses::default() };
    uses.returned(expr);
    uses.found()
}

/// The walk over one function, and what it has found so far.
#[derive(Default)]
struct Uses<'n> {
    /// The value's name. Binding it anew ends the proof, as every mention does that is none of the known ones.
    name: &'n str,
    fields: BTreeSet<String>,
    /// Some `return` gives the object itself.
    gives_it: bool,
    /// The proof has failed; nothing can mend it.
    uses_more: bool,
    /// Number of functions that the walk is inside of: their results stay with the caller.
    depth: usize,
}

impl Uses<'_> {
    /// The result, once all has been visited.
    fn found(self) -> Option<FieldUse> {
        let Uses { fields, gives_it, uses_more, .. } = self;
        (!uses_more).then(|| FieldUse { fields: fields.into_iter().collect(), gives_it })
    }

    /// True if the expression is the value's name, read.
    fn is_it(&self, expr: &Expr) -> bool {
        matches!(expr, Expr::Name(name) if name.id.as_str() == self.name && name.ctx.is_load())
    }

    /// Visits what a `return` gives. Only the function's own result is the object; what a nested one returns may go
    /// anywhere, and is judged as any other mention.
    fn returned(&mut self, expr: &Expr) {
        if self.is_it(expr) && self.depth == 0 {
            self.gives_it = true;
        } else {
            self.visit_expr(expr);
        }
    }

    /// Notes a field if the expression is the name of one that JSON writes without escapes.
    ///
    /// `"a"`, but neither `"ä"` nor `"a\"b"`.
    fn takes(&mut self, field: &Expr) -> bool {
        let Expr::StringLiteral(text) = field else { return false };
        let text = text.value.to_str();
        let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\');
        if is_plain {
            self.fields.insert(text.to_owned());
        }
        is_plain
    }

    /// `v["a"]`, read or set; `del v["a"]` is none.
    fn is_field(&mut self, subscript: &ExprSubscript) -> bool {
        // A field that is removed and set again moves to the end of its object: its text could not be kept in place.
        let is_kept = !matches!(subscript.ctx, ExprContext::Del);
        is_kept && self.is_it(&subscript.value) && self.takes(&subscript.slice)
    }

    /// `v.get("a")`, with a default or without.
    ///
    /// A default is visited by itself: it may mention the value too.
    fn is_get(&mut self, call: &ExprCall) -> bool {
        let Expr::Attribute(method) = &*call.func else { return false };
        if method.attr.as_str() != "get" || !self.is_it(&method.value) || !call.arguments.keywords.is_empty() {
            return false;
        }
        match &*call.arguments.args {
            [field] => self.takes(field),
            [field, default] if !default.is_starred_expr() => {
                let is = self.takes(field);
                if is {
                    self.visit_expr(default);
                }
                is
            }
            _ => false,
        }
    }

    /// `"a" in v`, `v is None`, and their opposites.
    ///
    /// In chains like `"a" in v in w` the object is shown to another operand, so only single comparisons count.
    fn is_question(&mut self, compare: &ExprCompare) -> bool {
        match (&*compare.ops, &*compare.comparators) {
            ([CmpOp::In | CmpOp::NotIn], [object]) => self.is_it(object) && self.takes(&compare.left),
            ([CmpOp::Is | CmpOp::IsNot], [Expr::NoneLiteral(_)]) => self.is_it(&compare.left),
            _ => false,
        }
    }
}

impl<'a> Visitor<'a> for Uses<'_> {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        if let Stmt::Return(returned) = stmt {
            return returned.value.iter().for_each(|value| self.returned(value));
        }
        // In a class the name may be written in another way: `__v` of a class `C` is `_C__v`.
        self.uses_more |= stmt.is_class_def_stmt();
        let is_scope = stmt.is_function_def_stmt();
        self.depth += usize::from(is_scope);
        walk_stmt(self, stmt);
        self.depth -= usize::from(is_scope);
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        let is_use = match expr {
            Expr::Subscript(subscript) => self.is_field(subscript),
            Expr::Call(call) => self.is_get(call),
            Expr::Compare(compare) => self.is_question(compare),
            Expr::Name(name) => {
                // Every mention that is not one of the known uses comes here, since those do not visit the name.
                self.uses_more |= name.id.as_str() == self.name;
                true
            }
            _ => false,
        };
        if !is_use {
            walk_expr(self, expr);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::python::{VERSION, read};

    fn uses(text: &str) -> Option<(String, bool)> {
        let uses = read(text, VERSION).functions[0].uses.clone()?;
        Some((uses.fields.join(" "), uses.gives_it))
    }

    #[test]
    fn fields_are_found_where_nothing_else_is_used() {
        for (text, fields, gives_it) in [
            ("def f(v): return v['a']", "a", false),
            ("f = lambda v: v.get('a', {}).get('b') or 'c' not in v", "a c", false),
            ("f = lambda v: v", "", true),
            ("def f(v):\n    v['a'] = v['b'] > 1\n    return v", "a b", true),
            (
                "def f(v):\n    v['a'] += 1\n    v['c']['d'] = 2\n    return None if v is None else f'{v[\"e\"]}'",
                "a c e",
                false,
            ),
            ("def f(v, t):\n    t[v['k']] = t.get(v['k'], 0) + 1\n    return {'k': v['k']}", "k", false),
            ("def f(v):\n    yield from [x for x in v['a'] if x in v.get('b', ())]", "a b", false),
            ("async def f(v):\n    await g(v['a'])\n    return v", "a", true),
            ("def f(v):\n    def g(w): return w\n    return g(v['a'])", "a", false),
        ] {
            assert_eq!(uses(text), Some((fields.to_owned(), gives_it)), "{text}");
        }
    }

    #[test]
    fn whoever_may_see_the_whole_object_gets_it() {
        for text in [
            "def f(v): return g(v)",
            "def f(v):\n    w = v\n    return w['a']",
            "def f(v): return {**v}",
            "def f(v): return [v]",
            "def f(v): return v or 1",
            "def f(v): return len(v)",
            "def f(v): return v == {}",
            "def f(v): return v[k]",
            "def f(v): return v.get(k)",
            "def f(v): return v.get",
            "def f(v): return v.items()",
            "def f(v): return f'{v}'",
            "def f(v): return v.get('a', v)",
            "def f(v): return v.get(*v)",
            "def f(v): return 'a' in v in w",
            "def f(v): return v is w",
            "def f(v): return k in v",
            "def f(v):\n    del v['a']\n    return v",
            "def f(v):\n    v.pop('a')\n    return v",
            "def f(v):\n    v = {}\n    return v",
            "def f(v):\n    for k in v: pass",
            "def f(v):\n    match v:\n        case {'a': 1}: return 2",
            "def f(v):\n    yield v",
            "def f(v):\n    def g(): return v\n    return g()",
            "def f(v): return (lambda: v)()",
            "def f(v):\n    raise ValueError(v)",
            "def f(_C__v):\n    class C:\n        x = __v\n    return C.x",
            "f = d[(f := g)] = lambda v: v['a']",
            "f: (f := g) = lambda v: v['a']",
            "def f(v): return v['\\u00e4']",
            "@cached\ndef f(v): return v['a']",
            "def f(*v): return v['a']",
            "def f(v): return v['a']\nf = cached(f)",
            "def f(v): return v['a']\nif x:\n    def f(v): return v",
            "def f(v): return v['a']\ndef g():\n    global f\n    f = h",
            "if x:\n    def f(v): return v['a']",
        ] {
            assert_eq!(uses(text), None, "{text}");
        }
    }
}
