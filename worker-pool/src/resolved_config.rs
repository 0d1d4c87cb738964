//! What a [`Config`] means: the numbers and flags that the code reads, computed once at start.

use std::time::Duration;

use crate::limits::Config;
use crate::permits::UNLIMITED;
use crate::policy::{Abandoned, Admission, Capacity, Discipline, SlowShare, WhenFull};
use crate::policy::{Concurrency, Panics, Shutdown, ThreadModel};

/// The resolved configuration. It does not change while the pool runs.
#[derive(Clone, Debug)]
pub struct ResolvedConfig {
    /// Worker threads.
    pub threads: u32,
    /// Threads that slow jobs may hold at once.
    pub slow_threads_max: u32,
    /// Jobs that may wait while every thread works, before a job is rejected or shed.
    pub queue_jobs_max: u32,
    /// Jobs that may be in flight, waiting and running together, under any policy.
    pub in_flight_max: u32,
    /// How many of them may be slow.
    pub slow_in_flight_max: u32,
    /// The longest expected wait with which a job is admitted. `None`: no limit.
    pub wait_max: Option<Duration>,
    /// The same while the queue has been backed up for longer than `wait_max`.
    pub standing_wait_max: Option<Duration>,
    /// Whether a job's deadline is compared with the expected wait at admission.
    pub deadline_at_admission: bool,
    /// The order of the queue.
    pub discipline: Discipline,
    /// Which job is rejected or shed when the pool is full.
    pub when_full: WhenFull,
    /// What to do with cancelled and expired jobs.
    pub abandoned: Abandoned,
    /// Whether the limit on jobs in flight moves.
    pub concurrency: Concurrency,
    /// Which thread runs a job.
    pub thread_model: ThreadModel,
    /// How far a panic in a job unwinds.
    pub panics: Panics,
    /// What happens to waiting jobs at shutdown.
    pub shutdown: Shutdown,
}

impl ResolvedConfig {
    /// Resolves a configuration that [`Config::check`] accepts.
    pub fn of(config: &Config) -> Self {
        let policy = &config.policy;
        let threads = config.threads;
        let slow_threads_max = match policy.slow_share {
            SlowShare::Half => (threads / 2).max(1),
            SlowShare::Everything => threads, // MISTAKE(pool-starvation): a few slow look-ups hold every thread.
        };
        let queue_jobs_max = config.limits.queue_jobs_max;
        // The next worker that looks for work sheds the oldest job. Until then the newest needs a slot.
        let waiting_max = match policy.when_full {
            WhenFull::DropOldest => queue_jobs_max.saturating_mul(2),
            WhenFull::RefuseNewest | WhenFull::Sample { .. } => queue_jobs_max,
        };
        let by_wait = policy.admission == Admission::NumberAndWait;
        let wait_max = (by_wait && config.limits.wait_max < Duration::MAX).then_some(config.limits.wait_max);
        let mut resolved = Self {
            threads,
            slow_threads_max,
            queue_jobs_max,
            in_flight_max: threads.saturating_add(waiting_max).min(UNLIMITED),
            slow_in_flight_max: match policy.slow_share {
                // As with threads: slow jobs that fill the queue would starve fast jobs as well.
                SlowShare::Half => slow_threads_max.saturating_add((waiting_max / 2).max(1)),
                SlowShare::Everything => UNLIMITED,
            },
            wait_max,
            standing_wait_max: wait_max.map(|wait_max| wait_max.min(config.limits.standing_wait_max)),
            deadline_at_admission: by_wait,
            discipline: policy.discipline,
            when_full: policy.when_full,
            abandoned: policy.abandoned,
            concurrency: policy.concurrency,
            thread_model: policy.thread_model,
            panics: policy.panics,
            shutdown: policy.shutdown,
        };
        match policy.capacity {
            Capacity::Bounded => {}
            Capacity::Unbounded => resolved.lift_bounds_and_terms(), // MISTAKE(unbounded-queue): delay grows without end, and all of it for nothing.
        }
        match policy.thread_model {
            ThreadModel::PoolThread => {}
            // No job waits for a thread, so there is no queue to bound (`worker.rs`).
            ThreadModel::ThreadPerJob => resolved.lift_bounds(),
        }
        resolved
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
        if self.thread_model == ThreadModel::ThreadPerJob {
            self.slow_threads_max = UNLIMITED;
        }
    }

    fn lift_bounds_and_terms(&mut self) {
        self.lift_bounds();
        self.abandoned = Abandoned::RunAnyway;
    }

    /// Whether the number of jobs in flight has no limit.
    pub fn unbounded(&self) -> bool {
        self.in_flight_max == UNLIMITED
    }

    /// Whether deadlines and cancel flags are observed.
    pub(crate) fn checks_terms(&self) -> bool {
        self.abandoned == Abandoned::Skip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_jobs_may_hold_half_of_the_threads_at_least_one_and_never_all() {
        for threads in 2..100 {
            let resolved = ResolvedConfig::of(&Config::with(|config| config.threads = threads));
            assert!(resolved.slow_threads_max >= 1 && resolved.slow_threads_max < threads);
            assert!(resolved.slow_threads_max <= threads.div_ceil(2));
            assert!(resolved.slow_in_flight_max < resolved.in_flight_max);
        }
    }

    #[test]
    fn slow_jobs_leave_a_slot_for_fast_ones_even_in_the_shortest_queue() {
        let resolved = ResolvedConfig::of(&Config::with(|config| {
            config.threads = 2;
            config.limits.queue_jobs_max = 1;
        }));
        assert!(resolved.slow_in_flight_max < resolved.in_flight_max);
    }
}
