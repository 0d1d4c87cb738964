//! What a [`Config`] means, decided once at start: the numbers and flags that the code asks.

use std::time::Duration;

use crate::limits::Config;
use crate::permits::UNLIMITED;
use crate::policy::{Abandoned, Admission, Discipline, Queue, SlowShare, WhenFull};
use crate::policy::{Concurrency, Panics, Placement, Shutdown};

/// The resolved configuration. Never changes while the pool runs.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Worker threads.
    pub threads: u32,
    /// Threads that slow jobs may hold at once.
    pub slow_threads_max: u32,
    /// Jobs that may wait while every thread works, before something gives way.
    pub queue_jobs_max: u32,
    /// Jobs that may be in flight, waiting and running, in any case.
    pub in_flight_max: u32,
    /// How many of them may be slow.
    pub slow_in_flight_max: u32,
    /// The longest expected wait to admit; `None`: not asked.
    pub wait_max: Option<Duration>,
    /// The same while the queue stands.
    pub standing_wait_max: Option<Duration>,
    /// Whether a job's own deadline is held against the expected wait.
    pub deadline_at_admission: bool,
    /// The order of the queue.
    pub discipline: Discipline,
    /// What gives way.
    pub when_full: WhenFull,
    /// What to do with jobs nobody waits for.
    pub abandoned: Abandoned,
    /// The bound that moves, if any.
    pub concurrency: Concurrency,
    /// Who runs a job.
    pub placement: Placement,
    /// How far a panic reaches.
    pub panics: Panics,
    /// What becomes of waiting jobs at shutdown.
    pub shutdown: Shutdown,
}

impl Rules {
    /// Decides what the configuration means. It was checked before.
    pub fn resolve(config: &Config) -> Self {
        let policy = &config.policy;
        let threads = config.threads;
        let slow_threads_max = match policy.slow_share {
            SlowShare::Half => (threads / 2).max(1),
            SlowShare::Everything => threads, // MISTAKE(pool-starvation): a few slow look-ups hold every thread.
        };
        let queue_jobs_max = config.limits.queue_jobs_max;
        // Dropping the oldest is left to the next worker that looks, so the newest need room until then.
        let queue_room = match policy.when_full {
            WhenFull::DropOldest => queue_jobs_max.saturating_mul(2),
            WhenFull::RefuseNewest | WhenFull::Sample { .. } => queue_jobs_max,
        };
        let by_wait = policy.admission == Admission::NumberAndWait;
        let wait_max = (by_wait && config.limits.wait_max < Duration::MAX).then_some(config.limits.wait_max);
        let mut rules = Self {
            threads,
            slow_threads_max,
            queue_jobs_max,
            in_flight_max: threads.saturating_add(queue_room).min(UNLIMITED),
            slow_in_flight_max: match policy.slow_share {
                // As with threads: slow jobs that fill the queue would starve fast ones as well.
                SlowShare::Half => slow_threads_max.saturating_add((queue_room / 2).max(1)),
                SlowShare::Everything => UNLIMITED,
            },
            wait_max,
            standing_wait_max: wait_max.map(|wait_max| wait_max.min(config.limits.standing_wait_max)),
            deadline_at_admission: by_wait,
            discipline: policy.discipline,
            when_full: policy.when_full,
            abandoned: policy.abandoned,
            concurrency: policy.concurrency,
            placement: policy.placement,
            panics: policy.panics,
            shutdown: policy.shutdown,
        };
        match policy.queue {
            Queue::Bounded => {}
            Queue::Unbounded => rules.lift_bounds_and_terms(), // MISTAKE(unbounded-queue): delay grows without end, and all of it for nothing.
        }
        match policy.placement {
            Placement::PoolThread => {}
            // Nobody waits for a thread, so there is no queue to bound (decided in `worker.rs`).
            Placement::ThreadPerJob => rules.lift_bounds(),
        }
        rules
    }

    fn lift_bounds(&mut self) {
        self.queue_jobs_max = UNLIMITED;
        self.in_flight_max = UNLIMITED;
        self.slow_in_flight_max = UNLIMITED;
        self.wait_max = None;
        self.standing_wait_max = None;
        self.deadline_at_admission = false;
        self.discipline = Discipline::Fifo;
        self.when_full = WhenFull::RefuseNewest;
        self.concurrency = Concurrency::Static;
        if self.placement == Placement::ThreadPerJob {
            self.slow_threads_max = UNLIMITED;
        }
    }

    fn lift_bounds_and_terms(&mut self) {
        self.lift_bounds();
        self.abandoned = Abandoned::RunAnyway;
    }

    /// Whether any number of jobs may be in flight.
    pub fn unbounded(&self) -> bool {
        self.in_flight_max == UNLIMITED
    }

    /// Whether deadlines and cancel flags are looked at.
    pub(crate) fn heeds_terms(&self) -> bool {
        self.abandoned == Abandoned::Skip
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    #[test]
    fn slow_work_may_hold_half_the_threads_at_least_one_and_never_all() {
        for threads in 2..100 {
            let rules = Rules::resolve(&Config { threads, ..Config::default() });
            assert!(rules.slow_threads_max >= 1 && rules.slow_threads_max < threads);
            assert!(rules.slow_threads_max <= threads.div_ceil(2));
            assert!(rules.slow_in_flight_max < rules.in_flight_max);
        }
    }

    #[test]
    fn slow_work_leaves_room_even_in_the_shortest_queue() {
        let limits = Limits { queue_jobs_max: 1, ..Limits::default() };
        let rules = Rules::resolve(&Config { threads: 2, limits, ..Config::default() });
        assert!(rules.slow_in_flight_max < rules.in_flight_max);
    }
}
