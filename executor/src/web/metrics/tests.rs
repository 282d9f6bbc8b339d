//! Pages of made-up snapshots.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::status::crew::Member;
use crate::status::report::Report;
use crate::status::snapshot::{PartitionStatus, ReaderStatus, Snapshot, State};

fn measured(number: Option<u32>, snapshot: Snapshot) -> Measured {
    let name = number.map_or_else(|| "shop-2".to_owned(), |number| format!("shop-2.{number}"));
    let state = snapshot.state;
    let report = Report { snapshot: Arc::new(snapshot), ..Report::default() };
    Measured { name, worker: Worker { state, member: Member { number, report, restarts: 0 } }, cpu_percent: None }
}

fn collected(snapshot: Snapshot, has_old_names: bool) -> Collected {
    Collected {
        workers: vec![measured(None, snapshot)],
        facts: Facts {
            version: "1.2.3",
            revision: "abc".to_owned(),
            python: "3.13.0".to_owned(),
            librdkafka: "2.0".to_owned(),
            state_dir: None,
        },
        app: "shop".to_owned(),
        pod: "shop-2".to_owned(),
        disk: None,
        requests: Requests::default(),
        has_old_names,
    }
}

fn partition(topic: &str, partition: i32, lag: u64) -> PartitionStatus {
    let reader = ReaderStatus { reader: "r".to_owned(), taken: 5, done: 5, committed: 4, lag, cause: None };
    PartitionStatus {
        topic: topic.to_owned(),
        partition,
        high: Some(9),
        queued_bytes: 10,
        oldest_ms: (lag > 0).then_some(1000),
        readers: vec![reader],
    }
}

/// A snapshot of topics `t0`, `t1`, … with so many partitions each.
fn running(topics: usize, partitions: i32) -> Snapshot {
    let mut snapshot = Snapshot { state: State::Running, timestamp_ms: 3500, ..Snapshot::default() };
    for topic in (0..topics).map(|number| format!("t{number:05}")) {
        snapshot.assignment.insert(topic.clone(), (0..partitions).collect());
        snapshot.partitions.extend((0..partitions).map(|number| partition(&topic, number, 3)));
    }
    snapshot
}

fn lines(page: &str, name: &str) -> Vec<String> {
    let is_of = |line: &&str| line.starts_with(&format!("{name}{{"));
    page.lines().filter(is_of).map(str::to_owned).collect()
}

#[test]
fn a_page_has_the_names_and_labels_of_its_worker() {
    let page = render(collected(running(1, 1), false), false).expect("a page");
    for line in [
        r#"kaspr_build_info{app_name="shop",worker_name="shop-2",version="1.2.3",revision="abc",python="3.13.0",librdkafka="2.0"} 1.0"#,
        r#"kaspr_state{app_name="shop",worker_name="shop-2",state="running"} 1.0"#,
        r#"kaspr_state{app_name="shop",worker_name="shop-2",state="idle"} 0.0"#,
        r#"kaspr_partition_lag_seconds{app_name="shop",worker_name="shop-2",topic="t00000",partition="0"} 2.5"#,
        r#"kaspr_partition_lag_records{app_name="shop",worker_name="shop-2",topic="t00000",partition="0"} 3.0"#,
        r#"kaspr_partition_committed_offset{app_name="shop",worker_name="shop-2",topic="t00000",partition="0"} 4.0"#,
        r#"kaspr_transactions_total{app_name="shop",worker_name="shop-2",outcome="aborted"} 0.0"#,
        r#"kaspr_stalled_partitions{app_name="shop",worker_name="shop-2",cause="window"} 0.0"#,
    ] {
        let (name, value) = line.rsplit_once(' ').expect("a value");
        let found = page.lines().find(|found| found.rsplit_once(' ').is_some_and(|(found, _)| found == name));
        let found = found.and_then(|found| found.rsplit_once(' ')).map(|(_, value)| value.parse::<f64>());
        assert_eq!(found, Some(value.parse()), "{name}\n{page}");
    }
    assert!(!page.contains("kaspr_messages_received"), "old names were not asked for");
    let old = render(collected(running(1, 1), true), false).expect("a page");
    for name in ["kaspr_messages_received_total", "kaspr_topic_partition_offset_commited", "kaspr_health"] {
        assert!(!lines(&old, name).is_empty(), "{name}\n{old}");
    }
}

