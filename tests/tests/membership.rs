//! Members of an app's group in pods: which of them leads, and who owns what when they come back with other topics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kaspr_tests::acl::{self, On, To};
use kaspr_tests::clock::{now, pause};
use kaspr_tests::figure;
use kaspr_tests::http;
use kaspr_tests::kafka::{Broker, broker, free_port, unique};
use kaspr_tests::pod::{ECHO, Pod, Started};
use kaspr_tests::program;
use kaspr_tests::random::Random;
use serde_json::Value;

/// A pod that serves a port.
struct Member {
    pod: Pod,
    port: u16,
}

impl Member {
    /// A pod of this app that nothing is defined in.
    fn new(app: &str, servers: &str) -> Member {
        let port = free_port();
        let pod = Pod::new(app).with("K_KAFKA_BOOTSTRAP_SERVERS", servers).with("K_WEB_PORT", &port.to_string());
        // Shorter than usual, so that a member that was killed is missed soon.
        Member { pod: pod.with("K_WEB_BIND", "127.0.0.1").with("K_BROKER_SESSION_TIMEOUT", "6"), port }
    }

    /// A pod that reads these topics, each with an agent of its own.
    fn reading(app: &str, servers: &str, topics: &[&str], output: &str) -> Member {
        let member = Member::new(app, servers);
        member.define(topics, output);
        member
    }

    fn define(&self, topics: &[&str], output: &str) {
        let agents = topics.iter().map(|topic| {
            let agent = ECHO.replace("INPUT", topic).replace("OUTPUT", output);
            agent.replace("name: echo", &format!("name: {topic}")).replacen("agents:\n", "", 1)
        });
        self.pod.define("agents.yaml", &format!("agents:\n{}", agents.collect::<String>()));
    }

    fn with(self, name: &str, value: &str) -> Member {
        Member { pod: self.pod.with(name, value), ..self }
    }

    /// The operator's page; null while nothing answers.
    fn status(&self) -> Value {
        http::get(self.port, "/status/").map(|page| page.json()).unwrap_or_default()
    }

    /// The status of its answer to whether it is ready.
    fn ready(&self) -> Option<u16> {
        http::get(self.port, "/health/ready").ok().map(|page| page.status)
    }

    /// Whether it leads, and the group's generation of which it is a member.
    fn reign(&self) -> (bool, Option<i64>) {
        let page = http::get(self.port, "/kaspr/status").map(|page| page.json()).unwrap_or_default();
        (page["leader"] == true, page["workers"][0]["generation"].as_i64())
    }

    fn leads(&self) -> bool {
        self.status()["leader"] == true
    }

    /// The partitions that it says it has, but for those of the topic whose owner leads.
    fn owned(&self) -> BTreeSet<(String, i64)> {
        let status = self.status();
        let actives = status["assignment"]["actives"].as_object().cloned().unwrap_or_default();
        let of = |(topic, numbers): (String, Value)| {
            let numbers = numbers.as_array().cloned().unwrap_or_default();
            numbers.into_iter().filter_map(move |number| Some((topic.clone(), number.as_i64()?))).collect::<Vec<_>>()
        };
        actives.into_iter().filter(|(topic, _)| !topic.ends_with("-assignor-leader")).flat_map(of).collect()
    }

    fn rests(&self) -> bool {
        let status = self.status();
        status["rebalancing"] == false && status["recovering"] == false
    }
}

/// The number of the one member that leads, once there is one.
///
/// Fails if two lead at the same time: the first must still lead when the second has said that it does.
fn leader(members: &[&Member]) -> Option<usize> {
    let first = members.iter().position(|member| member.leads())?;
    let others = (first + 1..members.len()).filter(|number| members[*number].leads());
    match others.collect::<Vec<_>>().as_slice() {
        [] => Some(first),
        [second, ..] => {
            assert!(!members[first].leads(), "{first} and {second} lead");
            None
        }
    }
}

