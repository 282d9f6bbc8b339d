//! `GET /metrics`: the worker's snapshot as metrics, for Prometheus and whatever reads its formats.
//!
//! A page is rendered from one snapshot, at most once a second. Nothing is kept between two pages but counts of
//! requests, so the series of a partition that was revoked disappear with it.
//!
//! | file | answers |
//! |---|---|
//! | `rows.rs` | how a family and its series are written |
//! | `own.rs`, `partitions.rs` | the families of this program |
//! | `clients.rs` | those of Kafka's clients |
//! | `old.rs` | the same figures under the names of the reference runtime |
//! | `process.rs` | what the system knows of the process |
//! | `requests.rs` | how many requests came, and how long they took |

mod clients;
mod old;
mod own;
mod partitions;
mod process;
mod requests;
mod rows;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;

use super::answer::Answer;
use super::disk::{Disk, DiskSeen};
use super::{Facts, Site, Worker};
use crate::clock::{Clock as _, SystemClock};
use crate::config::serving::METRICS_AGE_MAX;
pub(super) use requests::{NO_PAGE, Requests};
use rows::Writer;

/// The type of Prometheus' text format.
const TEXT: &str = prometheus_text::CONTENT_TYPE;
/// The type of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The page of metrics, as it was last rendered.
pub(super) struct Metrics {
    clock: SystemClock,
    /// The last page of each format, and when it was rendered.
    pages: RefCell<[Option<(Duration, Bytes)>; 2]>,
    /// By the names of the workers.
    cpu: RefCell<BTreeMap<String, process::Cpu>>,
}

impl Metrics {
    /// No page was rendered.
    pub(super) fn new() -> Metrics {
        let clock = SystemClock::start();
        Metrics { clock, pages: RefCell::default(), cpu: RefCell::default() }
    }

    /// The page, in the format that the header `Accept` prefers.
    pub(super) fn page(&self, site: &Site, (disk, requests): (&Disk, &Requests), accept: &str) -> Answer {
        let is_open = prefers_open_metrics(accept);
        let content_type = if is_open { OPEN_METRICS } else { TEXT };
        let now = self.clock.now();
        let mut pages = self.pages.borrow_mut();
        let page = &mut pages[usize::from(is_open)];
        match page {
            Some((at, bytes)) if now < *at + METRICS_AGE_MAX => {
                Answer::text(StatusCode::OK, content_type, bytes.clone())
            }
            page => match render(self.collected(site, (disk, requests), now), is_open) {
                Ok(text) => {
                    let (_, bytes) = page.insert((now, text.into()));
                    Answer::text(StatusCode::OK, content_type, bytes.clone())
                }
                Err(_) => Answer::refused(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written"),
            },
        }
    }

    fn collected(&self, site: &Site, (disk, requests): (&Disk, &Requests), now: Duration) -> Collected {
        let pod = format!("{}-{}", site.app, site.web.ordinal);
        let mut cpu = self.cpu.borrow_mut();
        let mut measured = |worker: Worker| {
            let name = worker.member.number.map_or_else(|| pod.clone(), |number| format!("{pod}.{number}"));
            let process = worker.report().process;
            let cpu_percent =
                process.and_then(|process| cpu.entry(name.clone()).or_default().percent(process.cpu_seconds, now));
            Measured { name, worker, cpu_percent }
        };
        Collected {
            workers: site.look().into_iter().map(&mut measured).collect(),
            facts: site.facts.clone(),
            app: site.app.clone(),
            disk: disk.look(site),
            requests: requests.clone(),
            has_old_names: site.web.has_old_names,
            pod: pod.clone(),
        }
    }
}

/// Everything of which a page is made.
#[derive(Clone, Debug)]
struct Collected {
    workers: Vec<Measured>,
    facts: Facts,
    app: String,
    /// The name of the process, which is its worker's where there is one alone.
    pod: String,
    /// `None`: there is no state dir.
    disk: Option<DiskSeen>,
    requests: Requests,
    has_old_names: bool,
}

/// A worker with what its last two reports tell together.
#[derive(Clone, Debug)]
struct Measured {
    name: String,
    worker: Worker,
    /// Percent of one core since the last page.
    cpu_percent: Option<f64>,
}

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut writer = Writer::default();
        for measured in &self.workers {
            writer.of_worker(&measured.name);
            let snapshot = measured.worker.snapshot();
            own::write(self, measured, &mut writer);
            partitions::write(snapshot, &mut writer);
            clients::write(&snapshot.clients, &mut writer);
            process::write(measured.worker.report().process.as_ref(), &mut writer);
            if self.has_old_names {
                old::write(self, measured, &mut writer);
            }
        }
        writer.of_worker(&self.pod);
        requests::write(&self.requests, &mut writer);
        if self.has_old_names {
            old::write_of_pod(self, &mut writer);
        }
        writer.write(&mut encoder)
    }
}

/// Writes a page.
fn render(collected: Collected, is_open: bool) -> Result<String, std::fmt::Error> {
    let labels = [(Cow::Borrowed("app_name"), Cow::Owned(collected.app.clone()))];
    let mut registry = Registry::with_labels(labels.into_iter());
    registry.register_collector(Box::new(collected));
    let mut page = String::new();
    match is_open {
        true => text::encode(&mut page, &registry)?,
        false => prometheus_text::encode(&mut page, &registry)?,
    }
    Ok(page)
}

/// True if OpenMetrics is named, and no other form is preferred to it.
fn prefers_open_metrics(accept: &str) -> bool {
    let weight = |wanted: &[&str]| {
        let ranges = accept.split(',').filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next()?.to_ascii_lowercase();
            let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse::<f64>().ok())?;
            wanted.contains(&name.as_str()).then_some(weight)
        });
        ranges.fold(0.0, f64::max)
    };
    let open = weight(&["application/openmetrics-text"]);
    // A client that takes anything gets the older format, which every scraper can read.
    open > 0.0 && open >= weight(&["text/plain"])
}

#[cfg(test)]
mod tests;