#[test]
fn commits_that_wait_grow_older_than_their_snapshot() {
    let age = |commit_age| {
        let mut page = collected(Snapshot { commit_age, ..running(1, 1) }, false);
        page.workers[0].worker.member.report.age = Duration::from_secs(10);
        let page = render(page, false).expect("a page");
        lines(&page, "kaspr_commit_age_seconds")[0].rsplit_once(' ').expect("a value").1.parse::<f64>()
    };
    assert_eq!((age(Duration::from_secs(2)), age(Duration::ZERO)), (Ok(12.0), Ok(0.0)));
}

#[test]
fn both_formats_say_the_same() {
    let plain = render(collected(running(2, 2), true), false).expect("a page");
    let open = render(collected(running(2, 2), true), true).expect("a page");
    assert!(open.ends_with("# EOF\n"));
    let series = |page: &str| -> BTreeSet<String> {
        let series = page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(' ').next());
        // The formats order labels otherwise, and one writes the bound 1 as 1.0.
        let in_order = |series: &str| {
            let (name, labels) = series.trim_end_matches('}').split_once('{')?;
            let labels: BTreeSet<&str> =
                labels.split(',').map(|label| label.trim_end_matches(".0\"").trim_end_matches('"')).collect();
            Some(format!("{name}{labels:?}"))
        };
        series.filter_map(in_order).collect()
    };
    let (plain, open) = (series(&plain), series(&open));
    assert!(plain.len() > 100);
    let differ: Vec<_> = plain.symmetric_difference(&open).take(3).collect();
    assert!(differ.is_empty(), "{differ:?}");
}

#[test]
fn many_topics_are_other_and_many_partitions_are_sums() {
    let page = render(collected(running(300, 1), true), false).expect("a page");
    for name in ["kaspr_partition_lag_records", "kaspr_assigned_partitions", "kaspr_topic_partition_end_offset"] {
        let lines = lines(&page, name);
        assert_eq!(lines.len(), 201, "{name}");
        assert!(lines.iter().any(|line| line.contains(r#"topic="other""#)), "{name}");
    }
    let other = lines(&page, "kaspr_partition_lag_records").into_iter().find(|line| line.contains("other"));
    assert!(other.is_some_and(|line| line.contains(r#"partition="all""#) && line.ends_with(" 300.0")));

    let page = render(collected(running(2, 501), false), false).expect("a page");
    let lines = lines(&page, "kaspr_partition_lag_records");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines.iter().all(|line| line.contains(r#"partition="all""#) && line.ends_with(" 1503.0")), "{lines:?}");
}

#[test]
fn openmetrics_is_given_to_those_who_prefer_it() {
    let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    for (accept, is_open) in [
        (prometheus, true),
        ("application/openmetrics-text", true),
        ("text/plain;version=0.0.4, application/openmetrics-text;q=0.5", false),
        ("application/openmetrics-text;q=0", false),
        ("application/openmetrics-text;q=x", false),
        ("*/*", false),
        ("", false),
    ] {
        assert_eq!(prefers_open_metrics(accept), is_open, "{accept}");
    }
}

#[test]
fn the_series_of_several_workers_stand_together() {
    let mut both = collected(running(1, 1), true);
    both.workers = vec![measured(Some(0), running(1, 1)), measured(Some(1), running(1, 1))];
    let page = render(both, true).expect("a page");
    let types: Vec<&str> = page.lines().filter(|line| line.starts_with("# TYPE")).collect();
    assert_eq!(types.len(), types.iter().collect::<BTreeSet<_>>().len(), "each family stands once");
    let ready = lines(&page, "kaspr_ready");
    assert!(ready.len() == 2 && ready[1].contains(r#"worker_name="shop-2.1""#), "{ready:?}");
}
