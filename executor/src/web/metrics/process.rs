//! Figures of the process.

use std::time::Duration;

use super::rows::Writer;
use crate::status::report::Process;

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
}
