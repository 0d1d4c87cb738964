//! The four forms of a request target, and what a host may look like.
//!
//! RFC 9112 section 3.2, RFC 3986 section 3.2. Read next: `head.rs`.

use super::{Method, Refusal, byte_search};
use std::net::Ipv6Addr;

/// A target taken apart.
pub(super) struct Target<'a> {
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    /// Of an absolute target only.
    pub(super) authority: Option<&'a str>,
}

/// Takes a target apart, whose bytes need not have been checked.
///
/// `line` begins with the target too, and extends beyond it, so that eight bytes can be read at once up to the target's end.
#[inline(always)]
pub(super) fn parse_target<'a>(method: Method, target: &'a str, line: &[u8]) -> Result<Target<'a>, Refusal> {
    let (mut end, mut question) = (0, None);
    loop {
        end = find_delimiter(line, end);
        if line.get(end) != Some(&b'?') {
            break;
        }
        question.get_or_insert(end);
        end += 1;
    }
    if end != target.len() {
        return Err(Refusal::Target);
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
    let Target { path, query, authority } = absolute_form(method, target)?; // apart, so that the common case above stays in registers
    Ok(Target { path, query, authority })
}

/// The place of the first byte that a path cannot have: `?`, the end of the target, or one that no target has.
///
/// httparse takes `#` and UTF-8. A cache in front may cut at `#`.
#[inline]
fn find_delimiter(line: &[u8], from: usize) -> usize {
    byte_search::find(line, from, |word| {
        byte_search::below(word, b'!') | byte_search::from_del(word) | byte_search::equal(word, b'?') | byte_search::equal(word, b'#')
    })
}

/// `http://host:port/path?query`, which every server must accept: RFC 9112 section 3.2.2.
fn absolute_form(method: Method, target: &str) -> Result<Target<'_>, Refusal> {
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
    let path = match path {
        // RFC 9112 section 3.2.4: what a client sends through a proxy when it means `OPTIONS *`.
        "" if method == Method::Options && query.is_none() => "*",
        // RFC 9110 section 4.2.3: for all others an empty path is the same as "/".
        "" => "/",
        path => path,
    };
    Ok(Target { path, query, authority: Some(authority) })
}

/// One host with an optional port, not empty: RFC 9110 section 7.2.
///
/// Stricter than the grammar in one point: no comma, because a proxy may have joined two Host lines with it.
pub(super) fn is_host(text: &[u8]) -> bool {
    let name = without_port(text);
    // No branch for any byte, since this runs over each request's Host: the kinds are collected.
    let (eights, rest) = name.as_chunks::<8>();
    let kinds = eights.iter().fold(0, |kinds, eight| kinds | kinds_of(eight)) | kinds_of(rest);
    match kinds {
        0 => !name.is_empty(),
        _ if kinds & NEVER != 0 => is_ipv6(name),
        _ => name.iter().enumerate().all(|(at, &byte)| byte != b'%' || is_escape(&name[at..])),
    }
}

/// Cuts a colon and the port behind it off the end, if there is one: digits, possibly none (RFC 3986 section
/// 3.2.3), at most 65535. What is left of anything else has a colon, which no name has.
#[inline(always)]
fn without_port(text: &[u8]) -> &[u8] {
    const LARGEST: &[u8; 5] = b"65535";
    let (before, port) = text.split_at(text.len() - last_digits(text));
    match before {
        // Of equally many digits the larger number comes later in the alphabet, too.
        [name @ .., b':'] if port.len() < LARGEST.len() || port.len() == LARGEST.len() && port <= LARGEST => name,
        _ => text,
    }
}

/// The number of digits at the end, or any number above 5 if there are more than a port has.
#[inline(always)]
fn last_digits(text: &[u8]) -> usize {
    let Some(last) = text.last_chunk::<8>() else {
        return text.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    };
    // All eight bytes at once: a loop over the digits cost 8 instructions for each. A digit becomes 0 to 9 and then stays below 0x80, every other
    // byte gets its highest bit, and no byte carries into the next: 0x7f + 0x76 is 0xf5.
    let numbers = u64::from_le_bytes(*last) ^ 0x3030_3030_3030_3030;
    let others = (((numbers & 0x7f7f_7f7f_7f7f_7f7f) + 0x7676_7676_7676_7676) | numbers) & 0x8080_8080_8080_8080;
    others.leading_zeros() as usize / 8
}

