//! Decides about a static member that its group takes for fenced: does another process have its instance id,
//! or has a coordinator only forgotten the member's latest id?
//!
//! A static member that joins again gets a new member id. Its coordinator writes that id down when the group
//! has shared out its partitions, not before. If the coordinator dies or hands the group over in between, the
//! next one reads the id before, and answers that another member with its instance id has taken its place,
//! though there is none. The client is beyond repair then, but a new one that joins under the instance id
//! takes the place back.
//!
//! Only the group can tell the two apart: it names the member id that it holds for the instance. An id that
//! this process has had itself is its own. Any other belongs to another process, or to one that this process
//! has replaced and that is dead: then it is gone when its session is over.
//!
//! ```text
//! holder          session not over   session over
//! unknown         wait               join again
//! nobody          join again         join again
//! an id of ours   join again         join again
//! another's       wait, warn once    error: each process needs an instance id of its own
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use tracing::warn;

use super::config::ClientSettings;
use crate::broker::BrokerError;

/// Member ids that are remembered: a coordinator that comes back knows the last but one or two.
const IDS_MAX: usize = 16;
/// Pause between questions for the holder of the instance id.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Time that a coordinator may need beyond a session to notice its end.
const MARGIN: Duration = Duration::from_secs(2);
/// New clients in a row without partitions after which something else is wrong.
const TRIES_MAX: u32 = 5;
/// Time without a new client after which the next one is about something else.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// The member that holds an instance id, as the group's coordinator says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The coordinator does not answer, or is not known.
    Unknown,
    /// No member does.
    Nobody,
    /// The one with this id, on this host.
    Member {
        /// Its member id.
        id: String,
        /// Its host's address.
        host: String,
    },
}

/// The way on for a member that was fenced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Ask again later.
    Wait,
    /// Join again as a new client.
    JoinAgain,
}

/// The member's identities in its group, and how far it is on its way back after it was fenced.
///
/// Times are those of the consumer's clock. `tries` counts new clients without partitions since `tried_at`.
#[derive(Debug)]
pub struct Identity {
    instance: String,
    session: Duration,
    /// Member ids of this process, the newest first; at most [`IDS_MAX`].
    ids: VecDeque<String>,
    /// The time at which the member was fenced; `None`: it is not.
    fenced_at: Option<Duration>,
    /// The time of the next question for the holder.
    ask_at: Duration,
    /// Another's id was logged since the member was fenced.
    was_warned: bool,
    tries: u32,
    tried_at: Duration,
}

impl Identity {
    /// The identity of a member that has not joined yet; `None` without an instance id.
    pub fn new(settings: &ClientSettings) -> Option<Identity> {
        Some(Identity::of(settings.instance.clone()?, settings.session()))
    }

    fn of(instance: String, session: Duration) -> Identity {
        Identity {
            instance,
            session,
            ids: VecDeque::new(),
            fenced_at: None,
            ask_at: Duration::ZERO,
            was_warned: false,
            tries: 0,
            tried_at: Duration::ZERO,
        }
    }

    /// The lasting name.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Remembers a member id that this process has.
    pub fn note(&mut self, id: String) {
        if id.is_empty() || self.ids.contains(&id) {
            return;
        }
        // The oldest goes: a coordinator that comes back knows one of the last.
        self.ids.truncate(IDS_MAX - 1);
        self.ids.push_front(id);
    }

    /// The group has given the member partitions.
    pub fn is_served(&mut self) {
        self.tries = 0;
    }

    /// The member was fenced and has not joined again.
    pub fn is_fenced(&self) -> bool {
        self.fenced_at.is_some()
    }

    /// The member is fenced now, under this id. True: it is time to ask which member holds its instance id.
    ///
    /// Called at every poll until the member joins again; asks for a question once a second.
    pub fn fenced(&mut self, id: String, now: Duration) -> bool {
        self.note(id);
        if self.fenced_at.is_none() {
            (self.fenced_at, self.ask_at, self.was_warned) = (Some(now), now, false);
            if now > self.tried_at + FORGOTTEN_AFTER {
                self.tries = 0;
            }
        }
        let is_due = now >= self.ask_at;
        if is_due {
            self.ask_at = now + ASK_EVERY;
        }
        is_due
    }

