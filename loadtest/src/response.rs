//! Reads HTTP/1.1 responses, however the network splits them, and checks that they are the expected ones.
//!
//! This module shares no code with the server under test, or both would misread the same way. No socket and no clock: bytes in, a [`Step`]
//! out. `httparse` reads the head; the framing of the body (RFC 9112 section 6) is read here as it arrives, without buffering it. Where the
//! RFC lets a client cope with a faulty server, this client does: a load generator measures servers, it does not certify them.
//! Read next: `client.rs`.

use std::sync::Arc;

/// A head longer than this is an error of the server. nginx's own limit for upstream heads is 4 or 8 KiB (`proxy_buffer_size`).
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Header fields in one head that are read without an allocation.
const HEADERS_USUAL: usize = 64;
/// Header fields in one head. Chromium and Firefox limit a head by its bytes only; this many fit 32 KiB only if they are nearly empty.
const HEADERS_MAX: usize = 2048;
/// Digits of a chunk size: 16 would overflow nothing yet, 15 is more than any body.
const CHUNK_DIGITS_MAX: u8 = 15;
/// Bytes of chunk extensions and trailers in one response: a peer must not send them for ever.
const CHUNK_EXTRA_BYTES_MAX: u32 = 16 << 10;

/// What a response has to be. A status of 400 and above is an error in any case.
#[derive(Clone, Debug, Default)]
pub struct Expect {
    /// The answer is to a HEAD request: it has no body, whatever its head says.
    pub head_only: bool,
    /// The exact body of a good answer; not looked at if `None`.
    pub body: Option<Arc<[u8]>>,
}

/// What came of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All that could be used was; more bytes are needed.
    NeedBytes,
    /// The response is complete.
    Done(Response),
    /// The bytes are not an HTTP response, and nothing after them can be read either.
    Broken(&'static str),
}

/// A complete response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// Its status code.
    pub status: u16,
    /// Bytes of its body, without the framing.
    pub body_bytes: u64,
    /// Whether the body was the expected one.
    pub body_as_expected: bool,
    /// Whether the connection can be used again.
    pub keep_alive: bool,
}

/// Where in a response the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// Content-Length: this many bytes are still to come.
    Counted {
        left_bytes: u64,
    },
    Chunked(Chunk),
    /// No length was given: the end of the connection is the end of the body.
    UntilClose,
}

/// Where in a chunked body. Each variant awaits one thing, so that a cut can fall anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    Size { value: u64, digits: u8 },
    Extension { value: u64 },
    SizeLf { value: u64 },
    Data { left_bytes: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    LastLf,
}

/// Reads the responses of one connection, one after the other.
#[derive(Clone, Debug)]
pub struct ResponseReader {
    state: State,
    status: u16,
    keep_alive: bool,
    body_bytes: u64,
    body_as_expected: bool,
    extra_bytes: u32,
}

impl Default for ResponseReader {
    fn default() -> ResponseReader {
        ResponseReader { state: State::Head, status: 0, keep_alive: false, body_bytes: 0, body_as_expected: true, extra_bytes: 0 }
    }
}

impl ResponseReader {
    /// Takes what it can from the front of `input`; returns how many bytes that was, and what came of them. `NeedBytes` leaves only an
    /// unfinished head untaken.
    pub fn read(&mut self, input: &[u8], expect: &Expect) -> (usize, Step) {
        let mut taken = 0;
        loop {
            let rest = &input[taken..];
            match self.state {
                State::Head => match self.head(rest, expect) {
                    Ok(0) => return (taken, Step::NeedBytes),
                    Ok(head_bytes) => {
                        taken += head_bytes;
                        if self.state == (State::Counted { left_bytes: 0 }) {
                            return (taken, self.finish(expect));
                        }
                    }
                    Err(why) => return (taken, Step::Broken(why)),
                },
                State::Counted { left_bytes } => {
                    let n = rest.len().min(usize::try_from(left_bytes).unwrap_or(usize::MAX));
                    self.body(&rest[..n], expect);
                    taken += n;
                    if n as u64 == left_bytes {
                        return (taken, self.finish(expect));
                    }
                    self.state = State::Counted { left_bytes: left_bytes - n as u64 };
                    return (taken, Step::NeedBytes);
                }
                State::UntilClose => {
                    self.body(rest, expect);
                    return (input.len(), Step::NeedBytes);
                }
                State::Chunked(chunk) => {
                    if rest.is_empty() {
                        return (taken, Step::NeedBytes);
                    }
                    match self.chunk(chunk, rest, expect) {
                        Ok((n, Some(next))) => {
                            taken += n;
                            self.state = State::Chunked(next);
                        }
                        Ok((n, None)) => return (taken + n, self.finish(expect)),
                        Err(why) => return (taken, Step::Broken(why)),
                    }
                }
            }
        }
    }

