//! Restores tables from their changelogs, a bounded part at every turn of the worker, so that other
//! partitions go on meanwhile.
//!
//! A partition of a table is *whole* once its store holds everything that was committed below the changelog's
//! end at the moment of asking, including transactions that were open then. The copy in the store is trusted
//! up to its position, and wiped if anything speaks against it. The changelogs of global tables are read on
//! for ever: see [`crate::tables`].
//!
//! ```text
//! want ─▶ Wanted ─begin─▶ Reading { from ≤ at ≤ to } ─▶ Whole ─▶ (global: read on)
//!                  └── the copy is up to date ──────────▲
//! ```
//!
//! `to` is the *high watermark* and not the last stable offset: a transaction that was open when the previous
//! owner left may still commit below it, and its writes belong to the table. So a restoration may have to
//! wait for other producers' transactions; `is_blocked` says when one lasts too long.
//!
//! The worker calls [`Restore::want`] for partitions that come, [`Restore::turn`] once per turn, and starts a
//! partition when [`Restore::is_ready`] says so.

mod distrust;
mod figures;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kaspr_ir::plan::{Plan, TableId};
use tracing::{debug, warn};

use crate::assignment::Reads;
use crate::broker::{BrokerError, Changelog, Watermarks};
use crate::clock::Clock;
use crate::config::{Bounds, Config};
use crate::event::effects::TableWrite;
use crate::event::message::{Event, TopicName, TopicPartition};
use crate::tables::Tables;
use crate::tables::store::{ChangelogPosition, StoreError};
use distrust::{Kept, distrust, kept};
use session::Session;

/// The time between two notes of a store that it is up to date, so that it is not taken for an old one.
const TOUCH_EVERY: Duration = Duration::from_secs(3600);
/// Pause after a question that the broker did not answer.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Partitions whose ends are asked for in one turn.
const BEGUN_AT_ONCE: usize = 128;

/// The error for a table that cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Its changelog cannot be read.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Its store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A partition of a table on its way to be whole. The life of a restoration: the variants follow each other
/// in this order.
#[derive(Debug)]
enum Part {
    /// It is asked for, and nothing is known of it.
    Wanted,
    /// Its changelog is being read.
    Reading(Reading),
    /// It is whole; a global table's changelog is read on.
    Whole,
}

/// Offsets of a changelog: where the reading began, where it ends, and the next one to read. `from <= at`,
/// and `at` may pass `to` over a marker.
#[derive(Debug)]
struct Reading {
    from: i64,
    to: i64,
    at: i64,
}

/// A partition of a table that is being restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restoring {
    /// The table.
    pub table: String,
    /// The partition.
    pub partition: i32,
    /// The share of the offsets to read that was read.
    pub percent: u8,
    /// The next offset of the changelog that is to be read.
    pub at: i64,
}

/// The outcome of a turn. The default is a turn without anything to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turned {
    /// True if something was read.
    pub has_read: bool,
    /// True if an open transaction has hidden needed records for longer than `blocked_after`.
    pub is_blocked: bool,
}

/// Restores the tables of a worker. It owns the reading end of the changelogs. The state itself goes to
/// [`Tables`]; here is only how far each partition has come.
pub struct Restore {
    /// `None`: there are none, the store holds the only copy, and every partition is ready at once.
    changelog: Option<Box<dyn Changelog>>,
    /// By the tables' numbers.
    tables: Vec<Kept>,
    /// The table of each changelog.
    by_topic: BTreeMap<TopicName, TableId>,
    /// The tables that events of a topic may touch, by reader.
    readers: Vec<(Reads, BTreeSet<TableId>)>,
    /// The partitions that this worker needs: entries come with `want` and go with `release`.
    parts: BTreeMap<(TableId, i32), Part>,
    /// Tables with data, in the store's copy or in a changelog.
    filled: BTreeSet<TableId>,
    /// Tables with a partition whose changelog was empty when its restoration began.
    begun_empty: BTreeSet<TableId>,
    /// The figures for the log, from the first partition that begins until none is left.
    session: Option<Session>,
    /// The time of the last note in the store: see [`TOUCH_EVERY`].
    touched: Duration,
    /// The time until which no restoration begins, because the broker did not answer.
    not_before: Duration,
    /// The time at which something was last read, or the open transaction in the way was last asked about.
    came: Duration,
    /// Records that were read, by table.
    restored: BTreeMap<TableId, u64>,
    /// Room for polled records, kept from turn to turn.
    events: Vec<Event>,
    /// Records that one turn takes at most, so that other partitions are not held up.
    records_max: usize,
    /// The time without a record after which an open transaction is looked for.
    blocked_after: Duration,
}

