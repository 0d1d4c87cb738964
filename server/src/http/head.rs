//! Where a head ends, and what it means.
//!
//! Two stages. [`HeadScan`] looks at each byte once, however slowly the bytes come, and stops at the
//! first one that no head may contain: so a head that arrives byte by byte costs O(n) and not O(n²)
//! (FAILURE_MODES S8), and the answer does not depend on how the bytes were cut. [`parse`] then runs
//! once, over the whole head: httparse for the grammar, ours for all that it lets pass
//! (bare LF, UTF-8 and `#` in targets, leading newlines; RELIABILITY section 3) and for the meaning.
//! Read next: `framing.rs`, `target.rs`.

use super::framing::FramingHeaders;
use super::target::{is_host, parse_target};
use super::{BodyKind, HEADERS_CAPACITY, HttpLimits, Method, Refusal, Request, Version};
use std::mem::MaybeUninit;

/// How far a head has been looked through. All places are relative to the unconsumed input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeadScan {
    /// Everything before it is known: no need to look again.
    scanned_bytes: u32,
    /// Where the line begins that the scan is in.
    line_start: u32,
    /// Empty lines skipped before the request line.
    leading_newlines: u8,
}

impl HeadScan {
    pub(super) const fn new() -> Self {
        Self {
            scanned_bytes: 0,
            line_start: 0,
            leading_newlines: 0,
        }
    }

    /// Whether a head has begun: the request line's first byte was seen.
    pub(super) fn has_begun(&self) -> bool {
        self.scanned_bytes > 0
    }

    /// Consumes empty lines before the request line; returns their bytes.
    #[inline]
    pub(super) fn skip_newlines(
        &mut self,
        limits: &HttpLimits,
        input: &[u8],
    ) -> Result<usize, Refusal> {
        let mut used = 0;
        while self.scanned_bytes == 0 {
            match &input[used..] {
                [b'\r', b'\n', ..] if self.leading_newlines == limits.leading_newlines_max => {
                    return Err(Refusal::LeadingNewlines);
                }
                [b'\r', b'\n', ..] => {
                    self.leading_newlines += 1;
                    used += 2;
                }
                _ => break,
            }
        }
        Ok(used)
    }

    /// Looks at what is new in `head`; returns the length of the head once its blank line is there.
    #[inline]
    pub(super) fn scan(
        &mut self,
        limits: &HttpLimits,
        head: &[u8],
    ) -> Result<Option<usize>, Refusal> {
        let head_bytes_max = limits.head_bytes_max as usize;
        let window = &head[..head.len().min(head_bytes_max)];
        let request_line_bytes_max = limits.request_line_bytes_max();
        let (mut at, mut line_start) = (self.scanned_bytes as usize, self.line_start as usize);
        loop {
            at = find_control(window, at);
            if line_start == 0 && at > request_line_bytes_max {
                return Err(too_long_request_line(limits, window));
            }
            match (window.get(at), window.get(at + 1)) {
                (Some(b'\r'), Some(b'\n')) => {
                    let line_end = at + 2;
                    if at == line_start {
                        return if at == 0 {
                            Err(Refusal::RequestLine)
                        } else {
                            Ok(Some(line_end))
                        };
                    }
                    (at, line_start) = (line_end, line_end);
                }
                (Some(b'\t'), _) => at += 1,
                (Some(b'\r'), None) | (None, _) => break,
                (Some(b'\r'), Some(_)) => return Err(Refusal::BareCr),
                (Some(b'\n'), _) => return Err(Refusal::BareLf),
                (Some(_), _) => return Err(Refusal::ControlByte),
            }
        }
        if window.len() == head_bytes_max {
            return Err(Refusal::HeadTooLong);
        }
        self.scanned_bytes = at as u32;
        self.line_start = line_start as u32;
        Ok(None)
    }
}

/// The place of the first byte below 0x20 from `from` on, or the length of `bytes`.
#[inline]
fn find_control(bytes: &[u8], from: usize) -> usize {
    const LOW: u64 = u64::from_ne_bytes([0x20; 8]);
    const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; 8]);
    let mut at = from;
    // Eight bytes at once: subtracting 0x20 borrows into the high bit of exactly those below it, up to
    // the first one; bytes from 0x80 on are masked out. Only the first one is asked for.
    while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*eight);
        let below = word.wrapping_sub(LOW) & !word & HIGH_BITS;
        if below != 0 {
            return at + (below.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|&byte| byte >= 0x20) {
        at += 1;
    }
    at
}

