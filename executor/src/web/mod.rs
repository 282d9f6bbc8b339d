//! The HTTP server: health, status, plan and metrics of a worker, for people, probes, scrapers and the operator.
//!
//! One thread, `kaspr-http`, with a current-thread runtime. It never attaches to user code's interpreter and
//! shares one pointer with the worker, the [`Board`]: however long a call of user code blocks, it answers.
//!
//! ```text
//! worker ──a snapshot a second──▶ Board ◀──looks── kaspr-http ◀── probes, scrapers, the operator
//!        ◀──wants_rebalance────
//! ```
//!
//! | file | answers |
//! |---|---|
//! | `server.rs`, `stream.rs` | which connections there are, and how long each may take |
//! | `paths.rs` | which path is whose, and which requests are refused |
//! | `operator.rs`, `health.rs`, `status.rs`, `plan.rs` | the pages |
//! | `metrics/` | the page for scrapers |
//! | `answer.rs` | what every answer has |
//!
//! *Architecture invariant:* nothing here waits for the worker, and no name of a worker's type is known here.

mod answer;
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
use std::time::Duration;

use crate::config::web::Web;
use crate::guard::Sighting;
use crate::status::board::{Board, Seen};
use crate::status::snapshot::State;
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
    /// The worker's snapshots.
    pub board: Arc<Board>,
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
    /// The board as it is now, and the worker's state: a process that was asked to stop says so at once.
    fn look(&self) -> (Seen, State) {
        let seen = self.board.look();
        let state = if (self.is_told_to_stop)() { State::Stopping } else { seen.snapshot.state };
        (seen, state)
    }

    /// The call that keeps the worker's thread; `None` where nothing runs.
    fn running(&self) -> Option<Running> {
        let watch = self.board.watched()?;
        let mut sighting = Sighting::default();
        sighting.look(watch, Duration::ZERO);
        if let Some((_, call, _)) = sighting.client_call(Duration::ZERO) {
            return Some(Running { what: format!("the call \"{call}\" of Kafka's client"), on: None });
        }
        sighting.longest(Duration::ZERO)?;
        let place = sighting.doing().and_then(|doing| watch.place(&doing));
        Some(Running { what: watch.row_in_words(), on: place.map(|(place, offset)| format!("{place}@{offset}")) })
    }
}

/// The call in which the worker's thread is.
struct Running {
    what: String,
    /// The first event of the unit that runs.
    on: Option<String>,
}

impl std::fmt::Display for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.on {
            Some(on) => write!(f, "{} on {on}", self.what),
            None => write!(f, "{}", self.what),
        }
    }
}

/// Serves a site in a thread of its own, until the process ends.
///
/// # Errors
///
/// The system gives no thread, or no descriptors.
pub fn serve(listener: TcpListener, site: Site) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let run = move || server::run(&runtime, listener, site);
    std::thread::Builder::new().name(THREAD.to_owned()).spawn(run)?;
    Ok(())
}
