//! Metrics of a loaded worker, as their judges, their documents, dashboards and the contract with the operator want
//! them.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};

use kaspr_tests::http::{Client, get, series};
use kaspr_tests::kafka::{broker, free_port};
use kaspr_tests::root;
use kaspr_tests::served::{Served, app, event};
use serde_json::Value;

/// An app whose worker has counted something for every family.
fn busy() -> Served {
    let broker = broker();
    let letters = broker.topic("dead", 1);
    let retry = format!(
        "  onError: {{action: retry, attempts: 2, backoff: {{initial: 10ms, max: 10ms}}, then: deadLetter, topic: {letters}}}\n"
    );
    let (app, input, output) = app(broker, 1, &retry);
    broker.produce(&input, ["a", "fail", "await", "b"].map(event));
    // Of one unit in 16 the time is taken.
    broker.produce(&input, (0..20).map(|_| event("c")));
    let served = Served::start(app.on_disk(), &[]).ready();
    served.wait_until("its events", || broker.count(&output) == 23 && broker.count(&letters) == 1);
    served.wait_for_worker("its commits", |worker| worker["completed"] == 24);
    served.wait_until("librdkafka's statistics", || {
        let page = served.get("/metrics").body;
        ["consumer", "producer"].iter().all(|client| {
            let up = series(&page, "kaspr_kafka_broker_up");
            up.iter().any(|(labels, value)| labels.contains(&format!("client=\"{client}\"")) && *value == 1.0)
        })
    });
    served
}

/// Words of a text that begin so.
fn names<'a>(text: &'a str, start: &str) -> BTreeSet<&'a str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with(start)).collect()
}

#[test]
fn metrics_are_what_their_judges_and_their_documents_want() {
    let served = busy();
    let page = served.get("/metrics");
    assert_eq!(page.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let mut client = Client::connect(served.port).expect("it listens");
    let open = client.ask("GET", "/metrics", &["Accept: application/openmetrics-text;version=1.0.0"], "");
    let open = open.expect("an answer");
    assert_eq!(open.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open.body.ends_with("# EOF\n"));
    // All old names are warned of, for their units or spelling: they are judged without.
    let old = names(include_str!("../../executor/src/web/metrics/old.rs"), "kaspr_");
    let is_old = |line: &&str| {
        let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
        old.iter().any(|old| {
            name.strip_prefix(old)
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_lowercase()) || rest.starts_with('_'))
        })
    };
    let new: String = page.body.lines().filter(|line| !is_old(line)).map(|line| format!("{line}\n")).collect();
    let mut judge = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed (Debian's package prometheus): .ci/install test");
    std::io::Write::write_all(&mut judge.stdin.take().expect("it is piped"), new.as_bytes()).expect("it reads");
    let judged = judge.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&[judged.stdout, judged.stderr].concat()).into_owned();
    assert!(judged.status.success() && said.is_empty(), "{said}\n{new}");
    // Each family that an alert asks for is there.
    let alerts = std::fs::read_to_string(root().join("docs/monitoring/alerts.yaml")).expect("alerts");
    let asked = names(&alerts, "kaspr_").into_iter().chain(["process_start_time_seconds"]);
    let missing: Vec<_> = asked.filter(|name| series(&page.body, name).is_empty()).collect();
    assert!(missing.is_empty(), "{missing:?}\n{}", page.body);
    // Each family is in the documents.
    let documents = std::fs::read_to_string(root().join("docs/operations.md")).expect("documents");
    let families = new.lines().filter_map(|line| line.strip_prefix("# TYPE kaspr_")?.split(' ').next());
    let undocumented: Vec<_> = families
        .filter(|family| {
            let is_column = family.starts_with("operation_");
            !is_column && !documents.contains(&format!("`{family}`"))
        })
        .collect();
    assert!(undocumented.is_empty(), "docs/operations.md does not name {undocumented:?}");
}

