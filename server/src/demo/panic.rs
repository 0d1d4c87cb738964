//! `GET /panic`: a handler with a bug, on the pool. Its own request is answered 500; the worker takes the next job.

use std::time::Instant;

use crate::answer::{Answer, Work};
use crate::http::Request;

pub(super) fn call(_request: &Request<'_>, _now: Instant) -> Answer {
    Answer::Job(Work::fast(|_| panic!("GET /panic asked for it")))
}
