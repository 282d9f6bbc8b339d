//! The HTTP server of a worker, as the operator, probes and scrapers meet it.

use std::process::Stdio;
use std::time::Duration;

use kaspr_tests::clock::{now, pause};
use kaspr_tests::http::{Client, get, series};
use kaspr_tests::kafka::{Broker, Record, broker, children, free_port};
use kaspr_tests::program::command;
use kaspr_tests::served::{PATIENCE, Served, app, event, lost, spec};
use kaspr_tests::{process, root};
use serde_json::{Value, json};

/// The headers of the operator's HTTP client.
const OPERATOR: [&str; 5] = [
    "Accept: */*",
    "Accept-Encoding: gzip, deflate",
    "User-Agent: Python/3.12 aiohttp/3.11.11",
    "Content-Type: application/json",
    "Host: shop-0.shop.default.svc",
];

#[test]
fn the_operator_gets_exactly_what_it_reads() {
    let broker = broker();
    let (app, input, _) = app(broker, 2, "");
    let port = free_port();
    let changelog = app.changelog();
    let command = app.command(&[]);
    let served = Served::spawn(app, port, command, |command, port| {
        command.env("K_WEB_PORT", port.to_string()).env("K_WEB_HOST", "shop-0.shop.default.svc");
    })
    .ready();
    let mut client = Client::connect(port).expect("it listens at all addresses");
    let root = client.ask("GET", "/", &OPERATOR, "").expect("an answer");
    assert_eq!((root.status, root.json()), (200, json!({ "status": "OK" })));
    assert_eq!(root.headers["content-type"], "application/json");
    let status = client.ask("GET", "/status/", &OPERATOR, "").expect("an answer");
    let url = format!("http://shop-0.shop.default.svc:{port}");
    // As the reference runtime lists it: the leader's topic is assigned like any other.
    let election = format!("{}-assignor-leader", served.app.name);
    let expected = json!({
        "leader": true,
        "rebalancing": false,
        "recovering": false,
        "assignment": { "actives": { election.as_str(): [0], input.as_str(): [0, 1] }, "standbys": {} },
        "table_metadata": { url.as_str(): { changelog.as_str(): [0, 1] } },
    });
    assert_eq!((status.status, status.json()), (200, expected));
    // An empty body with a content type, over the same connection.
    let asked = client.ask("POST", "/signal/rebalance", &OPERATOR, "").expect("an answer");
    assert_eq!((asked.status, asked.json()), (200, json!({ "status": "ok", "message": "Rebalance requested" })));
    served.wait_until("the group to be asked", || {
        let words = served.app.words(0);
        words.contains("the group is made to share out") || words.contains("sharing out its partitions already")
    });
    for path in ["/status", "/table/counts", "/router/shop", "/kaspr/live"] {
        assert_eq!(client.ask("GET", path, &OPERATOR, "").expect("an answer").status, 404, "{path}");
    }
    served.wait_until("ready again", || served.get("/health/ready").status == 200);
}

