//! A proof that a function only reads its value: conservative, a doubt is a no.
//!
//! Statements may be a docstring, `if`, `pass` and `return`; expressions may read fields, compare,
//! combine and call a short list of functions and methods that change nothing. Everything that
//! could let the value escape (an assignment, another call, a loop) denies the proof.
//!
//! The rule `forward` lets an event's bytes leave as they came in if every function that saw the value has this
//! proof; so a wrong one would send what the function had changed in its old state.
//!
//! ```text
//! def f(v): return v["a"] > 1 and v.get("b")       proven
//! def f(v): return v.pop("a")                      not: `pop` is no method of the list
//! def f(v): x = v["a"]; return x                   not: an assignment, although it would be harmless
//! ```

use ruff_python_ast::{Expr, Stmt};

/// Methods that change nothing, of every type that JSON gives.
///
/// Of dicts, lists and strings alike, because the type of a value is not known.
const METHODS: [&str; 14] = [
    "get",
    "startswith",
    "endswith",
    "lower",
    "upper",
    "strip",
    "lstrip",
    "rstrip",
    "isdigit",
    "isalpha",
    "count",
    "find",
    "casefold",
    "title",
];
/// Builtins that change nothing and keep nothing, as long as the block binds none of these names itself.
///
/// They call `__len__` and the like of what JSON gives, which does nothing else.
pub const BUILTINS: [&str; 10] = ["len", "isinstance", "str", "int", "float", "bool", "abs", "round", "min", "max"];

/// Tells statements that only read the values they see.
pub fn body(body: &[Stmt]) -> bool {
    body.iter().all(|stmt| match stmt {
        Stmt::Pass(_) => true,
        // A docstring, and no other expression: it would be there for what it does.
        Stmt::Expr(stmt) => matches!(*stmt.value, Expr::StringLiteral(_)),
        Stmt::Return(stmt) => stmt.value.as_deref().is_none_or(expression),
        Stmt::If(stmt) => {
            let rest = stmt.elif_else_clauses.iter();
            expression(&stmt.test)
                && self::body(&stmt.body)
                && rest
                    .into_iter()
                    .all(|clause| clause.test.as_ref().is_none_or(expression) && self::body(&clause.body))
        }
        _ => false,
    })
}

/// Tells expressions that only read the values they see.
pub fn expression(expr: &Expr) -> bool {
    let all = |exprs: &[Expr]| exprs.iter().all(expression);
    match expr {
        Expr::Name(_)
        | Expr::NumberLiteral(_)
        | Expr::StringLiteral(_)
        | Expr::BytesLiteral(_)
        | Expr::BooleanLiteral(_)
        | Expr::NoneLiteral(_) => true,
        Expr::BoolOp(op) => all(&op.values),
        Expr::UnaryOp(op) => expression(&op.operand),
        Expr::BinOp(op) => expression(&op.left) && expression(&op.right),
        Expr::Compare(compare) => expression(&compare.left) && all(&compare.comparators),
        Expr::If(choice) => expression(&choice.test) && expression(&choice.body) && expression(&choice.orelse),
        Expr::Subscript(subscript) => expression(&subscript.value) && expression(&subscript.slice),
        Expr::Tuple(tuple) => all(&tuple.elts),
        Expr::Call(call) => {
            let callee = match &*call.func {
                Expr::Attribute(attribute) => {
                    METHODS.contains(&attribute.attr.as_str()) && expression(&attribute.value)
                }
                Expr::Name(name) => BUILTINS.contains(&name.id.as_str()),
                _ => false,
            };
            // Keywords are refused: `min(v, key=f)` would call any function.
            callee && call.arguments.keywords.is_empty() && all(&call.arguments.args)
        }
        _ => false,
    }
}
