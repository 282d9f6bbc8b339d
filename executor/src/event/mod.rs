//! Ground words of the executor: events, records, and the ways in which they succeed or fail.
//!
//! Every other room names them, and they name none but each other and the plan.
//!
//! ```text
//! Event ─▶ Run ─▶ Unit ─▶ Frame { Scratch } ─▶ Effects { OutgoingRecord, TableWrite, Progress, FailureRecord } ─▶ commit
//!                              └ fails: Fault ─▶ a policy decides ─▶ FailureRecord, or it runs again
//! ```

pub mod effects;
pub mod failure;
pub mod fault;
pub mod frame;
pub mod kept;
pub mod message;
pub mod outgoing;
pub mod reads;
pub mod run;
pub mod shown;
pub mod tally;
