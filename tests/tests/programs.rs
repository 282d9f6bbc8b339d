//! Both programs from the outside: what they print, how they end, what they cost when idle.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::time::Duration;

use kaspr_tests::clock::pause;
use kaspr_tests::program::{command, run, stderr, stdout};
use kaspr_tests::sleeps::{IDLE_MAX, Wakes, ticks_beside_a_spinning_process};

const ECHO: &str = "specs/echo-agent/agent.yaml";

fn write(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("a spec can be written");
    path.display().to_string()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder is made")
}

/// The echo agent with another pipeline and other Python.
fn spec(pipeline: &str, python: &str) -> String {
    let text = std::fs::read_to_string(kaspr_tests::root().join(ECHO)).expect("the spec can be read");
    let text = text.replace("      - echo\n    operations", &format!("      - {pipeline}\n    operations"));
    let start = text.find("            def echo").expect("the spec defines echo");
    let python: String = python.lines().map(|line| format!("            {line}\n")).collect();
    format!("{}{python}", &text[..start])
}

#[test]
fn echo_prints_exactly_its_record() {
    let output = run("kaspr-exec", &["run", ECHO, "--local", "--input", "demo-input=-"], "{\"id\":1}\n");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let line = stdout(&output);
    let (before, after) = line.split_once("\"timestamp\":").expect("a record has a timestamp");
    let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
    assert_eq!(before, "{\"topic\":\"demo-output\",\"partition\":0,\"offset\":0,");
    assert_eq!(after, ",\"key\":null,\"value\":{\"id\": 1},\"headers\":[]}\n");
    assert!(stderr(&output).contains("1 events in, 1 records out, 0 failed"), "{}", stderr(&output));
}

#[test]
fn an_unknown_operation_is_refused_at_its_place() {
    let folder = folder();
    let path = write(&folder, "agent.yaml", &spec("ecko", "def echo(value):\n    return value"));
    for (program, arguments, code) in [
        ("kasprc", vec!["compile", path.as_str()], 1),
        ("kaspr-exec", vec!["run", path.as_str(), "--local", "--input", "demo-input=-"], 2),
    ] {
        let output = run(program, &arguments, "");
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains("error[K0201]: the pipeline names an operation \"ecko\" that is not defined"), "{text}");
        assert!(text.contains("agent.yaml:14:9") && text.contains("did you mean \"echo\"?"), "{text}");
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn broken_python_is_refused_at_its_place() {
    let folder = folder();
    let path = write(&folder, "agent.yaml", &spec("echo", "def echo(value)\n    return value"));
    let output = run("kaspr-exec", &["run", &path, "--local", "--input", "demo-input=-"], "");
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("error[K0501]: the Python does not parse") && text.contains("agent.yaml:19:28"), "{text}");
}

#[test]
fn a_failing_event_leaves_its_record_and_no_output() {
    let folder = folder();
    let path = write(&folder, "agent.yaml", &spec("echo", "def echo(value):\n    return 1 // value"));
    let failures = folder.path().join("failures.jsonl");
    let arguments = ["run", &path, "--local", "--input", "demo-input=-", "--failures", &failures.display().to_string()];
    let output = run("kaspr-exec", &arguments, "1\n0\n1\n");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().count(), 2);
    let failures = std::fs::read_to_string(failures).expect("failures are written");
    let failure: serde_json::Value = serde_json::from_str(&failures).expect("one failure, as JSON");
    let failure = &failure["failure"];
    assert_eq!(failure["kind"], "ZeroDivisionError");
    assert_eq!((&failure["operation"], &failure["offset"]), (&"echo".into(), &1.into()));
    assert_eq!(failure["at"], format!("{path}:20"));
    let text = stderr(&output);
    assert!(text.contains(&format!("File \"{path}\", line 20, in echo")), "the traceback points into the YAML: {text}");
    assert!(text.contains("return 1 // value"), "and shows its line: {text}");
}

#[test]
fn halt_commits_what_came_before_and_stops() {
    let folder = folder();
    let path = write(&folder, "agent.yaml", &spec("echo", "def echo(value):\n    return 1 // value"));
    let arguments = ["run", &path, "--local", "--input", "demo-input=-", "--on-error", "halt"];
    let output = run("kaspr-exec", &arguments, "1\n1\n0\n1\n");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().count(), 2);
    assert!(stderr(&output).contains("halted: agent \"echo-agent\": operation \"echo\" failed on demo-input/0@2"));
}

