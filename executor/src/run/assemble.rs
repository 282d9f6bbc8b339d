//! Puts a worker together: the only place, for Kafka, local runs, users' tests, the simulator and benches.
//!
//! A worker and its user code share tables, topics and a clock, and the code is loaded before the
//! worker takes anything from the outside world. So there are two steps: an [`Assembly`] holds what is
//! shared, then [`Assembly::start`] adds the code and a connector's [`Ends`].
//!
//! ```text
//! Assembly::new ─▶ with_store, with_guard ─▶ python ─▶ start(code, Ends)
//!    plan, settings, clock, topics             user code      the connector: the group is joined here
//! ```
//!
//! A new connector gives its own [`Ends`]; nothing else here changes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use kaspr_ir::plan::Plan;

use crate::broker::directory::Directory;
use crate::broker::log::Log;
use crate::broker::{Admin, Changelog, Consumer, Producer};
use crate::clock::Clock;
use crate::code::Code;
use crate::code::python::{Interpreter, LoadError, Loading, PythonCode, Rehearsal};
use crate::config::{Config, Guarantee};
use crate::guard::Guard;
use crate::status::board::Board;
use crate::status::counters::SharedCounters;
use crate::tables::Tables;
use crate::tables::store::{MemoryStore, Store};
use crate::worker::{Parts, Stopped, Worker};

/// The ends of a connector that a worker holds. Three traits of [`crate::broker`]; the fourth, `Admin`, is
/// needed earlier, in the [`Assembly`].
pub struct Ends {
    /// The source of events.
    pub consumer: Box<dyn Consumer>,
    /// The sink of records.
    pub producer: Box<dyn Producer>,
    /// The reader from which tables are restored; `None`: their store is all there is of them.
    pub changelog: Option<Box<dyn Changelog>>,
}

impl Ends {
    /// Ends on the in-memory log. Its tables do not come back. Without changelogs the tables' store is the
    /// only copy, as long as the process lives, or as its folder does.
    pub fn of_log(log: &Log, config: &Config) -> Ends {
        let is_exact = config.guarantee == Guarantee::ExactlyOnce;
        Ends {
            consumer: Box::new(log.consumer(&config.app, None)),
            producer: Box::new(log.producer(is_exact.then_some(config.transactional_id.as_str()))),
            // A log in memory ends with the process: no start could restore a table from it.
            changelog: None,
        }
    }
}

/// The parts that a worker shares with its user code. Nothing of the outside world has been touched while it
/// exists, except for topics that were looked up.
pub struct Assembly {
    /// The plan to run.
    pub plan: Rc<Plan>,
    /// The settings to run it with.
    pub config: Config,
    /// Tells the time.
    pub clock: Rc<dyn Clock>,
    /// Topics that are written. Their counts and limits are looked up when a record is staged.
    pub directory: Directory,
    /// The tables with their state.
    pub tables: Rc<RefCell<Tables>>,
    /// The table of counters.
    pub counters: SharedCounters,
    /// Recognises events that end the process.
    pub guard: Guard,
    /// Replaces parts of the world, in tests of users.
    pub rehearsal: Option<Rehearsal>,
    /// Shows other threads how the worker stands, where a port is served.
    pub board: Option<Arc<Board>>,
}

impl Assembly {
    /// Tables in memory and a mark that is gone with the process, until [`Assembly::with_store`] and
    /// [`Assembly::with_guard`] say otherwise. User code may be loaded before that.
    pub fn new(plan: &Rc<Plan>, config: Config, clock: Rc<dyn Clock>, admin: Box<dyn Admin>) -> Assembly {
        Assembly {
            plan: plan.clone(),
            config,
            clock,
            directory: Directory::new(admin),
            // Replaced before user code is loaded, or never: code and worker must hold the same tables.
            tables: Rc::new(RefCell::new(Tables::over(Box::<MemoryStore>::default()))),
            counters: SharedCounters::default(),
            guard: Guard::none(),
            rehearsal: None,
            board: None,
        }
    }

    /// Keeps tables in this store. Call it before the code is loaded: code holds the tables that are here at
    /// that moment.
    pub fn with_store(self, store: Box<dyn Store>) -> Assembly {
        self.tables.borrow_mut().keep_in(store);
        self
    }

    /// Has a guard look at the events that run that is made of the one before: the mark moves.
    pub fn with_guard<E>(mut self, keep: impl FnOnce(Guard) -> Result<Guard, E>) -> Result<Assembly, E> {
        self.guard = keep(std::mem::replace(&mut self.guard, Guard::none()))?;
        Ok(self)
    }

    /// Rehearses: user code runs as a test of the user's wants it.
    pub fn with_rehearsal(self, rehearsal: Rehearsal) -> Assembly {
        Assembly { rehearsal: Some(rehearsal), ..self }
    }

    /// Has the worker publish snapshots, once a second.
    pub fn with_board(self, board: Option<Arc<Board>>) -> Assembly {
        board.iter().for_each(|board| board.watch(self.guard.watch.clone()));
        Assembly { board, ..self }
    }

    /// Loads the plan's Python: it writes the worker's tables and topics. The settings are those of
    /// `context["app"].conf`.
    ///
    /// # Errors
    ///
    /// A block cannot be loaded, or its `init` raises. The group has not been disturbed then.
    pub fn python(
        &self,
        interpreter: &Interpreter,
        settings: BTreeMap<String, String>,
    ) -> Result<PythonCode, LoadError> {
        interpreter.load(Loading {
            plan: &self.plan,
            tables: self.tables.clone(),
            directory: self.directory.clone(),
            clock: self.clock.clone(),
            settings,
            timeout: self.config.timeout,
            watch: self.guard.watch.clone(),
            rehearsal: self.rehearsal.clone(),
        })
    }

    /// Starts the worker: it joins its group.
    ///
    /// # Errors
    ///
    /// As of [`Worker::start`].
    pub fn start<C: Code>(self, code: &Rc<RefCell<C>>, ends: Ends) -> Result<Worker<C>, Stopped> {
        let Assembly { plan, config, clock, directory, tables, counters, guard, rehearsal: _, board } = self;
        let Ends { consumer, producer, changelog } = ends;
        let code = code.clone();
        Worker::start(Parts {
            plan,
            config,
            code,
            consumer,
            producer,
            directory,
            tables,
            changelog,
            clock,
            counters,
            guard,
            board,
        })
    }
}
