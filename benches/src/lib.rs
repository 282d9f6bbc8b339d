//! Benches: each compares with what people would write by hand, in the same run, and prints ratios.

pub mod scrapes;

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The cost of one run of one contestant.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Seconds of CPU of the whole process between its first event and its last.
    pub cpu: f64,
    /// Seconds on the wall.
    pub wall: f64,
    /// Events that it read.
    pub events: u64,
    /// Records that it wrote.
    pub records: u64,
}

impl Run {
    /// Reads the line that a contestant prints.
    pub fn from_json(line: &str) -> Option<Run> {
        let value: serde_json::Value = serde_json::from_str(line.trim()).ok()?;
        let (cpu, wall) = (value["cpu"].as_f64()?, value["wall"].as_f64()?);
        Some(Run { cpu, wall, events: value["events"].as_u64()?, records: value["records"].as_u64()? })
    }

    /// The line that a contestant prints.
    pub fn to_json(self) -> String {
        let Run { cpu, wall, events, records } = self;
        format!("{{\"cpu\":{cpu},\"wall\":{wall},\"events\":{events},\"records\":{records}}}")
    }

    /// Microseconds of CPU per event.
    pub fn micros(&self) -> f64 {
        self.cpu * 1e6 / self.events as f64
    }
}

/// The median of some figures.
pub fn median(figures: &[f64]) -> f64 {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Seconds of CPU that this process has used, all threads counted.
pub fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on every Linux, and the pointer is to a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Seconds of CPU that another process has used, all threads counted; in steps of the kernel's tick, 10 ms.
///
/// # Panics
///
/// If it does not run.
pub fn cpu_seconds_of(process: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("the process runs");
    // Behind the name, which may hold spaces, `utime` and `stime` are the twelfth and thirteenth.
    let (_, figures) = text.rsplit_once(')').expect("its name is in brackets");
    let ticks: f64 = figures.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    // SAFETY: it only reads a setting of the system.
    ticks / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64
}

/// Keeps this thread, and processes that it starts from now on, on one core; on any where there is but one.
pub fn pin(core: usize) {
    if core >= cores() {
        return;
    }
    // SAFETY: an all-zero set is valid, the core is within its bounds, and the pointer is to a live value.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, std::mem::size_of::<libc::cpu_set_t>(), &set);
    }
}

/// Cores of the machine, those included that this thread is kept from.
fn cores() -> usize {
    // SAFETY: it only reads a setting of the system.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }).unwrap_or(1)
}

/// Memory of this process that is in RAM, in MiB.
pub fn resident_mib() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(f64::NAN);
    // SAFETY: it only reads a setting of the system.
    pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as f64 / 1048576.0
}

/// Readings of sensors as JSON: seven fields and a nested object, about 177 bytes each, every tenth
/// one inactive. The same text at every call.
pub fn readings(count: u64) -> String {
    let mut text = String::new();
    for n in 0..count {
        let (tenths, active) = (n.wrapping_mul(7919) % 500, !n.is_multiple_of(10));
        writeln!(
            text,
            "{{\"id\": {}, \"sensor\": \"sensor-{:04}\", \"celsius\": {}.{}, \"active\": {active}, \"unit\": \"C\", \
             \"at\": \"2026-11-24T{:02}:{:02}:{:02}Z\", \"place\": {{\"site\": \"north-{}\", \"floor\": {}, \"room\": \"B{:03}\"}}}}",
            1_000_000 + n,
            n % 5000,
            tenths / 10,
            tenths % 10,
            n / 3600 % 24,
            n / 60 % 60,
            n % 60,
            n % 7,
            n % 30,
            n % 200,
        )
        .expect("writing to a string cannot fail");
    }
    text
}

/// The project's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package stands in the workspace")
}

/// The folder of a bench's spec and scripts.
pub fn folder(name: &str) -> PathBuf {
    root().join("benches").join(name)
}

/// Names the machine, as far as the system says.
pub fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
    format!("{} ({} cores)", model.unwrap_or("a processor that does not say its name"), cores())
}