#[test]
fn wrong_use_is_named_and_ends_with_2() {
    let folder = folder();
    let unread = write(&folder, "in.jsonl", "{\"vaule\":1}\n");
    let input = format!("demo-input={unread}");
    for (arguments, why) in [
        (vec!["run", "no-such.yaml", "--local", "--input", "demo-input=-"], "cannot read \"no-such.yaml\""),
        (vec!["run", ECHO, "--local", "--input", "demo-imput=-"], "Did you mean \"demo-input\"?"),
        (
            vec!["run", ECHO, "--local", "--input", "demo-input=missing.jsonl"],
            "cannot read the input \"missing.jsonl\"",
        ),
        (vec!["run", ECHO, "--local"], "name an input with --input TOPIC=FILE"),
        (vec!["run", ECHO], "--local"),
        (vec!["run", ECHO, "--local", "--input", "demo-input"], "is not TOPIC=FILE"),
        (
            vec!["run", ECHO, "--local", "--input-format", "record", "--input", &input],
            "in.jsonl:1: the line is no record",
        ),
        (vec!["run", ECHO, "--local", "--input", "demo-input=-", "--on-error", "ignore"], "must be one of skip, retry"),
    ] {
        let output = run("kaspr-exec", &arguments, "");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(why), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn what_cannot_be_run_yet_is_refused_by_name() {
    let folder = folder();
    let text = spec("echo", "def echo(value):\n    return value");
    let table = "---\napiVersion: kaspr.io/v1alpha1\nkind: KasprTable\nmetadata:\n  name: totals\nspec:\n  window:\n    tumbling:\n      size: 1m\n";
    let path = write(&folder, "agent.yaml", &(text + table));
    let output = run("kaspr-exec", &["run", &path, "--local", "--input", "demo-input=-"], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("the window of the table \"totals\" is not supported yet"), "{}", stderr(&output));
}

#[test]
fn init_that_raises_stops_the_start() {
    let arguments = ["run", "specs/init-with-environment", "--local", "--input", "orders=-"];
    let output = run("kaspr-exec", &arguments, "1\n");
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("RuntimeError: Missing MY_VAR"), "{text}");
    assert!(text.contains("specs/init-with-environment/agent.yaml:19"), "{text}");
}

#[test]
fn a_plan_runs_as_its_specs_do() {
    let folder = folder();
    let plan = folder.path().join("plan.json").display().to_string();
    assert!(run("kasprc", &["compile", ECHO, "-o", &plan], "").status.success());
    let arguments = ["run", &plan, "--local", "--input", "demo-input=-"];
    assert!(stdout(&run("kaspr-exec", &arguments, "7\n")).contains("\"value\":7"));
    let changed = std::fs::read_to_string(&plan).expect("it is there").replace("return value", "return 5");
    std::fs::write(&plan, changed).expect("it can be written");
    let output = run("kaspr-exec", &arguments, "7\n");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("the plan was changed after it was compiled"), "{}", stderr(&output));
}

