//! Code blocks and the functions that the executor calls.
//!
//! Blocks are loaded once per worker; functions are then looked up in them by name. Two fields with the same text are
//! two blocks, each with globals of its own.

use serde::{Deserialize, Serialize};

use super::{BlockId, FileId, LineMap, Place};

/// A code block: Python text, executed once per worker in a namespace of its own that starts as a
/// copy of the globals of its agent's init block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Block {
    /// The agent or table whose block it is, in the user's words: `agent "echo-agent"`.
    // Owner and role are for people alone: nothing is looked up by them.
    pub owner: String,
    /// Its role there: `operation "echo"`, `init`, `output:demo-output keySelector`.
    pub role: String,
    /// The init block whose globals this one starts with.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub init: Option<BlockId>,
    /// The file that it stands in.
    pub file: FileId,
    /// Places in the file of the lines of the Python text.
    /// A traceback is translated by it, line by line.
    pub lines: LineMap,
    /// The Python text, dedented as YAML does it.
    pub code: String,
}

impl Block {
    /// Its name for people: `orders/count`, `orders/output:customers/keySelector`. Two blocks may share one.
    ///
    /// Made for a module of Python's too, so no dot stands in it.
    pub fn name(&self) -> String {
        Block::name_of(&self.owner, &self.role)
    }

    /// The name of the block with this owner and role: `agent "orders"`, `operation "count"`.
    pub fn name_of(owner: &str, role: &str) -> String {
        let plain = |text: &str| text.replace('"', "").replace('.', "_");
        let owner = owner.split_once(' ').map_or(owner, |(_, owner)| owner);
        let role = role.strip_prefix("operation ").unwrap_or(role);
        format!("{}/{}", plain(owner), plain(role).replace(' ', "/"))
    }
}

/// A function that the executor calls, found by name in its block's namespace.
///
/// `reads_context`, `only_reads` and `uses` are the compiler's proofs: each may be missing for a function that would
/// deserve it, and none may stand where it does not hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Function {
    /// The block in whose namespace it is found.
    pub block: BlockId,
    /// Its name there.
    pub name: String,
    /// Place of its definition, or the block's if it comes from somewhere else.
    pub place: Place,
    /// Shape of a call's result, as far as the compiler can see.
    pub shape: Shape,
    /// It, its block or its init mentions `context`: only then is `context["event"]` prepared.
    // The other way round than the next two: a needless true costs time, a wrong false would hide the event.
    pub reads_context: bool,
    /// It only reads the value it is given (the compiler's check, conservative).
    /// The rule `forward` decides by it, not the executor.
    pub only_reads: bool,
    /// The fields of its value that it uses, where it uses nothing else of it (conservative too).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    // Left out where there is no proof: that is the usual case.
    pub uses: Option<FieldUse>,
}

/// Fields of its argument that a function uses: it reads these fields, sets them or asks
/// whether they are there, and neither removes one nor shows the object to other code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldUse {
    /// Their names, in order.
    pub fields: Vec<String>,
    /// It may return the object itself.
    /// Then what it returns is no more decoded than its argument was.
    pub gives_it: bool,
}

/// Shape of a call's result.
///
/// The executor looks at each result all the same: a plain function may return an awaitable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Shape {
    /// A value.
    Plain,
    /// A generator: each yielded value goes on by itself.
    Generator,
    /// A coroutine.
    Async,
    /// An async generator.
    AsyncGenerator,
    /// Not a function of this block (imported, assigned): seen when it is called.
    Unknown,
}
