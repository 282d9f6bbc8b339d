//! `kasprc`: the compiler's command line.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use kasprc::diagnostics::to_json;
use kasprc::{Compiled, Diagnostic, Options, Severity, SourceFile, compile, load, render};

/// Compiles KasprAgents: YAML with inline Python, checked before it is deployed.
#[derive(Parser)]
#[command(
    version,
    propagate_version = true,
    after_help = "\
Examples:
  kasprc compile agent.yaml                     the plan, as text
  kasprc compile specs/ --emit dot | dot -Tsvg -o app.svg
  kasprc compile specs/ -o plan.json            what `kaspr-exec run plan.json` runs
  kasprc check specs/                           faults only

Exit status: 0 fine, 1 faults found, 2 wrong use."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compile specs and print what comes out.
    Compile {
        /// Files, folders (their *.yaml and *.yml), or - for standard input. All are one app.
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// What to print. ast, hir and graph are for those who work on the compiler.
        #[arg(long, value_enum, default_value_t = Emit::Plan)]
        emit: Emit,
        /// Write it to a file instead. A name ending in .json writes the plan that kaspr-exec runs.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        faults: Faults,
    },
    /// Find faults, print nothing else.
    Check {
        /// Files, folders (their *.yaml and *.yml), or - for standard input. All are one app.
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        faults: Faults,
    },
}

#[derive(clap::Args)]
struct Faults {
    /// How faults are printed: text for people, json for programs (one object a line).
    #[arg(long, value_enum, default_value_t = Format::Text)]
    message_format: Format,
    /// Warnings fail the compile too.
    #[arg(long)]
    deny_warnings: bool,
    /// The Python version whose syntax is accepted.
    #[arg(long, value_name = "MAJOR.MINOR", default_value = "3.11", value_parser = python_version)]
    python_version: (u8, u8),
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Emit {
    /// The plan as text.
    Plan,
    /// The plan as JSON, which kaspr-exec runs.
    Json,
    /// The graph for graphviz.
    Dot,
    /// What was written.
    Ast,
    /// What is true.
    Hir,
    /// The graph, rules applied.
    Graph,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

fn python_version(text: &str) -> Result<(u8, u8), String> {
    let (major, minor) = text.split_once('.').ok_or("a version is like 3.11")?;
    match (major.parse(), minor.parse()) {
        (Ok(major), Ok(minor)) => Ok((major, minor)),
        _ => Err("a version is like 3.11".to_owned()),
    }
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Compile { paths, emit, output, faults } => run(&paths, &faults, Some((emit, output))),
        Command::Check { paths, faults } => run(&paths, &faults, None),
    }
}

fn run(paths: &[PathBuf], faults: &Faults, emit: Option<(Emit, Option<PathBuf>)>) -> ExitCode {
    let files = match load::files(paths) {
        Ok(files) => files,
        Err(error) => return fail(2, &error.to_string()),
    };
    let mut compiled = compile(&files, &Options { python_version: faults.python_version });
    if faults.deny_warnings {
        compiled.diagnostics.iter_mut().for_each(|diagnostic| diagnostic.severity = Severity::Error);
    }
    report(&compiled, &files, faults.message_format);
    let has_errors = |diagnostic: &Diagnostic| diagnostic.severity == Severity::Error;
    let debug_print = matches!(emit, Some((Emit::Ast, _)));
    if compiled.diagnostics.iter().any(has_errors) && !debug_print {
        return ExitCode::from(1);
    }
    match emit {
        Some((emit, output)) => write(&text(&compiled, emit, output.as_deref()), output),
        None => ExitCode::SUCCESS,
    }
}

#[allow(clippy::print_stderr, reason = "this is where the program speaks")]
fn report(compiled: &Compiled, files: &[SourceFile], format: Format) {
    for note in &compiled.notes {
        eprintln!("note: {note}");
    }
    match format {
        Format::Text => eprint!("{}", render(&compiled.diagnostics, files, std::io::stderr().is_terminal())),
        Format::Json => compiled.diagnostics.iter().for_each(|diagnostic| eprintln!("{}", to_json(diagnostic, files))),
    }
}

fn text(compiled: &Compiled, emit: Emit, output: Option<&std::path::Path>) -> String {
    let json = output.is_some_and(|path| path.extension().is_some_and(|extension| extension == "json"));
    let emit = if json && emit == Emit::Plan { Emit::Json } else { emit };
    let (plan, graph) = (compiled.plan.as_ref(), compiled.graph.as_ref());
    match emit {
        Emit::Plan => plan.map(kaspr_ir::plan::Plan::to_text),
        Emit::Json => plan.map(kaspr_ir::plan::Plan::to_json),
        Emit::Dot => graph.map(kaspr_ir::graph::Graph::to_dot),
        Emit::Ast => Some(compiled.ast.clone()),
        Emit::Hir => compiled.hir.clone(),
        Emit::Graph => graph.map(|graph| format!("{graph:#?}\n")),
    }
    .unwrap_or_default()
}

fn write(text: &str, output: Option<PathBuf>) -> ExitCode {
    let written = match &output {
        Some(path) => std::fs::write(path, text),
        None => std::io::stdout().write_all(text.as_bytes()),
    };
    match (written, output) {
        (Ok(()), _) => ExitCode::SUCCESS,
        // Whoever read it has seen enough.
        (Err(error), None) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        (Err(error), path) => {
            let path = path.map_or("standard output".to_owned(), |path| path.display().to_string());
            fail(2, &format!("cannot write {path}: {error}"))
        }
    }
}

#[allow(clippy::print_stderr, reason = "this is where the program speaks")]
fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(code)
}
