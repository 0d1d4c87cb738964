//! CoDel for requests: when even the shortest wait stays too long, shed those that waited longest.
//!
//! After folly `executors/Codel.h` and `Codel.cpp`, whose authors replaced the drop schedule of the
//! network's CoDel (100 ms / sqrt(n)) by a plain rule, since a request has no sender to slow down. A short
//! burst is no overload: as long as one job in each interval gets through quickly, nothing is shed.

use std::time::{Duration, Instant};

/// The state of one queue's controller.
#[derive(Clone, Debug)]
pub struct CoDel {
    target: Duration,
    interval: Duration,
    /// The shortest wait seen in the running interval; `None` until its first job.
    shortest: Option<Duration>,
    interval_ends: Option<Instant>,
    overloaded: bool,
}

impl CoDel {
    /// A controller that has seen nothing. `target` should be well below `interval`.
    pub fn new(target: Duration, interval: Duration) -> Self {
        Self { target, interval, shortest: None, interval_ends: None, overloaded: false }
    }

    /// Takes note of the wait of a job that is being dequeued, and says whether to shed it.
    ///
    /// The law: true only if every wait of the last whole interval was above `target` and this one is
    /// above twice `target`.
    pub fn sheds(&mut self, waited: Duration, now: Instant) -> bool {
        if self.interval_ends.is_none_or(|end| now > end) {
            self.overloaded = self.shortest.is_some_and(|shortest| shortest > self.target);
            self.interval_ends = Some(now + self.interval);
            // The first job of an interval is never shed, so that there is something to judge by.
            self.shortest = Some(waited);
            return false;
        }
        self.shortest = self.shortest.map(|shortest| shortest.min(waited));
        self.overloaded && waited > self.target * 2
    }

    /// Whether the last whole interval had no wait within the target.
    pub fn overloaded(&self) -> bool {
        self.overloaded
    }
}
