//! The app as data: the graph that the compiler works on, and the plan that passes to the executor.
//!
//! Architecture invariant: nothing here does I/O, asks the time or reads the environment, and
//! Python is text. Both programs depend on this crate; it depends on neither.
//!
//! ```text
//! kasprc:      specs ─▶ … ─▶ Graph ─▶ rules ─▶ Graph ─▶ Plan ─▶ plan.json
//! kaspr-exec:                                  plan.json ─▶ Plan ─▶ dataflow
//! ```
//!
//! Rules on which both programs must agree live here too, once: how a duration is written ([`duration`]) and an address
//! ([`addresses`]), which names topics can have ([`topics`]), what a policy's setting means
//! ([`plan::OnError::from_setting`]).

#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod addresses;
pub mod duration;
pub mod graph;
pub mod plan;
pub mod print;
pub mod topics;

pub use plan::PlanError;
