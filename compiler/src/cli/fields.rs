//! `kasprc fields`.

use std::process::ExitCode;

use kasprc::schema::{explain, reference};

use super::{fail, write};

/// Prints the reference of a field, of all fields, or the page that holds it all.
///
/// `docs/agents.md` holds that page; a test compares the two.
pub fn run(path: Option<&str>, markdown: bool) -> ExitCode {
    if markdown {
        return write(&reference(), None);
    }
    match explain(path) {
        Ok(text) => write(&text, None),
        Err(error) => fail(2, &error.to_string()),
    }
}
