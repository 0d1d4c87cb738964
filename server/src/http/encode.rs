//! Responses as bytes, written straight into the caller's output.
//!
//! Read next: `date.rs`. The body is not copied here: the caller writes `body_to_send` behind the head.

use reactor::Cursor;

use super::date::DateLine;
use super::{Response, StreamHead, Version};

/// The interim response that asks for the body. RFC 9110 section 15.2.1.
pub const CONTINUE: &[u8; 25] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Bytes of a chunk header: eight hex digits and CRLF.
pub const CHUNK_HEADER_BYTES: usize = 10;

/// What follows the data of each chunk.
pub const CHUNK_END: &[u8; 2] = b"\r\n";

/// The last chunk and an empty trailer section: without it a chunked body is incomplete.
pub const LAST_CHUNK: &[u8; 5] = b"0\r\n\r\n";

/// A chunk header of fixed width, so that space for it can be reserved before the size is known.
///
/// Leading zeros are in the grammar (RFC 9112 section 7.1: `1*HEXDIG`). A size of 0 would end the body:
///
/// # Panics
/// If `size_bytes` is 0.
#[must_use]
pub fn chunk_header(size_bytes: u32) -> [u8; CHUNK_HEADER_BYTES] {
    assert!(size_bytes > 0, "a chunk of no bytes ends the body");
    let mut header = *b"00000000\r\n";
    for (place, digit) in header[..8].iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(size_bytes >> (4 * place) & 0xf) as usize];
    }
    header
}

/// What the head of the response must say, given the request: from [`super::Machine::response_plan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponsePlan {
    /// The version of the request: no chunks for 1.0, and there `keep-alive` must be said.
    pub version: Version,
    /// The request was HEAD: no body, though the head says its length.
    pub is_head: bool,
    /// The connection persists after this response.
    pub keep_alive: bool,
}

/// How the body of a streamed response is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFraming {
    /// No body is sent: HEAD, 204, 304.
    None,
    /// Exactly this many bytes. If there are fewer, the connection closes, and the peer sees by the length that the response is incomplete.
    Length(u64),
    /// Chunks, then [`LAST_CHUNK`].
    Chunked,
    /// Bytes until the connection closes, for HTTP/1.0: the connection must not be used again.
    UntilClose,
}

impl Response {
    /// Writes the head, or returns `None` when it does not fit. For [`reactor::Output::encode`].
    ///
    /// `date` comes from [`super::HttpDate`].
    #[must_use]
    #[inline(always)] // a call would pass the plan through memory, and cost as much as a line of the head
    pub fn encode_head<'c>(&self, plan: &ResponsePlan, date: &DateLine, into: Cursor<'c>) -> Option<Cursor<'c>> {
        let mut out = Head(into).beginning(self, date)?;
        if !is_bodiless(self.status) {
            out = out.content_length(self.body.bytes().len() as u64)?;
        }
        Some(out.ending(self, plan.version, plan.keep_alive)?.0)
    }

    /// The bytes to send behind the head: none for HEAD, 204 and 304 (RFC 9112 section 6.3).
    #[must_use]
    #[inline]
    pub fn body_to_send(&self, plan: &ResponsePlan) -> &[u8] {
        if plan.is_head || is_bodiless(self.status) { b"" } else { self.body.bytes() }
    }
}

impl StreamHead {
    /// How to frame what follows the head. For HEAD nothing follows.
    #[must_use]
    pub fn framing(&self, plan: &ResponsePlan) -> StreamFraming {
        if plan.is_head { StreamFraming::None } else { self.announced(plan) }
    }

    /// The framing that the head announces: for HEAD that of the response to GET.
    fn announced(&self, plan: &ResponsePlan) -> StreamFraming {
        match (self.length_bytes, plan.version) {
            _ if is_bodiless(self.response.status) => StreamFraming::None,
            (Some(length), _) => StreamFraming::Length(length),
            (None, Version::Http11) => StreamFraming::Chunked,
            (None, Version::Http10) => StreamFraming::UntilClose,
        }
    }

