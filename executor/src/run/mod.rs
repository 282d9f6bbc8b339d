//! Ways to run a worker: as a member of a group on Kafka, over files and standard input, in tests.
//!
//! | file | a run |
//! |---|---|
//! | `member.rs` | on Kafka: until it is asked to stop, or has caught up |
//! | `local/` | over files and standard input, without Kafka |
//! | `testing/` | `kaspr-exec test`: one worker per test, in simulated time |
//! | `assemble.rs` | what all of them share: the one place that puts a worker together |
//! | `record.rs` | the lines of records that files, tests and golden specs have |
//!
//! A way to run decides when a worker turns, and when it ends; what a turn does is the worker's own. A new
//! one (a replay, a shadow run) is a file here, with its command in `cli`.

pub mod assemble;
pub mod local;
pub mod member;
pub mod record;
pub mod testing;
