//! Small inputs from reports of users, and what is said of each and of its neighbours.

use kasprc::{Options, SourceFile};

/// An agent from `in` to `out` with one map.
const AGENT: &str = "apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata:\n  name: orders\nspec:\n  input:\n    topic:\n      name: in\n  \
                     output:\n    topics:\n      - name: out\n  processors:\n    pipeline: [step]\n    operations:\n      - name: step\n        \
                     map:\n          python: |\n            def step(value):\n                return value\n";
const TABLE: &str = "---\napiVersion: kaspr.io/v1alpha1\nkind: KasprTable\nmetadata: {name: t}\n";

/// Findings of `kasprc check`, as `LINE CODE message`.
fn said(text: &str) -> Vec<String> {
    let file = SourceFile { name: "agent.yaml".to_owned(), bytes: text.as_bytes().to_vec() };
    let compiled = kasprc::compile(&[file], &Options { only_checks: true, ..Options::default() });
    let line = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
    let of = |fault: &kasprc::Diagnostic| format!("{} {} {}", line(fault.at.start), fault.code.name(), fault.message);
    compiled.diagnostics.iter().map(of).collect()
}

/// The agent with a part replaced.
fn with(old: &str, new: &str) -> String {
    assert!(AGENT.contains(old), "{old}");
    AGENT.replace(old, new)
}

/// The agent whose function has a table, with this body.
fn on_table(body: &str) -> String {
    let lines: String = body.lines().map(|line| format!("                {line}\n")).collect();
    let text = AGENT.replace("        map:", "        tables: [{name: t, paramName: t}]\n        map:");
    text.replace("def step(value):\n                return value\n", &format!("def step(value, t):\n{lines}")) + TABLE
}

#[test]
fn names_are_as_kubernetes_wants_them() {
    for name in ["Orders_Agent", "ORDERS", "orders-", "-orders", "a..b", "größe", "orders agent"] {
        let expected = format!("4 K0113 the name \"{name}\" is not allowed by Kubernetes");
        assert_eq!(said(&with("name: orders", &format!("name: {name}"))), [expected]);
    }
    for (name, what) in [("no", "a boolean"), ("123", "a number"), ("1.5", "a number")] {
        let expected = format!("4 K0113 \"metadata.name\" must be a string for Kubernetes, found {what}");
        assert_eq!(said(&with("name: orders", &format!("name: {name}"))), [expected]);
    }
    assert_eq!(
        said(&with("name: orders", "name: \"orders\\e[2J\\n\"")),
        ["4 K0113 the name \"orders\\u{1b}[2J\\n\" is not allowed by Kubernetes"]
    );
    let label = |label: &str| {
        said(&with("  name: orders\n", &format!("  name: orders\n  labels: {{kaspr.io/app: {label}}}\n")))
    };
    for fine in ["shop", "Shop_1.eu", "\"1\""] {
        assert_eq!(label(fine), [""; 0], "{fine}");
    }
    assert_eq!(label("my shop"), ["5 K0113 the label \"my shop\" is not allowed by Kubernetes"]);
    assert_eq!(label("no"), ["5 K0113 the label \"kaspr.io/app\" must be a string for Kubernetes, found a boolean"]);
    assert_eq!(label("-shop"), ["5 K0113 the label \"-shop\" is not allowed by Kubernetes"]);
}

#[test]
fn a_field_of_a_policy_that_its_action_never_asks_is_told() {
    let policy = |policy: &str| said(&with("spec:\n", &format!("spec:\n  onError: {{{policy}}}\n")));
    for (fields, field, why) in [
        ("action: skip, topic: dead", "topic", "no dead letters are sent"),
        ("action: halt, declare: true", "declare", "no dead letters are sent"),
        ("action: retry, config: {a: b}", "config", "no dead letters are sent"),
        ("action: retry, then: halt, partitions: 2", "partitions", "no dead letters are sent"),
        ("action: skip, attempts: 3", "attempts", "the action is skip"),
        ("action: deadLetter, topic: dead, backoff: {max: 5s}", "backoff.max", "the action is deadLetter"),
        ("action: halt, then: skip", "then", "the action is halt"),
    ] {
        assert_eq!(policy(fields), [format!("6 K0412 \"onError.{field}\" has no effect: {why}")], "{fields}");
    }
    for fields in [
        "action: retry, attempts: 3, backoff: {initial: 1s}, then: deadLetter, topic: dead, declare: true, partitions: 2",
        "action: deadLetter, topic: dead, declare: true, replicas: 1, retention: 60, compacting: true, deleting: true, config: {a: b}",
        "action: halt",
    ] {
        assert_eq!(policy(fields), [""; 0], "{fields}");
    }
    // A policy that is wrong is told of alone.
    assert_eq!(policy("action: skipp, attempts: 3").len(), 1);
    assert_eq!(
        policy("action: deadLetter, topic: dead, declare: maybe, partitions: 0"),
        [
            "6 K0003 \"spec.onError.declare\" must be true or false, found a string",
            "6 K0003 \"spec.onError.partitions\" must be from 1 to 2147483647, found 0"
        ]
    );
}

