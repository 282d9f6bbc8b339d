//! Looks at the outside world before the first event: topics, changelogs, rights that a plan needs and the
//! user lacks; and again at topics that tables depend on, as long as a worker runs.
//!
//! | file | looks at | when |
//! |---|---|---|
//! | `unsupported.rs` | the plan alone | before anything else |
//! | `topics.rs` | topics that the plan names, rights on them | before the first event |
//! | `changelogs.rs` | changelogs of tables, partition counts of their inputs | before the first event |
//! | `leader.rs` | the topic whose owner leads the app | before the first event |
//! | `counts.rs` | partition counts and identities of both | while the worker runs |
//!
//! `kaspr-exec check` makes the same looks as a start, and creates nothing. A check collects what it finds;
//! all faults are shown at once, each with its place in the spec. A new one belongs here if it can be
//! answered without running user code.

pub mod changelogs;
pub mod counts;
pub mod leader;
pub mod topics;
pub mod unsupported;
