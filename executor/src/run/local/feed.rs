//! The inputs of a local run: lines of files and of standard input, on their way into the log.
//!
//! Each input is read by a thread of its own and comes through a bounded channel. A line that is
//! typed arrives at once; a file comes in chunks. Empty lines are passed over.
//!
//! ```text
//! input thread ─┐                 bounded: CHUNKS_MAX
//! input thread ─┴─▶ channel of chunks (whole lines) ─▶ pump, in the consumer's poll ─▶ log
//! ```
//!
//! Apart from the longest line, memory is bounded: a full channel blocks the threads, and the pump puts only
//! some chunks into the log at a time. The pump is called by the worker's thread alone.

use std::cell::{Cell, RefCell};
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;

use crate::broker::BrokerError;
use crate::broker::log::{Feed, Log, NewRecord};
use crate::clock::Clock;
use crate::event::message::TopicName;
use crate::event::shown::{SHOWN_BYTES_MAX, Shown};
use crate::run::record;
use crate::wake::Bell;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks on their way to the worker, all inputs together: what waits beyond them is not read. 64 chunks of
/// 64 KiB are 4 MiB, and more where single lines are longer.
const CHUNKS_MAX: usize = 64;
/// Chunks that go into the log at one poll. A few, so that the worker gets to run what has come.
const CHUNKS_PER_PUMP: usize = 4;

/// The formats of an input's lines.
///
/// `--input-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Each line is a value's bytes as they stand; the key is null.
    Json,
    /// Each line is a record.
    Record,
}

/// An input: `TOPIC=FILE`, `-` for standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The topic to which its lines go.
    pub topic: String,
    /// The file from which they come.
    pub file: PathBuf,
    /// The file as it was named.
    pub name: String,
}

impl Input {
    /// Looks whether it can be opened, where it is a file: what comes through a pipe comes once.
    pub fn look(&self) -> Result<(), String> {
        match self.file.metadata() {
            Ok(file) if !file.is_file() => Ok(()),
            _ => open(self).map(drop),
        }
    }

    /// The number of its lines, where it is a file. Reads the whole file. `None` for standard input, and for
    /// a file that cannot be read.
    pub fn count(&self) -> Option<u64> {
        if self.file == Path::new("-") {
            return None;
        }
        let file = std::io::BufReader::new(std::fs::File::open(&self.file).ok()?);
        let is_event = |line: &Vec<u8>| !matches!(&line[..], b"" | b"\r");
        Some(file.split(b'\n').map_while(Result::ok).filter(is_event).count() as u64)
    }

    /// The same, wherever user code goes: its file is named from the root. User code may change the process's
    /// folder after this.
    pub fn absolute(&self) -> Input {
        let file = match self.file.as_os_str() == "-" {
            true => self.file.clone(),
            false => std::path::absolute(&self.file).unwrap_or_else(|_| self.file.clone()),
        };
        Input { topic: self.topic.clone(), file, name: self.name.clone() }
    }
}

impl std::str::FromStr for Input {
    type Err = String;
    /// `orders=orders.jsonl`; only the first `=` divides.
    fn from_str(text: &str) -> Result<Input, String> {
        match text.split_once('=') {
            Some((topic, file)) if !topic.is_empty() && !file.is_empty() => {
                Ok(Input { topic: topic.to_owned(), file: file.into(), name: file.to_owned() })
            }
            _ => Err(format!("\"{text}\" is not TOPIC=FILE (FILE may be - for standard input)")),
        }
    }
}

/// Whole lines of an input. Lines keep their ends, except for the last line of an input that ends without
/// one.
struct Chunk {
    input: usize,
    lines: Bytes,
    /// The number of the first line, from 1.
    first: u64,
}

/// `Broken` says why an input ended early; an input that ends well only drops its sender.
enum Message {
    Chunk(Chunk),
    Broken(String),
}

/// The state of a local run's inputs while they are read. Shared with the run and the progress bar.
#[derive(Clone, Default)]
pub struct Progress {
    /// Bytes read so far, all inputs together.
    pub bytes: Arc<AtomicU64>,
    /// All inputs have ended and everything is in the log.
    pub ended: Rc<Cell<bool>>,
    /// The reason for which an input cannot be used: the user's fault, not the log's.
    pub refused: Rc<RefCell<Option<String>>>,
}

