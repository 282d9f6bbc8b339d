//! Several workers on one machine: a process for each, since one Python runs on one core, and a
//! supervisor that starts them again when they die.
//!
//! | a worker ends with | the supervisor |
//! |---|---|
//! | 0 | counts it as done |
//! | 1, 2 | stops all: the others would meet the same |
//! | 76 (a fault of its own) or a crash | starts it again, after a pause that doubles up to 30 s |
//! | 76 from every worker at its start | stops all: no worker could start |
//! | anything, once all are to stop | counts it as done |
//!
//! Its own status is the worst of those for which it stopped. Workers die with it: the kernel sends them
//! SIGTERM if it is killed.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use super::given::hand_over;
use super::stop::{FAULT, FINE, FORCED, INTERRUPTED, OWN_FAULT, REFUSED, Signals, TERMINATED};
use crate::clock::Clock;
use crate::config::secret::Secret;
use crate::status::crew::Posts;
use crate::wake::Wake;

/// Time between two looks of the supervisor at its workers where nothing can wake it.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// First and longest pause before a worker is started again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// A worker that ran this long had no trouble starting. Its next trouble begins with the first pause again.
const STEADY: Duration = Duration::from_secs(60);

/// A place that is always filled, by one child after the other, until it is done.
struct Post {
    number: u32,
    child: Option<Child>,
    started: Duration,
    /// The time at which it is started again, if it is not running.
    due: Duration,
    /// The pause before the next start.
    pause: Duration,
    /// It ended by a fault of its own before it had run for long.
    has_failed: bool,
    /// Nothing is started here any more.
    done: bool,
    /// The place that learns how its process has ended, if a port is served.
    noted: Option<Arc<Posts>>,
}

/// Settings that workers are started with. The same for every worker; only the number differs.
pub struct Handover {
    /// The supervisor's command line, without settings of Kafka clients.
    pub arguments: Vec<OsString>,
    /// Settings of Kafka clients, which a worker reads from its standard input: no other process sees them there.
    pub settings: Secret,
    /// The posts at which workers report, where a port is served.
    pub posts: Option<Arc<Posts>>,
}

/// Runs `workers` processes of this program until all are done. Gives the exit status: that of the fault for
/// which they stopped, if one did. Returns when no child is left.
pub fn supervise(workers: u32, handover: &Handover, clock: &Rc<dyn Clock>, signals: &Signals) -> i32 {
    let now = clock.now();
    let post = |number| Post {
        number,
        child: None,
        started: now,
        due: now,
        pause: PAUSES.0,
        has_failed: false,
        done: false,
        noted: handover.posts.clone(),
    };
    let mut posts: Vec<Post> = (0..workers).map(post).collect();
    let (mut is_ending, mut has_asked, mut worst) = (false, false, FINE);
    let wake = Wake::new();
    wake.iter().for_each(|wake| signals.ring(wake.bell()));
    info!(workers, "starting workers");
    loop {
        let now = clock.now();
        // Cleared before the looks below: a child that ends during them rings again.
        wake.iter().for_each(Wake::clear);
        is_ending |= signals.asked_to_stop();
        if signals.take_asked() {
            posts.iter().for_each(|post| tell(post, libc::SIGUSR1));
        }
        look_after(&mut posts, (&mut is_ending, &mut worst), signals, now);
        // One that has run for long is not counted: it could start.
        if !is_ending && posts.iter().all(|post| post.has_failed && post.child.is_none()) {
            error!("no worker could start: stopping");
            (worst, is_ending) = (FAULT, true);
        }
        if is_ending {
            // A worker that waits for its next start has nothing to stop.
            posts.iter_mut().filter(|post| post.child.is_none()).for_each(|post| post.done = true);
        }
        if is_ending && !has_asked {
            // Once: a worker takes a second signal as an order to end at once, with all that it has in hand.
            has_asked = true;
            posts.iter().for_each(|post| tell(post, libc::SIGTERM));
        }
        if posts.iter().all(|post| post.done) {
            return worst;
        }
        if !is_ending {
            for post in posts.iter_mut().filter(|post| !post.done && post.child.is_none() && post.due <= now) {
                if let Err(why) = post.start(handover, now) {
                    post.has_failed = true;
                    post.put_off(&format!("cannot be started: {why}"), now);
                }
            }
        }
        match &wake {
            Some(wake) => wake.wait(if is_ending { Some(LOOK_EVERY) } else { next_start(&posts, clock.now()) }),
            None => std::thread::park_timeout(LOOK_EVERY),
        }
    }
}

