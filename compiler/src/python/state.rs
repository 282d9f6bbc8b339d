//! Uses of a parameter that is a table, or a list: changes of a table's value that are
//! never assigned back, attributes that tables do not have, a list asked like a dict.
//!
//! Conservative: where a table or its value goes anywhere that is not understood, nothing is said.
//!
//! A table gives copies: what is changed in a value is lost unless the value is assigned back.
//!
//! ```text
//! def f(v, t):
//!     t["k"].append(v)                      lost: K0514
//!     x = t["k"]; x["n"] += 1               lost: x is an *alias* of a value of the table
//!     x = t["k"]; x["n"] = 1; t["k"] = x    kept: something is assigned back
//!     t.scan("k")                           unknown attribute: K0515
//! ```
//!
//! All parameters are looked at as if they were tables and as if they were lists: only `check` knows which is which.

use std::collections::HashSet;
use std::ops::Range;

use ruff_python_ast::visitor::{Visitor, walk_expr, walk_stmt};
use ruff_python_ast::{Expr, Stmt, StmtFunctionDef};
use ruff_text_size::Ranged;

use super::bindings::{Bindings, parameter_names, range};

/// Methods of tables: those of a mutable mapping, and their own.
///
/// See "Tables" in `docs/agents.md`.
pub const TABLE_ATTRIBUTES: [&str; 11] =
    ["get", "keys", "values", "items", "pop", "popitem", "clear", "update", "setdefault", "copy", "prefix_scan"];
/// Methods of a table that give a value of it.
const GIVES: [&str; 2] = ["get", "setdefault"];
/// Methods of a table that neither give a value nor keep one.
const LOOKS: [&str; 4] = ["keys", "values", "items", "prefix_scan"];
/// Methods that change the list, dict or set that they are of.
///
/// Of a value, not of the table itself: `t.setdefault` stores, `t[k].setdefault` changes a copy.
const CHANGES: [&str; 14] = [
    "append",
    "extend",
    "insert",
    "add",
    "update",
    "remove",
    "discard",
    "pop",
    "popitem",
    "clear",
    "sort",
    "reverse",
    "appendleft",
    "setdefault",
];
/// Methods of dicts that lists do not have.
///
/// Tables have them too: the caller asks about lists only for the batch parameter.
const OF_DICTS: [&str; 5] = ["get", "items", "keys", "values", "setdefault"];

/// Uses of one parameter of a function.
///
/// Three questions answered at once; which of them counts depends on the parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// The parameter.
    pub parameter: String,
    /// Were it a table: the first change of a value that is never assigned back.
    pub lost: Option<Range<usize>>,
    /// Were it a table: attributes that it would not have.
    pub unknown: Vec<(String, Range<usize>)>,
    /// Were it a list: where it is first asked like a dict.
    pub as_dict: Option<Range<usize>>,
}

/// Finds a function's uses of its parameters; those that it binds anew are left out.
///
/// A parameter that is bound anew may mean anything behind that.
pub fn of(function: &StmtFunctionDef) -> Vec<Use> {
    let bound = Bindings::of(&function.body);
    let parameters = parameter_names(&function.parameters).filter(|name| !bound.names.contains(*name));
    parameters.map(|name| of_parameter(name, &function.body)).collect()
}

/// Finds the uses of one parameter: first the names that stand for its values, then what is done with them.
fn of_parameter(name: &str, body: &[Stmt]) -> Use {
    let mut aliases = Aliases { table: name, names: HashSet::new(), of_loops: HashSet::new(), second: HashSet::new() };
    aliases.visit_body(body);
    let Aliases { mut names, of_loops, second, .. } = aliases;
    // The name of a loop is often used again, for something else.
    let times = |name: &str| body.iter().map(|stmt| bindings(stmt, name)).sum::<usize>();
    names.extend(of_loops.into_iter().filter(|name| times(name) == 1));
    // What a second name shows or keeps, the first may.
    let mut walker = Walker { table: name, aliases: names, found: Found { shown: second, ..Found::default() } };
    walker.visit_body(body);
    let Found { is_kept, surely, perhaps, shown, unknown, as_dict, asks_type } = walker.found;
    // An alias that is sent or returned may have been changed for that, and not for the table.
    let perhaps = perhaps.filter(|(alias, _)| !shown.contains(alias)).map(|(_, at)| at);
    let lost = surely.into_iter().chain(perhaps).min_by_key(|at| at.start).filter(|_| !is_kept);
    // Code that asks for the type knows that it may get a list.
    Use { parameter: name.to_owned(), lost, unknown, as_dict: as_dict.filter(|_| !asks_type) }
}

