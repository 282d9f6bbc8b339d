//! Finds partitions that get nothing though they go on: the client sits at a broker that does not lead them
//! any more, or has forgotten to fetch them (confluentinc/librdkafka#5430, #5593, neither fixed in 2.12.1).
//!
//! The client's own idea of where a partition ends comes from its fetches, and a partition that is not
//! fetched has none. So now and then the ends are asked for over the producer's client, without waiting.
//!
//! ```text
//! every 20 s: ask for the ends ─ later turns: the answer ─▶ behind, and at the same position for 60 s ─▶ stuck
//! stuck again at that position: after 120 s, 240 s …
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::producer::Producer as _;
use tracing::debug;

use super::client::{Client, Line};
use super::offsets::{Offsets, Questions, Sees, Which};
use crate::event::message::TopicPartition;
use crate::guard::ClientCall;

/// Time between two questions for the ends.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// A partition that had more to read for so long, and gave nothing, is stuck.
pub const STUCK_AFTER: Duration = Duration::from_secs(60);
/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A partition that is fetched: where it stands.
pub type Fetched = (TopicPartition, i64);

/// The last look at partitions that are behind.
///
/// Partitions that are at their ends are not in it.
#[derive(Debug, Default)]
pub struct Behind(BTreeMap<TopicPartition, Waits>);

/// Since when a partition stands where it does, and after how long it counts as stuck. What did not help is
/// done again after twice the time: what is left may hold no record at all.
///
/// `position` is the next offset that the consumer would give.
#[derive(Clone, Copy, Debug)]
struct Waits {
    position: i64,
    since: Duration,
    patience: Duration,
}

impl Behind {
    /// Compares positions with the ends; gives those that are stuck. A partition that is not among those that
    /// are fetched, or is at its end, is forgotten.
    ///
    /// `end`: the last known end of a partition, `None` where it is not known.
    fn look(
        &mut self,
        now: Duration,
        fetched: &[Fetched],
        end: impl Fn(&TopicPartition) -> Option<i64>,
    ) -> Vec<Fetched> {
        let mut stuck = Vec::new();
        let before = std::mem::take(&mut self.0);
        for (partition, position) in fetched {
            if end(partition).is_none_or(|end| end <= *position) {
                continue;
            }
            let new = Waits { position: *position, since: now, patience: STUCK_AFTER };
            // A position that has moved begins a new wait: something came, or a marker was passed.
            let mut waits = before.get(partition).copied().filter(|waits| waits.position == *position).unwrap_or(new);
            if now >= waits.since + waits.patience {
                stuck.push((partition.clone(), *position));
                waits = Waits { since: now, patience: 2 * waits.patience, ..waits };
            }
            self.0.insert(partition.clone(), waits);
        }
        stuck
    }
}

/// Looks for partitions that are stuck.
///
/// The default has asked nothing yet and asks at its first turn.
#[derive(Default)]
pub struct Look {
    /// The question under way, with its client: in this order they go.
    asked: Option<(Questions, Arc<Client>)>,
    next: Duration,
    behind: Behind,
}

impl Look {
    /// Asks when it is time, and gives what is stuck when the answer has come. `fetched` is only called then.
    ///
    /// Never waits: the answer is taken at a later turn.
    pub fn turn(&mut self, now: Duration, line: &Line, fetched: impl Fn() -> Vec<Fetched>) -> Vec<Fetched> {
        if let Some((questions, _)) = &mut self.asked {
            let answer = line.calls.during(ClientCall::ListOffsets, || questions.answer(Duration::ZERO));
            let Some((_, answer)) = answer else { return Vec::new() };
            self.asked = None;
            return match answer {
                Ok(ends) => self.behind.look(now, &fetched(), |partition| end(&ends, partition)),
                Err(error) => {
                    debug!("the ends of partitions are not known: {error}");
                    Vec::new()
                }
            };
        }
        if now < self.next {
            return Vec::new();
        }
        self.next = now + LOOK_EVERY;
        let partitions: Vec<_> = fetched().into_iter().map(|(partition, _)| partition).collect();
        if !partitions.is_empty() {
            let client = line.client();
            let mut questions = Questions::new(client.client());
            let ask = || questions.ask(client.client(), (Which::End, Sees::Decided), &partitions, ANSWER_MAX);
            line.calls.during(ClientCall::ListOffsets, ask);
            self.asked = Some((questions, client));
        }
        Vec::new()
    }
}

/// The end of one partition in an answer.
fn end(ends: &Offsets, partition: &TopicPartition) -> Option<i64> {
    ends.get(&(partition.topic.to_string(), partition.partition)).copied().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_partitions_that_go_on_and_give_nothing_are_stuck() {
        let mut behind = Behind::default();
        let at = |positions: [i64; 3]| -> Vec<Fetched> {
            (0..).zip(positions).map(|(partition, at)| (TopicPartition::new("t", partition), at)).collect()
        };
        let mut stuck = Vec::new();
        for second in (0..=200).step_by(20) {
            // The first is at its end, the second moves, the third stands.
            let fetched = at([10, i64::from(second), 5]);
            let found = behind
                .look(second * SECOND, &fetched, |partition| [10, 1000, 9].get(partition.partition as usize).copied());
            stuck.extend(found.into_iter().map(|found| (second, found.0.partition, found.1)));
        }
        assert_eq!(stuck, [(60, 2, 5), (180, 2, 5)], "what did not help is done again after twice the time");
    }

    #[test]
    fn a_partition_that_was_away_begins_anew() {
        let mut behind = Behind::default();
        let fetched = [(TopicPartition::new("t", 0), 5)];
        let end = |_: &TopicPartition| Some(9);
        assert_eq!(behind.look(Duration::ZERO, &fetched, end), []);
        assert_eq!(behind.look(40 * SECOND, &[], end), []);
        assert_eq!(behind.look(70 * SECOND, &fetched, end), []);
        assert_eq!(behind.look(130 * SECOND, &fetched, end).len(), 1);
    }
}
