//! `kasprc` from the outside: all faults at once, each at its place, whatever the input.

use std::path::{Path, PathBuf};

use kaspr_tests::golden_specs;
use kaspr_tests::program::{program, run, stderr, stdout};
use serde_json::Value;

fn folder_of(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder is made");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("a spec can be written");
    }
    folder
}

/// Code, file and place of every fault, as programs see them.
fn faults(folder: &Path) -> Vec<(String, String, u64, u64)> {
    let path = folder.display().to_string();
    let output = run("kasprc", &["check", &path, "--message-format", "json"], "");
    assert_ne!(output.status.code(), Some(2), "{}", stderr(&output));
    let of = |fault: Value| {
        let text = |name: &str| fault[name].as_str().unwrap_or_default().to_owned();
        let file = text("file").rsplit('/').next().unwrap_or_default().to_owned();
        (text("code"), file, fault["line"].as_u64().unwrap_or(0), fault["column"].as_u64().unwrap_or(0))
    };
    stderr(&output).lines().map(|line| of(serde_json::from_str(line).expect("each line is JSON"))).collect()
}

fn expected(faults: &[(&str, &str, u64, u64)]) -> Vec<(String, String, u64, u64)> {
    faults.iter().map(|(code, file, line, column)| ((*code).to_owned(), (*file).to_owned(), *line, *column)).collect()
}

const TEN: &str = r#"apiVersion: kaspr.io/v1alpha1
kind: KasprAgent
metadata:
  name: orders
spec:
  inputs: {}
  input:
    topic:
      name: raw orders
      valueSerializer: jsn
    take:
      max: 0
      within: 5 seconds
  output:
    topics:
      - keySelector:
          python: |
            def key(a, b):
                return a
  processors:
    pipeline:
      - chekc
    operations:
      - name: check
        filter:
          python: >
            def check(value) return value
      - name: enrich
        tables:
          - name: totals
            paramName: totals
        map:
          entrypoint: enrihc
          python: "def enrich(value, totals): return vlaue"
"#;

#[test]
fn ten_faults_are_ten_reports() {
    let folder = folder_of(&[("agent.yaml", TEN)]);
    let at = |code, line, column| (code, "agent.yaml", line, column);
    let expected = expected(&[
        at("K0002", 6, 3),
        at("K0109", 9, 13),
        at("K0106", 10, 24),
        at("K0104", 12, 12),
        at("K0105", 13, 15),
        at("K0402", 16, 9),
        at("K0505", 18, 17),
        at("K0201", 22, 9),
        at("K0501", 27, 30),
        at("K0301", 30, 19),
        at("K0502", 33, 23),
        at("K0506", 34, 54),
    ]);
    assert_eq!(faults(folder.path()), expected, "ten, and two more");
}

fn agent(name: &str, python: &str) -> String {
    format!(
        "apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata:\n  name: {name}\nspec:\n  input:\n    topic:\n      name: \
         events\n  processors:\n    pipeline:\n      - step\n    operations:\n      - name: step\n        map:\n          \
         python: |\n            {python}\n"
    )
}

const FINE: &str = "def step(value): return value";

#[test]
fn a_broken_part_hides_no_other() {
    let wrong_name = agent("b", "def step(value): return valeu");
    let text = [
        &agent("a", "def step(value) return value"),
        "kind: KasprAgent\nmetadata: [unclosed\n",
        &wrong_name,
        "just a text\n",
        &agent("c", FINE).replace("- step", "- stepp"),
    ];
    let folder =
        folder_of(&[("one.yaml", &text.join("---\n")), ("two.yaml", "\t- broken: [\n"), ("six.yaml", &wrong_name)]);
    let found = faults(folder.path());
    let codes: Vec<_> = found.iter().map(|(code, file, ..)| (code.as_str(), file.as_str())).collect();
    let one = [
        ("K0501", "one.yaml"),
        ("K0001", "one.yaml"),
        ("K0506", "one.yaml"),
        ("K0003", "one.yaml"),
        ("K0201", "one.yaml"),
    ];
    let rest = [("K0008", "six.yaml"), ("K0506", "six.yaml"), ("K0001", "two.yaml")];
    assert_eq!(codes, [one.as_slice(), &rest].concat());
    assert_eq!(found[2].2, 36, "places behind a broken document are right: {found:?}");
}

#[test]
fn a_broken_init_is_one_fault() {
    let init = "  processors:\n    init:\n      python: |\n        from x import helper\n        def broken(\n";
    let text = agent("a", "def step(value): return helper(value)").replace("  processors:\n", init);
    let folder = folder_of(&[("agent.yaml", &text)]);
    let codes: Vec<_> = faults(folder.path()).into_iter().map(|(code, ..)| code).collect();
    assert_eq!(codes, ["K0501"]);
}

