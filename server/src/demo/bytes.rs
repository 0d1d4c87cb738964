//! `GET /bytes?n=N`: N bytes, generated while they are sent. A slow reader costs a buffer, not N bytes.

use std::time::Instant;

use super::number;
use crate::answer::{Answer, Output, Pulled, StreamSource};
use crate::http::{Request, Response};

/// 1 TiB.
const BYTES_MAX: u64 = 1 << 40;

/// What is sent, again and again: its period of 64 shows a lost or repeated byte.
const PATTERN: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-\n";

pub(super) fn call(request: &Request<'_>, _now: Instant) -> Answer {
    match number(request, "n", 0..=BYTES_MAX) {
        Ok(n) => Answer::stream(Response::bytes(""), Some(n), Bytes { sent: 0, n }),
        Err(answer) => *answer,
    }
}

struct Bytes {
    sent: u64,
    n: u64,
}

impl StreamSource for Bytes {
    fn pull(&mut self, output: &mut Output<'_>, _now: Instant) -> Pulled {
        while self.sent < self.n && output.space() > 0 {
            let phase = (self.sent % PATTERN.len() as u64) as usize;
            let piece_bytes = usize::try_from(self.n - self.sent).unwrap_or(usize::MAX).min(PATTERN.len() - phase);
            self.sent += output.write(&PATTERN[phase..phase + piece_bytes]) as u64;
        }
        if self.sent == self.n { Pulled::End } else { Pulled::More }
    }
}
