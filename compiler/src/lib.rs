//! Compiles KasprAgent specs: text ⇒ YAML ⇒ AST ⇒ HIR ⇒ graph ⇒ rules ⇒ plan.
//!
//! Each arrow has one home. Parsing never fails, *check* alone may reject, everything after it is
//! total. `compile` is a pure function: the same texts give the same bytes.

#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod ast;
mod block;
mod check;
pub mod diagnostics;
pub mod hir;
pub mod load;
mod lower;
mod options;
mod python;
mod read;
mod rules;
mod schedule;
pub mod schema;
pub mod source;
mod yaml;

use kaspr_ir::graph::Graph;
use kaspr_ir::plan::Plan;

pub use check::settings::names as setting_names;
pub use diagnostics::{Diagnostic, Severity, render};
pub use options::{Options, Target};
pub use python::names_of_block;
pub use source::SourceFile;
pub use yaml::{data, places, rewrite};

use ast::Ast;
use diagnostics::{Code, Sink, allow};
use hir::Hir;
use source::At;

/// Result of a compile.
#[derive(Debug)]
pub struct Compiled {
    /// The plan; `None` where there are errors.
    pub plan: Option<Plan>,
    /// The graph, rules applied; `None` where there are errors.
    pub graph: Option<Graph>,
    /// The HIR, as a debug print where that is asked for; `None` where there are errors.
    pub hir: Option<String>,
    /// The AST, as a debug print where that is asked for.
    pub ast: Option<String>,
    /// All faults, in the order of their places.
    pub diagnostics: Vec<Diagnostic>,
    /// Documents that are somebody else's.
    pub notes: Vec<String>,
}

/// Compiles all files as one app. Pure and total: whatever the texts, there is an answer. Files count
/// in the order given; `load::files` sorts them.
pub fn compile(files: &[SourceFile], options: &Options) -> Compiled {
    let mut sink = Sink::new(options.target == Target::Operator);
    let texts: Vec<&str> = files.iter().enumerate().map(|(number, file)| text(number, file, &mut sink)).collect();
    let mut ast = Ast::default();
    let mut notes = Vec::new();
    for (number, text) in texts.iter().enumerate() {
        let documents = yaml::parse(number, text, &mut sink);
        // Behind what is no YAML there may be anything.
        ast.is_partial |= sink.has_errors();
        for document in documents {
            notes.extend(
                read::document(&document, &mut ast, &mut sink).map(|note| format!("{}: {note}", files[number].name)),
            );
        }
    }
    let printed = options.prints_stages.then(|| format!("{ast:#?}\n"));
    if ast.agents.is_empty() && !sink.has_errors() && !files.is_empty() {
        let message = "the specs hold no KasprAgent";
        if options.only_checks && !(ast.tables.is_empty() && ast.apps.is_empty()) {
            notes.push(format!("{message}: what is there is checked by itself"));
        } else {
            let at = At { file: 0, start: 0, end: 0 };
            sink.push(Diagnostic::new(Code::K0005, message, at).hint("a document with kind: KasprAgent"));
        }
    }
    let mut allowances = std::mem::take(&mut ast.allowances);
    let names = files.iter().map(|file| file.name.clone()).collect();
    let texts: Vec<source::Text<'_>> = texts.into_iter().map(source::Text::new).collect();
    let hir: Hir = python::with_room(|| check::check(ast, names, &texts, options, &mut sink));
    let has_errors = sink.has_errors();
    let advice = sink.take_notes();
    if options.only_checks {
        notes.extend(advice);
    }
    let (diagnostics, more) = sink.into_sorted();
    allowances.extend(texts.iter().enumerate().flat_map(|(file, text)| allow::comments(file, text)));
    let mut diagnostics = allow::apply(diagnostics, &allowances);
    for code in &options.allow {
        let before = diagnostics.len();
        diagnostics.retain(|fault| fault.code != *code || fault.severity == Severity::Error);
        if diagnostics.len() == before {
            notes.push(format!("--allow {} accepts nothing", code.name()));
        }
    }
    if more > 0 {
        notes.push(format!("{more} more faults are not shown: mend those that are"));
    }
    let mut compiled = Compiled { plan: None, graph: None, hir: None, ast: printed, diagnostics, notes };
    if !has_errors {
        compiled.hir = options.prints_stages.then(|| format!("{hir:#?}\n"));
        let graph = rules::apply(lower::lower(hir));
        compiled.plan = Some(schedule::schedule(&graph));
        compiled.graph = Some(graph);
    }
    compiled
}

/// The text of a file; a fault where it is not UTF-8.
fn text<'a>(number: usize, file: &'a SourceFile, sink: &mut Sink) -> &'a str {
    match std::str::from_utf8(&file.bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = file.bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
            let at = At { file: number, start: error.valid_up_to(), end: error.valid_up_to() };
            let message = format!("the file is not UTF-8: line {line} holds other bytes");
            sink.push(Diagnostic::new(Code::K0001, message, at).hint("save it as UTF-8"));
            ""
        }
    }
}
