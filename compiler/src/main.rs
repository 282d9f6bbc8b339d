//! `kasprc`: the compiler's command line.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use kasprc::diagnostics::{self, Code, note_to_json, to_json};
use kasprc::{Compiled, Diagnostic, Options, Severity, SourceFile, Target, compile, load, render, schema};

/// Compiles KasprAgents: YAML with inline Python, checked before it is deployed.
#[derive(Parser)]
#[command(
    version,
    propagate_version = true,
    arg_required_else_help = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  kasprc compile agent.yaml                     the plan, as text
  kasprc compile specs/ --emit dot | dot -Tsvg -o app.svg
  kasprc compile specs/ -o plan.json            what `kaspr-exec run plan.json` runs
  kasprc check specs/                           faults only
  kasprc --explain K0201                        what a code means, with an example

Exit status: 0 fine, 1 faults found, 2 wrong use."
)]
struct Arguments {
    /// Print the page of a code: what it is, why it is a fault, an example, the example mended.
    #[arg(long, value_name = "CODE", required = true, value_parser = code)]
    explain: Option<Code>,
    #[command(subcommand)]
    command: Option<Command>,
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
    /// Print the JSON Schema of specs, for editors.
    Schema {
        /// How the specs are written.
        #[arg(long, value_enum, default_value_t = SpecForm::Kubernetes)]
        form: SpecForm,
    },
    /// Print the completions of a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a folder.
    Man {
        /// The folder, which must be there.
        folder: PathBuf,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SpecForm {
    /// Kubernetes resources in camelCase.
    Kubernetes,
    /// What the operator mounts into pods, in snake_case.
    Definition,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TargetName {
    /// Specs arrive as they are written.
    Files,
    /// The Kubernetes operator in use today brings them, and drops fields that it does not know.
    Operator,
}

#[derive(clap::Args)]
struct Faults {
    /// How faults are printed on stderr.
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
    #[arg(long, value_name = "CODE", value_parser = code)]
    allow: Vec<Code>,
    /// Who brings the specs to the pods: operator warns of what would not arrive.
    #[arg(long, value_enum, default_value_t = TargetName::Files)]
    target: TargetName,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Emit {
    /// The plan as text.
    Plan,
    /// The plan as JSON, which kaspr-exec runs.
    Json,
    /// The graph for graphviz.
    Dot,
    /// The graph for documents that draw mermaid.
    Mermaid,
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

fn code(name: &str) -> Result<Code, String> {
    diagnostics::code(name).ok_or_else(|| {
        let names = diagnostics::Code::ALL.iter().map(|code| code.name());
        let near = diagnostics::nearest(name, names).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        format!("there is no such code{near}")
    })
}

fn main() -> ExitCode {
    let Arguments { explain, command } = Arguments::parse();
    if let Some(code) = explain {
        return write(&diagnostics::explain(code), None);
    }
    match command {
        Some(Command::Compile { paths, emit, output, faults }) => run(&paths, &faults, Some((emit, output))),
        Some(Command::Check { paths, faults }) => run(&paths, &faults, None),
        Some(Command::Schema { form }) => {
            let form = match form {
                SpecForm::Kubernetes => schema::Form::Kubernetes,
                SpecForm::Definition => schema::Form::Definition,
            };
            write(&format!("{:#}\n", schema::schema(form)), None)
        }
        Some(Command::Completions { shell }) => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "kasprc", &mut text);
            write(&String::from_utf8_lossy(&text), None)
        }
        Some(Command::Man { folder }) => match clap_mangen::generate_to(Arguments::command(), &folder) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(2, &format!("cannot write into \"{}\": {error}", folder.display())),
        },
        None => ExitCode::from(2),
    }
}

fn run(paths: &[PathBuf], faults: &Faults, emit: Option<(Emit, Option<PathBuf>)>) -> ExitCode {
    let files = match load::files(paths) {
        Ok(files) => files,
        Err(error) => return fail(2, &error.to_string()),
    };
    let target = match faults.target {
        TargetName::Files => Target::Files,
        TargetName::Operator => Target::Operator,
    };
    let prints_stages = matches!(emit, Some((Emit::Ast | Emit::Hir, _)));
    let options = Options {
        python_version: faults.python_version,
        target,
        prints_stages,
        only_checks: emit.is_none(),
        allow: faults.allow.clone(),
    };
    let mut compiled = compile(&files, &options);
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
    match format {
        Format::Text => {
            compiled.notes.iter().for_each(|note| eprintln!("note: {note}"));
            eprint!("{}", render(&compiled.diagnostics, files, std::io::stderr().is_terminal()));
        }
        Format::Json => {
            compiled.notes.iter().for_each(|note| eprintln!("{}", note_to_json(note)));
            eprint!("{}", to_json(&compiled.diagnostics, files));
        }
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
        Emit::Mermaid => graph.map(kaspr_ir::graph::Graph::to_mermaid),
        Emit::Ast => compiled.ast.clone(),
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
