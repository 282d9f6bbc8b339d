//! Answers: a status, a type, bytes, and the headers that every answer has.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::Response;
use hyper::StatusCode;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{self, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::stream::Progress;

/// The type of JSON.
pub(super) const JSON: &str = "application/json";
/// The type of plain text.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// Headers of every answer: what a browser may do with it.
const ALWAYS: [(HeaderName, &str); 3] = [
    // Answers quote names and messages of users: a browser must not take them for a script.
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'self'"),
    // A proxy that kept a page would show the worker as it once was.
    (header::CACHE_CONTROL, "no-store"),
];

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) bytes: Bytes,
    /// The methods that the path has, of an answer to another one.
    pub(super) allow: Option<&'static str>,
}

impl Answer {
    /// Makes an answer of JSON.
    pub(super) fn json(status: StatusCode, value: &Value) -> Answer {
        Answer::text(status, JSON, format!("{value}\n"))
    }

    /// Makes an answer of a text.
    pub(super) fn text(status: StatusCode, content_type: &'static str, text: impl Into<Bytes>) -> Answer {
        Answer { status, content_type, bytes: text.into(), allow: None }
    }

    /// Refuses a request, with the reason.
    pub(super) fn refused(status: StatusCode, why: &str) -> Answer {
        Answer::json(status, &json!({ "error": why }))
    }

    /// Makes the response. `progress` learns when the client has it.
    pub(super) fn into_response(self, progress: Rc<Progress>) -> Response<AnswerBody> {
        let mut response = Response::new(AnswerBody { bytes: Some(self.bytes), progress });
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        for (name, value) in ALWAYS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

/// The bytes of an answer. Its end tells the connection that nothing more is to come.
pub(super) struct AnswerBody {
    bytes: Option<Bytes>,
    progress: Rc<Progress>,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.bytes.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.as_ref().is_none_or(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        // With the exact size the library sends a length; otherwise every answer would come in chunks.
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

// Not where the last frame is given: the answer to a HEAD is dropped without being asked for one.
impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.progress.has_answered();
    }
}
