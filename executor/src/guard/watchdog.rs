//! Ends the process when user code neither ends nor can be interrupted.
//!
//! The alarm raises an exception in a call that takes too long; a call that blocks in C, or swallows the
//! exception, goes on all the same. Kafka would take the worker for dead, and the worker would believe that
//! it has its partitions. So a thread that takes no lock which the worker's thread could hold, least of all
//! the interpreter's, ends the process after a second deadline, and logs the cause. Nothing is lost: what was
//! not committed comes again, and the crash guard counts the event.
//!
//! ```text
//! call begins ──timeout──▶ alarm: exception ──grace: half of it, 1 to 30 s──▶ watchdog: _exit(75)
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, Ordering};
use std::time::Duration;

use super::watch::{LookTime, Sighting, Watch};
use crate::clock::{Clock, SystemClock};
use crate::config::{CALL_MAX, CLIENT_CALL_MAX};

/// The exit status of a process that ends itself this way (sysexits' EX_TEMPFAIL: try again).
pub const FORCED: i32 = 75;
/// Bounds of the time between the alarm and the end: half of the call's own, at least and at most.
/// With the longest call it ends before Kafka's `max.poll.interval.ms` (300 s).
const GRACE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Longest time in which the worker's thread may answer for the status.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Longest wait of the last words for a reader of standard error.
const WORDS_WAIT_MS: i32 = 1000;

/// The signal on which the language of user code writes its stack; 0: on none.
static STACK_SIGNAL: AtomicI32 = AtomicI32::new(0);
/// The watch over the worker's thread, for the handler of signals that end the process.
static DYING: AtomicPtr<Watch> = AtomicPtr::new(std::ptr::null_mut());
/// Signals of a process that cannot go on.
const FATAL: [libc::c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT];

/// Has the stack of user code written on this signal from now on, also while that code blocks.
pub fn write_stack_on(signal: libc::c_int) {
    STACK_SIGNAL.store(signal, Ordering::Relaxed);
}

