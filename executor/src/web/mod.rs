//! The HTTP server: health, status, plan and metrics of a worker, for people, probes, scrapers and the operator.
//!
//! One thread, `kaspr-http`, with a current-thread runtime. It never attaches to user code's interpreter and
//! looks at the worker's last snapshot alone: however long a call of user code blocks, it answers. A supervisor
//! answers for its workers, by their reports.
//!
//! ```text
//! worker ──a snapshot a second──▶ Board ─▶ Crew ◀──looks── kaspr-http ◀── probes, scrapers, the operator
//!        ◀──wants_rebalance────
//! ```
//!
//! | file | answers |
//! |---|---|
//! | `server.rs`, `stream.rs` | which connections there are, and how long each may take |
//! | `paths.rs` | which path is whose, and which requests are refused |
//! | `operator.rs`, `health.rs`, `status.rs`, `plan.rs` | the pages |
//! | `metrics/` | the page for scrapers |
//! | `disk.rs` | whether the state dir can be written |
//! | `answer.rs` | what every answer has |
//!
//! *Architecture invariant:* nothing here waits for the worker, and no name of a worker's type is known here.

mod answer;
mod disk;
mod health;
mod metrics;
mod operator;
mod paths;
mod plan;
mod server;
mod status;
mod stream;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::config::web::Web;
use crate::status::crew::{Crew, Member};
use crate::status::report::Report;
use crate::status::snapshot::{Snapshot, State};
pub use plan::PlanTexts;

/// The name of the thread.
const THREAD: &str = "kaspr-http";

/// Facts of a process that never change.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The program's version.
    pub version: &'static str,
    /// The plan's revision.
    pub revision: String,
    /// The version of the language of user code.
    pub python: String,
    /// The version of Kafka's client.
    pub librdkafka: String,
    /// The folder that outlives the process.
    pub state_dir: Option<String>,
}

/// Everything that pages are made of.
pub struct Site {
    /// The app.
    pub app: String,
    /// The workers that it answers for.
    pub crew: Crew,
    /// Facts that never change.
    pub facts: Facts,
    /// Settings.
    pub web: Web,
    /// True if the status has messages of failures, which may quote payloads.
    pub shows_messages: bool,
    /// Longest time since the worker's last turn for which it counts as alive.
    pub turn_age_max: Duration,
    /// The plan in all its forms.
    pub plan: PlanTexts,
    /// True once the process was asked to stop.
    pub is_told_to_stop: Box<dyn Fn() -> bool + Send>,
}

impl Site {
    /// The workers as of now, each with its state: a process that was asked to stop says so at once.
    fn look(&self) -> Vec<Worker> {
        let is_told = (self.is_told_to_stop)();
        let worker = |member: Member| {
            let state = if is_told { State::Stopping } else { member.report.snapshot.state };
            Worker { state, member }
        };
        self.crew.look().into_iter().map(worker).collect()
    }
}

/// A worker as pages show it.
#[derive(Clone, Debug)]
struct Worker {
    state: State,
    member: Member,
}

impl Worker {
    fn report(&self) -> &Report {
        &self.member.report
    }

    fn snapshot(&self) -> &Snapshot {
        &self.member.report.snapshot
    }

    /// Says of which worker something is told, where there are several.
    fn named(&self, what: &str) -> String {
        match self.member.number {
            Some(number) => format!("worker {number}: {what}"),
            None => what.to_owned(),
        }
    }
}

/// The state of the process: that of the worker that is furthest from running.
fn state_of(workers: &[Worker]) -> State {
    let states = [State::Stopping, State::Loading, State::Joining, State::Restoring, State::Running];
    let has = |state: &State| workers.iter().any(|worker| worker.state == *state);
    states.into_iter().find(has).unwrap_or(State::Idle)
}

/// Serves a site in a thread of its own, until the process ends.
///
/// # Errors
///
/// The system gives no thread, or no descriptors.
pub fn serve(listener: TcpListener, site: Site) -> std::io::Result<()> {
    start(listener, site, None).map(drop)
}

/// The thread of a site that is served for a time. It ends with this.
#[derive(Debug)]
pub struct ForATime {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Serves a site until what this returns is dropped: then the port is free for another.
///
/// # Errors
///
/// As [`serve`].
pub fn serve_for_a_time(listener: TcpListener, site: Site) -> std::io::Result<ForATime> {
    let ends = Arc::<AtomicBool>::default();
    let thread = start(listener, site, Some(ends.clone()))?;
    Ok(ForATime { ends, thread: Some(thread) })
}

impl Drop for ForATime {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // Its end closes the listener. A thread that has panicked has closed it, too.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn start(listener: TcpListener, site: Site, ends: Option<Arc<AtomicBool>>) -> std::io::Result<JoinHandle<()>> {
    // tokio takes a listener over as it is: one that blocks would hold up its only thread.
    listener.set_nonblocking(true)?;
    // Built by the caller, who learns at once where the system has no descriptors left.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let run = move || server::run(&runtime, (listener, ends), site);
    std::thread::Builder::new().name(THREAD.to_owned()).spawn(run)
}
