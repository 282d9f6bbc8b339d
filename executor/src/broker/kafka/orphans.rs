//! Finds partitions that the group has assigned to no member.
//!
//! A static member that comes back gets its last assignment again, and the other members learn nothing of it.
//! One that died after a partition was revoked from it, but before it joined again without that partition,
//! gets the rest: no member is assigned that partition, and it has no owner until the group changes for
//! another reason. So a static member that has come looks for such partitions for a while. If some stay, a
//! member without a name comes and goes: the group shares out what it has.
//!
//! ```text
//! 3 s ─ look ─ 3 s ─ look ─ 3 s ─ look: the same partitions three times ─ a random wait ─ still so? ─ visit
//! ```
//!
//! So it is where members that all read the same have shares that differ by more than `cooperative-sticky` leaves: they
//! came back one after the other with a topic more, and the first of them got all of it.
//!
//! All of it runs in a thread of its own, for a minute after each join of a static member.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use kaspr_ir::plan::Assignor;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataTopic;
use tracing::{debug, info};

use super::config::ClientSettings;
use super::kept::Kept;
use super::tokens::Bearer;
use super::visits::{Visits, visit};
use crate::event::message::TopicPartition;
use crate::guard::{Calls, ClientCall};

/// The name of the thread.
const THREAD: &str = "kaspr-orphans";
/// Pause between looks. [`LOOKS_ALIKE`] of them last longer than a worker takes to give a partition up
/// ([`crate::config::Bounds::revoke_wait_max`] and a commit), which has no owner meanwhile. If a worker takes
/// longer, the group shares out its partitions once too often.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// Looks in a row that see the same partitions, before something is done.
const LOOKS_ALIKE: u32 = 3;
/// Looks of a member after it has come.
const LOOKS_MAX: u32 = 20;
/// Longest wait for each answer.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Partitions that a log line names.
const NAMED_MAX: usize = 5;

type Partitions = BTreeSet<TopicPartition>;

/// A search in a thread of its own, which ends with this.
///
/// Dropping it ends the thread at its next pause.
pub struct Search {
    _ends: Sender<()>,
}

impl Search {
    /// Looks for partitions without an owner, if this is a static member.
    ///
    /// `None` for members without an instance id: the group shares out everything when they come.
    pub fn start(settings: &ClientSettings, visits: &Arc<Visits>) -> Option<Search> {
        settings.instance.as_ref()?;
        let (ends, ended) = channel();
        let (visits, calls) = (visits.clone(), visits.calls(THREAD));
        let run = move || {
            if let Err(error) = search(&visits, &calls, &ended) {
                debug!("partitions without an owner are not looked for: {error}");
            }
        };
        match std::thread::Builder::new().name(THREAD.to_owned()).spawn(run) {
            Ok(_) => Some(Search { _ends: ends }),
            Err(error) => {
                debug!("partitions without an owner are not looked for: {error}");
                None
            }
        }
    }
}

/// Ends after [`LOOKS_MAX`] looks. A look that fails counts as one that saw nothing.
fn search(visits: &Visits, calls: &Arc<Calls>, ended: &Receiver<()>) -> Result<(), KafkaError> {
    let settings = visits.settings();
    let ends = || ended.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout);
    // Not at once: a start has better things to do than to make one more client.
    if ends() {
        return Ok(());
    }
    let consumer: Kept<BaseConsumer<Bearer>> = Kept::make(calls, || settings.passive(&settings.unstable()))?;
    let see = || {
        // For the client's next token, which it asks for in a poll. It has no partitions, so no message comes.
        let _ = calls.during(ClientCall::PollConsumer, || consumer.poll(Duration::ZERO));
        look(&consumer, calls, settings).unwrap_or_else(|error| {
            debug!("partitions without an owner are not known: {error}");
            Seen::default()
        })
    };
    let (mut before, mut alike) = (Seen::default(), 0);
    for _ in 0..LOOKS_MAX {
        let seen = see();
        alike = if seen == before { alike + 1 } else { 1 };
        before = seen;
        if let Some(why) = before.why().filter(|_| alike >= LOOKS_ALIKE) {
            // Other members that came at the same time see the same: one of them is enough.
            if ended.recv_timeout(some_part_of(LOOK_EVERY)) != Err(RecvTimeoutError::Timeout) {
                break;
            }
            // Once more, after the random wait: another member may have been faster.
            if see() == before && visits.claim() {
                info!("{why}: the group is made to share out its partitions");
                if let Err(error) = visit(settings, calls, &before.topics) {
                    info!("the group could not be made to share out its partitions: {error}");
                }
                // Whatever came of it: three more looks before it is done again.
                before = Seen::default();
            }
        }
        if ends() {
            break;
        }
    }
    Ok(())
}

