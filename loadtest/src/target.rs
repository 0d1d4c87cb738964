//! Where the requests go: a URL taken apart, and an address that answers.
//!
//! Only plain HTTP: TLS would measure the TLS library as well. Read next: `client.rs`.

use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

/// An `http://` URL, checked and split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The `Host` header (RFC 9110 section 7.2): host and port, without the default port, a zone id and the dot of an absolute name.
    pub authority: String,
    /// The host for the resolver: without the brackets of an IPv6 address, with its zone id, and with the dot of an absolute name.
    host: String,
    /// The port; 80 if none was written.
    port: u16,
    /// Path and query; `/` if none was written.
    pub path: String,
    /// As it was written, without the fragment: for reports.
    text: String,
}

/// The only port that a URL and a `Host` header leave out.
const PORT_DEFAULT: u16 = 80;
const ALLOWED: &str = "allowed is http://HOST[:PORT][/PATH][?QUERY]";

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(match format!("http://{text}").parse::<Target>() {
                Ok(target) => format!("the scheme is missing: did you mean {target}? {ALLOWED}"),
                Err(_) => ALLOWED.to_owned(),
            });
        };
        if scheme.eq_ignore_ascii_case("https") {
            return Err(format!("TLS is not supported, https would measure the TLS library as well; {ALLOWED}"));
        }
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(format!("the scheme '{scheme}' is not http; {ALLOWED}"));
        }
        let rest = rest.split_once('#').map_or(rest, |(before, _fragment)| before);
        let authority_len = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(authority_len);
        if let Some((_, host)) = authority.rsplit_once('@') {
            return Err(format!(
                "user and password in a URL are not sent: write http://{host}{path} and -H 'Authorization: Basic …'; {ALLOWED}"
            ));
        }
        if authority.contains(|c: char| !c.is_ascii()) {
            return Err(format!(
                "a host name outside ASCII: write it as in DNS, xn--…, which `python3 -c \"print('{authority}'.encode('idna').decode())\"` \
                 prints; {ALLOWED}"
            ));
        }
        if path.contains(|c: char| !c.is_ascii_graphic()) {
            return Err(format!(
                "a URL has no spaces, control or non-ASCII characters: write http://{authority}{}; {ALLOWED}",
                escaped(path)
            ));
        }
        let path = match path {
            "" => "/".to_owned(),
            query if query.starts_with('?') => format!("/{query}"),
            path => path.to_owned(),
        };
        let Authority { host, port, header } =
            split_authority(authority).ok_or_else(|| format!("no host and port in '{authority}'; {ALLOWED}"))?;
        let text = format!("http://{authority}{path}");
        Ok(Target { authority: header, host, port, path, text })
    }
}

/// Percent-encodes what may not stand in a URL as it is (RFC 3986 section 2.1).
fn escaped(path: &str) -> String {
    let escape = |byte: u8| if byte.is_ascii_graphic() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    path.bytes().map(escape).collect()
}

/// An authority taken apart.
struct Authority {
    /// For the resolver.
    host: String,
    port: u16,
    /// For the `Host` header.
    header: String,
}

/// Splits `host`, `host:port`, `[v6]`, `[v6]:port`, `[v6%25zone]`.
fn split_authority(authority: &str) -> Option<Authority> {
    let (host, header_host, after) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            let (address, zone) = host.split_once('%').map_or((host, None), |(address, zone)| (address, Some(zone)));
            let address: Ipv6Addr = address.parse().ok()?;
            // In a URL the `%` is written `%25` (RFC 6874); curl takes a bare one too. The zone is the client's own affair.
            let zone = zone.map(|zone| zone.strip_prefix("25").filter(|zone| !zone.is_empty()).unwrap_or(zone));
            let host = zone.map_or_else(|| address.to_string(), |zone| format!("{address}%{zone}"));
            (host, format!("[{address}]"), after)
        }
        None => {
            let host_len = authority.find(':').unwrap_or(authority.len());
            let (host, after) = authority.split_at(host_len);
            let is_name = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
            if host.trim_matches('.').is_empty() || !host.chars().all(is_name) {
                return None;
            }
            // The dot keeps the resolver from trying its search list. Virtual hosts are configured without it.
            (host.to_owned(), host.strip_suffix('.').unwrap_or(host).to_owned(), after)
        }
    };
    let port = match after {
        "" | ":" => PORT_DEFAULT, // RFC 3986 section 3.2.3: an empty port is the default one.
        after => {
            let port = after.strip_prefix(':').filter(|port| port.bytes().all(|b| b.is_ascii_digit()))?;
            port.parse().ok().filter(|port| *port != 0)?
        }
    };
    let header = if port == PORT_DEFAULT { header_host } else { format!("{header_host}:{port}") };
    Some(Authority { host, port, header })
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
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
    }

    #[test]
    fn the_host_header_and_the_resolver_get_what_belongs_to_each() {
        for (text, header, host, port) in [
            ("http://h:80/", "h", "h", 80),
            ("http://h:/", "h", "h", 80),
            ("http://h:8080/", "h:8080", "h", 8080),
            ("http://[::1]/", "[::1]", "::1", 80),
            ("http://[::1]:80/", "[::1]", "::1", 80),
            ("http://[0:0::1]:81/", "[::1]:81", "::1", 81),
            ("http://[fe80::1%25eth0]:81/", "[fe80::1]:81", "fe80::1%eth0", 81),
            ("http://[fe80::1%eth0]/", "[fe80::1]", "fe80::1%eth0", 80),
            ("http://example.test./", "example.test", "example.test.", 80),
            ("http://example.test.:81/", "example.test:81", "example.test.", 81),
            ("http://xn--bcher-kva.example/", "xn--bcher-kva.example", "xn--bcher-kva.example", 80),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.authority.as_str(), target.host.as_str(), target.port), (header, host, port), "{text}");
            assert_eq!(target.to_string(), text, "reports have the URL as it was written");
        }
    }

    #[test]
    fn a_refused_url_comes_with_the_one_to_write_instead() {
        for (text, suggestion) in [
            ("localhost:8080", "did you mean http://localhost:8080/?"),
            ("127.0.0.1/a?b", "did you mean http://127.0.0.1/a?b?"),
            ("http://me:secret@h/x", "write http://h/x and -H 'Authorization: Basic"),
            ("http://bücher.example/", "'bücher.example'.encode('idna')"),
            ("http://h/a b/ä", "write http://h/a%20b/%C3%A4;"),
        ] {
            let refusal = text.parse::<Target>().unwrap_err();
            assert!(refusal.contains(suggestion), "{text}: {refusal}");
            assert!(!refusal.contains("secret"), "a password is not repeated: {refusal}");
        }
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
            "http://user@h/",
            "http://[::1/",
            "http://[::1]8080/",
            "http://[h]/",
            "http://[::1%25]x/",
            "http://./",
            "http://a%20b/",
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