/// Tells an expression that is a value of the table: `t[k]`, `t.get(k)`, or a name for one.
///
/// `aliases` are the names that are known to stand for one.
fn is_value(table: &str, aliases: &HashSet<String>, expr: &Expr) -> bool {
    match expr {
        Expr::Subscript(subscript) => is_name(&subscript.value, table),
        Expr::Call(call) => match &*call.func {
            Expr::Attribute(attribute) => GIVES.contains(&attribute.attr.as_str()) && is_name(&attribute.value, table),
            _ => false,
        },
        Expr::Name(name) => aliases.contains(name.id.as_str()),
        _ => false,
    }
}

/// Tells an expression that is a value of the table or something within one, and the name at its root.
///
/// ```text
/// t["k"]["n"].items   ⇒   Some(None): within a value of the table
/// x["n"]              ⇒   Some(Some("x")), where x is an alias
/// v["n"]              ⇒   None
/// ```
fn root<'a>(table: &str, aliases: &HashSet<String>, expr: &'a Expr) -> Option<Option<&'a str>> {
    if is_value(table, aliases, expr) {
        return Some(match expr {
            Expr::Name(name) => Some(name.id.as_str()),
            _ => None,
        });
    }
    match expr {
        Expr::Subscript(subscript) => root(table, aliases, &subscript.value),
        Expr::Attribute(attribute) => root(table, aliases, &attribute.value),
        Expr::Call(call) => match &*call.func {
            Expr::Attribute(attribute) if GIVES.contains(&attribute.attr.as_str()) => {
                root(table, aliases, &attribute.value)
            }
            _ => None,
        },
        _ => None,
    }
}

/// True if the expression is just this name.
fn is_name(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::Name(found) if found.id.as_str() == name)
}

/// Names that are given a value of the table.
///
/// Only plain assignments of a value make one: `x = t[k]`, not `x = t[k]["n"]`.
struct Aliases<'a> {
    table: &'a str,
    names: HashSet<String>,
    /// Names that loops over the table give its values.
    of_loops: HashSet<String>,
    /// Names that are given what another name has.
    second: HashSet<String>,
}

/// Counts the places in a statement that bind the name.
fn bindings(stmt: &Stmt, name: &str) -> usize {
    struct Counts<'n>(&'n str, usize);
    impl<'a> Visitor<'a> for Counts<'_> {
        fn visit_expr(&mut self, expr: &'a Expr) {
            self.1 +=
                usize::from(matches!(expr, Expr::Name(found) if !found.ctx.is_load() && found.id.as_str() == self.0));
            walk_expr(self, expr);
        }
    }
    let mut counts = Counts(name, 0);
    counts.visit_stmt(stmt);
    counts.1
}

/// The name that a loop over `t.values()` or `t.items()` gives the table's values.
fn of_loop<'a>(table: &str, target: &'a Expr, iter: &Expr) -> Option<&'a str> {
    let Expr::Call(call) = iter else { return None };
    let Expr::Attribute(attribute) = &*call.func else { return None };
    if !is_name(&attribute.value, table) {
        return None;
    }
    let value = match (attribute.attr.as_str(), target) {
        ("values", value) => value,
        ("items", Expr::Tuple(pair)) => pair.elts.get(1)?,
        _ => return None,
    };
    Some(value.as_name_expr()?.id.as_str())
}

impl<'a> Visitor<'a> for Aliases<'a> {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        if let Stmt::Assign(assign) = stmt
            && let [Expr::Name(name)] = assign.targets.as_slice()
        {
            self.named(&name.id, &assign.value);
        }
        if let Stmt::For(of) = stmt
            && let Some(name) = of_loop(self.table, &of.target, &of.iter)
        {
            self.of_loops.insert(name.to_owned());
        }
        walk_stmt(self, stmt);
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        if let Expr::Named(named) = expr
            && let Expr::Name(name) = &*named.target
        {
            self.named(&name.id, &named.value);
        }
        walk_expr(self, expr);
    }
}

impl Aliases<'_> {
    /// Notes a name that is given this value.
    fn named(&mut self, name: &str, value: &Expr) {
        if is_value(self.table, &HashSet::new(), value) {
            self.names.insert(name.to_owned());
        } else if is_value(self.table, &self.names, value) {
            self.names.insert(name.to_owned());
            self.second.insert(name.to_owned());
        }
    }
}

