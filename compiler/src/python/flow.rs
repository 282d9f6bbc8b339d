//! Control flow: tells statements whose end is reached; conservative, a doubt is a no.
//!
//! For the warning that a function never returns a value (K0507). `raise`, endless loops and calls that leave the
//! program do not come to an end, so a function of nothing else is not said to lack a value.
//!
//! ```text
//! def f(v): print(v)                  ends without a value
//! def f(v): raise ValueError(v)       does not end
//! def f(v):
//!     while True: …                   does not end, as far as can be seen: `break` is not followed
//! ```

use ruff_python_ast::{Expr, Stmt, StmtTry};

/// Functions that do not come back.
///
/// By their last name, whatever they are of: `sys.exit`, `os._exit`, `pytest.fail`.
const ENDS: [&str; 5] = ["exit", "_exit", "quit", "abort", "fail"];

/// Some call of a function with this body comes to its end, or to a `return` without a value.
///
/// The body is passed through only if every statement of it is: one `raise` at its top level keeps all calls from
/// its end. An early `return` behind an `if` counts as passing, since other calls go on.
pub fn ends_without_value(body: &[Stmt]) -> bool {
    body.iter().all(passes)
}

/// True if some call goes on behind the statement, or leaves the function there without a value.
fn passes(stmt: &Stmt) -> bool {
    match stmt {
        Stmt::Raise(_) | Stmt::Continue(_) | Stmt::Break(_) => false,
        Stmt::Return(stmt) => stmt.value.is_none(),
        Stmt::If(stmt) => {
            // Without an else some call goes on behind the `if`.
            let has_else = stmt.elif_else_clauses.iter().any(|clause| clause.test.is_none());
            let mut clauses = stmt.elif_else_clauses.iter();
            !has_else || ends_without_value(&stmt.body) || clauses.any(|clause| ends_without_value(&clause.body))
        }
        Stmt::While(stmt) => !is_constant(&stmt.test),
        Stmt::With(stmt) => ends_without_value(&stmt.body),
        Stmt::Try(stmt) => attempt_passes(stmt),
        // That no case matches is not considered: code whose cases all return means to cover everything.
        Stmt::Match(stmt) => stmt.cases.iter().any(|case| ends_without_value(&case.body)),
        Stmt::Assert(stmt) => !is_constant(&stmt.test),
        Stmt::Expr(stmt) => !never_comes_back(&stmt.value),
        _ => true,
    }
}

/// A `try` is passed if its body and `else` are, or one of its handlers; and its `finally` in any case.
fn attempt_passes(attempt: &StmtTry) -> bool {
    let whole = ends_without_value(&attempt.body) && ends_without_value(&attempt.orelse);
    let handled = attempt.handlers.iter().any(|handler| {
        let ruff_python_ast::ExceptHandler::ExceptHandler(handler) = handler;
        ends_without_value(&handler.body)
    });
    // A `finally` that returns a value or raises does so for all of them.
    (whole || handled) && ends_without_value(&attempt.finalbody)
}

/// True for a literal. `while True` and `while 1` never end by their test; `assert False` always fails.
fn is_constant(test: &Expr) -> bool {
    matches!(test, Expr::BooleanLiteral(_) | Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::NoneLiteral(_))
}

/// True for a call of a function that does not return.
fn never_comes_back(expr: &Expr) -> bool {
    let Expr::Call(call) = expr else { return false };
    match &*call.func {
        Expr::Name(name) => ENDS.contains(&name.id.as_str()),
        Expr::Attribute(attribute) => ENDS.contains(&attribute.attr.as_str()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{VERSION, read};

    fn gives_value(text: &str) -> bool {
        read(text, VERSION).functions[0].gives_value
    }

    #[test]
    fn what_ends_without_a_value_is_seen() {
        for text in [
            "def f(v): v['a'] > 3",
            "def f(v): pass",
            "def f(v):\n    if v is None:\n        return\n    v['a'] = 1",
            "def f(v):\n    if not v:\n        raise ValueError(v)\n    v['a'] > 3",
            "async def f(v):\n    await g(v)",
            "def f(v):\n    try:\n        g(v)\n    except KeyError:\n        raise\n    finally:\n        h()",
            "def f(v):\n    for x in v:\n        if x: continue\n        x()",
            "def f(v):\n    def g(): return 1\n    g()",
        ] {
            assert!(!gives_value(text), "{text}");
        }
    }

    #[test]
    fn a_doubt_is_a_value() {
        for text in [
            "def f(v): return v",
            "def f(v): return None",
            "def f(v): yield",
            "def f(v): raise NotImplementedError",
            "def f(v):\n    if v:\n        raise A\n    else:\n        raise B",
            "def f(v):\n    while True: pass",
            "def f(v):\n    import sys\n    sys.exit(1)",
            "def f(v):\n    with x():\n        raise A",
            "def f(v):\n    assert False",
            "def f(v):\n    if v: return 1",
        ] {
            assert!(gives_value(text), "{text}");
        }
    }
}
