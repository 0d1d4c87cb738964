//! Parses a request head: httparse checks the grammar, and this file checks what httparse accepts and should not, and reads the fields.
//!
//! Accepted by httparse 1.10.1 and refused here: a bare LF as line end, UTF-8 and `#` in targets,
//! leading newlines. It interprets no header; Host, Content-Length,
//! Transfer-Encoding, Connection and Expect are read here. Read next: `scan.rs` (heads that come in
//! pieces), `framing.rs`, `target.rs`.

use super::framing::FramingHeaders;
use super::target::{is_host, parse_target};
use super::{BodyKind, HEADERS_CAPACITY, HttpLimits, Method, Refusal, Request, Version, byte_search};
use std::mem::MaybeUninit;

/// Parses the head at the beginning of `input`: the request and the head's length, or `None` when its
/// blank line is not there yet.
///
/// `LATER_MINOR`: a request of HTTP/1.2 to 1.9 is parsed as well. Otherwise it is an error, and the array that it needs is not on the stack.
///
/// It makes one pass. Whether a broken head gives an error or `None` depends on how much of it is
/// there, so the caller decides by [`super::scan::HeadScan`] about everything that is not a request.
#[inline(always)] // Copying the result through memory twice costs a tenth of a small request.
pub(super) fn parse<'a, const LATER_MINOR: bool>(limits: &HttpLimits, input: &'a [u8]) -> Result<Option<(usize, Request<'a>)>, Refusal> {
    if let Some(b'\r' | b'\n') = input.first() {
        return Err(Refusal::BareLf); // httparse would skip any number of newlines.
    }
    // Not initialised, and not moved: 3.5 KiB would cost more than the parsing.
    let mut lines = [const { MaybeUninit::uninit() }; HEADERS_CAPACITY];
    let lines = &mut lines[..limits.headers_max.min(HEADERS_CAPACITY)];
    let mut later_lines = None;
    let mut parsed = httparse::Request::new(&mut []);
    let head_bytes = match parsed.parse_with_uninit_headers(input, lines) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::Version) if LATER_MINOR => match later_minor(limits, input, &mut parsed, &mut later_lines)? {
            Some(head_bytes) => head_bytes,
            None => return Ok(None),
        },
        Err(error) => return Err(refusal_of(error, &parsed, input)),
    };
    let head = &input[..head_bytes];
    let (Some(method_text), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Refusal::RequestLine); // not reached: the head is complete
    };
    if method_text.len() > limits.method_bytes_max as usize {
        return Err(Refusal::MethodTooLong);
    }
    if target.len() > limits.target_bytes_max as usize {
        return Err(Refusal::TargetTooLong);
    }
    let method = Method::from_token(method_text.as_bytes());
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let request_line_bytes = method_text.len() + 1 + target.len() + b" HTTP/1.1\r\n".len();
    let (Some(from_target), Some(header_section)) = (head.get(method_text.len() + 1..), head.get(request_line_bytes..)) else {
        return Err(Refusal::BareLf); // one byte short
    };
    let parts = parse_target(method, target, from_target)?;
    let mut meaning = Meaning::default();
    meaning.read(parsed.headers, head)?;
    let body = meaning.framing.body_kind(version, limits)?;
    let host = match (meaning.host, version) {
        (Some(host), _) => host,
        (None, Version::Http10) => b"",
        (None, Version::Http11) => return Err(Refusal::HostMissing),
    };
    let request = Request {
        method,
        version,
        body,
        keep_alive: !meaning.close && (version == Version::Http11 || meaning.keep_alive),
        // RFC 9110 section 10.1.1: ignored in 1.0, and without a body there is nothing to wait for.
        expect_continue: meaning.expect && version == Version::Http11 && body != BodyKind::None,
        target,
        path: parts.path,
        query: parts.query,
        host: parts.authority.map_or(host, str::as_bytes), // RFC 9112 section 3.2.2
        method_text,
        head: header_section,
    };
    Ok(Some((head_bytes, request)))
}

