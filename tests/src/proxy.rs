//! A network between a program and the broker, in which tests break things: it passes frames of
//! Kafka's protocol on, and on demand cuts, delays or throttles them, holds chosen requests and
//! delivers them later, or loses their answers.
//!
//! The broker has a listener of its own behind it, and names the proxy's port to clients that come
//! that way. A request is a four-byte length, then api key, version and correlation id; an answer is
//! a length and the correlation id.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::{now, pause};

/// Kafka's number of a kind of request.
pub type Api = i16;
/// Consumers ask for records.
pub const FETCH: Api = 1;
/// A member of a group says that it lives.
pub const HEARTBEAT: Api = 12;
/// The producer says that offsets will be part of a transaction.
pub const ADD_OFFSETS_TO_TXN: Api = 25;
/// The producer commits or aborts.
pub const END_TXN: Api = 26;
/// The producer sends offsets as a part of a transaction.
pub const TXN_OFFSET_COMMIT: Api = 28;

/// Bytes that pass at once; a slow link takes turns between connections after each.
const CHUNK_BYTES: usize = 1024;
/// Length, api key, version and correlation id.
const HEAD_BYTES: usize = 12;

/// The fate of one chosen request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It waits this long, and all behind it on its connection.
    Hold(Duration),
    /// Its connection breaks, so that the client repeats it; the broker gets this first copy after
    /// that time all the same.
    Late(Duration),
    /// The broker gets it, and the connection breaks in place of the answer.
    LoseAnswer,
    /// The broker gets it, and the answer carries this error instead: one that begins with how long to wait
    /// and an error, as that to a heartbeat does.
    Error(i16),
}

/// The state of the network now.
#[derive(Default)]
struct Weather {
    /// Every frame waits this long.
    delay: Duration,
    /// Bytes a second in each direction, all connections together; 0: no limit.
    rate: u64,
    /// The faults that strike the next requests of a kind.
    faults: BTreeMap<Api, Vec<Fault>>,
    /// Faults that have happened.
    done: BTreeMap<Api, u64>,
    /// Times at which the link is free again: to the broker, to clients.
    free: [Option<Instant>; 2],
    /// Open connections, to be cut.
    open: HashMap<u64, [TcpStream; 2]>,
}

/// A running proxy. It ends when it is dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    port: u16,
}

struct Shared {
    upstream: u16,
    weather: Mutex<Weather>,
    refuses: AtomicBool,
    ends: AtomicBool,
    next: AtomicU64,
    bytes: [AtomicU64; 2],
}