/// The names of the contract behind `kaspr_`, and their labels besides `app_name` and `worker_name`.
const NAMES: [(&str, &str); 52] = [
    ("build_info", "version revision python librdkafka"),
    ("state", "state"),
    ("ready", ""),
    ("leader", ""),
    ("state_dir_writable", ""),
    ("turn_age_seconds", ""),
    ("worker_busy_seconds_total", ""),
    ("worker_idle_seconds_total", ""),
    ("worker_restarts_total", ""),
    ("events_total", "reader topic"),
    ("events_completed_total", "reader topic"),
    ("event_duration_seconds_bucket", "reader le"),
    ("operation_in_total", "agent operation"),
    ("operation_out_total", "agent operation"),
    ("operation_filtered_total", "agent operation"),
    ("operation_failed_total", "agent operation"),
    ("operation_seconds_total", "agent operation"),
    ("failures_total", "agent operation kind"),
    ("retries_total", "agent operation kind"),
    ("records_sent_total", "topic"),
    ("dead_letters_total", "topic"),
    ("partition_end_offset", "topic partition"),
    ("partition_committed_offset", "topic partition"),
    ("partition_lag_records", "topic partition"),
    ("partition_lag_seconds", "topic partition"),
    ("reader_lag_records", "topic partition reader"),
    ("assigned_partitions", "topic"),
    ("queued_bytes", "topic"),
    ("stalled_partitions", "cause"),
    ("transactions_total", "outcome"),
    ("transaction_duration_seconds_bucket", "le"),
    ("rebalance_duration_seconds_bucket", "le"),
    ("commit_age_seconds", ""),
    ("producers_recycled_total", ""),
    ("rebalances_total", "kind"),
    ("table_restore_ratio", "table"),
    ("table_restored_records_total", "table"),
    ("table_reads_total", "table"),
    ("table_writes_total", "table"),
    ("table_deletes_total", "table"),
    ("table_keys", "table"),
    ("http_requests_total", "path code"),
    ("http_request_duration_seconds_bucket", "path le"),
    ("kafka_broker_up", "client broker"),
    ("kafka_broker_rtt_seconds", "client broker quantile"),
    ("kafka_broker_throttle_seconds", "client broker quantile"),
    ("kafka_broker_connects_total", "client broker"),
    ("kafka_requests_total", "client kind"),
    ("kafka_request_errors_total", "client kind"),
    ("kafka_bytes_total", "client direction"),
    ("kafka_queue_messages", "client direction"),
    ("kafka_queue_bytes", "client direction"),
];

/// The reference runtime's names that stay, likewise.
const OLD_NAMES: [(&str, &str); 28] = [
    ("messages_received_total", ""),
    ("messages_received_per_topic_total", "topic"),
    ("messages_received_per_topics_partition", "topic partition"),
    ("topic_messages_sent_total", "topic"),
    ("total_sent_messages_total", ""),
    ("total_error_messages_sent_total", ""),
    ("producer_send_latency_bucket", "le"),
    ("consumer_commit_latency_bucket", "le"),
    ("events_runtime_ms_bucket", "le"),
    ("rebalance_done_latency_bucket", "le"),
    ("health", ""),
    ("app_info", "group_id kaspr_version kms_enabled"),
    ("total_events_total", ""),
    ("total_active_events", ""),
    ("active_messages", ""),
    ("total_rebalances", ""),
    ("total_rebalances_recovering", ""),
    ("topic_partition_end_offset", "topic partition"),
    ("topic_partition_offset_commited", "topic partition"),
    ("table_operations_total", "table operation"),
    ("table_key_count", "table"),
    ("http_status_codes_total", "status_code"),
    ("http_latency_bucket", "le"),
    ("cpu_utiliztion_percent", ""),
    ("resident_memory_total", ""),
    ("disk_space_total", ""),
    ("disk_space_used", ""),
    ("disk_space_free", ""),
];

/// Expressions of the panels of the dashboard that is published for the reference runtime, but for its scheduler's.
const PANELS: [&str; 14] = [
    "sum(kaspr_app_info) by (kaspr_version)",
    "count(kaspr_app_info)",
    "time() - max(max_over_time(kaspr_app_info[1m])) by (app_name, worker_name)",
    "max(kaspr_health) by (app_name, worker_name)",
    "sum(kaspr_cpu_utiliztion_percent) by (namespace, app_name, worker_name)",
    "max(max_over_time(kaspr_resident_memory_total[1m])) by (namespace, app_name, worker_name)",
    "sum(kaspr_disk_space_used) by (worker_name) / sum(kaspr_disk_space_total) by (worker_name)",
    "sum(rate(kaspr_table_operations_total[1m])) by (namespace, app_name, operation, table)",
    "sum(rate(kaspr_messages_received_per_topic_total[1m])) by (namespace, app_name, topic)",
    "sum(rate(kaspr_topic_messages_sent_total[1m])) by (namespace, app_name, topic)",
    "sum(rate(kaspr_total_error_messages_sent_total[1m])) by (namespace, app_name)",
    "histogram_quantile(0.90, sum(rate(kaspr_producer_send_latency_bucket[1m])) by (le)) / 1000",
    "histogram_quantile(0.99, sum(rate(kaspr_rebalance_done_latency_bucket[1m])) by (le)) / 1000",
    "max(kaspr_table_key_count) by (app_name, table)",
];

