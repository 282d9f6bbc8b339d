//! Log lines about a restoration, from its beginning to its end.
//!
//! ```text
//! restoring tables percent=41 partitions=3 records=120000
//! tables are restored partitions=8 records=291034 ms=7120
//! ```

use std::time::Duration;

use tracing::info;

/// The time between two reports of a restoration's progress.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// The restoration under way, from the first partition that begins until none is left. Sums over all its
/// partitions, those that came while it lasted too.
#[derive(Debug, Default)]
pub struct Session {
    /// By the worker's clock.
    began: Duration,
    /// The time of the last report, at first that of the beginning: a short restoration is reported once, at
    /// its end.
    reported: Duration,
    /// Partitions of tables that have begun.
    parts: usize,
    /// Offsets between their beginnings and ends. Markers and compacted offsets count, so a percentage may
    /// jump.
    offsets: i64,
    /// Records that were read.
    records: u64,
}

impl Session {
    /// Begins a restoration.
    pub fn begin(now: Duration) -> Session {
        Session { began: now, reported: now, ..Session::default() }
    }

    /// Adds a partition of a table, with so many offsets to read.
    pub fn add(&mut self, offsets: i64) {
        self.parts += 1;
        self.offsets += offsets.max(0);
    }

    /// Counts records that were read.
    pub fn read(&mut self, records: usize) {
        self.records += records as u64;
    }

    /// Reports progress now and then, while `parts` and `offsets` are left. Returns true once none is left.
    ///
    /// `offsets` may exceed what was added, if more came meanwhile: the percentage is clamped.
    pub fn tell(&mut self, now: Duration, parts: usize, offsets: i64) -> bool {
        if parts == 0 {
            let ms = (now - self.began).as_millis();
            info!(partitions = self.parts, records = self.records, ms, "tables are restored");
            return true;
        }
        if now >= self.reported + TELL_EVERY {
            self.reported = now;
            let percent = percent(self.offsets - offsets, self.offsets);
            info!(percent, partitions = parts, records = self.records, "restoring tables");
        }
        false
    }
}

/// The percentage of a part; 100 if the whole is nothing.
///
/// ```text
/// 41 of 100  →  41      7 of 0  →  100      120 of 100  →  100
/// ```
pub fn percent(part: i64, whole: i64) -> u8 {
    if whole <= 0 {
        return 100;
    }
    u8::try_from(i128::from(part.clamp(0, whole)) * 100 / i128::from(whole)).unwrap_or(100)
}
