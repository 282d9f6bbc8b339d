//! A local run from its first line to its summary.
//!
//! The order of the end matters: input used up, stages empty, last commit, windows handed over, their commit,
//! output written. Each step may bring new work for the one before, so the loop asks until nothing is left.

use std::cell::RefCell;
use std::io::Write;
use std::path::PathBuf;
use std::rc::Rc;

use kaspr_ir::plan::{Plan, TableId};

use super::feed::{Format, Input, LineFeed, Progress};
use super::print::{FailureFile, Printed, Printer, Target};
use crate::broker::log::Log;
use crate::clock::Clock;
use crate::code::Code;
use crate::config::Config;
use crate::run::assemble::{Assembly, Ends};
use crate::run::record::write_pair;
use crate::tables::Tables;
use crate::worker::{Stopped, Worker};

/// The places where a local run writes. User code may change the process's folder: paths are absolute.
#[derive(Debug, Default)]
pub struct Output {
    /// A folder for records and tables; `None`: records go to `stream`.
    pub folder: Option<PathBuf>,
    /// A stream for records; `None`: standard output.
    pub stream: Option<std::fs::File>,
    /// A file for failures.
    pub failures: Option<PathBuf>,
}

impl Output {
    /// The stream for records; an error if it cannot be opened a second time.
    fn stream(&self) -> std::io::Result<Box<dyn Write>> {
        Ok(match &self.stream {
            Some(stream) => Box::new(stream.try_clone()?),
            None => Box::new(std::io::stdout()),
        })
    }
}

/// The parts of a local run. [`Local::assemble`] comes first and [`Local::run`] second: user code is loaded
/// in between.
pub struct Local {
    /// The plan to run.
    pub plan: Rc<Plan>,
    /// The settings to run it with.
    pub config: Config,
    /// Its inputs.
    pub inputs: Vec<Input>,
    /// The format of their lines.
    pub format: Format,
    /// The places where it writes.
    pub output: Output,
    /// Partitions of topics whose spec names none.
    pub partitions: i32,
    /// Tells the time.
    pub clock: Rc<dyn Clock>,
}

/// The reason for which a local run did not end well.
///
/// `cli` makes exit status 2 of the first, and 1 of the others.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The inputs or outputs cannot be used: the user's call is wrong.
    #[error("{0}")]
    Refused(String),
    /// The worker stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// Writing failed.
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
}

/// The end of a local run. Everything that was complete is committed in each case, and written unless the
/// reader is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The input is used up and all is drained.
    Drained,
    /// It was asked to stop; this many events were complete, and are committed.
    Stopped(u64),
    /// The reader of its output is gone.
    Closed,
}

impl Local {
    /// The log with the topics of the plan, and what a worker over it shares with its user code. Topics whose
    /// spec names no number of partitions are made when they are first used.
    pub fn assemble(&self) -> (Log, Assembly) {
        let log = Log::new(self.partitions);
        for topic in &self.plan.topics {
            let partitions = topic.partitions.and_then(|partitions| i32::try_from(partitions).ok());
            if let Some(partitions) = partitions {
                log.create(&topic.name, partitions);
            }
        }
        let admin = Box::new(log.admin());
        let assembly = Assembly::new(&self.plan, self.config.clone(), self.clock.clone(), admin);
        (log, assembly)
    }

    /// Runs until the input is used up, or `stop` says so. `watch` is called at every turn.
    ///
    /// # Errors
    ///
    /// [`LocalError::Refused`] before anything runs if an input cannot be opened, later if a line is no
    /// record. In every case the records that were committed before are written.
    pub fn run<C: Code>(
        self,
        (log, assembly): (Log, Assembly),
        code: &Rc<RefCell<C>>,
        stop: &dyn Fn() -> bool,
        watch: &mut dyn FnMut(&Progress, &Worker<C>),
    ) -> Result<Ended, LocalError> {
        let (feed, progress) =
            LineFeed::start(&self.inputs, self.format, self.clock.clone()).map_err(LocalError::Refused)?;
        let target = match &self.output.folder {
            Some(folder) => Target::Folder(folder.clone()),
            // Without a buffer each record would be a system call: standard output sends at each line end.
            None => Target::Stream(Box::new(std::io::BufWriter::with_capacity(1 << 16, self.output.stream()?))),
        };
        let printer = Printer::new(target)?;
        let failures = self.output.failures.as_deref().map(FailureFile::create).transpose()?;
        let consumer = log.consumer(&self.config.app, None).with_feed(Box::new(feed));
        let ends = Ends { consumer: Box::new(consumer), ..Ends::of_log(&log, &self.config) };
        let tables = assembly.tables.clone();
        let worker = assembly.start(code, ends)?;
        let mut run = Run { local: &self, log, worker, printer, failures, progress };
        // Not `?`: what follows must happen for a fault, too.
        let ended = run.until_ended(stop, watch);
        // Records that were committed before a fault are written all the same.
        let printed = run.tell()?;
        let ended = run.judge(ended)?;
        run.worker.close()?;
        if let Some(folder) = &self.output.folder {
            write_tables(&self.plan, &tables.borrow(), folder)?;
        }
        Ok(if printed == Printed::Closed { Ended::Closed } else { ended })
    }
}

