//! The loop of the thread: connections come, and are closed where they take too long or there are too many.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::{AbortHandle, LocalSet, spawn_local};
use tracing::{debug, warn};

use super::Site;
use super::paths::Paths;
use super::stream::{Progress, Step, Stream};
use crate::clock::SystemClock;
use crate::config::serving::{CONNECTIONS_MAX, HEADERS_BYTES_MAX};

/// The pause after a connection that could not be accepted: descriptors are freed meanwhile.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The time between two looks whether a server that is there for a time is to end.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Accepts connections until the process ends, or until it is told that it ends.
pub(super) fn run(runtime: &Runtime, (listener, ends): (TcpListener, Option<Arc<AtomicBool>>), site: Site) {
    let paths = Rc::new(Paths::new(site));
    LocalSet::new().block_on(runtime, async move {
        let listener = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return warn!(%error, "the port is not served"),
        };
        let connections =
            Rc::new(Connections { clock: SystemClock::start(), open: RefCell::default(), count: Cell::new(0) });
        loop {
            let accepted = match &ends {
                None => listener.accept().await,
                Some(ends) if ends.load(Ordering::Relaxed) => return,
                Some(_) => match tokio::time::timeout(LOOK_EVERY, listener.accept()).await {
                    Ok(accepted) => accepted,
                    Err(_) => continue,
                },
            };
            match accepted {
                Ok((socket, _)) => connections.open(socket, &paths),
                Err(error) => {
                    debug!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    });
}

/// The open connections.
struct Connections {
    clock: SystemClock,
    open: RefCell<Vec<Connection>>,
    count: Cell<u64>,
}

struct Connection {
    number: u64,
    progress: Rc<Progress>,
    task: AbortHandle,
}

impl Connections {
    /// Serves a connection. At the limit another one is closed for it.
    fn open(self: &Rc<Connections>, socket: TcpStream, paths: &Rc<Paths>) {
        if self.open.borrow().len() >= CONNECTIONS_MAX {
            // Not the new one is turned away: clients that hold their connections must not keep a probe out.
            self.close_slowest();
        }
        // Answers are small: each is better sent at once.
        let _ = socket.set_nodelay(true);
        let number = self.count.get();
        self.count.set(number + 1);
        let progress = Rc::new(Progress::new(self.clock));
        let listed = Listed { connections: self.clone(), number };
        let served = serve(Stream::new(socket, progress.clone()), progress.clone(), paths.clone());
        let task = spawn_local(async move {
            let _listed = listed;
            served.await;
        });
        self.open.borrow_mut().push(Connection { number, progress, task: task.abort_handle() });
    }

    /// Closes the connection that has waited longest for its headers; where none waits, the oldest of the kept
    /// ones, and at last the one that has answered longest.
    fn close_slowest(&self) {
        let mut open = self.open.borrow_mut();
        let first = |step: Step| {
            let waiting = open.iter().enumerate().filter(|(_, connection)| connection.progress.step() == step);
            waiting.min_by_key(|(_, connection)| connection.progress.moved()).map(|(at, _)| at)
        };
        let slowest = [Step::Headers, Step::Idle, Step::Answering].into_iter().find_map(first);
        if let Some(at) = slowest {
            // The task only ends at its next turn, when `Listed` finds the list free again.
            open.remove(at).task.abort();
        }
    }
}

/// Takes its connection off the list when it ends, however it does.
struct Listed {
    connections: Rc<Connections>,
    number: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.connections.open.borrow_mut().retain(|connection| connection.number != self.number);
    }
}

/// Answers the requests of a connection, one after the other.
async fn serve(stream: Stream, progress: Rc<Progress>, paths: Rc<Paths>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let (progress, paths) = (progress.clone(), paths.clone());
        async move {
            progress.answers();
            let answer = paths.answer(request).await;
            Ok::<_, Infallible>(answer.into_response(progress))
        }
    });
    let mut builder = http1::Builder::new();
    // Headers are timed by the socket, see `stream.rs`.
    builder.header_read_timeout(None).max_header_size(HEADERS_BYTES_MAX).max_buf_size(HEADERS_BYTES_MAX);
    if let Err(error) = builder.serve_connection(stream, answer).await {
        debug!(%error, "a connection has ended");
    }
}
