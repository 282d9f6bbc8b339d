//! Prints of the plan and the graph: text to be read, and drawings as DOT and mermaid.

mod dot;
pub mod drawing;
mod mermaid;
pub mod text;
