//! Durations as users write them, in specs, settings, flags and tests alike.

/// Reads a number, which may be a fraction, and one of ms, s, m, h, d. Gives ms, rounded; `None` for anything else.
///
/// A unit is required: a bare number would be seconds to one reader and milliseconds to another. Space is allowed
/// around the text and before the unit.
///
/// ```
/// use kaspr_ir::duration::parse;
///
/// assert_eq!(parse("100ms"), Some(100));
/// assert_eq!(parse("1.5 m"), Some(90_000));
/// assert_eq!(parse("0s"), Some(0));
/// assert_eq!(parse("5"), None);
/// assert_eq!(parse("-5s"), None);
/// ```
pub fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(split);
    let size = match unit.trim() {
        "ms" => 1.0,
        "s" => 1000.0,
        "m" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => return None,
    };
    let ms = number.parse::<f64>().ok()? * size;
    // Below 1e15 ms, 31,000 years, every whole number is exact as a float.
    (ms.is_finite() && ms < 1e15).then_some(ms.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        let cases = [
            ("5s", Some(5000)),
            ("100ms", Some(100)),
            ("1.5m", Some(90_000)),
            ("2h", Some(7_200_000)),
            ("1 d", Some(86_400_000)),
        ];
        for (text, ms) in cases {
            assert_eq!(parse(text), ms, "{text}");
        }
        for text in ["5", "s", "", "5 x", "-5s", "1e3s", "5sec"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
