//! The command line of `kasprc`: a file for each command.
//!
//! Arguments are read in two stages: `clap` says what was typed ([`Arguments`]), and each command's file says what it
//! means. Doc comments on the types that `clap` derives from are the program's help: change them as such.
//!
//! Standard output has the result, standard error has faults and notes, so a pipe gets the result alone.

mod colour;
mod compile;
mod explain;
mod fields;
mod schema;
mod shell;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kasprc::diagnostics::Code;

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
  kasprc fields spec.onError                    what a field means, with its default and an example

Exit status: 0 fine, 1 faults found, 2 wrong use."
)]
struct Arguments {
    /// Print the page of a code: what it is, why it is a fault, an example, the example mended.
    #[arg(long, value_name = "CODE", required = true, value_parser = explain::code)]
    explain: Option<Code>,
    /// When to colour: auto looks at the terminal, NO_COLOR and CLICOLOR_FORCE.
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = clap::ColorChoice::Auto)]
    color: clap::ColorChoice,
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
        /// Form of the output. ast, hir and graph are for those who work on the compiler.
        #[arg(long, value_enum, default_value_t = compile::Emit::Plan)]
        emit: compile::Emit,
        /// Write it to a file instead. A name ending in .json writes the plan that kaspr-exec runs.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        faults: compile::Faults,
    },
    /// Find faults, print nothing else.
    Check {
        /// Files, folders (their *.yaml and *.yml), or - for standard input. All are one app.
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        faults: compile::Faults,
    },
    /// Print the JSON Schema of specs, for editors.
    Schema {
        /// Form of the specs.
        #[arg(long, value_enum, default_value_t = schema::SpecForm::Kubernetes)]
        form: schema::SpecForm,
    },
    /// Explain the fields of specs, as `kubectl explain` does.
    Fields {
        /// A field, as diagnostics write it: spec.onError, KasprTable.spec.global. Without one, all are listed.
        path: Option<String>,
        /// Print the whole reference as Markdown.
        #[arg(long, conflicts_with = "path")]
        markdown: bool,
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

/// Does what was typed.
///
/// Returns the exit status: 0 fine, 1 faults found, 2 wrong use or a file that cannot be read or written.
pub fn main() -> ExitCode {
    let Arguments { explain, color, command } = Arguments::parse();
    // Before the first of our own lines is printed.
    colour::choose(color);
    if let Some(code) = explain {
        return explain::run(code);
    }
    match command {
        Some(Command::Compile { paths, emit, output, faults }) => compile::run(&paths, &faults, Some((emit, output))),
        Some(Command::Check { paths, faults }) => compile::run(&paths, &faults, None),
        Some(Command::Schema { form }) => schema::run(form),
        Some(Command::Fields { path, markdown }) => fields::run(path.as_deref(), markdown),
        Some(Command::Completions { shell }) => shell::completions(shell),
        Some(Command::Man { folder }) => shell::man(&folder),
        // `clap` does not let this happen: a command or --explain is required.
        None => ExitCode::from(2),
    }
}

/// Writes a result to a file, or to standard output, and gives the exit status.
fn write(text: &str, output: Option<PathBuf>) -> ExitCode {
    let written = match &output {
        Some(path) => std::fs::write(path, text),
        None => std::io::stdout().write_all(text.as_bytes()),
    };
    match (written, output) {
        (Ok(()), _) => ExitCode::SUCCESS,
        // The reader of the pipe has seen enough.
        (Err(error), None) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        (Err(error), path) => {
            let path = path.map_or("standard output".to_owned(), |path| path.display().to_string());
            fail(2, &format!("cannot write {path}: {error}"))
        }
    }
}

/// Says why nothing can be done, and gives the exit status.
#[allow(clippy::print_stderr, reason = "this is where the program speaks")]
fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(code)
}
