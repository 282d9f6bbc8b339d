//! Requests that came, by the path of their page and by status.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rows::{Writer, labels};
use crate::status::figures::{Histogram, OLD_USUAL, SECONDS};

/// The path of requests that have no page: there is no end to them.
pub(in crate::web) const NO_PAGE: &str = "other";

/// Counts of requests.
#[derive(Clone, Debug)]
pub(in crate::web) struct Requests {
    counts: BTreeMap<(String, u16), u64>,
    times: BTreeMap<String, Histogram>,
    /// In milliseconds, of all pages.
    old_ms: Histogram,
}

impl Default for Requests {
    fn default() -> Requests {
        Requests { counts: BTreeMap::new(), times: BTreeMap::new(), old_ms: Histogram::new(OLD_USUAL) }
    }
}

impl Requests {
    /// Counts a request.
    pub(in crate::web) fn count(&mut self, path: &str, code: u16, time: Duration) {
        *self.counts.entry((path.to_owned(), code)).or_insert(0) += 1;
        let times = self.times.entry(path.to_owned()).or_insert_with(|| Histogram::new(SECONDS));
        times.observe(time.as_secs_f64(), 1);
        self.old_ms.observe(time.as_secs_f64() * 1000.0, 1);
    }

    /// Requests by status.
    pub(super) fn by_code(&self) -> BTreeMap<u16, u64> {
        let mut codes = BTreeMap::new();
        for ((_, code), count) in &self.counts {
            *codes.entry(*code).or_insert(0) += count;
        }
        codes
    }

    /// Durations of all requests, in milliseconds.
    pub(super) fn old_ms(&self) -> &Histogram {
        &self.old_ms
    }
}

/// Writes their families.
pub(super) fn write(requests: &Requests, writer: &mut Writer) {
    let counts = requests.counts.iter();
    let counts =
        counts.map(|((path, code), count)| (labels([("path", path), ("code", &code.to_string())]), *count as f64));
    writer.counters("kaspr_http_requests", "Requests over HTTP", counts);
    let times = requests.times.iter().map(|(path, times)| (labels([("path", path)]), times));
    writer.histograms("kaspr_http_request_duration_seconds", "Time from a request to its answer", times);
}