/// Names of labels, as a series writes them.
fn label_names(labels: &str) -> BTreeSet<&str> {
    labels.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name).collect()
}

#[test]
fn every_name_of_the_contract_is_there_with_its_labels() {
    let served = busy();
    let all = || NAMES.iter().chain(&OLD_NAMES);
    let mut page = served.get("/metrics").body;
    for (name, _) in all() {
        served.wait_until(name, || {
            page = served.get("/metrics").body;
            !series(&page, &format!("kaspr_{name}")).is_empty()
        });
    }
    for (name, labels) in all() {
        let expected: BTreeSet<&str> = labels.split_whitespace().chain(["app_name", "worker_name"]).collect();
        for (labels, _) in series(&page, &format!("kaspr_{name}")) {
            assert_eq!(label_names(&labels), expected, "{name}");
        }
    }
    let values = |name: &str, label: &str| -> BTreeSet<String> {
        let value = |labels: String| Some(labels.split_once(&format!("{label}=\""))?.1.split('"').next()?.to_owned());
        series(&page, name).into_iter().filter_map(|(labels, _)| value(labels)).collect()
    };
    let words = |words: &str| words.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(values("kaspr_state", "state"), words("loading joining restoring running stopping idle"));
    assert_eq!(values("kaspr_transactions_total", "outcome"), words("committed aborted unknown"));
    assert_eq!(values("kaspr_rebalances_total", "kind"), words("assigned revoked lost"));
    let keys = |name: &str| series(&page, name).into_iter().map(|(_, keys)| keys).collect::<Vec<_>>();
    // Events a, await, b and c; the one that failed wrote nothing.
    assert_eq!((keys("kaspr_table_keys"), keys("kaspr_table_key_count")), (vec![4.0], vec![4.0]));
    assert!(page.contains("table=\"table.counts\"") && page.contains("topic=\"topic."), "{page}");
}

/// A Prometheus that scrapes a worker every second. It ends with its test.
struct Prometheus {
    port: u16,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(scraped: u16) -> Prometheus {
        let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port());
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\n\
             scrape_configs: [{{job_name: app, static_configs: [{{targets: ['localhost:{scraped}']}}]}}]\n",
            root().join("docs/monitoring/alerts.yaml").display()
        );
        std::fs::write(folder.path().join("prometheus.yml"), config).expect("written");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is installed (Debian's package): .ci/install test");
        Prometheus { port, child, _folder: folder }
    }

    /// The results of an expression; none before it has scraped.
    fn query(&self, expression: &str) -> Vec<Value> {
        let escaped = |c: char| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("%{:02X}", c as u32) };
        let query: String = expression.chars().map(escaped).collect();
        let page = get(self.port, &format!("/api/v1/query?query={query}"));
        let found = page.ok().and_then(|page| serde_json::from_str::<Value>(&page.body).ok());
        found.and_then(|found| found["data"]["result"].as_array().cloned()).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_prometheus_reads_every_family() {
    let served = busy();
    let page = served.get("/metrics").body;
    let prometheus = Prometheus::start(served.port);
    served.wait_until("a scrape", || !prometheus.query("kaspr_build_info").is_empty());
    let up = prometheus.query("up");
    assert_eq!(up[0]["value"][1], "1", "{up:?}");
    // Counters, gauges, and the parts of histograms.
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    for (name, kind) in families {
        let name = if kind == "histogram" { format!("{name}_bucket") } else { name.to_owned() };
        let found = prometheus.query(&format!("sum by (app_name, worker_name) ({name})"));
        assert!(!found.is_empty(), "{name}");
        let labels = &found[0]["metric"];
        assert!(labels["app_name"].is_string() && labels["worker_name"].is_string(), "{labels}");
    }
    // A rate needs two scrapes.
    served.wait_until("every panel", || PANELS.iter().all(|panel| !prometheus.query(panel).is_empty()));
}
