//! The only place that asks the time.
//!
//! The worker is given a [`Clock`] and asks nothing else, so that tests and the simulator run hours in
//! milliseconds. Threads beside the worker's make a [`SystemClock`] of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tells the time. Timers, commit intervals and timestamps all go by it, so that a test can hold it.
///
/// Two readings are for durations ([`Clock::now`], [`Clock::tick`]), one for what people and other programs read
/// ([`Clock::wall_ms`]): it may jump, and nothing is timed by it.
pub trait Clock {
    /// Time since some fixed moment; never goes back.
    fn now(&self) -> Duration;
    /// Milliseconds since 1970, for timestamps of records.
    ///
    /// 0 for a machine whose clock stands before that.
    fn wall_ms(&self) -> i64;
    /// Like [`Clock::now`], but some milliseconds behind it perhaps: as of the system's last tick,
    /// which costs a fraction.
    ///
    /// For questions that are asked for every event; on Linux the tick comes 100 to 1000 times a second.
    fn tick(&self) -> Duration {
        self.now()
    }
}

/// The wall clock as of its last tick, for timestamps taken once per event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stamp {
    tick: Duration,
    wall_ms: i64,
}

impl Stamp {
    /// Looks at the wall clock.
    pub fn look(&mut self, clock: &dyn Clock) {
        *self = Stamp { tick: clock.tick(), wall_ms: clock.wall_ms() };
    }

    /// Milliseconds since 1970, at most a tick behind [`Clock::wall_ms`] and never before the last look.
    pub fn wall_ms(&mut self, clock: &dyn Clock) -> i64 {
        if clock.tick() != self.tick {
            self.look(clock);
        }
        self.wall_ms
    }
}

/// The machine's clock.
///
/// Two of them have different zeros, unless one is a copy of the other: their times are not to be compared.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
    start_tick: Duration,
}

impl SystemClock {
    /// A clock that starts now.
    #[allow(clippy::disallowed_methods, reason = "the home of the clock")]
    pub fn start() -> SystemClock {
        SystemClock { start: Instant::now(), start_tick: tick() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    #[allow(clippy::disallowed_methods, reason = "the home of the clock")]
    fn wall_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    fn tick(&self) -> Duration {
        tick().saturating_sub(self.start_tick)
    }
}

/// The system's monotonic time at its last tick.
#[cfg(target_os = "linux")]
fn tick() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on every Linux, and the pointer is to a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The time since the first call, on systems without such a tick.
#[cfg(not(target_os = "linux"))]
#[allow(clippy::disallowed_methods, reason = "the home of the clock")]
fn tick() -> Duration {
    static FIRST: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    FIRST.get_or_init(Instant::now).elapsed()
}

/// A clock that a test holds in its hand. It starts at 0 and moves when the test moves it.
///
/// Clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct SimulatedClock {
    /// Nanoseconds. Threads of user code ask their loop for the time, too.
    now: Arc<AtomicU64>,
}

impl SimulatedClock {
    /// Moves the time on.
    pub fn advance(&self, by: Duration) {
        self.now.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.now.load(Ordering::Relaxed))
    }

    fn wall_ms(&self) -> i64 {
        i64::try_from(self.now().as_millis()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_follows_the_clock() {
        let (clock, mut stamp) = (SimulatedClock::default(), Stamp::default());
        stamp.look(&clock);
        assert_eq!(stamp.wall_ms(&clock), 0);
        clock.advance(Duration::from_millis(7));
        assert_eq!(stamp.wall_ms(&clock), 7);
    }

    #[test]
    fn simulated_time_moves_only_when_told() {
        let clock = SimulatedClock::default();
        assert_eq!(clock.wall_ms(), 0);
        clock.advance(Duration::from_secs(5));
        assert_eq!((clock.now(), clock.wall_ms()), (Duration::from_secs(5), 5000));
    }
}
