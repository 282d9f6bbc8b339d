//! The user's own tests: `tests.yaml` beside a spec, without Kafka and in simulated time.

mod compare;
mod faults;
mod fields;
mod known;
mod play;
mod stand_ins;
mod suite;
mod update;

pub use compare::{Difference, difference};
pub use faults::{Nearest, SuiteFault, faults};
pub use known::Known;
pub use play::{Came, play};
pub use suite::{Case, Expect, Suite};
pub use update::{Put, puts};
