//! Places in the specs, and where the lines of a block stand.
//!
//! A plan has lines and columns where the compiler has bytes: the executor puts them into logs and tracebacks and does
//! not have the specs.

use serde::{Deserialize, Serialize};

use super::FileId;

/// A place in a spec: line and column count from 1, columns in characters.
///
/// Shown as `agent.yaml:12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Place {
    /// The file.
    pub file: FileId,
    /// Line in the file.
    pub line: u32,
    /// Column in the line.
    pub column: u32,
}

/// Places in its file of the lines of a block's Python text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum LineMap {
    /// A literal (`|`) block: Python line `n` is file line `line + n - 1`, shifted right by
    /// `column - 1` characters.
    Literal {
        /// File line of Python line 1.
        line: u32,
        /// File column of Python column 1.
        column: u32,
    },
    /// A folded, quoted or plain scalar: file line and column of the start of each Python line.
    Each(Vec<(u32, u32)>),
}

impl LineMap {
    /// File line and column of a Python position, all counted from 1. Positions past the end of
    /// the text belong to its last line.
    ///
    /// ```
    /// use kaspr_ir::plan::LineMap;
    ///
    /// // python: |              line 4
    /// //   def f(v):            line 5, column 3 is Python's line 1, column 1
    /// //       return v
    /// let map = LineMap::Literal { line: 5, column: 3 };
    /// assert_eq!(map.at(2, 5), (6, 7));
    /// let map = LineMap::Each(vec![(5, 12), (6, 3)]);
    /// assert_eq!(map.at(2, 1), (6, 3));
    /// assert_eq!(map.at(9, 1), (6, 3));
    /// ```
    pub fn at(&self, line: u32, column: u32) -> (u32, u32) {
        match self {
            LineMap::Literal { line: first, column: left } => {
                (first + line.saturating_sub(1), left + column.saturating_sub(1))
            }
            LineMap::Each(lines) => {
                let row = (line.max(1) as usize - 1).min(lines.len().saturating_sub(1));
                // No lines at all: a block without text.
                let (line, left) = lines.get(row).copied().unwrap_or((1, 1));
                (line, left + column.saturating_sub(1))
            }
        }
    }
}