/// Findings of the walk about one parameter.
#[derive(Default)]
struct Found {
    /// Something is assigned back, or the table goes where that may be done.
    is_kept: bool,
    /// The first change that can only be meant for the table.
    surely: Option<Range<usize>>,
    /// A field set through an alias: it may be meant for what is sent.
    perhaps: Option<(String, Range<usize>)>,
    /// Aliases that are sent, stored or handed on.
    shown: HashSet<String>,
    /// Attributes that tables do not have, with their places.
    unknown: Vec<(String, Range<usize>)>,
    /// The first use that a list does not allow.
    as_dict: Option<Range<usize>>,
    /// `isinstance` or `type` is named.
    asks_type: bool,
}

/// The walk over a function's body for one parameter.
struct Walker<'a> {
    table: &'a str,
    aliases: HashSet<String>,
    found: Found,
}

impl<'a> Walker<'a> {
    /// An assignment to a part of something.
    ///
    /// To the table itself, `t[k] = …`, it keeps; to a part of one of its values it changes and keeps nothing.
    /// `is_sure` says that the change can hardly be meant for anything but the table.
    fn assigns(&mut self, target: &'a Expr, is_sure: bool) {
        let within = match target {
            Expr::Subscript(subscript) if is_name(&subscript.value, self.table) => {
                self.found.is_kept = true;
                return;
            }
            Expr::Subscript(subscript) => &subscript.value,
            Expr::Attribute(attribute) => &attribute.value,
            _ => return,
        };
        match root(self.table, &self.aliases, within) {
            Some(Some(alias)) if !is_sure => {
                self.found.perhaps.get_or_insert((alias.to_owned(), range(target.range())));
            }
            Some(_) => {
                self.found.surely.get_or_insert(range(target.range()));
            }
            None => {}
        }
    }

    /// A method of the table.
    ///
    /// Methods that neither give nor look (`update`, `pop`) write to the table, so something is kept.
    fn method(&mut self, attribute: &'a ruff_python_ast::ExprAttribute) {
        let name = attribute.attr.as_str();
        if OF_DICTS.contains(&name) {
            self.found.as_dict.get_or_insert(range(attribute.range()));
        }
        if !TABLE_ATTRIBUTES.contains(&name) && !name.starts_with('_') {
            self.found.unknown.push((name.to_owned(), range(attribute.attr.range())));
        }
        self.found.is_kept |= !GIVES.contains(&name) && !LOOKS.contains(&name);
    }
}

impl<'a> Visitor<'a> for Walker<'a> {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        match stmt {
            Stmt::Assign(assign) => {
                // Through a plain name the alias stays in the function; through anything else it leaves it.
                let is_alias = matches!(&*assign.value, Expr::Name(name) if self.aliases.contains(name.id.as_str()));
                // A value that is put somewhere else is on its way.
                self.found.is_kept |= is_alias && !assign.targets.iter().all(Expr::is_name_expr);
                assign.targets.iter().for_each(|target| self.assigns(target, false));
            }
            Stmt::AugAssign(assign) => self.assigns(&assign.target, true),
            Stmt::Delete(delete) => delete.targets.iter().for_each(|target| self.assigns(target, true)),
            _ => {}
        }
        walk_stmt(self, stmt);
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        match expr {
            // The table itself goes somewhere: what is done with it there is not seen.
            Expr::Name(name) if name.id.as_str() == self.table => self.found.is_kept = true,
            Expr::Name(name) if name.ctx.is_load() && self.aliases.contains(name.id.as_str()) => {
                self.found.shown.insert(name.id.to_string());
            }
            Expr::Name(name) if matches!(name.id.as_str(), "isinstance" | "type") => self.found.asks_type = true,
            Expr::Subscript(subscript) => {
                if is_name(&subscript.value, self.table) {
                    // A list is asked by number: text can only be a key.
                    if subscript.slice.is_string_literal_expr() {
                        self.found.as_dict.get_or_insert(range(subscript.range()));
                    }
                } else if !is_alias(&subscript.value, &self.aliases) {
                    self.visit_expr(&subscript.value);
                }
                self.visit_expr(&subscript.slice);
            }
            Expr::Attribute(attribute) if is_name(&attribute.value, self.table) => self.method(attribute),
            // A method or field of an alias does not show it to other code.
            Expr::Attribute(attribute) if is_alias(&attribute.value, &self.aliases) => {}
            Expr::Compare(compare) if compare.comparators.iter().all(|right| is_name(right, self.table)) => {
                self.visit_expr(&compare.left);
            }
            Expr::Call(call) => {
                if let Expr::Attribute(attribute) = &*call.func
                    && CHANGES.contains(&attribute.attr.as_str())
                    && root(self.table, &self.aliases, &attribute.value).is_some()
                {
                    self.found.surely.get_or_insert(range(call.range()));
                }
                walk_expr(self, expr);
            }
            _ => walk_expr(self, expr),
        }
    }
}

