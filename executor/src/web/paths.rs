//! Paths: which page each has, and which requests are refused before they reach one.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;

use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request, StatusCode};
use matchit::Router;
use tracing::warn;

use super::answer::{Answer, JSON};
use super::disk::Disk;
use super::metrics::{Metrics, NO_PAGE, Requests};
use super::{Site, health, operator, plan, status};
use crate::clock::{Clock as _, SystemClock};
use crate::config::serving::{BODY_BYTES_MAX, BODY_WAIT_MAX};

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Root,
    OperatorStatus,
    Rebalance,
    Live,
    Ready,
    Status,
    Plan,
    Metrics,
}

/// All pages but the one whose path is a setting.
const PAGES: [(&str, Page); 7] = [
    ("/", Page::Root),
    ("/status/", Page::OperatorStatus),
    ("/signal/rebalance", Page::Rebalance),
    ("/health/live", Page::Live),
    ("/health/ready", Page::Ready),
    ("/kaspr/status", Page::Status),
    ("/kaspr/plan", Page::Plan),
];

/// The paths of a site.
pub(super) struct Paths {
    site: Site,
    router: Router<(String, Page)>,
    metrics: Metrics,
    disk: Disk,
    requests: RefCell<Requests>,
    clock: SystemClock,
}

impl Paths {
    /// Makes the paths of a site.
    pub(super) fn new(site: Site) -> Paths {
        let mut router = Router::new();
        for (path, page) in PAGES {
            router.insert(path, (path.to_owned(), page)).expect("the paths of pages differ");
        }
        let path = site.web.metrics_path.clone();
        // This path is a setting and may be wrong: probes must find their pages all the same.
        if let Err(error) = router.insert(path.clone(), (path, Page::Metrics)) {
            warn!(path = %site.web.metrics_path, %error, "metrics are not served: their path is another page's");
        }
        let clock = SystemClock::start();
        Paths { site, router, metrics: Metrics::new(), disk: Disk::new(), requests: RefCell::default(), clock }
    }

    /// Answers a request, and counts it.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let began = self.clock.now();
        let found = self.router.at(request.uri().path()).ok();
        let (path, page) = found.map_or((NO_PAGE, None), |found| (found.value.0.as_str(), Some(found.value.1)));
        let path = path.to_owned();
        let answer = match (self.refuses_host(request.headers()), page) {
            (Some(refused), _) => refused,
            (None, Some(page)) => self.give(page, request).await,
            (None, None) => Answer::refused(StatusCode::NOT_FOUND, "there is no such page"),
        };
        self.requests.borrow_mut().count(&path, answer.status.as_u16(), self.clock.now().saturating_sub(began));
        answer
    }

    /// Gives a page.
    async fn give(&self, page: Page, request: Request<Incoming>) -> Answer {
        if page == Page::Rebalance {
            return self.rebalance(request).await;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return refuses_method("GET, HEAD");
        }
        match page {
            Page::Root => operator::root(),
            Page::OperatorStatus => operator::status(&self.site),
            Page::Live => health::live(&self.site),
            Page::Ready => health::ready(&self.site),
            Page::Status => status::page(&self.site, &self.disk),
            Page::Metrics => {
                let accept = text(request.headers(), header::ACCEPT.as_str());
                self.metrics.page(&self.site, (&self.disk, &self.requests.borrow()), accept)
            }
            // A rebalance has been answered above; here it only completes the match.
            Page::Plan | Page::Rebalance => plan::page(&self.site.plan, request.uri().query()),
        }
    }

    /// Refuses a request under another name, where only this machine is listened to: a page of the web may have
    /// had its own name resolved to it.
    fn refuses_host(&self, headers: &HeaderMap) -> Option<Answer> {
        if !self.site.web.listen.ip().is_loopback() {
            return None;
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if is_loopback(host) {
            return None;
        }
        let why = "this address answers under the names of this machine alone: localhost, 127.0.0.1, [::1]";
        Some(Answer::refused(StatusCode::FORBIDDEN, why))
    }

    /// Asks for a rebalance. A page of another site cannot send this: its browser would have to ask first for a
    /// content type that no form has, and says where the request comes from.
    async fn rebalance(&self, request: Request<Incoming>) -> Answer {
        if request.method() != Method::POST {
            return refuses_method("POST");
        }
        // Browsers alone send this header, so the operator and other tools pass without it.
        if text(request.headers(), "sec-fetch-site").eq_ignore_ascii_case("cross-site") {
            return Answer::refused(StatusCode::FORBIDDEN, "a page of another site may not ask for a rebalance");
        }
        let content_type = text(request.headers(), header::CONTENT_TYPE.as_str()).split(';').next().unwrap_or_default();
        if !content_type.trim().eq_ignore_ascii_case(JSON) {
            return Answer::refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json");
        }
        // A body that is left unread ends the connection, and the answer may be lost with it.
        if let Err(refused) = take_body(request.into_body()).await {
            return refused;
        }
        operator::rebalance(&self.site)
    }
}

fn refuses_method(allow: &'static str) -> Answer {
    let refused = Answer::refused(StatusCode::METHOD_NOT_ALLOWED, &format!("this page takes {allow}"));
    Answer { allow: Some(allow), ..refused }
}

/// A header as text; empty where there is none.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// True if a `Host` names this machine.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Reads a body to its end and drops it: no page needs one.
///
/// # Errors
///
/// The answer to one that is too large, or too slow.
async fn take_body(mut body: Incoming) -> Result<(), Answer> {
    let read = async {
        let mut left = BODY_BYTES_MAX;
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let Ok(frame) = frame else {
                return Err(Answer::refused(StatusCode::BAD_REQUEST, "the body cannot be read"));
            };
            let bytes = frame.data_ref().map_or(0, bytes::Bytes::len);
            let Some(rest) = left.checked_sub(bytes) else {
                let why = format!("the body has more than {BODY_BYTES_MAX} bytes");
                return Err(Answer::refused(StatusCode::PAYLOAD_TOO_LARGE, &why));
            };
            left = rest;
        }
        Ok(())
    };
    let slow = || Answer::refused(StatusCode::REQUEST_TIMEOUT, "the body did not come in time");
    tokio::time::timeout(BODY_WAIT_MAX, read).await.unwrap_or_else(|_| Err(slow()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        for host in ["localhost", "localhost:6065", "LOCALHOST", "127.0.0.1:6065", "127.1.2.3", "[::1]:6065", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", "shop.example.com", "localhost.evil.com:6065", "10.0.0.1:6065", "[2001:db8::1]:6065", "::"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
