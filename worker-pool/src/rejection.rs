//! A job that the pool did not admit, given back with the reason.

use std::fmt;
use std::time::Duration;

/// A job that was not admitted, given back whole. The caller still owes its client a response.
pub struct Rejected<J> {
    /// The job; neither `run` nor `complete` was called.
    pub job: J,
    /// Why.
    pub reason: Reason,
    /// How long a job admitted now would have waited: when it may be worth asking again. The caller adds jitter, or all clients that were
    /// rejected together come back together. Zero when no run was measured yet.
    pub retry_after: Duration,
}

impl<J> fmt::Debug for Rejected<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Rejected");
        out.field("reason", &self.reason).field("retry_after", &self.retry_after).finish_non_exhaustive()
    }
}

/// Why a job was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// As many jobs are in flight as `queue_jobs_max` and the threads allow.
    QueueFull,
    /// Slow jobs have taken their share of the queue. A fast job would be admitted.
    SlowShareFull,
    /// The adaptive limit is reached.
    LimitReached,
    /// It would wait longer than `wait_max`.
    WaitTooLong,
    /// It would still be waiting, or running, when its deadline passes.
    WouldExpire,
    /// Under pressure the pool admits only a sample, and this job is not in it.
    Sampled,
    /// The pool is shutting down.
    Stopping,
}

impl Reason {
    /// Every reason, in the order of its discriminant: for exporters.
    pub const ALL: [Self; 7] =
        [Self::QueueFull, Self::SlowShareFull, Self::LimitReached, Self::WaitTooLong, Self::WouldExpire, Self::Sampled, Self::Stopping];

    /// The name to use as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::SlowShareFull => "slow_share_full",
            Self::LimitReached => "limit_reached",
            Self::WaitTooLong => "wait_too_long",
            Self::WouldExpire => "would_expire",
            Self::Sampled => "sampled",
            Self::Stopping => "stopping",
        }
    }
}
