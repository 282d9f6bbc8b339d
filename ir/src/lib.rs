//! The app as data: the graph that the compiler works on, and the plan that passes to the executor.
//!
//! Architecture invariant: nothing here does I/O, asks the time or reads the environment, and
//! Python is text. Both programs depend on this crate; it depends on neither.

#![deny(missing_docs)]

mod dot;
pub mod drawing;
pub mod graph;
mod mermaid;
pub mod plan;
mod seal;
pub mod text;

pub use seal::PlanError;
