//! Signals to processes that may have begun only just now, or stand still for a moment.

use std::time::Duration;

use crate::clock::{now, pause};

/// Longest wait for a process.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks a process to end, as Kubernetes does: waits until it handles SIGTERM, and until it has taken the
/// signal, for two pending signals would become one.
///
/// # Panics
/// If it does neither for a minute, or is known to have ended.
pub fn terminate(process: impl Into<u64>) {
    let process = process.into();
    // The number 0 would stand for this process and all that it has started.
    assert!(process > 0, "the process has ended before");
    wait_for(process, "does not listen to SIGTERM", || has(process, "SigCgt:"));
    // SAFETY: the caller has not waited for its child, so the number is still its own.
    unsafe { libc::kill(i32::try_from(process).expect("a process number"), libc::SIGTERM) };
    wait_for(process, "does not take SIGTERM", || !has(process, "SigPnd:") && !has(process, "ShdPnd:"));
}

#[track_caller]
fn wait_for(process: u64, what: &str, is_so: impl Fn() -> bool) {
    let began = now();
    while !has_ended(process) && !is_so() {
        assert!(now() - began < PATIENCE, "the process {process} {what}");
        pause(Duration::from_millis(5));
    }
}

/// True if SIGTERM is among the signals of this kind.
fn has(process: u64, kind: &str) -> bool {
    let bits = field(process, kind).and_then(|bits| u64::from_str_radix(&bits, 16).ok());
    bits.unwrap_or(0) >> (libc::SIGTERM - 1) & 1 == 1
}

fn has_ended(process: u64) -> bool {
    field(process, "State:").is_none_or(|state| state.starts_with(['Z', 'X']))
}

fn field(process: u64, name: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().to_owned())
}
