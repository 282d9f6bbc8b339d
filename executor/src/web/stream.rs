//! A connection's socket, with a time for everything that the client may keep waiting.
//!
//! ```text
//! accepted ─▶ Headers: 5 s ─▶ Answering: 10 s ─▶ Idle: 75 s ─first byte─▶ Headers …
//! ```
//!
//! The HTTP library has one time for headers, which begins as soon as the last answer is out; so a kept
//! connection would live no longer than slow headers may take. Here the two are told apart. A time that is over
//! ends the connection as an error of its socket.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::clock::{Clock as _, SystemClock};
use crate::config::serving::{ANSWER_WAIT_MAX, HEADERS_WAIT_MAX, IDLE_MAX};

/// Bytes that are read at once: most requests are smaller.
const READ_BYTES: usize = 4096;

/// The step in which a connection is. The order is that in which connections are closed at the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// A request has begun, or the first one is to come.
    Headers,
    /// An answer was taken, and no other request has begun.
    Idle,
    /// A request is here, and its answer is not out.
    Answering,
}

impl Step {
    fn time(self) -> Duration {
        match self {
            Step::Headers => HEADERS_WAIT_MAX,
            Step::Idle => IDLE_MAX,
            Step::Answering => ANSWER_WAIT_MAX,
        }
    }
}

/// The progress of a connection: its socket and its answers move it.
#[derive(Debug)]
pub(super) struct Progress {
    step: Cell<Step>,
    /// The number of steps so far.
    steps: Cell<u64>,
    /// The time of the last step.
    moved: Cell<Duration>,
    clock: SystemClock,
    /// The body of the answer is out of our hands, and the socket may still hold it.
    answered: Cell<bool>,
    /// Timed: a step, by its number, and its end.
    timer: RefCell<Option<(u64, Pin<Box<Sleep>>)>>,
}

impl Progress {
    /// A connection that was just accepted. All connections have one clock, by which they are compared.
    pub(super) fn new(clock: SystemClock) -> Progress {
        let (step, steps, moved) = (Cell::new(Step::Headers), Cell::new(0), Cell::new(clock.now()));
        Progress { step, steps, moved, clock, answered: Cell::new(false), timer: RefCell::new(None) }
    }

    /// The time at which the step began.
    pub(super) fn moved(&self) -> Duration {
        self.moved.get()
    }

    /// The step in which the connection is.
    pub(super) fn step(&self) -> Step {
        self.step.get()
    }

    fn go(&self, step: Step) {
        if self.step.replace(step) != step {
            self.steps.set(self.steps.get() + 1);
            self.moved.set(self.clock.now());
        }
    }

    /// A request is here.
    pub(super) fn answers(&self) {
        self.answered.set(false);
        self.go(Step::Answering);
    }

    /// The answer has no more bytes to give.
    pub(super) fn has_answered(&self) {
        self.answered.set(true);
    }

    fn reads(&self) {
        if self.step() == Step::Idle {
            self.go(Step::Headers);
        }
    }

    fn has_flushed(&self) {
        // A flush is the end of an answer only once the body has given everything.
        if self.answered.take() {
            self.go(Step::Idle);
        }
    }

    /// Waits for the end of the step's time: an error once it is over.
    fn poll_time<T>(&self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let mut timer = self.timer.borrow_mut();
        let steps = self.steps.get();
        let (_, sleep) = match &mut *timer {
            // By the number of the step: the headers of the next request have a time of their own.
            Some(timed) if timed.0 == steps => timed,
            other => other.insert((steps, Box::pin(tokio::time::sleep(self.step().time())))),
        };
        match sleep.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// The socket of a connection.
pub(super) struct Stream {
    socket: TcpStream,
    progress: std::rc::Rc<Progress>,
}

impl Stream {
    /// A socket that was just accepted.
    pub(super) fn new(socket: TcpStream, progress: std::rc::Rc<Progress>) -> Stream {
        Stream { socket, progress }
    }

    /// The result of a write; one that has to wait is timed.
    fn timed<T>(&self, polled: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        match polled {
            Poll::Pending => self.progress.poll_time(cx),
            ready => ready,
        }
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        // A detour over a buffer: the library's own room is uninitialised, and only unsafe code may fill it.
        let mut bytes = [0; READ_BYTES];
        let room = into.remaining().min(READ_BYTES);
        let mut read = ReadBuf::new(&mut bytes[..room]);
        match Pin::new(&mut self.socket).poll_read(cx, &mut read) {
            Poll::Ready(Ok(())) => {
                if !read.filled().is_empty() {
                    self.progress.reads();
                }
                into.put_slice(read.filled());
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // While it answers, the library only looks whether the client is still there.
            Poll::Pending if self.progress.step() == Step::Answering => Poll::Pending,
            Poll::Pending => self.progress.poll_time(cx),
        }
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.timed(polled, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The library flushes its socket once all that it had is written.
        let polled = Pin::new(&mut self.socket).poll_flush(cx);
        if matches!(polled, Poll::Ready(Ok(()))) {
            self.progress.has_flushed();
        }
        self.timed(polled, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.socket).poll_shutdown(cx);
        self.timed(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        all: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write_vectored(cx, all);
        self.timed(polled, cx)
    }
}
