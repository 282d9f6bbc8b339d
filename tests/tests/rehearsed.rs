//! Users' tests that put something in the place of the world: time, functions, variables; and how they compare
//! what came.

use kaspr_tests::program::{run, said_of_tests, stderr, stdout};

/// An agent from `in` to `out` with one map, `step`, behind this init block.
fn agent(init: &str, python: &str) -> String {
    let block = |text: &str, indent: &str| text.lines().map(|line| format!("{indent}{line}\n")).collect::<String>();
    format!(
        "apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata: {{name: orders}}\nspec:\n  input: {{topic: {{name: in}}}}\n  \
         output: {{topics: [{{name: out}}]}}\n  processors:\n    init:\n      python: |\n{}    pipeline: [step]\n    operations:\n      \
         - name: step\n        map:\n          entrypoint: step\n          python: |\n{}",
        block(init, "        "),
        block(python, "            ")
    )
}

/// Plays one test, whose fields are indented by four; gives the exit status and all that is said.
#[track_caller]
fn play(spec: &str, fields: &str) -> (Option<i32>, String) {
    said_of_tests(spec, &format!("tests:\n  - name: one\n{fields}"))
}

#[track_caller]
fn passes(spec: &str, fields: &str) {
    let (status, said) = play(spec, fields);
    assert_eq!(status, Some(0), "{fields}{said}");
}

/// Checks that the test fails at this line of the file, with these words.
#[track_caller]
fn fails(spec: &str, fields: &str, line: u32, words: &str) {
    let (status, said) = play(spec, fields);
    assert_eq!(status, Some(1), "{fields}{said}");
    assert!(said.contains(words) && said.contains(&format!("tests.yaml:{line}")), "{fields}{said}");
}

const SAME: &str = "def step(value):\n    return value\n";
const ONE: &str = "    events: [{topic: in, value: {a: 1, b: {c: 2, d: [{e: 3, f: 4}]}}}]\n";

#[test]
fn a_part_of_a_value_is_compared_at_every_depth() {
    let spec = agent("import os", SAME);
    let test = |record: &str| format!("{ONE}    expect:\n      topics:\n        out: [{{{record}}}]\n");
    passes(&spec, &test("valueHas: {b: {c: 2, d: [{e: 3}]}}"));
    passes(&spec, &test("valueHas: {}"));
    fails(&spec, &test("value: {a: 1}"), 6, "value.b:\n       expected nothing");
    fails(&spec, &test("valueHas: {b: {c: 3}}"), 6, "valueHas.b.c:\n       expected 3\n       came     2");
    fails(&spec, &test("valueHas: {x: 1}"), 6, "valueHas.x:\n       expected 1\n       came     nothing");
    fails(&spec, &test("valueHas: {b: {d: []}}"), 6, "valueHas.b.d:");
    let dropped = agent("import os", "def step(value):\n    return None\n")
        .replace("[{name: out}]", "[{name: out, valueSerializer: raw}]");
    fails(&dropped, &test("valueHas: {a: 1}"), 6, "a tombstone, which is \"tombstone: true\"");
}

#[test]
fn whole_numbers_are_compared_digit_by_digit() {
    let (spec, number) = (agent("import os", SAME), "123456789012345678901234567890");
    let other = number.replace("890", "891");
    let test = |expected: &str| {
        format!(
            "    events: [{{topic: in, value: {{n: [{number}]}}}}]\n    expect:\n      topics:\n        out: [{{value: {{n: [{expected}]}}}}]\n"
        )
    };
    passes(&spec, &test(number));
    fails(&spec, &test(&other), 6, "891\n");
}

#[test]
fn floats_are_compared_as_they_are_written_unless_they_may_differ() {
    let spec =
        agent("import os", "def step(value, t):\n    t['k'] = [0.1 + 0.2]\n    return {'n': 0.1 + 0.2, 's': 'x'}\n")
            .replace("        map:", "        tables: [{name: sums, paramName: t}]\n        map:")
            + "---\napiVersion: kaspr.io/v1alpha1\nkind: KasprTable\nmetadata: {name: sums}\n";
    let test = |expect: &str| format!("    events: [{{topic: in, value: 1}}]\n    expect:\n{expect}");
    fails(&spec, &test("      topics: {out: [{value: {n: 0.3, s: x}}]}\n"), 5, "came     0.30000000000000004");
    passes(&spec, &test("      topics: {out: [{value: {n: 0.30000000000000004, s: x}}]}\n"));
    passes(&spec, &test("      topics: {out: [{value: {n: 0.3, s: x}, approx: 1e-9}]}\n"));
    passes(&spec, &test("      topics: {out: [{value: {n: 1, s: x}, approx: 0.7}]}\n"));
    fails(&spec, &test("      topics: {out: [{value: {n: 1, s: x}, approx: 0.6}]}\n"), 5, "value.n:");
    fails(&spec, &test("      topics: {out: [{value: {n: 0.3, s: y}, approx: 9}]}\n"), 5, "value.s:");
    passes(
        &spec,
        &test("      approx: 0.001\n      tables: {sums: {k: [0.3]}}\n      topics: {out: [{valueHas: {n: 0.3}}]}\n"),
    );
    // What a record says for itself goes first.
    fails(&spec, &test("      approx: 9\n      topics: {out: [{valueHas: {n: 1}, approx: 0.1}]}\n"), 6, "valueHas.n:");
    fails(&spec, &test("      tables: {sums: {k: [0.3]}}\n"), 5, "table \"sums\", key \"k\"[0]:");
}

