//! `GET /sleep?ms=N`: answers after N milliseconds. A deadline of the loop waits, and no thread: 10,000 can sleep at once.

use std::time::{Duration, Instant};

use super::number;
use crate::answer::Answer;
use crate::http::{Request, Response};

/// One minute: longer than any client waits.
const SLEEP_MS_MAX: u64 = 60_000;

pub(super) fn call(request: &Request<'_>, now: Instant) -> Answer {
    match number(request, "ms", 0..=SLEEP_MS_MAX) {
        Ok(ms) => Answer::At(now + Duration::from_millis(ms), Response::text(format!("slept {ms} ms\n"))),
        Err(answer) => *answer,
    }
}