    /// The peer has closed: a response without a length is complete now, any other is not.
    pub fn end(&mut self, expect: &Expect) -> Option<Response> {
        match self.state {
            State::UntilClose => match self.finish(expect) {
                Step::Done(response) => Some(response),
                Step::NeedBytes | Step::Broken(_) => None,
            },
            State::Head | State::Counted { .. } | State::Chunked(_) => None,
        }
    }

    /// Whether the head of the current response has been read.
    #[must_use]
    pub fn in_body(&self) -> bool {
        self.state != State::Head
    }

    /// Reads a head and decides how the body ends; 0 if the head is not complete.
    fn head(&mut self, input: &[u8], expect: &Expect) -> Result<usize, &'static str> {
        let mut usual = [httparse::EMPTY_HEADER; HEADERS_USUAL];
        let mut many = Vec::new();
        let mut response = httparse::Response::new(&mut usual);
        let mut parsed = tolerant().parse_response(&mut response, input);
        if parsed == Err(httparse::Error::TooManyHeaders) {
            many.resize(HEADERS_MAX, httparse::EMPTY_HEADER);
            response = httparse::Response::new(&mut many);
            parsed = tolerant().parse_response(&mut response, input);
        }
        let head_bytes = match parsed {
            Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
            Ok(httparse::Status::Partial) if input.len() > HEAD_BYTES_MAX => return Err("a head over 32 KiB"),
            Ok(httparse::Status::Partial) => return Ok(0),
            Err(httparse::Error::TooManyHeaders) => return Err("more than 2,048 header fields"),
            Err(_) => return Err("a head that is not HTTP/1"),
        };
        let status = response.code.unwrap_or(0);
        if (100..200).contains(&status) && status != 101 {
            return Ok(head_bytes); // Interim (RFC 9110 section 15.2): the final response follows.
        }

