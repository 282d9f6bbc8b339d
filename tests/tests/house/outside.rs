//! Homes of what reaches out of the program: the environment, the clock, the terminal, and sleep.

use crate::{Source, breaks, keeps, without_tests};

/// Calls of one kind, and the files and folders in which they may stand.
struct Reach {
    what: &'static str,
    calls: &'static [&'static str],
    homes: &'static [&'static str],
}

const REACHES: [Reach; 4] = [
    Reach {
        what: "the environment",
        calls: &["env::var", "env::args", "env::current_dir", "env::set_", "env::remove_var"],
        // CPython's own variables are read where it starts.
        homes: &["executor/src/cli/", "executor/src/code/python/interpreter.rs"],
    },
    Reach {
        what: "the clock",
        calls: &["Instant::now", "SystemTime::now", "clock_gettime"],
        homes: &["executor/src/clock.rs"],
    },
    Reach {
        what: "the terminal",
        calls: &["print!(", "println!(", "eprint!(", "eprintln!(", "dbg!(", "io::stdout(", "io::stderr("],
        homes: &[
            "compiler/src/cli/",
            "executor/src/main.rs",
            "executor/src/cli/",
            // Records of a local run, and what is flushed where CPython ends.
            "executor/src/run/local/run.rs",
            "executor/src/code/python/interpreter.rs",
        ],
    },
    Reach {
        what: "sleep",
        calls: &["thread::sleep(", "thread::park", "recv_timeout(", "wait_timeout", "libc::poll(", "nanosleep("],
        homes: &[
            // The worker thread sleeps here, or in the consumer's poll.
            "executor/src/wake.rs",
            "executor/src/worker/counts.rs",
            "executor/src/run/local/feed.rs",
            // Where a test holds the worker's thread.
            "executor/src/config/failpoint.rs",
            // Waits before the first event, each bounded.
            "executor/src/run/member.rs",
            "executor/src/broker/kafka/admin.rs",
            "executor/src/broker/kafka/rights.rs",
            "executor/src/broker/kafka/aside.rs",
            // Threads of their own.
            "executor/src/broker/kafka/orphans.rs",
            "executor/src/broker/kafka/waiting.rs",
            "executor/src/guard/",
            "executor/src/tables/store/census.rs",
            "executor/src/cli/supervisor.rs",
        ],
    },
];

fn reaches_out_at_home(sources: &[Source]) -> Vec<String> {
    let judged = sources.iter().filter(|source| source.path.contains("/src/") && source.is_rust() && !source.is_test());
    let judged: Vec<_> = judged.filter(|source| !source.path.starts_with("benches/")).collect();
    let mut faults = Vec::new();
    for reach in &REACHES {
        let reaching = |source: &&&Source| reach.calls.iter().any(|call| calls(without_tests(&source.code), call));
        let reaching: Vec<_> = judged.iter().filter(reaching).map(|source| source.path.as_str()).collect();
        let strangers = reaching.iter().filter(|path| !reach.homes.iter().any(|home| path.starts_with(home)));
        faults.extend(strangers.map(|path| format!("{path} reaches for {}, which has homes of its own", reach.what)));
        let empty = reach.homes.iter().filter(|home| !reaching.iter().any(|path| path.starts_with(**home)));
        let is_whole = sources.len() > 1;
        faults.extend(empty.filter(|_| is_whole).map(|home| {
            format!("{home} does not reach for {} any more: take it off the list of its homes", reach.what)
        }));
    }
    faults
}

/// True if a call stands in code, not as the end of a longer name.
fn calls(code: &str, call: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(call).any(|(at, _)| !code[..at].chars().next_back().is_some_and(is_word))
}

#[test]
fn environment_clock_terminal_and_sleep_have_homes() {
    keeps(reaches_out_at_home);
    let at = "executor/src/stage/mod.rs";
    for (text, fault) in [
        ("fn f() { std::env::var(\"HOME\"); }", "the environment"),
        ("fn f() { let now = Instant::now(); }", "the clock"),
        ("fn f() { println!(); }", "the terminal"),
        ("fn f() { std::thread::sleep(second); }", "sleep"),
    ] {
        breaks(reaches_out_at_home, at, text, fault);
    }
    let words = "// println!() is not called here\nfn f() { writeln!(out, \"thread::sleep(1)\"); }";
    assert!(reaches_out_at_home(&[Source::new(at, words.to_owned())]).is_empty());
}
