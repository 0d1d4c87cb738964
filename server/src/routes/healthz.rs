//! `GET /healthz`: answered by the loop itself, so that a full pool does not look like a dead server (`blocked-health-check`).

use std::time::Instant;

use crate::answer::Answer;
use crate::http::{Request, Response};

pub(super) fn call(_request: &Request<'_>, _now: Instant) -> Answer {
    Response::text("ok\n").into()
}
