//! Questions to a consumer group's coordinator: which member holds an instance id, and what this user may do
//! with the group.
//!
//! A question stays open in librdkafka until it is answered or its client is gone, long after its asker has
//! gone on: librdkafka sends one that waits for a coordinator as soon as the coordinator is back. If the question
//! has passed its own timeout by then, it reads memory that is freed, and aborts the process (`eonce->refcnt > 0`
//! in `rdkafka_queue.h`, not fixed in 2.12.1).

use std::ffi::{CStr, CString, c_char};
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::types::RDKafkaRespErr;
use rdkafka_sys as native;

use super::describe::{Answer, allowed, ask};
use super::identity::Holder;
use crate::broker::Access;
use crate::guard::Patience;

const NO_ERROR: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
/// Longest time that librdkafka keeps a question open: an hour. Clients that ask without an answer go before.
const OPEN_MAX_MS: i32 = 3_600_000;

type Description = *const native::rd_kafka_ConsumerGroupDescription_t;

/// Says what this user may do with a consumer group, which need not exist: `write` means nothing for it.
/// Inner `None` where the broker does not say.
///
/// An error is the coordinator's, or [`Code::OperationTimedOut`].
pub fn access<C: ClientContext>(client: &Client<C>, group: &str, wait: Duration) -> Result<Option<Access>, Code> {
    described(client, group, wait, |group| {
        let mut count = 0;
        // SAFETY: the description lives through the calls, and the list is its.
        unsafe {
            let list = native::rd_kafka_ConsumerGroupDescription_authorized_operations(group, &mut count);
            allowed(list, count)
        }
    })
}

/// A group, as its coordinator describes it.
pub struct Group {
    /// Its state: `Stable`, `PreparingRebalance`, …
    pub state: String,
    /// Its members.
    pub members: Vec<Member>,
}

/// A member of a group.
pub struct Member {
    /// Its name in the group.
    pub id: String,
    /// Its lasting name, empty for a member without one.
    pub instance: String,
    /// The name of its client.
    pub client: String,
    /// Its host's address.
    pub host: String,
    /// The number of its partitions.
    pub partitions: usize,
}

/// Describes a group; waits at most `wait`.
pub fn group<C: ClientContext>(client: &Client<C>, group: &str, wait: Duration) -> Result<Group, Code> {
    described(client, group, wait, |group| {
        // SAFETY: the description lives through the calls, its members with it, and the texts are theirs.
        unsafe {
            let state = native::rd_kafka_ConsumerGroupDescription_state(group);
            let count = native::rd_kafka_ConsumerGroupDescription_member_count(group);
            let members = (0..count).map(|number| {
                let member = native::rd_kafka_ConsumerGroupDescription_member(group, number);
                let assigned = native::rd_kafka_MemberDescription_assignment(member);
                let partitions = match assigned.is_null() {
                    true => std::ptr::null(),
                    false => native::rd_kafka_MemberAssignment_partitions(assigned),
                };
                Member {
                    id: text(native::rd_kafka_MemberDescription_consumer_id(member)),
                    instance: text(native::rd_kafka_MemberDescription_group_instance_id(member)),
                    client: text(native::rd_kafka_MemberDescription_client_id(member)),
                    host: text(native::rd_kafka_MemberDescription_host(member)),
                    partitions: partitions.as_ref().map_or(0, |list| usize::try_from(list.cnt).unwrap_or(0)),
                }
            });
            Group { members: members.collect(), state: text(native::rd_kafka_consumer_group_state_name(state)) }
        }
    })
}

/// Says which member holds the instance id; waits at most `wait`.
///
/// A name that no member holds is [`Holder::Nobody`], no answer is [`Holder::Unknown`].
pub fn holder<C: ClientContext>(client: &Client<C>, app: &str, instance: &str, wait: Duration) -> Holder {
    let Ok(group) = group(client, app, wait) else { return Holder::Unknown };
    match group.members.into_iter().find(|member| member.instance == instance) {
        Some(Member { id, host, .. }) => Holder::Member { id, host },
        None => Holder::Nobody,
    }
}

