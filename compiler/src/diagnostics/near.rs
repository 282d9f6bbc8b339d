//! "Did you mean": the name that is closest to what was written.
//!
//! ```text
//! nearest("enrch", ["enrich", "filter"])   ⇒   Some("enrich")      one letter is missing
//! nearest("map", ["sink"])                 ⇒   None
//! ```

/// The closest of `names`, if it is close enough to be meant.
///
/// Close enough is 1 edit for up to 2 characters, 2 for up to 5, and 3 beyond.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = match name.chars().count() {
        0..=2 => 1,
        3..=5 => 2,
        _ => 3,
    };
    nearest_within(limit, name, names)
}

/// The closest of `names` within so many edits.
///
/// Of several at the same distance the first by name, so that the hint does not depend on the order given.
pub fn nearest_within<'a>(limit: usize, name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let by_distance = names.into_iter().map(|other| (distance(name, other), other));
    by_distance.filter(|(distance, _)| *distance <= limit).min().map(|(_, other)| other)
}

/// Edits (insert, delete, replace, swap of neighbours) from one name to another, case aside.
///
/// The optimal string alignment distance: a swapped pair counts once and is not edited again.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<_>, Vec<_>) = (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    // rows[i][j]: edits from the first i characters of a to the first j of b. All rows are kept, names are short.
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_close_names_are_meant() {
        let names = ["validate", "enrich", "map"];
        assert_eq!(nearest("valdiate", names), Some("validate"));
        assert_eq!(nearest("Enrich", names), Some("enrich"));
        assert_eq!(nearest("send", names), None);
    }
}
