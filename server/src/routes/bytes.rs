//! `GET /bytes?n=N`: N bytes, made as they are sent. A slow reader costs a buffer, not N bytes.

use std::time::Instant;

use super::number;
use crate::answer::{Answer, Pulled, StreamSource};
use crate::http::{Request, Response};

/// 1 TiB.
const BYTES_MAX: u64 = 1 << 40;

/// What is sent, again and again: its period, 64, shows a lost or doubled byte to whoever checks.
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
    fn pull(&mut self, room: &mut [u8], _now: Instant) -> (usize, Pulled) {
        let left = usize::try_from(self.n - self.sent).unwrap_or(usize::MAX);
        let bytes = left.min(room.len());
        let mut phase = (self.sent % PATTERN.len() as u64) as usize;
        let mut done = 0;
        while done < bytes {
            let piece = (bytes - done).min(PATTERN.len() - phase);
            room[done..done + piece].copy_from_slice(&PATTERN[phase..phase + piece]);
            (done, phase) = (done + piece, 0);
        }
        self.sent += bytes as u64;
        (bytes, if self.sent == self.n { Pulled::End } else { Pulled::More })
    }
}
