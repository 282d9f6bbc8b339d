//! Results of each rule for a small app, as the printed plan shows them.

use expect_test::{Expect, expect};

use crate::{Options, SourceFile, compile};

fn check(text: &str, lines: &[&str], expected: &Expect) {
    let file = SourceFile { name: "app.yaml".to_owned(), bytes: text.as_bytes().to_vec() };
    let compiled = compile(&[file], &Options::default());
    let plan = compiled.plan.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics)).to_text();
    let shown: Vec<&str> =
        plan.lines().map(str::trim).filter(|line| lines.iter().any(|part| line.contains(part))).collect();
    expected.assert_eq(&(shown.join("\n") + "\n"));
}

fn agent(name: &str, spec: &str) -> String {
    format!("---\napiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata: {{name: {name}}}\nspec:\n{spec}\n")
}

const TAKE: &str = "  input: {topic: {name: in}, take: {max: 10, within: 1s}}\n";
const TABLE: &str = "---\napiVersion: kaspr.io/v1alpha1\nkind: KasprTable\nmetadata: {name: t}\n";

#[test]
fn batch_scope() {
    let isolated = agent("isolated", &format!("{TAKE}  isolatedPartitions: true"));
    let free = agent("free", TAKE);
    let halts = agent("halts", &format!("{TAKE}  onError: {{action: halt}}"));
    let retries = agent("retries", &format!("{TAKE}  onError: {{action: retry}}"));
    let step = "  processors: {pipeline: [s], operations: [{name: s, tables: [{name: t, paramName: t}], map: {python: 'f = lambda v, t: v'}}]}";
    let keeps = agent("keeps", &format!("{TAKE}{step}"));
    let text = [free, halts, isolated, keeps, retries, TABLE.to_owned()].concat();
    check(
        &text,
        &["reader ", "batch window"],
        &expect![[r#"
            reader free
            batch window: up to 10 events within 1s, partitions mixed unless retry
            reader halts
            batch window: up to 10 events within 1s, partitions mixed
            reader isolated
            batch window: up to 10 events within 1s, one per partition
            reader keeps
            batch window: up to 10 events within 1s, one per partition
            reader retries
            batch window: up to 10 events within 1s, one per partition
        "#]],
    );
}

#[test]
fn group_assignor() {
    let reader = |name: &str, table: bool| {
        let tables = if table { "tables: [{name: t, paramName: t}], " } else { "" };
        let python = if table { "f = lambda v, t: v" } else { "f = lambda v: v" };
        agent(
            name,
            &format!(
                "  input: {{topic: {{name: {name}}}}}\n  processors: {{pipeline: [s], operations: [{{name: s, {tables}map: {{python: '{python}'}}}}]}}"
            ),
        )
    };
    check(
        &[reader("a", true), reader("b", false), TABLE.to_owned()].concat(),
        &["app", "partitions"],
        &expect![[r#"
            app (named at start: --app)
            map s: f() at app.yaml:7, table t as t
            map s: f() at app.yaml:14
        "#]],
    );
    check(
        &[reader("a", true), reader("b", true), TABLE.to_owned()].concat(),
        &["app", "partitions"],
        &expect![[r#"
            app (named at start: --app)
            partitions: range (topics share a table; all partitions stop during a rebalance)
            map s: f() at app.yaml:7, table t as t
            map s: f() at app.yaml:14, table t as t
        "#]],
    );
    // Each topic that a pattern matches has a partition 0.
    check(
        &[reader("a", true).replace("topic: {name: a}", "topic: {pattern: 'a.*'}"), TABLE.to_owned()].concat(),
        &["app", "partitions"],
        &expect![[r#"
            app a
            partitions: range (topics share a table; all partitions stop during a rebalance)
            map s: f() at app.yaml:7, table t as t
        "#]],
    );
}

#[test]
fn pruning() {
    let operations =
        "[{name: used, map: {python: 'f = lambda v: v'}}, {name: unused, map: {python: 'f = lambda v: v'}}]";
    let spec =
        format!("  input: {{topic: {{name: in}}}}\n  processors: {{pipeline: [used, used], operations: {operations}}}");
    check(
        &agent("a", &spec),
        &["map"],
        &expect![[r#"
            map used: f() at app.yaml:7
            map used: f() at app.yaml:7
    "#]],
    );
}

#[test]
fn context_use() {
    let operations = "[{name: reads, map: {python: 'f = lambda v: context[\"event\"].key'}}, {name: plain, map: {python: 'f = lambda v: v'}}]";
    let spec = format!(
        "  input: {{topic: {{name: in}}}}\n  processors: {{pipeline: [reads, plain], operations: {operations}}}"
    );
    check(
        &agent("a", &spec),
        &["map"],
        &expect![[r#"
            map reads: f() at app.yaml:7 with context
            map plain: f() at app.yaml:7
    "#]],
    );
    // A function of init may read it for a block that does not mention it.
    let init =
        spec.replace("processors: {", "processors: {init: {python: 'def key(): return context[\"event\"].key'}, ");
    check(
        &agent("a", &init),
        &["map"],
        &expect![[r#"
            map reads: f() at app.yaml:7 with context
            map plain: f() at app.yaml:7 with context
    "#]],
    );
}

#[test]
fn forwarding() {
    let outputs = "[{name: same}, {name: text, valueSerializer: raw}, {name: some, predicate: {python: 'f = lambda v: v[\"a\"] > 1'}}]";
    let filter = |python: &str| {
        format!(
            "  input: {{topic: {{name: in}}}}\n  output: {{topics: {outputs}}}\n  processors: {{pipeline: [f], operations: [{{name: f, filter: {{python: '{python}'}}}}]}}"
        )
    };
    check(
        &agent("reads", &filter("f = lambda v: v.get(\"a\")")),
        &["sink"],
        &expect![[r#"
            sink topic same (key raw, value json), forwards the bytes
            sink topic text (key raw, value raw)
            sink topic some (key raw, value json), forwards the bytes
    "#]],
    );
    check(
        &agent("writes", &filter("f = lambda v: v.pop(\"a\")")),
        &["sink"],
        &expect![[r#"
            sink topic same (key raw, value json)
            sink topic text (key raw, value raw)
            sink topic some (key raw, value json)
    "#]],
    );
}

#[test]
fn projection_by_what_functions_use() {
    let outputs = "[{name: out, keySelector: {python: 'f = lambda v: v[\"key\"]'}}]";
    let app = |init: &str, python: &str| {
        let operations = format!("{{pipeline: [f], {init}operations: [{{name: f, map: {{python: '{python}'}}}}]}}");
        agent(
            "a",
            &format!("  input: {{topic: {{name: in}}}}\n  output: {{topics: {outputs}}}\n  processors: {operations}"),
        )
    };
    let of = |init: &str, python: &str, expected: &Expect| check(&app(init, python), &["decodes", "map"], expected);
    // What a function returns in the value's place is whole: the key selector sees no part.
    of(
        "",
        "f = lambda v: {\"a\": v[\"a\"]}",
        &expect![[r#"
            decodes a
            map f: f() at app.yaml:8
        "#]],
    );
    of(
        "",
        "f = lambda v: v",
        &expect![[r#"
            decodes key, the rest passes as text
            map f: f() at app.yaml:8
        "#]],
    );
    of(
        "",
        "f = lambda v: {\"a\": v}",
        &expect![[r#"
            map f: f() at app.yaml:8
        "#]],
    );
    // Code that may look into functions gets whole values.
    of(
        "init: {python: 'import inspect'}, ",
        "f = lambda v: v",
        &expect![[r#"
            map f: f() at app.yaml:8
        "#]],
    );
    // Wherever it stands, and however Python spells it.
    let peeks = agent(
        "b",
        "  input: {topic: {name: other}}\n  processors: {pipeline: [f], operations: [{name: f, map: {python: 'f = lambda v: ｌocals()'}}]}",
    );
    check(
        &(app("", "f = lambda v: v") + &peeks),
        &["reader ", "decodes"],
        &expect![[r#"
            reader a
            reader b
        "#]],
    );
}

#[test]
fn projection_by_where_values_go() {
    let filter = |output: &str| {
        format!(
            "  input: {{topic: {{name: in}}}}\n  output: {{{output}}}\n  processors: {{pipeline: [f], operations: [{{name: f, filter: {{python: 'f = lambda v: v.get(\"a\")'}}}}]}}"
        )
    };
    let of = |output: &str, expected: &Expect| check(&agent("a", &filter(output)), &["decodes", "sink"], expected);
    of(
        "topics: [{name: out}]",
        &expect![[r#"
            decodes a
            sink topic out (key raw, value json), forwards the bytes
        "#]],
    );
    of(
        "topics: [{name: out, valueSerializer: raw}]",
        &expect![[r#"
            sink topic out (key raw, value raw)
        "#]],
    );
    of(
        "sinks: [{name: s, python: 'f = lambda v: print(v[\"b\"])'}]",
        &expect![[r#"
            decodes a, b
            sink s: f() at app.yaml:7, outside the transaction
        "#]],
    );
    let channel = agent("a", &filter("channels: [{name: c}]"))
        + &agent(
            "b",
            "  input: {channel: {name: c}}\n  output: {topics: [{name: out, predicate: {python: 'f = lambda v: v[\"c\"]'}}]}",
        );
    check(
        &channel,
        &["decodes", "sink"],
        &expect![[r#"
            decodes a, c, the rest passes as text
            sink topic out (key raw, value json)
        "#]],
    );
}
