//! The crew: the last reports of all workers of a process, which may be itself alone.
//!
//! Those who answer for the process look here and need not know whether the worker is a thread of theirs or
//! another process.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{debug, warn};

use super::board::Board;
use super::report::{LeftOut, REBALANCE, Report};
use super::snapshot::{Snapshot, State};
use crate::clock::{Clock as _, SystemClock};

/// The name of a thread that reads the reports of a worker.
const THREAD: &str = "kaspr-crew";
/// The name of the thread that writes those of this process.
const RELAY: &str = "kaspr-relay";
/// The time between two reports.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// The age of a report from which its process counts as silent. No call of user code keeps the thread that reports.
const SILENT_AFTER: Duration = Duration::from_secs(3);

/// The workers of a process.
#[derive(Debug)]
pub enum Crew {
    /// This process is the worker.
    One(Arc<Board>),
    /// Each worker is a process.
    Many(Arc<Posts>),
}

/// A worker of a crew.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its number, where there are several.
    pub number: Option<u32>,
    /// Its last report.
    pub report: Report,
    /// Times that it was started again.
    pub restarts: u64,
}

impl Crew {
    /// All workers, as of their last reports.
    pub fn look(&self) -> Vec<Member> {
        match self {
            Crew::One(board) => vec![Member { number: None, report: Report::of(board), restarts: 0 }],
            Crew::Many(posts) => posts.look(),
        }
    }

    /// Asks a worker to have its group share out partitions anew: one is enough.
    pub fn ask_rebalance(&self) {
        match self {
            Crew::One(board) => board.ask_rebalance(),
            Crew::Many(posts) => posts.ask_rebalance(),
        }
    }
}

/// The posts of workers that are processes.
#[derive(Debug)]
pub struct Posts {
    clock: SystemClock,
    posts: Mutex<Vec<Post>>,
}

#[derive(Debug, Default)]
struct Post {
    /// The last report, and when it came; `None` until the first of a process.
    last: Option<(Report, Duration)>,
    /// The way to the process that is there now.
    line: Option<UnixStream>,
    /// Processes that were started here.
    starts: u64,
    /// The reason for which none is there, in words.
    why: Option<String>,
}

impl Posts {
    /// So many posts, all empty.
    pub fn new(workers: u32) -> Posts {
        let posts = (0..workers).map(|_| Post::default()).collect();
        Posts { clock: SystemClock::start(), posts: Mutex::new(posts) }
    }

    fn posts(&self) -> MutexGuard<'_, Vec<Post>> {
        self.posts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process was started at a post: its reports come over this socket, in a thread that ends with it.
    ///
    /// # Errors
    ///
    /// There is no thread, or no descriptor.
    pub fn started(self: &Arc<Posts>, number: u32, socket: UnixStream) -> std::io::Result<()> {
        let (mut reads, posts, mut start) = (socket.try_clone()?, self.clone(), 0);
        // Before its thread runs: `put` drops a report of any start but the one that is noted here.
        if let Some(post) = self.posts().get_mut(number as usize) {
            start = post.starts + 1;
            *post = Post { last: None, line: Some(socket), starts: start, why: post.why.take() };
        }
        let run = move || {
            while let Ok(report) = Report::read(&mut reads) {
                posts.put((number, start), Some(report));
            }
            posts.put((number, start), None);
        };
        std::thread::Builder::new().name(THREAD.to_owned()).spawn(run).map(drop)
    }

    /// Puts the report of the process that was started there as the `start`-th: a later one is not touched.
    fn put(&self, (number, start): (u32, u64), report: Option<Report>) {
        let now = self.clock.now();
        if let Some(post) = self.posts().get_mut(number as usize).filter(|post| post.starts == start) {
            post.last = report.map(|report| (report, now));
        }
    }

    /// Says why the process of a post has ended, or could not be started.
    pub fn ended(&self, number: u32, why: &str) {
        if let Some(post) = self.posts().get_mut(number as usize) {
            post.why = Some(why.to_owned());
        }
    }

    fn look(&self) -> Vec<Member> {
        let now = self.clock.now();
        let member = |(number, post): (u32, &Post)| {
            // Without a report it loads, or waits for its next start: unready, and not dead.
            let report = match &post.last {
                Some((report, at)) => heard(report.clone(), now.saturating_sub(*at)),
                None => with_reason(Report { turn_age: Duration::ZERO, ..Report::default() }, post.why.clone()),
            };
            Member { number: Some(number), report, restarts: post.starts.saturating_sub(1) }
        };
        (0..).zip(self.posts().iter()).map(member).collect()
    }

