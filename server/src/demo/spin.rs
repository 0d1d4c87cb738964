//! `GET /spin?ms=N` or `?us=N`: burns this much CPU time, on the pool: work that must not run on a loop.

use std::time::{Duration, Instant};

use worker_pool::Checkpoint;

use super::number;
use crate::answer::{Answer, Work};
use crate::http::{Request, Response};
use crate::thread::cpu_time;

/// Ten seconds: longer than any deadline.
const SPIN_MS_MAX: u64 = 10_000;

pub(super) fn call(request: &Request<'_>, _now: Instant) -> Answer {
    // Short jobs are counted in microseconds: thousands of them a second fit one core.
    let spun = match request.query_value("us") {
        Some(_) => number(request, "us", 0..=SPIN_MS_MAX * 1_000).map(|us| (Duration::from_micros(us), format!("spun {us} us\n"))),
        None => number(request, "ms", 0..=SPIN_MS_MAX).map(|ms| (Duration::from_millis(ms), format!("spun {ms} ms\n"))),
    };
    match spun {
        Ok((duration, text)) => Answer::Job(Work::fast(move |checkpoint| spin(duration, text, checkpoint))),
        Err(answer) => *answer,
    }
}

/// Thread CPU time, not wall time: a worker that the scheduler has put aside does no work, and must not count as capacity.
fn spin(duration: Duration, text: String, checkpoint: &Checkpoint<'_>) -> Answer {
    let until = cpu_time() + duration;
    let mut rounds = 0_u64;
    while cpu_time() < until {
        for _ in 0..1_000 {
            rounds = std::hint::black_box(rounds + 1);
        }
        if rounds.is_multiple_of(100_000) && checkpoint.stop_requested() {
            break;
        }
    }
    Answer::Now(Response::text(text))
}
