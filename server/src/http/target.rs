//! The four forms of a request target, and what a host may look like.
//!
//! RFC 9112 section 3.2, RFC 3986 section 3.2. Read next: `head.rs`.

use super::{Method, Refusal};
use std::net::Ipv6Addr;

/// A target taken apart.
pub(super) struct Target<'a> {
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    /// Of an absolute target only.
    pub(super) authority: Option<&'a str>,
}

/// Takes a target apart, whose bytes need not have been checked.
#[inline]
pub(super) fn parse_target(method: Method, target: &str) -> Result<Target<'_>, Refusal> {
    let mut question = None;
    for (at, &byte) in target.as_bytes().iter().enumerate() {
        // httparse takes `#` and UTF-8 (RELIABILITY section 3). A cache in front may cut at `#`.
        match byte {
            b'?' => {
                question.get_or_insert(at);
            }
            b'!'..=b'~' if byte != b'#' => {}
            _ => return Err(Refusal::Target),
        }
    }
    if method == Method::Connect {
        return Err(Refusal::Connect);
    }
    if target.starts_with('/') {
        let (path, query) = match question {
            Some(at) => (&target[..at], Some(&target[at + 1..])),
            None => (target, None),
        };
        return Ok(Target { path, query, authority: None });
    }
    if target == "*" && method == Method::Options {
        return Ok(Target { path: "*", query: None, authority: None });
    }
    absolute_form(target)
}

/// `http://host:port/path?query`, which every server must accept: RFC 9112 section 3.2.2.
fn absolute_form(target: &str) -> Result<Target<'_>, Refusal> {
    let (scheme, rest) = target.split_once("://").ok_or(Refusal::Target)?;
    // `https` comes from a proxy that ends TLS in front of us.
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Refusal::Target);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if !is_host(authority.as_bytes()) {
        return Err(Refusal::Target); // user@host among them: RFC 9110 section 4.2.4
    }
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    // RFC 9110 section 4.2.3: an empty path is the same as "/".
    let path = if path.is_empty() { "/" } else { path };
    Ok(Target { path, query, authority: Some(authority) })
}

/// One host with an optional port, not empty: RFC 9110 section 7.2.
///
/// Stricter than the grammar in one thing: no comma, which may be two Host lines that somebody joined.
#[inline]
pub(super) fn is_host(text: &[u8]) -> bool {
    if text.first() == Some(&b'[') {
        return is_ipv6_host(text);
    }
    let mut at = 0;
    loop {
        // A table, since this runs over each request's Host: one load for each byte.
        let rest = &text[at..];
        let name = rest.iter().position(|&byte| !HOST_NAME[usize::from(byte)]);
        at += name.unwrap_or(rest.len());
        match text.get(at) {
            Some(b'%') if is_escape(&text[at..]) => at += 1,
            Some(b':') => return at > 0 && is_port(&text[at + 1..]),
            Some(_) => return false,
            None => return at > 0,
        }
    }
}

/// Bytes of a registered name or an IPv4 address that need no second look: RFC 3986 section 3.2.2.
const HOST_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let allowed = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+;=";
    let mut at = 0;
    while at < allowed.len() {
        table[allowed[at] as usize] = true;
        at += 1;
    }
    table
};

fn is_escape(text: &[u8]) -> bool {
    matches!(text, [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
}

fn is_ipv6_host(text: &[u8]) -> bool {
    let Some(end) = text.iter().position(|&byte| byte == b']') else {
        return false;
    };
    let address = std::str::from_utf8(&text[1..end]).ok();
    let valid = address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    valid && (end + 1 == text.len() || text[end + 1] == b':' && is_port(&text[end + 2..]))
}

/// Digits, possibly none (RFC 3986 section 3.2.3), at most 65535.
#[inline]
fn is_port(text: &[u8]) -> bool {
    let mut port: u32 = 0;
    text.len() <= 5
        && text.iter().all(|&byte| {
            port = port * 10 + u32::from(byte.wrapping_sub(b'0'));
            byte.is_ascii_digit()
        })
        && port <= u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_host() {
        for host in ["a", "a.b:80", "127.0.0.1:21001", "[::1]", "[::1]:8080", "a:", "a%20b", "x_y"] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            ":80",
            "a b",
            "a,b",
            "a/b",
            "u@a",
            "a?b",
            "a#b",
            "a:b",
            "a:65536",
            "a:+8",
            "a:80:80",
            "[::1",
            "[::1]x",
            "[]",
            "[g::]",
            "[v1.a]",
            "a%2",
            "a%zz",
            "a\\b",
            "a\0",
            "ä",
            "a:000080",
            "[::1%25eth0]",
            "\"a\"",
            "<a>",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn targets_come_apart() {
        for (target, path, query, authority) in [
            ("/", "/", None, None),
            ("/a?b?c", "/a", Some("b?c"), None),
            ("/?", "/", Some(""), None),
            ("//x/y", "//x/y", None, None),
            ("http://h", "/", None, Some("h")),
            ("HTTP://h:1/p?q", "/p", Some("q"), Some("h:1")),
            ("https://h?q", "/", Some("q"), Some("h")),
            ("http://[::1]/x", "/x", None, Some("[::1]")),
        ] {
            let found = parse_target(Method::Get, target).expect(target);
            assert_eq!((found.path, found.query, found.authority), (path, query, authority));
        }
        for target in ["", "a", "*", "/#", "/ä", "http://", "http:///x", "ftp://h/", "http:/h", "://h", "h:80"] {
            assert!(parse_target(Method::Get, target).is_err(), "{target}");
        }
        assert!(parse_target(Method::Options, "*").is_ok());
        assert!(parse_target(Method::Options, "*?a").is_err());
        assert!(parse_target(Method::Connect, "h:80").is_err());
    }
}
