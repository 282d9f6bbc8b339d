//! Remembers the events that have ended the process, and how often in a row: `{state-dir}/crashes.{worker}`.
//!
//! Each worker writes its own file and reads all of them, since a partition may move to another worker of the state
//! dir between two crashes. Counts of another app or another revision of the plan are ignored: other code may well
//! run the event.
//!
//! ```text
//! {"app":"shop","revision":"…","crashes":[{"reader":"orders","topic":"in","partition":3,"offset":7,"events":1,
//!  "crashes":2,"call":["orders","count"]}]}
//! ```

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::Post;
use super::mark::FLIGHTS_MAX;
use super::names::words;

/// Crashes in a row without completing after which an event is not run again.
pub const CRASHES_MAX: u32 = 3;
/// Events that are remembered; the oldest go first.
const REMEMBERED_MAX: usize = 256 + FLIGHTS_MAX;

/// An event, or a batch by its first event, that ran when the process ended.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Crash {
    /// The reader: its first agent's name.
    pub reader: String,
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// 1, or the events of the batch.
    pub events: u32,
    /// Crashes in a row.
    pub crashes: u32,
    /// Agent and operation of the call that came last, where one was made.
    pub call: Option<(String, String)>,
}

impl Crash {
    /// The place in the agent where it was when the process ended.
    pub fn place(&self) -> String {
        self.call.as_ref().map_or_else(|| "no call".to_owned(), |(agent, operation)| words(agent, operation))
    }

    fn is_of(&self, other: &Crash) -> bool {
        (&self.reader, &self.topic, self.partition, self.offset)
            == (&other.reader, &other.topic, other.partition, other.offset)
    }
}

/// The content of the file.
///
/// `app` and `revision` are those of the process that wrote it.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Content {
    app: String,
    revision: String,
    crashes: Vec<Crash>,
}

/// The crashes that are remembered.
#[derive(Debug, Default)]
pub struct Crashes {
    path: Option<PathBuf>,
    own: Content,
    /// Counted by other workers on the same state dir.
    others: Vec<Crash>,
}

impl Crashes {
    /// Reads this worker's crashes, and those that other workers on the same state dir have counted.
    ///
    /// A file that is no JSON counts for nothing and is logged; an error is the file system's.
    pub fn read(post: Post<'_>) -> std::io::Result<Crashes> {
        let path = post.state_dir.join(format!("crashes.{}", post.worker));
        let own = Content { app: post.app.to_owned(), revision: post.revision.to_owned(), crashes: Vec::new() };
        let mut crashes = Crashes { path: Some(path.clone()), own, others: Vec::new() };
        for entry in std::fs::read_dir(post.state_dir)? {
            let file = entry?.path();
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            // A number and nothing else: a process that died in `write` has left a file that ends in `.next`.
            let is_ours = name.strip_prefix("crashes.").is_some_and(|rest| rest.parse::<u32>().is_ok());
            if !is_ours {
                continue;
            }
            let Ok(content) = serde_json::from_slice::<Content>(&std::fs::read(&file)?) else {
                warn!(file = %file.display(), "cannot be read: counting crashes from zero again");
                continue;
            };
            if (content.app.as_str(), content.revision.as_str()) != (post.app, post.revision) {
                continue;
            }
            if file == path { crashes.own = content } else { crashes.others.extend(content.crashes) }
        }
        Ok(crashes)
    }

    /// Counts a crash of each of these events.
    pub fn count(&mut self, crashes: &[Crash]) -> std::io::Result<()> {
        let list = &mut self.own.crashes;
        for crash in crashes {
            match list.iter_mut().find(|known| known.is_of(crash)) {
                Some(known) => *known = Crash { crashes: known.crashes + 1, ..crash.clone() },
                None => list.push(Crash { crashes: 1, ..crash.clone() }),
            }
        }
        // Bounded, because an event that is never seen again would stay for ever: its partition may be gone.
        let oldest = list.len().saturating_sub(REMEMBERED_MAX);
        list.drain(..oldest);
        self.write()
    }

    /// Events that have crashed and not completed since, and may run again.
    pub fn suspects(&self) -> impl Iterator<Item = &Crash> {
        self.own.crashes.iter().chain(&self.others).filter(|crash| !self.is_final(crash))
    }

    /// Crashes of this event that all workers together have counted.
    pub fn total(&self, crash: &Crash) -> u32 {
        let all = self.own.crashes.iter().chain(&self.others);
        all.filter(|known| known.is_of(crash)).map(|known| known.crashes).sum()
    }

    /// Events that must not run again.
    pub fn poison_events(&self) -> Vec<&Crash> {
        let mut poison: Vec<&Crash> = Vec::new();
        for crash in self.own.crashes.iter().chain(&self.others).filter(|crash| self.is_final(crash)) {
            // Each worker that had the partition has an entry of its own for the event.
            if !poison.iter().any(|known| known.is_of(crash)) {
                poison.push(crash);
            }
        }
        poison
    }

    /// True for a poison event.
    fn is_final(&self, crash: &Crash) -> bool {
        self.total(crash) >= CRASHES_MAX
    }

    /// Some event of this worker has crashed and is not a poison event.
    pub fn has_suspects(&self) -> bool {
        // Not those of other workers: only its own file does a worker ever change, so these would never go.
        self.own.crashes.iter().any(|crash| !self.is_final(crash))
    }

    /// Forgets suspects that are complete. Poison events stay: until their failure is committed they may come
    /// again.
    ///
    /// The file is written only if something goes.
    pub fn completed(&mut self, reader: &str, (topic, partition): (&str, i32), done: i64) -> std::io::Result<()> {
        let is_complete = |crash: &Crash| {
            let at = (crash.reader.as_str(), crash.topic.as_str(), crash.partition);
            at == (reader, topic, partition) && crash.offset < done && !self.is_final(crash)
        };
        let left: Vec<Crash> = self.own.crashes.iter().filter(|crash| !is_complete(crash)).cloned().collect();
        if left.len() == self.own.crashes.len() {
            return Ok(());
        }
        self.own.crashes = left;
        self.write()
    }

    /// Writes the file in one step, so that a crash meanwhile leaves the old file or the new one.
    fn write(&self) -> std::io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut next = path.clone().into_os_string();
        next.push(".next");
        std::fs::write(&next, serde_json::to_vec(&self.own).map_err(std::io::Error::other)?)?;
        // Not synced: it is a process that dies here, and the page cache outlives it.
        std::fs::rename(&next, path)
    }
}