#[test]
fn timers_run_on_the_clock_of_the_test() {
    let init = "import asyncio\nticks = []\nasync def tick():\n    while True:\n        await asyncio.sleep(60)\n        ticks.append(1)\n\
                async def init():\n    await asyncio.sleep(3600)\n    asyncio.create_task(tick())\n";
    let python = "async def step(value):\n    loop = asyncio.get_running_loop()\n    began = loop.time()\n    \
                  await asyncio.sleep(value)\n    return [round(loop.time() - began, 6), len(ticks)]\n";
    let spec = agent(init, python);
    // The second waits for the first, and background tasks go on meanwhile.
    passes(
        &spec,
        "    events: [{topic: in, value: 200}, {topic: in, value: 0.5, at: 5s}]\n    advance: 2h\n    \
         expect: {topics: {out: [{value: [200.0, 3]}, {value: [0.5, 3]}]}}\n",
    );
    // What is not over when the test ends is awaited, as the end of the input is.
    passes(&spec, "    events: [{topic: in, value: 30}]\n    expect: {topics: {out: [{value: [30.0, 0]}]}}\n");
    let limited = "async def step(value):\n    return await asyncio.wait_for(asyncio.Event().wait(), 3600)\n";
    passes(
        &agent("import asyncio", limited).replace("spec:\n", "spec:\n  timeout: 10s\n"),
        "    events: [{topic: in, value: 1}]\n    advance: 20s\n    expect: {failures: [{kind: Timeout}]}\n",
    );
}

#[test]
fn the_clock_of_a_test_waits_for_threads_and_files() {
    // Each is real, and comes long before the timer that would end it.
    let init = "import asyncio, os, threading, time\n";
    let python = "async def step(value):\n    slow = asyncio.to_thread(time.sleep, 0.3)\n    await asyncio.wait_for(slow, 60)\n    \
                  reads, writes = os.pipe()\n    loop, came = asyncio.get_running_loop(), asyncio.Event()\n    \
                  loop.add_reader(reads, came.set)\n    threading.Timer(0.3, os.write, (writes, b'x')).start()\n    \
                  await asyncio.wait_for(came.wait(), 60)\n    loop.remove_reader(reads)\n    \
                  child = await asyncio.create_subprocess_exec('true')\n    return await asyncio.wait_for(child.wait(), 60)\n";
    passes(&agent(init, python), "    events: [{topic: in, value: 1}]\n    expect: {topics: {out: [{value: 0}]}}\n");
}