impl Shared {
    fn weather(&self) -> MutexGuard<'_, Weather> {
        lock(&self.weather)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Listens on loopback at `port` and passes on to `upstream`.
    ///
    /// # Panics
    /// If the port is taken.
    pub fn start(port: u16, upstream: u16) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the proxy's port is free");
        let shared = Arc::new(Shared {
            upstream,
            weather: Mutex::default(),
            refuses: AtomicBool::new(false),
            ends: AtomicBool::new(false),
            next: AtomicU64::new(0),
            bytes: Default::default(),
        });
        let port = listener.local_addr().expect("it is bound").port();
        let accepts = shared.clone();
        std::thread::spawn(move || accept(&listener, &accepts));
        Proxy { shared, port }
    }

    /// The address to which clients connect.
    pub fn servers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Breaks all connections that are open.
    pub fn cut(&self) {
        for (_, ends) in self.shared.weather().open.drain() {
            ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
        }
    }

    /// Breaks all connections and takes no new ones, or takes them again.
    pub fn refuse(&self, refuses: bool) {
        self.shared.refuses.store(refuses, Ordering::SeqCst);
        if refuses {
            self.cut();
        }
    }

    /// Delays every frame by this much from now on, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.shared.weather().delay = delay;
    }

    /// Limits the link to this many bytes a second from now on, in each direction; 0: no limit.
    pub fn throttle(&self, rate: u64) {
        self.shared.weather().rate = rate;
    }

    /// Has this fault strike the next request of that kind, after the faults that were asked for before.
    pub fn fault(&self, api: Api, fault: Fault) {
        self.shared.weather().faults.entry(api).or_default().insert(0, fault);
    }

    /// Faults that happened to requests of that kind.
    pub fn happened(&self, api: Api) -> u64 {
        self.shared.weather().done.get(&api).copied().unwrap_or(0)
    }

    /// Forgets faults that have not happened yet, and delays and limits.
    pub fn clear(&self) {
        let mut weather = self.shared.weather();
        weather.faults.clear();
        (weather.delay, weather.rate, weather.free) = (Duration::ZERO, 0, [None, None]);
        self.shared.refuses.store(false, Ordering::SeqCst);
    }

    /// Bytes that went to the broker and to clients.
    pub fn bytes(&self) -> (u64, u64) {
        let [up, down] = &self.shared.bytes;
        (up.load(Ordering::Relaxed), down.load(Ordering::Relaxed))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        self.refuse(true);
        // Wakes the thread that accepts connections.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.ends.load(Ordering::SeqCst) {
            return;
        }
        if shared.refuses.load(Ordering::SeqCst) {
            continue;
        }
        // Without a broker behind the proxy, the client's connection ends, as it would without a proxy.
        if let Ok(client) = client {
            let _ = connect(client, shared);
        }
    }
}

fn connect(client: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    let broker = TcpStream::connect(("127.0.0.1", shared.upstream))?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let number = shared.next.fetch_add(1, Ordering::Relaxed);
    shared.weather().open.insert(number, [client.try_clone()?, broker.try_clone()?]);
    let gone = Arc::new(Gone::default());
    let down = Pipe { from: broker.try_clone()?, to: client.try_clone()?, shared: shared.clone(), direction: 1 };
    let up = Pipe { from: client, to: broker, shared: shared.clone(), direction: 0 };
    let answers = gone.clone();
    std::thread::spawn(move || drop(down.answers(&answers)));
    std::thread::spawn(move || {
        let _ = up.requests(&gone);
        if !gone.client.load(Ordering::SeqCst) {
            let _ = up.to.shutdown(Shutdown::Both);
        }
        let _ = up.from.shutdown(Shutdown::Both);
        up.shared.weather().open.remove(&number);
    });
    Ok(())
}

/// Bytes that do not arrive as they were sent on a connection.
#[derive(Default)]
struct Gone {
    /// Correlation ids whose answers are lost, and the connection with them.
    answers: Mutex<Vec<[u8; 4]>>,
    /// Correlation ids whose answers carry an error.
    errors: Mutex<Vec<([u8; 4], i16)>>,
    /// The client's side is broken; the broker's stays open for what is late.
    client: AtomicBool,
}

/// One direction of a connection.
struct Pipe {
    from: TcpStream,
    to: TcpStream,
    shared: Arc<Shared>,
    direction: usize,
}

impl Pipe {
    /// Passes requests on.
    fn requests(&self, gone: &Gone) -> io::Result<()> {
        let mut head = [0; HEAD_BYTES];
        while self.begin(&mut head) {
            let api = Api::from_be_bytes([head[4], head[5]]);
            let correlation = head[8..12].try_into().expect("four bytes");
            match self.fault(api) {
                None => {}
                Some(Fault::Hold(time)) => pause(time),
                Some(Fault::LoseAnswer) => lock(&gone.answers).push(correlation),
                Some(Fault::Error(code)) => lock(&gone.errors).push((correlation, code)),
                Some(Fault::Late(time)) => {
                    gone.client.store(true, Ordering::SeqCst);
                    return self.late(&head, time);
                }
            }
            self.rest(&head)?;
        }
        Ok(())
    }