/// HTTP/1.2 to 1.9: read as 1.1, which is the highest that we know (RFC 9110 section 2.5). httparse stops at the version, so the
/// header lines are still to be parsed.
#[cold]
fn later_minor<'h, 'a>(
    limits: &HttpLimits,
    input: &'a [u8],
    parsed: &mut httparse::Request<'h, 'a>,
    lines: &'h mut Option<[httparse::Header<'a>; HEADERS_CAPACITY]>,
) -> Result<Option<usize>, Refusal> {
    let line_bytes = match (parsed.method, parsed.path) {
        (Some(method), Some(path)) => method.len() + 1 + path.len() + b" HTTP/1.1\r\n".len(),
        _ => return Err(Refusal::RequestLine), // not reached: both come before the version
    };
    match input.get(..line_bytes) {
        Some([.., b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9', b'\r', b'\n']) => {}
        _ => return Err(refusal_of(httparse::Error::Version, parsed, input)),
    }
    let lines = lines.insert([httparse::EMPTY_HEADER; HEADERS_CAPACITY]);
    let (header_bytes, found) = match httparse::parse_headers(&input[line_bytes..], &mut lines[..limits.headers_max.min(HEADERS_CAPACITY)])
    {
        Ok(httparse::Status::Complete((header_bytes, found))) => (header_bytes, found.len()),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(refusal_of(error, parsed, input)),
    };
    parsed.version = Some(1);
    parsed.headers = &mut lines[..found];
    Ok(Some(line_bytes + header_bytes))
}

/// What the few header lines say that the protocol itself needs.
#[derive(Default)]
struct Meaning<'a> {
    host: Option<&'a [u8]>,
    framing: FramingHeaders,
    close: bool,
    keep_alive: bool,
    expect: bool,
}

impl<'a> Meaning<'a> {
    /// In place: returned in a `Result`, it would be copied through memory.
    #[inline(always)]
    fn read(&mut self, lines: &[httparse::Header<'a>], head: &'a [u8]) -> Result<(), Refusal> {
        // Every line end is before a name, or one of the last two. httparse has seen CRLF or a bare LF there.
        if !head.ends_with(b"\r\n\r\n") {
            return Err(Refusal::BareLf);
        }
        for line in lines {
            let name = line.name.as_bytes();
            if !follows_crlf(head, name) {
                return Err(Refusal::BareLf);
            }
            // The length is compared first: it alone distinguishes most names.
            match name.len() {
                4 if is_name(name, b"host") => self.host(line.value)?,
                6 if is_name(name, b"expect") => self.expect(line.value)?,
                10 if is_name(name, b"connection") => self.connection(line.value),
                14 if is_name(name, b"content-length") => {
                    self.framing.content_length(line.value)?;
                }
                17 if is_name(name, b"transfer-encoding") => {
                    self.framing.transfer_encoding(line.value)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    #[inline]
    fn host(&mut self, value: &'a [u8]) -> Result<(), Refusal> {
        if self.host.is_some() {
            return Err(Refusal::HostRepeated);
        }
        if !is_host(value) {
            return Err(Refusal::HostInvalid);
        }
        self.host = Some(value);
        Ok(())
    }

    /// A list, in any case: RFC 9110 section 10.1.1. Empty elements count for nothing (section 5.6.1.2).
    #[cold]
    fn expect(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for element in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty()) {
            if !element.eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal::Expectation);
            }
            self.expect = true;
        }
        Ok(())
    }

    /// A list of tokens in any case, on any number of lines: RFC 9110 section 7.6.1.
    #[inline]
    fn connection(&mut self, value: &[u8]) {
        let mut rest = value;
        loop {
            let comma = byte_search::find(rest, 0, |word| byte_search::equal(word, b','));
            let option = rest[..comma].trim_ascii();
            self.close |= is_name(option, b"close");
            self.keep_alive |= is_name(option, b"keep-alive");
            match rest.get(comma + 1..) {
                Some(after) => rest = after,
                None => return,
            }
        }
    }
}

/// Whether CRLF is before `name`, a part of `head`.
#[inline]
fn follows_crlf(head: &[u8], name: &[u8]) -> bool {
    let at = name.as_ptr().addr() - head.as_ptr().addr();
    head.get(..at).is_some_and(|before| before.ends_with(b"\r\n"))
}

/// Compares a token with a lower-case name of letters and dashes.
#[inline(always)]
fn is_name<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    // Setting bit 5 makes letters lower and leaves `-`; but for CR nothing else becomes one of them.
    let Ok(name) = <&[u8; N]>::try_from(name) else { return false };
    let mut difference = 0;
    for at in 0..N {
        difference |= (name[at] | 0x20) ^ lower[at];
    }
    difference == 0
}

/// Finds the status for what httparse refused.
#[cold]
fn refusal_of(error: httparse::Error, parsed: &httparse::Request<'_, '_>, head: &[u8]) -> Refusal {
    match (error, parsed.method, parsed.path) {
        (httparse::Error::HeaderName, ..) => Refusal::HeaderName,
        (httparse::Error::HeaderValue, ..) => Refusal::HeaderValue,
        (httparse::Error::TooManyHeaders, ..) => Refusal::TooManyHeaders,
        (httparse::Error::Token, Some(_), None) => Refusal::Target,
        (httparse::Error::Version, Some(method), Some(path)) => {
            let version = &head[method.len() + path.len() + 2..];
            match version {
                [b'H', b'T', b'T', b'P', b'/', major, b'.', minor, b'\r', ..] if major.is_ascii_digit() && minor.is_ascii_digit() => {
                    Refusal::Version
                }
                _ => Refusal::VersionSyntax,
            }
        }
        _ => Refusal::RequestLine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without the scan, which would see it first in a head that came in pieces.
    #[test]
    fn a_head_without_one_of_its_carriage_returns_is_no_request() {
        let limits = HttpLimits::default();
        for head in [
            &b"GET / HTTP/1.0\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a \t\r\nA:\r\nB: \r\nConnection: close\r\n\r\n",
        ] {
            assert!(matches!(parse::<false>(&limits, head), Ok(Some((bytes, _))) if bytes == head.len()));
            for (place, _) in head.iter().enumerate().filter(|(_, byte)| **byte == b'\r') {
                let broken = [&head[..place], &head[place + 1..]].concat();
                assert!(matches!(parse::<false>(&limits, &broken), Err(Refusal::BareLf)), "{}", broken.escape_ascii());
            }
        }
    }

    #[test]
    fn names_are_compared_without_case() {
        assert!(is_name(b"HoSt", b"host"));
        assert!(is_name(b"Content-LENGTH", b"content-length"));
        assert!(!is_name(b"hosT", b"hose"));
        assert!(!is_name(b"Content_Length", b"content-length"));
    }
}
