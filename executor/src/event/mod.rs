//! Ground words of the executor: events, records, and the ways in which they succeed or fail.

pub mod effects;
pub mod failure;
pub mod fault;
pub mod frame;
pub mod message;
pub mod outgoing;
pub mod shown;
pub mod tally;
