//! The rules of the house: where things live, how large they may be, and how their comments begin.
//!
//! Each rule looks at the sources and names what breaks it. Beside it stands a test that breaks it
//! once. Lists of exceptions only shrink: an exception that is no longer needed is a fault too.

mod done;
mod outside;
mod skeleton;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kaspr_tests::root;
use kasprc::diagnostics::Code;
use skeleton::{doc_comments, functions, skeleton};

/// A file of the project.
struct Source {
    /// Its path from the root.
    path: String,
    text: String,
    /// The text without comments and strings, of Rust files.
    code: String,
}

impl Source {
    fn new(path: &str, text: String) -> Source {
        let code = if path.ends_with(".rs") { skeleton(&text) } else { String::new() };
        Source { path: path.to_owned(), text, code }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Tests may be long and may name everything.
    fn is_test(&self) -> bool {
        let path = &self.path;
        path.starts_with("tests/")
            || path.starts_with("benches/")
            || path.ends_with("/tests.rs")
            || path.ends_with("corpus.rs")
    }
}

const CRATES: [&str; 5] = ["ir", "compiler", "executor", "tests", "benches"];

/// All sources of the project, in the order of their paths.
fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for folder in CRATES {
        collect(&root().join(folder), &mut sources);
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(sources.len() > 150, "only {} sources", sources.len());
    sources
}

fn collect(folder: &Path, sources: &mut Vec<Source>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the project can be read") {
        let path = entry.expect("a folder of the project can be read").path();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, sources);
        } else if matches!(extension, "rs" | "py" | "toml") {
            let text = std::fs::read_to_string(&path).expect("a source can be read");
            let path = path.strip_prefix(root()).expect("it stands in the project").display().to_string();
            sources.push(Source::new(&path, text));
        }
    }
}

fn keeps(rule: impl Fn(&[Source]) -> Vec<String>) {
    let faults = rule(&sources());
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Breaks a rule once: the fault is named.
fn breaks(rule: impl Fn(&[Source]) -> Vec<String>, path: &str, text: &str, fault: &str) {
    let faults = rule(&[Source::new(path, text.to_owned())]);
    assert!(faults.iter().any(|found| found.contains(fault)), "{fault:?} is not among {faults:?}");
}

/// Fields of a spec's tree that nothing behind reading asks.
fn is_asked(sources: &[Source]) -> Vec<String> {
    let behind = ["compiler/src/check/", "compiler/src/block.rs", "compiler/src/lib.rs"];
    let behind: Vec<_> =
        sources.iter().filter(|source| behind.iter().any(|place| source.path.starts_with(place))).collect();
    let trees = sources.iter().filter(|source| source.path == "compiler/src/ast.rs");
    let fields = trees.flat_map(|tree| tree.code.lines()).filter_map(|line| {
        let (name, _) = line.strip_prefix("    pub ")?.split_once(':')?;
        Some(name)
    });
    let unasked = fields.filter(|name| !behind.iter().any(|source| source.code.contains(&format!(".{name}"))));
    unasked.map(|name| format!("nothing asks the field {name} of a spec: it is accepted and does nothing")).collect()
}

#[test]
fn every_field_of_a_spec_is_asked() {
    keeps(is_asked);
    breaks(is_asked, "compiler/src/ast.rs", "pub struct Agent {\n    pub allow_pickle: bool,\n}\n", "allow_pickle");
}

/// True if a word stands in code: not as a part of a longer one.
fn names(code: &str, word: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back().is_some_and(is_word);
        let after = code[at + word.len()..].chars().next().is_some_and(is_word);
        !before && !after
    })
}

// ---- Which folder may name which crate ----

