//! A client for the worker's HTTP server that sends exactly the bytes that a test writes.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::clock::now;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection, which is kept between requests.
pub struct Client {
    stream: BufReader<TcpStream>,
    port: u16,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Headers, their names in small letters.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

impl Response {
    /// The body as JSON.
    ///
    /// # Panics
    /// If it is something else.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl Client {
    /// Connects to a port of this machine.
    ///
    /// # Errors
    /// Nothing listens there.
    pub fn connect(port: u16) -> io::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Client { stream: BufReader::new(stream), port })
    }

    /// Sends bytes, and waits for nothing.
    ///
    /// # Errors
    /// The connection is closed.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Asks with these lines of headers; `Host` is added where none of them is one.
    ///
    /// # Errors
    /// The connection is closed, or the answer is none.
    pub fn ask(&mut self, method: &str, path: &str, headers: &[&str], body: &str) -> io::Result<Response> {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|header| header.starts_with("Host:")) {
            head.push_str(&format!("Host: localhost:{}\r\n", self.port));
        }
        headers.iter().for_each(|header| head.push_str(&format!("{header}\r\n")));
        if !body.is_empty() || method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        self.send(format!("{head}\r\n{body}").as_bytes())?;
        self.answer(method == "HEAD")
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// The connection is closed, or the answer is none.
    pub fn answer(&mut self, is_head: bool) -> io::Result<Response> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| bad(&format!("no answer: {first:?}")))?;
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; if is_head { 0 } else { length }];
        self.stream.read_exact(&mut body)?;
        Ok(Response { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
    }

    /// True if the other side closes the connection within this time, whatever it says before that.
    ///
    /// # Panics
    /// If the connection takes no time limit.
    pub fn closes_within(&mut self, time: Duration) -> bool {
        let began = now();
        loop {
            let left = time.saturating_sub(now() - began);
            if left.is_zero() {
                return false;
            }
            self.stream.get_ref().set_read_timeout(Some(left)).expect("it is more than nothing");
            match self.stream.read(&mut [0; 1024]) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

/// Gets a page over a connection of its own.
///
/// # Errors
/// Nothing listens there, or the answer is none.
pub fn get(port: u16, path: &str) -> io::Result<Response> {
    Client::connect(port)?.ask("GET", path, &[], "")
}

/// The values of a family of metrics: the labels of each series as they are written, and its value.
pub fn series(page: &str, name: &str) -> Vec<(String, f64)> {
    let of = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.strip_prefix('{')?.rsplit_once("} ")?;
        Some((labels.to_owned(), value.parse().ok()?))
    };
    page.lines().filter_map(of).collect()
}
