//! The time of tests against a real broker, which takes real time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now.
#[allow(clippy::disallowed_methods, reason = "a real broker takes real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970, as Kafka counts them.
#[allow(clippy::disallowed_methods, reason = "a real broker takes real time")]
pub fn since_1970() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Waits for this long.
pub fn pause(time: Duration) {
    let until = now() + time;
    while let Some(left) = until.checked_duration_since(now()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}
