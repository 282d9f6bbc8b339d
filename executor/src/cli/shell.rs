//! `kaspr-exec completions` and `kaspr-exec man`.
//!
//! Both are made from the command line's own description, so they cannot disagree with `--help`.

use std::io::Write;
use std::path::Path;

use clap::CommandFactory;

use super::arguments::Arguments;
use super::stop::Stop;

/// Prints the completions of a shell.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn completions(shell: clap_complete::Shell) -> Result<(), Stop> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "kaspr-exec", &mut text);
    match std::io::stdout().write_all(&text) {
        // The reader of the pipe has seen enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Stop::refused(format!("cannot write standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes the man pages into a folder. One page per command.
///
/// # Errors
///
/// The folder does not exist, or cannot be written.
pub fn man(folder: &Path) -> Result<(), Stop> {
    clap_mangen::generate_to(Arguments::command(), folder)
        .map_err(|error| Stop::refused(format!("cannot write into \"{}\": {error}", folder.display())))
}
