//! Questions to one broker in Kafka's own protocol: how *this* broker sees the cluster, and requests for
//! which clients have no call. A client of the library asks whichever broker it likes.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longest wait for an answer: a broker that stands still gives none.
const WAIT: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: i32 = 1 << 24;
/// Time for which a broker may work on a change of the cluster, in ms.
const CHANGE_MS: i32 = 10_000;

const METADATA: (i16, i16) = (3, 4);
const FIND_COORDINATOR: (i16, i16) = (10, 1);
const ALTER_PARTITION_REASSIGNMENTS: (i16, i16) = (45, 0);

/// The things that a coordinator is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coordinates {
    /// A consumer group.
    Group,
    /// A transactional id.
    Transaction,
}

/// A partition as a broker sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub number: i32,
    /// The broker that leads it; −1: none.
    pub leader: i32,
    /// The brokers that hold it, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Those of them that are in sync.
    pub in_sync: Vec<i32>,
}

/// A topic as a broker sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// In the order of their numbers.
    pub partitions: Vec<Partition>,
}

impl Topic {
    /// A partition; `None`: the broker does not know it.
    pub fn partition(&self, number: i32) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.number == number)
    }
}

/// The cluster as a broker sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The numbers of brokers that are alive.
    pub brokers: Vec<i32>,
    /// All topics.
    pub topics: Vec<Topic>,
}

impl View {
    /// A topic; `None`: the broker does not know it.
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.iter().find(|topic| topic.name == name)
    }

    /// True if all replicas of all partitions are in sync, with a leader each.
    pub fn is_whole(&self) -> bool {
        let mut partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.all(|partition| partition.leader >= 0 && partition.in_sync.len() == partition.replicas.len())
    }
}

/// The cluster as the broker at `host:port` sees it.
///
/// # Errors
/// If it does not answer in time, or not as its protocol says.
pub fn view(server: &str) -> io::Result<View> {
    // A list without a value means all topics; none is to be created.
    let answer = ask(server, METADATA, |body| body.extend([0xff, 0xff, 0xff, 0xff, 0]))?;
    let mut answer = Answer(&answer);
    answer.i32()?;
    let brokers = answer.list(|broker| {
        let number = broker.i32()?;
        // Its host, port and rack.
        broker.text()?;
        broker.i32()?;
        broker.text()?;
        Ok(number)
    })?;
    // The cluster's id, the controller.
    answer.text()?;
    answer.i32()?;
    let topics = answer.list(|topic| {
        topic.i16()?;
        let name = topic.text()?;
        // A flag: the topic is internal.
        topic.skip(1)?;
        let mut partitions = topic.list(|partition| {
            partition.i16()?;
            let (number, leader) = (partition.i32()?, partition.i32()?);
            Ok(Partition {
                number,
                leader,
                replicas: partition.list(Answer::i32)?,
                in_sync: partition.list(Answer::i32)?,
            })
        })?;
        partitions.sort_by_key(|partition| partition.number);
        Ok(Topic { name, partitions })
    })?;
    Ok(View { brokers, topics })
}

/// The number of the broker that coordinates this group or transactional id, as the broker at `server` sees
/// it; the internal topic is made if it is not there.
///
/// # Errors
/// If the broker does not answer in time, or knows none.
pub fn coordinator(server: &str, coordinates: Coordinates, name: &str) -> io::Result<i32> {
    let answer = ask(server, FIND_COORDINATOR, |body| {
        text(body, name);
        body.push(u8::from(coordinates == Coordinates::Transaction));
    })?;
    let mut answer = Answer(&answer);
    answer.i32()?;
    let (error, _) = (answer.i16()?, answer.text()?);
    if error != 0 { Err(io::Error::other(format!("no coordinator: error {error}"))) } else { answer.i32() }
}