/// Crates, and the folders that may name them.
const HOMES: [(&str, &[&str]); 11] = [
    ("hyper", &["executor/src/web/"]),
    ("tokio", &["executor/src/web/"]),
    ("matchit", &["executor/src/web/"]),
    ("prometheus_client", &["executor/src/web/metrics/"]),
    ("pyo3", &["executor/src/code/python/"]),
    ("rdkafka", &["executor/src/broker/kafka/"]),
    ("rdkafka_sys", &["executor/src/broker/kafka/"]),
    ("fjall", &["executor/src/tables/store/"]),
    ("ruff_python_parser", &["compiler/src/python/"]),
    ("ruff_python_ast", &["compiler/src/python/"]),
    ("saphyr_parser", &["compiler/src/yaml/"]),
];

fn crates_stay_in_their_homes(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources.iter().filter(|source| source.path.contains("/src/") && !source.is_test()) {
        for (name, homes) in HOMES {
            let is_home = homes.iter().any(|home| source.path.starts_with(home));
            if names(&source.code, name) && !is_home {
                faults.push(format!("{} names {name}: only {} may", source.path, homes.join(", ")));
            }
        }
    }
    faults
}

#[test]
fn crates_are_named_in_their_homes_alone() {
    keeps(crates_stay_in_their_homes);
    breaks(crates_stay_in_their_homes, "executor/src/worker/mod.rs", "use pyo3::Python;", "names pyo3");
    breaks(crates_stay_in_their_homes, "compiler/src/read/mod.rs", "fn f(e: saphyr_parser::Event) {}", "saphyr_parser");
    assert!(crates_stay_in_their_homes(&[Source::new("ir/src/lib.rs", "// rdkafka".to_owned())]).is_empty());
}

// ---- Where a worker is put together ----

const ASSEMBLY: &str = "executor/src/run/assemble.rs";

fn workers_are_assembled_in_one_place(sources: &[Source]) -> Vec<String> {
    let strangers = sources.iter().filter(|source| source.path != ASSEMBLY);
    let strangers = strangers.filter(|source| source.code.contains("Worker::start(") && names(&source.code, "Parts"));
    strangers.map(|source| format!("{} puts a worker together: only {ASSEMBLY} does", source.path)).collect()
}

#[test]
fn a_worker_is_assembled_in_one_place() {
    keeps(workers_are_assembled_in_one_place);
    breaks(workers_are_assembled_in_one_place, "benches/src/bin/x.rs", "Worker::start(Parts { plan })", "bin/x.rs");
}

// ---- Unsafe code ----

/// Roots of crates in which no unsafe code may stand.
const SAFE: [&str; 3] = ["ir/src/lib.rs", "compiler/src/lib.rs", "compiler/src/main.rs"];

fn safe_crates_say_so(sources: &[Source]) -> Vec<String> {
    let roots = sources.iter().filter(|source| SAFE.contains(&source.path.as_str()));
    let silent = roots.filter(|source| !source.code.contains("#![forbid(unsafe_code)]"));
    silent.map(|source| format!("{} does not forbid unsafe code", source.path)).collect()
}

/// Files in which unsafe code may stand: where the system, the C client, CPython or the processor asks for it. The
/// list shrinks.
const UNSAFE: [&str; 26] = [
    "executor/src/cli/given.rs",
    "executor/src/main.rs",
    "executor/src/broker/kafka/describe.rs",
    "executor/src/broker/kafka/groups.rs",
    "executor/src/broker/kafka/inbox.rs",
    "executor/src/broker/kafka/leaders.rs",
    "executor/src/broker/kafka/offsets.rs",
    "executor/src/broker/kafka/outbox.rs",
    "executor/src/broker/kafka/raw.rs",
    "executor/src/broker/kafka/reports.rs",
    "executor/src/cli/stop.rs",
    "executor/src/cli/supervisor.rs",
    "executor/src/clock.rs",
    "executor/src/code/python/alarm.rs",
    "executor/src/code/python/call.rs",
    "executor/src/code/python/interpreter.rs",
    "executor/src/code/python/json/decode.rs",
    "executor/src/code/python/json/encode.rs",
    "executor/src/code/python/json/keys.rs",
    "executor/src/code/python/json/parser.rs",
    "executor/src/code/python/json/scan.rs",
    "executor/src/code/python/json/text.rs",
    "executor/src/code/python/mod.rs",
    "executor/src/guard/mark.rs",
    "executor/src/guard/watchdog.rs",
    "executor/src/wake.rs",
];

