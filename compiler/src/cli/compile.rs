//! `kasprc compile` and `kasprc check`.
//!
//! One function runs both: `check` is a compile of which nothing but faults is printed.

use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use kasprc::diagnostics::{Code, note_to_json, to_json};
use kasprc::{Compiled, Diagnostic, Options, Severity, SourceFile, Target, compile, load, render};

use super::{explain, fail, write};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TargetName {
    /// Specs arrive as they are written.
    Files,
    /// The Kubernetes operator in use today brings them, and drops fields that it does not know.
    Operator,
}

/// Options for finding and printing faults.
#[derive(clap::Args)]
pub struct Faults {
    /// Format of faults on stderr.
    ///
    /// text is for people; json is for programs, one object a line with "code", "severity" (error,
    /// warning or note), "message", "file", "line", "column", "endLine", "endColumn", "label",
    /// "labels" (further places with a "text") and "hints". Lines and columns count from 1.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    message_format: Format,
    /// Warnings fail the compile too.
    #[arg(long)]
    deny_warnings: bool,
    /// The Python version whose syntax is accepted.
    #[arg(long, value_name = "MAJOR.MINOR", default_value = "3.11", value_parser = python_version)]
    python_version: (u8, u8),
    /// Accept warnings of a code. Beside a line the comment "# kaspr: allow CODE" does so.
    #[arg(long, value_name = "CODE", value_parser = explain::code)]
    allow: Vec<Code>,
    /// Path of the specs to the pods: operator warns of fields that would not arrive.
    #[arg(long, value_enum, default_value_t = TargetName::Files)]
    target: TargetName,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Emit {
    /// The plan as text.
    Plan,
    /// The plan as JSON, which kaspr-exec runs.
    Json,
    /// The graph for graphviz.
    Dot,
    /// The graph for documents that draw mermaid.
    Mermaid,
    /// The specs as they were written.
    Ast,
    /// The specs with names resolved and defaults filled in.
    Hir,
    /// The graph, rules applied.
    Graph,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Parses `3.11` into major and minor.
fn python_version(text: &str) -> Result<(u8, u8), String> {
    let (major, minor) = text.split_once('.').ok_or("a version is like 3.11")?;
    match (major.parse(), minor.parse()) {
        (Ok(major), Ok(minor)) => Ok((major, minor)),
        _ => Err("a version is like 3.11".to_owned()),
    }
}

/// Compiles specs and prints what comes out, if anything is to be printed.
///
/// `emit` is what to print and where to; `None` is `kasprc check`. Exit status 1 for an error, or a warning under
/// `--deny-warnings`, and 2 for a path that cannot be read.
pub fn run(paths: &[PathBuf], faults: &Faults, emit: Option<(Emit, Option<PathBuf>)>) -> ExitCode {
    let files = match load::files(paths) {
        Ok(files) => files,
        Err(error) => return fail(2, &error.to_string()),
    };
    let target = match faults.target {
        TargetName::Files => Target::Files,
        TargetName::Operator => Target::Operator,
    };
    // Debug prints of the AST and the HIR can be large, so they are made only for those who ask.
    let prints_stages = matches!(emit, Some((Emit::Ast | Emit::Hir, _)));
    let options = Options {
        python_version: faults.python_version,
        target,
        prints_stages,
        only_checks: emit.is_none(),
        allow: faults.allow.clone(),
        ..Options::default()
    };
    // The process ends with what this prints: to take a large plan apart before would be an eighth of its time.
    let mut compiled = ManuallyDrop::new(compile(&files, &options));
    // Only after the compile: to a compile itself warnings are warnings.
    if faults.deny_warnings {
        compiled.diagnostics.iter_mut().for_each(|diagnostic| diagnostic.severity = Severity::Error);
    }
    report(&compiled, &files, faults.message_format);
    let has_errors = |diagnostic: &Diagnostic| diagnostic.severity == Severity::Error;
    // The AST is worth printing for specs with faults too: that is what it is looked at for.
    let debug_print = matches!(emit, Some((Emit::Ast, _)));
    if compiled.diagnostics.iter().any(has_errors) && !debug_print {
        return ExitCode::from(1);
    }
    match emit {
        Some((emit, output)) => write(&text(&compiled, emit, output.as_deref()), output),
        None => ExitCode::SUCCESS,
    }
}

/// Prints notes and faults to standard error.
#[allow(clippy::print_stderr, reason = "this is where the program speaks")]
fn report(compiled: &Compiled, files: &[SourceFile], format: Format) {
    match format {
        Format::Text => {
            // Before the faults: a note may say why there are fewer than expected.
            compiled.notes.iter().for_each(|note| eprintln!("note: {note}"));
            eprint!("{}", render(&compiled.diagnostics, files, super::colour::in_errors()));
        }
        Format::Json => {
            compiled.notes.iter().for_each(|note| eprintln!("{}", note_to_json(note)));
            eprint!("{}", to_json(&compiled.diagnostics, files));
        }
    }
}

/// The text of what was asked for. A file name that ends in `.json` turns the plan into JSON.
fn text(compiled: &Compiled, emit: Emit, output: Option<&Path>) -> String {
    let json = output.is_some_and(|path| path.extension().is_some_and(|extension| extension == "json"));
    // Only the default form gives way: a form that was asked for by name stays.
    let emit = if json && emit == Emit::Plan { Emit::Json } else { emit };
    let (plan, graph) = (compiled.plan.as_ref(), compiled.graph.as_ref());
    match emit {
        Emit::Plan => plan.map(kaspr_ir::plan::Plan::to_text),
        Emit::Json => plan.map(kaspr_ir::plan::Plan::to_json),
        Emit::Dot => plan.map(kaspr_ir::plan::Plan::to_dot),
        Emit::Mermaid => plan.map(kaspr_ir::plan::Plan::to_mermaid),
        Emit::Ast => compiled.ast.clone(),
        Emit::Hir => compiled.hir.clone(),
        Emit::Graph => graph.map(|graph| format!("{graph:#?}\n")),
    }
    .unwrap_or_default()
}