/// The first of them, for people.
fn named(partitions: &Partitions) -> String {
    let names = partitions.iter().take(NAMED_MAX).map(TopicPartition::to_string);
    let (names, more): (Vec<String>, usize) = (names.collect(), partitions.len().saturating_sub(NAMED_MAX));
    let more = if more > 0 { format!(" and {more} more are") } else { " are".to_owned() };
    format!("{}{more}", names.join(", "))
}

/// A time that differs from process to process.
///
/// From nothing to all of it, in thousandths.
fn some_part_of(time: Duration) -> Duration {
    // The library's hash maps are seeded at random; no crate is needed for one number.
    let random = RandomState::new().build_hasher().finish();
    time / 1000 * u32::try_from(random % 1000).unwrap_or(0)
}

/// The result of a look at a group that is at rest.
///
/// Nothing for a group that is not at rest, or whose members are not understood.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Topics that members want.
    pub topics: BTreeSet<String>,
    /// Their partitions that no member has.
    orphans: Partitions,
    /// The least and the most partitions of a member, where they differ by more than they need to.
    shares: Option<(usize, usize)>,
}

impl Seen {
    /// The reason for which the group should share out its partitions, if there is one.
    fn why(&self) -> Option<String> {
        match self.shares {
            _ if !self.orphans.is_empty() => Some(format!("{} without an owner", named(&self.orphans))),
            Some((least, most)) => Some(format!("members that read the same have from {least} to {most} partitions")),
            None => None,
        }
    }
}

/// The topics that a member wants, and its partitions.
type Share = (BTreeSet<String>, Vec<TopicPartition>);

/// Members' subscriptions and assignments are bytes of the consumer protocol, which the group list carries along.
pub fn look(consumer: &BaseConsumer<Bearer>, calls: &Calls, settings: &ClientSettings) -> Result<Seen, KafkaError> {
    let groups = calls.during(ClientCall::Admin, || consumer.fetch_group_list(Some(&settings.app), WAIT_MAX))?;
    // While it rebalances, partitions have no owner and need none.
    let Some(group) = groups.groups().first().filter(|group| group.state() == "Stable") else {
        return Ok(Seen::default());
    };
    let mut members = Vec::new();
    for member in group.members() {
        let topics = member.metadata().and_then(wants);
        let partitions = has(member.assignment().unwrap_or_default());
        let (Some(topics), Some(partitions)) = (topics, partitions) else {
            debug!("the member {} describes its partitions in an unknown format", member.id());
            return Ok(Seen::default());
        };
        members.push((BTreeSet::from_iter(topics), partitions));
    }
    let topics: BTreeSet<String> = members.iter().flat_map(|(topics, _)| topics.iter().cloned()).collect();
    let owned: Partitions = members.iter().flat_map(|(_, partitions)| partitions.iter().cloned()).collect();
    let mut orphans = Partitions::new();
    for topic in &topics {
        let metadata = calls.during(ClientCall::Metadata, || consumer.fetch_metadata(Some(topic), WAIT_MAX))?;
        let partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
        let all = partitions.map(|partition| TopicPartition::new(topic.as_str(), partition.id()));
        orphans.extend(all.filter(|partition| !owned.contains(partition)));
    }
    let shares = uneven(&members).filter(|_| settings.assignor == Assignor::CooperativeSticky);
    Ok(Seen { topics, orphans, shares })
}

/// The least and the most partitions of a member, where all want the same and the shares could be more even.
fn uneven(members: &[Share]) -> Option<(usize, usize)> {
    let wants_the_same = members.iter().all(|(topics, _)| *topics == members[0].0);
    let counts = || members.iter().map(|(_, partitions)| partitions.len());
    let (least, most) = (counts().min()?, counts().max()?);
    (wants_the_same && most > least + 1).then_some((least, most))
}