fn unsafe_code_stays_in_its_homes(sources: &[Source]) -> Vec<String> {
    let sources = sources.iter().filter(|source| source.path.starts_with("executor/src/"));
    let strangers = sources.filter(|source| names(&source.code, "unsafe") && !UNSAFE.contains(&source.path.as_str()));
    strangers.map(|source| format!("{} holds unsafe code", source.path)).collect()
}

fn public_items_must_have_docs(sources: &[Source]) -> Vec<String> {
    let roots = ["ir/src/lib.rs", "compiler/src/lib.rs", "executor/src/lib.rs"];
    let roots = sources.iter().filter(|source| roots.contains(&source.path.as_str()));
    let silent = roots.filter(|source| !source.code.contains("#![deny(missing_docs)]"));
    silent.map(|source| format!("{} does not deny missing docs", source.path)).collect()
}

#[test]
fn ir_and_compiler_forbid_unsafe_code() {
    keeps(safe_crates_say_so);
    breaks(safe_crates_say_so, "ir/src/lib.rs", "// #![forbid(unsafe_code)]\nmod plan;", "ir/src/lib.rs");
    keeps(unsafe_code_stays_in_its_homes);
    breaks(unsafe_code_stays_in_its_homes, "executor/src/stage/mod.rs", "fn f() { unsafe { g() } }", "stage/mod.rs");
    keeps(public_items_must_have_docs);
    breaks(public_items_must_have_docs, "ir/src/lib.rs", "pub mod plan;", "ir/src/lib.rs");
}

// ---- Sizes ----

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 600;

fn is_small(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut used: BTreeSet<(&str, &str)> = BTreeSet::new();
    for source in sources.iter().filter(|source| source.is_rust() && !source.is_test()) {
        let lines = source.text.lines().count();
        let mut judge = |name: &str, lines: usize, most: usize| {
            let exception = LARGE.iter().find(|(path, large)| *path == source.path && *large == name);
            used.extend(exception.filter(|_| lines > most));
            if lines > most && exception.is_none() {
                faults.push(format!("{} {name}: {lines} lines, {most} are the most", source.path));
            }
        };
        judge("", lines, FILE_LINES_MAX);
        functions(&source.code).iter().for_each(|(name, lines)| judge(name, *lines, FUNCTION_LINES_MAX));
    }
    let is_whole = sources.len() > 1;
    let needless = LARGE.iter().filter(|one| is_whole && !used.contains(one));
    faults.extend(needless.map(|(path, name)| format!("{path} {name} is small now: take it off the list LARGE")));
    faults
}

#[test]
fn functions_and_files_are_small() {
    keeps(is_small);
    let body = "    call();\n".repeat(FUNCTION_LINES_MAX - 1);
    breaks(is_small, "ir/src/long.rs", &format!("fn long() {{\n{body}}}\n"), "long: 71 lines");
    breaks(is_small, "ir/src/long.rs", &"// one\n".repeat(FILE_LINES_MAX + 1), "601 lines");
    let just = "    call();\n".repeat(FUNCTION_LINES_MAX - 2);
    assert!(is_small(&[Source::new("ir/src/x.rs", format!("fn f() {{\n{just}}}\n"))]).is_empty());
}

/// Files (without a name) and functions that are larger than they should be. The list shrinks.
const LARGE: [(&str, &str); 0] = [];

// ---- How doc comments begin ----

/// Words that begin a bare relative clause.
const RELATIVE: [&str; 10] = ["What", "Whether", "Who", "Whoever", "Whose", "Where", "Which", "When", "How", "Why"];

