//! Numbers of specs: what each may be, and what is said of one that it may not be.
//!
//! YAML has many spellings of a number; a spec takes decimal ones, with `_` between digits if its author likes.
//! Numbers are read from their text, so that a large one is not rounded by a float first:
//!
//! ```text
//! 8, 1_000        taken
//! "8"             must be a whole number, found the string "8"      hint: write it without quotes: 8
//! 1e3             must be a whole number, found 1e3                  hint: write all of its digits: 1000
//! 99999999999     must be from 1 to 2147483647, found 99999999999
//! ```

use kaspr_ir::plan::{Backoff, Creation, OnError, Overlap};

use crate::diagnostics::{Code, Diagnostic};
use crate::yaml::{Kind, Node, Style};

/// The least and the greatest value of a whole number.
///
/// Both are allowed. The schema takes them from here too, so that editors and `kasprc check` agree.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The least.
    pub min: i64,
    /// The greatest.
    pub max: i64,
    /// The fault of a number outside.
    ///
    /// Of a number within its kind but out of its range; what is no whole number at all is always K0003.
    code: Code,
}

impl Bounds {
    const fn new((min, max): (i64, i64), code: Code) -> Bounds {
        Bounds { min, max, code }
    }
}

/// Partitions of a topic.
///
/// The bounds of `Creation` are Kafka's own.
pub const PARTITIONS: Bounds = Bounds::new(Creation::PARTITIONS, Code::K0003);
/// Replicas of a partition.
pub const REPLICAS: Bounds = Bounds::new(Creation::REPLICAS, Code::K0003);
/// Seconds that a topic keeps its records.
pub const RETENTION: Bounds = Bounds::new(Creation::RETENTION, Code::K0003);
/// Events of a batch.
///
/// Out of range it is K0104: `take` has a code of its own.
pub const TAKE: Bounds = Bounds::new((1, u32::MAX as i64), Code::K0104);
/// All tries of an event together.
///
/// The first one counts: `attempts: 1` never tries again.
pub const ATTEMPTS: Bounds = Bounds::new(OnError::TRIES, Code::K0003);
/// Units of each partition that may be in flight at once.
pub const CONCURRENCY: Bounds = Bounds::new((1, Overlap::MAX as i64), Code::K0003);
/// Factor by which each wait grows: a back-off does not shrink.
pub const FACTOR: (f64, f64) = Backoff::FACTOR;
/// The share of a wait that is left to chance.
pub const JITTER: (f64, f64) = Backoff::JITTER;

/// A plain scalar's text as Rust reads numbers.
///
/// `None` for what is in quotes or no scalar. `_` is dropped, as YAML 1.1 allows it between digits.
fn digits(node: &Node) -> Option<String> {
    match &node.kind {
        Kind::Scalar(scalar) if scalar.style == Style::Plain => Some(scalar.text.replace('_', "")),
        _ => None,
    }
}

/// Gives what was found, as it is written.
///
/// ```text
/// 1.5  ⇒  1.5            "a few"  ⇒  the string "a few"            [1]  ⇒  a list
/// ```
fn found(node: &Node) -> String {
    match node.text() {
        Some(text) if node.what() == "a number" => text.to_owned(),
        // A longer text would bury the message.
        Some(text) if node.what() == "a string" && text.len() < 40 && !text.contains('\n') => {
            format!("the string \"{text}\"")
        }
        _ => node.what().to_owned(),
    }
}

/// The fault of a node that is no number at all, or not such a one.
///
/// A number in quotes gets the hint to write it without them.
fn fault(code: Code, field: &str, needed: &str, node: &Node) -> Box<Diagnostic> {
    let at = if matches!(node.kind, Kind::Scalar(_)) { node.at.clone() } else { node.at.head() };
    let fault = Diagnostic::new(code, format!("\"{field}\" must be {needed}, found {}", found(node)), at);
    Box::new(match node.text() {
        Some(text) if digits(node).is_none() && text.trim().parse::<f64>().is_ok() => {
            fault.hint(format!("write it without quotes: {}", text.trim()))
        }
        _ => fault,
    })
}

/// A whole number within bounds; `field` is its path, for messages.
///
/// # Errors
/// K0003 for what is no whole number, the code of the bounds for one that is outside.
pub fn whole(field: &str, node: &Node, bounds: Bounds) -> Result<i64, Box<Diagnostic>> {
    let Some(digits) = digits(node) else { return Err(fault(Code::K0003, field, "a whole number", node)) };
    let Bounds { min, max, code } = bounds;
    // The second parse is for digits that i64 cannot hold, and for fractions: both get a message of their own.
    let range = format!("from {min} to {max}");
    match (digits.parse::<i64>(), digits.parse::<f64>()) {
        (Ok(number), _) if (min..=max).contains(&number) => Ok(number),
        (Ok(_), _) => Err(fault(code, field, &range, node)),
        // `1e99` is a number, and out of range before it is anything else.
        (_, Ok(number)) if number < min as f64 || number > max as f64 => Err(fault(code, field, &range, node)),
        (_, Ok(number)) if number.fract() == 0.0 => {
            let hint = format!("write all of its digits: {number}");
            Err(Box::new(fault(Code::K0003, field, "a whole number", node).hint(hint)))
        }
        _ => Err(fault(Code::K0003, field, "a whole number", node)),
    }
}

/// A number between two others; `field` is its path, for messages.
///
/// # Errors
/// K0003 for what is no number or outside. `NaN` lies between no two numbers, so it is outside.
pub fn between(field: &str, node: &Node, (min, max): (f64, f64)) -> Result<f64, Box<Diagnostic>> {
    match digits(node).and_then(|digits| digits.parse::<f64>().ok()) {
        Some(number) if (min..=max).contains(&number) => Ok(number),
        Some(_) => Err(fault(Code::K0003, field, &format!("from {min} to {max}"), node)),
        None => Err(fault(Code::K0003, field, "a number", node)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::Sink;

    fn said(text: &str, bounds: Bounds) -> Result<i64, String> {
        let node = crate::yaml::parse(0, text, &mut Sink::default()).remove(0);
        whole("n", &node, bounds).map_err(|fault| fault.message)
    }

    #[test]
    fn a_number_says_its_range_or_its_type() {
        assert_eq!(said("3", PARTITIONS), Ok(3));
        assert_eq!(said("1_000", PARTITIONS), Ok(1000));
        for (text, words) in [
            ("0", "from 1 to 2147483647, found 0"),
            ("-1", "from 1 to 2147483647, found -1"),
            ("4294967296", "from 1 to 2147483647, found 4294967296"),
            ("1e30", "from 1 to 2147483647, found 1e30"),
            ("2.5", "a whole number, found 2.5"),
            ("1e3", "a whole number, found 1e3"),
            ("\"3\"", "a whole number, found the string \"3\""),
            ("three", "a whole number, found the string \"three\""),
            ("yes", "a whole number, found a boolean"),
            ("[3]", "a whole number, found a list"),
            (".nan", "a whole number, found the string \".nan\""),
        ] {
            assert_eq!(said(text, PARTITIONS), Err(format!("\"n\" must be {words}")), "{text}");
        }
    }

    #[test]
    fn shares_are_between_their_ends() {
        let said = |text: &str| {
            let node = crate::yaml::parse(0, text, &mut Sink::default()).remove(0);
            between("n", &node, JITTER).map_err(|fault| fault.message)
        };
        assert_eq!(said("0.5"), Ok(0.5));
        for text in ["nan", "inf", "-0.1", "1.1", "'0.5'"] {
            assert!(said(text).is_err(), "{text}");
        }
    }
}