#[test]
fn the_member_with_the_leaders_partition_leads_and_another_follows() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 4), broker.topic("out", 1));
    let app = unique("echo");
    let topic = format!("{app}-assignor-leader");
    let members = [0, 1].map(|_| Member::reading(&app, &broker.servers, &[&input], &output));
    let all: Vec<&Member> = members.iter().collect();
    let mut started: Vec<Started<'_>> = members.iter().map(|member| member.pod.start()).collect();
    started[0].wait_until("both to have partitions", || {
        leader(&all).is_some() && members.iter().all(|member| member.rests() && !member.owned().is_empty())
    });
    assert_eq!(broker.partitions(&topic), 1);
    let first = leader(&all).expect("one leads");
    let lists_it = |member: &Member| member.status()["assignment"]["actives"].get(&topic).cloned();
    assert_eq!(lists_it(&members[first]), Some(serde_json::json!([0])), "as the reference runtime does");
    assert_eq!(lists_it(&members[1 - first]), None);
    // The other one leads when the first is gone, and goes on when it is back.
    started[first].signal(libc::SIGKILL);
    let second = 1 - first;
    started[second].wait_until("the other to lead", || leader(&all) == Some(second));
    started[first].wait();
    started[first] = members[first].pod.start();
    started[first].wait_until("both to have partitions again", || {
        leader(&all).is_some() && members.iter().all(|member| member.rests() && !member.owned().is_empty())
    });
    let leads = leader(&all).expect("one leads");
    assert_eq!(started[leads].terminate(), Some(0), "{}", started[leads].words());
    started[1 - leads].wait_until("the one that is left to lead", || leader(&all) == Some(1 - leads));
    // A leader that is frozen for longer than its session, and goes on: by then it is another one's turn.
    started[leads] = members[leads].pod.start();
    let both_rest = || members.iter().all(|member| member.rests() && !member.owned().is_empty());
    started[leads].wait_until("both to have partitions once more", || leader(&all).is_some() && both_rest());
    let frozen = leader(&all).expect("one leads");
    started[frozen].signal(libc::SIGSTOP);
    started[1 - frozen].wait_until("the other to lead once more", || members[1 - frozen].leads());
    started[frozen].signal(libc::SIGCONT);
    // It says what it last knew until it learns better, which is of an earlier generation of the group.
    let leads_alone = || all.iter().filter(|member| member.leads()).count() == 1;
    started[frozen].wait_until("one to lead", || leads_alone() && both_rest());
    assert!(leader(&all).is_some());
    assert_eq!(broker.committed(&app, &topic), [None], "nothing of the topic is read");
    let words = started[first].words();
    assert!(!words.contains("no leader can be chosen"), "{words}");
}

/// The members that say that they lead, by the group's generation in which they say so, as long as tests look.
#[derive(Default)]
struct Reigns {
    leaders: Mutex<BTreeMap<i64, BTreeSet<usize>>>,
    is_over: AtomicBool,
}

impl Reigns {
    /// Asks one member again and again.
    fn look(&self, number: usize, member: &Member) {
        while !self.is_over.load(Ordering::SeqCst) {
            if let (true, generation) = member.reign() {
                let generation = generation.expect("a leader is a member");
                self.leaders.lock().expect("no look panics").entry(generation).or_default().insert(number);
            }
            pause(Duration::from_millis(20));
        }
    }
}

/// Ends the looks when it is dropped: a test that fails waits for them too.
struct Over<'a>(&'a Reigns);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
    }
}

/// Does something to one of the members: kills it and starts it again at once or a while later, ends it, or freezes
/// it for less than its session or for longer.
fn disturb<'a>(random: &mut Random, members: &'a [Member], started: &mut [Started<'a>]) {
    let number = usize::try_from(random.below(members.len() as u64)).expect("few");
    let while_ms = |random: &mut Random, most: u64| pause(Duration::from_millis(random.below(most)));
    match random.below(3) {
        0 => {
            started[number].signal(libc::SIGSTOP);
            while_ms(random, 12_000);
            started[number].signal(libc::SIGCONT);
        }
        kind => {
            started[number].signal(if kind == 1 { libc::SIGKILL } else { libc::SIGTERM });
            started[number].wait();
            while_ms(random, 8_000);
            started[number] = members[number].pod.start();
        }
    }
    while_ms(random, 4_000);
}