    /// Passes answers on.
    fn answers(&self, gone: &Gone) -> io::Result<()> {
        let end = || {
            let _ = self.to.shutdown(Shutdown::Both);
            self.from.shutdown(Shutdown::Both)
        };
        let mut head = [0; 8];
        while self.begin(&mut head) {
            let correlation: [u8; 4] = head[4..8].try_into().expect("four bytes");
            if lock(&gone.answers).contains(&correlation) {
                break;
            }
            let error = lock(&gone.errors).iter().find(|(of, _)| *of == correlation).map(|(_, code)| *code);
            let passed = match error {
                Some(code) => self.error(&head, code),
                None => self.rest(&head),
            };
            // The broker must be read until it has read what is late.
            if gone.client.load(Ordering::SeqCst) {
                let _ = io::copy(&mut &self.from, &mut io::sink());
            }
            if passed.is_err() {
                break;
            }
        }
        end()
    }

    /// Reads the head of a frame, after its delay. False: the connection has ended.
    fn begin(&self, head: &mut [u8]) -> bool {
        if (&self.from).read_exact(head).is_err() {
            return false;
        }
        let delay = self.shared.weather().delay;
        if !delay.is_zero() {
            pause(delay);
        }
        true
    }

    fn fault(&self, api: Api) -> Option<Fault> {
        let mut weather = self.shared.weather();
        let fault = weather.faults.get_mut(&api)?.pop()?;
        *weather.done.entry(api).or_default() += 1;
        Some(fault)
    }

    /// Passes on an answer whose head was read, with another error in it.
    fn error(&self, head: &[u8; 8], code: i16) -> io::Result<()> {
        let mut more = [0; 14];
        more[..8].copy_from_slice(head);
        (&self.from).read_exact(&mut more[8..])?;
        more[12..].copy_from_slice(&code.to_be_bytes());
        self.rest(&more)
    }

    /// Passes on a frame whose head was read.
    fn rest(&self, head: &[u8]) -> io::Result<()> {
        let length = u32::from_be_bytes(head[..4].try_into().expect("four bytes")) as usize;
        let mut left = (length + 4).checked_sub(head.len()).ok_or(io::ErrorKind::InvalidData)?;
        self.pass(head)?;
        let mut chunk = [0; CHUNK_BYTES];
        while left > 0 {
            let part = &mut chunk[..left.min(CHUNK_BYTES)];
            (&self.from).read_exact(part)?;
            self.pass(part)?;
            left -= part.len();
        }
        Ok(())
    }

    fn pass(&self, bytes: &[u8]) -> io::Result<()> {
        self.wait_for_link(bytes.len() as u64);
        self.shared.bytes[self.direction].fetch_add(bytes.len() as u64, Ordering::Relaxed);
        (&self.to).write_all(bytes)
    }

    /// Takes the link for as long as these bytes need.
    fn wait_for_link(&self, bytes: u64) {
        let until = {
            let mut weather = self.shared.weather();
            let Some(nanoseconds) = (bytes * 1_000_000_000).checked_div(weather.rate) else { return };
            let begins = weather.free[self.direction].map_or(now(), |free| free.max(now()));
            let ends = begins + Duration::from_nanos(nanoseconds);
            weather.free[self.direction] = Some(ends);
            ends
        };
        pause(until.saturating_duration_since(now()));
    }

    /// Takes a frame out, breaks the client's side, and gives the broker the frame when it is time.
    fn late(&self, head: &[u8], time: Duration) -> io::Result<()> {
        let length = u32::from_be_bytes(head[..4].try_into().expect("four bytes")) as usize;
        let mut frame = head.to_vec();
        frame.resize(length + 4, 0);
        (&self.from).read_exact(&mut frame[head.len()..])?;
        let broker = self.to.try_clone()?;
        std::thread::spawn(move || {
            pause(time);
            let _ = (&broker).write_all(&frame);
            // The broker has read it when it is done with the connection.
            pause(Duration::from_millis(500));
            let _ = broker.shutdown(Shutdown::Both);
        });
        Ok(())
    }
}