    /// Writes the head, or returns `None` when it does not fit. For [`reactor::Output::encode`].
    #[must_use]
    pub fn encode_head<'c>(&self, plan: &ResponsePlan, date: &DateLine, into: Cursor<'c>) -> Option<Cursor<'c>> {
        let out = Head(into).beginning(&self.response, date)?;
        let out = match self.announced(plan) {
            StreamFraming::Length(length) => out.content_length(length)?,
            StreamFraming::Chunked => out.put(b"Transfer-Encoding: chunked\r\n")?,
            StreamFraming::None | StreamFraming::UntilClose => out,
        };
        // For HEAD nothing has to be delimited by closing.
        let until_close = self.framing(plan) == StreamFraming::UntilClose;
        Some(out.ending(&self.response, plan.version, plan.keep_alive && !until_close)?.0)
    }
}

/// No body, and no Content-Length either: RFC 9110 sections 8.6, 15.3.5 and 15.4.5.
#[inline]
const fn is_bodiless(status: u16) -> bool {
    matches!(status, 204 | 304)
}

/// The head of a response, up to where it is written.
struct Head<'a>(Cursor<'a>);

impl Head<'_> {
    #[inline(always)]
    fn put<const N: usize>(self, bytes: &[u8; N]) -> Option<Self> {
        self.0.put(bytes).map(Head)
    }

    #[inline(always)]
    fn put_text(self, text: &[u8]) -> Option<Self> {
        self.0.put_slice(text).map(Head)
    }

    #[inline(always)]
    fn beginning(self, response: &Response, date: &DateLine) -> Option<Self> {
        let out = self.status_line(response.status)?.put(date)?;
        match response.content_type {
            Some(content_type) => out.put(b"Content-Type: ")?.put_text(content_type.as_bytes())?.put(b"\r\n"),
            None => Some(out),
        }
    }

    #[inline(always)]
    fn content_length(self, bytes: u64) -> Option<Self> {
        self.put(b"Content-Length: ")?.decimal(bytes)?.put(b"\r\n")
    }

    #[inline(always)]
    fn decimal(self, number: u64) -> Option<Self> {
        match number {
            0..10 => self.put(&[b'0' + number as u8]),
            10..100 => self.put(&two_digits(number)),
            _ => self.long_decimal(number),
        }
    }

    #[inline(never)]
    fn long_decimal(self, mut number: u64) -> Option<Self> {
        let mut digits = [0; 20]; // u64::MAX has 20
        let mut first = digits.len();
        while number >= 10 {
            first -= 2;
            digits[first..first + 2].copy_from_slice(&two_digits(number % 100));
            number /= 100;
        }
        if number > 0 {
            first -= 1;
            digits[first] = b'0' + number as u8;
        }
        self.put_text(&digits[first..])
    }

    #[inline(always)]
    fn ending(self, response: &Response, version: Version, keep_alive: bool) -> Option<Self> {
        let out = if response.headers.is_empty() { self } else { self.headers(response)? };
        match (version, keep_alive && !response.close) {
            (Version::Http11, true) => out.put(b"\r\n"),
            (Version::Http10, true) => out.put(b"Connection: keep-alive\r\n\r\n"),
            (_, false) => out.put(b"Connection: close\r\n\r\n"),
        }
    }

    #[inline(never)]
    fn headers(mut self, response: &Response) -> Option<Self> {
        for (name, value) in &response.headers {
            self = self.put_text(name.as_bytes())?.put(b": ")?.put_text(value.as_bytes())?.put(b"\r\n")?;
        }
        Some(self)
    }
}

/// The digits of a number below 100.
#[inline]
const fn two_digits(number: u64) -> [u8; 2] {
    [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]
}