#[test]
fn changes_of_a_tables_value_are_seen_through_every_name() {
    for body in [
        "s = t[\"s\"]; s[\"n\"] += 1; return s",
        "t.setdefault(value, {\"l\": []})[\"l\"].append(value)\nreturn value",
        "a = t.get(\"k\", [])\nb = a\nb.append(1)\nreturn value",
        "for s in t.values():\n    s[\"n\"] = 1\nreturn value",
        "for k, s in t.items():\n    s[\"n\"] += 1\nreturn value",
        "if (s := t.get(\"k\")) is not None:\n    s[\"n\"] = 1\nreturn value",
        "del t[\"k\"][\"a\"]\nreturn value",
    ] {
        let said = said(&on_table(body));
        assert!(
            said.len() == 1 && said[0].contains("K0514 a change of a value of the table \"t\""),
            "{body}: {said:?}"
        );
    }
    for body in [
        "s = t[\"s\"]; s[\"n\"] += 1; t[\"s\"] = s; return s",
        "a = t[\"k\"]; b = a; b[\"n\"] = 1; return a",
        "for k, s in t.items():\n    s[\"n\"] += 1\n    t[k] = s\nreturn value",
        "for s in t.values():\n    value += s[\"n\"]\ns = []\ns.append(value)\nreturn s",
    ] {
        assert_eq!(said(&on_table(body)), [""; 0], "{body}");
    }
}

#[test]
fn a_file_that_is_no_yaml_is_told_of_at_its_line() {
    let k0001 = |line: u32, words: &str| vec![format!("{line} K0001 the file is not well-formed YAML: {words}")];
    for (text, expected) in [
        (
            with("                return value", "        return value"),
            k0001(19, "a name is needed here, and a colon behind it"),
        ),
        (
            with("      - name: out\n", "       - name: out\n      - name: b\n"),
            k0001(12, "the line fits no block above it"),
        ),
        (with("        map:", "       map:"), k0001(16, "the line fits no block above it")),
        (with("    topics:", "\ttopics:"), k0001(10, "the line begins with a tab")),
        (with("                return", "\t\treturn"), k0001(19, "the line begins with a tab")),
        (with("name: out", "name: \"enriched"), k0001(11, "the quote is never closed")),
        (with("name: out", "name: 'enriched"), k0001(11, "the quote is never closed")),
        (with("    topic:\n      name: in\n", "    topic: {name: in\n"), k0001(7, "the brace is never closed")),
        (with("  input:\n", "  input\n"), k0001(7, "a colon has no place here")),
        (with("name: out", "name: a: b"), k0001(11, "a colon has no place here")),
        (AGENT.repeat(2), vec!["20 K0007 duplicate key \"apiVersion\"".to_owned()]),
    ] {
        assert_eq!(said(&text), expected, "{text}");
    }
}

#[test]
fn a_block_that_is_empty_is_one_fault() {
    let block = "            def step(value):\n                return value\n";
    for (python, by) in [
        ("", 0),
        ("def step(value):\n    return value\n", 0),
        ("def step(value): return value\n", 6),
        ("def step(value): return value\n", 10),
    ] {
        let dedented: String = python.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect();
        let said = said(&with(block, &dedented));
        assert!(
            said.len() == 1 && (said[0].contains("K0503 the block is empty") || said[0].contains("K0001")),
            "{by}: {said:?}"
        );
    }
}

#[test]
fn a_file_without_an_agent_is_checked_by_itself() {
    let app =
        "apiVersion: kaspr.io/v1alpha1\nkind: KasprApp\nmetadata: {name: shop}\nspec: {config: {onErorr: halt}}\n";
    assert_eq!(said(app), ["4 K0410 kaspr-exec has no setting \"onErorr\""]);
    assert_eq!(said(&app.replace("onErorr", "onError")), [""; 0]);
    assert_eq!(said(TABLE.trim_start_matches("---\n")), [""; 0]);
    for nothing in ["", "# nothing\n", "agents: []\n"] {
        assert_eq!(said(nothing), ["1 K0005 the specs hold no KasprAgent"], "{nothing}");
    }
}