/// Whose length it is: a method without end is 501, else the target is 414. RFC 9112 section 3.
#[cold]
fn too_long_request_line(limits: &HttpLimits, line: &[u8]) -> Refusal {
    let method_bytes_max = limits.method_bytes_max as usize;
    if line
        .iter()
        .take(method_bytes_max + 1)
        .any(|&byte| byte == b' ')
    {
        Refusal::TargetTooLong
    } else {
        Refusal::MethodTooLong
    }
}

/// Parses a whole head, whose blank line is its end.
#[inline]
pub(super) fn parse<'a>(limits: &HttpLimits, head: &'a [u8]) -> Result<Request<'a>, Refusal> {
    // Not initialised, and not moved: 2 KiB would cost more than the parsing.
    let mut lines = [const { MaybeUninit::uninit() }; HEADERS_CAPACITY];
    let lines = &mut lines[..limits.headers_max.min(HEADERS_CAPACITY)];
    let mut parsed = httparse::Request::new(&mut []);
    if let Err(error) = parsed.parse_with_uninit_headers(head, lines) {
        return Err(refusal_of(error, &parsed, head));
    }
    let (Some(method_text), Some(target), Some(minor)) =
        (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Refusal::RequestLine); // not reached: the blank line is there
    };
    if method_text.len() > limits.method_bytes_max as usize {
        return Err(Refusal::MethodTooLong);
    }
    if target.len() > limits.target_bytes_max as usize {
        return Err(Refusal::TargetTooLong);
    }
    let method = Method::from_token(method_text.as_bytes());
    let version = if minor == 0 {
        Version::Http10
    } else {
        Version::Http11
    };
    let parts = parse_target(method, target)?;
    let meaning = Meaning::of(parsed.headers)?;
    let body = meaning.framing.body_kind(version, limits)?;
    let host = match (meaning.host, version) {
        (Some(host), _) => host,
        (None, Version::Http10) => "",
        (None, Version::Http11) => return Err(Refusal::HostMissing),
    };
    let request_line_bytes = method_text.len() + 1 + target.len() + 11; // " HTTP/1.1\r\n" and a space
    Ok(Request {
        method,
        version,
        body,
        keep_alive: !meaning.close && (version == Version::Http11 || meaning.keep_alive),
        // RFC 9110 section 10.1.1: ignored in 1.0, and without a body there is nothing to wait for.
        expect_continue: meaning.expect && version == Version::Http11 && body != BodyKind::None,
        target,
        path: parts.path,
        query: parts.query,
        host: parts.authority.unwrap_or(host), // RFC 9112 section 3.2.2: Host is ignored then
        method_text,
        head: &head[request_line_bytes..],
    })
}

/// What the few header lines say that the protocol itself needs.
#[derive(Default)]
struct Meaning<'a> {
    host: Option<&'a str>,
    framing: FramingHeaders,
    close: bool,
    keep_alive: bool,
    expect: bool,
}

impl<'a> Meaning<'a> {
    #[inline]
    fn of(lines: &[httparse::Header<'a>]) -> Result<Self, Refusal> {
        let mut meaning = Self::default();
        for line in lines {
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
        let host = std::str::from_utf8(value).map_err(|_| Refusal::HostInvalid)?;
        self.host = Some(host);
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

/// Compares a token with a lower-case name of letters and dashes.
#[inline]
fn is_name<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    // Setting bit 5 makes letters lower and leaves `-`; of token bytes nothing else becomes one of them.
    name.first_chunk::<N>().is_some_and(|name| {
        (0..N).fold(0, |difference, i| {
            difference | ((name[i] | 0x20) ^ lower[i])
        }) == 0
    })
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
                [b'H', b'T', b'T', b'P', b'/', major, b'.', minor, b'\r', ..]
                    if major.is_ascii_digit() && minor.is_ascii_digit() =>
                {
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
    fn the_first_control_byte_is_found_wherever_it_is() {
        for length in 0..40 {
            for place in 0..=length {
                for control in [0, 9, 10, 13, 0x1f] {
                    for filler in [0x20, 0x21, 0x7f, 0x80, 0xa0, 0xff] {
                        let mut bytes = vec![filler; length];
                        bytes
                            .iter_mut()
                            .skip(place)
                            .for_each(|byte| *byte = control);
                        for from in 0..=place {
                            assert_eq!(find_control(&bytes, from), place);
                        }
                    }
                }
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
