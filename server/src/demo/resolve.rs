//! `GET /resolve?host=H`: getaddrinfo(3), which may block for many seconds, on the pool, as slow work: it can take a part of the threads only.
//!
//! It answers with what this machine's resolver says. So it reveals internal names: hosts of a private DNS zone, of `/etc/hosts`, and which of them
//! exist. It also lets a client send queries to the name server. Never offer it to clients that must not know the network behind the server.

use std::fmt::Write;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::time::Instant;

use crate::answer::{Answer, Work};
use crate::http::{Request, Response, percent_decode};

/// The longest name in text form: 255 octets on the wire, less the length octets at both ends (RFC 1035 section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

pub(super) fn call(request: &Request<'_>, _now: Instant) -> Answer {
    let host = request.query_value("host").and_then(|host| percent_decode(host).ok()).filter(|host| is_host(host));
    let Some(host) = host.map(|host| host.into_owned()) else {
        return Answer::Now(Response::text("?host=H with a host name or an address is needed\n").status(400));
    };
    // getaddrinfo cannot be interrupted. At the job's deadline the loop answers 504, and the thread is free when the resolver gives up
    // (resolv.conf(5): timeout 5 s, 2 attempts, for each name server).
    Answer::Job(Work::slow(move |_| match (host.as_str(), 0).to_socket_addrs() {
        Ok(addresses) => Answer::Now(Response::text(list(addresses.map(|address| address.ip())))),
        Err(e) => failed(&host, &e),
    }))
}

/// Letters, digits, and what stands between the parts of a name or of an address.
fn is_host(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
    (1..=HOST_BYTES_MAX).contains(&host.len()) && host.bytes().all(allowed)
}

/// One a line, without those that were given once for each kind of socket.
fn list(addresses: impl Iterator<Item = IpAddr>) -> String {
    let mut seen = Vec::new();
    let mut text = String::new();
    for address in addresses {
        if !seen.contains(&address) {
            seen.push(address);
            let _ = writeln!(text, "{address}");
        }
    }
    text
}

fn failed(host: &str, error: &io::Error) -> Answer {
    log::debug!("resolve host={host:?} error={error:?}");
    // 502 for a name that does not exist and for a resolver that does not respond: std does not distinguish them.
    Answer::Now(Response::text(format!("{host}: {error}\n")).status(502))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_listed_once_each() {
        let addresses = ["127.0.0.1", "::1", "127.0.0.1"].map(|text| text.parse().expect(text));
        assert_eq!(list(addresses.into_iter()), "127.0.0.1\n::1\n");
    }

    #[test]
    fn only_what_can_be_a_host_reaches_the_resolver() {
        for host in ["a", "a.example", "127.0.0.1", "::1", "_srv.a-b.example"] {
            assert!(is_host(host), "{host}");
        }
        for host in ["", "a b", "a/b", "a\n", "ä", &"a".repeat(254)] {
            assert!(!is_host(host), "{host:?}");
        }
    }
}
