//! Decides about colours: by `--color`, else by the terminal and the variables that people set for all programs.

use anstream::{AutoStream, ColorChoice};

/// Colours for everything that is printed from here on, as `--color` says.
///
/// `auto` is left to the library: a terminal, `NO_COLOR`, `CLICOLOR_FORCE`.
pub fn choose(when: clap::ColorChoice) {
    let choice = match when {
        clap::ColorChoice::Auto => ColorChoice::Auto,
        clap::ColorChoice::Always => ColorChoice::Always,
        clap::ColorChoice::Never => ColorChoice::Never,
    };
    choice.write_global();
}

/// True if faults, on standard error, are to be coloured.
pub fn in_errors() -> bool {
    AutoStream::choice(&std::io::stderr()) != ColorChoice::Never
}
