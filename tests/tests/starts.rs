//! A start looks at everything before it makes anything: one that fails has made neither topics nor files.

use std::path::PathBuf;
use std::process::Output;

use kaspr_tests::counting::shop;
use kaspr_tests::kafka::{broker, unique};
use kaspr_tests::program::{command, stderr};

/// An agent with a table, and an output that is declared. `more` is another output; `init` ends its init block.
fn spec(input: &str, (declared, more): (&str, Option<&str>), init: &str) -> String {
    let declared = format!("{{name: {declared}, declare: true, partitions: 1}}");
    let outputs: Vec<String> = std::iter::once(declared).chain(more.map(str::to_owned)).collect();
    shop(input, &outputs, &format!("open(\"touched\", \"w\").close()\n{init}"))
}

/// A start in a folder of its own.
struct Start {
    folder: tempfile::TempDir,
}

impl Start {
    /// A folder with a spec, an input of one event, and a file.
    fn new(spec: &str) -> Start {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in [("agents.yaml", spec), ("events", "1\n"), ("file", "kept")] {
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        Start { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, flags: &[&str]) -> Output {
        let mut command = command("kaspr-exec", &["run"]);
        command.arg(self.path("agents.yaml")).args(flags).current_dir(self.folder.path()).output().expect("it runs")
    }

    /// Runs, and asserts that the start fails with these words, and that nothing was made beside `more`.
    #[track_caller]
    fn fails(&self, flags: &[&str], (status, why): (i32, &str), more: &[&str]) {
        let output = self.run(flags);
        assert_eq!(output.status.code(), Some(status), "{flags:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(why), "{why}: {}", stderr(&output));
        let mut names: Vec<String> = std::fs::read_dir(self.folder.path())
            .expect("it is there")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        let mut expected = [&["agents.yaml", "events", "file"], more].concat();
        expected.sort_unstable();
        assert_eq!(names, expected, "{flags:?}: {}", stderr(&output));
        assert_eq!(std::fs::read_to_string(self.path("file")).expect("it is there"), "kept");
    }
}

#[test]
fn a_local_start_that_fails_leaves_nothing() {
    let start = |init: &str| Start::new(&spec("in", ("out", None), init));
    let all =
        ["--local", "--input", "in=events", "--output-dir", "out", "--failures", "failures", "--state-dir", "state"];
    let with = |flag: &str, value: &'static str| {
        let at = all.iter().position(|one| *one == flag).expect("it is given") + 1;
        let mut flags = all;
        flags[at] = value;
        flags
    };
    // A fault of user code is found last, and a file of failures that is there is not touched.
    for flags in [all, with("--failures", "file")] {
        start("raise OSError('no')").fails(&flags, (1, "OSError: no"), &["touched"]);
    }
    for (flag, value, end) in [
        ("--input", "in=missing", (2, "cannot read the input \"missing\"")),
        ("--input", "elsewhere=events", (2, "no agent reads the topic \"elsewhere\"")),
        ("--output-dir", "file/out", (2, "the output folder \"file/out\" cannot be written")),
        ("--failures", "nowhere/failures", (2, "the file of failures \"nowhere/failures\" cannot be written")),
        ("--state-dir", "file", (1, "file\" cannot be used")),
        ("--state-dir", "file/state", (1, "file/state\" cannot be used")),
    ] {
        start("pass").fails(&with(flag, value), end, &[]);
    }
    // Without a fault, everything is made.
    let start = start("pass");
    let output = start.run(&all);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for made in ["out/out.jsonl", "out/tables/counts.jsonl", "failures", "state/running.0", "state/tables.0"] {
        assert!(start.path(made).exists(), "{made}: {}", stderr(&output));
    }
}

#[test]
fn a_start_on_kafka_that_fails_leaves_nothing() {
    let broker = broker();
    let (input, declared, app) = (broker.topic("in", 2), unique("declared"), unique("app"));
    let changelog = format!("{app}-counts-changelog");
    let flags = ["--bootstrap-servers", &broker.servers, "--app", &app, "--until-caught-up", "--state-dir", "state"];
    let fails = |spec: &str, flags: &[&str], end: (i32, &str), more: &[&str]| {
        Start::new(spec).fails(flags, end, more);
        assert_eq!((broker.partitions(&declared), broker.partitions(&changelog)), (0, 0), "{end:?}");
    };
    let fine = spec(&input, (&declared, None), "pass");
    let other = |more: &str| spec(&input, (&declared, Some(more)), "pass");
    // A topic that is missing, one that no broker would make, topics that cannot share a table, user code, and
    // the state dir.
    let (missing, why) = (unique("missing"), "does not exist; create it");
    fails(&other(&format!("{{name: {missing}}}")), &flags, (1, why), &[]);
    let replicas = format!("{{name: {missing}, declare: true, partitions: 1, replicas: 3}}");
    fails(&other(&replicas), &flags, (1, "does not exist yet, and cannot be created"), &[]);
    assert_eq!(broker.partitions(&missing), 0);
    let second = fine.replace("name: shop", "name: second").replace(&input, &broker.topic("in", 3));
    let second = second.split_once("---").expect("the table, and the agent").1;
    fails(&format!("{fine}---{second}"), &flags, (1, "must have equal partition counts"), &[]);
    fails(&fine.replace("        pass\n", "        raise OSError('no')\n"), &flags, (1, "OSError: no"), &["touched"]);
    let in_file = [&flags[..flags.len() - 1], &["file"]].concat();
    fails(&fine, &in_file, (1, "file\" cannot be used"), &[]);
    // Without a fault, everything is made.
    let start = Start::new(&fine);
    let output = start.run(&flags);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!((broker.partitions(&declared), broker.partitions(&changelog)), (1, 2), "{}", stderr(&output));
    assert!(start.path("state/running.0").exists());
}

/// A state dir that another process holds is known before user code runs.
#[test]
fn a_state_dir_in_use_is_known_before_user_code_runs() {
    let start = Start::new(&spec("in", ("out", None), "pass"));
    std::fs::create_dir(start.path("state")).expect("made");
    let held = std::fs::File::create(start.path("state/running.0")).expect("made");
    held.lock().expect("it is free");
    let flags = ["--local", "--input", "in=events", "--output-dir", "out", "--state-dir", "state"];
    start.fails(&flags, (1, "is in use by another worker 0"), &["state"]);
}
