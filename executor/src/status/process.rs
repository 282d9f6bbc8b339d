//! Figures of a process, as its system has them.

use super::report::Process;

/// The unit of times in `/proc`, which Linux has fixed for programs: a hundredth of a second.
const TICKS_PER_SECOND: f64 = 100.0;

impl Process {
    /// Reads them; `None` where the system does not tell.
    pub fn now() -> Option<Process> {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let stat = read("/proc/self/stat")?;
        // The name before the last parenthesis may hold blanks.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<f64>().ok());
        let booted = read("/proc/stat").and_then(|text| {
            text.lines().find_map(|line| line.strip_prefix("btime ")).and_then(|time| time.trim().parse::<f64>().ok())
        });
        let status = read("/proc/self/status")?;
        let kilobytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()
        };
        let limits = read("/proc/self/limits");
        let files_max = limits.and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
            line.split_whitespace().next()?.parse().ok()
        });
        Some(Process {
            cpu_seconds: (field(14)? + field(15)?) / TICKS_PER_SECOND,
            resident_bytes: kilobytes("VmRSS:")? * 1024.0,
            virtual_bytes: kilobytes("VmSize:")? * 1024.0,
            open_files: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as f64,
            files_max,
            began_seconds: booted.zip(field(22)).map(|(booted, ticks)| booted + ticks / TICKS_PER_SECOND),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_to_its_system() {
        let process = Process::now().expect("there is a /proc");
        assert!(process.resident_bytes > 0.0 && process.open_files > 2.0 && process.began_seconds > Some(1.5e9));
    }
}
