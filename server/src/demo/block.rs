//! `GET /block?ms=N`: a call that blocks for N milliseconds, on the pool, as slow work. What a name server that is down costs, a remote disk,
//! or a database client without an asynchronous interface: `/sleep` waits as long and holds no thread.

use std::thread;
use std::time::{Duration, Instant};

use super::number;
use crate::answer::{Answer, Work};
use crate::http::{Request, Response};

/// Ten seconds: as long as getaddrinfo(3) waits for a name server by default (resolv.conf(5): 5 s, 2 attempts), longer than any deadline.
const BLOCK_MS_MAX: u64 = 10_000;

pub(super) fn call(request: &Request<'_>, _now: Instant) -> Answer {
    match number(request, "ms", 0..=BLOCK_MS_MAX) {
        // Without a checkpoint: a call that blocks in the kernel or in a library cannot be interrupted, which is what this route demonstrates.
        Ok(ms) => Answer::Job(Work::slow(move |_| {
            thread::sleep(Duration::from_millis(ms));
            Answer::Now(Response::text(format!("blocked {ms} ms\n")))
        })),
        Err(answer) => *answer,
    }
}
