//! The program in a pod: what the operator's variables do, and how a process starts and ends there.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use kaspr_tests::clock::pause;
use kaspr_tests::kafka::{Broker, Record, broker, free_port, unique};
use kaspr_tests::pod::{ECHO, Pod};
use kaspr_tests::program::stderr;
use rdkafka::consumer::{BaseConsumer, Consumer};

/// An address at which no broker listens.
const NOWHERE: &str = "127.0.0.1:1";
/// The user of our image.
const USER: u32 = 10_001;

/// A pod of the echo, whose topics are there.
fn echo(broker: &Broker) -> (Pod, String, String) {
    let (input, output) = (broker.topic("in", 2), broker.topic("out", 1));
    let pod = Pod::new(&unique("echo")).defined("agents.yaml", &defined(&input, &output));
    (pod.with("K_KAFKA_BOOTSTRAP_SERVERS", &broker.servers), input, output)
}

fn defined(input: &str, output: &str) -> String {
    ECHO.replace("INPUT", input).replace("OUTPUT", output)
}

/// Runs a pod whose start is refused: exit status 2, and the words are its last.
#[track_caller]
fn refused(pod: &Pod, told: &str) {
    let ended = pod.ends(&[]);
    let words = stderr(&ended);
    assert_eq!(ended.status.code(), Some(2), "{words}");
    assert!(words.contains(told), "\"{told}\" is not in {words}");
    assert!(pod.last_words().contains(told), "\"{told}\" is not in {}", pod.last_words());
}

#[test]
fn an_app_is_run_by_variables_alone() {
    let broker = broker();
    let (pod, input, output) = echo(broker);
    let spelled = format!("kafka://{}; kafka://{}", broker.servers, broker.servers);
    let pod = pod
        .with("KASPR_KAFKA_BOOTSTRAP_SERVERS", &spelled)
        .with("K_CONSUMER_GROUP_INSTANCE_ID", "echo-0")
        .with("K_COMMITINTERVAL", "50ms")
        .with("K_BROKER_SESSION_TIMEOUT", "20.0")
        .with("LOG_LEVEL", "WARNING")
        // Of names that differ in underscores alone the exact one counts.
        .with("K_KAFKALINGERMS", "soon")
        .with("K_KAFKA_LINGER_MS", "5")
        // Kubernetes' words on Services of these names, and variables that mean nothing here.
        .with("KASPR_KAFKA_SERVICE_HOST", "10.0.0.1")
        .with("KASPR_KAFKA_SERVICE_PORT", "9092")
        .with("KASPR_KAFKA_PORT", "tcp://10.0.0.1:9092")
        .with("KASPR_KAFKA_PORT_9092_TCP_ADDR", "10.0.0.1")
        .with("KASPR_WEB_PORT", "tcp://10.0.0.1:80")
        .with("K_CONFIG_HASH", "abc")
        .with("K_SCHEDULER_ENABLED", "False")
        .with("K_STREAM_BUFFER_MAXSIZE", "4096")
        .with("K_AUTO.OFFSET.RESET", "latest");
    broker.produce(&input, [Record::new("k", "1"), Record::new("k", "2")]);
    let mut process = pod.start();
    process.wait_until("two records", || broker.count(&output) == 2);
    for signal in [libc::SIGUSR2, libc::SIGHUP] {
        process.signal(signal);
    }
    broker.produce(&input, [Record::new("k", "3")]);
    process.wait_until("a third record", || broker.count(&output) == 3);
    assert_eq!(process.terminate(), Some(0), "{}", process.words());
    let words = process.words();
    let named = "warning: these variables of the reference runtime have no effect: K_AUTO.OFFSET.RESET, K_STREAM_BUFFER_MAXSIZE\n";
    assert!(words.contains(named) && !words.contains("INFO"), "{words}");
    assert_eq!(pod.last_words(), "");
}