/// Looks which workers have ended, and whether that ends all: `is_ending` is set, and `worst` is the status for
/// it. Every child that has ended is waited for here, so that none is left as a zombie.
fn look_after(posts: &mut [Post], (is_ending, worst): (&mut bool, &mut i32), signals: &Signals, now: Duration) {
    for post in posts {
        let Some(status) = post.ended() else { continue };
        match (status.code(), *is_ending) {
            (Some(FINE), _) => post.done = true,
            // The signal came before the worker listened: it had begun nothing.
            (None, true) if status.signal() == Some(libc::SIGTERM) => post.done = true,
            (Some(code @ (FAULT | REFUSED)), _) => {
                error!(worker = post.number, code, "ended: stopping all workers");
                *worst = (*worst).max(code);
                post.done = true;
                *is_ending = true;
            }
            // A worker that the supervisor interrupts ends as a run that the user has interrupted.
            (Some(INTERRUPTED | TERMINATED), true) if signals.asked_to_stop() => {
                *worst = if *worst == FINE { signals.status() } else { *worst };
                post.done = true;
            }
            (code, true) => {
                // The process reports the fault for which all workers stop.
                let code = if code == Some(OWN_FAULT) { FAULT } else { code.unwrap_or(FORCED) };
                *worst = if *worst == FINE { code } else { *worst };
                post.done = true;
            }
            _ => post.again(status, now),
        }
    }
}

/// Time until the next worker is to be started; `None`: all run.
fn next_start(posts: &[Post], now: Duration) -> Option<Duration> {
    let waiting = posts.iter().filter(|post| !post.done && post.child.is_none());
    waiting.map(|post| post.due.saturating_sub(now)).min()
}

impl Post {
    /// # Errors
    ///
    /// The program cannot be found or started any more.
    fn start(&mut self, handover: &Handover, now: Duration) -> std::io::Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(&handover.arguments).arg("--worker").arg(format!("{}:{}", self.number, std::process::id()));
        // Ctrl-C reaches the supervisor alone, which signals its workers once.
        let (mut ours, theirs) = UnixStream::pair()?;
        command.process_group(0).stdin(Stdio::from(OwnedFd::from(theirs)));
        let child = command.spawn()?;
        // The command holds the worker's end: with it, the end of the worker would not show.
        drop(command);
        // A worker that has ended already does not read; its status says why.
        let _ = hand_over(&mut ours, handover.settings.expose());
        if let Some(posts) = &handover.posts {
            posts.started(self.number, ours)?;
        }
        self.child = Some(child);
        self.started = now;
        Ok(())
    }

    /// Its status, if it has just ended.
    fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(status)
    }

    /// Has a worker started again after a pause: it ended before its work was done.
    fn again(&mut self, status: ExitStatus, now: Duration) {
        // Judged by the run that has just ended, since `started` still holds its beginning.
        let was_steady = now >= self.started + STEADY;
        self.pause = if was_steady { PAUSES.0 } else { self.pause };
        let has_fault = status.code() == Some(OWN_FAULT);
        self.has_failed = has_fault && !was_steady;
        match has_fault {
            true => self.put_off("stopped by a fault of its own", now),
            false => self.put_off(&format!("ended ({status})"), now),
        }
    }

    /// `what` is the reason for the log.
    fn put_off(&mut self, what: &str, now: Duration) {
        self.due = now + self.pause;
        let why = format!("{what}, starting again in {} s", self.pause.as_secs());
        warn!(worker = self.number, "{why}");
        self.noted.iter().for_each(|posts| posts.ended(self.number, &why));
        self.pause = (self.pause * 2).min(PAUSES.1);
    }
}

/// Does nothing if the worker does not run.
fn tell(post: &Post, signal: i32) {
    if let Some(pid) = post.child.as_ref().and_then(|child| i32::try_from(child.id()).ok()) {
        // SAFETY: the child has not been waited for, so the number is still its own.
        unsafe { libc::kill(pid, signal) };
    }
}

/// In a worker: dies with its supervisor, also when that is killed. False: it is gone already. Call it before
/// anything else: what was begun meanwhile would go on alone.
pub fn dies_with(supervisor: u32) -> bool {
    // In this order, so that a supervisor that dies before the call of prctl is noticed by its number.
    // SAFETY: prctl only sets this process's signal; getppid cannot fail.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
        u32::try_from(libc::getppid()).is_ok_and(|parent| parent == supervisor)
    }
}
