//! Prints of the plan: text to be read, and drawings as DOT and mermaid.
//!
//! All are pure functions of what they print, and the golden files of `specs/` hold their output: a change here shows
//! as a diff there.

mod dot;
pub mod drawing;
mod mermaid;
pub mod text;