#[test]
fn a_closed_output_ends_quietly() {
    let mut child = command("kaspr-exec", &["run", ECHO, "--local", "--input", "demo-input=-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    let mut input = child.stdin.take().expect("it is piped");
    // The reader may be gone before everything is written.
    let _ = input.write_all("{\"id\":1}\n".repeat(10_000).as_bytes());
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
}

/// A running echo agent whose standard input stays open.
fn running(spec: &str) -> (Child, std::process::ChildStdin, BufReader<std::process::ChildStdout>) {
    let mut child = command("kaspr-exec", &["run", spec, "--local", "--input", "demo-input=-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let input = child.stdin.take().expect("it is piped");
    let output = BufReader::new(child.stdout.take().expect("it is piped"));
    (child, input, output)
}

fn next_line(output: &mut BufReader<std::process::ChildStdout>) -> String {
    let mut line = String::new();
    output.read_line(&mut line).expect("a line comes");
    line
}

#[test]
fn a_typed_line_comes_out_while_the_input_stays_open_and_sigterm_drains() {
    let (mut child, mut input, mut output) = running(ECHO);
    input.write_all(b"{\"id\":1}\n").expect("it listens");
    assert!(next_line(&mut output).contains("{\"id\": 1}"));
    input.write_all(b"{\"id\":2}\n").expect("it listens");
    assert!(next_line(&mut output).contains("{\"id\": 2}"));
    let pid = i32::try_from(child.id()).expect("a process id fits");
    // SAFETY: the process is our child and has not been waited for.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    assert_eq!(child.wait().expect("it ends").code(), Some(143));
}

#[test]
fn a_local_run_that_is_interrupted_says_how_far_it_came() {
    let folder = folder();
    let python = "import asyncio\nasync def echo(value):\n    if value == 7:\n        await asyncio.sleep(3600)\n    return value";
    let path = write(&folder, "agent.yaml", &spec("echo", python));
    let lines: String = (0..1200).map(|number| format!("{number}\n\n")).collect();
    let input = format!("demo-input={}", write(&folder, "in.jsonl", &lines));
    for (signal, status) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let mut child = command("kaspr-exec", &["run", &path, "--local", "--input", &input])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        (0..7).for_each(|_| drop(next_line(&mut output)));
        let pid = i32::try_from(child.id()).expect("a process id fits");
        // SAFETY: the process is our child and has not been waited for.
        unsafe { libc::kill(pid, signal) };
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(status), "{}", stderr(&output));
        assert!(stderr(&output).contains("interrupted: 7 of 1,200 events are complete"), "{}", stderr(&output));
    }
}

#[test]
fn colours_are_for_terminals_unless_they_are_asked_for() {
    let folder = folder();
    let path = write(&folder, "agent.yaml", &spec("ecko", "def echo(value):\n    return value"));
    for (program, arguments) in
        [("kasprc", vec!["check", &path]), ("kaspr-exec", vec!["run", &path, "--local", "--input", "demo-input=-"])]
    {
        for (more, variable, coloured) in [
            (vec![], ("NO_COLOR", ""), false),
            (vec!["--color", "always"], ("NO_COLOR", "1"), true),
            (vec![], ("CLICOLOR_FORCE", "1"), true),
            (vec!["--color", "never"], ("CLICOLOR_FORCE", "1"), false),
        ] {
            let arguments = [&arguments[..], &more[..]].concat();
            let mut command = command(program, &arguments);
            let output = command.env_remove("NO_COLOR").env(variable.0, variable.1).output().expect("it runs");
            assert_eq!(stderr(&output).contains('\u{1b}'), coloured, "{program} {arguments:?} {variable:?}");
        }
    }
}

/// Long flags in the help of a command.
fn flags_in_help(command: &str) -> Vec<String> {
    let help = stdout(&run("kaspr-exec", &[command, "--help"], ""));
    let options = help.lines().take_while(|line| !line.starts_with("Settings"));
    let words = options
        .filter_map(|line| line.trim_start().strip_prefix("-q, ").unwrap_or(line.trim_start()).split(' ').next());
    words.filter(|word| word.starts_with("--")).map(str::to_owned).collect()
}

#[test]
fn each_command_shows_and_takes_the_flags_that_it_uses() {
    let only_of_run = [
        "--local",
        "--input",
        "--input-format",
        "--output-dir",
        "--failures",
        "--partitions",
        "--until-caught-up",
        "--quiet",
    ];
    let (of_run, of_check, of_test) = (flags_in_help("run"), flags_in_help("check"), flags_in_help("test"));
    let more: Vec<&str> = of_run.iter().filter(|flag| !of_check.contains(flag)).map(String::as_str).collect();
    let mut expected = only_of_run.to_vec();
    let mut found = more;
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected, "{of_check:?}");
    for flag in ["--bootstrap-servers", "--kafka", "--workers", "--on-error", "--instance", "--log-format"] {
        assert!(of_check.iter().any(|one| one == flag), "{flag}: {of_check:?}");
    }
    for flag in ["--only", "--update", "--format", "--python-path", "--log-level"] {
        assert!(of_test.iter().any(|one| one == flag), "{flag}: {of_test:?}");
    }
    assert!(!of_test.iter().any(|flag| flag == "--workers" || flag == "--quiet"), "{of_test:?}");
    for command in ["run", "check"] {
        let help = stdout(&run("kaspr-exec", &[command, "--help"], ""));
        assert!(help.contains("commitInterval   KASPR_COMMIT_INTERVAL"), "the table of settings: {help}");
    }
    // A flag of another command says so; a secret that stands there is not printed.
    for (arguments, why) in [
        (vec!["check", ECHO, "--input", "demo-input=-"], "'--input' is an option of \"kaspr-exec run\""),
        (vec!["check", ECHO, "--local"], "'--local' is an option of \"kaspr-exec run\""),
        (
            vec!["test", "specs", "--workers", "2"],
            "'--workers' is an option of \"kaspr-exec run\" and \"kaspr-exec check\"",
        ),
        (vec!["test", "specs", "--kafka", "sasl.password=hush"], "'--kafka' is an option of"),
        (vec!["run", ECHO, "--bootstrap-servers", "h:1", "--failures", "f"], "cannot be used with"),
        (vec!["run", ECHO, "--failures", "f"], "--local"),
        (vec!["run", ECHO, "--local", "--workers", "2"], "cannot be used with"),
        (vec!["run", ECHO, "--lokal"], "'--local'"),
        // The command line of a run may be checked as it is.
        (vec!["check", ECHO, "--until-caught-up", "--quiet", "--workers", "2"], "error: where to? --bootstrap-servers"),
    ] {
        let output = run("kaspr-exec", &arguments, "");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(why), "{arguments:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("hush"), "{}", stderr(&output));
    }
}

#[test]
fn the_executor_has_completions_and_man_pages() {
    let folder = folder();
    let path = folder.path().display().to_string();
    assert!(stdout(&run("kaspr-exec", &["completions", "bash"], "")).contains("complete -F _kaspr__exec"));
    assert!(run("kaspr-exec", &["man", &path], "").status.success());
    assert!(folder.path().join("kaspr-exec-run.1").exists());
}

/// Asserts that an idle process wakes rarely; a failure names the threads that woke, and how often.
fn wakes_little(wakes: &Wakes) {
    assert!(wakes.own() <= IDLE_MAX, "{:.1} wake-ups a second: {wakes:?}", wakes.own());
}

#[test]
fn an_idle_process_costs_nothing() {
    let folder = folder();
    // The second event awaits for as long as the process is measured.
    let python = "import asyncio\nasync def echo(value):\n    await asyncio.sleep(3600 if value == 2 else 0.001)\n    return value";
    let path = write(&folder, "agent.yaml", &spec("echo", python));
    let (mut child, mut input, mut output) = running(&path);
    for line in ["1\n", "2\n"] {
        input.write_all(line.as_bytes()).expect("it listens");
        if line == "1\n" {
            next_line(&mut output);
        }
        pause(Duration::from_secs(2));
        wakes_little(&Wakes::count(child.id(), Duration::from_secs(11)));
    }
    // The sleeping worker reacts to a signal, and gives up what it awaits.
    let pid = i32::try_from(child.id()).expect("a process id fits");
    // SAFETY: the process is our child and has not been waited for.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    assert_eq!(child.wait().expect("it ends").code(), Some(143));
}

/// Whether more input may come or not: a run whose input has ended waits for its last events.
#[test]
fn a_local_run_sleeps_in_awaits_and_back_offs() {
    let folder = folder();
    let awaits = "import asyncio\nasync def echo(value):\n    if value == 2:\n        await asyncio.sleep(3600)\n    return value";
    let fails = "def echo(value):\n    if value == 2:\n        raise OSError('busy')\n    return value";
    let retries = "spec:\n  onError: {action: retry, attempts: 2, backoff: {initial: 1h, max: 1h}}\n";
    for (name, text) in [("awaits", spec("echo", awaits)), ("fails", spec("echo", fails).replace("spec:\n", retries))] {
        let path = write(&folder, &format!("{name}.yaml"), &text);
        for has_ended in [true, false] {
            let (mut child, mut input, mut output) = running(&path);
            input.write_all(b"1\n2\n").expect("it listens");
            assert!(next_line(&mut output).contains("\"value\":1"), "{name}");
            let held = (!has_ended).then_some(input);
            pause(Duration::from_secs(1));
            let (own, control) = ticks_beside_a_spinning_process(child.id(), Duration::from_secs(3));
            child.kill().expect("it runs");
            child.wait().expect("it ends");
            drop(held);
            assert!(own * 10 <= control, "{name}, {has_ended}: {own} ticks, a process that spins had {control}");
        }
    }
}

#[test]
fn a_background_task_that_sleeps_costs_nothing() {
    let folder = folder();
    let python = "import asyncio\nkept = []\ndef echo(value):\n    kept.append(asyncio.create_task(asyncio.sleep(3600)))\n    \
                  return value";
    let path = write(&folder, "agent.yaml", &spec("echo", python));
    let (mut child, mut input, mut output) = running(&path);
    input.write_all(b"1\n").expect("it listens");
    next_line(&mut output);
    pause(Duration::from_secs(2));
    wakes_little(&Wakes::count(child.id(), Duration::from_secs(11)));
    drop(input);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn what_make_test_sums_up_names_all_that_failed() {
    let said = "     Running tests/a.rs (target/debug/deps/a-1f)\ntest one ... ok\ntest room::two ... FAILED\n\
        test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s\n\
        error: test failed, to rerun pass `-p tests --test a`\n\
        \u{20}    Running tests/b.rs (target/debug/deps/b-2f)\nerror: test failed, to rerun pass `-p tests --test b`\n\
        \u{20}  Doc-tests c\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s\n";
    let sums_up = |said: &str| {
        let mut child = std::process::Command::new("python3")
            .arg(kaspr_tests::root().join("tests/summary.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        child.stdin.take().expect("it is piped").write_all(said.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        (output.status.code(), stdout(&output))
    };
    let (status, text) = sums_up(said);
    let end = "failed: a: room::two\n  again: cargo test -p tests --test a -- --exact 'room::two'\n\
        failed: b ended before its tests did\n  again: cargo test -p tests --test b\n3 passed, 2 failed\n";
    assert!(status == Some(1) && text.ends_with(end), "{text}");
    let fine = &said[said.find("   Doc-tests").expect("it is there")..];
    let (status, text) = sums_up(fine);
    assert!(status == Some(0) && text.ends_with("2 passed, 0 failed\n"), "{text}");
    assert_eq!(sums_up("error: could not compile `a`\n").0, Some(1));
}

#[test]
fn user_code_cannot_end_the_process() {
    let folder = folder();
    let python = "import sys\ndef recurse(): return recurse()\n\
                  def echo(value):\n    if value == 1: sys.exit(3)\n    if value == 2: raise KeyboardInterrupt\n    \
                  if value == 3: recurse()\n    if value == 4: return {1, object()}\n    return value";
    let path =
        write(&folder, "agent.yaml", &spec("echo", python).replace("map:\n", "map:\n          entrypoint: echo\n"));
    let output = run("kaspr-exec", &["run", &path, "--local", "--input", "demo-input=-"], "1\n2\n3\n4\n5\n");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().count(), 1);
    for kind in ["SystemExit", "KeyboardInterrupt", "RecursionError", "Encode"] {
        assert!(stderr(&output).contains(kind), "{kind}: {}", stderr(&output));
    }
}

#[test]
fn kasprc_prints_every_stage() {
    for (emit, part) in [
        ("plan", "reader echo-agent"),
        ("json", "\"planVersion\": 1"),
        ("dot", "digraph \"echo-agent\""),
        ("ast", "Ast {"),
        ("hir", "Hir {"),
        ("graph", "Graph {"),
    ] {
        let output = run("kasprc", &["compile", ECHO, "--emit", emit], "");
        assert!(output.status.success() && stdout(&output).contains(part), "{emit}: {}", stderr(&output));
    }
}

#[test]
fn variables_that_look_like_settings_are_refused_without_their_values() {
    let with = |arguments: &[&str], misspelt: bool| {
        let mut command = command("kaspr-exec", arguments);
        if misspelt {
            command.envs([("KASPR_COMIT_INTERVAL", "hunter2"), ("KASPR_ZOO", "hunter2")]);
        }
        command.envs([
            ("KASPR_STALL_AFTER", "20s"),
            ("KASPR_EMPTY", ""),
            ("KASPR_APP_SERVICE_HOST", "10.0.0.1"),
            ("K_OF_THE_OPERATOR", "1"),
        ]);
        command.stdin(Stdio::null()).output().expect("it starts")
    };
    let run = ["run", ECHO, "--local", "--quiet", "--log-level", "error", "--input", "demo-input=-"];
    let said = "error: the variable KASPR_COMIT_INTERVAL is no setting of kaspr-exec\n  \
                = help: did you mean KASPR_COMMIT_INTERVAL?\n\
                error: the variable KASPR_ZOO is no setting of kaspr-exec\n  \
                = help: `kaspr-exec run --help` lists the settings\n";
    for arguments in [&run[..], &["check", "no-such-folder"], &["test", "specs/tested"]] {
        let refused = with(arguments, true);
        assert_eq!((refused.status.code(), stderr(&refused)), (Some(2), said.to_owned()), "{arguments:?}");
    }
    let ran = with(&run, false);
    assert_eq!((ran.status.code(), stderr(&ran)), (Some(0), String::new()));
    let lines = stderr(&with(&[&run[..], &["--log-format", "json"]].concat(), true));
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap_or_default()).expect("an object");
    let message = first["message"].as_str().unwrap_or_default();
    assert!(first["level"] == "ERROR" && message.starts_with("the variable KASPR_COMIT_INTERVAL"), "{lines}");
}
