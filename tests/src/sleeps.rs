//! Counts how often the threads of a process wake, which is what an idle process costs: CPU time says more of
//! the machine than of the process.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use crate::clock::{now, pause};

/// Wake-ups a second, over all threads of its own, that an idle process may have.
pub const IDLE_MAX: f64 = 2.0;

/// Wake-ups of a process in a while.
#[derive(Debug)]
pub struct Wakes {
    /// Wake-ups a second by thread: its number and name.
    pub by_thread: BTreeMap<(u32, String), f64>,
}

impl Wakes {
    /// Counts for this long.
    pub fn count(pid: u32, time: Duration) -> Wakes {
        let (began, before) = (now(), sleeps(pid));
        pause(time);
        let after = sleeps(pid);
        let seconds = (now() - began).as_secs_f64();
        let woken = |(thread, count): ((u32, String), u64)| {
            let before = before.get(&thread).copied().unwrap_or(0);
            (thread, (count - before) as f64 / seconds)
        };
        Wakes { by_thread: after.into_iter().map(woken).collect() }
    }

    /// Wake-ups a second of all threads but those of librdkafka, which has timers of its own.
    pub fn own(&self) -> f64 {
        self.by_thread.iter().filter(|((_, name), _)| !is_of_client(name)).map(|(_, wakes)| wakes).sum()
    }

    /// Wake-ups a second of the threads of librdkafka.
    pub fn of_clients(&self) -> f64 {
        self.by_thread.iter().filter(|((_, name), _)| is_of_client(name)).map(|(_, wakes)| wakes).sum()
    }
}

/// Clock ticks of CPU that a process has used within the time, and those of one beside it that never sleeps: on a
/// busy machine both get less.
///
/// # Panics
/// If the process has ended.
pub fn ticks_beside_a_spinning_process(pid: u32, time: Duration) -> (u64, u64) {
    let mut control = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().expect("a shell starts");
    let before = [pid, control.id()].map(ticks);
    pause(time);
    let after = [pid, control.id()].map(ticks);
    // It runs until it is killed.
    let _ = control.kill();
    let _ = control.wait();
    (after[0] - before[0], after[1] - before[1])
}

/// Clock ticks of CPU that a process has used.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The name, in brackets, may hold anything. Behind it: user time is the 12th field, system time the 13th.
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// True for threads of librdkafka, which names them.
fn is_of_client(name: &str) -> bool {
    name.starts_with("rdk:")
}

/// Counts how often each thread has gone to sleep since it began.
fn sleeps(pid: u32) -> BTreeMap<(u32, String), u64> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let sleeps = threads.filter_map(|thread| {
        let path = thread.ok()?.path();
        // A thread that has just ended has no status any more.
        let status = std::fs::read_to_string(path.join("status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let id = path.file_name()?.to_str()?.parse().ok()?;
        Some(((id, field("Name")?.trim().to_owned()), field("voluntary_ctxt_switches")?.trim().parse().ok()?))
    });
    sleeps.collect()
}