/// Has every signal that ends the process name the event that ran, from now on. A handler that is set later
/// and passes such signals on comes first.
pub fn name_events_of_fatal_signals() {
    let flags = libc::SA_ONSTACK | libc::SA_NODEFER;
    for signal in FATAL {
        // SAFETY: a whole structure, all zero but for the handler, which touches only what a handler may.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = die as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = flags;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// Names the event that ran, then lets the signal end the process. Nothing is allocated here: the allocator
/// may be what is broken.
extern "C" fn die(signal: libc::c_int) {
    // SAFETY: the watch is never freed.
    if let Some(watch) = unsafe { DYING.load(Ordering::Acquire).as_ref() } {
        let mut number = itoa::Buffer::new();
        write_raw(b"error: the process ends with signal ");
        write_raw(number.format(signal).as_bytes());
        watch.say_where(&mut |words| write_raw(words));
        write_raw(b": what was not committed comes again\n");
    }
    // SAFETY: both may be called in a handler.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

fn write_raw(words: &[u8]) {
    // SAFETY: bytes that live through the call, which a handler may make.
    unsafe { libc::write(libc::STDERR_FILENO, words.as_ptr().cast(), words.len()) };
}

/// The time that a call has to end after the alarm has rung for it.
pub fn grace(limit: Duration) -> Duration {
    (limit / 2).clamp(GRACE.0, GRACE.1)
}

/// Looks every now and then while the worker's thread does not rest, until `ends`.
pub fn watch_over(watch: Arc<Watch>, every: Duration, ends: Arc<AtomicBool>) -> std::io::Result<()> {
    let watched = watch.clone();
    // The handler of a signal may read it at any time, so it is never given back: one for each app that is
    // loaded in this process.
    DYING.store(Arc::into_raw(watch.clone()).cast_mut(), Ordering::Release);
    let look = move || {
        let clock = SystemClock::start();
        let mut time = LookTime::start(clock.now(), every);
        let (mut sighting, mut asked_at) = (Sighting::default(), None);
        while !ends.load(Ordering::Relaxed) {
            watch.lookers().pause(every, asked_at.is_none());
            let now = time.look(clock.now());
            sighting.look(&watch, now);
            if let Some((name, held)) = stuck_client(&sighting, now) {
                end_client(Some(&watch), name, held);
            }
            if let Some(held) = stuck(&sighting, now, watch.limit()) {
                end(&watch, &sighting, held);
            }
            asked_at = if watch.is_asked() { asked_at.or(Some(now)) } else { None };
            if asked_at.is_some_and(|at| now >= at + ANSWER_MAX) && watch.take_asked() {
                write(&busy(&watch, &sighting, now));
            }
        }
    };
    let thread = std::thread::Builder::new().name("kaspr-watchdog".to_owned()).spawn(look)?;
    watched.lookers().add(thread.thread().clone());
    Ok(())
}

/// Time for which it has gone on, if that is too long.
///
/// A call is measured by its own limit, a unit as a whole by [`CALL_MAX`].
fn stuck(sighting: &Sighting, now: Duration, limit: Duration) -> Option<Duration> {
    let call = sighting.call(now).map(|(_, age)| age).filter(|age| *age >= limit + grace(limit));
    call.or_else(|| sighting.unit(now).filter(|age| *age >= CALL_MAX + grace(CALL_MAX)))
}

/// The call into Kafka's client that went on too long, and how long it has.
fn stuck_client(sighting: &Sighting, now: Duration) -> Option<(&'static str, Duration)> {
    let (_, name, age) = sighting.client_call(now)?;
    (age >= CLIENT_CALL_MAX).then_some((name, age))
}

/// Ends the process because a call into the client does not return.
pub(super) fn end_client(watch: Option<&Watch>, name: &str, held: Duration) -> ! {
    // The event that asked for it is not to blame.
    let words = client_words(name, held);
    watch.iter().for_each(|watch| watch.spare());
    write(&watch.map_or(words.clone(), |watch| watch.formed(&words)));
    // SAFETY: nothing can be finished: the worker's thread is in the client.
    unsafe { libc::_exit(FORCED) }
}

fn client_words(name: &str, held: Duration) -> String {
    format!(
        "error: watchdog: the call \"{name}\" of Kafka's client has not returned for {:.1} s (limit {} s): the process \
         ends with {FORCED}, and what was not committed comes again\n",
        held.as_secs_f64(),
        CLIENT_CALL_MAX.as_secs(),
    )
}

/// Ends the process because user code does not return. The mark stays: the event is counted as a crash.
fn end(watch: &Watch, sighting: &Sighting, held: Duration) -> ! {
    let on = sighting.doing().and_then(|doing| watch.place(&doing));
    let on = on.map(|(place, offset)| format!(" on {place}@{offset}")).unwrap_or_default();
    let words = format!(
        "error: watchdog: {}{on} has blocked for {:.1} s (timeout {:?}) and cannot be interrupted: the process ends \
         with {FORCED}, and what was not committed comes again\n",
        watch.row_in_words(),
        held.as_secs_f64(),
        watch.limit(),
    );
    match STACK_SIGNAL.load(Ordering::Relaxed) {
        0 => {}
        // SAFETY: the signal has a handler, which writes and returns before the call does.
        signal => drop(unsafe { libc::raise(signal) }),
    }
    say(watch, &words);
    // SAFETY: nothing can be finished: the worker's thread is in user code.
    unsafe { libc::_exit(FORCED) }
}

/// The status when the worker's thread cannot say it: what it is in.
fn busy(watch: &Watch, sighting: &Sighting, now: Duration) -> String {
    let row = watch.row();
    let place = sighting.doing().and_then(|doing| watch.place(&doing));
    let seconds = sighting.longest(now).map(|(_, age)| age.as_secs_f64());
    let running = serde_json::json!({
        "agent": row.as_ref().map(|row| &row.agent),
        "operation": row.as_ref().map(|row| &row.operation),
        "on": place.map(|(place, offset)| format!("{place}@{offset}")),
        "seconds": seconds,
    });
    if let Some((_, call, age)) = sighting.client_call(now) {
        let call = serde_json::json!({ "call": call, "seconds": age.as_secs_f64() });
        return format!("{}\n", serde_json::json!({ "status": { "running": running, "client": call } }));
    }
    format!("{}\n", serde_json::json!({ "status": { "running": running } }))
}

fn say(watch: &Watch, words: &str) {
    write(&watch.formed(words));
}

/// Writes to standard error without the locks of the log, which the worker's thread may hold.
fn write(words: &str) {
    let mut ready = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: standard error's descriptor, and bytes that live through the call. A descriptor that is ready
    // takes a page without waiting; if it does not take it, there is no other place to report that.
    unsafe {
        // A full pipe whose reader is stuck must not keep the process alive.
        if libc::poll(&mut ready, 1, WORDS_WAIT_MS) > 0 {
            libc::write(libc::STDERR_FILENO, words.as_ptr().cast(), words.len().min(super::mark::PAGE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kaspr_ir::plan::ReaderId;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_second_deadline_comes_before_kafka_loses_patience() {
        assert_eq!(grace(SECOND / 10), SECOND);
        assert_eq!(grace(10 * SECOND), 5 * SECOND);
        assert!(CALL_MAX + grace(CALL_MAX) < 300 * SECOND);
    }

    #[test]
    fn only_what_goes_on_after_the_alarm_is_stuck() {
        let (watch, mut sighting) = (Watch::in_memory(), Sighting::default());
        watch.begin(ReaderId(0), 0, 5, 1);
        watch.arm(0);
        sighting.look(&watch, SECOND);
        assert_eq!(stuck(&sighting, 3 * SECOND, 2 * SECOND), None, "the alarm rings now");
        assert_eq!(stuck(&sighting, 4 * SECOND, 2 * SECOND), Some(3 * SECOND));
        // Outside any call, what runs of an event is bounded all the same.
        watch.disarm();
        sighting.look(&watch, 5 * SECOND);
        assert_eq!(stuck(&sighting, 200 * SECOND, 2 * SECOND), None);
        assert_eq!(stuck(&sighting, 271 * SECOND, 2 * SECOND), Some(270 * SECOND));
    }

    #[test]
    fn a_call_of_the_client_that_does_not_return_is_named() {
        let (watch, mut sighting) = (Watch::in_memory(), Sighting::default());
        let calls = Arc::new(crate::guard::Calls::default());
        watch.watch_calls(calls.clone());
        calls.during(crate::guard::ClientCall::SendOffsets, || sighting.look(&watch, SECOND));
        assert_eq!(stuck_client(&sighting, 60 * SECOND), None);
        assert_eq!(stuck_client(&sighting, 61 * SECOND), Some(("send offsets to transaction", 60 * SECOND)));
        assert!(
            busy(&watch, &sighting, 3 * SECOND)
                .contains(r#""client":{"call":"send offsets to transaction","seconds":2.0}"#)
        );
        let words = client_words("send offsets to transaction", 60 * SECOND);
        assert!(
            words.contains("the call \"send offsets to transaction\" of Kafka's client has not returned for 60.0 s")
        );
        sighting.look(&watch, 62 * SECOND);
        assert_eq!(stuck_client(&sighting, 200 * SECOND), None, "it has ended");
    }

    #[test]
    fn the_busy_status_names_what_runs() {
        let (watch, mut sighting) = (Watch::in_memory(), Sighting::default());
        let row = super::super::Row { agent: "a".into(), operation: "o".into(), limit: SECOND };
        watch.name_rows([row]);
        watch.name_partition("t", 3);
        watch.begin(ReaderId(0), 0, 5, 1);
        watch.arm(0);
        sighting.look(&watch, SECOND);
        assert_eq!(
            busy(&watch, &sighting, 2 * SECOND),
            "{\"status\":{\"running\":{\"agent\":\"a\",\"on\":\"t/3@5\",\"operation\":\"o\",\"seconds\":1.0}}}\n"
        );
    }
}