/// Gives a partition other replicas, the preferred leader first. Returns once the change has begun.
///
/// # Errors
/// If the broker does not answer in time, or refuses.
pub fn reassign(server: &str, topic: &str, partition: i32, replicas: &[i32]) -> io::Result<()> {
    // Fields without a fixed size are compact here: lengths are one more, and small ones one byte.
    let answer = ask(server, ALTER_PARTITION_REASSIGNMENTS, |body| {
        // Tagged fields of the head.
        body.push(0);
        body.extend(CHANGE_MS.to_be_bytes());
        body.extend([2, compact(topic.len())]);
        body.extend(topic.as_bytes());
        body.push(2);
        body.extend(partition.to_be_bytes());
        body.push(compact(replicas.len()));
        replicas.iter().for_each(|replica| body.extend(replica.to_be_bytes()));
        // Tagged fields of the partition, the topic and the whole.
        body.extend([0, 0, 0]);
    })?;
    let mut answer = Answer(&answer);
    // Tagged fields of the head, how long it was throttled.
    answer.skip(1)?;
    answer.i32()?;
    let mut errors = vec![answer.i16()?];
    let message = answer.take::<1>()?[0];
    if message <= 1 {
        // One topic with its name, of which one partition with its number.
        answer.skip(2 + topic.len() + 1)?;
        answer.i32()?;
        errors.push(answer.i16()?);
    }
    match errors.into_iter().find(|&error| error != 0) {
        Some(error) => Err(io::Error::other(format!("{topic}/{partition} is not reassigned: error {error}"))),
        None => Ok(()),
    }
}

/// Sends a request and waits for its answer; gives what stands behind the correlation id.
pub(crate) fn ask(server: &str, (api, version): (i16, i16), body: impl FnOnce(&mut Vec<u8>)) -> io::Result<Vec<u8>> {
    let address = server.parse().map_err(io::Error::other)?;
    let mut connection = TcpStream::connect_timeout(&address, WAIT)?;
    connection.set_read_timeout(Some(WAIT))?;
    connection.set_nodelay(true)?;
    let mut request = vec![0; 4];
    request.extend(api.to_be_bytes());
    request.extend(version.to_be_bytes());
    request.extend(1_i32.to_be_bytes());
    text(&mut request, "kaspr-tests");
    body(&mut request);
    let length = i32::try_from(request.len() - 4).map_err(io::Error::other)?;
    request[..4].copy_from_slice(&length.to_be_bytes());
    connection.write_all(&request)?;
    let mut head = [0; 8];
    connection.read_exact(&mut head)?;
    let length = i32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    if !(4..ANSWER_BYTES_MAX).contains(&length) {
        return Err(io::Error::other(format!("an answer of {length} bytes")));
    }
    let mut answer = vec![0; usize::try_from(length - 4).map_err(io::Error::other)?];
    connection.read_exact(&mut answer)?;
    Ok(answer)
}

pub(crate) fn text(body: &mut Vec<u8>, text: &str) {
    body.extend(i16::try_from(text.len()).expect("names are short").to_be_bytes());
    body.extend(text.as_bytes());
}

fn compact(length: usize) -> u8 {
    let length = u8::try_from(length + 1).expect("names are short");
    assert!(length < 0x80, "a longer length takes two bytes");
    length
}

/// The rest of an answer.
pub(crate) struct Answer<'a>(pub(crate) &'a [u8]);

impl Answer<'_> {
    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn skip(&mut self, bytes: usize) -> io::Result<()> {
        self.0 = self.0.get(bytes..).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(())
    }

    pub(crate) fn i16(&mut self) -> io::Result<i16> {
        self.take().map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> io::Result<i32> {
        self.take().map(i32::from_be_bytes)
    }

    /// Null is the empty text.
    pub(crate) fn text(&mut self) -> io::Result<String> {
        let length = usize::try_from(self.i16()?).unwrap_or(0);
        let text = self.0.get(..length).ok_or(io::ErrorKind::UnexpectedEof)?;
        let text = String::from_utf8_lossy(text).into_owned();
        self.skip(length)?;
        Ok(text)
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> io::Result<T>) -> io::Result<Vec<T>> {
        let length = self.i32()?;
        (0..length).map(|_| item(self)).collect()
    }
}