/// The share of doc comments, in percent, that may begin so. The limits shrink.
const RELATIVE_MAX: [(&str, usize); 5] =
    [("ir/src/", 3), ("compiler/src/", 3), ("executor/src/", 3), ("tests/", 3), ("benches/", 3)];

fn begins_with_a_noun_or_verb(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for (folder, most) in RELATIVE_MAX {
        let (mut all, mut relative) = (0, Vec::new());
        for source in sources.iter().filter(|source| source.path.starts_with(folder) && source.is_rust()) {
            for comment in doc_comments(&source.text) {
                all += 1;
                let first = comment.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
                if RELATIVE.contains(&first) {
                    relative.push(format!("  {}: {comment}", source.path));
                }
            }
        }
        if relative.len() * 100 > all * most {
            let (some, share) = (relative.len(), relative.len() * 100 / all.max(1));
            faults.push(format!("{some} of {all} doc comments of {folder} ({share} %) begin with a bare relative clause, {most} % is the most:\n{}", relative.join("\n")));
        }
    }
    faults
}

#[test]
fn doc_comments_begin_with_a_noun_or_a_verb() {
    keeps(begins_with_a_noun_or_verb);
    breaks(begins_with_a_noun_or_verb, "ir/src/x.rs", "/// Whether it is.\nfn f() {}\n", "1 of 1");
    assert!(
        begins_with_a_noun_or_verb(&[Source::new("ir/src/x.rs", "/// Asks whether it is.\n".to_owned())]).is_empty()
    );
}

// ---- Documents and codes ----

/// Pages that comments cite: every word that ends in `.md`.
fn cited_pages_exist(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    // This file cites pages that do not exist, to break the rule.
    for source in sources.iter().filter(|source| !source.path.starts_with("tests/tests/house/")) {
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '.' | '/' | '_' | '-');
        let comments = source.text.lines().filter(|line| line.contains("//") || line.trim_start().starts_with('#'));
        for word in comments.flat_map(|line| line.split(|c: char| !is_part(c))) {
            let word = word.trim_end_matches('.');
            let is_page = word.ends_with(".md") && word.len() > 3 && word != "page.md";
            if is_page && ["", "docs/"].iter().all(|folder| !root().join(folder).join(word).exists()) {
                faults.push(format!("{} cites {word}, which is not in the project", source.path));
            }
        }
    }
    faults
}

#[test]
fn pages_that_comments_cite_are_in_the_project() {
    keeps(cited_pages_exist);
    breaks(cited_pages_exist, "ir/src/x.rs", "// See docs/nothing.md, section 3.", "docs/nothing.md");
    assert!(cited_pages_exist(&[Source::new("ir/src/x.rs", "// See `delivery.md`.".to_owned())]).is_empty());
}

/// Most bytes of README.md.
const README_BYTES_MAX: u64 = 8192;

#[test]
fn the_readme_can_be_read_in_five_minutes() {
    let bytes = std::fs::metadata(root().join("README.md")).expect("there is a README").len();
    assert!(bytes <= README_BYTES_MAX, "README.md has {bytes} bytes, {README_BYTES_MAX} are the most");
}

/// Files that a code's folder must hold.
const OF_A_CODE: [&str; 4] = ["page.md", "broken.yaml", "expected.txt", "mended.yaml"];

fn missing_of_a_code(folder: &str) -> Vec<String> {
    let missing = OF_A_CODE.into_iter().map(|file| format!("specs/errors/{folder}/{file}"));
    missing.filter(|file| !root().join(file).is_file()).collect()
}

#[test]
fn every_code_has_a_page_and_specs() {
    let missing: Vec<String> = Code::ALL.iter().flat_map(|code| missing_of_a_code(code.folder())).collect();
    assert!(missing.is_empty(), "missing: {}", missing.join(", "));
    assert_eq!(missing_of_a_code("K9999-nothing").len(), OF_A_CODE.len());
}

// ---- Arrows between the rooms of a crate ----

