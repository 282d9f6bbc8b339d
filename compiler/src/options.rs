//! Options of a compile.
//!
//! But for the codecs they change faults and prints, never the plan of specs that have none: `python_version` decides
//! which syntax is a fault, `target` and `only_checks` which faults are looked for, `allow` which are accepted.

use kaspr_ir::plan::Codec;

use crate::diagnostics::Code;

/// Options of a compile.
#[derive(Clone, Debug)]
pub struct Options {
    /// The Python version whose syntax is accepted.
    pub python_version: (u8, u8),
    /// Path of the specs to the pods.
    pub target: Target,
    /// The codec of keys of topics where a spec names none; `None`: the `KasprApp`'s `keySerializer`, else raw.
    pub key_codec: Option<Codec>,
    /// The codec of values of topics where a spec names none; `None`: the `KasprApp`'s `valueSerializer`, else JSON.
    pub value_codec: Option<Codec>,
    /// Prints the AST and the HIR too: for those who work on the compiler.
    pub prints_stages: bool,
    /// Faults are all that is asked for: then specs need no agent, as where files are checked one by one.
    ///
    /// A file that an editor checks by itself may hold only a table, or an agent whose tables stand elsewhere.
    pub only_checks: bool,
    /// Warnings that are accepted wherever they are.
    ///
    /// Errors cannot be accepted. A code that accepts nothing gives a note.
    pub allow: Vec<Code>,
}

/// Path of the specs to the pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// They arrive as they are written.
    #[default]
    Files,
    /// The Kubernetes operator in use today, which drops fields that it does not know.
    /// `onError`, `timeout`, channels and sinks of an agent are among them; see K0602.
    Operator,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            python_version: crate::python::VERSION,
            target: Target::Files,
            key_codec: None,
            value_codec: None,
            prints_stages: false,
            only_checks: false,
            allow: Vec::new(),
        }
    }
}
