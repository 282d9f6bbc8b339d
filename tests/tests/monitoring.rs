//! Alerts: each fires where it must and not elsewhere, and stands in the documents. `promtool` is the judge.

use std::collections::BTreeSet;
use std::process::Command;

use kaspr_tests::root;

/// Runs promtool in the folder of alerts.
///
/// # Panics
/// If it is not there, or finds a fault.
#[track_caller]
fn promtool(arguments: &[&str]) -> String {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(root().join("docs/monitoring"));
    let output = command.output().expect("promtool is installed (Debian's package prometheus): .ci/install test");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).expect("it can be read")
}

/// The words behind a key, wherever it stands.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines()
        .filter_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix(key))
        .map(str::trim)
        .collect()
}

#[test]
fn each_alert_fires_where_it_must_and_not_elsewhere() {
    promtool(&["check", "rules", "alerts.yaml"]);
    promtool(&["test", "rules", "alerts.test.yaml"]);
    let (rules, tests) = (read("docs/monitoring/alerts.yaml"), read("docs/monitoring/alerts.test.yaml"));
    let (mut fires, mut rests) = (BTreeSet::new(), BTreeSet::new());
    for case in tests.split("alert_rule_test:").skip(1) {
        let alert = values(case, "alertname:")[0];
        if case.contains("exp_alerts: []") {
            rests.insert(alert)
        } else {
            fires.insert(alert)
        };
    }
    let alerts: BTreeSet<&str> = values(&rules, "alert:").into_iter().collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    assert_eq!(alerts, fires, "each alert has a case in which it fires");
    assert_eq!(alerts, rests, "each alert has a case in which it does not");
}

#[test]
fn each_alert_is_explained() {
    let (rules, page) = (read("docs/monitoring/alerts.yaml"), read("docs/operations.md"));
    let missing: Vec<_> =
        values(&rules, "alert:").into_iter().filter(|alert| !page.contains(&format!("| `{alert}` |"))).collect();
    assert!(missing.is_empty(), "docs/operations.md says nothing of {missing:?}");
}
