//! `POST /digest?rounds=N`: SHA-256 of the body, then of that digest, N rounds in all. A body collected first, then work on the pool.

use std::time::Instant;

use sha2::{Digest, Sha256};
use worker_pool::Checkpoint;

use super::number;
use crate::answer::{Answer, Work};
use crate::http::{Request, Response};

/// A few seconds of CPU.
const ROUNDS_MAX: u64 = 10_000_000;
/// Rounds between two checkpoints, where the job stops if its client has disconnected: about 0.1 ms.
const ROUNDS_PER_CHECKPOINT: u64 = 1_000;
/// Bytes between two checkpoints: about 0.1 ms.
const BYTES_PER_CHECKPOINT: usize = 64 << 10;

pub(super) fn call(request: &Request<'_>, _now: Instant) -> Answer {
    match number(request, "rounds", 1..=ROUNDS_MAX) {
        // The largest body that the server takes at all: `--body-bytes-max` bounds it.
        Ok(rounds) => Answer::body(usize::MAX, move |bytes| digest_job(bytes, rounds)),
        Err(answer) => *answer,
    }
}

fn digest_job(bytes: Vec<u8>, rounds: u64) -> Answer {
    Answer::Job(Work::fast(move |checkpoint| match digest(&bytes, rounds, checkpoint) {
        Some(digest) => Answer::Now(Response::text(hex(&digest))),
        // The deadline has passed or the client has disconnected.
        None => Answer::Now(Response::text("deadline passed\n").status(504)),
    }))
}

fn digest(bytes: &[u8], rounds: u64, checkpoint: &Checkpoint<'_>) -> Option<[u8; 32]> {
    let mut hasher = Sha256::new();
    for piece in bytes.chunks(BYTES_PER_CHECKPOINT) {
        hasher.update(piece);
        if checkpoint.stop_requested() {
            return None;
        }
    }
    let mut digest: [u8; 32] = hasher.finalize().into();
    for round in 1..rounds {
        digest = Sha256::digest(digest).into();
        if round.is_multiple_of(ROUNDS_PER_CHECKPOINT) && checkpoint.stop_requested() {
            return None;
        }
    }
    Some(digest)
}

fn hex(digest: &[u8; 32]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(65);
    for byte in digest {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use worker_pool::{CancelFlag, Terms};

    use super::*;

    fn digest_text(bytes: &[u8], rounds: u64) -> Option<String> {
        let terms = Terms::default();
        digest(bytes, rounds, &Checkpoint::detached(&terms)).map(|digest| hex(&digest))
    }

    /// FIPS 180-4 and its examples (csrc.nist.gov); two rounds: `printf abc | openssl dgst -sha256 -binary | openssl dgst -sha256`.
    #[test]
    fn the_known_answers_come_out() {
        for (bytes, rounds, expected) in [
            (&b""[..], 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n"),
            (b"abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n"),
            (b"abc", 2, "4f8b42c22dd3729b519ba6f68d2da7cc5b2d606d05daed5ad5128cc03e6c6358\n"),
        ] {
            assert_eq!(digest_text(bytes, rounds).as_deref(), Some(expected));
        }
        // A million times `a`: pieces between checkpoints must not matter.
        let million = vec![b'a'; 1_000_000];
        let expected = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0\n";
        assert_eq!(digest_text(&million, 1).as_deref(), Some(expected));
    }

    #[test]
    fn a_job_that_was_called_off_stops_at_a_checkpoint() {
        let terms = Terms { cancel: CancelFlag::new(), ..Terms::default() };
        terms.cancel.cancel();
        let started = Instant::now();
        assert_eq!(digest(b"abc", u64::MAX, &Checkpoint::detached(&terms)), None);
        assert!(started.elapsed().as_secs() < 60, "it would otherwise run for ages");
    }
}
