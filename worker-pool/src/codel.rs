//! CoDel for requests: when even the shortest wait stays too long, sheds jobs that have waited too long.
//!
//! Nichols and Jacobson, "Controlling Queue Delay" (ACM Queue 2012), in the form of folly `folly/executors/Codel.h` and `Codel.cpp`.
//! folly replaced the network's drop schedule (interval / sqrt(n), RFC 8289, section 5.3) by a plain rule, since a request has no sender
//! that slows down after a loss. A short burst is not an overload: while one job in each interval waits within the target, nothing is shed.
//!
//! One difference to folly: intervals follow each other without a gap, and an interval without any job ends an overload. folly judges by
//! the last interval that had a job, however long ago that was, so after an hour at rest it sheds the first burst.

use std::time::{Duration, Instant};

/// The state of one queue's controller.
#[derive(Clone, Debug)]
pub struct CoDel {
    target: Duration,
    interval: Duration,
    /// When the running interval began; `None` before the first job.
    began: Option<Instant>,
    /// The shortest wait in the running interval.
    shortest: Duration,
    overloaded: bool,
}

impl CoDel {
    /// A controller that has seen no job. `target` should be well below `interval`.
    pub fn new(target: Duration, interval: Duration) -> Self {
        Self { target, interval, began: None, shortest: Duration::ZERO, overloaded: false }
    }

    /// Records the wait of a job that is being dequeued, and says whether to shed it.
    ///
    /// True only if every wait of the last whole interval was above `target`, it had at least one, and this wait is above twice `target`
    /// (test: `codel_sheds_only_after_an_interval_in_which_every_wait_was_too_long`).
    pub fn sheds(&mut self, waited: Duration, now: Instant) -> bool {
        // Durations are compared instead of instants: an interval may be longer than what an instant can hold.
        match self.began.map(|began| (began, now.saturating_duration_since(began))) {
            Some((_, age)) if age <= self.interval => {
                self.shortest = self.shortest.min(waited);
                return self.overloaded && waited > self.target.saturating_mul(2);
            }
            Some((began, age)) if age <= self.interval.saturating_mul(2) => {
                self.overloaded = self.shortest > self.target;
                self.began = Some(began + self.interval); // Not after `now`.
            }
            // The first job of all, or the first after a whole interval without one.
            _ => {
                self.overloaded = false;
                self.began = Some(now);
            }
        }
        // The first job of an interval is never shed, so that there is something to judge by.
        self.shortest = waited;
        false
    }

    /// Whether every wait of the last whole interval was above the target.
    pub fn overloaded(&self) -> bool {
        self.overloaded
    }
}
