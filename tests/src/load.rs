//! A steady load: numbered events of many keys, so many a second, until it is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::clock::{now, pause, since_1970};

/// Events are sent in bursts this far apart.
const BURST_EVERY: Duration = Duration::from_millis(10);
/// Longest wait for the last acknowledgements.
const FLUSH_MAX: Duration = Duration::from_secs(120);

/// The shape of a load: its events, and how many a second.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Events a second; 0: as fast as the broker takes them.
    pub rate: u64,
    /// Keys, which take turns.
    pub keys: u64,
    /// One event in so many is marked to fail: half of them in the function, half in an output. 0: none.
    pub fails_every: u64,
    /// One event in so many is marked to be retried. 0: none.
    pub waits_every: u64,
    /// Bytes of padding in each event.
    pub padding: usize,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape { rate: 300, keys: 101, fails_every: 50, waits_every: 0, padding: 0 }
    }
}

impl Shape {
    /// The value of an event.
    pub fn event(&self, id: u64) -> String {
        let (key, sequence, at) = (id % self.keys, id / self.keys, since_1970());
        let marked = |every: u64| every > 0 && id % every == every - 1;
        let mut text = format!("{{\"id\": {id}, \"key\": \"key-{key}\", \"sequence\": {sequence}, \"at\": {at}");
        if marked(self.fails_every) {
            let place = if (id / self.fails_every).is_multiple_of(2) { "function" } else { "output" };
            text += &format!(", \"fails\": \"{place}\"");
        }
        if marked(self.waits_every) {
            text += ", \"waits\": true";
        }
        if self.padding > 0 {
            text += &format!(", \"padding\": \"{}\"", "x".repeat(self.padding));
        }
        text + "}"
    }
}

/// A load that runs.
pub struct Load {
    ends: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Sends events of this shape to a topic until `end`, at most `events` of them.
    pub fn start(servers: &str, topic: &str, shape: Shape, events: u64) -> Load {
        let (ends, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", servers).set("partitioner", "murmur2_random").set("log_level", "0");
        // The client waits for a broker that is away, and no event is written twice.
        config.set("enable.idempotence", "true").set("message.timeout.ms", "0").set("linger.ms", "5");
        // Batches as most producers make them: a reader gets whole ones.
        config.set("batch.size", "65536");
        let producer: BaseProducer = config.create().expect("a producer");
        let (topic, told, counted) = (topic.to_owned(), ends.clone(), sent.clone());
        let thread = std::thread::spawn(move || {
            let began = now();
            while !told.load(Ordering::Relaxed) && counted.load(Ordering::Relaxed) < events {
                let millis = u64::try_from((now() - began).as_millis()).expect("not for ever");
                let due = if shape.rate == 0 { events } else { events.min(millis * shape.rate / 1000) };
                for id in counted.load(Ordering::Relaxed)..due {
                    send(&producer, &topic, &shape, id);
                    counted.store(id + 1, Ordering::Relaxed);
                }
                producer.poll(Duration::ZERO);
                pause(BURST_EVERY);
            }
            producer.flush(FLUSH_MAX).expect("all events are acknowledged");
        });
        Load { ends, sent, thread: Some(thread) }
    }

    /// Events sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends; gives how many events there are, all acknowledged.
    pub fn end(mut self) -> u64 {
        self.ends.store(true, Ordering::Relaxed);
        self.wait();
        self.sent()
    }

    /// Waits until all events are sent and acknowledged.
    pub fn wait(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the load ends well");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // A client must not run on while its process ends.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn send(producer: &BaseProducer, topic: &str, shape: &Shape, id: u64) {
    let (key, value) = (format!("key-{}", id % shape.keys), shape.event(id));
    let mut record = BaseRecord::to(topic).key(&key).payload(&value);
    while let Err((_, again)) = producer.send(record) {
        record = again;
        producer.poll(Duration::from_millis(5));
    }
}
