//! Tables of a worker: brought back before their partitions start, and again when their store fails.

use tracing::{error, info};

use super::{Stopped, Worker};
use crate::code::Code;
use crate::config::Guarantee;
use crate::restore::{RestoreError, Restoring};

impl<C: Code> Worker<C> {
    /// Reads a bounded part of the changelogs that are needed.
    pub(super) fn restore_tables(&mut self) -> Result<(), Stopped> {
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
        self.has_restored = turned.has_read;
        if turned.is_blocked {
            info!("tables wait to be restored: open transactions of members that are gone are ended");
            self.consumer.unblock(&self.coming);
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
        error!("the store of tables cannot be written: {why}");
        let committed = self.flush()?;
        if !committed {
            self.delivery.abandon(self.shared.clock.as_ref());
        }
        let names: Vec<_> =
            self.assignment.names().filter(|name| self.restore.concerns(&name.topic)).cloned().collect();
        self.consumer.pause(&names)?;
        self.give_up(&names)?;
        if !committed && self.config.guarantee == Guarantee::ExactlyOnce {
            self.start_over()?;
        }
        self.shared.tables.borrow_mut().rebuild();
        self.restore.begin_again()?;
        self.coming.extend(names);
        self.coming.iter().for_each(|name| self.restore.want(name));
        Ok(())
    }

    /// Tables that are being restored, and how far they are.
    pub fn restoring(&self) -> Vec<Restoring> {
        self.restore.progress()
    }
}
