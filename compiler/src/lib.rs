//! Compiles KasprAgent specs: text ⇒ YAML ⇒ AST ⇒ HIR ⇒ graph ⇒ rules ⇒ plan.
//!
//! Each arrow has one home. Parsing never fails, *check* alone may reject, everything after it is
//! total. `compile` is a pure function: the same texts give the same bytes.
//!
//! ```text
//! files ─load─▶ text ─yaml─▶ tree ─read─▶ AST ─check─▶ HIR ─lower─▶ graph ─rules─▶ graph ─schedule─▶ plan
//!                     │            │            ▲  │
//!                     └── faults ──┴── faults ──┼──┴── faults ─▶ diagnostics ─▶ text for people, JSON for programs
//!                                               │
//!                                  python: what a code block defines
//! ```
//!
//! The library has two callers: `kasprc`, which prints what comes out, and `kaspr-exec`, whose `main.rs` compiles
//! specs before it runs them. Start reading at [`compile`]; each stage's module says what its result promises.
//!
//! ```
//! use kasprc::{Options, SourceFile, compile};
//!
//! let text = "\
//! apiVersion: kaspr.io/v1alpha1
//! kind: KasprAgent
//! metadata: {name: echo}
//! spec:
//!   input: {topic: {name: in}}
//!   output: {topics: [{name: out}]}
//! ";
//! let file = SourceFile { name: "echo.yaml".to_owned(), bytes: text.as_bytes().to_vec() };
//! let compiled = compile(&[file], &Options::default());
//! assert!(compiled.diagnostics.is_empty());
//! assert_eq!(compiled.plan.expect("there are no errors").readers.len(), 1);
//! ```

#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod ast;
mod block;
mod check;
mod cores;
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

/// Result of a compile: a plan, or the faults that stand in its way.
///
/// `plan` and `graph` are there together, exactly if no *error* was found when the compile ended; warnings do not
/// keep them away, and those that are allowed are not among the diagnostics.
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
    /// At most 1000; a note says how many more there are.
    pub diagnostics: Vec<Diagnostic>,
    /// Things worth knowing that are no faults: documents of other products, options that change nothing, advice where
    /// only faults are asked for, and the number of faults that are not shown.
    pub notes: Vec<String>,
}

/// Compiles all files as one app. Pure and total: whatever the texts, there is an answer. Files count
/// in the order given; `load::files` sorts them.
///
/// All faults of all files are found in one run: no stage stops at the first. Only lowering and what follows waits
/// for a HIR without errors.
pub fn compile(files: &[SourceFile], options: &Options) -> Compiled {
    let mut sink = Sink::new(options.target == Target::Operator);
    // A file that is no UTF-8 counts as an empty one, so that the others are still checked.
    let texts: Vec<&str> = files.iter().enumerate().map(|(number, file)| text(number, file, &mut sink)).collect();
    let mut ast = Ast::default();
    let mut notes = Vec::new();
    for first in (0..texts.len()).step_by(yaml::FILES_AT_ONCE) {
        let several = &texts[first..texts.len().min(first + yaml::FILES_AT_ONCE)];
        for (number, (documents, faults)) in (first..).zip(yaml::parse_all(first, several)) {
            sink.absorb(faults);
            // Behind what is no YAML there may be anything.
            ast.is_partial |= sink.has_errors();
            for document in documents {
                let note = read::document(&document, &mut ast, &mut sink);
                notes.extend(note.map(|note| format!("{}: {note}", files[number].name)));
            }
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
    // One large stack for the Python of all blocks; see `python::with_room`.
    let hir: Hir = python::with_room(|| check::check(ast, names, &texts, options, &mut sink));
    // Asked before allowances are applied: they accept warnings only, so nothing can take an error away.
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
        // `--allow` comes after the comments and annotations: those that accept nothing are reported all the same.
        diagnostics.retain(|fault| fault.code != *code || fault.severity == Severity::Error);
        if diagnostics.len() == before {
            notes.push(format!("--allow {} accepts nothing", code.name()));
        }
    }
    if more > 0 {
        notes.push(format!("{more} more faults are not shown: mend those that are"));
    }
    let mut compiled = Compiled { plan: None, graph: None, hir: None, ast: printed, diagnostics, notes };
    // From here on nothing can fail: a fault that shows up here is a bug of this program, and an assertion.
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
        // The line is counted in bytes, since there is no text to count it in.
        Err(error) => {
            let line = file.bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
            let at = At { file: number, start: error.valid_up_to(), end: error.valid_up_to() };
            let message = format!("the file is not UTF-8: line {line} holds other bytes");
            sink.push(Diagnostic::new(Code::K0001, message, at).hint("save it as UTF-8"));
            ""
        }
    }
}
