//! Bounds of the HTTP server. Its settings are in [`web`](super::web).

use std::time::Duration;

/// Connections at once. At the limit, the one that has waited longest for its headers is closed.
pub const CONNECTIONS_MAX: usize = 64;
/// Bytes of a request's line and headers.
pub const HEADERS_BYTES_MAX: usize = 16 << 10;
/// Longest time in which they come.
pub const HEADERS_WAIT_MAX: Duration = Duration::from_secs(5);
/// Bytes of a request's body.
pub const BODY_BYTES_MAX: usize = 16 << 10;
/// Longest time in which it comes.
pub const BODY_WAIT_MAX: Duration = Duration::from_secs(5);
/// Longest time in which a client takes an answer.
pub const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest time for which a connection is kept between two requests.
pub const IDLE_MAX: Duration = Duration::from_secs(75);
/// Longest time since a worker's last turn for which it counts as alive: the watchdog ends calls by 270 s.
pub const TURN_AGE_MAX: Duration = Duration::from_secs(300);
/// Longest time for which a worker that loads counts as alive.
pub const START_MAX: Duration = Duration::from_secs(600);
/// Age of a snapshot from which an answer says what keeps the worker's thread.
pub const SNAPSHOT_AGE_MAX: Duration = Duration::from_secs(2);
/// Time for which rendered metrics are given again.
pub const METRICS_AGE_MAX: Duration = Duration::from_secs(1);
/// Topics that metrics name; those that come after them, in the order of their names, are `other`.
pub const TOPICS_MAX: usize = 200;
/// Partitions of a worker above which metrics have sums instead of a series for each.
pub const PARTITIONS_MAX: usize = 1000;
/// Kinds of failures that metrics name for an operation; the rest are `other`.
pub const KINDS_MAX: usize = 20;
