//! The disk under the state dir: can it be written, and how much room is there?

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use super::{Site, Worker};
use crate::clock::{Clock as _, SystemClock};

/// The time between two looks: whoever asks for pages every few seconds learns in time of a disk that has filled up.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The file that such a look writes and removes.
const PROBE: &str = ".kaspr-writable";

/// The disk under the state dir, as of the last look.
#[derive(Debug)]
pub(super) struct Disk {
    clock: SystemClock,
    seen: RefCell<Option<(Duration, DiskSeen)>>,
}

/// One look at a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct DiskSeen {
    /// The reason for which it could not be written, in the system's words.
    pub(super) fault: Option<String>,
    /// Bytes in all, and those that are free.
    pub(super) space: Option<(f64, f64)>,
}

impl Disk {
    /// No look was taken.
    pub(super) fn new() -> Disk {
        Disk { clock: SystemClock::start(), seen: RefCell::default() }
    }

    /// Looks, if the last look is old; `None`: there is no state dir.
    pub(super) fn look(&self, site: &Site) -> Option<DiskSeen> {
        let folder = site.facts.state_dir.as_ref()?;
        let now = self.clock.now();
        let mut seen = self.seen.borrow_mut();
        let last = seen.take().filter(|(at, _)| now < *at + LOOK_EVERY);
        let (_, look) = seen.insert(last.unwrap_or_else(|| (now, DiskSeen::of(Path::new(folder)))));
        Some(look.clone())
    }
}

impl DiskSeen {
    fn of(folder: &Path) -> DiskSeen {
        let probe = folder.join(PROBE);
        // One byte: a disk that is full still makes an empty file.
        let fault = std::fs::write(&probe, b".").err().map(|error| error.to_string());
        let _ = std::fs::remove_file(&probe);
        let space = rustix::fs::statvfs(folder).ok().map(|disk| {
            let bytes = |blocks: u64| blocks as f64 * disk.f_frsize as f64;
            (bytes(disk.f_blocks), bytes(disk.f_bavail))
        });
        DiskSeen { fault, space }
    }

    /// The reason for which this worker keeps nothing here, or could not. What its store met comes first: a disk
    /// that had filled up has room again when the store is gone.
    pub(super) fn fault_for(&self, worker: &Worker) -> Option<String> {
        let given_up = worker.snapshot().given_up.as_ref();
        let given_up = given_up.map(|why| format!("tables live in memory until the next start: {why}"));
        given_up.map(|why| worker.named(&why)).or_else(|| self.fault.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::status::crew::Member;
    use crate::status::report::Report;
    use crate::status::snapshot::{Snapshot, State};

    #[test]
    fn a_folder_that_cannot_be_written_shows() {
        let folder = tempfile::tempdir().expect("a folder");
        let seen = DiskSeen::of(folder.path());
        assert!(seen.fault.is_none() && seen.space.is_some_and(|(all, free)| all >= free && free > 0.0), "{seen:?}");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
        let gone = DiskSeen::of(&folder.path().join("gone"));
        assert!(gone.fault.is_some_and(|fault| fault.contains("No such file")));
    }

    #[test]
    fn a_store_that_was_given_up_shows_although_its_disk_has_room_again() {
        let worker = |given_up: Option<&str>, number| {
            let snapshot = Snapshot { given_up: given_up.map(str::to_owned), ..Snapshot::default() };
            let report = Report { snapshot: Arc::new(snapshot), ..Report::default() };
            Worker { state: State::Running, member: Member { number, report, restarts: 0 } }
        };
        let (fine, full) = (DiskSeen::default(), DiskSeen { fault: Some("full".to_owned()), space: None });
        assert_eq!(fine.fault_for(&worker(None, None)), None);
        assert_eq!(full.fault_for(&worker(None, Some(1))).as_deref(), Some("full"));
        assert_eq!(
            fine.fault_for(&worker(Some("no space"), Some(1))).as_deref(),
            Some("worker 1: tables live in memory until the next start: no space")
        );
    }
}
