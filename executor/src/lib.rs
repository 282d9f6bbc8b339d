//! Runs the plan of an app on timely-dataflow workers that are mapped to Kafka partitions.
//!
//! Architecture invariant: nothing here parses or judges a spec. The plan is trusted; only the
//! program's `main.rs` knows the compiler.

#![deny(missing_docs)]

pub mod broker;
pub mod clock;
pub mod message;
