//! Ways to run a worker: as a member of a group on Kafka, over files and standard input, in tests.

pub mod assemble;
pub mod local;
pub mod member;
pub mod record;
pub mod testing;
