//! Reports of records, taken many at once: one event of the client has those of a whole request, and is counted under
//! one lock.
//!
//! rdkafka's own poll makes a message of each report, and waits out its whole time, the last part of a millisecond of
//! it spinning.

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::time::Duration;

use rdkafka::client::{self as rdkafka_client, ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::Producer as _;
use rdkafka_sys as native;

use super::client::{Client, Flights};
use super::raw::{NO_ERROR, milliseconds, set_token};
use super::tokens::Token;
use crate::config::secret::Secret;

/// Reports that are looked at in one step.
const REPORTS_STEP: usize = 64;
/// Events of the client that are served in a row: its log lines could go on for ever.
const EVENTS_MAX: usize = 10_000;

/// The client's queue of reports, and of whatever else it has to say.
pub(super) struct Reports {
    queue: *mut native::rd_kafka_queue_t,
}

impl Reports {
    /// The queue of a client. It may outlive its client.
    pub(super) fn of(client: &Client) -> Reports {
        // SAFETY: the client lives through the call; `drop` gives the handle back.
        Reports { queue: unsafe { native::rd_kafka_queue_get_main(client.client().native_ptr()) } }
    }

    /// True if something waits to be taken.
    pub(super) fn has_any(&self) -> bool {
        // SAFETY: the queue is this value's.
        unsafe { native::rd_kafka_queue_length(self.queue) > 0 }
    }

    /// Takes all that there is; waits at most `wait` for the first.
    ///
    /// The client's context learns of each.
    pub(super) fn take(&self, client: &Client, wait: Duration) {
        let mut wait_ms = milliseconds(wait);
        for _ in 0..EVENTS_MAX {
            // SAFETY: the queue is this value's. The event is given back after it was looked at.
            unsafe {
                let event = native::rd_kafka_queue_poll(self.queue, wait_ms);
                if event.is_null() {
                    return;
                }
                match native::rd_kafka_event_type(event) {
                    native::RD_KAFKA_EVENT_DR => note_reports(&mut client.context().flights(), event),
                    _ => note(client.client(), event),
                }
                native::rd_kafka_event_destroy(event);
            }
            wait_ms = 0;
        }
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        // SAFETY: the handle is this value's.
        unsafe { native::rd_kafka_queue_destroy(self.queue) };
    }
}

/// Gives an event that is about no record to the client's context: a line of its log, an error, statistics, a token
/// that is due.
///
/// # Safety
/// `event` is a live event of the client.
pub(super) unsafe fn note<C: ClientContext>(client: &rdkafka_client::Client<C>, event: *mut native::rd_kafka_event_t) {
    let context = client.context();
    // SAFETY: the caller's promise; texts are the event's, and live as long as it does.
    unsafe {
        match native::rd_kafka_event_type(event) {
            native::RD_KAFKA_EVENT_ERROR => {
                let error = KafkaError::Global(native::rd_kafka_event_error(event).into());
                context.error(error, text(native::rd_kafka_event_error_string(event)).trim());
            }
            native::RD_KAFKA_EVENT_STATS => {
                context.stats_raw(CStr::from_ptr(native::rd_kafka_event_stats(event)).to_bytes());
            }
            native::RD_KAFKA_EVENT_LOG => {
                let (mut facility, mut line, mut level) = (ptr::null(), ptr::null(), 0);
                if native::rd_kafka_event_log(event, &mut facility, &mut line, &mut level) == 0 {
                    let level = LEVELS.get(usize::try_from(level).unwrap_or(0)).copied();
                    context.log(level.unwrap_or(RDKafkaLogLevel::Debug), text(facility).trim(), text(line).trim());
                }
            }
            native::RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH if C::ENABLE_REFRESH_OAUTH_TOKEN => {
                let config = native::rd_kafka_event_config_string(event);
                refresh_token(client, (!config.is_null()).then(|| text(config)).as_deref());
            }
            _ => {}
        }
    }
}

/// Gives the client the token that its context makes, or the reason why there is none: it asks again then.
fn refresh_token<C: ClientContext>(client: &rdkafka_client::Client<C>, config: Option<&str>) {
    let made = client.context().generate_oauth_token(config).map_err(|error| error.to_string());
    let given = made.and_then(|OAuthToken { token, principal_name: principal, lifetime_ms: expires_ms }| {
        set_token(client, &Token { value: Secret::new(token), principal, expires_ms })
    });
    if let Err(why) = given {
        let why = CString::new(why.replace('\0', " ")).unwrap_or_default();
        // SAFETY: client and text live through the call.
        unsafe { native::rd_kafka_oauthbearer_set_token_failure(client.native_ptr(), why.as_ptr()) };
    }
}

/// The levels of log lines, by librdkafka's number.
const LEVELS: [RDKafkaLogLevel; 8] = [
    RDKafkaLogLevel::Emerg,
    RDKafkaLogLevel::Alert,
    RDKafkaLogLevel::Critical,
    RDKafkaLogLevel::Error,
    RDKafkaLogLevel::Warning,
    RDKafkaLogLevel::Notice,
    RDKafkaLogLevel::Info,
    RDKafkaLogLevel::Debug,
];

/// # Safety
/// `text` is null or ends with a zero byte, and lives as long as the result is used.
unsafe fn text<'a>(text: *const c_char) -> Cow<'a, str> {
    match text.is_null() {
        true => "".into(),
        // SAFETY: the caller's promise.
        false => unsafe { CStr::from_ptr(text) }.to_string_lossy(),
    }
}

/// Counts the reports of an event.
///
/// # Safety
/// `event` is a live event with reports.
unsafe fn note_reports(flights: &mut Flights, event: *mut native::rd_kafka_event_t) {
    // The topic, partition and next offset of the last tracked records: an event has those of one partition.
    let mut written: Option<(*mut native::rd_kafka_topic_t, i32, i64)> = None;
    let mut step = [ptr::null(); REPORTS_STEP];
    loop {
        // SAFETY: the call writes as many addresses as there is room for.
        let count = unsafe { native::rd_kafka_event_message_array(event, step.as_mut_ptr(), REPORTS_STEP) };
        for message in &step[..count] {
            // SAFETY: the messages are the event's, which lives through this call.
            let message = unsafe { &**message };
            let is_tracked = flights.report(message._private as usize, message.len);
            // SAFETY: a message keeps its topic.
            let place = |rkt| unsafe { text(native::rd_kafka_topic_name(rkt)) }.into_owned();
            if message.err != NO_ERROR {
                flights.fail((place(message.rkt), message.partition), message.len, message.err.into());
            } else if is_tracked {
                let next = message.offset + 1;
                match &mut written {
                    Some(last) if (last.0, last.1) == (message.rkt, message.partition) => last.2 = last.2.max(next),
                    last => {
                        if let Some((rkt, partition, next)) = last.replace((message.rkt, message.partition, next)) {
                            flights.wrote((place(rkt), partition), next);
                        }
                    }
                }
            }
        }
        if count == 0 {
            break;
        }
    }
    if let Some((rkt, partition, next)) = written {
        // SAFETY: the event, which keeps the message, lives through this call.
        flights.wrote((unsafe { text(native::rd_kafka_topic_name(rkt)) }.into_owned(), partition), next);
    }
}