#[test]
fn warnings_fail_where_they_are_denied() {
    let text = agent("a", FINE).replace(
        "    operations:\n",
        "    operations:\n      - name: unused\n        map:\n          python: \"f = lambda v: v\"\n",
    );
    let folder = folder_of(&[("agent.yaml", &text)]);
    let path = folder.path().display().to_string();
    assert_eq!(run("kasprc", &["check", &path], "").status.code(), Some(0));
    assert_eq!(run("kasprc", &["check", &path, "--deny-warnings"], "").status.code(), Some(1));
}

#[test]
fn notes_are_json_too() {
    let folder = folder_of(&[("agent.yaml", &agent("a", FINE)), ("secret.yaml", "apiVersion: v1\nkind: Secret\n")]);
    let path = folder.path().display().to_string();
    let output = run("kasprc", &["check", &path, "--message-format", "json"], "");
    let note: Value = serde_json::from_str(stderr(&output).trim()).expect("one line of JSON");
    assert_eq!(note["severity"], "note");
    assert!(note["message"].as_str().unwrap_or_default().ends_with("secret.yaml: skipped Secret (v1)"), "{note}");
}

#[test]
fn files_in_any_order_are_one_plan() {
    let specs = ["first.yaml", "second.yaml"].map(|name| format!("specs/two-agents-in-a-chain/{name}"));
    let one = run("kasprc", &["compile", "--emit", "json", &specs[0], &specs[1]], "");
    let other = run("kasprc", &["compile", "--emit", "json", &specs[1], &specs[0], &specs[1]], "");
    assert!(one.status.success() && stdout(&one) == stdout(&other));
}

#[test]
fn every_stage_is_printed() {
    let debug = [("ast", "Agent {"), ("hir", "Hir {"), ("graph", "Graph {")];
    let read =
        [("plan", "agent echo-agent"), ("json", "\"planVersion\""), ("dot", "digraph"), ("mermaid", "flowchart LR")];
    for (emit, part) in debug.into_iter().chain(read) {
        let output = run("kasprc", &["compile", "specs/echo-agent", "--emit", emit], "");
        assert!(output.status.success() && stdout(&output).contains(part), "{emit}: {}", stdout(&output));
    }
}

#[test]
fn shells_and_editors_are_served() {
    let folder = folder_of(&[]);
    let path = folder.path().display().to_string();
    assert!(stdout(&run("kasprc", &["completions", "bash"], "")).contains("complete -F _kasprc"));
    assert!(run("kasprc", &["man", &path], "").status.success() && folder.path().join("kasprc-compile.1").exists());
    for form in ["kubernetes", "definition"] {
        let output = run("kasprc", &["schema", "--form", form], "");
        let schema: Value = serde_json::from_str(&stdout(&output)).expect("a schema is JSON");
        assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    }
}

/// Runs `kasprc check` on a file; gives its exit status, its output, its largest memory in MB, and its CPU time in
/// units of a loop that the same machine runs in the same seconds (five million turns in Python).
fn measured(path: &Path) -> (i64, String, f64, f64) {
    const MEASURE: &str = "
import json, resource, subprocess, sys, time
def loop():
    start, total = time.process_time(), 0
    for number in range(5_000_000):
        total += number
    return time.process_time() - start
before = loop()
ran = subprocess.run(sys.argv[1:], capture_output=True, text=True, errors='replace')
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([ran.returncode, ran.stderr[:2000] + ran.stderr[-2000:], used.ru_maxrss / 1024,
    (used.ru_utime + used.ru_stime) / max(before, loop())]))";
    let output = std::process::Command::new("python3")
        .args(["-c", MEASURE])
        .args([program("kasprc").as_os_str(), "check".as_ref(), path.as_os_str()])
        .output()
        .expect("python3 is on the PATH");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)))
}

