//! `POST /echo`: sends the body back while it arrives. Backpressure in both directions: if the client does not read, the server stops reading from it.

use std::time::Instant;

use crate::answer::{Answer, Output, Pulled, StreamSource};
use crate::http::{BodyKind, Request, Response};

/// Bytes that one request may have received and not sent back yet.
const HELD_BYTES_MAX: usize = 16 << 10;

pub(super) fn call(request: &Request<'_>, _now: Instant) -> Answer {
    let length_bytes = match request.body {
        BodyKind::None => Some(0),
        BodyKind::Length(bytes) => Some(bytes),
        BodyKind::Chunked => None,
    };
    let source = Echo { held: Vec::new(), sent: 0, complete: length_bytes == Some(0) };
    Answer::stream(Response::bytes(""), length_bytes, source)
}

struct Echo {
    held: Vec<u8>,
    sent: usize,
    complete: bool,
}

impl StreamSource for Echo {
    fn pull(&mut self, output: &mut Output<'_>, _now: Instant) -> Pulled {
        self.sent += output.write(&self.held[self.sent..]);
        if self.sent < self.held.len() {
            return Pulled::More;
        }
        self.held.clear();
        self.sent = 0;
        if self.complete { Pulled::End } else { Pulled::Wait }
    }

    fn wants_body(&self) -> bool {
        true
    }

    fn body(&mut self, piece: &[u8], last: bool) -> usize {
        let taken = piece.len().min(self.body_room_bytes());
        self.held.extend_from_slice(&piece[..taken]);
        self.complete = last && taken == piece.len();
        taken
    }

    fn memory_bytes_max(&self) -> usize {
        HELD_BYTES_MAX
    }

    fn body_room_bytes(&self) -> usize {
        HELD_BYTES_MAX.saturating_sub(self.held.len())
    }
}