/// Reads the topics of a member's subscription: version, then names.
///
/// `None`: cut short, or no text.
fn wants(metadata: &[u8]) -> Option<Vec<String>> {
    let mut bytes = Bytes(metadata);
    bytes.short()?;
    let count = bytes.number()?;
    (0..count).map(|_| bytes.text()).collect()
}

/// Reads the partitions of a member's assignment: version, then names with their partitions. The assignment
/// of a member that has nothing may be empty.
///
/// `None`: cut short, or no text.
fn has(assignment: &[u8]) -> Option<Vec<TopicPartition>> {
    if assignment.is_empty() {
        return Some(Vec::new());
    }
    let mut bytes = Bytes(assignment);
    bytes.short()?;
    let mut partitions = Vec::new();
    for _ in 0..bytes.number()? {
        let topic = bytes.text()?;
        for _ in 0..bytes.number()? {
            partitions.push(TopicPartition::new(topic.as_str(), bytes.number()?));
        }
    }
    Some(partitions)
}

/// Reads Kafka's protocol of consumers: big-endian numbers, texts behind their lengths.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let (taken, left) = self.0.split_at_checked(count)?;
        self.0 = left;
        Some(taken)
    }

    fn short(&mut self) -> Option<i16> {
        self.take(2)?.try_into().ok().map(i16::from_be_bytes)
    }

    fn number(&mut self) -> Option<i32> {
        self.take(4)?.try_into().ok().map(i32::from_be_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.short()?).ok()?;
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 1: the topics "in" and "more", no user data.
    const METADATA: &[u8] = b"\0\x01\0\0\0\x02\0\x02in\0\x04more\xff\xff\xff\xff";
    /// Version 1: partitions 0 and 3 of "in", none of "more".
    const ASSIGNMENT: &[u8] = b"\0\x01\0\0\0\x02\0\x02in\0\0\0\x02\0\0\0\0\0\0\0\x03\0\x04more\0\0\0\0\0\0\0\0";

    #[test]
    fn what_members_say_is_read() {
        assert_eq!(wants(METADATA), Some(vec!["in".to_owned(), "more".to_owned()]));
        assert_eq!(has(ASSIGNMENT), Some(vec![TopicPartition::new("in", 0), TopicPartition::new("in", 3)]));
        assert_eq!(has(b""), Some(Vec::new()));
    }

    #[test]
    fn what_is_cut_short_or_nonsense_says_nothing() {
        for end in 1..METADATA.len() - 4 {
            assert_eq!(wants(&METADATA[..end]), None, "{end}");
        }
        for end in 1..ASSIGNMENT.len() - 4 {
            assert_eq!(has(&ASSIGNMENT[..end]), None, "{end}");
        }
        assert_eq!(wants(b"\0\x01\x7f\xff\xff\xff\0\x02in"), None);
        assert_eq!(wants(b"\0\x01\0\0\0\x01\xff\xffin"), None, "no length");
        assert_eq!(wants(b"\0\x01\0\0\0\x01\0\x02\xff\xfe"), None, "no text");
    }

    #[test]
    fn shares_are_compared_where_all_members_read_the_same() {
        let share = |topics: &[&str], count: i32| {
            let partitions = (0..count).map(|number| TopicPartition::new("in", number)).collect();
            (topics.iter().map(|&topic| topic.to_owned()).collect(), partitions)
        };
        assert_eq!(uneven(&[share(&["in"], 4), share(&["in"], 2)]), Some((2, 4)));
        assert_eq!(uneven(&[share(&["in"], 3), share(&["in"], 2)]), None, "five cannot be halved");
        assert_eq!(uneven(&[share(&["in", "new"], 6), share(&["in"], 1)]), None, "one of them reads more");
        assert_eq!(uneven(&[]), None);
    }

    #[test]
    fn many_are_not_all_named() {
        let partitions = |count| (0..count).map(|number| TopicPartition::new("in", number)).collect();
        assert_eq!(named(&partitions(2)), "in/0, in/1 are");
        assert_eq!(named(&partitions(7)), "in/0, in/1, in/2, in/3, in/4 and 2 more are");
    }
}
