//! Counts keys of partitions on the disk. Only a walk over all of them knows their number, so a thread of its own
//! walks, and the worker never waits for it.
//!
//! A count is as old as its walk. A partition that was written since is walked over again, by strides between which
//! the thread rests: it takes a fiftieth of a core at most, and nothing while nothing is written.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kaspr_ir::plan::TableId;
use rustc_hash::FxHashMap;

use crate::clock::{Clock as _, SystemClock};

/// The name of the thread.
const THREAD: &str = "kaspr-census";
/// The time between two rounds over what was written, at least.
const ROUND_EVERY: Duration = Duration::from_secs(1);
/// The rest behind a stride, in times of its duration.
const RESTS: u32 = 50;

/// A partition of a table.
pub type Place = (TableId, i32);

/// A part of a walk over a partition.
#[derive(Debug)]
pub struct Stride {
    /// The number of keys on it.
    pub keys: u64,
    /// The key with which the next one begins; `None` at the end of the partition.
    pub next: Option<Vec<u8>>,
}

/// The counts of partitions that were asked for, and the thread that makes them. It ends with this.
#[derive(Debug)]
pub struct Census {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    counts: Mutex<Counts>,
    rings: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    known: FxHashMap<Place, Count>,
    ends: bool,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    /// `None`: there was no walk yet, or it met an error.
    keys: Option<u64>,
    /// True if it was written since the last walk began.
    is_stale: bool,
}

impl Census {
    /// Starts the thread, which has nothing to count yet. `stride` walks on over a partition from a key, or from its
    /// beginning; it gives `None` where that cannot be read.
    ///
    /// # Errors
    ///
    /// The system gives no thread.
    pub fn start(stride: impl Fn(Place, Option<&[u8]>) -> Option<Stride> + Send + 'static) -> std::io::Result<Census> {
        let shared = Arc::new(Shared::default());
        let counted = shared.clone();
        let run = move || walk_on(&counted, &stride);
        let thread = std::thread::Builder::new().name(THREAD.to_owned()).spawn(run)?;
        Ok(Census { shared, thread: Some(thread) })
    }

    /// The number of keys of a partition, as of the last walk. The first question has it counted from here on.
    pub fn keys(&self, place: Place) -> Option<u64> {
        let mut counts = self.shared.counts();
        let known = counts.known.len();
        let count = *counts.known.entry(place).or_insert(Count { keys: None, is_stale: true });
        if counts.known.len() > known {
            self.shared.rings.notify_one();
        }
        count.keys
    }

    /// Notes writes to partitions; those that nobody asked for are not counted.
    pub fn wrote(&self, places: impl Iterator<Item = Place>) {
        let (mut counts, mut last, mut rings) = (self.shared.counts(), None, false);
        for place in places {
            // Writes of one partition mostly come in runs.
            if last.replace(place) != Some(place)
                && let Some(count) = counts.known.get_mut(&place)
            {
                rings |= !std::mem::replace(&mut count.is_stale, true);
            }
        }
        if rings {
            self.shared.rings.notify_one();
        }
    }

    /// Forgets a partition that went away.
    pub fn forget(&self, place: Place) {
        self.shared.counts().known.remove(&place);
    }
}

impl Drop for Census {
    fn drop(&mut self) {
        self.shared.counts().ends = true;
        self.shared.rings.notify_one();
        // What it walks over must not be in use any more. One that has panicked uses nothing.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for partitions to count, and takes them; `None` at the end.
    fn take_stale(&self) -> Option<Vec<Place>> {
        let mut counts = self.counts();
        loop {
            if counts.ends {
                return None;
            }
            let stale = counts.known.iter_mut().filter(|(_, count)| count.is_stale);
            let places: Vec<Place> = stale
                .map(|(place, count)| {
                    count.is_stale = false;
                    *place
                })
                .collect();
            if !places.is_empty() {
                return Some(places);
            }
            counts = self.rings.wait(counts).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Rests for a time; true: the end has come.
    fn rests(&self, time: Duration) -> bool {
        let rest = self.rings.wait_timeout_while(self.counts(), time, |counts| !counts.ends);
        rest.unwrap_or_else(PoisonError::into_inner).0.ends
    }

    fn put(&self, place: Place, keys: Option<u64>) {
        if let Some(count) = self.counts().known.get_mut(&place) {
            count.keys = keys;
        }
    }
}

/// Walks over what was written, round after round, until the end.
fn walk_on(shared: &Shared, stride: &impl Fn(Place, Option<&[u8]>) -> Option<Stride>) {
    while let Some(places) = shared.take_stale() {
        for place in places {
            if walk(shared, place, stride) {
                return;
            }
        }
        if shared.rests(ROUND_EVERY) {
            return;
        }
    }
}

/// Walks over a partition; true: the end has come before its own.
fn walk(shared: &Shared, place: Place, stride: &impl Fn(Place, Option<&[u8]>) -> Option<Stride>) -> bool {
    let clock = SystemClock::start();
    let (mut keys, mut from) = (0, None);
    loop {
        let began = clock.now();
        let Some(found) = stride(place, from.as_deref()) else {
            shared.put(place, None);
            return false;
        };
        keys += found.keys;
        from = found.next;
        if from.is_none() {
            shared.put(place, Some(keys));
        }
        if shared.rests(clock.now().saturating_sub(began) * RESTS) {
            return true;
        }
        if from.is_none() {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const PLACE: Place = (TableId(0), 3);

    fn wait_for(census: &Census, place: Place, keys: Option<u64>) {
        while census.keys(place) != keys {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_partition_is_counted_again_when_it_was_written() {
        let (in_it, walks) = (Arc::new(AtomicU64::new(7)), Arc::new(AtomicU64::new(0)));
        let (read, walked) = (in_it.clone(), walks.clone());
        // Strides of three keys.
        let census = Census::start(move |_, from| {
            let (at, all) = (from.map_or(0, |from| u64::from(from[0])), read.load(Ordering::SeqCst));
            walked.fetch_add(u64::from(at == 0), Ordering::SeqCst);
            let keys = (all - at).min(3);
            let next = (at + keys < all).then(|| vec![u8::try_from(at + keys).expect("few")]);
            Some(Stride { keys, next })
        });
        let census = census.expect("a thread");
        census.wrote([PLACE].into_iter());
        wait_for(&census, PLACE, Some(7));
        in_it.store(9, Ordering::SeqCst);
        assert_eq!((census.keys(PLACE), walks.load(Ordering::SeqCst)), (Some(7), 1), "nothing was written");
        census.wrote([PLACE, PLACE, (TableId(1), 0)].into_iter());
        wait_for(&census, PLACE, Some(9));
        assert_eq!(walks.load(Ordering::SeqCst), 2, "what nobody asked for is not counted");
    }

    #[test]
    fn what_cannot_be_read_has_no_count() {
        let census = Census::start(|(_, partition), _| (partition == 0).then_some(Stride { keys: 1, next: None }));
        let census = census.expect("a thread");
        assert_eq!(census.keys(PLACE), None);
        // Behind it in the same round, or in a later one.
        wait_for(&census, (TableId(0), 0), Some(1));
        assert_eq!(census.keys(PLACE), None);
        census.forget((TableId(0), 0));
        assert_eq!(census.keys((TableId(0), 0)), None, "it is counted anew");
    }
}