/// Brings lines into the log. It belongs to the consumer of a local run: the log asks it for more at each
/// poll.
pub struct LineFeed {
    /// By the number of the input, as `names`.
    topics: Vec<TopicName>,
    names: Vec<String>,
    format: Format,
    clock: Rc<dyn Clock>,
    receiver: Receiver<Message>,
    /// Wakes the worker; there is none before the worker starts.
    bell: Arc<OnceLock<Arc<Bell>>>,
    progress: Progress,
}

impl LineFeed {
    /// Begins to read all inputs. An input that cannot be opened is refused at once. One thread per input,
    /// which ends with its input or with the feed.
    ///
    /// # Errors
    ///
    /// The text names the input that cannot be opened. Threads that run already end with the feed.
    pub fn start(inputs: &[Input], format: Format, clock: Rc<dyn Clock>) -> Result<(LineFeed, Progress), String> {
        let (sender, receiver) = sync_channel(CHUNKS_MAX);
        let (progress, bell) = (Progress::default(), Arc::<OnceLock<Arc<Bell>>>::default());
        for (number, input) in inputs.iter().enumerate() {
            // Opened here and not in the thread: a file that is missing is refused before anything runs.
            let source = open(input)?;
            let reader = Reader {
                input: number,
                sender: sender.clone(),
                bell: bell.clone(),
                bytes: progress.bytes.clone(),
                lines: 0,
            };
            std::thread::Builder::new()
                .name(format!("input {}", input.topic))
                .spawn(move || reader.read(source))
                .map_err(|error| format!("cannot start a thread: {error}"))?;
        }
        let feed = LineFeed {
            topics: inputs.iter().map(|input| input.topic.as_str().into()).collect(),
            names: inputs.iter().map(|input| input.name.clone()).collect(),
            format,
            clock,
            receiver,
            bell,
            progress: progress.clone(),
        };
        Ok((feed, progress))
    }

    /// Puts a chunk's lines into the log; returns how many were not empty.
    fn append(&mut self, log: &Log, chunk: &Chunk) -> Result<usize, BrokerError> {
        let mut count = 0;
        let mut start = 0;
        for (number, line) in chunk.lines.split(|&byte| byte == b'\n').enumerate() {
            let end = start + line.len();
            // Files from Windows end their lines with two bytes. Both are ends, and neither is content.
            let trimmed = if line.ends_with(b"\r") { end - 1 } else { end };
            if trimmed > start {
                // A slice of the chunk: no line is copied.
                let line = chunk.lines.slice(start..trimmed);
                self.append_line(log, chunk, chunk.first + number as u64, line)?;
                count += 1;
            }
            start = end + 1;
        }
        Ok(count)
    }

    /// `number` counts from 1 within the input, for the message.
    fn append_line(&mut self, log: &Log, chunk: &Chunk, number: u64, line: Bytes) -> Result<(), BrokerError> {
        let topic = &self.topics[chunk.input];
        let record = match self.format {
            Format::Json => NewRecord { timestamp_ms: self.clock.wall_ms(), value: Some(line), ..NewRecord::default() },
            Format::Record => match self.record(topic, &line) {
                Ok(record) => record,
                Err(why) => {
                    return Err(
                        self.refuse(format!("{}:{number}: the line is no record: {why}", self.names[chunk.input]))
                    );
                }
            },
        };
        match log.append(topic, record) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.refuse(format!("{}:{number}: {error}", self.names[chunk.input]))),
        }
    }

    /// The record that a line gives, with the time of reading where it names none. Its offset is the log's to
    /// give.
    fn record(&self, topic: &TopicName, line: &[u8]) -> Result<NewRecord, String> {
        let record = record::parse(line).map_err(|error| error.to_string())?;
        if let Some(named) = record.topic.filter(|named| **named != **topic) {
            return Err(format!("it names the topic \"{named}\", the input is for \"{topic}\""));
        }
        Ok(NewRecord {
            partition: record.partition,
            timestamp_ms: record.timestamp_ms.unwrap_or_else(|| self.clock.wall_ms()),
            key: record.key,
            value: record.value,
            headers: record.headers,
        })
    }

    /// The line may come from anywhere: what is quoted of it must not break out of the log line. The error
    /// that ends the run: also kept in `refused`, so that the run can tell whose fault it is.
    fn refuse(&self, why: String) -> BrokerError {
        let why = Shown(&why, SHOWN_BYTES_MAX).to_string();
        *self.progress.refused.borrow_mut() = Some(why.clone());
        BrokerError::Fatal(why)
    }

    /// Puts into the log what a thread has sent.
    fn take(&mut self, log: &Log, message: Message) -> Result<usize, BrokerError> {
        match message {
            Message::Chunk(chunk) => self.append(log, &chunk),
            Message::Broken(why) => Err(self.refuse(why)),
        }
    }
}

