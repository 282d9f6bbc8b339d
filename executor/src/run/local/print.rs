//! Writes the results of a local run: committed records of every topic that the app wrote, table contents and
//! failures.
//!
//! Only committed records are written: what an aborted transaction left in the log is passed over. Per
//! partition the order is that of the log; between partitions and topics there is none.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use kaspr_ir::topics::is_topic_name;

use crate::broker::log::Log;
use crate::event::failure::FailureRecord;
use crate::event::message::{TopicName, TopicPartition};
use crate::event::shown;
use crate::run::record;

/// Records read from the log at once.
const RECORDS_AT_ONCE: usize = 10_000;

/// The target of committed records. Chosen by `--output-dir`.
pub enum Target {
    /// A stream, one record a line.
    Stream(Box<dyn Write>),
    /// A folder, one file a topic.
    Folder(PathBuf),
}

/// Writes committed records in the order of their offsets. Asked after every commit; it remembers how far it
/// has come.
pub struct Printer {
    target: Target,
    /// Files that are open, for a folder: each is made when its topic has a first record.
    files: BTreeMap<TopicName, BufWriter<File>>,
    /// The next offset to write.
    printed: BTreeMap<TopicPartition, i64>,
    /// Room for one line, kept from record to record.
    line: Vec<u8>,
}

/// The end of printing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Printed {
    /// Everything that was committed is written.
    All,
    /// The reader of the output is gone.
    Closed,
}

impl Printer {
    /// A printer that has written nothing. A folder is made where it is missing.
    ///
    /// # Errors
    ///
    /// The folder cannot be made.
    pub fn new(target: Target) -> std::io::Result<Printer> {
        if let Target::Folder(folder) = &target {
            std::fs::create_dir_all(folder)?;
        }
        Ok(Printer { target, files: BTreeMap::new(), printed: BTreeMap::new(), line: Vec::new() })
    }

    /// Writes what was committed since the last call.
    ///
    /// # Errors
    ///
    /// The output cannot be written. A reader that has closed its end is none: `head` does that.
    pub fn print(&mut self, log: &Log) -> std::io::Result<Printed> {
        for (topic, partitions) in log.topics() {
            // Partition by partition: an order between them would have to be made up.
            for partition in 0..partitions {
                if self.print_partition(log, &topic, partition)? == Printed::Closed {
                    return Ok(Printed::Closed);
                }
            }
        }
        self.flush()
    }

    /// Reads in bounded parts, so that a long run costs no memory for its output.
    fn print_partition(&mut self, log: &Log, topic: &TopicName, partition: i32) -> std::io::Result<Printed> {
        let name = TopicPartition::new(topic.clone(), partition);
        loop {
            let from = self.printed.get(&name).copied().unwrap_or(0);
            let (events, next) = log.read_sent(topic, partition, from, RECORDS_AT_ONCE);
            for event in &events {
                self.line.clear();
                record::write_event(event, &mut self.line);
                self.line.push(b'\n');
                if self.write(topic)? == Printed::Closed {
                    return Ok(Printed::Closed);
                }
            }
            // Also past what was aborted: otherwise it would be read again at every commit.
            self.printed.insert(name.clone(), next);
            if next == from {
                return Ok(Printed::All);
            }
        }
    }

    /// Writes the line that was formed; makes the topic's file if it is the first.
    fn write(&mut self, topic: &TopicName) -> std::io::Result<Printed> {
        match &mut self.target {
            Target::Stream(stream) => quiet_when_closed(stream.write_all(&self.line)),
            Target::Folder(folder) => {
                if !self.files.contains_key(topic) {
                    // The log holds no other names; a path made of one could lead out of the folder.
                    if !is_topic_name(topic) {
                        return Err(std::io::Error::other(format!("\"{}\" is no topic", shown::name(topic))));
                    }
                    let file = File::create(folder.join(format!("{topic}.jsonl")))?;
                    // It stays open: a run has as many files as topics that it writes.
                    self.files.insert(topic.clone(), BufWriter::new(file));
                }
                let file = self.files.get_mut(topic).expect("it was just made");
                file.write_all(&self.line)?;
                Ok(Printed::All)
            }
        }
    }

    /// Sends on what is buffered: a person who watches sees a record as soon as it is committed.
    fn flush(&mut self) -> std::io::Result<Printed> {
        for file in self.files.values_mut() {
            file.flush()?;
        }
        match &mut self.target {
            Target::Stream(stream) => quiet_when_closed(stream.flush()),
            Target::Folder(_) => Ok(Printed::All),
        }
    }

    /// The offset up to which a partition is written.
    pub fn printed(&self, partition: &TopicPartition) -> i64 {
        self.printed.get(partition).copied().unwrap_or(0)
    }
}

/// A broken pipe ends the output and is no error.
fn quiet_when_closed(written: std::io::Result<()>) -> std::io::Result<Printed> {
    match written {
        Ok(()) => Ok(Printed::All),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Printed::Closed),
        Err(error) => Err(error),
    }
}

/// Writes failures, one line each.
///
/// `--failures FILE`. It is flushed after every commit, so that a process that dies leaves whole lines.
pub struct FailureFile {
    file: BufWriter<File>,
}

impl FailureFile {
    /// Creates the file, empty. A file of an earlier run is overwritten.
    pub fn create(path: &Path) -> std::io::Result<FailureFile> {
        Ok(FailureFile { file: BufWriter::new(File::create(path)?) })
    }

    /// Appends failures whose records are committed. Call it after the commit that has them: a line never
    /// stands for an event that may run again.
    pub fn write(&mut self, failures: &[FailureRecord]) -> std::io::Result<()> {
        let mut line = Vec::new();
        for failure in failures {
            line.clear();
            record::write_failure(failure, &mut line);
            line.push(b'\n');
            self.file.write_all(&line)?;
        }
        self.file.flush()
    }
}