/// A run under way.
struct Run<'a, C: Code> {
    local: &'a Local,
    log: Log,
    worker: Worker<C>,
    printer: Printer,
    failures: Option<FailureFile>,
    progress: Progress,
}

impl<C: Code> Run<'_, C> {
    /// Turns the worker until nothing is left to do, it is asked to stop, or its output's reader is gone.
    fn until_ended(
        &mut self,
        stop: &dyn Fn() -> bool,
        watch: &mut dyn FnMut(&Progress, &Worker<C>),
    ) -> Result<Ended, LocalError> {
        loop {
            if stop() {
                self.worker.flush()?;
                return Ok(Ended::Stopped(self.worker.complete().values().map(|done| done.cast_unsigned()).sum()));
            }
            // Asked before the turn: lines that came during it are in the log, and the next round sees them
            // run.
            let ended = self.progress.ended.get();
            // With nothing on its way, waiting could only be for a window, and that is handed over now.
            let wait = match ended && self.worker.is_settled() {
                true => std::time::Duration::ZERO,
                false => self.local.config.bounds.idle_wait,
            };
            let turn = self.worker.turn(wait)?;
            if turn.committed && self.tell()? == Printed::Closed {
                return Ok(Ended::Closed);
            }
            if ended && turn.polled == 0 && self.drain()? {
                return Ok(Ended::Drained);
            }
            watch(&self.progress, &self.worker);
        }
    }

    /// Commits what is complete and hands over windows, after the input has ended. True: nothing is left.
    ///
    /// # Errors
    ///
    /// The worker stopped.
    fn drain(&mut self) -> Result<bool, LocalError> {
        if !self.worker.is_settled() {
            return Ok(false);
        }
        self.worker.flush()?;
        if !self.worker.is_drained()? {
            return Ok(false);
        }
        if self.worker.has_open_windows() {
            self.worker.hand_over_windows()?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Writes what was committed since the last call; the log may forget it. Called after every commit, so
    /// that the log holds no more than what is not committed or not written.
    fn tell(&mut self) -> Result<Printed, LocalError> {
        let printed = self.printer.print(&self.log)?;
        let failures = self.worker.take_failures();
        if let Some(file) = &mut self.failures {
            file.write(&failures)?;
        }
        for (partition, done) in &self.worker.complete() {
            // A reader may still need what is not complete, and the printer what is not written.
            self.log.forget_before(partition, (*done).min(self.printer.printed(partition)));
        }
        Ok(printed)
    }

    /// Turns the worker's error into the input's, if one was refused: that is the user's fault. The worker
    /// only sees that its consumer failed.
    fn judge(&self, ended: Result<Ended, LocalError>) -> Result<Ended, LocalError> {
        match (ended, self.progress.refused.borrow_mut().take()) {
            (Err(_), Some(why)) => Err(LocalError::Refused(why)),
            (ended, _) => ended,
        }
    }
}

/// A table's committed pairs as lines without their ends, by partition and in key order. For the files of a
/// run, and for what a test compares.
pub fn table_lines(tables: &Tables, table: TableId) -> impl Iterator<Item = Vec<u8>> {
    tables.committed(table).into_iter().flat_map(|(partition, pairs)| {
        pairs.into_iter().map(move |(key, value)| {
            let mut line = Vec::new();
            write_pair(partition, &key, &value, &mut line);
            line
        })
    })
}

/// `tables/{name}.jsonl`: one pair a line.
///
/// An empty table has an empty file, so that a reader can tell it from one that does not exist.
fn write_tables(plan: &Plan, tables: &Tables, folder: &std::path::Path) -> std::io::Result<()> {
    let folder = folder.join("tables");
    for (number, table) in plan.tables.iter().enumerate() {
        std::fs::create_dir_all(&folder)?;
        let mut file = std::io::BufWriter::new(std::fs::File::create(folder.join(format!("{}.jsonl", table.name)))?);
        let id = TableId(u32::try_from(number).expect("a plan counts tables in u32"));
        for mut line in table_lines(tables, id) {
            line.push(b'\n');
            file.write_all(&line)?;
        }
        file.flush()?;
    }
    Ok(())
}
