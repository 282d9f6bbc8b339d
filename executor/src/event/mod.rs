//! Ground words of the executor: events and records, and what becomes of them.

pub mod effects;
pub mod failure;
pub mod fault;
pub mod frame;
pub mod message;
pub mod outgoing;
pub mod shown;