/// YAML that nests, repeats or swells.
fn bad_inputs() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let laughs = (0..12).fold("a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, n| {
        let nine = vec![format!("*a{n}"); 9].join(", ");
        format!("{text}a{}: &a{} [{nine}]\n", n + 1, n + 1)
    });
    let python = |text: &str| agent("a", "X").replace('X', text).into_bytes();
    let many = |text: &str, bytes: usize| text.repeat(bytes / text.len());
    let ten = 10 << 20;
    vec![
        ("empty", Vec::new(), "K0005"),
        ("only a comment", b"# nothing\n".to_vec(), "K0005"),
        ("laughs", laughs.into_bytes(), "K0006"),
        ("deep list", many("[", 100_000).into_bytes(), "K0006"),
        ("deep mapping", (0..2000).map(|n| format!("{}a:\n", " ".repeat(n))).collect::<String>().into_bytes(), "K0006"),
        ("too large", vec![b'a'; ten + 1], "K0006"),
        ("one long text", [b"a: ".to_vec(), vec![b'a'; ten - 3]].concat(), "K0005"),
        ("a list of ten million", many("- 1\n", ten - 8).into_bytes(), "K0006"),
        ("many keys", (0..200_000).map(|n| format!("a{n}: 1\n")).collect::<String>().into_bytes(), "K0005"),
        ("many duplicates", many("a: 1\n", 1 << 20).into_bytes(), "K0007"),
        (
            "many unknown fields",
            [agent("a", FINE), (0..100_000).map(|n| format!("f{n}: 1\n")).collect()].concat().into_bytes(),
            "K0002",
        ),
        ("many broken documents", many("--- [\n", 1 << 20).into_bytes(), "K0006"),
        ("not UTF-8", b"kind: \xff\xfe\n".to_vec(), "not UTF-8"),
        ("UTF-16", b"\xff\xfek\0i\0n\0d\0".to_vec(), "not UTF-8"),
        ("NUL bytes", b"kind: \0\0\n".to_vec(), "K0"),
        ("tabs", b"kind:\n\tname: a\n".to_vec(), "K0001"),
        ("an unknown alias", b"kind: *a\n".to_vec(), "K0001"),
        ("an alias of itself", b"kind: &a [*a]\n".to_vec(), "K0"),
        ("deep Python", python(&format!("f = {}1", many("-", 120_000))), "K0006"),
        ("deep brackets", python(&format!("f = {}", many("(", 120_000))), "K0"),
        ("a long sum", python(&format!("f = 1{}", many(" + 1", 120_000))), "K0006"),
        ("large Python", python(&many("#", 1 << 20)), "K0006"),
        ("many operations", many_operations(25_000).into_bytes(), "K0205"),
    ]
}

fn many_operations(count: usize) -> String {
    let start = agent("a", FINE);
    let more: String = (0..count)
        .map(|n| format!("      - name: op{n}\n        map:\n          python: \"f = lambda v: v\"\n"))
        .collect();
    start + &more
}

#[test]
fn bad_input_is_told_and_costs_little() {
    for (name, bytes, part) in bad_inputs() {
        let folder = tempfile::tempdir().expect("a folder is made");
        let path = folder.path().join("spec.yaml");
        std::fs::write(&path, bytes).expect("a spec can be written");
        let (status, said, megabytes, loops) = measured(&path);
        assert!(status == i64::from(name != "many operations") && said.contains(part), "{name}: {status}, {said}");
        assert!(megabytes < 200.0, "{name}: {megabytes:.0} MB");
        // Two to eight seconds of a program that is built without optimisation, a tenth of that in release.
        assert!(loops < 100.0, "{name}: {loops:.1} times the loop");
    }
}

#[test]
fn anchors_and_merge_keys_are_read() {
    let text = r#"apiVersion: kaspr.io/v1alpha1
kind: KasprAgent
metadata: {name: a}
spec:
  input:
    topic: &settings {name: in, valueSerializer: json}
  output:
    topics:
      - <<: *settings
        name: out
"#;
    let folder = folder_of(&[("agent.yaml", text)]);
    let output = run("kasprc", &["compile", &folder.path().display().to_string()], "");
    assert!(output.status.success() && stdout(&output).contains("sink topic out"), "{}", stderr(&output));
}

/// A small generator of numbers with a fixed seed (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).expect("a usize has 64 bits") % bound.max(1)
    }
}

/// A spec with a few lines, words or bytes moved, doubled or lost.
fn mutated(text: &str, random: &mut Random) -> Vec<u8> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..=random.below(4) {
        let (one, two) = (random.below(lines.len()), random.below(lines.len()));
        match random.below(6) {
            0 => drop(lines.remove(one)),
            1 => lines.swap(one, two),
            2 => lines.insert(one, lines[two].clone()),
            3 => lines[one] = format!("{}{}", " ".repeat(random.below(5)), lines[one].trim_start()),
            4 => lines[one] = lines[one].replacen(": ", ["", ":", ": [", ": {", ": &a ", ": *a "][random.below(6)], 1),
            _ => {
                let words =
                    ["null", "5", "true", "- x", "def", "🦀", "\"", "'", "|", ">", "%", "---", "!!set", "<<: *a"];
                let at = (0..=lines[one].len())
                    .filter(|at| lines[one].is_char_boundary(*at))
                    .nth(random.below(lines[one].chars().count()));
                lines[one].insert_str(at.unwrap_or(0), words[random.below(words.len())]);
            }
        }
        if lines.is_empty() {
            break;
        }
    }
    let mut bytes = lines.join("\n").into_bytes();
    if random.below(4) == 0 && !bytes.is_empty() {
        let at = random.below(bytes.len());
        bytes[at] = u8::try_from(random.below(256)).expect("it is below 256");
    }
    bytes
}

fn texts() -> Vec<(PathBuf, String)> {
    let mut texts = Vec::new();
    for folder in golden_specs() {
        for entry in std::fs::read_dir(&folder).expect("a spec can be read") {
            let path = entry.expect("a spec can be read").path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                texts.push((path.clone(), std::fs::read_to_string(&path).expect("a spec can be read")));
            }
        }
    }
    texts.sort();
    texts
}

