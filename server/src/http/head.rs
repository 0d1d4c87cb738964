//! What a head means: httparse for the grammar, ours for all that it lets pass and for the meaning.
//!
//! What httparse 1.10.1 lets pass, and is refused here: a bare LF as line end, UTF-8 and `#` in targets,
//! leading newlines (RELIABILITY section 3). It interprets no header; Host, Content-Length,
//! Transfer-Encoding, Connection and Expect are read here. Read next: `scan.rs` (heads that come in
//! pieces), `framing.rs`, `target.rs`.

use super::framing::FramingHeaders;
use super::target::{is_host, parse_target};
use super::{BodyKind, HEADERS_CAPACITY, HttpLimits, Method, Refusal, Request, Version};
use std::mem::MaybeUninit;

/// Parses the head at the beginning of `input`: the request and the head's length, or `None` when its
/// blank line is not there yet.
///
/// One pass, in one go. Whether a broken head gives an error or `None` depends on how much of it is
/// there, so the caller lets [`super::scan::HeadScan`] have the word on everything that is not a request.
#[inline]
pub(super) fn parse<'a>(limits: &HttpLimits, input: &'a [u8]) -> Result<Option<(usize, Request<'a>)>, Refusal> {
    if let Some(b'\r' | b'\n') = input.first() {
        return Err(Refusal::BareLf); // httparse would skip any number of them
    }
    // Not initialised, and not moved: 2 KiB would cost more than the parsing.
    let mut lines = [const { MaybeUninit::uninit() }; HEADERS_CAPACITY];
    let lines = &mut lines[..limits.headers_max.min(HEADERS_CAPACITY)];
    let mut parsed = httparse::Request::new(&mut []);
    let head_bytes = match parsed.parse_with_uninit_headers(input, lines) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
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
    let request_line_bytes = method_text.len() + 1 + target.len() + b" HTTP/1.1".len();
    check_line_end(head, request_line_bytes)?;
    check_line_end(head, head_bytes - 2)?;
    let method = Method::from_token(method_text.as_bytes());
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let parts = parse_target(method, target)?;
    let meaning = Meaning::of(parsed.headers, head)?;
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
        head: &head[request_line_bytes + 2..],
    };
    Ok(Some((head_bytes, request)))
}

/// Refuses a line that ends at `end`, where httparse saw CRLF or a bare LF, in the second case.
#[inline]
fn check_line_end(head: &[u8], end: usize) -> Result<(), Refusal> {
    match head.get(end) {
        Some(b'\r') => Ok(()),
        _ => Err(Refusal::BareLf),
    }
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
    #[inline]
    fn of(lines: &[httparse::Header<'a>], head: &'a [u8]) -> Result<Self, Refusal> {
        let mut meaning = Self::default();
        for line in lines {
            check_line_end(head, value_line_end(head, line.value))?;
            let name = line.name.as_bytes();
            // The length first: most names are told apart by it alone.
            match name.len() {
                4 if is_name(name, b"host") => meaning.host(line.value)?,
                6 if is_name(name, b"expect") => {
                    if !line.value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(Refusal::Expectation);
                    }
                    meaning.expect = true;
                }
                10 if is_name(name, b"connection") => meaning.connection(line.value),
                14 if is_name(name, b"content-length") => {
                    meaning.framing.content_length(line.value)?;
                }
                17 if is_name(name, b"transfer-encoding") => {
                    meaning.framing.transfer_encoding(line.value)?;
                }
                _ => {}
            }
        }
        Ok(meaning)
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

    /// A list of tokens in any case, on any number of lines: RFC 9110 section 7.6.1.
    fn connection(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',') {
            let option = option.trim_ascii();
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }
}

/// Where the line ends that `value`, a part of `head`, lies on: behind the spaces that httparse cut off.
#[inline]
fn value_line_end(head: &[u8], value: &[u8]) -> usize {
    let mut end = value.as_ptr().addr() + value.len() - head.as_ptr().addr();
    while let Some(b' ' | b'\t') = head.get(end) {
        end += 1;
    }
    end
}

/// Compares a token with a lower-case name of letters and dashes.
#[inline]
fn is_name<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    // Setting bit 5 makes letters lower and leaves `-`; of token bytes nothing else becomes one of them.
    name.first_chunk::<N>().is_some_and(|name| (0..N).fold(0, |difference, i| difference | ((name[i] | 0x20) ^ lower[i])) == 0)
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

    #[test]
    fn names_are_compared_without_case() {
        assert!(is_name(b"HoSt", b"host"));
        assert!(is_name(b"Content-LENGTH", b"content-length"));
        assert!(!is_name(b"hosT", b"hose"));
        assert!(!is_name(b"Content_Length", b"content-length"));
    }
}
