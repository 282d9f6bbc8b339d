//! Depth of nested Python: a bound before anything walks it.
//!
//! Brackets are bounded before the parse; this bounds what nests without any: `if` under `if`, `a.b.c.d`, `x + y + z`,
//! each a level of the tree.

use ruff_python_ast::visitor::{Visitor, walk_expr, walk_pattern, walk_stmt};
use ruff_python_ast::{Expr, Pattern, Stmt};

/// Deepest nesting of statements and expressions. CPython's own compiler gives up at about three
/// times as many, and people at a tenth of it.
///
/// The stacks of `module` are sized for it: keep them together.
pub const DEPTH_MAX: usize = 1000;

/// Tells statements that nest deeper than is allowed.
pub fn is_deeper(suite: &[Stmt]) -> bool {
    let mut gauge = Gauge { depth: 0, is_exceeded: false };
    gauge.visit_body(suite);
    gauge.is_exceeded
}

///
/// Stops going down at the bound, so that it never recurses further itself.
struct Gauge {
    depth: usize,
    is_exceeded: bool,
}

impl Gauge {
    /// Visits what is inside, one level further down.
    fn below(&mut self, walk: impl FnOnce(&mut Self)) {
        self.depth += 1;
        // Set once and never taken back: the walk comes back up past the place.
        self.is_exceeded |= self.depth > DEPTH_MAX;
        if !self.is_exceeded {
            walk(self);
        }
        self.depth -= 1;
    }
}

impl<'a> Visitor<'a> for Gauge {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        self.below(|gauge| walk_stmt(gauge, stmt));
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        self.below(|gauge| walk_expr(gauge, expr));
    }

    fn visit_pattern(&mut self, pattern: &'a Pattern) {
        self.below(|gauge| walk_pattern(gauge, pattern));
    }
}
