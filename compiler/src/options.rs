//! Options of a compile.

use crate::diagnostics::Code;

/// Options of a compile.
#[derive(Clone, Debug)]
pub struct Options {
    /// The Python version whose syntax is accepted.
    pub python_version: (u8, u8),
    /// Path of the specs to the pods.
    pub target: Target,
    /// Prints the AST and the HIR too: for those who work on the compiler.
    pub prints_stages: bool,
    /// Faults are all that is asked for: then specs need no agent, as where files are checked one by one.
    pub only_checks: bool,
    /// Warnings that are accepted wherever they are.
    pub allow: Vec<Code>,
}

/// Path of the specs to the pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// They arrive as they are written.
    #[default]
    Files,
    /// The Kubernetes operator in use today, which drops fields that it does not know.
    Operator,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            python_version: crate::python::VERSION,
            target: Target::Files,
            prints_stages: false,
            only_checks: false,
            allow: Vec::new(),
        }
    }
}