    fn ask_rebalance(&self) {
        let mut posts = self.posts();
        // A worker that loads is not in the group yet, and could ask it for nothing.
        let is_there =
            |post: &&mut Post| post.last.as_ref().is_some_and(|(report, _)| report.snapshot.state != State::Loading);
        // One byte, which the socket holds until it is read: the lock is not kept while a worker is busy.
        let asked = posts.iter_mut().filter(is_there).find_map(|post| post.line.as_mut()?.write_all(&[REBALANCE]).ok());
        if asked.is_none() {
            debug!("no worker can ask for a rebalance");
        }
    }
}

/// A report that came some time ago.
fn heard(report: Report, ago: Duration) -> Report {
    let silence = (ago >= SILENT_AFTER)
        .then(|| format!("its process has not reported for {} s: it was stopped, or gets no time", ago.as_secs()));
    with_reason(report.aged(ago), silence)
}

/// The report with another reason in its snapshot, where there is one.
fn with_reason(report: Report, why: Option<String>) -> Report {
    match why {
        None => report,
        why => Report { snapshot: Arc::new(Snapshot { why, ..Snapshot::clone(&report.snapshot) }), ..report },
    }
}

/// In a worker: reports what stands on the board over this socket, in a thread that ends with its other end.
///
/// # Errors
///
/// There is no thread.
pub fn relay(board: Arc<Board>, socket: UnixStream) -> std::io::Result<()> {
    let run = move || {
        if let Err(error) = report_all(&board, socket) {
            debug!(%error, "the supervisor takes no more reports");
        }
    };
    std::thread::Builder::new().name(RELAY.to_owned()).spawn(run).map(drop)
}

fn report_all(board: &Board, mut socket: UnixStream) -> std::io::Result<()> {
    // The pause between two reports is the wait for a request.
    socket.set_read_timeout(Some(REPORT_EVERY))?;
    let (mut request, mut logged) = ([0; 1], None);
    loop {
        let left_out = Report::of(board).write(&mut socket)?;
        if left_out != logged {
            logged = left_out;
            let what = match left_out {
                None => "nothing",
                Some(LeftOut::Partitions) => "its partitions and failures",
                Some(LeftOut::Counters) => "its partitions, failures and counters",
            };
            warn!(
                left_out = what,
                "the report to the supervisor is bounded: status and metrics over HTTP leave details of this worker out; SIGUSR1 prints all"
            );
        }
        match socket.read(&mut request) {
            Ok(0) => return Ok(()),
            Ok(_) if request[0] == REBALANCE => board.ask_rebalance(),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_silent_or_gone_says_why() {
        let posts = Posts::new(1);
        let why = || posts.look()[0].report.snapshot.why.clone();
        assert_eq!(why(), None);
        posts.ended(0, "ended (signal: 9 (SIGKILL)), starting again in 1 s");
        assert_eq!(why().as_deref(), Some("ended (signal: 9 (SIGKILL)), starting again in 1 s"));
        let running = || Report {
            snapshot: Arc::new(Snapshot { state: State::Running, ..Snapshot::default() }),
            ..Report::default()
        };
        assert_eq!(heard(running(), Duration::from_secs(1)).snapshot.why, None);
        let silent = heard(running(), Duration::from_secs(4));
        assert_eq!((silent.snapshot.state, silent.turn_age), (State::Running, Duration::from_secs(4)));
        assert!(silent.snapshot.why.as_deref().is_some_and(|why| why.contains("has not reported for 4 s")));
    }

    #[test]
    fn reports_go_up_requests_go_down_and_a_worker_that_is_gone_loads() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let (posts, board) = (Arc::new(Posts::new(2)), Arc::new(Board::new("shop", "shop.pod-1.1")));
        let states = || posts.look().into_iter().map(|member| member.report.snapshot.state).collect::<Vec<_>>();
        assert_eq!(states(), [State::Loading, State::Loading]);
        posts.started(1, ours).expect("a thread");
        board.publish(Snapshot { state: State::Running, ..Snapshot::default() });
        let (theirs_too, reporting) = (theirs.try_clone().expect("a clone"), board.clone());
        let worker = std::thread::spawn(move || report_all(&reporting, theirs_too));
        while states() != [State::Loading, State::Running] {
            std::thread::yield_now();
        }
        Crew::Many(posts.clone()).ask_rebalance();
        while !board.take_rebalance() {
            std::thread::yield_now();
        }
        theirs.shutdown(std::net::Shutdown::Both).expect("it was open");
        drop(worker.join().expect("it ends"));
        while states() != [State::Loading, State::Loading] {
            std::thread::yield_now();
        }
    }
}