#[test]
fn a_mock_gives_a_value_a_sequence_or_an_error() {
    let init = "class Shut(Exception):\n    pass\ndef price(item, *, rate=1):\n    raise Shut()\nasync def stock(item):\n    raise Shut()\n\
                def parts(item):\n    yield 0\nasync def later(item):\n    yield 0\n";
    let python = "async def step(value):\n    try:\n        n = price(value, rate=2)\n    except Exception as error:\n        \
                  n = repr(error)\n    return [n, await stock(value), list(parts(value)), [one async for one in later(value)]]\n";
    let spec = agent(init, python);
    passes(
        &spec,
        "    mock:\n      price: {sequence: [30, {error: Shut}, {error: \"OSError: no: way\"}, {value: [1]}, {item: 1}]}\n      \
         orders/init.stock: {value: {n: 1}}\n      orders/step.stock: {value: {n: 2}}\n      parts: {value: [1, 2]}\n      \
         later: {value: 3}\n    events: [{topic: in, value: 1}, {topic: in, value: 2}, {topic: in, value: 3}, {topic: in, value: 4}, {topic: in, value: 5}]\n    \
         expect:\n      topics:\n        out:\n          - {value: [30, {n: 2}, [1, 2], [3]]}\n          - {value: [\"Shut()\", {n: 2}, [1, 2], [3]]}\n          \
         - {value: [\"OSError('no: way')\", {n: 2}, [1, 2], [3]]}\n          - {value: [[1], {n: 2}, [1, 2], [3]]}\n          - {value: [{item: 1}, {n: 2}, [1, 2], [3]]}\n",
    );
    let python = "def step(value):\n    return price(value)\n";
    let twice =
        "    events: [{topic: in, value: 1}, {topic: in, value: 2}]\n    expect:\n      topics: {out: [{value: 1}]}\n";
    passes(
        &agent(init, python),
        &format!(
            "    mock: {{price: {{sequence: [1]}}}}\n{twice}      failures: [{{kind: RuntimeError, message: 'the sequence of the mock \"price\" is used up: it has 1, and this is call 2'}}]\n"
        ),
    );
    // A value is a copy for each call, and a call that the function would refuse is refused.
    let changes = "def step(value):\n    got = price(value)\n    got.append(1)\n    return got\n";
    let twice = "    events: [{topic: in, value: 1}, {topic: in, value: 2}]\n    expect:\n      topics: {out: [{value: [1]}, {value: [1]}]}\n";
    passes(&agent(init, changes), &format!("    mock: {{price: {{value: []}}}}\n{twice}"));
    let wrong = "def step(value):\n    return price(value, 3)\n";
    let failed = "    events: [{topic: in, value: 1}]\n    expect: {failures: [{kind: TypeError, message: too many positional arguments}]}\n";
    passes(&agent(init, wrong), &format!("    mock: {{price: {{value: 1}}}}\n{failed}"));
    // The operation's own function, and one that init calls.
    passes(
        &agent(
            "x = []\ndef connect():\n    raise OSError()\ndef init():\n    x.append(connect())\n",
            "def step(value):\n    return x\n",
        ),
        "    mock: {connect: {value: up}}\n    events: [{topic: in, value: 1}]\n    expect: {topics: {out: [{value: [up]}]}}\n",
    );
    passes(
        &agent("x = 1", SAME),
        "    mock: {step: {error: \"KeyError: id\"}}\n    events: [{topic: in, value: 1}]\n    expect: {failures: [{kind: KeyError}]}\n",
    );
    fails(
        &agent(init, python),
        "    mock: {price: {error: Closed}}\n    expect: {failures: []}\n",
        2,
        "\"Closed\" is no exception",
    );
    fails(
        &agent("RATE = 1", SAME),
        "    mock: {RATE: {value: 2}}\n    expect: {failures: []}\n",
        2,
        "\"RATE\" is no function",
    );
}

#[test]
fn a_mock_of_one_block_leaves_the_others_as_they_are() {
    let init = "def price(item):\n    return 'real'\ndef held(item):\n    return price(item)\n";
    let spec = agent(init, "def step(value):\n    return [price(value), held(value)]\n");
    let expect = "    events: [{topic: in, value: 1}]\n    expect: {topics: {out: [{value: [2, real]}]}}\n";
    passes(&spec, &format!("    mock: {{orders/step.price: {{value: 2}}}}\n{expect}"));
}