#[test]
fn whatever_a_spec_becomes_there_is_an_answer() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let texts = texts();
    for round in 0..3000 {
        let (path, text) = &texts[random.below(texts.len())];
        let bytes = mutated(text, &mut random);
        let file = kasprc::SourceFile { name: "spec.yaml".to_owned(), bytes };
        let files = std::slice::from_ref(&file);
        let answer = std::panic::catch_unwind(|| {
            let compiled = kasprc::compile(files, &kasprc::Options::default());
            let again = kasprc::compile(files, &kasprc::Options::default());
            let said = kasprc::render(&compiled.diagnostics, files, false);
            assert_eq!(said, kasprc::render(&again.diagnostics, files, false), "diagnostics are stable");
            let print =
                |compiled: &kasprc::Compiled| compiled.plan.as_ref().map(|plan| (plan.to_json(), plan.to_text()));
            assert_eq!(print(&compiled), print(&again), "plans are stable");
            if let Some(plan) = &compiled.plan {
                assert!(plan.to_dot().starts_with("digraph") && plan.to_mermaid().starts_with("flowchart"));
            }
        });
        let text = || String::from_utf8_lossy(&file.bytes).into_owned();
        assert!(answer.is_ok(), "round {round}, from {}:\n{}", path.display(), text());
    }
}

/// An app whose agents are joined by channels at random, without a loop.
fn channels(random: &mut Random) -> String {
    let count = 2 + random.below(7);
    // Names are shuffled, so that their order is not that of the channels.
    let mut names: Vec<String> = (0..count).map(|number| format!("agent-{number}")).collect();
    for number in (1..count).rev() {
        names.swap(number, random.below(number + 1));
    }
    let mut text = String::new();
    for (number, name) in names.iter().enumerate() {
        let input =
            if number == 0 { "topic: {name: in}".to_owned() } else { format!("channel: {{name: to-{number}}}") };
        let outputs: Vec<String> = (number + 1..count)
            .filter(|other| *other == number + 1 || random.below(3) == 0)
            .map(|other| format!("{{name: to-{other}}}"))
            .collect();
        text += &format!(
            "---\napiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata: {{name: {name}}}\nspec:\n  input: {{{input}}}\n  \
             output: {{channels: [{}]}}\n",
            outputs.join(", ")
        );
    }
    text
}

#[test]
fn agents_of_a_plan_stand_behind_those_that_feed_them() {
    let mut random = Random(42);
    for _ in 0..200 {
        let text = channels(&mut random);
        let file = kasprc::SourceFile { name: "app.yaml".to_owned(), bytes: text.clone().into_bytes() };
        let plan = kasprc::compile(&[file], &kasprc::Options::default()).plan.expect("the app compiles");
        let agents = &plan.readers[0].agents;
        let place = |agent| agents.iter().position(|other| *other == agent).expect("every agent is reached");
        assert_eq!(agents.len(), plan.agents.len());
        for writer in agents {
            for output in &plan[*writer].channel_outputs {
                for reader in &plan.channels[output.channel.index()].readers {
                    assert!(place(*writer) < place(*reader), "{text}");
                }
            }
        }
    }
}

/// The output of `kasprc check` on one file, the frames left out.
fn said(text: &str, arguments: &[&str]) -> Vec<String> {
    let folder = folder_of(&[("agent.yaml", text)]);
    let path = folder.path().display().to_string();
    let arguments = [&["check", &path, "--message-format", "json"], arguments].concat();
    let output = run("kasprc", &arguments, "");
    let of = |line: &str| {
        let fault: Value = serde_json::from_str(line).expect("each line is JSON");
        let text = |name: &str| fault[name].as_str().unwrap_or_default().to_owned();
        format!("{} {}", text("code"), text("message"))
    };
    stderr(&output).lines().map(of).collect()
}

#[test]
fn numbers_say_their_range_or_their_type() {
    let text = agent("a", FINE);
    for (field, message) in [
        ("partitions: 0", "\"spec.input.topic.partitions\" must be from 1 to 2147483647, found 0"),
        ("replicas: 0", "\"spec.input.topic.replicas\" must be from 1 to 32767, found 0"),
        ("retention: 1e30", "\"spec.input.topic.retention\" must be from 0 to 9223372036854775, found 1e30"),
        ("retention: -1", "\"spec.input.topic.retention\" must be from 0 to 9223372036854775, found -1"),
        ("retention: 2.5", "\"spec.input.topic.retention\" must be a whole number, found 2.5"),
    ] {
        let text = text.replace("name: events\n", &format!("name: events\n      {field}\n"));
        assert_eq!(said(&text, &[]), [format!("K0003 {message}")]);
    }
    for (max, message) in [
        ("\"3\"", "K0003 \"spec.input.take.max\" must be a whole number, found the string \"3\""),
        ("4294967296", "K0104 \"spec.input.take.max\" must be from 1 to 4294967295, found 4294967296"),
    ] {
        let text = text.replace("  processors:", &format!("    take: {{max: {max}, within: 5s}}\n  processors:"));
        assert_eq!(said(&text, &[]), [message]);
    }
    let text =
        text.replace("  processors:", "  onError: {action: retry, attempts: 0, backoff: {factor: nan}}\n  processors:");
    let expected = [
        "K0003 \"spec.onError.attempts\" must be from 1 to 4294967295, found 0",
        "K0003 \"spec.onError.backoff.factor\" must be from 1 to 1000, found nan",
    ];
    assert_eq!(said(&text, &[]), expected);
}

