//! Clients of a worker's HTTP server: scrapers, clients that are slow, and looks at its health.
#![allow(clippy::disallowed_methods, reason = "a bench measures real time")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kaspr_tests::http::Client;

/// Connections that send a request so slowly that its headers are never whole.
const SLOW: usize = 64;
/// Scrapers under load, and the time between two scrapes of each: 500 a second.
const SCRAPERS: usize = 5;
const SCRAPE_EVERY: Duration = Duration::from_millis(10);
/// The time between two looks at the health.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Clients that go on until they are told to end.
pub struct Scrapes {
    ends: Arc<AtomicBool>,
    scrapers: Vec<JoinHandle<u64>>,
    slow: Option<JoinHandle<()>>,
    looks: Option<JoinHandle<Vec<f64>>>,
}

/// The counts of clients that have ended.
#[derive(Debug)]
pub struct Scraped {
    /// Pages of metrics that came.
    pub pages: u64,
    /// Milliseconds to each answer of `/health/live`, sorted.
    pub health: Vec<f64>,
}

impl Scrapes {
    /// Scrapes once a second.
    pub fn each_second(port: u16) -> Scrapes {
        let ends = Arc::<AtomicBool>::default();
        let scrapers = vec![scraper(port, Duration::from_secs(1), ends.clone())];
        Scrapes { ends, scrapers, slow: None, looks: None }
    }

    /// Scrapes 500 times a second beside 64 slow clients, and looks at the health.
    pub fn without_mercy(port: u16) -> Scrapes {
        let ends = Arc::<AtomicBool>::default();
        let scrapers = (0..SCRAPERS).map(|_| scraper(port, SCRAPE_EVERY, ends.clone())).collect();
        let slow_ends = ends.clone();
        let slow = std::thread::spawn(move || be_slow(port, &slow_ends));
        let look_ends = ends.clone();
        let looks = std::thread::spawn(move || look(port, &look_ends));
        Scrapes { ends, scrapers, slow: Some(slow), looks: Some(looks) }
    }

    /// Ends the clients.
    ///
    /// # Panics
    ///
    /// If one of them has.
    pub fn end(self) -> Scraped {
        self.ends.store(true, Ordering::Relaxed);
        let pages = self.scrapers.into_iter().map(|thread| thread.join().expect("a scraper ends")).sum();
        if let Some(slow) = self.slow {
            slow.join().expect("slow clients end");
        }
        let mut health = self.looks.map_or_else(Vec::new, |thread| thread.join().expect("looks end"));
        health.sort_by(f64::total_cmp);
        Scraped { pages, health }
    }
}

/// Scrapes over a kept connection, and counts the pages. The process may not have begun, or have ended.
fn scraper(port: u16, every: Duration, ends: Arc<AtomicBool>) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        let (mut pages, mut client, began) = (0, None, Instant::now());
        for number in 1.. {
            if ends.load(Ordering::Relaxed) {
                break;
            }
            client = client.or_else(|| Client::connect(port).ok());
            let page = client.as_mut().and_then(|client| client.ask("GET", "/metrics", &[], "").ok());
            match page {
                Some(page) if page.status == 200 => pages += 1,
                _ => client = None,
            }
            pause_until(began + every * number, &ends);
        }
        pages
    })
}

/// Begins requests and sends a byte of each now and then; one that is closed begins anew.
fn be_slow(port: u16, ends: &AtomicBool) {
    let begin = || {
        let mut client = Client::connect(port).ok()?;
        client.send(b"GET / HTTP/1.1\r\nX-Slow: ").ok()?;
        Some(client)
    };
    let mut clients: Vec<Option<Client>> = (0..SLOW).map(|_| None).collect();
    while !ends.load(Ordering::Relaxed) {
        for client in &mut clients {
            let goes_on = client.as_mut().is_some_and(|client| client.send(b"x").is_ok());
            if !goes_on {
                *client = begin();
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Asks for the health again and again, each time over a connection of its own.
fn look(port: u16, ends: &AtomicBool) -> Vec<f64> {
    let mut delays = Vec::new();
    while !ends.load(Ordering::Relaxed) {
        let began = Instant::now();
        if kaspr_tests::http::get(port, "/health/live").is_ok_and(|page| page.status == 200) {
            delays.push(began.elapsed().as_secs_f64() * 1e3);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    delays
}

fn pause_until(time: Instant, ends: &AtomicBool) {
    while !ends.load(Ordering::Relaxed) {
        let left = time.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}
