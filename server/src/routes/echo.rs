//! `POST /echo`: sends the body back while it arrives. Backpressure in both directions: a client that does not read is not read from.

use std::time::Instant;

use crate::answer::{Answer, Pulled, StreamSource};
use crate::http::{BodyKind, Request, Response};

/// Bytes between arrival and departure, per request.
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
    fn pull(&mut self, room: &mut [u8], _now: Instant) -> (usize, Pulled) {
        let bytes = (self.held.len() - self.sent).min(room.len());
        room[..bytes].copy_from_slice(&self.held[self.sent..][..bytes]);
        self.sent += bytes;
        if self.sent < self.held.len() {
            return (bytes, Pulled::More);
        }
        self.held.clear();
        self.sent = 0;
        (bytes, if self.complete { Pulled::End } else { Pulled::Wait })
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

    fn body_room_bytes(&self) -> usize {
        HELD_BYTES_MAX.saturating_sub(self.held.len())
    }
}
