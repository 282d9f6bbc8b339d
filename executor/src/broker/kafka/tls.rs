//! Finds out why no connection comes about where TLS is in play: the client itself says neither what is wrong
//! with a certificate nor, for sure, whether a broker speaks TLS at all.
//!
//! ```text
//! speaks_tls: a ClientHello ─▶ first byte 21 or 22: TLS   any other byte, or closed: none   silence: not known
//! ```
//!
//! Both look with connections of their own, once a start has failed or seems to.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::config::ClientSettings;
use super::raw::{CertificateFault, certificate_fault};

/// Longest wait for a broker's certificate.
const CERTIFICATE_WAIT_MAX: Duration = Duration::from_secs(2);
/// Longest wait for a connection, and for the first byte of an answer.
const BYTE_WAIT_MAX: Duration = Duration::from_secs(1);

/// OpenSSL's numbers of what is wrong with a certificate (`x509_vfy.h`).
mod code {
    pub const NOT_YET_VALID: i32 = 9;
    pub const HAS_EXPIRED: i32 = 10;
    pub const SELF_SIGNED: i32 = 18;
    pub const SELF_SIGNED_IN_CHAIN: i32 = 19;
    pub const ISSUER_MISSING: i32 = 20;
    pub const CHAIN_INCOMPLETE: i32 = 21;
    pub const HOST_MISMATCH: i32 = 62;
    pub const ADDRESS_MISMATCH: i32 = 64;
}

/// Explains why the client trusts no broker, if a certificate is the reason.
///
/// `None`: certificates are fine, or no broker answers. Names the broker and what to do.
pub fn explain_certificate(settings: &ClientSettings) -> Option<String> {
    let CertificateFault { broker, code } = certificate_fault(&settings.plain(), CERTIFICATE_WAIT_MAX)?;
    let host = broker.rsplit_once(':').map_or(broker.as_str(), |(host, _)| host);
    let why = match code {
        code::SELF_SIGNED | code::SELF_SIGNED_IN_CHAIN | code::ISSUER_MISSING | code::CHAIN_INCOMPLETE => {
            "its certificate comes from an authority that is not known here: name the file of the authority's certificate with --kafka ssl.ca.location=FILE or the variable KASPR_KAFKA_AUTH_CAFILE".to_owned()
        }
        code::HAS_EXPIRED => "its certificate has expired: the broker needs a new one".to_owned(),
        code::NOT_YET_VALID => "its certificate is not valid yet: compare the clocks of broker and client".to_owned(),
        code::HOST_MISMATCH | code::ADDRESS_MISMATCH => {
            format!("its certificate is not for \"{host}\": name the broker as its certificate does")
        }
        code => format!("its certificate is refused (OpenSSL's verification error {code})"),
    };
    Some(format!("no TLS connection to the broker {broker}: {why}"))
}

/// Says it where a broker speaks TLS and the client does not, or the other way round.
///
/// `None`: they agree, or no broker answers. Takes up to a second for each connection and each answer.
pub fn explain_protocol(settings: &ClientSettings) -> Option<String> {
    let (protocol, is_tls, with_users) = settings.protocol();
    let differs = |server: &&str| speaks_tls(server).is_some_and(|speaks| speaks != is_tls);
    let server = settings.servers.split(',').map(str::trim).find(differs)?;
    let other = match (is_tls, with_users) {
        (false, false) => "ssl",
        (false, true) => "sasl_ssl",
        (true, false) => "plaintext",
        (true, true) => "sasl_plaintext",
    };
    let speaks = if is_tls { "speaks no TLS" } else { "speaks TLS" };
    Some(format!(
        "the broker {server} {speaks}, and security.protocol is {protocol}: connect with --kafka security.protocol={other}, or to another port of the broker"
    ))
}

/// True if some server takes connections.
pub fn is_reachable(servers: &str) -> bool {
    servers.split(',').any(|server| connect(server.trim()).is_some())
}

/// The first address that takes a connection within [`BYTE_WAIT_MAX`].
fn connect(server: &str) -> Option<TcpStream> {
    let mut addresses = server.to_socket_addrs().ok()?;
    addresses.find_map(|address| TcpStream::connect_timeout(&address, BYTE_WAIT_MAX).ok())
}

/// True if TLS is spoken at `host:port`; `None`: nothing answers there.
fn speaks_tls(server: &str) -> Option<bool> {
    /// Types of TLS records: an alert, a part of the handshake.
    const RECORDS: [u8; 2] = [21, 22];
    let mut stream = connect(server)?;
    stream.set_read_timeout(Some(BYTE_WAIT_MAX)).ok()?;
    stream.write_all(&client_hello()).ok()?;
    let mut first = [0];
    match stream.read(&mut first) {
        Ok(1) => Some(RECORDS.contains(&first[0])),
        // It takes the bytes for a request that is too large, and closes the connection.
        Ok(_) => Some(false),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Some(false),
        Err(_) => None,
    }
}

/// The first words of a TLS 1.2 client (RFC 5246, 7.4.1.2).
///
/// It need only be good enough for an answer: its random bytes are all 7, and the connection ends behind it.
fn client_hello() -> Vec<u8> {
    const CIPHERS: [u8; 12] = [0xC0, 0x2B, 0xC0, 0x2C, 0xC0, 0x2F, 0xC0, 0x30, 0x00, 0x9C, 0x00, 0x2F];
    /// Curves, their form, and signatures.
    const EXTENSIONS: [u8; 30] =
        [0, 10, 0, 6, 0, 4, 0, 29, 0, 23, 0, 11, 0, 2, 1, 0, 0, 13, 0, 8, 0, 6, 4, 3, 4, 1, 8, 4, 0xFF, 1];
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    // No session, the ciphers, no compression.
    body.extend([0, 0, CIPHERS.len() as u8]);
    body.extend(CIPHERS);
    body.extend([1, 0, 0, EXTENSIONS.len() as u8 + 3]);
    body.extend(EXTENSIONS);
    // The end of the last extension, which renegotiates nothing.
    body.extend([0, 1, 0]);
    let length = body.len() as u8;
    let mut hello = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    hello.extend(body);
    hello
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A listener that answers the first connection with these bytes.
    fn listener(answer: &'static [u8]) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = listener.local_addr().expect("it has one").to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client connects");
            let _ = stream.read(&mut [0; 256]);
            let _ = stream.write_all(answer);
        });
        server
    }

    #[test]
    fn what_a_broker_speaks_is_heard_from_its_first_byte() {
        assert_eq!(speaks_tls(&listener(&[22, 3, 3])), Some(true), "a handshake");
        assert_eq!(speaks_tls(&listener(&[21, 3, 3])), Some(true), "an alert");
        assert_eq!(speaks_tls(&listener(&[0, 0, 0, 9])), Some(false), "something else");
        assert_eq!(speaks_tls(&listener(&[])), Some(false), "it closes");
        assert_eq!(speaks_tls("127.0.0.1:1"), None, "no listener");
    }
}
