//! `GET /`: 13 bytes, what every benchmark of servers asks for.

use std::time::Instant;

use crate::answer::Answer;
use crate::http::{Request, Response};

#[inline]
pub(super) fn call(_request: &Request<'_>, _now: Instant) -> Answer {
    Answer::Now(Response::text("Hello, World!"))
}