#[test]
fn a_worker_without_a_broker_is_alive_and_says_why_it_is_not_ready() {
    let served = Served::start(lost(), &[]);
    served.wait_until("the reason", || {
        let ready = served.get("/health/ready");
        ready.status == 503 && ready.json()["why"] == "waiting for a broker"
    });
    assert_eq!((served.get("/health/live").status, served.get("/").status), (200, 200));
    let status = served.get("/status/").json();
    assert_eq!((&status["rebalancing"], &status["recovering"]), (&json!(true), &json!(true)), "{status}");
    assert_eq!((&status["leader"], &status["assignment"]["actives"]), (&json!(false), &json!({})), "{status}");
    let states = series(&served.get("/metrics").body, "kaspr_state");
    let on: Vec<_> = states.iter().filter(|(_, value)| *value == 1.0).collect();
    assert!(on.len() == 1 && on[0].0.contains(r#"state="loading""#), "{states:?}");
}

#[test]
fn requests_that_no_page_takes_are_refused() {
    let served = Served::start(lost(), &[]);
    let root = served.get("/");
    assert_eq!(root.headers["x-content-type-options"], "nosniff");
    assert_eq!(root.headers["content-security-policy"], "default-src 'self'");
    assert!(!root.headers.contains_key("access-control-allow-origin"));
    const JSON: &str = "Content-Type: application/json";
    let large = format!("X-Large: {}", "x".repeat(20_000));
    let body = "x".repeat(20_000);
    for (method, path, headers, body, status) in [
        ("HEAD", "/health/live", &[][..], "", 200),
        ("POST", "/status/", &[JSON][..], "", 405),
        ("DELETE", "/", &[], "", 405),
        ("GET", "/signal/rebalance", &[JSON], "", 405),
        ("POST", "/signal/rebalance", &[], "", 415),
        ("POST", "/signal/rebalance", &["Content-Type: text/plain"], "", 415),
        ("POST", "/signal/rebalance", &[JSON, "Sec-Fetch-Site: cross-site"], "", 403),
        ("POST", "/signal/rebalance", &[JSON, "Sec-Fetch-Site: same-origin"], "", 200),
        ("POST", "/signal/rebalance", &["Content-Type: application/json; charset=utf-8"], "{}", 200),
        ("POST", "/signal/rebalance", &[JSON], &body, 413),
        ("GET", "/", &["Host: shop.example.com"], "", 403),
        ("GET", "/", &["Host: 127.0.0.1"], "", 200),
        ("GET", "/", &[&large], "", 431),
        ("GET", "/kaspr/plan?format=graph", &[], "", 400),
        ("GET", "/nowhere", &[], "", 404),
    ] {
        let mut client = Client::connect(served.port).expect("it listens");
        let answer = client.ask(method, path, headers, body).expect("an answer");
        assert_eq!(answer.status, status, "{method} {path} {headers:.60?}: {}", answer.body);
    }
    let mut client = Client::connect(served.port).expect("it listens");
    assert_eq!(client.ask("PUT", "/", &[], "").expect("an answer").headers["allow"], "GET, HEAD");
}

#[test]
fn a_kept_connection_is_used_again_after_20_s() {
    let (app, ..) = app(broker(), 1, "");
    let served = Served::start(app, &[]);
    served.get("/");
    let mut client = Client::connect(served.port).expect("it listens");
    for round in 0..2 {
        assert_eq!(client.ask("GET", "/health/live", &[], "").expect("it was kept").status, 200, "{round}");
        if round == 0 {
            pause(Duration::from_secs(20));
        }
    }
}

#[test]
fn slow_clients_do_not_keep_others_from_their_answers() {
    let served = Served::start(lost(), &[]);
    served.get("/");
    let mut slow: Vec<Client> = (0..200).map(|_| Client::connect(served.port).expect("it listens")).collect();
    for client in &mut slow {
        // At the limit, those that have waited longest were closed.
        let _ = client.send(b"GET / HTTP/1.1\r\nHost: loc");
        if let Ok(page) = get(served.port, "/health/live") {
            assert_eq!(page.status, 200);
        } else {
            panic!("no answer");
        }
    }
    assert!(slow[0].closes_within(Duration::from_secs(20)), "it waited longest");
    // Headers that do not come in time end the connection.
    let mut last = Client::connect(served.port).expect("it listens");
    last.send(b"GET / HTTP/1.1\r\nHost: loc").expect("it is sent");
    assert!(!last.closes_within(Duration::from_secs(1)) && last.closes_within(Duration::from_secs(20)));
}

#[test]
fn at_the_limit_the_connection_that_waits_longest_is_closed() {
    let served = Served::start(lost(), &[]);
    served.get("/");
    let (began, in_time) = (now(), Duration::from_secs(4));
    let connect = || Client::connect(served.port).expect("it listens");
    // A few fewer than 64: connections of earlier questions may still be open.
    let mut waiting: Vec<Client> = (0..60).map(|_| connect()).collect();
    // The server takes them in their order: it has all of them when it has answered the last.
    let _ = waiting[59].ask("GET", "/", &[], "");
    assert!(!waiting[0].closes_within(Duration::from_millis(50)) || now() - began > in_time, "there are fewer than 64");
    let mut more: Vec<Client> = (0..10).map(|_| connect()).collect();
    assert_eq!(more[9].ask("GET", "/health/live", &[], "").expect("an answer").status, 200);
    let closes = |client: &mut Client| client.closes_within(Duration::from_millis(500));
    assert!(closes(&mut waiting[0]), "it waited longest");
    assert!(!closes(&mut waiting[32]) || now() - began > in_time, "the others may go on");
    // After five seconds all are closed.
    assert!(waiting[32].closes_within(Duration::from_secs(20)), "a connection on which nothing comes");
}

#[test]
fn a_body_that_does_not_come_ends_its_connection() {
    let served = Served::start(lost(), &[]);
    served.get("/");
    let mut client = Client::connect(served.port).expect("it listens");
    let head = "POST /signal/rebalance HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n";
    client.send(head.as_bytes()).expect("it is sent");
    assert!(client.closes_within(Duration::from_secs(30)));
}

#[test]
fn a_worker_that_restores_a_table_recovers_for_the_operator() {
    let broker = broker();
    let (app, ..) = app(broker, 1, "");
    let changelog = app.changelog();
    broker.named_topic(&changelog, 1);
    // An open transaction of a stranger hides the changelog's end.
    let stranger = broker.open_transaction(&changelog);
    let served = Served::start(app, &[]);
    served.wait_until("the table to be restored", || {
        let ready = served.get("/health/ready");
        ready.status == 503
            && ready.json()["why"].as_str().is_some_and(|why| why.contains("restoring table \"counts\""))
    });
    let status = served.get("/status/").json();
    assert_eq!((&status["rebalancing"], &status["recovering"]), (&json!(false), &json!(true)), "{status}");
    stranger.abort();
    let served = served.ready();
    let status = served.get("/status/").json();
    assert_eq!((&status["rebalancing"], &status["recovering"]), (&json!(false), &json!(false)), "{status}");
}

#[test]
fn a_worker_whose_thread_stands_still_is_not_alive() {
    let broker = broker();
    let (app, ..) = app(broker, 1, "");
    let served = Served::start_by(app, &[], |command, _| {
        command.env("KASPR_FAILPOINT", "hold:5");
    });
    served.wait_until("dead", || served.get("/health/live").status == 503);
    let live = served.get("/health/live").json();
    let why = live["why"].as_str().unwrap_or_default();
    assert!(why.starts_with("the worker's thread has not come round for"), "{live}");
    assert_eq!(served.get("/kaspr/status").status, 200);
    let age = series(&served.get("/metrics").body, "kaspr_turn_age_seconds");
    assert!(age[0].1 > 1.0, "{age:?}");
}

#[test]
fn a_call_that_blocks_is_named_while_it_blocks() {
    let broker = broker();
    let (app, input, _) = app(broker, 1, "");
    let served = Served::start(app, &[]).ready();
    broker.produce(&input, [event("block")]);
    let worker = served.wait_for_worker("the call", |worker| worker["running"].is_object());
    let what = &worker["running"]["what"];
    assert_eq!(*what, "agent \"shop\", operation \"step\"", "{worker}");
    assert_eq!(worker["running"]["on"], format!("{input}/0@0"), "{worker}");
    assert_eq!((served.get("/health/live").status, served.get("/metrics").status), (200, 200));
}

#[test]
fn a_poison_event_shows_with_its_cause_and_no_payload() {
    let broker = broker();
    let (app, input, output) = app(broker, 1, "");
    let app = app.on_disk();
    broker.produce(&input, [event("exit"), event("fail"), event("fine")]);
    for _ in 0..3 {
        let status = app.start(0, &[]).wait().expect("it ends");
        assert_eq!(status.code(), Some(9), "{}", app.words(0));
    }
    let served = Served::start(app, &[]).ready();
    served.wait_until("the event behind it", || broker.count(&output) > 0);
    let worker = served.wait_for_worker("both failures", |worker| worker["failed"] == 2);
    let kinds: Vec<_> = worker["failures"].as_array().expect("a list").iter().map(|one| one["kind"].clone()).collect();
    assert_eq!(kinds, ["ProcessCrash", "KeyError"], "{worker}");
    assert_eq!(worker["failures"][0]["operation"], "step", "{worker}");
    assert!(!worker.to_string().contains("4711"), "payloads are quoted in messages alone: {worker}");
    let page = served.get("/metrics").body;
    let failures = series(&page, "kaspr_failures_total");
    for kind in ["ProcessCrash", "KeyError"] {
        let of = failures.iter().find(|(labels, _)| labels.contains(&format!("kind=\"{kind}\"")));
        assert!(of.is_some_and(|(_, count)| *count == 1.0), "{failures:?}");
    }
    assert!(series(&page, "kaspr_state_dir_writable").iter().all(|(_, value)| *value == 1.0), "{page}");
}

#[test]
fn an_event_that_is_retried_shows_as_what_holds_its_partition() {
    let broker = broker();
    let retry = "  onError: {action: retry, attempts: 100, backoff: {initial: 60s, max: 60s}}\n";
    let (app, input, _) = app(broker, 1, retry);
    let served = Served::start(app, &["--stall-after", "1s"]).ready();
    broker.produce(&input, [event("fail"), event("fine")]);
    let worker = served.wait_for_worker("the stall", |worker| worker["stalled"]["retry"] == 1);
    let holds = worker["partitions"][0]["readers"][0]["holds"].as_str().unwrap_or_default();
    assert!(holds.starts_with("offset 0 failed 1 times and is tried again in"), "{worker}");
    served.wait_until("its metrics", || {
        let page = served.get("/metrics").body;
        let stalled = series(&page, "kaspr_stalled_partitions");
        let ages = series(&page, "kaspr_partition_lag_seconds");
        let lags = series(&page, "kaspr_partition_lag_records");
        stalled.iter().any(|(labels, value)| labels.contains("cause=\"retry\"") && *value == 1.0)
            && ages.len() == 1
            && ages[0].1 > 0.0
            && lags[0].1 == 2.0
    });
    let retries = series(&served.get("/metrics").body, "kaspr_retries_total");
    assert!(retries.len() == 1 && retries[0].0.contains("kind=\"KeyError\""), "{retries:?}");
}

#[test]
fn the_status_has_the_form_that_is_documented() {
    let broker = broker();
    let (app, input, output) = app(broker, 2, "");
    let served = Served::start(app, &[]).ready();
    broker.produce(&input, [event("a"), event("fail"), event("b")]);
    served.wait_until("its events", || broker.count(&output) == 2);
    served.wait_for_worker("its commits", |worker| worker["completed"] == 3);
    let schema = std::fs::read_to_string(root().join("docs/status.schema.json")).expect("a schema");
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    let judge = jsonschema::validator_for(&schema).expect("a schema");
    let status = served.get("/kaspr/status").json();
    let faults: Vec<String> = judge.iter_errors(&status).map(|fault| fault.to_string()).collect();
    assert!(faults.is_empty(), "{faults:?}\n{status}");
    let plan = served.get("/kaspr/plan");
    assert_eq!(plan.json()["revision"], status["revision"]);
    for (format, content_type) in [
        ("json", "application/json"),
        ("text", "text/plain; charset=utf-8"),
        ("dot", "text/vnd.graphviz; charset=utf-8"),
    ] {
        let page = served.get(&format!("/kaspr/plan?format={format}"));
        assert_eq!((page.status, page.headers["content-type"].as_str()), (200, content_type));
        assert!(
            page.body.contains("step") && !page.body.contains("asyncio"),
            "the plan without its code: {}",
            page.body
        );
    }
    let page = served.get("/metrics").body;
    for (name, value) in [
        ("kaspr_events_total", 3.0),
        ("kaspr_events_completed_total", 3.0),
        ("kaspr_records_sent_total", 2.0),
        ("kaspr_table_reads_total", 3.0),
        ("kaspr_table_writes_total", 2.0),
        ("kaspr_messages_received_total", 3.0),
        ("kaspr_topic_messages_sent_total", 2.0),
        ("kaspr_table_restore_ratio", 1.0),
        ("kaspr_leader", 1.0),
        ("kaspr_ready", 1.0),
        ("kaspr_commit_age_seconds", 0.0),
    ] {
        let sum: f64 = series(&page, name).iter().map(|(_, value)| value).sum();
        assert_eq!(sum, value, "{name}\n{page}");
    }
}

#[test]
fn a_worker_that_is_asked_to_stop_answers_to_the_end() {
    let broker = broker();
    let (app, input, output) = app(broker, 1, "");
    let mut served = Served::start(app, &[]).ready();
    broker.produce(&input, [event("await")]);
    served.wait_for_worker("the await", |worker| worker["awaited"] == 1);
    process::terminate(served.child.id());
    let ready = served.get("/health/ready");
    assert_eq!((ready.status, ready.json()["why"].clone()), (503, json!("asked to stop")), "{}", ready.body);
    assert_eq!(served.child.wait().expect("it ends").code(), Some(0), "{}", served.app.words(0));
    assert_eq!(broker.count(&output), 1, "the call has ended, and its event is committed");
}

#[test]
fn a_port_that_cannot_be_served_ends_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    for (flags, code, words) in [
        (&["--web-port", port.as_str()][..], 1, "cannot listen at 127.0.0.1:"),
        (&["--web-port", "0"], 2, "a port is a number from 1 to 65535"),
    ] {
        let output = lost().command(flags).output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && said.contains(words), "{flags:?}: {said}");
    }
}

