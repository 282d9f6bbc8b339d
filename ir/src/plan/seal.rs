//! A plan as JSON: sealed with its revision when it is written, judged when it is read.
//!
//! The revision guards against edits by hand and half-written files, not against an attacker, who could compute it too.

use sha2::{Digest, Sha256};

use super::{PLAN_VERSION, Plan};

/// A text is no plan that can be run.
///
/// The remedy is always to compile the specs again.
#[derive(Debug)]
pub enum PlanError {
    /// Not a plan at all.
    Malformed(serde_json::Error),
    /// A plan of another version.
    Version(u64),
    /// Changed after it was compiled.
    Revision,
}

impl std::fmt::Display for PlanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PlanError::Malformed(error) => write!(f, "this is no plan: {error}"),
            PlanError::Version(version) => {
                write!(
                    f,
                    "the plan has version {version}, this program runs version {PLAN_VERSION}: compile the specs again"
                )
            }
            PlanError::Revision => f.write_str("the plan was changed after it was compiled: compile the specs again"),
        }
    }
}

impl std::error::Error for PlanError {}

impl Plan {
    /// Sets the revision: SHA-256 of the plan as compact JSON with an empty revision.
    ///
    /// The last thing that happens to a plan: a change after it makes [`Plan::from_json`] refuse it.
    pub fn seal(mut self) -> Plan {
        self.revision = self.computed_revision();
        self
    }

    /// The revision that the plan should have, as 64 hex digits.
    fn computed_revision(&self) -> String {
        let plain = Plan { revision: String::new(), ..self.clone() };
        // Structs are written in the order of their fields and maps by name, so the bytes are the same in every run.
        let json = serde_json::to_vec(&plain).expect("a plan is always JSON");
        Sha256::digest(json).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The plan as indented JSON.
    ///
    /// With a line break at its end. Indentation does not matter to the revision, which is of the compact form.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).expect("a plan is always JSON");
        json.push('\n');
        json
    }

    /// Reads a plan; one of another version, or one that was changed, is refused.
    ///
    /// # Errors
    /// The version is looked at first, so that a plan of another version is called that and not malformed.
    pub fn from_json(text: &str) -> Result<Plan, PlanError> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(PlanError::Malformed)?;
        let version = value.get("planVersion").and_then(serde_json::Value::as_u64);
        match version {
            Some(version) if version != u64::from(PLAN_VERSION) => {
                return Err(PlanError::Version(version));
            }
            _ => {}
        }
        let plan: Plan = serde_json::from_value(value).map_err(PlanError::Malformed)?;
        // Parsed and written again: formatters may have touched the text, but not what it says.
        if plan.computed_revision() == plan.revision { Ok(plan) } else { Err(PlanError::Revision) }
    }
}