macro_rules! status_lines {
    ($($status:literal $line:literal)*) => {
        impl Head<'_> {
            /// The phrases of RFC 9110 section 15 and of the IANA registry; none for others.
            #[inline(always)]
            fn status_line(self, status: u16) -> Option<Self> {
                match status {
                    $($status => self.put($line),)*
                    _ => self.put(b"HTTP/1.1 ")?.decimal(u64::from(status))?.put(b" \r\n"),
                }
            }
        }

        #[cfg(test)]
        const STATUS_LINES: &[(u16, &[u8])] = &[$(($status, $line)),*];
    };
}

status_lines! {
    200 b"HTTP/1.1 200 OK\r\n"
    201 b"HTTP/1.1 201 Created\r\n"
    202 b"HTTP/1.1 202 Accepted\r\n"
    204 b"HTTP/1.1 204 No Content\r\n"
    206 b"HTTP/1.1 206 Partial Content\r\n"
    301 b"HTTP/1.1 301 Moved Permanently\r\n"
    302 b"HTTP/1.1 302 Found\r\n"
    303 b"HTTP/1.1 303 See Other\r\n"
    304 b"HTTP/1.1 304 Not Modified\r\n"
    307 b"HTTP/1.1 307 Temporary Redirect\r\n"
    308 b"HTTP/1.1 308 Permanent Redirect\r\n"
    400 b"HTTP/1.1 400 Bad Request\r\n"
    401 b"HTTP/1.1 401 Unauthorized\r\n"
    403 b"HTTP/1.1 403 Forbidden\r\n"
    404 b"HTTP/1.1 404 Not Found\r\n"
    405 b"HTTP/1.1 405 Method Not Allowed\r\n"
    408 b"HTTP/1.1 408 Request Timeout\r\n"
    409 b"HTTP/1.1 409 Conflict\r\n"
    410 b"HTTP/1.1 410 Gone\r\n"
    411 b"HTTP/1.1 411 Length Required\r\n"
    412 b"HTTP/1.1 412 Precondition Failed\r\n"
    413 b"HTTP/1.1 413 Content Too Large\r\n"
    414 b"HTTP/1.1 414 URI Too Long\r\n"
    415 b"HTTP/1.1 415 Unsupported Media Type\r\n"
    416 b"HTTP/1.1 416 Range Not Satisfiable\r\n"
    417 b"HTTP/1.1 417 Expectation Failed\r\n"
    422 b"HTTP/1.1 422 Unprocessable Content\r\n"
    429 b"HTTP/1.1 429 Too Many Requests\r\n"
    431 b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    500 b"HTTP/1.1 500 Internal Server Error\r\n"
    501 b"HTTP/1.1 501 Not Implemented\r\n"
    502 b"HTTP/1.1 502 Bad Gateway\r\n"
    503 b"HTTP/1.1 503 Service Unavailable\r\n"
    504 b"HTTP/1.1 504 Gateway Timeout\r\n"
    505 b"HTTP/1.1 505 HTTP Version Not Supported\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use reactor::OutputBuffer;

    fn written(write: impl for<'c> FnOnce(Head<'c>) -> Option<Head<'c>>) -> Vec<u8> {
        let mut into = OutputBuffer::new(64);
        assert!(into.output().encode(|cursor| Some(write(Head(cursor))?.0)));
        into.filled().to_vec()
    }

    #[test]
    fn numbers_of_every_length_are_written_as_they_are() {
        let tens = (0..20).map(|places| 10_u64.pow(places)).flat_map(|ten| [ten - 1, ten, ten + 1]);
        for number in (0..2000).chain(tens).chain([u64::MAX]) {
            assert_eq!(written(|out| out.decimal(number)), number.to_string().as_bytes());
        }
    }

    #[test]
    fn every_status_line_begins_with_its_own_status() {
        for (status, line) in STATUS_LINES {
            assert!(line.starts_with(format!("HTTP/1.1 {status} ").as_bytes()), "{status}");
            assert!(line.ends_with(b"\r\n"));
        }
        for refusal in super::super::Refusal::ALL {
            assert!(STATUS_LINES.iter().any(|(status, _)| *status == refusal.status()));
        }
    }
}
