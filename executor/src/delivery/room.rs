//! The bound on a transaction: no more bytes than the broker lately took in half the time that a transaction
//! may last. Otherwise a slow broker would make the worker abort and begin again for ever.
//!
//! The room is measured, not configured: each transaction shows a rate, and `rate × timeout / 2` is what the
//! next may hold. It grows by a factor at most, so that one lucky transaction does not overstretch the next,
//! and halves after each transaction that was aborted.
//!
//! ```text
//! timeout 15 s; 256 KiB delivered in 12.8 s (20 kB/s)  →  room 150,000 bytes
//! ```

use std::time::Duration;

/// The least room, in bytes: below it, a single event may need more.
const ROOM_MIN: usize = 16 << 10;
/// The first room: a broker that is not known yet may be slow.
const ROOM_FIRST: usize = 256 << 10;
/// The factor by which it may grow from one transaction to the next.
const GROWTH: usize = 2;

/// The bound on the bytes of a transaction.
#[derive(Clone, Debug)]
pub struct Room {
    bytes: usize,
    max: usize,
    /// The time in which a transaction should be delivered.
    within: Duration,
}

impl Room {
    /// Makes a room that grows to `max` bytes if transactions are delivered in half of `timeout`. The first
    /// transactions are smaller, whatever `max` says: see [`ROOM_FIRST`].
    pub fn new(max: usize, timeout: Duration) -> Room {
        Room { bytes: ROOM_FIRST.min(max), max, within: timeout / 2 }
    }

    /// Bytes that a transaction may hold.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Notes that a transaction of so many bytes was delivered in this time.
    ///
    /// `took` counts from the beginning of the transaction to the last acknowledgement.
    pub fn delivered(&mut self, bytes: usize, took: Duration) {
        // A clock of whole milliseconds would show no time at all for a small transaction, and an endless
        // rate.
        let took = took.max(Duration::from_millis(1));
        let rate = bytes as f64 / took.as_secs_f64();
        let takes = (rate * self.within.as_secs_f64()) as usize;
        // A small transaction shows little of how much the broker could have taken.
        let grown = if bytes * GROWTH >= self.bytes || takes < self.bytes { takes } else { self.bytes };
        // `max` may be below the least room where a test sets small bounds.
        self.bytes = grown.min(self.bytes.saturating_mul(GROWTH)).clamp(ROOM_MIN.min(self.max), self.max);
    }

    /// Notes that a transaction was not delivered in time. Never below the least room, so that a single event
    /// still fits.
    pub fn timed_out(&mut self) {
        self.bytes = (self.bytes / 2).max(ROOM_MIN.min(self.max));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(15);

    #[test]
    fn a_fast_broker_gets_all_the_room_and_a_slow_one_what_it_takes() {
        let mut room = Room::new(16 << 20, TIMEOUT);
        for _ in 0..10 {
            room.delivered(room.bytes(), Duration::from_millis(20));
        }
        assert_eq!(room.bytes(), 16 << 20);
        // 20 kB/s.
        for _ in 0..3 {
            room.delivered(room.bytes(), Duration::from_secs_f64(room.bytes() as f64 / 20_000.0));
        }
        assert_eq!(room.bytes(), 150_000);
    }

    #[test]
    fn a_timeout_halves_it_and_small_transactions_do_not_make_it_grow() {
        let mut room = Room::new(16 << 20, TIMEOUT);
        room.timed_out();
        assert_eq!(room.bytes(), ROOM_FIRST / 2);
        room.delivered(100, Duration::from_millis(5));
        assert_eq!(room.bytes(), ROOM_FIRST / 2);
        (0..20).for_each(|_| room.timed_out());
        assert_eq!(room.bytes(), ROOM_MIN);
    }
}