#[test]
fn fields_that_never_arrive_in_a_pod_are_named() {
    let text = agent("a", FINE)
        .replace("name: events\n", "name: events\n      declare: true\n      config: {retention.ms: 5}\n")
        .replace("  processors:", "  output: {topics: [{name: out, config: {retention.ms: 5}}]}\n  processors:");
    let table = "---\napiVersion: kaspr.io/v1alpha1\nkind: KasprTable\nmetadata:\n  name: totals\nspec:\n  extraTopicConfigs: {retention.ms: 5}\n  options: {write_buffer_size: 5}\n";
    let dropped = |field: &str| format!("K0602 the operator in use today drops \"spec.{field}\"");
    let expected =
        ["input.topic.declare", "input.topic.config", "output.topics[].config", "extraTopicConfigs", "options"];
    assert_eq!(said(&(text.clone() + table), &["--target", "operator"]), expected.map(dropped));
    assert_eq!(said(&(text + table), &[]), Vec::<String>::new());
    let empty = table.replace("{retention.ms: 5}", "{}").replace("{write_buffer_size: 5}", "null");
    assert_eq!(said(&(agent("a", FINE) + &empty), &["--target", "operator"]), Vec::<String>::new());
}

#[test]
fn policies_channels_and_sinks_never_arrive_in_a_pod_either() {
    let text = agent("a", FINE)
        .replace("  processors:", "  onError: {action: halt}\n  timeout: 5s\n  concurrency: 2\n  output:\n    channels: [{name: c}]\n    sinks: [{name: s, python: 'def s(value): pass'}]\n  processors:")
        .replace("        map:", "        onError: {action: skip}\n        timeout: 1s\n        map:");
    let reader = agent("b", FINE).replace("topic:\n      name: events", "channel:\n      name: c");
    let came = said(&(text + "---\n" + &reader), &["--target", "operator"]);
    for field in [
        "onError",
        "processors.operations[].onError",
        "timeout",
        "processors.operations[].timeout",
        "concurrency",
        "output.channels",
        "output.sinks",
    ] {
        let dropped = format!("K0602 the operator in use today drops \"spec.{field}\"");
        assert!(came.contains(&dropped), "{field}: {came:?}");
    }
    assert_eq!(came.iter().filter(|line| line.starts_with("K0602")).count(), 7, "{came:?}");
}

#[test]
fn faults_of_python_in_quotes_name_the_block_and_its_line() {
    let quoted = "agents:\n- name: orders\n  input: {topic: {name: in}}\n  processors:\n    operations:\n    - map:\n        \
                  python: \"def count(value):\\n    # \\xFC\\n    number = value[\\\"n\\\"]\\n    return nubmer\\n\"\n      \
                  name: count\n    pipeline: [count]\n";
    let folder = folder_of(&[("orders.yaml", quoted)]);
    let output = run("kasprc", &["check", &folder.path().display().to_string()], "");
    let words = stderr(&output);
    assert!(words.contains("K0506") && words.contains("= help: it is orders/count line 4\n"), "{words}");
    let literal = agent("a", "def step(value): return nubmer");
    let folder = folder_of(&[("a.yaml", &literal)]);
    let words = stderr(&run("kasprc", &["check", &folder.path().display().to_string()], ""));
    assert!(words.contains("K0506") && !words.contains("it is a/step"), "the file's own lines are enough: {words}");
}

#[test]
fn names_are_those_that_kubernetes_takes() {
    let refused = ["K0113 the name \"Orders_Agent\" is not allowed by Kubernetes"];
    assert_eq!(said(&agent("Orders_Agent", FINE), &[]), refused);
    let text = agent("no", FINE).replace("- step", "- off").replace("name: step", "name: off");
    let name = "K0113 \"metadata.name\" must be a string for Kubernetes, found a boolean";
    assert_eq!(said(&text, &[]), [name]);
    let expected = [
        name,
        "K0113 \"spec.processors.pipeline[0]\" must be a string for Kubernetes, found a boolean",
        "K0113 \"spec.processors.operations[0].name\" must be a string for Kubernetes, found a boolean",
    ];
    assert_eq!(said(&text, &["--target", "operator"]), expected);
}

