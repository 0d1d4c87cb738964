//! The HTTP/1.1 state machine of one connection: the caller passes bytes in, and the machine returns the next step.
//!
//! No socket, no thread, no clock, no memory of its own. The caller keeps the unconsumed input and
//! offers it again from its first unconsumed byte, longer each time. Read next: `head.rs`.

use super::chunked::{Chunked, Framing};
use super::encode::ResponsePlan;
use super::head;
use super::scan::HeadScan;
use super::{BodyKind, HttpLimits, Method, Refusal, Request, Version};

/// What follows in the input. Borrowed from it, uncopied.
#[derive(Debug)]
pub enum Step<'a> {
    /// Nothing more can be said before more bytes come.
    NeedBytes,
    /// A request head. If it has a body, the next steps are its pieces.
    Request(Request<'a>),
    /// Bytes of the body, which count only as far as [`Machine::took`] says.
    ///
    /// `last`: when all of this piece is taken, the body is complete. A last piece may be empty, of a
    /// chunked body; the body is complete then, with nothing to take.
    Body {
        /// What is there of the body, without framing.
        piece: &'a [u8],
        /// Whether the body ends with this piece.
        last: bool,
    },
    /// A response is due first, or the connection is used up: offer no input before
    /// [`Machine::answered`].
    Paused,
    /// Answer with this status, then close. Every later step says the same.
    Refuse(Refusal),
}

/// Where the peer stopped sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtEnd {
    /// Between two requests: close.
    Clean,
    /// A whole request was read and its answer is due: answer, then close. A half-closed peer still reads.
    Answering,
    /// Within a head: RFC 9112 section 8 lets us answer 400 or just close.
    InsideHead,
    /// Within a body: the request is incomplete and must not be taken for a complete one.
    /// RFC 9112 section 8.
    InsideBody,
    /// After a refusal, or after the last exchange of the connection.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before or within a head.
    Head(HeadScan),
    /// Within a body of known length.
    Length { left_bytes: u64 },
    /// Within a chunked body.
    Chunked(Chunked),
    /// The request was read whole; its answer is not complete.
    Answering,
    /// No further request will be read.
    Closed,
    /// The bytes that follow are malformed.
    Broken(Refusal),
}

/// The protocol state of one connection.
///
/// The rule of bytes: the number that [`Machine::step`] returns is consumed at once, always. Of a body
/// piece, which begins right behind it, the caller consumes what the sink takes and reports just that
/// with [`Machine::took`]. The next step offers the remaining bytes again.
#[derive(Clone, Debug)]
pub struct Machine {
    state: State,
    version: Version,
    is_head: bool,
    keep_alive: bool,
    continue_due: bool,
}

