//! The time and size limits of one exchange: the server's, unless the service sets others for an answer.
//!
//! A time limit on a whole transfer must allow for the largest transfer, so it measures the size and not the client. Therefore heads have an absolute
//! limit, and bodies have a minimum rate in each direction. A whole exchange has a deadline only if the service or the operator sets one. Read next:
//! `body_rate.rs`, the minimum rate of uploads; `reactor/src/stall.rs`, that of downloads.

use std::time::{Duration, Instant};

use reactor::Context;

use crate::answer::{Answer, Limited};
use crate::body_rate::{BodyRateMin, Window};
use crate::clock::later;
use crate::connection::HttpSettings;

/// Limits of one exchange. A limit that is not set is the server's. `None` is no limit.
///
/// ```
/// use std::time::Duration;
/// use server::answer::{Answer, AnswerLimits};
/// use server::http::Response;
///
/// // A report that is of no use to the client after a minute.
/// let report = Answer::job(|_| Response::text("done")).with_limits(AnswerLimits::new().deadline(Some(Duration::from_secs(60))));
/// // A download without a minimum rate.
/// let patient = Answer::from(Response::text("a large text")).with_limits(AnswerLimits::new().response_rate_min(None));
/// # drop((report, patient));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnswerLimits {
    deadline: Setting<Duration>,
    body_rate_min: Setting<BodyRateMin>,
    response_rate_min: Setting<u32>,
    body_bytes_max: Setting<u64>,
}

/// The server's value, or one of the answer's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Setting<T> {
    #[default]
    Server,
    Own(Option<T>),
}

impl<T> Setting<T> {
    fn or(self, other: Setting<T>) -> Setting<T> {
        match self {
            Setting::Server => other,
            own @ Setting::Own(_) => own,
        }
    }
}

impl AnswerLimits {
    /// The server's limits.
    #[must_use]
    pub fn new() -> AnswerLimits {
        AnswerLimits::default()
    }

    /// Time from the request's head to the last byte of the response. Absolute. When it has passed, a client that still sends its body gets 408, and
    /// a client that waits gets 503. A response that has begun is cut. The server's: `--request-timeout`, which is none by default.
    #[must_use]
    pub fn deadline(self, deadline: Option<Duration>) -> AnswerLimits {
        AnswerLimits { deadline: Setting::Own(deadline), ..self }
    }

    /// Minimum rate of the request's body; 408 below. The server's: `--body-rate-min`, 500 bytes a second.
    #[must_use]
    pub fn body_rate_min(self, rate: Option<BodyRateMin>) -> AnswerLimits {
        AnswerLimits { body_rate_min: Setting::Own(rate), ..self }
    }

    /// Minimum rate, in bytes a second, at which the client must acknowledge the response. Below half of it the connection is reset. The rate holds
    /// until the last byte of the response is written. Output that is then pending has the server's rate. The server's: `--response-rate-min`, 500
    /// bytes a second.
    #[must_use]
    pub fn response_rate_min(self, bytes_per_second: Option<u32>) -> AnswerLimits {
        AnswerLimits { response_rate_min: Setting::Own(bytes_per_second), ..self }
    }

    /// Bytes of the request's body; 413 beyond. `--body-bytes-max` holds in any case: it is enforced when the head is read, before the service is
    /// called. `None`: no limit but that one.
    #[must_use]
    pub fn body_bytes_max(self, bytes_max: Option<u64>) -> AnswerLimits {
        AnswerLimits { body_bytes_max: Setting::Own(bytes_max), ..self }
    }

    /// These limits. Those that are not set are taken from `other`.
    pub(crate) fn or(self, other: AnswerLimits) -> AnswerLimits {
        AnswerLimits {
            deadline: self.deadline.or(other.deadline),
            body_rate_min: self.body_rate_min.or(other.body_rate_min),
            response_rate_min: self.response_rate_min.or(other.response_rate_min),
            body_bytes_max: self.body_bytes_max.or(other.body_bytes_max),
        }
    }
}

/// The limits of an exchange in progress, and the progress that they measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// When the head was read.
    pub(crate) started: Instant,
    /// When the exchange must be complete, even if it makes progress.
    pub(crate) deadline: Option<Instant>,
    /// The rate of the request's body.
    pub(crate) body: Window,
    /// How many more bytes of the body are allowed.
    pub(crate) body_left_bytes: u64,
    /// The client sends the body only after 100 Continue, which is not written yet.
    pub(crate) continue_due: bool,
}

impl Times {
    /// The server's limits, for an exchange whose head was read at `started`. `has_body`: a body is read, and its rate is judged.
    pub(crate) fn new(settings: &HttpSettings, started: Instant, has_body: bool) -> Times {
        Times {
            started,
            deadline: settings.timeouts.request.map(|timeout| later(started, timeout)),
            body: Window::first(has_body.then_some(settings.body_rate_min), started),
            body_left_bytes: u64::MAX,
            continue_due: false,
        }
    }

    /// Applies the limits that a service has set. `has_body`: the body is still to be read.
    pub(crate) fn apply(&mut self, limits: AnswerLimits, has_body: bool, cx: &mut Context<'_>) {
        if let Setting::Own(deadline) = limits.deadline {
            self.deadline = deadline.map(|deadline| later(self.started, deadline));
        }
        if let Setting::Own(rate) = limits.response_rate_min {
            cx.set_output_rate_min(rate);
        }
        if has_body {
            if let Setting::Own(rate) = limits.body_rate_min {
                self.body = Window::first(rate, cx.now());
            }
            if let Setting::Own(bytes_max) = limits.body_bytes_max {
                self.body_left_bytes = bytes_max.unwrap_or(u64::MAX);
            }
        }
    }

    /// Counts bytes of the body that have arrived.
    pub(crate) fn body_came(&mut self, bytes: usize) {
        self.body.came(bytes);
        self.body_left_bytes = self.body_left_bytes.saturating_sub(bytes as u64);
    }

    /// Whether the deadline has passed.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

/// Applies the limits around an answer, and returns the answer inside. Where several limits are set, the outermost one holds.
pub(crate) fn unwrap_limits(mut answer: Answer, times: &mut Times, has_body: bool, cx: &mut Context<'_>) -> Answer {
    let mut all: Option<AnswerLimits> = None;
    while let Answer::Limited(limited) = answer {
        let Limited { limits, answer: inner } = *limited;
        all = Some(all.map_or(limits, |outer| outer.or(limits)));
        answer = inner;
    }
    if let Some(limits) = all {
        times.apply(limits, has_body, cx);
    }
    answer
}

/// The earlier of two times, where `None` is never.
pub(crate) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_an_answer_win_over_those_of_the_answer_inside_it() {
        let inner = AnswerLimits::new().deadline(Some(Duration::from_secs(1))).response_rate_min(Some(10));
        let outer = AnswerLimits::new().deadline(None).body_bytes_max(Some(7));
        let both = AnswerLimits::new().deadline(None).response_rate_min(Some(10)).body_bytes_max(Some(7));
        assert_eq!(outer.or(inner), both);
        assert_eq!(AnswerLimits::new().or(inner), inner);
    }
}
