//! Tables of a worker: restored before their partitions start, and again when their store fails.
//!
//! | the store | what is done | what runs again |
//! |---|---|---|
//! | takes no writes | commit, then restore in memory | nothing that was committed |
//! | cannot be read | abort, then wipe and restore | everything since the last commit |
//! | is the only copy | the worker stops | - |

use tracing::{error, info};

use super::{Stopped, Worker};
use crate::code::Code;
use crate::config::Guarantee;
use crate::tables::restore::{RestoreError, Restoring};

impl<C: Code> Worker<C> {
    /// Reads a bounded part of the changelogs that are needed. Called each turn, before partitions start.
    pub(super) fn restore_tables(&mut self) -> Result<(), Stopped> {
        if self.delivery.is_outcome_unknown() {
            // A commit with an unknown outcome may hold older writes to a partition that came back.
            return Ok(());
        }
        let turned = {
            let mut tables = self.shared.tables.borrow_mut();
            match self.restore.turn(&mut tables, self.shared.clock.as_ref()) {
                Err(RestoreError::Broker(error)) => return Err(error.into()),
                Err(RestoreError::Store(why)) => {
                    tables.fail(why);
                    Default::default()
                }
                Ok(turned) => turned,
            }
        };
        self.sleep.has_restored = turned.has_read;
        // A member that died with a transaction open over the changelog had the same partitions of the inputs
        // in it.
        if turned.is_blocked {
            info!("tables wait to be restored: aborting open transactions of members that are gone");
            self.consumer.unblock(self.arrivals.names());
        }
        Ok(())
    }

    /// Gives up a store that does not take committed writes: the changelogs have them. Partitions that use
    /// tables start again once these are restored. Called after the commit of a turn.
    ///
    /// # Errors
    ///
    /// [`Stopped::Store`] if there is no changelog to restore from.
    pub(super) fn mend_tables(&mut self) -> Result<(), Stopped> {
        let Some(why) = self.shared.tables.borrow().unwritten() else { return Ok(()) };
        if !self.restore.has_changelogs() {
            return Err(why.into());
        }
        error!(error = %why, "the store of tables cannot be written");
        let committed = self.flush()?;
        self.rebuild_tables(committed)
    }

    /// Wipes a store that cannot be read; the changelogs fill it again. Events since the last commit may have
    /// read wrong state, so none of their effects count. Returns true if the store was wiped.
    ///
    /// # Errors
    ///
    /// [`Stopped::Store`] if there is no changelog. The store is wiped then, since the next start must not
    /// trust it.
    pub(super) fn mend_unread(&mut self) -> Result<bool, Stopped> {
        let Some(why) = self.shared.tables.borrow().unread() else { return Ok(false) };
        if !self.restore.has_changelogs() {
            self.shared.tables.borrow_mut().discard();
            return Err(why.into());
        }
        error!(error = %why, "the store of tables cannot be read: everything since the last commit runs again");
        self.rebuild_tables(false)?;
        Ok(true)
    }

    /// Stops partitions that use tables until the tables are restored.
    ///
    /// `committed`: nothing complete is left to commit, so nothing needs to run again.
    fn rebuild_tables(&mut self, committed: bool) -> Result<(), Stopped> {
        let is_unread = self.shared.tables.borrow().unread().is_some();
        let is_clear = committed || self.delivery.abandon(self.shared.clock.as_ref());
        let names: Vec<_> =
            self.assignment.names().filter(|name| self.restore.concerns(&name.topic)).cloned().collect();
        // Paused before they are given up: the consumer would go on fetching events that no reader takes.
        self.consumer.pause(&names)?;
        self.give_up(&names)?;
        // Even at-least-once, staged effects must go if they were computed from a store that could not be
        // read.
        let goes_back = is_unread || self.config.guarantee == Guarantee::ExactlyOnce;
        if !committed && is_clear && goes_back {
            self.start_over()?;
        }
        self.shared.tables.borrow_mut().rebuild();
        self.restore.begin_again()?;
        // They take the way of partitions that were just assigned.
        self.arrivals.put_back(names);
        self.arrivals.names().iter().for_each(|name| self.restore.want(name));
        Ok(())
    }

    /// Tables that are being restored, and how far they are.
    pub fn restoring(&self) -> Vec<Restoring> {
        self.restore.progress()
    }
}
