//! The port of a run: bound before anything else that may wait, so that probes find a process that starts.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use kaspr_ir::plan::Plan;
use tracing::info;

use super::stop::{Signals, Stop};
use crate::broker::kafka;
use crate::code::python;
use crate::config::Config;
use crate::config::serving::TURN_AGE_MAX;
use crate::config::settings::Settings;
use crate::config::web::{Web, host_name};
use crate::status::board::Board;
use crate::status::crew::{self, Crew, Posts};
use crate::status::snapshot::State;
use crate::web::{Facts, ForATime, PlanTexts, Site};

/// The subject of a server: a plan, with its settings as they are meant and as they were written.
type About<'a> = (&'a Plan, &'a Config, &'a Settings);

/// Things from before a run: the signals that it listens to, and the server of a process without definitions.
type Before<'a> = (&'a Signals, Option<Idle>);

/// The age of a turn from which a worker that a failpoint holds counts as dead: its test does not wait for
/// minutes.
const HELD_AGE_MAX: Duration = Duration::from_secs(3);

/// The HTTP server that a run is to have, if it is to have one; of a local run for this machine alone, unless an
/// address is given.
///
/// # Errors
///
/// A setting makes no sense.
pub(super) fn wanted(settings: &Settings, is_local: bool) -> Result<Option<Web>, Stop> {
    settings.web(is_local, &host_name()).map_err(Stop::refused)
}

/// Serves the port of a worker; gives the board on which it is to leave its snapshots.
///
/// # Errors
///
/// The port cannot be had.
pub(super) fn serve(web: Web, about: About<'_>, before: Before<'_>) -> Result<Arc<Board>, Stop> {
    let board = board_of(about.1);
    serve_crew(web, Crew::One(board.clone()), about, before)?;
    Ok(board)
}

/// The board of a worker of several, whose reports go to its supervisor over this socket.
///
/// # Errors
///
/// There is no thread for it.
pub(super) fn relay(socket: UnixStream, config: &Config) -> Result<Arc<Board>, Stop> {
    let board = board_of(config);
    crew::relay(board.clone(), socket).map_err(Stop::own_fault)?;
    Ok(board)
}

/// Serves the port of a supervisor; gives the posts at which its workers report.
///
/// # Errors
///
/// The port cannot be had.
pub(super) fn supervise(web: Web, workers: u32, about: About<'_>, before: Before<'_>) -> Result<Arc<Posts>, Stop> {
    let posts = Arc::new(Posts::new(workers));
    serve_crew(web, Crew::Many(posts.clone()), about, before)?;
    Ok(posts)
}

fn board_of(config: &Config) -> Arc<Board> {
    Arc::new(Board::new(&config.app, &config.transactional_id))
}

fn serve_crew(web: Web, crew: Crew, about: About<'_>, (signals, idle): Before<'_>) -> Result<(), Stop> {
    let address = web.listen;
    // The specs may name another address, whose port may be the same.
    let idle = idle.filter(|idle| idle.address == address);
    let listener = match &idle {
        Some(idle) => idle.listener.try_clone().map_err(Stop::own_fault)?,
        None => listen(address)?,
    };
    crate::web::serve(listener, site(web, crew, about, signals)?).map_err(Stop::own_fault)?;
    // Not before: the port is served without a gap.
    drop(idle);
    info!(%address, "serving HTTP");
    Ok(())
}

fn site(web: Web, crew: Crew, (plan, config, settings): About<'_>, signals: &Signals) -> Result<Site, Stop> {
    let signals = signals.clone();
    Ok(Site {
        app: config.app.clone(),
        crew,
        facts: Facts {
            version: env!("CARGO_PKG_VERSION"),
            revision: plan.revision.clone(),
            python: python::version().to_owned(),
            librdkafka: kafka::version().to_owned(),
            state_dir: settings.state_dir().map(|folder| folder.display().to_string()),
        },
        shows_messages: settings.truth("webMessages").map_err(Stop::refused)?,
        turn_age_max: if config.failpoint.holds() { HELD_AGE_MAX } else { TURN_AGE_MAX },
        plan: PlanTexts::of(plan),
        web,
        is_told_to_stop: Box::new(move || signals.asked_to_stop()),
    })
}

/// The port of a process that has no definitions yet: it is well and has nothing to do.
#[derive(Debug)]
pub struct Idle {
    address: SocketAddr,
    listener: TcpListener,
    board: Arc<Board>,
    _server: ForATime,
}

impl Idle {
    /// Serves the port of an idle process until this is dropped; `None`: no port is set.
    ///
    /// # Errors
    ///
    /// A setting makes no sense, or the port cannot be had.
    pub fn serve(settings: &Settings, signals: &Signals) -> Result<Option<Idle>, Stop> {
        let Some(web) = wanted(settings, false)? else { return Ok(None) };
        let plan = Plan::empty();
        let config = settings.config(&plan, 0).map_err(Stop::refused)?;
        let (address, listener) = (web.listen, listen(web.listen)?);
        let board = board_of(&config);
        let site = site(web, Crew::One(board.clone()), (&plan, &config, settings), signals)?;
        let served = listener.try_clone().map_err(Stop::own_fault)?;
        let server = crate::web::serve_for_a_time(served, site).map_err(Stop::own_fault)?;
        Ok(Some(Idle { address, listener, board, _server: server }))
    }

    /// Says why nothing runs, and that the process lives.
    pub fn note(&self, why: &str) {
        self.board.note(State::Idle, why);
    }
}

/// Listens at an address; at all addresses of IPv4 where all are meant and the machine has no IPv6.
fn listen(address: SocketAddr) -> Result<TcpListener, Stop> {
    let bound = match TcpListener::bind(address) {
        // A port that is taken may still be free for IPv4 alone, and then half of the callers would reach another
        // process.
        Err(error) if address.ip().is_unspecified() && error.kind() != ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port()))
        }
        bound => bound,
    };
    bound.map_err(|error| {
        Stop::own_fault(format!("cannot listen at {address}: {error}; --web-port and --web-bind say where"))
    })
}
