//! Families and their series, as they are gathered and written.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::status::figures::Histogram;

/// The labels of a series.
pub(super) type Labels = Vec<(&'static str, String)>;

/// Makes labels.
pub(super) fn labels<const N: usize>(labels: [(&'static str, &str); N]) -> Labels {
    labels.into_iter().map(|(name, value)| (name, value.to_owned())).collect()
}

/// Families as they are gathered, worker after worker, and written at last: all series of a family stand together.
#[derive(Debug, Default)]
pub(super) struct Writer {
    families: Vec<Family>,
    /// The place of each family, by its name.
    places: BTreeMap<String, usize>,
    /// The worker that the next series are of.
    worker: String,
}

#[derive(Debug)]
struct Family {
    name: String,
    help: String,
    metric_type: MetricType,
    rows: Vec<(Labels, Value)>,
}

#[derive(Debug)]
enum Value {
    Number(f64),
    Histogram(Histogram),
}

impl Writer {
    /// From here on series are of this worker.
    pub(super) fn of_worker(&mut self, name: &str) {
        name.clone_into(&mut self.worker);
    }

    /// Adds a family of gauges; nothing if it has no series.
    pub(super) fn gauges(&mut self, name: &str, help: &str, rows: impl IntoIterator<Item = (Labels, f64)>) {
        self.numbers(name, help, MetricType::Gauge, rows);
    }

    /// Adds a family of quantiles: gauges that are no summary, since nothing is known of the values beside them.
    pub(super) fn quantiles(&mut self, name: &str, help: &str, rows: impl IntoIterator<Item = (Labels, f64)>) {
        self.numbers(name, help, MetricType::Unknown, rows);
    }

    /// Adds one gauge without labels of its own.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help, [(Labels::new(), value)]);
    }

    /// Adds a family of counters, whose name gets `_total` at its end; nothing if it has no series.
    pub(super) fn counters(&mut self, name: &str, help: &str, rows: impl IntoIterator<Item = (Labels, f64)>) {
        self.numbers(name, help, MetricType::Counter, rows);
    }

    /// Adds one counter without labels of its own.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.counters(name, help, [(Labels::new(), value)]);
    }

    /// Adds a family of histograms; nothing if it has no series.
    pub(super) fn histograms<'h>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels, &'h Histogram)>,
    ) {
        let rows = rows.into_iter().map(|(labels, histogram)| (labels, Value::Histogram(histogram.clone())));
        self.add(name, help, MetricType::Histogram, rows);
    }

    fn numbers(
        &mut self,
        name: &str,
        help: &str,
        metric_type: MetricType,
        rows: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let rows = rows.into_iter().map(|(labels, value)| (labels, Value::Number(value)));
        self.add(name, help, metric_type, rows);
    }

    fn add(&mut self, name: &str, help: &str, metric_type: MetricType, rows: impl Iterator<Item = (Labels, Value)>) {
        let worker = self.worker.clone();
        let of_worker = |(labels, value): (Labels, Value)| {
            let name = [("worker_name", worker.clone())];
            (name.into_iter().chain(labels).collect::<Labels>(), value)
        };
        let mut rows = rows.map(of_worker).peekable();
        if rows.peek().is_none() {
            return;
        }
        let at = *self.places.entry(name.to_owned()).or_insert(self.families.len());
        if at == self.families.len() {
            let (name, help) = (name.to_owned(), help.to_owned());
            self.families.push(Family { name, help, metric_type, rows: Vec::new() });
        }
        self.families[at].rows.extend(rows);
    }

    /// Writes all of them.
    pub(super) fn write(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for Family { name, help, metric_type, rows } in &self.families {
            let mut family = encoder.encode_descriptor(name, help, None, *metric_type)?;
            for (labels, value) in rows {
                let mut series = family.encode_family(labels)?;
                match (value, metric_type) {
                    (Value::Number(value), MetricType::Counter) => {
                        series.encode_counter::<NoLabelSet, _, f64>(value, None)?;
                    }
                    (Value::Number(value), _) => series.encode_gauge(value)?,
                    (Value::Histogram(histogram), _) => {
                        let (sum, count) = (histogram.sum(), histogram.count());
                        series.encode_histogram::<NoLabelSet>(sum, count, &histogram.buckets(), None)?;
                    }
                }
            }
        }
        Ok(())
    }
}