    /// Judges by the holder of the instance id. An error: another process has it, or joining does not help.
    pub fn way(&mut self, holder: &Holder, now: Duration) -> Result<Way, BrokerError> {
        let (patience, instance) = (self.session + MARGIN, &self.instance);
        let is_over = self.fenced_at.is_none_or(|fenced_at| now >= fenced_at + patience);
        match holder {
            Holder::Unknown if !is_over => return Ok(Way::Wait),
            Holder::Member { id, host } if !self.ids.contains(id) => {
                if is_over {
                    return Err(BrokerError::Group(format!(
                        "another process reads under the instance id \"{instance}\" (member {id}, host {host}): \
                         start each process with an --instance of its own"
                    )));
                }
                if !std::mem::replace(&mut self.was_warned, true) {
                    let seconds = patience.as_secs();
                    warn!(%instance, member = %id, %host, "another member has taken over the instance id: if it lives for {seconds} s this process ends");
                }
                return Ok(Way::Wait);
            }
            Holder::Unknown | Holder::Nobody | Holder::Member { .. } => {}
        }
        // Joining does not help: it would go on like this for ever.
        if self.tries >= TRIES_MAX {
            return Err(BrokerError::Fatal(format!(
                "the group takes the member \"{instance}\" for fenced, and joining again has not helped {TRIES_MAX} times"
            )));
        }
        self.tries += 1;
        (self.fenced_at, self.tried_at) = (None, now);
        let tries = self.tries;
        warn!(%instance, tries, "the group takes the member for fenced, and no other holds its instance id: it joins again");
        Ok(Way::JoinAgain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Duration = Duration::from_secs(30);

    fn second(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn member(id: &str) -> Holder {
        Holder::Member { id: id.to_owned(), host: "/10.0.0.7".to_owned() }
    }

    fn fenced_at(now: Duration) -> Identity {
        let mut identity = Identity::of("app.one.0".to_owned(), SESSION);
        identity.note("first".to_owned());
        assert!(identity.fenced("second".to_owned(), now));
        identity
    }

    #[test]
    fn an_id_of_its_own_is_no_other_process() {
        for holder in [member("first"), member("second"), Holder::Nobody] {
            let mut identity = fenced_at(second(9));
            assert_eq!(identity.way(&holder, second(9)).expect("it may join"), Way::JoinAgain, "{holder:?}");
            assert!(!identity.is_fenced());
        }
    }

    #[test]
    fn another_process_keeps_the_instance_id() {
        let mut identity = fenced_at(second(9));
        for now in 9..41 {
            assert_eq!(identity.way(&member("stranger"), second(now)).expect("it may be dead"), Way::Wait);
        }
        let error = identity.way(&member("stranger"), second(41)).expect_err("it lives");
        assert!(matches!(error, BrokerError::Group(_)), "a restart would fence the other one in turn: {error}");
        let words = error.to_string();
        assert!(words.contains("\"app.one.0\" (member stranger, host /10.0.0.7)"), "{words}");
    }

    #[test]
    fn a_member_that_is_gone_is_not_waited_for() {
        let mut identity = fenced_at(second(9));
        assert_eq!(identity.way(&member("stranger"), second(20)).expect("it may be dead"), Way::Wait);
        assert_eq!(identity.way(&Holder::Nobody, second(30)).expect("it may join"), Way::JoinAgain);
    }

    #[test]
    fn a_coordinator_that_never_answers_is_not_waited_for_without_end() {
        let mut identity = fenced_at(second(9));
        assert_eq!(identity.way(&Holder::Unknown, second(40)).expect("it may answer"), Way::Wait);
        assert_eq!(identity.way(&Holder::Unknown, second(41)).expect("it may join"), Way::JoinAgain);
    }

    #[test]
    fn it_does_not_join_again_and_again() {
        let mut identity = Identity::of("app.one.0".to_owned(), SESSION);
        for now in 0..5 {
            assert!(identity.fenced(format!("id {now}"), second(now)));
            assert_eq!(identity.way(&Holder::Nobody, second(now)).expect("it may join"), Way::JoinAgain);
        }
        assert!(identity.fenced("last".to_owned(), second(6)));
        assert!(matches!(identity.way(&Holder::Nobody, second(6)), Err(BrokerError::Fatal(_))));
        // Partitions, or a quiet minute, and it is about something else.
        identity.is_served();
        assert_eq!(identity.way(&Holder::Nobody, second(7)).expect("it may join"), Way::JoinAgain);
        (identity.tries, identity.fenced_at) = (TRIES_MAX, None);
        assert!(identity.fenced("later".to_owned(), second(68)));
        assert_eq!(identity.way(&Holder::Nobody, second(68)).expect("it may join"), Way::JoinAgain);
    }

    #[test]
    fn it_asks_every_second_and_remembers_a_few_ids() {
        let mut identity = fenced_at(second(9));
        assert!(!identity.fenced("second".to_owned(), second(9)) && identity.fenced(String::new(), second(10)));
        (0..100).for_each(|number| identity.note(format!("id {number}")));
        assert_eq!((identity.ids.len(), identity.ids[0].as_str()), (IDS_MAX, "id 99"));
    }
}
