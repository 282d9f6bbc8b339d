//! Ends the process at a chosen step of a commit, to test what a crash leaves behind.
//!
//! Set by tests through `KASPR_FAILPOINT`. The steps are those of [`crate::delivery`]:
//!
//! ```text
//! begin ─ sent ─ delivered ─ offsets ─ committed ─ applied
//!         │      │                     │           └ positions and tables have it
//!         │      └ acknowledged        └ durable from here
//!         └ the client has all records
//! ```

/// The steps of a commit at which a process can be made to end, in their order.
pub const FAILPOINTS: [&str; 6] = ["begin", "sent", "delivered", "offsets", "committed", "applied"];

/// The place at which a process does not end but its worker's thread stands still: between two turns.
pub const HOLD: &str = "hold";

/// A step, and how often it is passed before the process ends there.
///
/// The default is no step: it is never passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failpoint {
    name: String,
    left: u32,
}

impl Failpoint {
    /// Reads `name` or `name:n`: the n-th pass, counted from 1.
    pub fn parse(text: &str) -> Result<Failpoint, String> {
        let (name, count) = text.split_once(':').unwrap_or((text, "1"));
        let left = count.parse().ok().filter(|&left| left > 0);
        let left = left.ok_or_else(|| format!("\"{count}\" is no number from 1 on"))?;
        if !FAILPOINTS.contains(&name) && name != HOLD {
            return Err(format!("\"{name}\" is none of {}, {HOLD}", FAILPOINTS.join(", ")));
        }
        Ok(Failpoint { name: name.to_owned(), left })
    }

    /// True if the worker's thread is to stand still.
    pub fn holds(&self) -> bool {
        self.name == HOLD
    }

    /// Passes a step: here the process may end as a kill would end it, or the thread stand still for ever.
    pub fn pass(&mut self, name: &str) {
        // Also the way of every process that is no test: one comparison a step.
        if self.left == 0 || self.name != name {
            return;
        }
        self.left -= 1;
        while self.left == 0 && self.holds() {
            std::thread::park();
        }
        if self.left == 0 {
            // No destructor and no exit handler runs: clients send nothing more, as after SIGKILL.
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failpoint_has_a_name_and_a_count() {
        assert_eq!(Failpoint::parse("sent:3"), Ok(Failpoint { name: "sent".to_owned(), left: 3 }));
        assert_eq!(Failpoint::parse("begin").map(|point| point.left), Ok(1));
        assert!(Failpoint::parse("nowhere").is_err() && Failpoint::parse("sent:x").is_err());
        assert!(Failpoint::parse("sent:0").is_err(), "it would never be passed");
    }

    #[test]
    fn other_steps_and_earlier_passes_go_by() {
        let mut point = Failpoint::parse("sent:2").expect("it is well-formed");
        point.pass("begin");
        point.pass("sent");
        assert_eq!(point.left, 1);
        Failpoint::default().pass("sent");
    }
}