/// True if the expression is the name of an alias.
fn is_alias(expr: &Expr, aliases: &HashSet<String>) -> bool {
    matches!(expr, Expr::Name(name) if aliases.contains(name.id.as_str()))
}

#[cfg(test)]
mod tests {
    use super::super::{VERSION, read};
    use super::*;

    fn used(text: &str, parameter: &str) -> Use {
        let module = read(text, VERSION);
        let uses = &module.functions[0].uses_of_parameters;
        uses.iter().find(|found| found.parameter == parameter).cloned().unwrap_or_default()
    }

    #[test]
    fn changes_that_are_never_assigned_back_are_seen() {
        for body in [
            "s = t['s']; s['n'] += 1; return s",
            "t.setdefault(k, {'l': []})['l'].append(v)",
            "t[k].append(v)",
            "t[k]['n'] += 1",
            "t[k]['a']['b'] = v; return v",
            "t.get(k)['n'] = 1",
            "del t[k]['n']",
            "s = t.get(k, []); s.append(v); return v",
            "s = t.get(k, {}); s['l'].append(v); return s",
            "s = t.get(k, {}); s['n'] = 1; return v",
            "x = t[k].pop(); return x",
            "t[k].n = 1",
            "s = t.get(k)\n    if s is None: s = {'n': 0}\n    s['n'] += 1",
            "s = t.get(k, []); u = s; u.append(1); return v",
            "if (s := t.get(k)) is not None: s['n'] = 1",
            "if (s := t.get(k)) is not None: s['n'] += 1\n    return v",
            "for s in t.values(): s['n'] += 1",
            "for k, s in t.items(): s.append(v)",
        ] {
            assert!(used(&format!("def f(v, t, k):\n    {body}"), "t").lost.is_some(), "{body}");
        }
    }

    #[test]
    fn a_doubt_says_nothing_of_a_table() {
        for body in [
            "s = t[k]; s['n'] += 1; t[k] = s",
            "t[k] += 1",
            "t[k] = v",
            "s = t.get(k, 0); s += 1; t[k] = s",
            "t[k].append(v); save(t, k)",
            "s = t[k]; s['n'] += 1; t.update({k: s})",
            "s = t[k]; s['n'] += 1; other[k] = s; del t[k]",
            "user = t.get(k, {}); user['seen'] = v; return user",
            "s = dict(t[k]); s['n'] += 1; return s",
            "s = t[k].copy(); s['n'] += 1; return s",
            "return k in t and t[k]['n']",
            "t = {}; t[k].append(1)",
            "def g(): t[k] = s\n    s = t[k]; s.append(1); g()",
            "del t[k]",
            "t.pop(k).append(1)",
            "s = t[k]; u = s; u['n'] = v; return s",
            "for s in t.values(): yield s['n']",
            "for k, s in t.items(): s['n'] += 1; t[k] = s",
            "for s in t.values(): s['n'] = 1; yield s",
            "for s in t.values(): v += s['n']\n    s = []; s.append(v); return s",
            "for k in t.keys(): k.append(1)",
            "for s in t.values(): s = dict(s); s['n'] += 1; yield s",
        ] {
            assert_eq!(used(&format!("def f(v, t, k):\n    {body}"), "t").lost, None, "{body}");
        }
    }

    #[test]
    fn attributes_are_those_of_tables() {
        let unknown = |body: &str| used(&format!("def f(v, t):\n    {body}"), "t").unknown;
        assert_eq!(unknown("return t.gett(v)")[0].0, "gett");
        assert!(unknown("return t.get(v), t.items(), t.__len__()").is_empty());
    }

    #[test]
    fn a_list_is_not_asked_like_a_dict() {
        let as_dict = |body: &str| used(&format!("def f(v):\n    {body}"), "v").as_dict;
        for body in ["return v['id']", "return v.get('id')", "for k, x in v.items(): pass", "v['a'] = 1"] {
            assert!(as_dict(body).is_some(), "{body}");
        }
        for body in [
            "return [x['id'] for x in v]",
            "return v[0]['id']",
            "v = v[0]; return v['id']",
            "if isinstance(v, dict): return v['id']",
            "return len(v)",
        ] {
            assert_eq!(as_dict(body), None, "{body}");
        }
    }
}