/// A byte of `%20`, which is seen only when its neighbours are looked at.
const ESCAPE: u8 = 1;
/// A byte that no name has. An IPv6 address has it.
const NEVER: u8 = 2;

#[inline(always)]
fn kinds_of(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |kinds, &byte| kinds | HOST_BYTE_KINDS[usize::from(byte)])
}

/// 0 for the bytes of a registered name or an IPv4 address that need no second look: RFC 3986 section 3.2.2.
const HOST_BYTE_KINDS: [u8; 256] = {
    let mut table = [NEVER; 256];
    let allowed = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+;=";
    let mut at = 0;
    while at < allowed.len() {
        table[allowed[at] as usize] = 0;
        at += 1;
    }
    table[b'%' as usize] = ESCAPE;
    table
};

fn is_escape(text: &[u8]) -> bool {
    matches!(text, [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
}

/// An IPv6 address in brackets.
#[cold]
fn is_ipv6(name: &[u8]) -> bool {
    let address = name.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
    let address = address.and_then(|address| std::str::from_utf8(address).ok());
    address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it stands in a request line.
    fn parse(method: Method, target: &str) -> Result<Target<'_>, Refusal> {
        parse_target(method, target, format!("{target} HTTP/1.1\r\n").as_bytes())
    }

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

    /// RFC 3986 section 3.2.2 said byte by byte: a name and a port.
    fn is_host_by_the_book(text: &[u8]) -> bool {
        let colon = text.iter().position(|&byte| byte == b':');
        let (mut name, port) = colon.map_or((text, &b""[..]), |at| (&text[..at], &text[at + 1..]));
        let is_port = port.len() <= 5
            && port.iter().all(u8::is_ascii_digit)
            && port.iter().fold(0, |number, byte| number * 10 + u32::from(byte - b'0')) <= 65535;
        let not_empty = !name.is_empty();
        while let [first, rest @ ..] = name {
            name = match (first, rest) {
                (b'%', [high, low, rest @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest,
                (byte, rest) if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(byte) => rest,
                _ => return false,
            };
        }
        not_empty && is_port
    }

    #[test]
    fn a_host_is_what_the_grammar_says() {
        let alphabet = b"a6%:-,@";
        for length in 0..=6_u32 {
            for number in 0..(alphabet.len() as u32).pow(length) {
                let text: Vec<u8> = (0..length).map(|place| alphabet[(number / 7_u32.pow(place) % 7) as usize]).collect();
                // Behind a name that fills a word, and alone.
                for text in [text.clone(), [b"name-of-8", &text[..]].concat()] {
                    assert_eq!(is_host(&text), is_host_by_the_book(&text), "{}", text.escape_ascii());
                }
            }
        }
        for byte in 0..=255_u8 {
            for place in 0..20 {
                let mut text = *b"abcdefghijklmnopqrst";
                text[place] = byte;
                assert_eq!(is_host(&text), is_host_by_the_book(&text), "{byte} at {place}");
            }
        }
        for port in 0..=99_999_u32 {
            assert_eq!(is_host(format!("a:{port}").as_bytes()), port <= 65535, "{port}");
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
            let found = parse(Method::Get, target).expect(target);
            assert_eq!((found.path, found.query, found.authority), (path, query, authority));
        }
        for target in ["", "a", "*", "/#", "/ä", "http://", "http:///x", "ftp://h/", "http:/h", "://h", "h:80"] {
            assert!(parse(Method::Get, target).is_err(), "{target}");
        }
        assert!(parse(Method::Options, "*").is_ok());
        for (target, path) in [("http://h", "*"), ("http://h/", "/"), ("http://h?", "/")] {
            assert_eq!(parse(Method::Options, target).map(|found| found.path), Ok(path), "{target}");
        }
        assert!(parse(Method::Options, "*?a").is_err());
        assert!(parse(Method::Connect, "h:80").is_err());
    }
}
