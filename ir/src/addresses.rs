//! The forms in which brokers and addresses are written, in settings of pods and of specs alike.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The brokers in the one form that clients take, from all in which they are written.
///
/// ```
/// use kaspr_ir::addresses::brokers;
///
/// assert_eq!(brokers("kafka://a;kafka://b:9093"), Ok("a:9092,b:9093".to_owned()));
/// assert_eq!(brokers("a:9092, [::1]"), Ok("a:9092,[::1]:9092".to_owned()));
/// ```
///
/// # Errors
///
/// Says which of them is no `host:port`, but for one that has a user in it.
pub fn brokers(text: &str) -> Result<String, String> {
    let is_between = |c: char| c.is_whitespace() || matches!(c, ',' | ';');
    let named: Vec<&str> = text.split(is_between).filter(|server| !server.is_empty()).collect();
    if named.is_empty() {
        return Err("it names no broker: host:port,host:port".to_owned());
    }
    Ok(named.into_iter().map(server).collect::<Result<Vec<_>, _>>()?.join(","))
}

/// One broker as `host:port`.
fn server(text: &str) -> Result<String, String> {
    if text.contains('@') {
        return Err("a broker is named without a user: that is KAFKA_AUTH_USERNAME and KAFKA_AUTH_PASSWORD".to_owned());
    }
    let place = text.strip_prefix("kafka://").unwrap_or(text).trim_end_matches('/');
    let refused = || format!("\"{text}\" is no broker: host:port, with brackets around an IPv6 address, as [::1]:9092");
    // The colons of an address in brackets separate no port.
    let (host, port) = match place.rfind(']') {
        Some(end) => (&place[..=end], &place[end + 1..]),
        None => place.split_at(place.find(':').unwrap_or(place.len())),
    };
    let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_address = inside.is_some_and(|inside| inside.parse::<Ipv6Addr>().is_ok());
    let is_name = !host.is_empty() && host.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'));
    let port = if port.is_empty() { ":9092" } else { port };
    let is_port = port.strip_prefix(':').and_then(|port| port.parse::<u16>().ok()).is_some_and(|port| port > 0);
    match (is_address || is_name) && is_port {
        true => Ok(format!("{host}{port}")),
        false => Err(refused()),
    }
}

/// `[::]`, `::1`, `0.0.0.0`, `localhost`; `None`: it is no address.
pub fn local_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match inside {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        inside => inside.parse().ok(),
    }
}