impl Restore {
    /// Prepares to restore the tables of a plan. Without a changelog the store holds the only copy, and
    /// nothing is restored. Global tables are wanted from the start, whatever partitions come.
    pub fn new(plan: &Plan, config: &Config, changelog: Option<Box<dyn Changelog>>) -> Restore {
        let Bounds { restore_records_max, unblock_after, .. } = config.bounds;
        let tables: Vec<Kept> = kept(plan, &config.app);
        let by_topic = (0..).map(TableId).zip(&tables).map(|(id, kept)| (kept.topic.clone(), id)).collect();
        let readers = plan.readers.iter().map(|reader| (Reads::of(&reader.topics), used(plan, &reader.agents)));
        let mut restore = Restore {
            changelog,
            tables,
            by_topic,
            readers: readers.collect(),
            parts: BTreeMap::new(),
            filled: BTreeSet::new(),
            begun_empty: BTreeSet::new(),
            session: None,
            touched: Duration::ZERO,
            not_before: Duration::ZERO,
            came: Duration::ZERO,
            restored: BTreeMap::new(),
            events: Vec::new(),
            records_max: restore_records_max,
            blocked_after: unblock_after,
        };
        restore.want_global();
        restore
    }

    /// Tables whose store is fed by their changelog alone: the global ones that some agent uses.
    pub fn fed(&self) -> Vec<TableId> {
        let used: BTreeSet<TableId> = self.readers.iter().flat_map(|(_, tables)| tables).copied().collect();
        used.into_iter().filter(|table| self.tables[table.index()].is_global).collect()
    }

    /// True if changelogs are the truth, and stores are copies that they can fill again.
    pub fn has_changelogs(&self) -> bool {
        self.changelog.is_some()
    }

    /// Tables that events of this topic may touch.
    pub fn tables_of(&self, topic: &str) -> BTreeSet<TableId> {
        let reading = self.readers.iter().filter(|(reads, _)| reads.reads(topic));
        reading.flat_map(|(_, tables)| tables).copied().collect()
    }

    /// Topics that are named as inputs of a table; patterns are not resolved.
    pub fn inputs_of(&self, table: TableId) -> BTreeSet<String> {
        let names = self.readers.iter().filter_map(|(reads, tables)| match reads {
            Reads::Names(names) if tables.contains(&table) => Some(names),
            _ => None,
        });
        names.flatten().cloned().collect()
    }

    /// A table's name and its changelog's.
    pub fn name(&self, table: TableId) -> (String, TopicName) {
        let kept = &self.tables[table.index()];
        (kept.name.clone(), kept.topic.clone())
    }

    /// True if data of the table was found so far.
    pub fn has_data(&self, table: TableId) -> bool {
        self.filled.contains(&table)
    }

    /// True if a partition of the table had an empty changelog when its restoration began.
    pub fn has_begun_empty(&self, table: TableId) -> bool {
        self.begun_empty.contains(&table)
    }

    /// True if all of these partitions of a table's changelog are empty. Asks the broker.
    ///
    /// # Errors
    ///
    /// Those of the question; a partition without a leader is one, since it may hold records.
    pub fn is_empty(&mut self, table: TableId, partitions: i32) -> Result<bool, BrokerError> {
        let all: Vec<_> = (0..partitions).map(|partition| self.at(table, partition)).collect();
        let ends = self.read()?.ends(&all)?;
        if ends.iter().flatten().any(|ends| ends.low < ends.high) {
            return Ok(false);
        }
        match all.iter().zip(ends).find(|(_, ends)| ends.is_none()) {
            Some((partition, _)) => Err(BrokerError::Retriable(format!("no broker leads {partition}"))),
            None => Ok(true),
        }
    }

    /// Asks for the global tables, which are whole on every worker and so belong to no partition of an input.
    fn want_global(&mut self) {
        if self.has_changelogs() {
            for table in self.fed() {
                self.parts.entry((table, 0)).or_insert(Part::Wanted);
            }
        }
    }

    /// Tables with a state of their own for each partition of this topic.
    fn beside(&self, topic: &str) -> BTreeSet<TableId> {
        let reading = self.readers.iter().filter(|(reads, _)| reads.reads(topic));
        let tables = reading.flat_map(|(_, tables)| tables).copied();
        tables.filter(|table| !self.tables[table.index()].is_global).collect()
    }

    /// True if events of this topic may touch a table. Such partitions stop while a store is rebuilt.
    pub fn concerns(&self, topic: &str) -> bool {
        self.readers.iter().any(|(reads, tables)| !tables.is_empty() && reads.reads(topic))
    }

