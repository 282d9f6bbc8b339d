//! A store on disk, in an LSM tree: the only place that names fjall.
//!
//! A commit is one batch with its positions, written to the journal and handed to the operating system
//! without an fsync. A process that is killed loses nothing of it. A machine that goes down may lose the last
//! commits, whole ones and their positions with them, and the changelog restores them. All tables share one
//! key space, so that a batch is one write:
//!
//! | key | value |
//! |---|---|
//! | `0` name of a table | its number, given once |
//! | `1` number, partition | offset, time, topic: see [`Followed`] |
//! | `2` number, partition, encoded key | encoded value |

use std::cell::OnceCell;
use std::fs::File;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use kaspr_ir::plan::TableId;
use rustc_hash::FxHashMap;
use tracing::{info, warn};

use super::census::{Census, Stride};
use super::{ChangelogPosition, Followed, Store, StoreError};
use crate::clock::Clock;
use crate::event::effects::TableWrite;
use crate::event::kept::Kept;

/// Bytes in memory that are not yet sorted to disk; a start reads about as many from the journal. A larger
/// one would save little work on the disk and cost time at each start after a kill.
const MEMTABLE_BYTES_MAX: u64 = 16 << 20;
/// Bytes of the disk's blocks that are kept in memory.
const CACHE_BYTES: u64 = 32 << 20;
/// Bytes of the journal; fjall takes no less.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;
/// Keys that are wiped in one write. A batch lies in memory until it is written; the bound keeps a wipe of a
/// large table small.
const CLEARED_AT_ONCE: usize = 10_000;
/// Keys that are counted in one stride. One stride keeps a file of the disk from being removed, and the end of the
/// store waits for it.
const COUNTED_AT_ONCE: usize = 2_000;

// The first byte of a key tells what it is for. Never renumber: stores on disks have them.
const NAME: u8 = 0;
const POSITION: u8 = 1;
const PAIR: u8 = 2;

/// The error for a store on disk that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds it.
    #[error("the state in {0} is another worker's: give every process on a machine a --state-dir of its own")]
    Taken(String),
    /// The folder cannot be used.
    #[error("the state cannot be kept in {0}: {1}")]
    Unusable(String, String),
}

/// A store on disk. Opened once per worker, in the folder of its number. `None` in `database` means that it
/// was given up: every call fails from then on.
pub struct DurableStore {
    folder: PathBuf,
    /// Counts keys, once they are asked for. It reads the database, so it ends first.
    census: OnceCell<Census>,
    /// The lock that refuses other processes, held as long as the store lives. The file lies beside the
    /// folder, so that a wipe does not remove it.
    _lock: File,
    database: Option<Open>,
    /// Names of tables, in the plan's order.
    names: Vec<String>,
    /// Numbers of tables, by their place in the plan. A plan may order its tables otherwise than the last
    /// one, so keys have numbers that belong to names.
    numbers: Vec<u32>,
    /// Topics of the changelogs that are followed. Each position is written with it: see [`Store::follow`].
    topics: FxHashMap<(TableId, i32), String>,
    clock: Rc<dyn Clock>,
}

/// An open database and its one key space.
struct Open {
    database: Database,
    pairs: Keyspace,
}

impl DurableStore {
    /// Opens the store in `{folder}/tables.{worker}`, or makes it. A store that cannot be read is wiped, and
    /// the log says so. `tables` are the plan's names.
    ///
    /// # Errors
    ///
    /// [`OpenError::Taken`] if another process has the folder, [`OpenError::Unusable`] if the disk refuses
    /// even an empty store.
    pub fn open(folder: &Path, worker: u32, tables: &[&str], clock: Rc<dyn Clock>) -> Result<DurableStore, OpenError> {
        let shown = folder.display().to_string();
        let unusable = |error: &dyn std::fmt::Display| OpenError::Unusable(shown.clone(), error.to_string());
        std::fs::create_dir_all(folder).map_err(|error| unusable(&error))?;
        let lock = File::create(folder.join(format!("tables.{worker}.lock"))).map_err(|error| unusable(&error))?;
        // Before anything is read: two processes in one database would damage it.
        lock.try_lock().map_err(|_| OpenError::Taken(shown.clone()))?;
        let folder = folder.join(format!("tables.{worker}"));
        let opened = open(&folder, tables).or_else(|why| {
            warn!(folder = %folder.display(), error = %why, "the state cannot be read, so it is wiped and restored from changelogs");
            std::fs::remove_dir_all(&folder).map_err(|error| StoreError(error.to_string()))?;
            open(&folder, tables)
        });
        let (database, numbers) = opened.map_err(|error| unusable(&error))?;
        info!(folder = %folder.display(), "tables are kept on the disk");
        let topics = FxHashMap::default();
        let names = tables.iter().map(|&name| name.to_owned()).collect();
        Ok(DurableStore {
            folder,
            census: OnceCell::new(),
            _lock: lock,
            database: Some(database),
            names,
            numbers,
            topics,
            clock,
        })
    }

