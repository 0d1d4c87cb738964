//! Where the requests go: a URL taken apart, and an address that answers.
//!
//! Only plain HTTP: TLS would measure the TLS library as well. Read next: `client.rs`.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

/// An `http://` URL, checked and split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Host and port as the `Host` header has them: as written, so that a virtual host finds itself.
    pub authority: String,
    /// The host alone, without the brackets of an IPv6 address.
    host: String,
    /// The port; 80 if none was written.
    port: u16,
    /// Path and query; `/` if none was written.
    pub path: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        const ALLOWED: &str = "allowed is http://HOST[:PORT][/PATH][?QUERY]";
        let (scheme, rest) = text.split_once("://").ok_or_else(|| ALLOWED.to_owned())?;
        if scheme.eq_ignore_ascii_case("https") {
            return Err(format!("https is not spoken here; {ALLOWED}"));
        }
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(format!("the scheme '{scheme}' is not http; {ALLOWED}"));
        }
        if !rest.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(format!("a URL has no spaces, control or non-ASCII characters (write them as %XX); {ALLOWED}"));
        }
        let rest = rest.split_once('#').map_or(rest, |(before, _fragment)| before);
        let authority_len = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(authority_len);
        if authority.contains('@') {
            return Err(format!("user and password in a URL are not sent; {ALLOWED}"));
        }
        let path = match path {
            "" => "/".to_owned(),
            query if query.starts_with('?') => format!("/{query}"),
            path => path.to_owned(),
        };
        let (host, port) = split_authority(authority).ok_or_else(|| format!("no host and port in '{authority}'; {ALLOWED}"))?;
        Ok(Target { authority: authority.to_owned(), host: host.to_owned(), port, path })
    }
}

/// Splits `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_authority(authority: &str) -> Option<(&str, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            if after.is_empty() { (host, None) } else { (host, Some(after.strip_prefix(':')?)) }
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        None => 80,
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => port.parse().ok().filter(|port| *port != 0)?,
        Some(_) => return None,
    };
    (!host.is_empty()).then_some((host, port))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

impl Target {
    /// Resolves the host and makes one connection, so that a wrong target fails in one line before anything is measured.
    ///
    /// # Errors
    /// One sentence: what was tried and what the system said to the last address.
    pub fn reach(&self, timeout: Duration) -> Result<SocketAddr, String> {
        let addresses =
            (self.host.as_str(), self.port).to_socket_addrs().map_err(|error| format!("cannot resolve '{}': {error}", self.host))?;
        let mut last: Option<(SocketAddr, io::Error)> = None;
        for address in addresses {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(_stream) => return Ok(address),
                Err(error) => last = Some((address, error)),
            }
        }
        Err(match last {
            Some((address, error)) => format!("cannot reach {self}: connect to {address}: {error}"),
            None => format!("'{}' has no address", self.host),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_url_is_split_into_authority_and_path() {
        for (text, authority, path) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080", "/"),
            ("http://localhost/a/b?c=d", "localhost", "/a/b?c=d"),
            ("HTTP://example.test:81?x=1", "example.test:81", "/?x=1"),
            ("http://[::1]:8080/x#fragment", "[::1]:8080", "/x"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.authority.as_str(), target.path.as_str()), (authority, path), "{text}");
        }
        let target: Target = "http://[::1]/".parse().unwrap();
        assert_eq!((target.host.as_str(), target.port), ("::1", 80));
    }

    #[test]
    fn what_is_not_http_is_refused_with_what_is_allowed() {
        for text in [
            "",
            "localhost:8080",
            "https://localhost/",
            "ftp://localhost/",
            "http://",
            "http:///x",
            "http://h:0/",
            "http://h:65536/",
            "http://h:8x/",
            "http://h:/",
            "http://user@h/",
            "http://[::1/",
            "http://[::1]8080/",
            "http://h/a b",
            "http://h/\r\nX: y",
            "http://hä/",
        ] {
            let refusal = text.parse::<Target>().unwrap_err();
            assert!(refusal.contains("http://HOST[:PORT]"), "{text}: {refusal}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "(http://)?\\PC{0,30}") {
            let _ = text.parse::<Target>();
        }
    }
}