#[test]
fn a_fault_has_no_echo() {
    let text = agent("a", "def step(value, totals): return value");
    let tables = |tables: &str| text.replace("        map:", &format!("        {tables}\n        map:"));
    let missing = ["K0005 required field \"tables[].paramName\" is missing"];
    assert_eq!(said(&tables("tables: [{name: t}]"), &[]), missing);
    let typo = tables("table: []");
    assert_eq!(said(&typo, &[]), ["K0002 unknown field \"spec.processors.operations[0].table\""]);
    let typo = agent("a", FINE).replace("map:", "mapp:");
    assert_eq!(said(&typo, &[]), ["K0002 unknown field \"spec.processors.operations[0].mapp\""]);
}

#[test]
fn what_a_terminal_would_obey_is_escaped_in_hints_too() {
    let misspelt = agent("a", FINE).replace("name: step", "name: \"st\\x1bep\"");
    let folder = folder_of(&[("agent.yaml", &misspelt)]);
    let output = kaspr_tests::program::run("kasprc", &["check", &folder.path().display().to_string()], "");
    let said = kaspr_tests::program::stderr(&output);
    assert!(said.contains("did you mean") && said.contains("\\u{1b}"), "{said}");
    assert!(!said.contains('\u{1b}'), "{said:?}");
}

#[test]
fn links_that_lead_back_are_not_followed_for_ever() {
    let folder = folder_of(&[("agent.yaml", &agent("a", FINE))]);
    let (at, inner) = (folder.path(), folder.path().join("inner"));
    std::fs::create_dir(&inner).expect("a folder can be made");
    for (link, to) in [(at.join("self"), at), (inner.join("up"), at), (at.join("other"), inner.as_path())] {
        std::os::unix::fs::symlink(to, link).expect("a link can be made");
    }
    let files = kasprc::load::files(&[at.to_owned()]).expect("they can be read");
    assert_eq!(files.len(), 1, "{:?}", files.iter().map(|file| &file.name).collect::<Vec<_>>());
}

/// A `KasprApp` with a line in its config.
fn app(setting: &str) -> String {
    format!(
        "---\napiVersion: kaspr.io/v1alpha1\nkind: KasprApp\nmetadata:\n  name: shop\nspec:\n  config:\n    {setting}\n"
    )
}

#[test]
fn settings_are_those_that_the_executor_knows() {
    let known: Vec<_> = kaspr_exec::config::settings::SETTINGS.iter().map(|setting| setting.name).collect();
    let ours: Vec<_> = kasprc::setting_names().collect();
    assert_eq!(ours, known);
    for (setting, expected) in [
        ("onErorr: skip", "K0410 kaspr-exec has no setting \"onErorr\""),
        ("onError: dlq", "K0406 \"onError\" must be one of skip, retry, deadLetter, halt, found \"dlq\""),
        ("onError: deadLetter", "K0407 the dead letter topic is not named"),
        (
            "onError: '{\"action\": \"retry\", \"attempts\": 0}'",
            "K0411 \"onError.attempts\" must be a whole number from 1 to 4294967295, found 0",
        ),
        ("allowPickle: true", "K0601 the setting \"allowPickle\" is not supported yet"),
        ("app: my shop", "K0411 \"app\" is no name that Kafka can keep: \"my shop\""),
        ("instance: a;b", "K0411 \"instance\" is no name that Kafka can keep: \"a;b\""),
        ("onError: {action: skip}", "K0003 \"spec.config.onError\" must be a scalar, found a mapping"),
        ("commitInterval: 1 sec", "K0105 \"1 sec\" is not a duration"),
        ("stallAfter: 0s", "K0411 \"stallAfter\" must be longer than 0"),
        ("concurrency: 0", "K0411 \"concurrency\" must be a whole number from 1 to 1000, found \"0\""),
        ("timeout: 10m", "K0408 \"timeout\" 10m is longer than 240s"),
        (
            "guarantee: exactly-onse",
            "K0411 \"guarantee\" must be exactly-once or at-least-once, found \"exactly-onse\"",
        ),
        (
            "from: yesterday",
            "K0411 \"from\" must be earliest or latest or a time in ms since 1970, found \"yesterday\"",
        ),
        ("webPort: 0", "K0411 \"webPort\" must be a whole number from 1 to 65535, found \"0\""),
        ("metricsCompat: maybe", "K0411 \"metricsCompat\" must be true or false, found \"maybe\""),
        ("webBind: nonsense", "K0411 \"webBind\" must be an address of the pod, found \"nonsense\""),
        (
            "bootstrapServers: a/b",
            "K0411 \"bootstrapServers\" names no brokers: \"a/b\" is no broker: host:port, with brackets around an IPv6 address, as [::1]:9092",
        ),
        ("bootstrapServers: 'bob:secret@a:9092'", "K0411 \"bootstrapServers\" names no brokers: a user stands in it"),
        ("brokerHeartbeatInterval: 30", "K0411 \"brokerHeartbeatInterval\" must be shorter than the session of 30 s"),
        ("deadLetterTopic: a b", "K0109 the topic name \"a b\" is not allowed by Kafka"),
    ] {
        assert_eq!(said(&(agent("a", FINE) + &app(setting)), &[]), [expected]);
    }
    for setting in [
        "onError: retry",
        "commitInterval: 50ms",
        "concurrency: 100",
        "timeout: 1.5m",
        "from: 1764000000000",
        "guarantee: at-least-once",
        "webBind: '[::]'",
        "bootstrapServers: kafka://a;b:9093",
        "brokerHeartbeatInterval: 29",
        "commitInterval: ''",
        "concurrency: ''",
        "brokerSessionTimeout: ''",
        "onError: ''",
        "guarantee: ''",
    ] {
        assert_eq!(said(&(agent("a", FINE) + &app(setting)), &[]), Vec::<String>::new(), "{setting}");
    }
}

