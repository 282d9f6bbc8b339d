//! The place where the tables of a run are kept.

use std::rc::Rc;

use kaspr_ir::plan::Plan;

use super::stop::Stop;
use crate::clock::Clock;
use crate::config::settings::Settings;
use crate::tables::store::{DurableStore, MemoryStore, Store};

/// On disk where there is a state folder, else in memory. A plan without tables needs no folder. `worker` is
/// the number in the folder's name, so that workers of one machine can share a state folder.
///
/// # Errors
///
/// The folder cannot be used, or another process has it. Another worker need not meet that.
pub fn store(plan: &Plan, settings: &Settings, worker: u32, clock: &Rc<dyn Clock>) -> Result<Box<dyn Store>, Stop> {
    let Some(folder) = settings.state_dir().filter(|_| !plan.tables.is_empty()) else {
        return Ok(Box::<MemoryStore>::default());
    };
    let names: Vec<&str> = plan.tables.iter().map(|table| table.name.as_str()).collect();
    let opened = DurableStore::open(&folder, worker, &names, clock.clone());
    opened.map(|store| Box::new(store) as Box<dyn Store>).map_err(Stop::own_fault)
}