impl Feed for LineFeed {
    /// Returns the number of records that came. Waits only if none was there.
    fn pump(&mut self, log: &Log, wait: Duration) -> Result<usize, BrokerError> {
        if self.progress.ended.get() {
            // Nothing will come, so this is the place to wait for what is due.
            if !wait.is_zero() {
                std::thread::park_timeout(wait);
            }
            return Ok(0);
        }
        let (mut count, mut is_empty) = (0, false);
        for _ in 0..CHUNKS_PER_PUMP {
            match self.receiver.try_recv() {
                Ok(message) => count += self.take(log, message)?,
                Err(TryRecvError::Empty) => {
                    is_empty = true;
                    break;
                }
                // All senders are gone and the channel is empty: every input has ended.
                Err(TryRecvError::Disconnected) => {
                    self.progress.ended.set(true);
                    return Ok(count);
                }
            }
        }
        if !is_empty {
            // What is left has rung its bell already.
            wake(&self.bell);
        }
        if count > 0 || wait.is_zero() {
            return Ok(count);
        }
        match self.receiver.recv_timeout(wait) {
            Ok(message) => self.take(log, message),
            Err(RecvTimeoutError::Timeout) => Ok(0),
            Err(RecvTimeoutError::Disconnected) => {
                self.progress.ended.set(true);
                Ok(0)
            }
        }
    }

    // Rung once at the start: lines may have come before there was a bell.
    fn rings(&mut self, bell: &Arc<Bell>) {
        // A worker starts once.
        let _ = self.bell.set(bell.clone());
        bell.ring();
    }
}

/// One input's thread. It reads as far as the channel has room, and no further.
struct Reader {
    input: usize,
    sender: SyncSender<Message>,
    bell: Arc<OnceLock<Arc<Bell>>>,
    bytes: Arc<AtomicU64>,
    lines: u64,
}

impl Reader {
    /// Ends when the input does, or when the worker no longer takes anything.
    fn read(mut self, mut source: Box<dyn Read + Send>) {
        let mut lines = Lines::default();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match source.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => {
                    self.bytes.fetch_add(count as u64, Ordering::Relaxed);
                    if let Some(whole) = lines.whole(&chunk[..count])
                        && !self.send_lines(whole)
                    {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // If the send fails, the worker is gone.
                    let _ = self.sender.send(Message::Broken(format!("an input broke off: {error}")));
                    break;
                }
            }
        }
        if !lines.pending.is_empty() {
            self.send_lines(lines.pending);
        }
        // First dropped, then rung: the worker must find the channel closed when it wakes.
        drop(self.sender);
        wake(&self.bell);
    }

    /// Sends lines to the worker. False: the worker is gone. Blocks while the channel is full.
    fn send_lines(&mut self, lines: Vec<u8>) -> bool {
        let first = self.lines + 1;
        self.lines += lines.iter().filter(|&&byte| byte == b'\n').count() as u64;
        let sent = self.sender.send(Message::Chunk(Chunk { input: self.input, lines: lines.into(), first })).is_ok();
        wake(&self.bell);
        sent
    }
}

/// Cuts what comes in pieces into whole lines.
#[derive(Default)]
struct Lines {
    /// The part that has come of a line whose end has not.
    pending: Vec<u8>,
    /// Bytes that were searched for ends of lines.
    searched: usize,
}

impl Lines {
    /// The whole lines of what was pending and what came behind it; the rest is pending. Only what came
    /// is searched, so that a line costs as much per byte however long it is.
    fn whole(&mut self, came: &[u8]) -> Option<Vec<u8>> {
        let Some(end) = self.last_end(came) else {
            self.pending.extend_from_slice(came);
            return None;
        };
        let (lines, rest) = came.split_at(end + 1);
        self.pending.extend_from_slice(lines);
        Some(std::mem::replace(&mut self.pending, rest.to_vec()))
    }