/// Agents `a` and `b`, of which `b` reads a channel of `a`, and `c`, which shares a table with `b`.
fn three(concurrencies: [&str; 3]) -> String {
    let [a, b, c] = concurrencies.map(|units| match units {
        "" => String::new(),
        units => format!("spec:\n  concurrency: {units}\n"),
    });
    let of =
        |name: &str, more: &str| agent(name, FINE).replace("spec:\n", if more.is_empty() { "spec:\n" } else { more });
    let uses = "        tables: [{name: t, paramName: t}]\n        map:";
    let channel = |text: String| {
        let (before, rest) = text.split_once("    topic:\n").expect("it reads a topic");
        let (_, after) = rest.split_once("  processors:").expect("it has a pipeline");
        format!("{before}    channel: {{name: on}}\n  processors:{after}")
    };
    let a = of("a", &a).replace("  processors:", "  output: {channels: [{name: on}]}\n  processors:");
    let [b, c] = [channel(of("b", &b)), of("c", &c)]
        .map(|text| text.replace("        map:", uses).replace("def step(value)", "def step(value, t)"));
    format!("{a}---\n{b}---\n{c}---\napiVersion: kaspr.io/v1alpha1\nkind: KasprTable\nmetadata:\n  name: t\n")
}

#[test]
fn agents_that_belong_together_have_the_least_concurrency() {
    for (concurrencies, expected) in [
        (["100", "20", "30"], "up to 20 events of each partition await at once, together with other readers"),
        (
            ["100", "", "30"],
            "up to 30 events of each partition await at once, or the app's concurrency if that is less, together with other readers",
        ),
        (["", "", ""], "one event at a time, together with other readers"),
        (["1", "5", "5"], "one event at a time, together with other readers"),
    ] {
        let folder = folder_of(&[("app.yaml", &three(concurrencies))]);
        let output = run("kasprc", &["compile", &folder.path().display().to_string()], "");
        let plan = stdout(&output);
        let tracks: Vec<_> = plan.lines().filter_map(|line| line.trim().strip_prefix("track 0: ")).collect();
        assert_eq!(tracks, [expected, expected], "{concurrencies:?} {}", stderr(&output));
    }
    for (units, found) in [("0", "0"), ("1001", "1001")] {
        let text = agent("a", FINE).replace("spec:\n", &format!("spec:\n  concurrency: {units}\n"));
        assert_eq!(said(&text, &[]), [format!("K0003 \"spec.concurrency\" must be from 1 to 1000, found {found}")]);
    }
}

#[test]
fn awaits_one_after_the_other_are_noted_unless_the_spec_says_how_many() {
    let text = agent("a", "async def step(value): import asyncio; await asyncio.sleep(1); return value");
    let notes = |text: &str| {
        let folder = folder_of(&[("app.yaml", text)]);
        stderr(&run("kasprc", &["check", &folder.path().display().to_string()], ""))
    };
    let note = "concurrency: 10 lets ten of each partition overlap";
    assert!(notes(&text).contains(note), "{}", notes(&text));
    for other in [
        text.replace("spec:\n", "spec:\n  concurrency: 1\n"),
        text.replace("spec:\n", "spec:\n  isolatedPartitions: true\n"),
        format!("{text}{}", app("concurrency: 10")),
    ] {
        assert!(!notes(&other).contains(note), "{}", notes(&other));
    }
}