    /// The key space; an error once the store was given up.
    fn pairs_space(&self) -> Result<&Keyspace, StoreError> {
        Ok(&self.opened()?.pairs)
    }

    /// As [`DurableStore::pairs_space`], with the database for batches.
    fn opened(&self) -> Result<&Open, StoreError> {
        self.database.as_ref().ok_or_else(|| StoreError("the store was given up".to_owned()))
    }

    /// The key of a partition's position (`kind` [`POSITION`]) or the start of its pairs' keys. Big-endian,
    /// so that the order of keys is the order of partitions. `room` bytes are reserved for what the caller
    /// appends.
    ///
    /// ```text
    /// PAIR, table number 7, partition 3  →  02 00000007 00000003
    /// ```
    fn place(&self, kind: u8, table: TableId, partition: i32, room: usize) -> Vec<u8> {
        place(kind, self.numbers[table.index()], partition, room)
    }

    /// The key of a pair: its place, then the encoded key.
    fn key(&self, table: TableId, partition: i32, key: &[u8]) -> Vec<u8> {
        let mut place = self.place(PAIR, table, partition, key.len());
        place.extend_from_slice(key);
        place
    }

    /// The value of a position: offset and time, eight bytes each, big-endian, then the topic's id as text.
    fn position(&self, table: TableId, partition: i32, offset: i64) -> Vec<u8> {
        let topic = self.topics.get(&(table, partition)).map_or("", String::as_str);
        let mut value = Vec::with_capacity(16 + topic.len());
        value.extend_from_slice(&offset.to_be_bytes());
        value.extend_from_slice(&self.clock.wall_ms().to_be_bytes());
        value.extend_from_slice(topic.as_bytes());
        value
    }
}

impl Store for DurableStore {
    fn get(&self, table: TableId, partition: i32, key: &[u8]) -> Result<Option<Kept>, StoreError> {
        let (space, key) = (self.pairs_space()?, self.key(table, partition, key));
        Ok(undamaged(|| space.get(key).map_err(store_error))?.map(|value| Kept::from(&*value)))
    }

    fn pairs(&self, table: TableId, partition: i32) -> Result<Vec<(Kept, Kept)>, StoreError> {
        let (space, place) = (self.pairs_space()?, self.place(PAIR, table, partition, 0));
        undamaged(|| {
            let mut pairs = Vec::new();
            for pair in space.prefix(&place) {
                let (key, value) = pair.into_inner().map_err(store_error)?;
                pairs.push((Kept::from(&key[place.len()..]), Kept::from(&*value)));
            }
            Ok(pairs)
        })
    }

    fn partitions(&self, table: TableId) -> Vec<i32> {
        let Ok(space) = self.pairs_space() else { return Vec::new() };
        let mut partitions = Vec::new();
        let mut next = 0;
        loop {
            // One seek per partition found: the keys between are never read.
            let (from, to) = (self.place(PAIR, table, next, 0), self.place(PAIR, table, i32::MAX, 0));
            let Some(Ok(key)) = space.range((Bound::Included(from), Bound::Excluded(to))).next().map(fjall::Guard::key)
            else {
                return partitions;
            };
            // Behind the kind and the table's number: see `place`.
            let Some(found) = key.get(5..9).and_then(|bytes| bytes.try_into().ok()).map(i32::from_be_bytes) else {
                return partitions;
            };
            partitions.push(found);
            next = found.saturating_add(1);
        }
    }

