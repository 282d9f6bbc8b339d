//! Says what a member without partitions waits for: its group may still count members that are gone, or have no
//! partitions left.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::producer::Producer as _;
use tracing::{debug, info};

use super::client::{Client, Line};
use super::config::ClientSettings;
use super::groups::{Group, group};
use crate::clock::{Clock as _, SystemClock};
use crate::guard::ClientCall;
use crate::wake::Bell;

/// The name of the thread.
const THREAD: &str = "kaspr-waiting";
/// Time before the first look: a group that was empty shares out its partitions after 3 s, where the broker's
/// settings are the usual ones.
const FIRST_LOOK: Duration = Duration::from_secs(4);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Longest wait for an answer.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Members that a log line names.
const NAMED_MAX: usize = 5;

type Look = Result<Group, Code>;

/// The wait of a member for partitions. A thread looks at the group while it lasts.
pub struct Waiting {
    looks: Receiver<Look>,
    _ends: Sender<()>,
    group: String,
    session: Duration,
    clock: SystemClock,
    is_logged: bool,
}

impl Waiting {
    /// Begins to wait. `bell` wakes the worker when there is something to say.
    pub fn start(settings: &ClientSettings, line: &Line, bell: Option<&Arc<Bell>>) -> Option<Waiting> {
        let (group, session) = (settings.app.clone(), settings.session());
        let ((ends, ended), (sends, looks)) = (channel(), channel());
        let thread = Thread {
            client: line.client(),
            calls: line.callers.other(THREAD),
            group: group.clone(),
            bell: bell.cloned(),
            ended,
            sends,
        };
        let started = std::thread::Builder::new().name(THREAD.to_owned()).spawn(move || thread.run());
        let started = started.inspect_err(|error| debug!(%error, "the group is not looked at"));
        started.ok().map(|_| Waiting {
            looks,
            // Dropped with the wait, which wakes the thread from its pause and ends it.
            _ends: ends,
            group,
            session,
            clock: SystemClock::start(),
            is_logged: false,
        })
    }

    /// Logs what the last look has shown. `member` is this member's name in the group.
    pub fn tell(&mut self, member: impl FnOnce() -> String) {
        // Only the newest look counts: the group has moved on since the others.
        let Some(look) = self.looks.try_iter().last() else { return };
        let name = &self.group;
        match look {
            Err(code) => {
                info!(group = %name, error = %code, "waiting for partitions: the group's coordinator does not answer");
            }
            Ok(group) if group.state == "Stable" => self.tell_of_stable(&group),
            Ok(group) => {
                let (count, others) = others(&group, &member());
                // The clock began with the wait: a member that was gone before that is out within one session.
                let left = self.session.saturating_sub(self.clock.now()).as_secs();
                let cause = match (count, left) {
                    (0, _) => "the group has not let this member in yet".to_owned(),
                    (_, 0) => {
                        "other members have not joined again: one that is busy has its longest call's time".to_owned()
                    }
                    _ => format!("the group counts other members, and one that is gone for another {left} s at most"),
                };
                info!(group = %name, state = group.state, members = count, others, "waiting for partitions: {cause}");
            }
        }
    }

    /// Logs once that a group at rest has none for this member.
    fn tell_of_stable(&mut self, group: &Group) {
        if std::mem::replace(&mut self.is_logged, true) {
            return;
        }
        let (name, members) = (&self.group, group.members.len());
        match group.members.iter().map(|member| member.partitions).sum::<usize>() {
            0 => info!(group = %name, members, "waiting for partitions: no topic that is read has any"),
            _ => info!(group = %name, members, "waiting for partitions: other members have all of them"),
        }
    }
}

/// The number of other members, and the first of them for people.
fn others(group: &Group, member: &str) -> (usize, String) {
    let others = group.members.iter().filter(|other| other.id != member);
    let names: Vec<String> = others.map(|other| format!("{}{}", other.client, other.host)).collect();
    let more = names.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (names.len(), format!("{}{more}", names[..names.len().min(NAMED_MAX)].join(", ")))
}

struct Thread {
    client: Arc<Client>,
    calls: Arc<crate::guard::Calls>,
    group: String,
    bell: Option<Arc<Bell>>,
    ended: Receiver<()>,
    sends: Sender<Look>,
}

impl Thread {
    fn run(self) {
        let mut pause = FIRST_LOOK;
        while self.ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            pause = LOOK_EVERY;
            let ask = || group(self.client.client(), &self.group, WAIT_MAX);
            if self.sends.send(self.calls.during(ClientCall::Admin, ask)).is_err() {
                return;
            }
            self.bell.iter().for_each(|bell| bell.ring());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::kafka::groups::Member;

    #[test]
    fn other_members_are_named_and_not_all_of_many() {
        let member = |number: usize| Member {
            id: format!("id-{number}"),
            instance: String::new(),
            client: "rdkafka".to_owned(),
            host: format!("/10.0.0.{number}"),
            partitions: 1,
        };
        let group = |count| Group { state: "PreparingRebalance".to_owned(), members: (0..count).map(member).collect() };
        assert_eq!(others(&group(2), "id-0"), (1, "rdkafka/10.0.0.1".to_owned()));
        let (count, named) = others(&group(8), "id-0");
        assert!(count == 7 && named.ends_with("rdkafka/10.0.0.5 and 2 more"), "{named}");
    }
}