#[test]
fn what_the_executor_refuses_is_found() {
    let input = |codec: &str| {
        agent("a", FINE).replace("name: events\n", &format!("name: events\n      valueSerializer: {codec}\n"))
    };
    for codec in ["yaml", "json|binary"] {
        assert_eq!(said(&input(codec), &[]), [format!("K0601 the serializer \"{codec}\" is not supported yet")]);
    }
    let table = "---\napiVersion: kaspr.io/v1alpha1\nkind: KasprTable\nmetadata:\n  name: totals\nspec:\n";
    let pickled = format!("{}{table}  valueSerializer: pickle\n", agent("a", FINE));
    assert_eq!(said(&pickled, &[]), ["K0601 the serializer \"pickle\" is not supported yet"]);
    let window = format!("{}{table}  window: {{tumbling: {{size: 1m}}}}\n", agent("a", FINE));
    assert_eq!(said(&window, &[]), ["K0601 the window of the table \"totals\" is not supported yet"]);
    let channel = agent("a", FINE).replace("  processors:", "  output: {channels: [{name: audit}]}\n  processors:");
    assert_eq!(said(&channel, &[]), ["K0112 no agent of the app reads the channel \"audit\""]);
}

#[test]
fn files_without_an_agent_are_checked_by_themselves() {
    let folder = folder_of(&[("app.yaml", &app("onError: skip"))]);
    let path = folder.path().display().to_string();
    let output = run("kasprc", &["check", &path], "");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("note: the specs hold no KasprAgent"), "{}", stderr(&output));
    let output = run("kasprc", &["compile", &path], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("K0005"), "{}", stderr(&output));
}

#[test]
fn slips_of_the_python_are_found() {
    let with = |python: &str| agent("a", python).replace("spec:\n", "spec:\n  isolatedPartitions: true\n");
    let tables = "        tables: [{name: totals, paramName: t}]\n        map:";
    let table = "---\napiVersion: kaspr.io/v1alpha1\nkind: KasprTable\nmetadata:\n  name: totals\n";
    let of_table = |python: &str| with(python).replace("        map:", tables) + table;
    let take = |python: &str| with(python).replace("  processors:", "    take: {max: 2, within: 1s}\n  processors:");
    for (text, expected) in [
        (with("async def f(v): import time; time.sleep(1); return v"), "K0513 \"time.sleep\" blocks the event loop"),
        (
            with("async def f(v): import asyncio; asyncio.sleep(1); return v"),
            "K0512 the coroutine \"asyncio.sleep\" is not awaited",
        ),
        (
            of_table("def f(v, t): s = t[\"s\"]; s[\"n\"] += 1; return s"),
            "K0514 a change of a value of the table \"t\" is never assigned back",
        ),
        (of_table("def f(v, t): return t.gett(v)"), "K0515 tables have no attribute \"gett\""),
        (take("def f(events): return events[\"id\"]"), "K0516 \"f\" is given a list of values and asks it like a dict"),
    ] {
        assert_eq!(said(&text, &[]), [expected]);
    }
}

#[test]
fn an_allowance_accepts_one_finding() {
    let text = agent("a", FINE).replace("  processors:", "  output: {channels: [{name: audit}]}\n  processors:");
    let allowed = text.replace("audit}]}", "audit}]} # kaspr: allow K0112 read by hand");
    assert_eq!(said(&allowed, &["--deny-warnings"]), Vec::<String>::new());
    let annotated = text.replace("  name: a\n", "  name: a\n  annotations: {kaspr.io/allow: K0112}\n");
    assert_eq!(said(&annotated, &["--deny-warnings"]), Vec::<String>::new());
    assert_eq!(said(&text, &["--allow", "K0112"]), Vec::<String>::new());
    let unused = agent("a", FINE).replace("- step\n", "- step # kaspr: allow K0112\n");
    assert_eq!(said(&unused, &[]), ["K0009 the allowance of K0112 accepts nothing"]);
    assert_eq!(said(&agent("a", FINE), &["--allow", "K0112"]), [" --allow K0112 accepts nothing"]);
}

#[test]
fn what_is_no_yaml_is_said_in_ones_own_words() {
    let text = agent("a", FINE);
    let tab = text.replace("      name: events", "\tname: events");
    assert_eq!(said(&tab, &[]), ["K0001 the file is not well-formed YAML: the line begins with a tab"]);
    let quote = text.replace("- name: step", "- name: \"step");
    assert_eq!(said(&quote, &[]), ["K0001 the file is not well-formed YAML: the quote is never closed"]);
    assert_eq!(said(&format!("{text}{text}"), &[]), ["K0007 duplicate key \"apiVersion\""]);
    let empty = text.replace(&format!("            {FINE}\n"), "        timeout: 5s\n");
    assert_eq!(said(&empty, &[]), ["K0503 the block is empty"]);
    let dedented = text.replace(&format!("            {FINE}"), &format!("          {FINE}"));
    assert_eq!(said(&dedented, &[]), ["K0503 the block is empty"]);
    let blank = text.replace("python: |\n", "python: |\n\n\n").replace("return value", "return valeu");
    let folder = folder_of(&[("agent.yaml", &blank)]);
    assert_eq!(faults(folder.path()), expected(&[("K0506", "agent.yaml", 18, 37)]));
}