/// `CHANGES` of them, eight where nothing is said.
#[test]
fn there_is_one_leader_at_most_in_each_generation_whatever_happens_to_members() {
    let changes = std::env::var("CHANGES").ok().and_then(|count| count.parse().ok()).unwrap_or(8);
    let broker = broker();
    let (input, output, app) = (broker.topic("in", 6), broker.topic("out", 1), unique("echo"));
    let members = [0; 3].map(|_| Member::reading(&app, &broker.servers, &[&input], &output));
    let mut started: Vec<Started<'_>> = members.iter().map(|member| member.pod.start()).collect();
    let leads = |member: &&Member| member.leads();
    let rest = || members.iter().all(Member::rests) && members.iter().filter(leads).count() == 1;
    started[0].wait_until("one to lead", rest);
    let (reigns, mut random) = (Reigns::default(), Random::new(18));
    std::thread::scope(|scope| {
        let _over = Over(&reigns);
        for (number, member) in members.iter().enumerate() {
            let reigns = &reigns;
            scope.spawn(move || reigns.look(number, member));
        }
        for _ in 0..changes {
            disturb(&mut random, &members, &mut started);
        }
        let began = now();
        started[0].wait_until("one to lead at last", rest);
        figure(&format!("one leader, and all at rest, {:.1?} after the last of {changes} changes", now() - began));
    });
    let leaders = reigns.leaders.into_inner().expect("no look panicked");
    figure(&format!("{} generations with a leader", leaders.len()));
    assert!(leaders.values().all(|leaders| leaders.len() == 1), "two lead in one generation: {leaders:?}");
}

#[test]
fn a_member_that_waits_for_the_group_rebalances_and_one_without_partitions_is_ready() {
    let broker = broker();
    let (input, output, app) = (broker.topic("in", 1), broker.topic("out", 1), unique("echo"));
    let members = [0, 1].map(|_| {
        // Without the leader's topic there is one partition in all.
        Member::reading(&app, &broker.servers, &[&input], &output).with("K_TOPIC_ALLOW_DECLARE", "False")
    });
    let first = members[0].pod.start();
    first.wait_until("the partition", || members[0].rests() && !members[0].owned().is_empty());
    // The group waits for the first to join again until its session ends.
    first.signal(libc::SIGSTOP);
    let second = members[1].pod.start();
    second.wait_until("it to join", || {
        let status = members[1].status();
        status["rebalancing"] == true && status["recovering"] == false
    });
    assert_eq!(members[1].ready(), Some(503), "{}", second.words());
    first.signal(libc::SIGCONT);
    second.wait_until("both to rest", || {
        members.iter().all(|member| member.rests() && member.ready() == Some(200)) && owners(&members).len() == 1
    });
    assert!(members.iter().any(|member| member.owned().is_empty()), "{:?}", owners(&members));
}

#[test]
fn a_static_member_that_is_asked_for_a_rebalance_causes_one() {
    let broker = broker();
    let (input, output, app) = (broker.topic("in", 1), broker.topic("out", 1), unique("echo"));
    let member = Member::reading(&app, &broker.servers, &[&input], &output);
    let member = member.with("K_CONSUMER_GROUP_INSTANCE_ID", &format!("{app}-0"));
    let started = member.pod.start();
    started.wait_until("the partition", || member.rests() && !member.owned().is_empty());
    let before = member.reign().1.expect("it is a member");
    let mut client = http::Client::connect(member.port).expect("it listens");
    let asked = client.ask("POST", "/signal/rebalance", &["Content-Type: application/json"], "").expect("an answer");
    assert_eq!(asked.status, 200);
    started.wait_until("a rebalance", || member.reign().1.is_some_and(|now| now > before) && member.rests());
}

#[test]
fn without_the_leaders_topic_the_owner_of_the_first_partition_leads() {
    let broker = broker();
    let [first, second, output] = ["a", "b", "out"].map(|name| broker.topic(name, 1));
    let app = unique("echo");
    let member = Member::reading(&app, &broker.servers, &[&second, &first], &output);
    let member = member.with("K_TOPIC_ALLOW_DECLARE", "False");
    let mut started = member.pod.start();
    started.wait_until("it to lead", || member.leads());
    assert_eq!(started.terminate(), Some(0), "{}", started.words());
    let words = started.words();
    let told = format!(
        "no leader can be chosen by the topic \"{app}-assignor-leader\", so the worker that has partition 0 of \
         \"{first}\" leads: it does not exist, and topicAllowDeclare (TOPIC_ALLOW_DECLARE) is false"
    );
    assert_eq!(words.matches(&told).count(), 1, "{words}");
    assert_eq!(broker.partitions(&format!("{app}-assignor-leader")), 0);
}

