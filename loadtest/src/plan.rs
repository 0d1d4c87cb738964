//! What to send: classes of requests, each with its own schedule, connections and clocks, run side by side.
//!
//! `loadtest run` has one class. A scenario has several: those who suffer, those who cause it, those who probe.
//! Read next: `schedule.rs`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::response::Expect;
use crate::schedule::Schedule;
use crate::target::Target;

/// One kind of request and how it is sent.
#[derive(Clone, Debug)]
pub struct Class {
    /// Its name in reports. The first class of a [`Plan`] is the one that the summary is about.
    pub name: String,
    /// The whole request, head and body.
    pub request: Arc<[u8]>,
    /// What the answer has to be.
    pub expect: Expect,
    /// When each request must leave.
    pub schedule: Schedule,
    /// Connections opened before the schedule begins.
    pub connections: u32,
    /// Connections at most: more than `connections` are opened when an arrival finds none idle.
    pub connections_max: u32,
    /// A request that is not answered this long after it was due has failed.
    pub timeout: Duration,
    /// A connection that is not established after this has failed.
    pub connect_timeout: Duration,
    /// The source address; `None` lets the kernel choose.
    pub from: Option<IpAddr>,
}

impl Class {
    /// A `GET` of `path`, sent over exactly `connections` connections.
    #[must_use]
    pub fn get(name: &str, authority: &str, path: &str, schedule: Schedule, connections: u32) -> Class {
        Class {
            name: name.to_owned(),
            request: request("GET", authority, path, &[], b""),
            expect: Expect::default(),
            schedule,
            connections,
            connections_max: connections,
            timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            from: None,
        }
    }

    /// The same, with answers checked against `body`.
    #[must_use]
    pub fn expecting(mut self, body: &[u8]) -> Class {
        self.expect.body = Some(body.into());
        self
    }

    /// How many of `threads` threads take part: none without a connection of its own.
    #[must_use]
    pub fn shares(&self, threads: u32) -> u32 {
        threads.min(self.connections_max).max(1)
    }
}

/// A run of the generator.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server.
    pub to: SocketAddr,
    /// What is sent; the first is what the summary is about.
    pub classes: Vec<Class>,
    /// Generator threads, a loop each.
    pub threads: u32,
    /// Arrivals due in this time after the start are sent and not counted.
    pub warmup: Duration,
    /// How long the schedule runs after the warm-up.
    pub duration: Duration,
    /// How long to wait for answers after the last arrival, at least; see [`Plan::drain`].
    pub drain: Duration,
    /// Seed of random arrivals: the same seed gives the same arrivals.
    pub seed: u64,
}

impl Plan {
    /// Warm-up and duration together: as long as each class's schedule.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.warmup.saturating_add(self.duration)
    }

    /// How long to wait for answers after the last arrival: at least the longest time-out, so that a request that gets no answer ends as a
    /// time-out and is not cut off before it.
    #[must_use]
    pub fn drain(&self) -> Duration {
        self.classes.iter().map(|class| class.timeout).fold(self.drain, Duration::max)
    }
}

/// The bytes of a request. `headers` replace the ones that would be sent by default.
#[must_use]
pub fn request(method: &str, authority: &str, path: &str, headers: &[(String, String)], body: &[u8]) -> Arc<[u8]> {
    let given = |name: &str| headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !given("host") {
        head += &format!("Host: {authority}\r\n");
    }
    if !given("user-agent") {
        head += concat!("User-Agent: loadtest/", env!("CARGO_PKG_VERSION"), "\r\n");
    }
    // A server may wait for a body, or answer 411, where the method has one and no length is given (RFC 9110 section 8.6).
    let has_body = !body.is_empty() || ["POST", "PUT", "PATCH"].contains(&method);
    if has_body && !given("content-length") && !given("transfer-encoding") {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    [head.as_bytes(), body].concat().into()
}

/// The one class of `loadtest run`.
#[must_use]
pub fn class_for(target: &Target, method: &str, headers: &[(String, String)], body: &[u8], schedule: Schedule) -> Class {
    let mut class = Class::get("normal", &target.authority, &target.path, schedule, 64);
    class.request = request(method, &target.authority, &target.path, headers, body);
    class.expect.head_only = method == "HEAD";
    class
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_one_host_and_a_content_length_where_its_method_has_a_body() {
        let text = |bytes: Arc<[u8]>| String::from_utf8(bytes.to_vec()).unwrap();
        let plain = text(request("GET", "localhost:1", "/a?b", &[], b""));
        assert!(plain.starts_with("GET /a?b HTTP/1.1\r\nHost: localhost:1\r\nUser-Agent: loadtest/"), "{plain}");
        assert!(plain.ends_with("\r\n\r\n") && !plain.contains("Content-Length"), "{plain}");
        for (method, has_length) in [("POST", true), ("PUT", true), ("PATCH", true), ("GET", false), ("DELETE", false), ("HEAD", false)] {
            let without_body = text(request(method, "localhost:1", "/", &[], b""));
            assert_eq!(without_body.contains("Content-Length: 0\r\n"), has_length, "{without_body}");
        }
        let headers = [("host".to_owned(), "other".to_owned()), ("X".to_owned(), "y".to_owned())];
        let given = text(request("POST", "localhost:1", "/", &headers, b"body"));
        assert!(given.contains("\r\nhost: other\r\nX: y\r\n") && !given.contains("localhost"), "{given}");
        assert!(given.contains("Content-Length: 4\r\n") && given.ends_with("\r\n\r\nbody"), "{given}");
    }
}