    fn keys(&self, table: TableId, partition: i32) -> Option<u64> {
        let pairs = self.database.as_ref()?.pairs.clone();
        if self.census.get().is_none() {
            let numbers = self.numbers.clone();
            let census = Census::start(move |(table, partition): (TableId, i32), from: Option<&[u8]>| {
                let bound = |partition| place(PAIR, numbers[table.index()], partition, 0);
                let beginning = bound(partition);
                stride(&pairs, from.unwrap_or(&beginning), &bound(partition.saturating_add(1))).ok()
            });
            // Without a thread nothing is counted; the next question tries again.
            let _ = self.census.set(census.ok()?);
        }
        self.census.get()?.keys((table, partition))
    }

    fn apply(&mut self, writes: &[&[TableWrite]], positions: &[ChangelogPosition]) -> Result<(), StoreError> {
        // A batch has no order within it: of a key that is written twice only the last write counts.
        let mut last: FxHashMap<(TableId, i32, &[u8]), Option<&Kept>> = FxHashMap::default();
        for write in writes.iter().copied().flatten() {
            last.insert((write.table, write.partition, &write.key), write.value.as_ref());
        }
        let Open { database, pairs } = self.opened()?;
        let mut batch = database.batch();
        for ((table, partition, key), value) in last {
            let key = self.key(table, partition, key);
            match value {
                Some(value) => batch.insert(pairs, key, &**value),
                None => batch.remove(pairs, key),
            }
        }
        for position in positions {
            let place = self.place(POSITION, position.table, position.partition, 0);
            batch.insert(pairs, place, self.position(position.table, position.partition, position.offset));
        }
        // On the disk from here, writes and positions together: a kill of the process loses nothing of it.
        batch.commit().map_err(store_error)?;
        if let Some(census) = self.census.get() {
            census.wrote(writes.iter().copied().flatten().map(|write| (write.table, write.partition)));
        }
        Ok(())
    }

    fn followed(&self, table: TableId, partition: i32) -> Result<Option<Followed>, StoreError> {
        let place = self.place(POSITION, table, partition, 0);
        let space = self.pairs_space()?;
        let value = undamaged(|| space.get(place).map_err(store_error))?;
        Ok(value.and_then(|value| {
            // A value of another shape was written by another version: no position, so the copy is not
            // trusted.
            let number = |at: usize| Some(i64::from_be_bytes(value.get(at..at + 8)?.try_into().ok()?));
            let topic = String::from_utf8(value.get(16..)?.to_vec()).ok()?;
            Some(Followed { offset: number(0)?, seen_ms: number(8)?, topic })
        }))
    }

    fn follow(&mut self, table: TableId, partition: i32, topic: &str) {
        self.topics.insert((table, partition), topic.to_owned());
    }

    fn touch(&mut self, table: TableId, partition: i32) -> Result<(), StoreError> {
        let Some(followed) = self.followed(table, partition)? else { return Ok(()) };
        // The same offset with a new time.
        self.apply(&[], &[ChangelogPosition { table, partition, offset: followed.offset }])
    }

    fn clear(&mut self, table: TableId, partition: i32) -> Result<(), StoreError> {
        if let Some(census) = self.census.get() {
            census.forget((table, partition));
        }
        // The position goes first: without it the partition is not trusted, however far the wipe gets.
        let Open { database, pairs } = self.opened()?;
        pairs.remove(self.place(POSITION, table, partition, 0)).map_err(store_error)?;
        let place = self.place(PAIR, table, partition, 0);
        loop {
            let mut batch = database.batch();
            for pair in pairs.prefix(&place).take(CLEARED_AT_ONCE) {
                batch.remove(pairs, pair.key().map_err(store_error)?);
            }
            if batch.is_empty() {
                return Ok(());
            }
            batch.commit().map_err(store_error)?;
        }
    }

