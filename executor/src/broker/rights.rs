//! Rights that brokers grant to users, and how a person adds one that is missing.
//!
//! Brokers answer a missing right with a bare code. The programs turn it into the right's name and the command
//! that grants it, so that the cluster's administrator can act without looking anything up.

use std::fmt;

/// The things that a right may be about.
///
/// Only the kinds that an app needs: Kafka has more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A topic.
    Topic(String),
    /// A consumer group.
    Group(String),
    /// All transactional ids that begin so.
    TransactionalIds(String),
    /// The cluster as a whole.
    Cluster,
}

/// An operation on a resource of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Its records are read; a group is joined, and its offsets are committed.
    Read,
    /// It is written.
    Write,
    /// It is created.
    Create,
    /// A producer numbers its records, without transactions.
    IdempotentWrite,
}

impl Operation {
    /// As access lists and `kafka-acls.sh` have it.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Operation::Read => ("READ", "Read"),
            Operation::Write => ("WRITE", "Write"),
            Operation::Create => ("CREATE", "Create"),
            Operation::IdempotentWrite => ("IDEMPOTENT_WRITE", "IdempotentWrite"),
        }
    }
}

/// A right that an app needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// The resource.
    pub resource: Resource,
    /// The operation on it.
    pub operation: Operation,
}

impl Right {
    /// The right to read a topic.
    pub fn read_topic(topic: &str) -> Right {
        Right { resource: Resource::Topic(topic.to_owned()), operation: Operation::Read }
    }

    /// The right to write a topic.
    pub fn write_topic(topic: &str) -> Right {
        Right { resource: Resource::Topic(topic.to_owned()), operation: Operation::Write }
    }

    /// The right to create a topic.
    pub fn create_topic(topic: &str) -> Right {
        Right { resource: Resource::Topic(topic.to_owned()), operation: Operation::Create }
    }

    /// Being a member of an app's group, and committing its offsets.
    pub fn join(app: &str) -> Right {
        Right { resource: Resource::Group(app.to_owned()), operation: Operation::Read }
    }

    /// Running transactions under the ids of an app's workers. A worker uses those of others too: it ends what
    /// a worker that is gone left open.
    pub fn transact(app: &str) -> Right {
        Right { resource: Resource::TransactionalIds(format!("{app}.")), operation: Operation::Write }
    }

    /// The right to number records without transactions.
    pub fn number_records() -> Right {
        Right { resource: Resource::Cluster, operation: Operation::IdempotentWrite }
    }
}

/// The right's name: `READ on the topic "in"`.
impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation = self.operation.names().0;
        match &self.resource {
            Resource::Topic(name) => write!(f, "{operation} on the topic \"{name}\""),
            Resource::Group(name) => write!(f, "{operation} on the group \"{name}\""),
            Resource::TransactionalIds(prefix) => write!(f, "{operation} on the transactional ids \"{prefix}*\""),
            Resource::Cluster => write!(f, "{operation} on the cluster"),
        }
    }
}

/// The user that brokers see, and where its rights are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// `User:shop`; `None`: the brokers know it by something that is not a setting, as a certificate is.
    pub principal: Option<String>,
    /// `host:port,…`.
    pub servers: String,
}

impl User {
    /// Says that rights are missing, and the commands that add them.
    ///
    /// One line with the names of the rights, then one line per right with its `kafka-acls.sh` command. Names are
    /// quoted for a shell: the command is made to be copied.
    pub fn lacks(&self, rights: &[Right]) -> String {
        let user = self.principal.as_deref().unwrap_or("this user");
        let names: Vec<String> = rights.iter().map(Right::to_string).collect();
        let commands: Vec<String> = rights.iter().map(|right| self.command(right)).collect();
        format!("{user} has no permission: {}; to allow it:\n{}", names.join(", "), commands.join("\n"))
    }

    fn command(&self, right: &Right) -> String {
        // A placeholder that no broker takes: a guess might grant the right to another user.
        let principal = self.principal.as_deref().unwrap_or("User:NAME");
        let resource = match &right.resource {
            Resource::Topic(name) => format!("--topic {}", quoted(name)),
            Resource::Group(name) => format!("--group {}", quoted(name)),
            Resource::TransactionalIds(prefix) => {
                format!("--transactional-id {} --resource-pattern-type prefixed", quoted(prefix))
            }
            Resource::Cluster => "--cluster".to_owned(),
        };
        let (servers, principal) = (quoted(&self.servers), quoted(principal));
        let operation = right.operation.names().1;
        format!(
            "    kafka-acls.sh --bootstrap-server {servers} --add --allow-principal {principal} --operation {operation} {resource}"
        )
    }
}

/// A word as a shell takes it: as it is where it is harmless, else in single quotes.
///
/// ```text
/// shop    → shop
/// o'hara  → 'o'\''hara'
/// ```
fn quoted(word: &str) -> String {
    // Characters that no shell gives a meaning to.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".,:_-=/@".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_that_is_missing_comes_with_the_command_that_adds_it() {
        let user = User { principal: Some("User:bob".to_owned()), servers: "kafka:9092".to_owned() };
        assert_eq!(
            user.lacks(&[Right::read_topic("in"), Right::transact("shop")]),
            "User:bob has no permission: READ on the topic \"in\", WRITE on the transactional ids \"shop.*\"; to allow it:\n    \
             kafka-acls.sh --bootstrap-server kafka:9092 --add --allow-principal User:bob --operation Read --topic in\n    \
             kafka-acls.sh --bootstrap-server kafka:9092 --add --allow-principal User:bob --operation Write \
             --transactional-id shop. --resource-pattern-type prefixed"
        );
        let stranger = User { principal: None, servers: "kafka:9092".to_owned() };
        assert_eq!(
            stranger.lacks(&[Right::number_records()]),
            "this user has no permission: IDEMPOTENT_WRITE on the cluster; to allow it:\n    \
             kafka-acls.sh --bootstrap-server kafka:9092 --add --allow-principal User:NAME --operation IdempotentWrite --cluster"
        );
    }

    #[test]
    fn names_do_no_harm_in_a_shell() {
        let user = User { principal: Some("User:CN=o'hara, OU=x".to_owned()), servers: "kafka:9092".to_owned() };
        let told = user.lacks(&[Right::join("shop")]);
        assert!(told.contains("--allow-principal 'User:CN=o'\\''hara, OU=x' --operation Read --group shop"), "{told}");
    }
}