#[test]
fn variables_that_cannot_be_meant_stop_the_start() {
    for (name, value, told) in [
        ("KASPR_COMIT_INTERVAL", "1s", "error: the variable KASPR_COMIT_INTERVAL is no setting of kaspr-exec"),
        ("K_SCHEDULER_ENABLED", "True", "error: K_SCHEDULER_ENABLED asks for the scheduler"),
        ("K_SCHEDULER_CRON_ENABLED", "true", "error: K_SCHEDULER_CRON_ENABLED asks for the scheduler"),
        ("K_ONERROR", "{'action': 'halt'}", "put the mapping in quotes as JSON"),
        ("K_TOPIC_ALLOW_DECLARE", "maybe", "the setting \"topicAllowDeclare\" is \"maybe\": it is true or false"),
        ("K_BROKER_SESSION_TIMEOUT", "soon", "\"brokerSessionTimeout\" is \"soon\": a number of seconds"),
        ("K_KAFKA_BOOTSTRAP_SERVERS", "http://a", "\"http://a\" is no broker"),
        ("K_LOG_LEVEL", "loud", "\"logLevel\" is \"loud\""),
        ("K_VALUE_SERIALIZER", "jsn", "\"valueSerializer\" is \"jsn\": there is no such serializer"),
        ("K_KAFKA_NO_SUCH_THING", "1", "\"no.such.thing\" is refused"),
        ("K_KAFKA_SESSIONTIMEOUTMS", "soon", "\"session.timeout.ms\" is refused"),
        ("K_KAFKALINGERMS", "soon", "\"linger.ms\" is refused"),
        ("KASPR_KAFKANOSUCHTHING", "1", "error: the variable KASPR_KAFKANOSUCHTHING is no setting"),
    ] {
        let pod = Pod::new("echo").defined("agents.yaml", &defined("in", "out"));
        let pod =
            if name == "K_KAFKA_BOOTSTRAP_SERVERS" { pod } else { pod.with("K_KAFKA_BOOTSTRAP_SERVERS", NOWHERE) };
        refused(&pod.with(name, value), told);
    }
}

#[test]
fn a_spec_that_is_refused_is_the_last_word() {
    let pod = Pod::new("echo").with("K_KAFKA_BOOTSTRAP_SERVERS", NOWHERE);
    refused(
        &pod.defined("agents.yaml", &defined("in", "out").replace("pipeline: [pass_on]", "pipeline: [pass]")),
        "K0201",
    );
    let long = (0..200).map(|number| format!("- name: a{number}\n")).collect::<String>();
    let pod =
        Pod::new("echo").with("K_KAFKA_BOOTSTRAP_SERVERS", NOWHERE).defined("agents.yaml", &format!("agents:\n{long}"));
    refused(&pod, "200 errors");
    assert!(pod.last_words().len() <= 4096, "{}", pod.last_words().len());
}

#[test]
fn a_command_line_that_is_refused_is_the_last_word() {
    for (arguments, told) in [
        (&["--no-such-flag"][..], "unexpected argument '--no-such-flag'"),
        (&["--workers", "many"], "invalid value 'many'"),
    ] {
        let pod = Pod::new("echo");
        let ended = pod.ends(arguments);
        assert_eq!(ended.status.code(), Some(2), "{}", stderr(&ended));
        let last = pod.last_words();
        assert!(last.contains(told) && !last.contains('\u{1b}'), "{last}");
    }
    let pod = Pod::new("echo");
    assert_eq!(pod.ends(&["--help"]).status.code(), Some(0));
    assert_eq!(pod.last_words(), "");
}

#[test]
fn a_run_without_a_path_needs_a_folder_of_definitions() {
    let pod = Pod::new("echo").with("K_DEFINITIONS_DIR", "").with("K_KAFKA_BOOTSTRAP_SERVERS", NOWHERE);
    let mut command = pod.command(&[]);
    let ended = command.env_remove("K_DEFINITIONS_DIR").output().expect("it starts");
    assert_eq!(ended.status.code(), Some(2));
    assert!(stderr(&ended).contains("KASPR_DEFINITIONS_DIR"), "{}", stderr(&ended));
}

