//! One epoch: what was given runs, and the frontier passes it.
//!
//! An epoch is a timestamp of the timely dataflow. [`EpochOrder`] goes with it: how long and how many
//! bytes; `Shared::units` counts the units down. A stage that has used up its part leaves the rest in its queue; so
//! an epoch always ends, and the frontier passes it.
//!
//! ```text
//! budget 20 ms, two readers busy → 10 ms each
//! ```

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::Worker;
use crate::code::Code;
use crate::dataflow::window::Window;
use crate::event::effects::Epoch;
use crate::stage::shared::EpochOrder;

impl<C: Code> Worker<C> {
    /// True if a reader can go on although no event came. That is: queued units, a back-off or a window whose
    /// time has come, an await that has ended.
    pub(super) fn wants_epoch(&self) -> bool {
        let now = self.shared.clock.now();
        self.dataflow.hand_over.get()
            || self.dataflow.readers.iter().any(|reader| {
                let due =
                    |window: &Rc<RefCell<Window<C>>>| window.borrow().next_deadline().is_some_and(|due| due <= now);
                reader.stage.borrow().wants_turn() || reader.window.as_ref().is_some_and(due)
            })
    }

    /// Runs the events just given, and those that wait and may go on, until the frontier has passed the
    /// epoch: then all of it has run, and what is complete can be committed. With `begins`, calls may begin;
    /// without, they only end. Returns when every stage has come to rest. Effects of complete events lie in
    /// `staged` under this epoch.
    pub(super) fn run_epoch(&mut self, begins: bool) {
        let began = self.shared.clock.now();
        let bounds = &self.config.bounds;
        let order = EpochOrder {
            epoch: self.dataflow.next_epoch(),
            time: bounds.epoch_budget / self.dataflow.count_busy().max(1),
            // More would not fit into one transaction, and an epoch is committed whole.
            bytes_max: self.delivery.epoch_bytes_max(),
            begins,
        };
        self.shared.units.set(self.units_of_epoch());
        self.shared.order.set(order);
        self.dataflow.run();
        self.note_time(began);
        // Events that were given belong to the epoch before the one that `next_epoch` opened, and the
        // frontier has passed it.
        self.note_progress(order.epoch - 1);
    }

    /// Records how far the epoch has brought each reader. The ledgers and the guard learn of it here, before
    /// a commit can take the effects.
    fn note_progress(&mut self, passed: Epoch) {
        let staged = self.dataflow.staged.borrow();
        let Some(effects) = staged.get(&passed) else { return };
        for progress in effects.iter().flat_map(|effects| &effects.progress) {
            self.assignment.complete(progress);
            if self.guard.has_suspects() {
                let slots = self.shared.slots.borrow();
                let (name, reader) = (slots.name(progress.partition), &self.dataflow.readers[progress.reader.index()]);
                self.guard.completed(&reader.name, (&name.topic, name.partition), progress.done);
            }
        }
    }

    /// The number of units that may begin in an epoch.
    ///
    /// `usize::MAX` is no bound, 0 is a pause.
    pub(super) fn units_of_epoch(&self) -> usize {
        let is_quiet = self.delivery.is_idle() && self.dataflow.staged.borrow().is_empty();
        self.pace.units(self.shared.clock.now(), is_quiet, self.delivery.is_sending())
    }

    /// Notes that user code has run since `began`, but for the time in which the broker was asked about topics:
    /// where that counted, one slow answer would slow the worker down for long.
    ///
    /// `began` is by the worker's clock.
    pub(super) fn note_time(&mut self, began: Duration) {
        let waited = self.shared.directory.take_waited();
        self.pace.note(began + waited, self.shared.clock.now());
    }

    /// True if some reader has units that may run now.
    pub(super) fn is_busy(&self) -> bool {
        self.dataflow.readers.iter().any(|reader| reader.stage.borrow().is_busy())
    }
}
