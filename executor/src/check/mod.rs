//! Looks at the outside world before the first event: topics, changelogs, what a plan needs and we lack.

pub mod changelogs;
pub mod topics;
pub mod unsupported;