#[test]
fn a_pod_waits_for_its_definitions_and_runs_them_all_as_one_app() {
    let broker = broker();
    let [input, output] = ["in", "out"].map(|name| broker.topic(name, 1));
    let pod = Pod::new(&unique("echo")).with("K_KAFKA_BOOTSTRAP_SERVERS", &broker.servers);
    let mut process = pod.start();
    process.wait_for("nothing runs yet: there is no folder");
    assert_eq!(process.terminate(), Some(0), "{}", process.words());
    std::fs::create_dir(pod.path("definitions")).expect("made");
    let mut process = pod.start();
    process.wait_for("nothing runs yet: the folder");
    // A mount of Kubernetes: the folder with two dots holds what the files beside it link to.
    let mounted = pod.path("definitions").join("..2026_11_30");
    std::fs::create_dir(&mounted).expect("made");
    std::fs::write(mounted.join("orders.yml"), defined(&input, &output)).expect("written");
    std::os::unix::fs::symlink("..2026_11_30", pod.path("definitions").join("..data")).expect("linked");
    std::os::unix::fs::symlink("..data/orders.yml", pod.path("definitions").join("orders.yml")).expect("linked");
    broker.produce(&input, [Record::new("k", "1")]);
    process.wait_for("the definitions are there");
    process.wait_until("a record", || broker.count(&output) == 1);
    assert_eq!(process.terminate(), Some(0), "{}", process.words());
}

