//! Rights of users on a broker that is closed: given and taken away in its own protocol, since Kafka's tool
//! takes seconds for each.

use std::io;

use crate::clock::{now, pause};
use crate::wire::{Answer, ask, text};

const DESCRIBE_ACLS: (i16, i16) = (29, 1);
const CREATE_ACLS: (i16, i16) = (30, 1);
const DELETE_ACLS: (i16, i16) = (31, 1);
/// Kafka's number for a right that is allowed.
const ALLOW: u8 = 3;
/// Longest wait until a broker has learnt of a change.
const WAIT: std::time::Duration = std::time::Duration::from_secs(10);

/// A thing that rights are about; names of `Ids` are the beginnings of transactional ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On<'a> {
    /// A topic.
    Topic(&'a str),
    /// A consumer group.
    Group(&'a str),
    /// All transactional ids that begin so.
    Ids(&'a str),
    /// One transactional id.
    Id(&'a str),
}

/// An operation, by Kafka's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "Kafka's names")]
pub enum To {
    Read = 3,
    Write = 4,
    Create = 5,
    Describe = 8,
}

impl On<'_> {
    /// Gives kind, name, and whether the name is literal or a beginning.
    fn parts(&self) -> (u8, &str, u8) {
        const LITERAL: u8 = 3;
        const PREFIXED: u8 = 4;
        match self {
            On::Topic(name) => (2, name, LITERAL),
            On::Group(name) => (3, name, LITERAL),
            On::Ids(name) => (5, name, PREFIXED),
            On::Id(name) => (5, name, LITERAL),
        }
    }
}

/// Gives a right to a user, by a broker whose administrator this is; returns when the broker goes by it.
///
/// # Panics
/// If the broker does not do it.
pub fn allow(server: &str, user: &str, to: To, on: On<'_>) {
    change(server, CREATE_ACLS, user, to, on);
    wait_for(server, user, to, on, true);
}

/// Takes a right away from a user; returns when the broker goes by it.
///
/// # Panics
/// If the broker does not do it.
pub fn revoke(server: &str, user: &str, to: To, on: On<'_>) {
    change(server, DELETE_ACLS, user, to, on);
    wait_for(server, user, to, on, false);
}

fn entry(body: &mut Vec<u8>, user: &str, to: To, on: On<'_>) {
    let (kind, name, pattern) = on.parts();
    body.push(kind);
    text(body, name);
    body.push(pattern);
    text(body, &format!("User:{user}"));
    text(body, "*");
    body.extend([to as u8, ALLOW]);
}

fn change(server: &str, api: (i16, i16), user: &str, to: To, on: On<'_>) {
    let changed = ask(server, api, |body| {
        body.extend(1_i32.to_be_bytes());
        entry(body, user, to, on);
    });
    let error = changed.and_then(|answer| {
        let mut answer = Answer(&answer);
        // The time of throttling, and the number of answers.
        answer.skip(8)?;
        answer.i16()
    });
    assert_eq!(error.expect("the broker answers"), 0, "{on:?} to {user}: {to:?}");
}

fn wait_for(server: &str, user: &str, to: To, on: On<'_>, is_allowed: bool) {
    let began = now();
    while is_listed(server, user, to, on).expect("the broker answers") != is_allowed {
        assert!(now() - began < WAIT, "{server} does not go by {on:?} to {user}: {to:?}");
        pause(std::time::Duration::from_millis(5));
    }
}

fn is_listed(server: &str, user: &str, to: To, on: On<'_>) -> io::Result<bool> {
    let answer = ask(server, DESCRIBE_ACLS, |body| entry(body, user, to, on))?;
    let mut answer = Answer(&answer);
    answer.i32()?;
    let (error, why) = (answer.i16()?, answer.text()?);
    if error != 0 {
        return Err(io::Error::other(why));
    }
    Ok(answer.i32()? > 0)
}
