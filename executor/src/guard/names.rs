//! The meaning of a mark's numbers: readers, partitions, places of calls. In the file, behind the mark, one
//! JSON object a line.
//!
//! ```text
//! {"post":{"app":"shop","revision":"…"}}
//! {"reader":"orders"}                      reader 0
//! {"row":["orders","count"]}               row 0
//! {"partition":["in",3]}                   partition 0
//! ```
//!
//! Numbers are given in the order of the lines, so the file is only appended to; a line is written before its number
//! can stand in the mark.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::mark::{self, Doing, HEAD};
use super::{Crash, Post};

/// A place of calls: a row of the table of counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The agent.
    pub agent: String,
    /// The operation, or `output:{topic}` and the like.
    pub operation: String,
    /// The longest time of one call.
    pub limit: Duration,
}

impl Row {
    /// The place in words.
    pub fn words(&self) -> String {
        words(&self.agent, &self.operation)
    }
}

/// An agent's operation in words.
pub fn words(agent: &str, operation: &str) -> String {
    format!("agent \"{agent}\", operation \"{operation}\"")
}

/// A line of the file.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
enum Line {
    /// The owner of the file.
    Post { app: String, revision: String },
    /// The next reader.
    Reader(String),
    /// The next row.
    Row(String, String),
    /// The next partition.
    Partition(String, i32),
}

/// The names, and the file that has them too.
///
/// `file`: where the next line goes; `None` for a mark in memory.
#[derive(Debug, Default)]
pub struct Names {
    pub readers: Vec<String>,
    pub rows: Vec<Row>,
    pub partitions: Vec<(String, i32)>,
    file: Option<(File, u64)>,
}

impl Names {
    /// No names yet; the file's old ones are gone.
    pub fn of(file: File, post: Post<'_>) -> std::io::Result<Names> {
        file.set_len(HEAD as u64)?;
        let mut names = Names { file: Some((file, HEAD as u64)), ..Names::default() };
        names.write(&Line::Post { app: post.app.to_owned(), revision: post.revision.to_owned() })?;
        Ok(names)
    }

    pub fn add_reader(&mut self, name: &str) {
        self.readers.push(name.to_owned());
        self.note(&Line::Reader(name.to_owned()));
    }

    pub fn add_row(&mut self, row: Row) {
        self.note(&Line::Row(row.agent.clone(), row.operation.clone()));
        self.rows.push(row);
    }

    pub fn add_partition(&mut self, topic: &str, partition: i32) {
        self.partitions.push((topic.to_owned(), partition));
        self.note(&Line::Partition(topic.to_owned(), partition));
    }

    /// Writes a line; a failure is logged and the run goes on, since only the next process would need it.
    fn note(&mut self, line: &Line) {
        if let Err(error) = self.write(line) {
            // Names count by their place in the file: with one missing, those after it would name others.
            self.file = None;
            warn!(%error, "events that end the process may not be recognised");
        }
    }

    fn write(&mut self, line: &Line) -> std::io::Result<()> {
        let Some((file, at)) = &mut self.file else { return Ok(()) };
        let mut text = serde_json::to_vec(line).map_err(std::io::Error::other)?;
        text.push(b'\n');
        file.write_all_at(&text, *at)?;
        *at += text.len() as u64;
        Ok(())
    }
}

/// The event that ran when the process that wrote this file ended; if none did, those in flight. Empty for the
/// file of another app, or of other code.
pub fn last_crashes(bytes: &[u8], post: Post<'_>) -> Vec<Crash> {
    let (doing, text) = mark::read(bytes);
    let (mut names, mut is_ours) = (Names::default(), false);
    let lines = text.split(|byte| *byte == b'\n');
    // A line that was cut short by a full disk ends the names: those before it are whole.
    for line in lines.map_while(|line| serde_json::from_slice::<Line>(line).ok()) {
        match line {
            Line::Post { app, revision } => is_ours = app == post.app && revision == post.revision,
            Line::Reader(name) => names.readers.push(name),
            Line::Row(agent, operation) => names.rows.push(Row { agent, operation, limit: Duration::ZERO }),
            Line::Partition(topic, partition) => names.partitions.push((topic, partition)),
        }
    }
    if is_ours { doing.iter().filter_map(|doing| names.crash(doing)).collect() } else { Vec::new() }
}

impl Names {
    /// The crash of what a mark says.
    fn crash(&self, doing: &Doing) -> Option<Crash> {
        let (topic, partition) = self.partitions.get(doing.partition as usize)?.clone();
        let call = self.rows.get(doing.row as usize).map(|row| (row.agent.clone(), row.operation.clone()));
        Some(Crash {
            reader: self.readers.get(doing.reader as usize)?.clone(),
            topic,
            partition,
            offset: doing.offset,
            events: doing.events,
            crashes: 0,
            call,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_be_written_ends_the_names_of_the_file() {
        let kept = tempfile::NamedTempFile::new().expect("a file");
        let read_only = File::open(kept.path()).expect("it opens for reading");
        let mut names = Names { file: Some((read_only, 0)), ..Names::default() };
        names.add_reader("orders");
        assert!(names.file.is_none(), "the next name would take the place of this one");
        names.add_reader("returns");
        assert_eq!(names.readers, ["orders", "returns"], "this process knows both");
    }
}
