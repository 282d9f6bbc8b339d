//! Looks at the outside world before the first event: topics, changelogs, rights that a plan needs and the
//! user lacks; and again at topics that tables depend on, as long as a worker runs.

pub mod changelogs;
pub mod counts;
pub mod topics;
pub mod unsupported;
