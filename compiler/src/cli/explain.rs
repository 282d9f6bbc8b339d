//! `kasprc --explain`.

use std::process::ExitCode;

use kasprc::diagnostics::{self, Code};

use super::write;

/// Prints the page of a code.
pub fn run(code: Code) -> ExitCode {
    write(&diagnostics::explain(code), None)
}

/// The code of a name; the error names the nearest.
///
/// Called by `clap` while it parses, so a wrong code is wrong use: exit status 2.
pub fn code(name: &str) -> Result<Code, String> {
    diagnostics::code(name).ok_or_else(|| {
        let names = diagnostics::Code::ALL.iter().map(|code| code.name());
        let near = diagnostics::nearest(name, names).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        format!("there is no such code{near}")
    })
}
