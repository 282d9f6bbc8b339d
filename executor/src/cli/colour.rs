//! Decides when to colour: `--color`, else the terminal and the variables that people set for all programs.
//!
//! `NO_COLOR` and `CLICOLOR_FORCE` are read by `anstream`: see <https://no-color.org> and
//! <https://bixense.com/clicolors>.

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};

/// Colours for everything that is printed from here on, as `--color` says. Call it once, before anything is
/// printed.
pub fn choose(when: clap::ColorChoice) {
    let choice = match when {
        clap::ColorChoice::Auto => ColorChoice::Auto,
        clap::ColorChoice::Always => ColorChoice::Always,
        clap::ColorChoice::Never => ColorChoice::Never,
    };
    choice.write_global();
}

/// True if what goes to this stream is to be coloured. Asks the stream itself: standard output may be a file
/// while standard error is a terminal.
pub fn in_stream(stream: &impl RawStream) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}
