//! Drives the machine as a connection does, and checks at every step what every caller relies on.

use server::http::{AtEnd, BodyKind, HttpLimits, Machine, Refusal, Request, Step};

/// What came out, with body pieces joined: how they were cut is not part of the promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// One head, as text of all that it says.
    Request(String, BodyKind),
    /// Bytes of its body.
    Body(Vec<u8>),
    /// The body is complete.
    BodyEnd,
    /// The end of all understanding.
    Refused(Refusal),
}

/// One connection without a socket.
pub(crate) struct Driver<'l> {
    limits: &'l HttpLimits,
    pub(crate) machine: Machine,
    rest: Vec<u8>,
    pub(crate) consumed_bytes: usize,
    pub(crate) events: Vec<Event>,
    /// How much the sink takes of a piece of this length.
    take: Box<dyn FnMut(usize) -> usize>,
}

impl<'l> Driver<'l> {
    pub(crate) fn new(limits: &'l HttpLimits, take: impl FnMut(usize) -> usize + 'static) -> Self {
        Self { limits, machine: Machine::new(), rest: Vec::new(), consumed_bytes: 0, events: Vec::new(), take: Box::new(take) }
    }

    /// Gives more bytes and steps until the machine wants more, or is broken or closed.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let mut fruitless = 0;
        loop {
            let rest = std::mem::take(&mut self.rest);
            let (consumed, goes_on) = self.step(&rest);
            self.consumed_bytes += consumed;
            self.rest = rest[consumed..].to_vec();
            if !goes_on {
                return;
            }
            fruitless = if consumed == 0 { fruitless + 1 } else { 0 };
            assert!(fruitless < 4, "the machine makes no progress");
        }
    }

    fn step(&mut self, input: &[u8]) -> (usize, bool) {
        let (used, step) = self.machine.step(self.limits, input);
        assert!(used <= input.len(), "used more than there is");
        match step {
            Step::NeedBytes => (used, false),
            Step::Request(request) => {
                self.events.push(Event::Request(describe(&request), request.body));
                if request.body == BodyKind::None {
                    self.finish();
                }
                (used, true)
            }
            Step::Body { piece, last } => {
                let piece_at = piece.as_ptr().addr().wrapping_sub(input.as_ptr().addr());
                assert!(piece.is_empty() || piece_at == used, "the piece begins behind the framing");
                let taken = if piece.is_empty() { 0 } else { (self.take)(piece.len()) };
                self.machine.took(taken);
                match self.events.last_mut() {
                    _ if taken == 0 => {}
                    Some(Event::Body(body)) => body.extend_from_slice(&piece[..taken]),
                    _ => self.events.push(Event::Body(piece[..taken].to_vec())),
                }
                if last && taken == piece.len() {
                    self.events.push(Event::BodyEnd);
                    self.finish();
                }
                (used + taken, true)
            }
            Step::Paused => {
                assert_eq!(self.machine.ended(), AtEnd::Closed, "paused without a reason");
                (used, false)
            }
            Step::Refuse(refusal) => {
                if self.events.last() != Some(&Event::Refused(refusal)) {
                    self.events.push(Event::Refused(refusal));
                }
                assert!(!self.machine.persists(), "a refused connection must close");
                (used, false)
            }
        }
    }

    fn finish(&mut self) {
        assert!(!self.machine.is_in_body(), "the end of the body was announced");
        let (used, step) = self.machine.step(self.limits, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(used == 0 && matches!(step, Step::Paused), "an answer is due before the next request");
        assert_eq!(self.machine.ended(), AtEnd::Answering);
        self.machine.answered();
    }
}

/// All that a head says, headers by the lazy iterator.
fn describe(request: &Request<'_>) -> String {
    use std::fmt::Write;
    let mut text = format!(
        "{:?} {} {} path={} query={:?} {:?} {:?} host={} keep_alive={} expect={}",
        request.method,
        request.method_text,
        request.target,
        request.path,
        request.query,
        request.version,
        request.body,
        request.host(),
        request.keep_alive,
        request.expect_continue,
    );
    for (name, value) in request.headers() {
        let _ = write!(text, "\n{name}={}", value.escape_ascii());
    }
    text
}

/// The events of `input` fed in these pieces, the sink taking all.
#[allow(dead_code, reason = "not every test that includes this file uses it")]
pub(crate) fn events(limits: &HttpLimits, pieces: &[&[u8]]) -> (Vec<Event>, usize, AtEnd) {
    let mut driver = Driver::new(limits, |bytes| bytes);
    for piece in pieces {
        driver.feed(piece);
    }
    (driver.events, driver.consumed_bytes, driver.machine.ended())
}

/// One input of the fuzz target, and of the test that replays its corpus.
///
/// Byte 0 is the length of the pieces, byte 1 what the sink takes of each, byte 2 chooses the limits; the
/// rest is what the peer sends. Whole or in pieces, greedy or not: the events must be the same.
#[allow(dead_code, reason = "not every test that includes this file uses it")]
pub(crate) fn any_input(input: &[u8]) {
    let [length, appetite, limits, sent @ ..] = input else {
        return;
    };
    let limits = if limits % 2 == 0 { HttpLimits::default() } else { small_limits() };
    let appetite = usize::from(*appetite).max(1);
    let mut driver = Driver::new(&limits, move |bytes| bytes.min(appetite));
    for piece in sent.chunks(usize::from(*length).max(1)) {
        driver.feed(piece);
    }
    let (whole, consumed_bytes, at_end) = events(&limits, &[sent]);
    assert_eq!(driver.events, whole);
    assert_eq!(driver.consumed_bytes, consumed_bytes);
    assert_eq!(driver.machine.ended(), at_end);
}

/// Limits so small that short input reaches them.
#[allow(dead_code, reason = "not every test that includes this file uses it")]
pub(crate) fn small_limits() -> HttpLimits {
    HttpLimits {
        head_bytes_max: 96,
        headers_max: 3,
        target_bytes_max: 24,
        method_bytes_max: 8,
        body_bytes_max: 12,
        chunk_extension_bytes_max: 6,
        trailer_bytes_max: 8,
        leading_newlines_max: 1,
    }
}