/// The status and body of a page.
fn get(port: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

#[test]
fn a_pod_without_definitions_is_ready_and_answers() {
    let broker = broker();
    let [input, output] = ["in", "out"].map(|name| broker.topic(name, 1));
    let port = free_port().to_string();
    let pod = Pod::new(&unique("echo")).with("K_KAFKA_BOOTSTRAP_SERVERS", &broker.servers);
    let pod = pod.with("K_WEB_PORT", &port).with("K_WEB_BIND", "127.0.0.1");
    let mut process = pod.start();
    let is_ready = || get(&port, "/health/ready").is_some_and(|(status, _)| status == 200);
    process.wait_until("the port", is_ready);
    let (_, status) = get(&port, "/status/").expect("it answers");
    let status: serde_json::Value = serde_json::from_str(&status).expect("it is JSON");
    assert_eq!([&status["rebalancing"], &status["recovering"], &status["leader"]], [false, false, false], "{status}");
    assert_eq!(status["assignment"]["actives"], serde_json::json!({}), "{status}");
    assert!(get(&port, "/kaspr/status").is_some_and(|(_, body)| body.contains("\"idle\"")));
    pod.define("agents.yaml", &defined(&input, &output));
    let has_assignment = || get(&port, "/status/").is_some_and(|(_, body)| body.contains(&input));
    std::thread::scope(|scope| {
        // Who asks without a pause never finds the port closed.
        let looks = scope.spawn(|| {
            while !has_assignment() {
                std::net::TcpStream::connect(format!("127.0.0.1:{port}")).expect("it listens");
            }
        });
        process.wait_until("an assignment", || looks.is_finished());
    });
    process.wait_until("readiness", is_ready);
    assert_eq!(process.terminate(), Some(0), "{}", process.words());
}

#[test]
fn a_process_that_serves_a_port_waits_for_its_brokers() {
    let port = free_port().to_string();
    let pod = Pod::new("echo").defined("agents.yaml", &defined("in", "out")).with("K_KAFKA_BOOTSTRAP_SERVERS", NOWHERE);
    let pod = pod.with("K_WEB_PORT", &port).with("K_WEB_BIND", "127.0.0.1");
    let mut process = pod.start();
    process.wait_for("waiting for a broker: none can be reached");
    // Without a port the process ends after 15 s.
    process.wait_until("two more lines", || process.words().matches("still waiting for a broker").count() >= 2);
    assert!(process.runs(), "{}", process.words());
    assert_eq!(process.terminate(), Some(0), "{}", process.words());
}

#[test]
fn a_process_that_serves_a_port_does_not_wait_for_another_password() {
    let broker = broker();
    let port = free_port().to_string();
    let pod = Pod::new("echo").defined("agents.yaml", &defined("in", "out")).with("K_WEB_PORT", &port);
    let pod = pod.with("K_WEB_BIND", "127.0.0.1").with("K_KAFKA_BOOTSTRAP_SERVERS", &broker.with_passwords());
    let pod = pod.with("K_KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT").with("K_KAFKA_AUTH_USERNAME", "bob");
    let pod = pod.with("K_KAFKA_AUTH_PASSWORD", "guessed");
    let mut process = pod.start();
    assert_eq!(process.wait(), Some(1), "{}", process.words());
    assert!(pod.last_words().contains("look at sasl.username and sasl.password"), "{}", pod.last_words());
}

/// Runs the command as our image's user, where the tests run as root, whom no permission stops.
fn run_as_another(command: &mut std::process::Command) {
    // SAFETY: the call has no conditions.
    if unsafe { libc::geteuid() } == 0 {
        command.uid(USER).gid(USER);
    }
}

#[test]
fn a_volume_of_another_user_is_done_without() {
    let broker = broker();
    let (pod, input, output) = echo(broker);
    let table = "tables:\n- name: seen\n";
    let uses = "      table_refs: null\n      tables: [{name: seen, param_name: seen}]\n";
    let spec = defined(&input, &output).replace("def pass_on(value)", "def pass_on(value, seen)");
    pod.define(
        "agents.yaml",
        &(spec.replace("    - name: pass_on\n", &format!("    - name: pass_on\n{uses}")) + table),
    );
    let volume = pod.path("volume");
    std::fs::create_dir(&volume).expect("made");
    std::fs::create_dir(volume.join("lost+found")).expect("made");
    std::fs::write(volume.join("CURRENT"), "RocksDB's").expect("written");
    let open = |path: &std::path::Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    open(&pod.path("."), 0o755).expect("opened");
    open(&volume, 0o555).expect("closed");
    let pod = pod.with("K_TABLE_DIR", &volume.display().to_string());
    broker.produce(&input, [Record::new("k", "1")]);
    let mut command = pod.command(&["--until-caught-up"]);
    run_as_another(&mut command);
    let ended = command.output().expect("it starts");
    let words = stderr(&ended);
    assert_eq!((ended.status.code(), broker.count(&output)), (Some(0), 1), "{words}");
    assert!(words.contains("template.pod.securityContext.fsGroup: 10001"), "{words}");
    // A folder that was typed must do; one that is the user's own is used, and what others left there stays.
    let mut command = pod.command(&["--until-caught-up", "--state-dir", &volume.display().to_string()]);
    run_as_another(&mut command);
    let ended = command.output().expect("it starts");
    assert!(ended.status.code() == Some(1) && stderr(&ended).contains("cannot be used"), "{}", stderr(&ended));
    open(&volume, 0o777).expect("opened");
    let ended = pod.ends(&["--until-caught-up"]);
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    let mut names: Vec<_> =
        std::fs::read_dir(&volume).expect("it can be read").map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    let names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
    assert!(
        names.len() > 2 && ["CURRENT", "lost+found"].iter().all(|name| names.iter().any(|found| found == name)),
        "{names:?}"
    );
    assert_eq!(std::fs::read(volume.join("CURRENT")).expect("it is there"), b"RocksDB's");
}

#[test]
fn a_volume_that_is_done_without_shows() {
    let broker = broker();
    let (pod, ..) = echo(broker);
    let (volume, port) = (pod.path("volume"), free_port());
    std::fs::create_dir(&volume).expect("made");
    let open = |path: &std::path::Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    open(&pod.path("."), 0o755).expect("opened");
    open(&volume, 0o555).expect("closed");
    let pod = pod.with("K_TABLE_DIR", &volume.display().to_string()).with("K_WEB_PORT", &port.to_string());
    let page = |path: &str| kaspr_tests::http::get(port, path).map(|page| page.body).unwrap_or_default();
    let process = pod.start_as(run_as_another);
    process.wait_until("readiness", || page("/health/ready").contains("\"ready\":true"));
    let writable = || kaspr_tests::http::series(&page("/metrics"), "kaspr_state_dir_writable");
    assert!(matches!(writable()[..], [(_, 0.0)]), "{:?}", writable());
    let status: serde_json::Value = serde_json::from_str(&page("/kaspr/status")).expect("it is JSON");
    assert!(status["stateDirFault"].as_str().is_some_and(|why| why.contains("Permission denied")), "{status}");
    assert_eq!(status["stateDir"], volume.display().to_string(), "{status}");
}

#[test]
fn topics_are_made_as_the_variables_say_or_not_at_all() {
    let broker = broker();
    let (pod, input, _) = echo(broker);
    let output = unique("made");
    let table = "tables:\n- name: seen\n";
    let spec = defined(&input, &output).replace("def pass_on(value)", "def pass_on(value, seen)");
    let spec =
        spec.replace("    - name: pass_on\n", "    - name: pass_on\n      tables: [{name: seen, param_name: seen}]\n");
    pod.define("agents.yaml", &(spec.replace("{name: made", "{declare: true, name: made") + table));
    let pod = pod.with("K_TOPIC_PARTITIONS", "3").with("K_TOPIC_REPLICATION_FACTOR", "1");
    broker.produce(&input, [Record::new("k", "1")]);
    let mut command = pod.command(&["--until-caught-up"]);
    let ended = command.env("K_TOPIC_ALLOW_DECLARE", "False").output().expect("it starts");
    let words = stderr(&ended);
    assert_eq!(ended.status.code(), Some(1), "{words}");
    for missing in [&output, "seen-changelog"] {
        assert!(words.contains(missing), "{missing}: {words}");
    }
    assert_eq!(words.matches("topicAllowDeclare (TOPIC_ALLOW_DECLARE) is false").count(), 2, "{words}");
    let ended = pod.ends(&["--until-caught-up"]);
    assert_eq!((ended.status.code(), broker.partitions(&output)), (Some(0), 3), "{}", stderr(&ended));
}

#[test]
fn serializers_are_the_variables_where_a_spec_names_none() {
    let broker = broker();
    let (pod, input, output) = echo(broker);
    let pod = pod.with("K_VALUE_SERIALIZER", "raw").with("K_KEYSERIALIZER", "json");
    broker.produce(&input, [Record::new("\"k\"", "no { JSON")]);
    let ended = pod.ends(&["--until-caught-up"]);
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    let records = broker.read(&output);
    assert_eq!(records.iter().map(Record::text).collect::<Vec<_>>(), ["no { JSON"]);
}

#[test]
fn every_listener_is_reached_by_variables_alone() {
    const PASSWORD: &str = "bobs-secret";
    let broker = Broker::start_with_tls();
    let file = broker.file("ca.pem");
    let (ca, text) = (file.display().to_string(), std::fs::read_to_string(&file).expect("it is there"));
    let user = [("K_KAFKA_AUTH_USERNAME", "bob"), ("K_KAFKA_AUTH_PASSWORD", PASSWORD)];
    let (tls, with_users) = (broker.with_tls(), broker.with_tls_and_passwords());
    // Listener, protocol, the variable of the authority and its value, and the words of a start that fails.
    let trials: [(&str, &str, &str, &str, &str); 8] = [
        (&broker.servers, "PLAINTEXT", "", "", ""),
        (&broker.with_passwords(), "SASL_PLAINTEXT", "", "", ""),
        (&tls, "SSL", "K_KAFKA_AUTH_CAFILE", &ca, ""),
        (&with_users, "SASL_SSL", "K_KAFKA_AUTH_CADATA", &text, ""),
        (&with_users, "SASL_SSL", "KASPR_KAFKA_AUTH_CADATA_FILE", &ca, ""),
        (&with_users, "SASL_SSL", "K_KAFKA_AUTH_CAPATH", "", ""),
        (&with_users, "SASL_SSL", "", "", "its certificate comes from an authority that is not known here"),
        (
            &broker.with_passwords(),
            "SASL_PLAINTEXT",
            "K_KAFKA_AUTHPASSWORD",
            "guessed",
            "look at sasl.username and sasl.password",
        ),
    ];
    for (servers, protocol, variable, value, told) in trials {
        let (pod, input, output) = echo(&broker);
        broker.produce(&input, [Record::new("k", "1")]);
        let folder = if variable == "K_KAFKA_AUTH_CAPATH" { pod.authorities(&file) } else { value.to_owned() };
        let pod = pod.with("KASPR_KAFKA_BOOTSTRAP_SERVERS", servers).with("K_KAFKA_SECURITY_PROTOCOL", protocol);
        let others = user.iter().filter(|(name, _)| value != "guessed" || *name != "K_KAFKA_AUTH_PASSWORD");
        let pod =
            others.fold(pod, |pod, (name, value)| pod.with(name, value)).with(variable_or_none(variable), &folder);
        let ended = pod.ends(&["--until-caught-up"]);
        let words = stderr(&ended);
        match told {
            "" => {
                assert_eq!(
                    (ended.status.code(), broker.count(&output)),
                    (Some(0), 1),
                    "{protocol} {variable}: {words}"
                );
            }
            told => {
                assert_eq!(ended.status.code(), Some(1), "{words}");
                assert!(words.lines().last().is_some_and(|line| line.contains(told)), "{protocol}: {words}");
                assert!(pod.last_words().contains(told), "{}", pod.last_words());
            }
        }
        assert!(!words.contains(PASSWORD) && !words.contains("guessed"), "{words}");
    }
}

/// A variable that a trial does not have is one that means nothing.
fn variable_or_none(name: &str) -> &str {
    if name.is_empty() { "K_POD_NAME" } else { name }
}

#[test]
fn the_path_of_packages_is_taken_without_what_no_shell_filled_in() {
    let pod = Pod::new("echo").with("PYTHONPATH", "/opt/kaspr/packages:${PYTHONPATH}");
    let look = "def pass_on(value):\n    import os, sys\n    return [os.environ['PYTHONPATH'], [path for path in sys.path if '$' in path]]";
    let spec = defined("in", "out").replace("def pass_on(value): return value", &look.replace('\n', "\\n"));
    let pod = pod.defined("agents.yaml", &spec);
    std::fs::write(pod.path("in.jsonl"), "1\n").expect("written");
    let input = format!("in={}", pod.path("in.jsonl").display());
    let ended = pod.ends(&["--local", "--quiet", "--input", &input]);
    let seen = kaspr_tests::program::stdout(&ended);
    assert!(seen.contains(r#""value":["/opt/kaspr/packages", []]"#), "{seen}{}", stderr(&ended));
}

/// A member as the reference runtime's are for us: of a protocol that no worker speaks.
struct Stranger(std::sync::Arc<std::sync::atomic::AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl Stranger {
    fn join(broker: &Broker, group: &str, topic: &str) -> Stranger {
        let mut config = rdkafka::ClientConfig::new();
        config.set("bootstrap.servers", &broker.servers).set("group.id", group);
        config.set("partition.assignment.strategy", "roundrobin").set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().expect("the settings are good");
        consumer.subscribe(&[topic]).expect("it subscribes");
        let ends = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let is_over = ends.clone();
        let polls = move || {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = consumer.poll(std::time::Duration::from_millis(100));
            }
        };
        let stranger = Stranger(ends, Some(std::thread::spawn(polls)));
        while broker.members(group) != Some(1) {
            pause(std::time::Duration::from_millis(100));
        }
        stranger
    }

    /// Leaves the group.
    fn leave(mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        self.1.take().map(std::thread::JoinHandle::join).expect("it runs").expect("it ends");
    }
}

#[test]
fn members_of_another_protocol_are_waited_out() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 1), broker.topic("out", 1));
    let app = unique("echo");
    let stranger = Stranger::join(broker, &app, &input);
    let pod = Pod::new(&app).defined("agents.yaml", &defined(&input, &output));
    let port = free_port();
    let pod = pod.with("K_KAFKA_BOOTSTRAP_SERVERS", &broker.servers).with("K_WEB_PORT", &port.to_string());
    let mut process = pod.start();
    process.wait_for("waiting for members of another protocol to leave the group");
    broker.produce(&input, [Record::new("k", "1")]);
    assert!(process.runs(), "{}", process.words());
    // The operator deletes a pod that rebalances for long and does not recover.
    let moves = || {
        let status = kaspr_tests::http::get(port, "/status/").map(|page| page.json()).unwrap_or_default();
        (status["rebalancing"].as_bool(), status["recovering"].as_bool())
    };
    let why = || kaspr_tests::http::get(port, "/health/ready").map(|page| page.body).unwrap_or_default();
    process.wait_until("the reason", || why().contains("waiting for members of another protocol"));
    assert_eq!(moves(), (Some(true), Some(true)));
    stranger.leave();
    process.wait_until("a record", || broker.count(&output) == 1);
    process.wait_until("it to run", || moves() == (Some(false), Some(false)));
    let words = process.words();
    assert_eq!(words.matches("members of another protocol").count(), 1, "once a minute: {words}");
    assert_eq!(process.terminate(), Some(0), "{}", process.words());
}