    fn release(&mut self, table: TableId, partition: i32) {
        self.topics.remove(&(table, partition));
        if let Some(census) = self.census.get() {
            census.forget((table, partition));
        }
    }

    fn discard(&mut self) {
        // Closed first: fjall's threads must not write into a folder that goes away.
        self.census.take();
        self.database = None;
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            warn!(folder = %self.folder.display(), %error, "the state could not be wiped");
        }
    }

    fn renew(&mut self) -> Result<(), StoreError> {
        self.discard();
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let (database, numbers) = open(&self.folder, &names)?;
        (self.database, self.numbers) = (Some(database), numbers);
        self.topics.clear();
        Ok(())
    }
}

/// See [`DurableStore::place`].
fn place(kind: u8, number: u32, partition: i32, room: usize) -> Vec<u8> {
    let mut place = Vec::with_capacity(9 + room);
    place.push(kind);
    place.extend_from_slice(&number.to_be_bytes());
    place.extend_from_slice(&partition.to_be_bytes());
    place
}

/// Counts keys from one on, up to another.
fn stride(pairs: &Keyspace, from: &[u8], to: &[u8]) -> Result<Stride, StoreError> {
    undamaged(|| {
        let (mut keys, mut last) = (0, None);
        for pair in pairs.range::<&[u8], _>((Bound::Included(from), Bound::Excluded(to))).take(COUNTED_AT_ONCE) {
            (keys, last) = (keys + 1, Some(pair.key().map_err(store_error)?));
        }
        // The least key behind the last one.
        let next = last.filter(|_| keys == COUNTED_AT_ONCE).map(|last| [last.as_ref(), &[0]].concat());
        Ok(Stride { keys: keys as u64, next })
    })
}

/// Reads data that may be damaged: a panic of fjall over it becomes an error. fjall checks its blocks, but
/// asserts in some places about what it reads: the tests that damage its files show it.
fn undamaged<T>(read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(StoreError("it is damaged".to_owned())))
}

/// Opens the database and finds the numbers of the tables. The files on the disk may hold anything.
///
/// # Errors
///
/// The files cannot be used: damaged, of another version, or the disk refuses. The caller wipes them and
/// tries once more.
fn open(folder: &Path, tables: &[&str]) -> Result<(Open, Vec<u32>), StoreError> {
    undamaged(|| {
        let database = Database::builder(folder)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .worker_threads(1)
            .open()
            .map_err(store_error)?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES_MAX);
        let pairs = database.keyspace("tables", options).map_err(store_error)?;
        let numbers = numbers(&pairs, tables)?;
        Ok((Open { database, pairs }, numbers))
    })
}

/// Returns the numbers of tables: a name keeps its own, whatever else the plan names. A new name gets the
/// next free number, which is written at once.
fn numbers(pairs: &Keyspace, tables: &[&str]) -> Result<Vec<u32>, StoreError> {
    let mut known: FxHashMap<Vec<u8>, u32> = FxHashMap::default();
    for pair in pairs.prefix([NAME]) {
        let (name, number) = pair.into_inner().map_err(store_error)?;
        let number = number.as_ref().try_into().map(u32::from_be_bytes);
        known.insert(name[1..].to_vec(), number.map_err(|_| StoreError("a table has no number".to_owned()))?);
    }
    // Numbers of tables that the plan no longer has stay taken: their data still lies under them.
    let mut next = known.values().max().map_or(0, |number| number + 1);
    let mut numbers = Vec::with_capacity(tables.len());
    for table in tables {
        let number = match known.get(table.as_bytes()) {
            Some(&number) => number,
            None => {
                pairs.insert([&[NAME], table.as_bytes()].concat(), next.to_be_bytes()).map_err(store_error)?;
                next += 1;
                next - 1
            }
        };
        numbers.push(number);
    }
    Ok(numbers)
}

/// fjall's error, without the words around it.
fn store_error(error: fjall::Error) -> StoreError {
    StoreError(match error {
        fjall::Error::Io(error) => error.to_string(),
        fjall::Error::Storage(error) => format!("{error:?}"),
        fjall::Error::Poisoned => "an earlier write failed".to_owned(),
        other => format!("{other:?}"),
    })
}
