//! Figures of the process, and of the disk under its state.

use std::path::Path;
use std::time::Duration;

use super::Collected;
use super::rows::Writer;
use crate::status::report::Process;

/// The time between two looks whether the state dir can be written.
const DISK_LOOK_EVERY: Duration = Duration::from_secs(10);
/// The file that such a look writes and removes.
const PROBE: &str = ".kaspr-writable";

/// The processor time at the last page.
#[derive(Debug, Default)]
pub(super) struct Cpu(Option<(f64, Duration)>);

impl Cpu {
    /// Percent of one core since the last call; `None` at the first.
    pub(super) fn percent(&mut self, cpu_seconds: f64, now: Duration) -> Option<f64> {
        let (seconds, at) = self.0.replace((cpu_seconds, now))?;
        let passed = now.saturating_sub(at).as_secs_f64();
        // A worker that was started again has used less time than its post had at the last page.
        (passed > 0.0).then(|| ((cpu_seconds - seconds) / passed * 100.0).max(0.0))
    }
}

/// The disk under the state dir, as of the last look.
#[derive(Debug, Default)]
pub(super) struct Disk(Option<(Duration, DiskSeen)>);

/// One look at a disk.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DiskSeen {
    /// True if a byte could be written.
    is_writable: bool,
    /// Bytes in all, and those that are free.
    pub(super) space: Option<(f64, f64)>,
}

impl Disk {
    /// Looks again if the last look is old.
    pub(super) fn look(&mut self, folder: &str, now: Duration) -> &DiskSeen {
        let last = self.0.take().filter(|(at, _)| now < *at + DISK_LOOK_EVERY);
        let (_, seen) = self.0.insert(last.unwrap_or_else(|| (now, DiskSeen::of(Path::new(folder)))));
        seen
    }
}

impl DiskSeen {
    fn of(folder: &Path) -> DiskSeen {
        let probe = folder.join(PROBE);
        // One byte: a disk that is full still makes an empty file.
        let is_writable = std::fs::write(&probe, b".").is_ok();
        let _ = std::fs::remove_file(&probe);
        let space = rustix::fs::statvfs(folder).ok().map(|disk| {
            let bytes = |blocks: u64| blocks as f64 * disk.f_frsize as f64;
            (bytes(disk.f_blocks), bytes(disk.f_bavail))
        });
        DiskSeen { is_writable, space }
    }
}

/// Writes what is known of the disk.
pub(super) fn write_disk(collected: &Collected, writer: &mut Writer) {
    if let Some(disk) = &collected.disk {
        let help = "1 if the state dir can be written";
        writer.gauge("kaspr_state_dir_writable", help, f64::from(u8::from(disk.is_writable)));
    }
}

/// Writes what is known of a process.
pub(super) fn write(process: Option<&Process>, writer: &mut Writer) {
    let Some(process) = process else { return };
    writer.counter("process_cpu_seconds", "Time on a processor", process.cpu_seconds);
    writer.gauge("process_resident_memory_bytes", "Memory in use", process.resident_bytes);
    writer.gauge("process_virtual_memory_bytes", "Memory that is mapped", process.virtual_bytes);
    writer.gauge("process_open_fds", "Open descriptors", process.open_files);
    if let Some(most) = process.files_max {
        writer.gauge("process_max_fds", "Most descriptors", most);
    }
    if let Some(began) = process.began_seconds {
        writer.gauge("process_start_time_seconds", "When the process began, since 1970", began);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_the_share_of_a_core_since_the_last_look() {
        let mut cpu = Cpu::default();
        assert_eq!(cpu.percent(1.0, Duration::from_secs(10)), None);
        assert_eq!(cpu.percent(2.0, Duration::from_secs(14)), Some(25.0));
    }

    #[test]
    fn a_folder_that_cannot_be_written_shows() {
        let folder = tempfile::tempdir().expect("a folder");
        let seen = DiskSeen::of(folder.path());
        assert!(seen.is_writable && seen.space.is_some_and(|(all, free)| all >= free && free > 0.0));
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
        assert!(!DiskSeen::of(&folder.path().join("gone")).is_writable);
    }
}