    /// The place of the last line end among these bytes.
    fn last_end(&mut self, bytes: &[u8]) -> Option<usize> {
        self.searched += bytes.len();
        bytes.iter().rposition(|&byte| byte == b'\n')
    }
}

/// A worker that has not started looks before it sleeps. Rings the worker's bell, if there is one already.
fn wake(bell: &OnceLock<Arc<Bell>>) {
    if let Some(bell) = bell.get() {
        bell.ring();
    }
}

/// # Errors
///
/// The text names the input as the user did.
fn open(Input { file, name, .. }: &Input) -> Result<Box<dyn Read + Send>, String> {
    if file.as_os_str() == "-" {
        return Ok(Box::new(std::io::stdin()));
    }
    match std::fs::File::open(file) {
        Ok(opened) => Ok(Box::new(opened)),
        Err(error) => Err(format!("cannot read the input \"{name}\": {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimulatedClock;

    fn feed(text: &[u8], format: Format) -> (Log, Result<(), BrokerError>, Progress) {
        let folder = tempfile::tempdir().expect("a folder is made");
        let file = folder.path().join("in.jsonl");
        std::fs::write(&file, text).expect("it is written");
        let log = Log::new(1);
        let name = file.display().to_string();
        let inputs = [Input { topic: "t".into(), file, name }];
        let (mut feed, progress) =
            LineFeed::start(&inputs, format, Rc::new(SimulatedClock::default())).expect("it starts");
        let mut result = Ok(());
        while !progress.ended.get() && result.is_ok() {
            result = feed.pump(&log, Duration::from_secs(5)).map(drop);
        }
        (log, result, progress)
    }

    /// Work per byte is counted, not timed: each byte is searched once, and copied when the room for it is
    /// doubled.
    #[test]
    fn a_long_line_costs_linear_time() {
        const PIECES: usize = 100_000;
        let (piece, mut lines, mut moves, mut room) = ([b'x'; 10], Lines::default(), 0, 0);
        for _ in 0..PIECES {
            assert_eq!(lines.whole(&piece), None);
            moves += u32::from(lines.pending.capacity() != std::mem::replace(&mut room, lines.pending.capacity()));
        }
        assert_eq!(lines.whole(b"\n").map(|line| line.len()), Some(PIECES * piece.len() + 1));
        assert_eq!(lines.searched, PIECES * piece.len() + 1);
        assert!(moves <= (PIECES * piece.len()).ilog2() + 1, "{moves} moves");
    }

    #[test]
    fn a_line_comes_whole_however_it_is_cut() {
        let text = b"one\ntwo\n\nthree\nfour";
        for size in 1..=text.len() {
            let (mut lines, mut came) = (Lines::default(), Vec::new());
            for piece in text.chunks(size) {
                let whole = lines.whole(piece).unwrap_or_default();
                assert!(whole.is_empty() || whole.ends_with(b"\n"));
                came.extend(whole);
            }
            assert_eq!([came, lines.pending].concat(), text);
        }
    }

    fn values(log: &Log) -> Vec<String> {
        let (events, _) = log.read(&"t".into(), 0, 0, 1000);
        events
            .iter()
            .map(|event| String::from_utf8_lossy(event.value.as_deref().unwrap_or(b"-")).into_owned())
            .collect()
    }

    #[test]
    fn lines_are_values_as_they_stand() {
        let (log, result, _) = feed(b"{\"a\":1}\r\n\nbroken\nlast", Format::Json);
        assert!(result.is_ok());
        assert_eq!(values(&log), ["{\"a\":1}", "broken", "last"]);
    }

    #[test]
    fn a_line_that_is_no_record_is_named_by_its_number() {
        let (log, result, progress) = feed(b"{\"value\":1}\n{\"vaule\":2}\n", Format::Record);
        assert!(result.is_err());
        let why = progress.refused.borrow().clone().expect("it says why");
        assert!(why.contains("in.jsonl:2: the line is no record"), "{why}");
        assert_eq!(values(&log), ["1"]);
    }
}
