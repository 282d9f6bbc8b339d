//! A plan as JSON: sealed with its revision when it is written, judged when it is read.

use sha2::{Digest, Sha256};

use super::{PLAN_VERSION, Plan};

/// A text is no plan that can be run.
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
    pub fn seal(mut self) -> Plan {
        self.revision = self.computed_revision();
        self
    }

    fn computed_revision(&self) -> String {
        let plain = Plan { revision: String::new(), ..self.clone() };
        let json = serde_json::to_vec(&plain).expect("a plan is always JSON");
        Sha256::digest(json).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The plan as indented JSON.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).expect("a plan is always JSON");
        json.push('\n');
        json
    }

    /// Reads a plan; one of another version, or one that was changed, is refused.
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
        if plan.computed_revision() == plan.revision { Ok(plan) } else { Err(PlanError::Revision) }
    }
}
