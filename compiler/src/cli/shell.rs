//! `kasprc completions` and `kasprc man`.

use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;

use super::{Arguments, fail, write};

/// Prints the completions of a shell.
///
/// Made from the arguments, so they know every command and flag.
pub fn completions(shell: clap_complete::Shell) -> ExitCode {
    // Into memory first, so that a closed pipe is met in one place, `write`.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "kasprc", &mut text);
    write(&String::from_utf8_lossy(&text), None)
}

/// Writes the man pages into a folder.
///
/// One page for the program and one for each command. The folder must exist.
pub fn man(folder: &Path) -> ExitCode {
    match clap_mangen::generate_to(Arguments::command(), folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(2, &format!("cannot write into \"{}\": {error}", folder.display())),
    }
}
