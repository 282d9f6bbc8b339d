//! Tables of a worker: brought back before their partitions start, and again when their store fails.

use tracing::{error, info};

use super::{Stopped, Worker};
use crate::code::Code;
use crate::config::Guarantee;
use crate::tables::restore::{RestoreError, Restoring};

impl<C: Code> Worker<C> {
    /// Reads a bounded part of the changelogs that are needed.
    pub(super) fn restore_tables(&mut self) -> Result<(), Stopped> {
        if self.delivery.is_in_doubt() {
            // What is in doubt may hold older writes to a partition that came back.
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
        if turned.is_blocked {
            info!("tables wait to be restored: aborting open transactions of members that are gone");
            self.consumer.unblock(self.arrivals.names());
        }
        Ok(())
    }

    /// A store that does not take what was committed is given up: the changelogs have it. Partitions
    /// that use tables begin again with what they give back.
    pub(super) fn mend_tables(&mut self) -> Result<(), Stopped> {
        let Some(why) = self.shared.tables.borrow().unwritten() else { return Ok(()) };
        if !self.restore.has_changelogs() {
            return Err(why.into());
        }
        error!(error = %why, "the store of tables cannot be written");
        let committed = self.flush()?;
        self.rebuild_tables(committed)
    }

    /// A store that cannot be read is wiped, and the changelogs fill it again. Events may have seen what is
    /// not so since the last commit: nothing of it counts. True: that was so.
    pub(super) fn mend_unread(&mut self) -> Result<bool, Stopped> {
        let Some(why) = self.shared.tables.borrow().unread() else { return Ok(false) };
        if !self.restore.has_changelogs() {
            self.shared.tables.borrow_mut().condemn();
            return Err(why.into());
        }
        error!(error = %why, "the store of tables cannot be read: everything since the last commit runs again");
        self.rebuild_tables(false)?;
        Ok(true)
    }

    /// Partitions that use tables stand still until these are restored.
    fn rebuild_tables(&mut self, committed: bool) -> Result<(), Stopped> {
        let is_unread = self.shared.tables.borrow().unread().is_some();
        let is_clear = committed || self.delivery.abandon(self.shared.clock.as_ref());
        let names: Vec<_> =
            self.assignment.names().filter(|name| self.restore.concerns(&name.topic)).cloned().collect();
        self.consumer.pause(&names)?;
        self.give_up(&names)?;
        // At-least-once, too, what is staged must go when it was made from what is not so.
        let goes_back = is_unread || self.config.guarantee == Guarantee::ExactlyOnce;
        if !committed && is_clear && goes_back {
            self.start_over()?;
        }
        self.shared.tables.borrow_mut().rebuild();
        self.restore.begin_again()?;
        self.arrivals.put_back(names);
        self.arrivals.names().iter().for_each(|name| self.restore.want(name));
        Ok(())
    }

    /// Tables that are being restored, and how far they are.
    pub fn restoring(&self) -> Vec<Restoring> {
        self.restore.progress()
    }
}
