//! The table at the end of a run: what passed where, and how fast.
//!
//! ```text
//! agent   operation      in    out  filtered  failed  retried  awaited  records    time
//! orders  price       1,000    990        10       0        0        0        0   12 ms
//! ```

use std::fmt::Write;
use std::time::Duration;

use crate::event::tally::Passage;
use crate::status::counters::{Counters, StepCounters};

/// The columns of the table. A batch is one value; `failed` and the row of decoding count events.
const TITLES: [&str; 10] =
    ["agent", "operation", "in", "out", "filtered", "failed", "retried", "awaited", "records", "time"];

/// The summary as text.
///
/// `elapsed` is the run's whole time, for the rate in the last line. Ends with a line end.
pub fn summary(counters: &Counters, elapsed: Duration) -> String {
    let rows: Vec<[String; 10]> =
        std::iter::once(TITLES.map(str::to_owned)).chain(counters.steps.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..TITLES.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[column] - cell.chars().count());
            // Names to the left, numbers to the right.
            let cell = if column < 2 { format!("{cell}{pad}") } else { format!("{pad}{cell}") };
            write!(line, "{}{cell}", if column == 0 { "" } else { "  " }).expect("writing to a string never fails");
        }
        writeln!(text, "{}", line.trim_end()).expect("writing to a string never fails");
    }
    text.push_str(&totals(counters, elapsed));
    text
}

/// The cells of one place, in the order of the titles.
fn row(step: &StepCounters) -> [String; 10] {
    let StepCounters { agent, operation, passed, retried, awaited, time: spent } = step;
    let Passage { taken, given, filtered, failed, records, .. } = *passed;
    let [taken, given, filtered, failed] = [taken, given, filtered, failed].map(thousands);
    let [retried, awaited, records] = [*retried, *awaited, records].map(thousands);
    let (agent, operation) = (agent.clone(), operation.clone());
    [agent, operation, taken, given, filtered, failed, retried, awaited, records, time(*spent)]
}

/// The last line. Events that have halted the worker count as having come in.
fn totals(counters: &Counters, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    // A run under a clock that does not move has no rate.
    let rate = if seconds > 0.0 { (counters.ended() as f64 / seconds) as u64 } else { 0 };
    let letters = match counters.dead_letters {
        0 => String::new(),
        letters => format!(" ({} dead letters)", thousands(letters)),
    };
    format!(
        "{} events in, {} records out, {} failed{letters}, {} retried, {} awaited, {seconds:.2} s, {} events/s\n",
        thousands(counters.ended()),
        thousands(counters.records),
        thousands(counters.failures),
        thousands(counters.retried()),
        thousands(counters.awaited()),
        thousands(rate),
    )
}

/// A number with its thousands apart.
///
/// ```text
/// 999 → 999   1000 → 1,000   1234567 → 1,234,567
/// ```
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// In the unit that fits, and a dash where no code has run.
fn time(time: Duration) -> String {
    match time.as_micros() {
        0 => "-".to_owned(),
        micros @ 1..1000 => format!("{micros} µs"),
        micros @ 1000..1_000_000 => format!("{} ms", micros / 1000),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