        let mut length: Option<u64> = None;
        // The last transfer coding, if there is any: only `chunked` tells where the body ends.
        let mut coding_is_chunked: Option<bool> = None;
        let mut keep_alive = response.version == Some(1);
        for header in response.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                // A list of equal lengths is that length (RFC 9112 section 6.3, rule 5).
                for value in header.value.split(|b| *b == b',') {
                    let value = parse_length(value).ok_or("a Content-Length that is not a number")?;
                    if length.is_some_and(|before| before != value) {
                        return Err("two different Content-Lengths");
                    }
                    length = Some(value);
                }
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                let mut codings = header.value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|coding| !coding.is_empty());
                coding_is_chunked = codings.next_back().map(|coding| coding.eq_ignore_ascii_case(b"chunked")).or(coding_is_chunked);
            } else if header.name.eq_ignore_ascii_case("connection") {
                for option in header.value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                    if option.eq_ignore_ascii_case(b"close") {
                        keep_alive = false;
                    } else if option.eq_ignore_ascii_case(b"keep-alive") && response.version == Some(0) {
                        keep_alive = true;
                    }
                }
            }
        }
        if coding_is_chunked.is_some() && (length.is_some() || response.version == Some(0)) {
            keep_alive = false; // RFC 9112 section 6.1: the framing is doubtful, so nothing after this response is believed.
        }

        *self = ResponseReader { status, keep_alive, ..ResponseReader::default() };
        self.state = if expect.head_only || status == 204 || status == 304 {
            State::Counted { left_bytes: 0 }
        } else if coding_is_chunked == Some(true) {
            // It overrides a Content-Length (RFC 9112 section 6.3, rule 3).
            State::Chunked(Chunk::Size { value: 0, digits: 0 })
        } else if let (Some(left_bytes), None) = (length, coding_is_chunked) {
            State::Counted { left_bytes }
        } else {
            // No length, or a last coding other than chunked (rules 4 and 8): the end of the connection is the end of the body.
            self.keep_alive = false;
            State::UntilClose
        };
        Ok(head_bytes)
    }

    /// One move within a chunked body (RFC 9112 section 7.1): bytes used, and what is awaited next; `None` at the end.
    fn chunk(&mut self, chunk: Chunk, input: &[u8], expect: &Expect) -> Result<(usize, Option<Chunk>), &'static str> {
        let byte = input[0];
        let next = match chunk {
            Chunk::Size { value, digits } => match (byte as char).to_digit(16) {
                Some(_) if digits == CHUNK_DIGITS_MAX => return Err("a chunk size of more than 15 digits"),
                Some(digit) => Chunk::Size { value: value << 4 | u64::from(digit), digits: digits + 1 },
                None if digits == 0 => return Err("a chunk without a size"),
                None if byte == b'\r' => Chunk::SizeLf { value },
                None if matches!(byte, b';' | b' ' | b'\t') => Chunk::Extension { value },
                None => return Err("a chunk size that is not a hexadecimal number"),
            },
            Chunk::Extension { value } => match byte {
                b'\r' => Chunk::SizeLf { value },
                b'\n' => return Err("a bare LF in a chunk size line"),
                _ => self.extra(Chunk::Extension { value })?,
            },
            Chunk::SizeLf { value } => match (byte, value) {
                (b'\n', 0) => Chunk::TrailerStart,
                (b'\n', left_bytes) => Chunk::Data { left_bytes },
                _ => return Err("a chunk size line that does not end in CR LF"),
            },
            Chunk::Data { left_bytes } => {
                let n = input.len().min(usize::try_from(left_bytes).unwrap_or(usize::MAX));
                self.body(&input[..n], expect);
                let left_bytes = left_bytes - n as u64;
                return Ok((n, Some(if left_bytes == 0 { Chunk::DataCr } else { Chunk::Data { left_bytes } })));
            }
            Chunk::DataCr if byte == b'\r' => Chunk::DataLf,
            Chunk::DataLf if byte == b'\n' => Chunk::Size { value: 0, digits: 0 },
            Chunk::DataCr | Chunk::DataLf => return Err("a chunk longer than its size"),
            Chunk::TrailerStart if byte == b'\r' => Chunk::LastLf,
            Chunk::TrailerStart | Chunk::Trailer => match byte {
                b'\r' => Chunk::TrailerLf,
                b'\n' => return Err("a bare LF in a trailer"),
                _ => self.extra(Chunk::Trailer)?,
            },
            Chunk::TrailerLf if byte == b'\n' => Chunk::TrailerStart,
            Chunk::LastLf if byte == b'\n' => return Ok((1, None)),
            Chunk::TrailerLf | Chunk::LastLf => return Err("a trailer line that does not end in CR LF"),
        };
        Ok((1, Some(next)))
    }

    fn extra(&mut self, next: Chunk) -> Result<Chunk, &'static str> {
        self.extra_bytes += 1;
        if self.extra_bytes > CHUNK_EXTRA_BYTES_MAX { Err("chunk extensions and trailers over 16 KiB") } else { Ok(next) }
    }

    /// Counts a piece of the body and compares it with what it should be at that place.
    fn body(&mut self, piece: &[u8], expect: &Expect) {
        if let Some(whole) = &expect.body {
            let at = usize::try_from(self.body_bytes).unwrap_or(usize::MAX);
            self.body_as_expected &= whole.get(at..).is_some_and(|rest| rest.starts_with(piece));
        }
        self.body_bytes += piece.len() as u64;
    }

    fn finish(&mut self, expect: &Expect) -> Step {
        let whole = expect.head_only || expect.body.as_ref().is_none_or(|body| body.len() as u64 == self.body_bytes);
        let response = Response {
            status: self.status,
            body_bytes: self.body_bytes,
            body_as_expected: self.body_as_expected && whole,
            keep_alive: self.keep_alive,
        };
        *self = ResponseReader::default();
        Step::Done(response)
    }
}

/// What RFC 9112 tells a client to read although a server must not send it: folded lines (section 5.2), a space before the colon
/// (5.1), several spaces in the status line (4).
fn tolerant() -> httparse::ParserConfig {
    let mut config = httparse::ParserConfig::default();
    config
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .allow_multiple_spaces_in_response_status_delimiters(true);
    config
}

/// Digits and nothing else; `parse` alone would take a sign.
fn parse_length(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii();
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