/// The rooms of a crate, from the top down: a room may use those below it. A room is a folder or a
/// file at the crate's root.
struct House {
    folder: &'static str,
    rooms: &'static [&'static str],
    /// Arrows that point up today. The list shrinks.
    upward: &'static [(&'static str, &'static str)],
}

const HOUSES: [House; 3] = [
    House {
        folder: "ir/src/",
        rooms: &["lib", "print", "graph", "plan", "topics", "duration", "addresses"],
        upward: &[],
    },
    House {
        folder: "compiler/src/",
        rooms: &[
            "main",
            "cli",
            "lib",
            "schema",
            "schedule",
            "rules",
            "lower",
            "check",
            "options",
            "hir",
            "python",
            "block",
            "read",
            "ast",
            "load",
            "yaml",
            "diagnostics",
            "source",
            "cores",
        ],
        upward: &[],
    },
    House {
        folder: "executor/src/",
        rooms: &[
            "main",
            "cli",
            "run",
            "worker",
            "web",
            "check",
            "dataflow",
            "stage",
            "code",
            "delivery",
            "tables",
            "assignment",
            "broker",
            "status",
            "guard",
            "config",
            "event",
            "clock",
            "wake",
            "lib",
        ],
        upward: &[],
    },
];

/// The room of a path inside a crate.
fn room(path: &str) -> &str {
    path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

/// Rooms of its own crate that a file names: `crate::room::…`; what stands at the root counts as `lib`.
fn used(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let names = match rest.strip_prefix('{') {
            Some(group) => group.split('}').next().unwrap_or_default().split(',').map(str::trim).collect(),
            None => vec![rest],
        };
        for name in names {
            let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let is_room = name.chars().next().is_some_and(char::is_lowercase);
            used.insert(if is_room { name } else { "lib".to_owned() });
        }
    }
    used
}

/// Code before the unit tests at the foot of a file.
fn without_tests(code: &str) -> &str {
    code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

fn arrows_point_down(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut upward: BTreeMap<(&str, String), &str> = BTreeMap::new();
    for house in HOUSES {
        for source in sources.iter().filter(|source| source.is_rust() && !source.is_test()) {
            let Some(path) = source.path.strip_prefix(house.folder) else { continue };
            let from = room(path);
            let floor = |room: &str| house.rooms.iter().position(|one| *one == room);
            let Some(at) = floor(from) else {
                faults.push(format!("{}: the room {from} has no floor in HOUSES", source.path));
                continue;
            };
            for to in used(without_tests(&source.code)) {
                // Macros and functions at the root are the root's.
                let below = floor(&to).or_else(|| floor("lib"));
                if to != from && from != "lib" && below.is_some_and(|below| below < at) {
                    upward.insert((from, to), &source.path);
                }
            }
        }
        let is_known = |(from, to): (&str, &str)| upward.keys().any(|(a, b)| (*a, b.as_str()) == (from, to));
        let needless = house.upward.iter().filter(|arrow| sources.len() > 1 && !is_known(**arrow));
        faults.extend(needless.map(|(from, to)| format!("{from} → {to} points up no more: take it off the list")));
        upward.retain(|(from, to), _| !house.upward.contains(&(*from, to.as_str())));
    }
    faults.extend(upward.iter().map(|((from, to), path)| format!("{path}: {from} → {to} points up")));
    faults
}

#[test]
fn arrows_between_rooms_point_down() {
    keeps(arrows_point_down);
    breaks(arrows_point_down, "compiler/src/ast.rs", "use crate::check::check;", "ast → check points up");
    breaks(arrows_point_down, "compiler/src/yaml/mod.rs", "use crate::{Options, source::At};", "yaml → lib");
    breaks(arrows_point_down, "compiler/src/attic/mod.rs", "", "the room attic has no floor");
    assert!(arrows_point_down(&[Source::new("compiler/src/check/x.rs", "use crate::ast::Ast;".to_owned())]).is_empty());
}