/// Copies a text of librdkafka's, empty for its null.
///
/// # Safety
/// `text` is null or a C string that lives through the call.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Asks the coordinator about the group, and reads its answer with `read`.
///
/// Waits at most `wait`, and leaves the question open for [`OPEN_MAX_MS`].
fn described<C: ClientContext, T>(
    client: &Client<C>,
    group: &str,
    wait: Duration,
    read: impl FnOnce(Description) -> T,
) -> Result<T, Code> {
    let Ok(name) = CString::new(group) else { return Err(Code::InvalidGroupId) };
    let mut names = [name.as_ptr()];
    let kind = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
    // SAFETY: client and names live through the call, which copies the names.
    let answer = unsafe {
        // Open for longer than any asker waits: a question must not run into its own timeout, see above.
        ask(client.native_ptr(), kind, (wait, &Patience::default()), OPEN_MAX_MS, |client, options, queue| {
            native::rd_kafka_DescribeConsumerGroups(client, names.as_mut_ptr(), names.len(), options, queue);
        })
    };
    let Answer(event) = answer.as_ref().ok_or(Code::OperationTimedOut)?;
    // SAFETY: the answer lives through the calls, and all that is read is its.
    unsafe {
        let code = native::rd_kafka_event_error(*event);
        if code != NO_ERROR {
            return Err(code.into());
        }
        let result = native::rd_kafka_event_DescribeConsumerGroups_result(*event);
        if result.is_null() {
            return Err(Code::InvalidGroupId);
        }
        let mut count = 0;
        let groups = native::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count);
        // One group was asked about, and is described even if it does not exist.
        if groups.is_null() || count == 0 {
            return Err(Code::InvalidGroupId);
        }
        let error = native::rd_kafka_ConsumerGroupDescription_error(*groups);
        if !error.is_null() && native::rd_kafka_error_code(error) != NO_ERROR {
            return Err(native::rd_kafka_error_code(error).into());
        }
        Ok(read(*groups))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, SystemClock};
    use rdkafka::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::mocking::{MockCluster, MockCoordinator};
    use rdkafka::producer::DefaultProducerContext;

    const WAIT: Duration = Duration::from_millis(300);
    const PAUSE: Duration = Duration::from_secs(3);

    /// A question about a group whose coordinator is away for longer than the asker waits.
    fn ask_in_vain(cluster: &MockCluster<'_, DefaultProducerContext>) -> BaseConsumer {
        cluster.coordinator(MockCoordinator::Group("app".to_owned()), 2).expect("a coordinator");
        cluster.broker_down(2).expect("it is down");
        let servers = cluster.bootstrap_servers();
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", servers).set("group.id", "app").set("reconnect.backoff.max.ms", "100");
        let consumer: BaseConsumer = settings.create().expect("a client");
        assert_eq!(holder(consumer.client(), "app", "app.one.0", WAIT), Holder::Unknown);
        assert_eq!(access(consumer.client(), "app", WAIT), Err(Code::OperationTimedOut));
        consumer
    }

    #[test]
    fn a_coordinator_that_is_back_answers_a_question_that_nobody_waits_for() {
        let cluster = MockCluster::new(3).expect("a cluster");
        let consumer = ask_in_vain(&cluster);
        cluster.broker_up(2).expect("it is up");
        let clock = SystemClock::start();
        while clock.now() < PAUSE {
            drop(consumer.poll(WAIT));
        }
        assert!(consumer.client().fetch_metadata(None, PAUSE).is_ok(), "the client lives");
    }

    #[test]
    fn a_client_goes_while_its_question_is_open() {
        let cluster = MockCluster::new(3).expect("a cluster");
        let consumer = ask_in_vain(&cluster);
        drop(consumer);
        cluster.broker_up(2).expect("it is up");
    }
}
