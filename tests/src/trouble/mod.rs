//! Everything that can go wrong around an app, one kind after the other, and how long it takes until
//! all of its partitions give output again.

mod scene;
mod stage;

pub use scene::{Outcome, STUCK_AFTER, Scene, Setting, Survived};

use crate::proxy::{ADD_OFFSETS_TO_TXN, Api, END_TXN, TXN_OFFSET_COMMIT};

/// The instance of the process that is a static member, from which its transactional id follows.
const INSTANCE: &str = "lasting";

/// The role of the broker that a trouble strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Any broker.
    Any,
    /// The coordinator of the app's group.
    Group,
    /// The coordinator of the transactions of a process.
    Transactions,
    /// The leader of a partition of the input.
    Leader,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Any => "broker",
            Role::Group => "group coordinator",
            Role::Transactions => "transaction coordinator",
            Role::Leader => "leader of an input partition",
        }
    }
}

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// A process is killed and started again.
    Kill,
    /// A process dies at this step of a commit, and is started again.
    Death(&'static str),
    /// A process stands still, some of the times for longer than its session.
    FrozenProcess,
    /// A process gets SIGTERM, and is started again.
    Terminated,
    /// One process more for a while.
    Joined,
    /// A broker is killed and started again.
    BrokerKilled(Role),
    /// A broker stands still.
    BrokerFrozen(Role),
    /// All brokers are stopped and started again, one after the other.
    RollingRestart,
    /// Partitions leave the broker that leads them for the others, and come back as followers: those of
    /// the app (`Any`, `Leader`), or of the topic that makes their leader a coordinator.
    Reassigned(Role),
    /// All connections break, a few times.
    Cut,
    /// There is no network for a while.
    NoNetwork,
    /// Every frame takes longer for a while.
    SlowNetwork,
    /// A request of a commit arrives after it was repeated.
    Late(Api),
    /// The answer to a request of a commit is lost.
    Unanswered(Api),
    /// A request of a commit takes long.
    Held(Api),
}

impl Trouble {
    /// Every kind once that can happen with so many brokers.
    pub fn all(brokers: usize) -> Vec<Trouble> {
        use Trouble::*;
        let mut all = vec![Kill, FrozenProcess, Terminated, Joined, Cut, NoNetwork, SlowNetwork];
        all.extend([BrokerKilled(Role::Any), BrokerFrozen(Role::Any)]);
        if brokers > 1 {
            all.extend([Role::Group, Role::Transactions, Role::Leader].map(BrokerKilled));
            all.extend([Role::Group, Role::Transactions, Role::Leader].map(BrokerFrozen));
            all.extend([Role::Group, Role::Transactions, Role::Leader].map(Reassigned));
            all.push(RollingRestart);
        }
        all.extend(["begin", "sent", "delivered", "offsets", "committed", "applied"].map(Death));
        for api in [END_TXN, TXN_OFFSET_COMMIT, ADD_OFFSETS_TO_TXN] {
            all.extend([Late(api), Unanswered(api), Held(api)]);
        }
        all
    }

    /// The name in words.
    pub fn name(self) -> String {
        let request = |api: Api| match api {
            END_TXN => "EndTxn",
            TXN_OFFSET_COMMIT => "TxnOffsetCommit",
            _ => "AddOffsetsToTxn",
        };
        match self {
            Trouble::Kill => "process killed (-9)".to_owned(),
            Trouble::Death(step) => format!("process dead at \"{step}\" of a commit"),
            Trouble::FrozenProcess => "process stopped and continued".to_owned(),
            Trouble::Terminated => "process told to end".to_owned(),
            Trouble::Joined => "process joined and left".to_owned(),
            Trouble::BrokerKilled(role) => format!("{} killed (-9)", role.name()),
            Trouble::BrokerFrozen(role) => format!("{} stopped and continued", role.name()),
            Trouble::RollingRestart => "brokers restarted one after the other".to_owned(),
            Trouble::Reassigned(role) => format!("{} reassigned", role.name()),
            Trouble::Cut => "connections cut".to_owned(),
            Trouble::NoNetwork => "no network".to_owned(),
            Trouble::SlowNetwork => "slow network".to_owned(),
            Trouble::Late(api) => format!("{} late, after its repeat", request(api)),
            Trouble::Unanswered(api) => format!("{} unanswered", request(api)),
            Trouble::Held(api) => format!("{} held", request(api)),
        }
    }
}