// Each idle connection has one, and at most 192 bytes in all: docs/architecture.md, "Memory".
const _: () = assert!(size_of::<Machine>() <= 48);

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// The machine of a new connection.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: State::Head(HeadScan::new()), version: Version::Http11, is_head: false, keep_alive: true, continue_due: false }
    }

    /// Looks at the unconsumed input: how many bytes to consume now, and what follows.
    ///
    /// Never panics, never returns more than `input` has; and unless it returns `Paused` or `Refuse`,
    /// it moves on or has used or looked at all input.
    #[inline]
    pub fn step<'a>(&mut self, limits: &HttpLimits, input: &'a [u8]) -> (usize, Step<'a>) {
        match &mut self.state {
            State::Head(_) => self.step_head(limits, input),
            State::Length { left_bytes } => {
                if input.is_empty() {
                    return (0, Step::NeedBytes);
                }
                self.continue_due = false;
                let bytes = usize::try_from(*left_bytes).unwrap_or(usize::MAX).min(input.len());
                let last = bytes as u64 == *left_bytes;
                (0, Step::Body { piece: &input[..bytes], last })
            }
            State::Chunked(_) => self.step_chunked(limits, input),
            State::Answering | State::Closed => (0, Step::Paused),
            State::Broken(refusal) => (0, Step::Refuse(*refusal)),
        }
    }

    #[inline]
    fn step_head<'a>(&mut self, limits: &HttpLimits, input: &'a [u8]) -> (usize, Step<'a>) {
        let State::Head(scan) = &self.state else {
            unreachable!("called in this state only");
        };
        // Most heads arrive whole and are valid. All others are handled in another function: with a second return path here, each word of the
        // request would be copied twice.
        if !scan.has_begun()
            && let Ok(Some((head_bytes, request))) = head::parse::<false>(limits, &input[..input.len().min(limits.head_bytes_max as usize)])
        {
            self.accept(&request);
            return (head_bytes, Step::Request(request));
        }
        self.scan_head(limits, input)
    }

    /// A head that arrives in pieces, or is malformed: the scan finds its end or what is malformed first. A head that it has seen whole is parsed,
    /// which is the second and last attempt.
    #[cold]
    fn scan_head<'a>(&mut self, limits: &HttpLimits, input: &'a [u8]) -> (usize, Step<'a>) {
        let State::Head(scan) = &mut self.state else {
            unreachable!("called in this state only");
        };
        let skipped = scan.skip_newlines(limits, input);
        // A refusal of HEAD has no content either, whatever is wrong with the request: RFC 9110 section 9.3.2.
        self.is_head = input[skipped..].starts_with(b"HEAD ");
        let head = match scan.scan(limits, &input[skipped..]) {
            Ok(Some(head_bytes)) => &input[skipped..skipped + head_bytes],
            Ok(None) => return (skipped, Step::NeedBytes),
            Err(refusal) => return self.refuse(skipped, refusal),
        };
        match head::parse::<true>(limits, head) {
            Ok(Some((head_bytes, request))) => {
                self.accept(&request);
                (skipped + head_bytes, Step::Request(request))
            }
            // The scan saw a whole head, so the parser must not wait for more: that would be a hang.
            Ok(None) => self.refuse(skipped, Refusal::RequestLine),
            Err(refusal) => self.refuse(skipped, refusal),
        }
    }

    #[inline]
    fn accept(&mut self, request: &Request<'_>) {
        self.version = request.version;
        self.is_head = request.method == Method::Head;
        self.keep_alive = request.keep_alive;
        self.continue_due = request.expect_continue;
        self.state = match request.body {
            BodyKind::None => State::Answering,
            BodyKind::Length(left_bytes) => State::Length { left_bytes },
            BodyKind::Chunked => State::Chunked(Chunked::new()),
        };
    }

    fn step_chunked<'a>(&mut self, limits: &HttpLimits, input: &'a [u8]) -> (usize, Step<'a>) {
        let State::Chunked(chunked) = &mut self.state else {
            unreachable!("called in this state only");
        };
        if !input.is_empty() {
            self.continue_due = false;
        }
        let (used, framing) = chunked.step(limits, input);
        match framing {
            Framing::NeedBytes => (used, Step::NeedBytes),
            Framing::Data(left_bytes) => {
                let rest = &input[used..];
                let bytes = usize::try_from(left_bytes).unwrap_or(usize::MAX).min(rest.len());
                (used, Step::Body { piece: &rest[..bytes], last: false })
            }
            Framing::End => {
                self.state = State::Answering;
                (used, Step::Body { piece: &[], last: true })
            }
            Framing::Refuse(refusal) => self.refuse(used, refusal),
        }
    }

    #[cold]
    fn refuse<'a>(&mut self, used: usize, refusal: Refusal) -> (usize, Step<'a>) {
        self.state = State::Broken(refusal);
        self.keep_alive = false;
        self.continue_due = false;
        (used, Step::Refuse(refusal))
    }

    /// Reports how much of the last piece the sink took, and so how much the caller has consumed.
    ///
    /// # Panics
    /// If that is more than the piece had: a bug in this crate, since the peer cannot cause it.
    pub fn took(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        match &mut self.state {
            State::Length { left_bytes } => {
                let left = left_bytes.checked_sub(bytes as u64);
                *left_bytes = left.expect("took more than the piece that was offered");
                if *left_bytes == 0 {
                    self.state = State::Answering;
                }
            }
            State::Chunked(chunked) => chunked.took(bytes as u64),
            _ => panic!("took a piece of a body where there is none"),
        }
    }

    /// The exchange is finished: the whole response is in the output, and the body was read to its end or abandoned.
    ///
    /// The next request may be read if the connection persists. It does not when the body was not read
    /// to its end: its remaining bytes would be read as the next request (the early-answer attacks of
    /// "HTTP/1.1 must die", 2025).
    ///
    /// # Panics
    /// If no request is open: a bug in this crate.
    pub fn answered(&mut self) {
        self.state = match self.state {
            State::Answering if self.keep_alive => {
                // Every field: an error in the next head must not be answered by the method and version of this request.
                *self = Self::new();
                return;
            }
            State::Answering | State::Length { .. } | State::Chunked(_) => State::Closed,
            State::Broken(refusal) => State::Broken(refusal),
            State::Head(_) | State::Closed => panic!("answered, but there was no request"),
        };
        self.keep_alive = false;
        self.continue_due = false;
    }

    /// Abandons the unread part of the body: the response will have `Connection: close`, and `step` returns `Paused`.
    ///
    /// For an answer that does not need the body, before its head is written. Without effect when the
    /// body is complete. A caller that prefers to keep the connection reads and discards the body first.
    pub fn give_up_body(&mut self) {
        if self.is_in_body() {
            self.keep_alive = false;
            self.continue_due = false;
            self.state = State::Answering;
        }
    }

    /// Makes the response that is due the last one of this connection (shutdown, limits).
    pub fn close_after_response(&mut self) {
        self.keep_alive = false;
    }

    /// Whether part of the request body has not been read yet.
    #[must_use]
    pub fn is_in_body(&self) -> bool {
        matches!(self.state, State::Length { .. } | State::Chunked(_))
    }

    /// Whether the connection can carry another request after this exchange, as far as is known now.
    #[must_use]
    pub fn persists(&self) -> bool {
        self.keep_alive
    }

    /// What the head of the response must say.
    #[must_use]
    pub fn response_plan(&self) -> ResponsePlan {
        ResponsePlan { version: self.version, is_head: self.is_head, keep_alive: self.keep_alive }
    }

    /// Returns true once, when `100 Continue` should be sent: the peer waits for it, the service wants the body, and none of it
    /// has arrived. Call it when there is a sink and `step` returns `NeedBytes`.
    #[must_use]
    pub fn take_continue(&mut self) -> bool {
        std::mem::take(&mut self.continue_due)
    }

    /// Where the peer's last byte (FIN) falls, once `step` has said `NeedBytes` or `Paused`.
    #[must_use]
    pub fn ended(&self) -> AtEnd {
        match &self.state {
            State::Head(scan) if scan.has_begun() => AtEnd::InsideHead,
            State::Head(_) => AtEnd::Clean,
            State::Length { .. } | State::Chunked(_) => AtEnd::InsideBody,
            State::Answering => AtEnd::Answering,
            State::Closed | State::Broken(_) => AtEnd::Closed,
        }
    }
}
