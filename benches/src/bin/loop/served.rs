//! The worker with its port served: what scrapes cost it, how soon it answers, and how long a snapshot takes.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kaspr_benches::scrapes::{Scraped, Scrapes};
use kaspr_benches::{Run, median};
use kaspr_exec::config::serving::TURN_AGE_MAX;
use kaspr_exec::config::web::Web;
use kaspr_exec::status::board::Board;
use kaspr_exec::status::crew::Crew;
use kaspr_exec::status::snapshot::State;
use kaspr_exec::web::{Facts, PlanTexts, Site};
use kaspr_ir::plan::Plan;
use kaspr_tests::kafka::free_port;

use super::{EVENTS, own, turn};

/// Times that the events are given: a run takes seconds, so that there are scrapes in it.
const LAPS: u64 = 5;
const ROUNDS: usize = 5;
/// Partitions of the worker whose snapshots are timed, and the number of snapshots.
const PARTITIONS: i32 = 1_000;
const SNAPSHOTS: usize = 200;

/// Serves the port of a worker of this process; gives the board for its snapshots.
pub fn serve(plan: &Plan, port: u16) -> Arc<Board> {
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    let listen = listener.local_addr().expect("it is bound");
    let board = board();
    let web = Web { listen, host: String::new(), metrics_path: "/metrics".to_owned(), has_old_names: true, ordinal: 0 };
    let facts = Facts {
        version: env!("CARGO_PKG_VERSION"),
        revision: plan.revision.clone(),
        python: String::new(),
        librdkafka: String::new(),
        state_dir: None,
    };
    let site = Site {
        app: "bench".to_owned(),
        crew: Crew::One(board.clone()),
        facts,
        web,
        shows_messages: false,
        turn_age_max: TURN_AGE_MAX,
        plan: PlanTexts::of(plan),
        is_told_to_stop: Box::new(|| false),
    };
    kaspr_exec::web::serve(listener, site).expect("it is served");
    board
}

/// A board that nobody looks at.
pub fn board() -> Arc<Board> {
    Arc::new(Board::new("bench", "bench.loop.0"))
}

/// Compares the worker without a port, scraped once a second, and under 500 scrapes a second and 64 slow clients.
///
/// # Errors
///
/// A worker failed.
pub fn compare(file: &Path) -> Result<(), String> {
    let (mut seldom, mut hard, mut health, mut pages) = (Vec::new(), Vec::new(), Vec::new(), (0, 0));
    for _ in 0..ROUNDS {
        let alone = turn(own(&["worker", "map", &LAPS.to_string()], file))?;
        let (scraped, came) = served(file, Scrapes::each_second)?;
        seldom.push(ratios(alone, scraped));
        pages.0 += came.pages;
        let (scraped, came) = served(file, Scrapes::without_mercy)?;
        hard.push(ratios(alone, scraped));
        pages.1 += came.pages;
        health.extend(came.health);
    }
    let of = |all: &[(f64, f64)], part: fn(&(f64, f64)) -> f64| median(&all.iter().map(part).collect::<Vec<_>>());
    println!("\nfilter + map, {} events, with the port served, of the worker without:", EVENTS * LAPS);
    for (what, all, pages) in
        [("scraped once a second", &seldom, pages.0), ("500 scrapes a second, 64 slow clients", &hard, pages.1)]
    {
        let (cpu, wall) = (of(all, |both| both.0), of(all, |both| both.1));
        println!("{what:<40} events/CPU s {cpu:.3}x, events/s {wall:.3}x ({pages} pages)");
    }
    health.sort_by(f64::total_cmp);
    let at = |share: f64| health.get((health.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    let worst = health.last().copied().unwrap_or(f64::NAN);
    println!("{:<40} p50 {:.1} ms, p99 {:.1} ms, worst {worst:.1} ms", "/health/live meanwhile", at(0.5), at(0.99));
    Ok(())
}

/// Events per second of CPU, and per second, of the second run to the first.
fn ratios(alone: Run, served: Run) -> (f64, f64) {
    (alone.micros() / served.micros(), alone.wall / served.wall)
}

/// A turn of a worker whose port these clients use.
fn served(file: &Path, clients: fn(u16) -> Scrapes) -> Result<(Run, Scraped), String> {
    let port = free_port();
    let mut command = own(&["worker", "map", &LAPS.to_string(), &port.to_string()], file);
    let clients = clients(port);
    command.stdin(Stdio::null());
    let run = turn(command);
    let scraped = clients.end();
    if scraped.pages == 0 {
        return Err("no page of metrics came".to_owned());
    }
    Ok((run?, scraped))
}

/// Prints the time for which a snapshot of 1,000 partitions keeps the worker's thread.
///
/// # Errors
///
/// The worker failed.
pub fn snapshots(file: &Path) -> Result<(), String> {
    let output = own(&["snapshots"], file).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    output.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Times snapshots of a worker that runs a table in each of its partitions.
pub fn time_snapshots() {
    super::with_worker(
        "table",
        PARTITIONS,
        |_| Some(board()),
        |worker, log, _| {
            for partition in 0..PARTITIONS {
                super::append(log, partition, bytes::Bytes::from_static(br#"{"sensor": "sensor-1", "celsius": 20.5}"#));
            }
            let board = board();
            let all = usize::try_from(PARTITIONS).expect("few");
            loop {
                worker.turn(Duration::ZERO).expect("the worker runs");
                let snapshot = worker.published();
                let has_all = snapshot.partitions.len() == all && snapshot.counters.completed >= all as u64;
                if snapshot.state == State::Running && has_all {
                    break;
                }
            }
            let mut millis = Vec::new();
            for _ in 0..SNAPSHOTS {
                let began = Instant::now();
                board.publish(worker.published());
                millis.push(began.elapsed().as_secs_f64() * 1e3);
            }
            let worst = millis.iter().copied().fold(0.0, f64::max);
            println!(
                "\na snapshot of {PARTITIONS} partitions keeps the worker's thread for {:.3} ms (worst {worst:.3} ms)",
                median(&millis)
            );
        },
    );
}