#[test]
fn a_test_has_variables_of_its_own() {
    let python = "import os\ndef step(value):\n    os.environ['LEFT'] = 'x'\n    names = ['REGION', 'LIMIT', 'PYTHONHASHSEED', 'LEFT']\n    \
                  return [REGION, *(os.environ.get(name) for name in names[:-1]), os.environ['LEFT']]\n";
    let spec = agent("import os\nREGION = os.environ.get('REGION')\nBEFORE = os.environ.get('LEFT')\n", python);
    let test = |name: &str, env: &str, value: &str| {
        format!(
            "  - name: {name}\n{env}    events: [{{topic: in, value: 1}}]\n    expect: {{topics: {{out: [{{value: {value}}}]}}}}\n"
        )
    };
    let (status, said) = said_of_tests(
        &spec,
        &format!(
            "tests:\n{}{}",
            test("own", "    env: {REGION: eu, LIMIT: 5, PYTHONHASHSEED: null}\n", "[eu, eu, \"5\", null, x]"),
            test("none", "", "[null, null, null, \"0\", x]")
        ),
    );
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn what_a_test_cannot_replace_is_a_fault_at_its_line() {
    let spec = agent("def price_of(item):\n    return 1\n", SAME);
    for (fields, line, words, help) in [
        (
            "    mock: {price_off: {value: 1}}\n",
            3,
            "no block of the app has a function \"price_off\"",
            "did you mean \"price_of\"?",
        ),
        (
            "    mock:\n      orders/stepp.step: {value: 1}\n",
            4,
            "the app has no block \"orders/stepp\"",
            "did you mean \"orders/step\"?",
        ),
        (
            "    mock:\n      orders/init.step: {value: 1}\n",
            4,
            "\"orders/init\" does not have a function \"step\"",
            "there are: price_of",
        ),
        ("    mock: {price_of: {vaule: 1}}\n", 3, "unknown field \"vaule\"", "did you mean \"value\"?"),
        ("    mock: {price_of: 1}\n", 3, "the mock \"price_of\" must be a mapping of value, sequence, error", ""),
        ("    mock: {price_of: {}}\n", 3, "the mock \"price_of\" gives nothing", "value: null gives None"),
        ("    mock: {price_of: {value: 1, error: OSError}}\n", 3, "a mock has one of value, sequence, error", ""),
        (
            "    mock: {price_of: {sequence: 1}}\n",
            3,
            "\"sequence\" must be a list of what the calls give",
            "or {error: …}",
        ),
        (
            "    mock: {price_of: {sequence: [1, {error: 3}]}}\n",
            3,
            "\"error\" must be an exception, found 3",
            "KeyError: lamp",
        ),
        ("    mock: {price_of: {error: not a class}}\n", 3, "\"error\" must be an exception", "KeyError: lamp"),
        ("    env: {REGION: [eu]}\n", 3, "the variable \"REGION\" must be a text, found [\"eu\"]", "in quotes"),
        ("    env: {REGION: yes}\n", 3, "the variable \"REGION\" must be a text", "in quotes"),
        (
            "    env: {K_ON_ERROR: halt}\n",
            3,
            "\"K_ON_ERROR\" is a setting of kaspr-exec",
            "where kaspr-exec test is started",
        ),
        ("    envv: {}\n", 3, "unknown field \"envv\"", "did you mean \"env\"?"),
        ("    events: [{topic: in, valueHas: 1}]\n", 3, "unknown field \"valueHas\"", "did you mean \"value"),
    ] {
        let (status, said) = play(&spec, &format!("{fields}    expect: {{failures: []}}\n"));
        assert_eq!(status, Some(2), "{fields}{said}");
        assert!(said.contains(&format!("error: {words}")) && said.contains(help), "{fields}{said}");
        assert!(said.contains(&format!("--> ./tests.yaml:{line}:")), "{fields}{said}");
    }
    for (expect, words) in [
        ("topics: {out: [{value: 1, valueHas: 1}]}", "a record has one of value, valueHas, valueText"),
        ("topics: {out: [{valueHass: 1}]}", "unknown field \"valueHass\""),
        (
            "topics: {out: [{value: 1, approx: some}]}",
            "\"approx\" must be the difference that numbers may have, found \"some\"",
        ),
        ("approx: -1, failures: []", "\"approx\" must be the difference that numbers may have, found -1"),
        ("approx: 1", "the test expects nothing: it can never fail"),
    ] {
        let (status, said) = play(&spec, &format!("    expect: {{{expect}}}\n"));
        assert!(
            status == Some(2) && said.contains(&format!("error: {words}")) && said.contains("tests.yaml:3:"),
            "{expect}{said}"
        );
    }
}

#[test]
fn an_update_keeps_how_a_record_is_compared() {
    let folder = tempfile::tempdir().expect("a folder is made");
    let file = folder.path().join("tests.yaml");
    std::fs::write(folder.path().join("agent.yaml"), agent("import os", SAME)).expect("a spec can be written");
    let test = |out: &str| {
        format!(
            "tests:\n  - name: one\n    events: [{{topic: in, value: {{a: 1, b: {{c: 2, d: 0.25}}}}}}]\n    expect: {{topics: {{out: [{out}]}}}}\n"
        )
    };
    for (before, after) in [
        ("{valueHas: {b: {c: 3}}}", "{valueHas: {b: {c: 2}}}"),
        ("{valueHas: {b: {d: 0.2}, x: 1}, approx: 0.1}", "{valueHas: {b: {d: 0.25}}, approx: 0.1}"),
        ("{value: {a: 2}, approx: 0.1}", "{value: {a: 1, b: {c: 2, d: 0.25}}, approx: 0.1}"),
    ] {
        std::fs::write(&file, test(before)).expect("tests can be written");
        let output = run("kaspr-exec", &["test", &folder.path().display().to_string(), "--update"], "");
        let text = std::fs::read_to_string(&file).expect("it stays");
        assert_eq!(text, test(after), "{}{}", stdout(&output), stderr(&output));
    }
}