#[test]
fn a_user_that_may_not_make_the_leaders_topic_is_told_the_right_and_leads() {
    let broker = Broker::closed();
    let (input, output, app) = (broker.topic("in", 1), broker.topic("out", 1), unique("echo"));
    let ids = format!("{app}.");
    for (to, on) in [
        (To::Read, On::Topic(&input)),
        (To::Write, On::Topic(&output)),
        (To::Read, On::Group(&app)),
        (To::Write, On::Ids(&ids)),
    ] {
        acl::allow(&broker.servers, "bob", to, on);
    }
    let member = Member::reading(&app, &broker.with_passwords(), &[&input], &output);
    let member = member.with("K_KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT");
    let member = member.with("K_KAFKA_AUTH_USERNAME", "bob").with("K_KAFKA_AUTH_PASSWORD", "bobs-secret");
    let check = || {
        let variables = variables(&member.pod.command(&[]));
        let ended = program::command("kaspr-exec", &["check"]).envs(variables).output().expect("it runs");
        assert_eq!(ended.status.code(), Some(0), "{}", program::stderr(&ended));
        program::stdout(&ended)
    };
    assert!(check().contains("no leader can be chosen"), "{}", check());
    let started = member.pod.start();
    started.wait_until("it to lead", || member.leads());
    let words = started.words();
    assert!(words.contains("no leader can be chosen") && words.contains("CREATE on the topic"), "{words}");
    let topic = format!("{app}-assignor-leader");
    acl::allow(&broker.servers, "bob", To::Create, On::Topic(&topic));
    acl::allow(&broker.servers, "bob", To::Read, On::Topic(&topic));
    assert!(check().contains(&format!("topic {topic} does not exist yet: a run creates it")), "{}", check());
}

/// The variables of a pod.
fn variables(command: &std::process::Command) -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect()
}

/// The owner of each partition.
fn owners(members: &[Member]) -> BTreeMap<(String, i64), usize> {
    let of = |(number, member): (usize, &Member)| member.owned().into_iter().map(move |partition| (partition, number));
    members.iter().enumerate().flat_map(of).collect()
}

#[test]
fn static_members_that_come_back_with_other_topics_leave_none_without_a_reader() {
    let broker = broker();
    let [kept, old, new, output] = ["kept", "old", "new", "out"].map(|name| broker.topic(name, 4));
    let app = unique("echo");
    let members: Vec<Member> = (0..3)
        .map(|number| {
            let member = Member::reading(&app, &broker.servers, &[&kept, &old], &output);
            // As long as a pod takes to come back.
            member
                .with("K_CONSUMER_GROUP_INSTANCE_ID", &format!("{app}-{number}"))
                .with("K_BROKER_SESSION_TIMEOUT", "30")
        })
        .collect();
    let mut started: Vec<Started<'_>> = members.iter().map(|member| member.pod.start()).collect();
    let all = |topics: &[&str]| -> BTreeSet<(String, i64)> {
        topics.iter().flat_map(|topic| (0..4).map(|number| ((*topic).to_owned(), number))).collect()
    };
    let have = |expected: &BTreeSet<(String, i64)>| {
        owners(&members).into_keys().collect::<BTreeSet<_>>() == *expected && members.iter().all(Member::rests)
    };
    started[0].wait_until("all partitions to have owners", || have(&all(&[&kept, &old])));
    for number in 0..3 {
        assert_eq!(started[number].terminate(), Some(0), "{}", started[number].words());
        members[number].define(&[&kept, &new], &output);
        started[number] = members[number].pod.start();
        let topics: &[&str] = if number < 2 { &[&kept, &old, &new] } else { &[&kept, &new] };
        started[number].wait_until("every partition to have an owner that reads it", || have(&all(topics)));
        for ((topic, partition), owner) in owners(&members) {
            let reads = topic == kept || (topic == new) == (owner <= number);
            assert!(reads, "member {owner} has {topic}/{partition} after the start of {number}");
        }
    }
    let shares = || {
        let mut shares = [0; 3];
        owners(&members).into_values().for_each(|owner| shares[owner] += 1);
        // The partition of the leader counts like any other.
        members.iter().zip(&mut shares).filter(|(member, _)| member.leads()).for_each(|(_, share)| *share += 1);
        shares
    };
    let began = now();
    started[0].wait_until("even shares", || {
        let shares = shares();
        have(&all(&[&kept, &new])) && shares.iter().max() <= shares.iter().min().map(|least| least + 1).as_ref()
    });
    figure(&format!("even shares {:.1?} after the last has come back", now() - began));
}