    /// Asks for the tables beside this partition of an input. Does nothing for those that are already asked
    /// for, or whole.
    pub fn want(&mut self, name: &TopicPartition) {
        if self.has_changelogs() {
            for table in self.beside(&name.topic) {
                self.parts.entry((table, name.partition)).or_insert(Part::Wanted);
            }
        }
    }

    /// True if all tables that events of this partition may touch are whole. Global tables count for every
    /// partition.
    pub fn is_ready(&self, name: &TopicPartition) -> bool {
        let is_whole = |at: &(TableId, i32)| matches!(self.parts.get(at), Some(Part::Whole));
        !self.has_changelogs()
            || (self.fed().iter().all(|&table| is_whole(&(table, 0)))
                && self.beside(&name.topic).iter().all(|&table| is_whole(&(table, name.partition))))
    }

    /// True if some partition of a table is not whole yet.
    pub fn is_restoring(&self) -> bool {
        self.parts.values().any(|part| !matches!(part, Part::Whole))
    }

    /// Gives partitions of inputs up, and the tables beside them that none of `left` needs.
    ///
    /// `left` are the partitions that stay, started or not.
    ///
    /// # Errors
    ///
    /// The changelog's reader could not stop.
    pub fn release<'a>(
        &mut self,
        names: &[TopicPartition],
        left: impl Iterator<Item = &'a TopicPartition>,
        tables: &mut Tables,
    ) -> Result<(), BrokerError> {
        if !self.has_changelogs() {
            return Ok(());
        }
        let all = |name: &TopicPartition| -> Vec<(TableId, i32)> {
            self.beside(&name.topic).into_iter().map(|table| (table, name.partition)).collect()
        };
        // Two inputs may feed one table: its partition stays while either of them is here.
        let needed: BTreeSet<_> = left.flat_map(all).collect();
        let gone: BTreeSet<_> = names.iter().flat_map(all).filter(|at| !needed.contains(at)).collect();
        for (table, partition) in gone {
            if let Some(Part::Reading(_)) = self.parts.remove(&(table, partition)) {
                let at = self.at(table, partition);
                self.read()?.stop(&at)?;
            }
            tables.release(table, partition);
        }
        Ok(())
    }

    /// Begins again with an empty store. Used after [`Tables::rebuild`]. Nothing but the global tables is
    /// wanted afterwards: the caller asks for its partitions anew.
    pub fn begin_again(&mut self) -> Result<(), BrokerError> {
        for (table, partition) in std::mem::take(&mut self.parts).into_keys() {
            let at = self.at(table, partition);
            self.read()?.stop(&at)?;
        }
        self.want_global();
        Ok(())
    }

    /// Restores a bounded part of what is wanted, and lets global tables follow. Takes the records that have
    /// come and waits for none. An answer that does not come is asked for again at a later turn.
    ///
    /// # Errors
    ///
    /// [`RestoreError::Store`] if the store takes no writes; [`RestoreError::Broker`] for errors that do not
    /// pass.
    pub fn turn(&mut self, tables: &mut Tables, clock: &dyn Clock) -> Result<Turned, RestoreError> {
        if self.parts.is_empty() {
            return Ok(Turned::default());
        }
        // Nothing is expected, so nothing is late: the clock of `is_blocked` starts when something is wanted.
        if !self.is_restoring() {
            self.came = clock.now();
        }
        self.begin_wanted(tables, clock)?;
        let has_read = self.read_some(tables, clock.now())?;
        let is_blocked = self.advance(tables, clock.now())?;
        self.tell(clock.now());
        if clock.now() >= self.touched + TOUCH_EVERY {
            self.touched = clock.now();
            self.touch(tables)?;
        }
        Ok(Turned { has_read, is_blocked })
    }

    /// Begins with some of the partitions that are wanted. If the broker does not answer, with none of them
    /// for a while.
    fn begin_wanted(&mut self, tables: &mut Tables, clock: &dyn Clock) -> Result<(), RestoreError> {
        if clock.now() < self.not_before {
            return Ok(());
        }
        let wanted = self.parts.iter().filter(|(_, part)| matches!(part, Part::Wanted));
        let wanted: Vec<_> = wanted.map(|(at, _)| *at).take(BEGUN_AT_ONCE).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        match self.begin_all(wanted, tables, clock) {
            Err(RestoreError::Broker(BrokerError::Retriable(why))) => {
                debug!(error = %why, "tables wait to be restored");
                self.not_before = clock.now() + ASK_AGAIN;
                Ok(())
            }
            begun => begun,
        }
    }

    /// Begins with the partitions whose ends the broker knows: one question for all of them, and one per
    /// topic.
    fn begin_all(
        &mut self,
        wanted: Vec<(TableId, i32)>,
        tables: &mut Tables,
        clock: &dyn Clock,
    ) -> Result<(), RestoreError> {
        let names: Vec<_> = wanted.iter().map(|&(table, partition)| self.at(table, partition)).collect();
        // Asked before the first record is read: what is committed below these ends makes the table whole.
        let ends = self.read()?.ends(&names)?;
        let mut identities = BTreeMap::new();
        let (mut begun, mut starts) = (Vec::new(), Vec::new());
        for (&(table, partition), (name, ends)) in wanted.iter().zip(names.iter().zip(ends)) {
            let Some(ends) = ends else {
                self.not_before = clock.now() + ASK_AGAIN;
                continue;
            };
            if !identities.contains_key(&name.topic) {
                identities.insert(name.topic.clone(), self.read()?.identity(&name.topic)?);
            }
            let (part, from) = self.begin((table, partition), (ends, &identities[&name.topic]), tables, clock)?;
            if self.tables[table.index()].is_global || matches!(part, Part::Reading(_)) {
                starts.push((name.clone(), from));
            }
            begun.push(((table, partition), part));
        }
        if !starts.is_empty() {
            self.read()?.start(&starts)?;
        }
        self.parts.extend(begun);
        Ok(())
    }

    /// Decides from which offset to which a changelog must be read.
    ///
    /// `ends` are those of the changelog, `topic` its id. Returns the state in which the partition begins,
    /// and the offset at which to read.
    fn begin(
        &mut self,
        (table, partition): (TableId, i32),
        (ends, topic): (Watermarks, &str),
        tables: &mut Tables,
        clock: &dyn Clock,
    ) -> Result<(Part, i64), RestoreError> {
        let kept = &self.tables[table.index()];
        let followed = tables.store().followed(table, partition)?;
        let distrusted = followed.as_ref().and_then(|followed| distrust(followed, ends, topic, clock.wall_ms(), kept));
        let from = match (&followed, distrusted) {
            (Some(followed), None) => followed.offset,
            (_, distrusted) => {
                if let Some(why) = distrusted {
                    warn!(table = %kept.name, partition, "wiped and restored from changelogs: {why}");
                }
                // Keys that were deleted meanwhile may be gone from the changelog: no record would delete
                // them here.
                tables.store().clear(table, partition)?;
                ends.low
            }
        };
        if from > ends.low {
            self.filled.insert(table);
        }
        if ends.low >= ends.high {
            self.begun_empty.insert(table);
        }
        // Before the first position is written below: positions carry this id.
        tables.store().follow(table, partition, topic);
        debug!(changelog = %self.at(table, partition), from, to = ends.high, "restoring");
        self.session.get_or_insert_with(|| Session::begin(clock.now())).add(ends.high - from);
        // The position is written although nothing was read: it may be new, and its time and topic are.
        if from >= ends.high {
            tables.restore(&[], &[ChangelogPosition { table, partition, offset: from }])?;
            tables.hold(table, partition);
            return Ok((Part::Whole, from));
        }
        Ok((Part::Reading(Reading { from, to: ends.high, at: from }), from))
    }

    /// Takes records that have come, all in one write. Returns true if there were some.
    fn read_some(&mut self, tables: &mut Tables, now: Duration) -> Result<bool, RestoreError> {
        let max = self.records_max;
        let mut events = std::mem::take(&mut self.events);
        match self.read()?.poll(max, &mut events) {
            Err(BrokerError::Retriable(why)) => debug!(error = %why, "changelogs could not be read"),
            polled => polled?,
        }
        let mut writes = Vec::with_capacity(events.len());
        let mut positions: BTreeMap<(TableId, i32), i64> = BTreeMap::new();
        let count = events.len();
        for event in events.drain(..) {
            // Records of a partition that was released meanwhile are dropped: another worker owns it.
            let Some(&table) = self.by_topic.get(&event.topic) else { continue };
            let partition = event.partition;
            match self.parts.get_mut(&(table, partition)) {
                Some(Part::Reading(reading)) => {
                    reading.at = event.offset + 1;
                    *self.restored.entry(table).or_insert(0) += 1;
                }
                Some(Part::Whole) => {}
                Some(Part::Wanted) | None => continue,
            }
            positions.insert((table, partition), event.offset + 1);
            // A record without a key belongs to no entry of the table.
            if let Some(key) = event.key {
                if !matches!(self.parts.get(&(table, partition)), Some(Part::Whole)) {
                    self.filled.insert(table);
                }
                let (key, value) = ((&*key).into(), event.value.as_deref().map(Into::into));
                writes.push(TableWrite { table, partition, key, value });
            }
        }
        self.events = events;
        // Durable from here, in a copy on the disk: records and the position behind them, in one write.
        if !positions.is_empty() {
            let positions = positions.into_iter();
            let positions: Vec<_> =
                positions.map(|((table, partition), offset)| ChangelogPosition { table, partition, offset }).collect();
            tables.restore(&writes, &positions)?;
        }
        if count > 0 {
            self.came = now;
        }
        if let Some(session) = &mut self.session {
            session.read(count);
        }
        Ok(count > 0)
    }

    /// Marks the partitions that have become whole. Returns true if an open transaction has hidden records
    /// for too long. A position past `to` is what counts, not a record at it: the last offsets may be
    /// markers, or aborted.
    fn advance(&mut self, tables: &mut Tables, now: Duration) -> Result<bool, RestoreError> {
        let reading = self.parts.iter().filter(|(_, part)| matches!(part, Part::Reading(_)));
        let reading: Vec<_> = reading.map(|(at, _)| *at).collect();
        for (table, partition) in reading {
            let at = self.at(table, partition);
            let position = self.read()?.position(&at);
            let Some(Part::Reading(reading)) = self.parts.get_mut(&(table, partition)) else { continue };
            reading.at = reading.at.max(position.unwrap_or(reading.at));
            debug_assert!(reading.from <= reading.at, "a changelog is read forwards");
            let offset = reading.at;
            if offset >= reading.to {
                // The position may have passed markers, which no record has told the store of.
                tables.restore(&[], &[ChangelogPosition { table, partition, offset }])?;
                tables.hold(table, partition);
                // `hold` comes first: from the moment that it counts as whole, its writes must be taken.
                self.parts.insert((table, partition), Part::Whole);
                if !self.tables[table.index()].is_global {
                    self.read()?.stop(&at)?;
                }
            }
        }
        self.is_blocked(now)
    }

    /// True if nothing has come for `blocked_after`, and an open transaction is the reason.
    fn is_blocked(&mut self, now: Duration) -> Result<bool, RestoreError> {
        let reading = self.parts.iter().find_map(|(at, part)| match part {
            Part::Reading(reading) => Some((*at, reading.at, reading.to)),
            Part::Wanted | Part::Whole => None,
        });
        let Some(((table, partition), at, to)) = reading else {
            self.came = now;
            return Ok(false);
        };
        if now < self.came + self.blocked_after {
            return Ok(false);
        }
        self.came = now;
        let partition = self.at(table, partition);
        match self.read()?.stable_end(&partition) {
            // Everything decided was read, and the rest stands behind an open transaction.
            Ok(stable) => Ok(stable < to && at >= stable),
            Err(BrokerError::Retriable(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Reports long restorations while they last, and the end of every restoration.
    fn tell(&mut self, now: Duration) {
        let Some(session) = &mut self.session else { return };
        let left = self.parts.values().filter_map(|part| match part {
            Part::Reading(reading) => Some(reading.to - reading.at),
            Part::Wanted => Some(0),
            Part::Whole => None,
        });
        let (parts, offsets) = left.fold((0, 0), |(parts, offsets), left| (parts + 1, offsets + left));
        if session.tell(now, parts, offsets) {
            self.session = None;
        }
    }

    /// Notes in the store that its copies are as new as their changelogs.
    fn touch(&mut self, tables: &mut Tables) -> Result<(), StoreError> {
        let whole = self.parts.iter().filter(|(_, part)| matches!(part, Part::Whole));
        for (table, partition) in whole.map(|(at, _)| *at) {
            tables.store().touch(table, partition)?;
        }
        Ok(())
    }

    /// The changelog's partition of a table's partition: they have the same number.
    fn at(&self, table: TableId, partition: i32) -> TopicPartition {
        TopicPartition { topic: self.tables[table.index()].topic.clone(), partition }
    }

    /// The reading end. Its absence is an error and not a panic, though no caller comes here without one.
    fn read(&mut self) -> Result<&mut Box<dyn Changelog>, BrokerError> {
        let changelog = self.changelog.as_mut();
        changelog.ok_or_else(|| BrokerError::Fatal("there are no changelogs".to_owned()))
    }
}

/// Tables that steps of these agents use. The tables are parameters of their steps' functions (`tables:` in a
/// spec).
pub fn used(plan: &Plan, agents: &[kaspr_ir::plan::AgentId]) -> BTreeSet<TableId> {
    let steps = agents.iter().flat_map(|agent| &plan[*agent].steps);
    steps.flat_map(|step| &step.tables).map(|parameter| parameter.table).collect()
}