#[test]
fn a_local_run_serves_its_port_to_this_machine() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("agents.yaml");
    std::fs::write(&path, spec("in", "out", "")).expect("written");
    let (path, port) = (path.display().to_string(), free_port());
    let mut command = command("kaspr-exec", &["run", &path, "--local", "--input", "in=-", "--quiet"]);
    command.env("K_WEB_PORT", port.to_string()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("it starts");
    let mut input = child.stdin.take().expect("it is piped");
    std::io::Write::write_all(&mut input, b"1\n2\n").expect("it reads");
    let began = now();
    let completed = || get(port, "/kaspr/status").map(|page| page.json()["workers"][0]["completed"].clone());
    while !completed().is_ok_and(|completed| completed == 2) {
        assert!(now() - began < PATIENCE, "{:?}", completed());
        pause(Duration::from_millis(50));
    }
    let mut client = Client::connect(port).expect("it listens");
    assert_eq!(client.ask("GET", "/", &["Host: shop.example.com"], "").expect("an answer").status, 403);
    drop(input);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_supervisor_answers_for_its_workers() {
    let broker = broker();
    let (app, input, output) = app(broker, 2, "");
    let mut served = Served::start(app, &["--workers", "2"]).ready();
    broker.produce(&input, (0..20).map(|number| Record::new(number.to_string(), number.to_string())));
    served.wait_until("20 records", || broker.count(&output) == 20);
    let workers = || served.get("/kaspr/status").json()["workers"].as_array().cloned().unwrap_or_default();
    let sum = |workers: &[Value]| workers.iter().filter_map(|worker| worker["completed"].as_u64()).sum::<u64>();
    served.wait_until("their reports", || sum(&workers()) == 20);
    let status = served.get("/status/").json();
    let election = format!("{}-assignor-leader", served.app.name);
    let union = json!({ election.as_str(): [0], input.as_str(): [0, 1] });
    assert_eq!(status["assignment"]["actives"], union, "{status}");
    let told = ["leader", "rebalancing", "recovering"].map(|name| status[name].clone());
    assert_eq!(told, [json!(true), json!(false), json!(false)], "{status}");
    let ready = series(&served.get("/metrics").body, "kaspr_ready");
    assert!(ready.len() == 2 && ready.iter().all(|(_, value)| *value == 1.0), "{ready:?}");
    assert!(ready[1].0.contains(".1\""), "each has its name: {ready:?}");
    // A worker that starts again makes the process unready, not dead.
    let killed = children(served.child.id())[0];
    // SAFETY: the supervisor has not waited for its worker yet, or it is still running.
    unsafe { libc::kill(killed, libc::SIGKILL) };
    served.wait_until("unready", || {
        let ready = served.get("/health/ready");
        let why = ready.json()["why"].as_str().unwrap_or_default().to_owned();
        ready.status == 503 && why.starts_with("worker ")
    });
    assert_eq!(served.get("/health/live").status, 200);
    served.wait_until("ready again", || served.get("/health/ready").status == 200);
    let restarts: Vec<f64> = series(&served.get("/metrics").body, "kaspr_worker_restarts_total")
        .into_iter()
        .map(|(_, count)| count)
        .collect();
    assert_eq!(restarts.iter().sum::<f64>(), 1.0, "{restarts:?}");
    // A request goes down to one of them.
    let mut client = Client::connect(served.port).expect("it listens");
    let asked = client.ask("POST", "/signal/rebalance", &["Content-Type: application/json"], "");
    assert_eq!(asked.expect("an answer").status, 200);
    served.wait_until("the group to be asked", || {
        let words = served.app.words(0);
        words.contains("the group is made to share out") || words.contains("sharing out its partitions already")
    });
    process::terminate(served.child.id());
    assert_eq!(served.child.wait().expect("it ends").code(), Some(0), "{}", served.app.words(0));
}

#[test]
fn a_worker_whose_brokers_are_gone_recovers_for_the_operator() {
    let mut broker = Broker::start();
    let (app, ..) = app(&broker, 1, "");
    let served = Served::start(app, &["--kafka", "session.timeout.ms=6000"]).ready();
    broker.stop();
    let moves = || {
        let status = served.get("/status/").json();
        (status["rebalancing"] == true, status["recovering"] == true)
    };
    served.wait_until("the loss of its partitions", || moves() == (true, true));
    let ready = served.get("/health/ready");
    assert_eq!((ready.status, ready.json()["why"].clone()), (503, json!("waiting for a broker")), "{}", ready.body);
    assert_eq!(served.get("/health/live").status, 200, "a new process would not help");
    served.wait_until("its clients to say so", || {
        let up = series(&served.get("/metrics").body, "kaspr_kafka_broker_up");
        !up.is_empty() && up.iter().all(|(_, value)| *value == 0.0)
    });
}
