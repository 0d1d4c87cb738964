//! The numbers that bound the pool. Nothing in it grows past one of these.

use std::num::NonZero;
use std::thread;
use std::time::Duration;

use crate::errors::ConfigError;
use crate::policy::Policy;

/// The configuration of a pool. The default is the correct one; [`Config::with`] changes it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Worker threads, at least 1. With 1, slow jobs delay fast jobs, since no thread is left to keep free of slow ones. Default: max(2,
    /// cores − loops), with loops = max(1, cores / 2): more threads than cores only add context switches to CPU work, and the loops need
    /// their cores. The pool has one more thread, which sleeps until a waiting job expires.
    pub threads: u32,
    /// Added to the nice value of the thread that starts the pool; the sum is cut at 19. Default 10: the weight of a loop that wakes up is
    /// then 1024 against a worker's 110 (`sched_prio_to_weight` in Linux `kernel/sched/core.c`). Up to Linux 6.5 the loop preempts a
    /// computing worker at once. Since 6.6 (EEVDF) it waits for the end of the worker's slice, unless the loop asks for a shorter slice
    /// (`sched_runtime`, sched_setattr(2), 6.12). 0 leaves the priority alone.
    pub nice_increment: i32,
    /// The numbers.
    pub limits: Limits,
    /// The choices.
    pub policy: Policy,
}

/// What bounds the waiting jobs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Jobs that may wait while every thread works. A bound on memory: each costs the size of the job plus about 70 bytes in the channel,
    /// allocated at start, and at most twice as much in the workers' queue. The bound on time is `wait_max`. Default 1024. Slow jobs may
    /// take half of it.
    pub queue_jobs_max: u32,
    /// A job is rejected when it would have to wait longer than this, whatever its deadline. The pool does not know the client's own
    /// timeout, and a longer queue raises latency and never throughput. Keep it under half of the clients' timeout. One mean run time of
    /// waiting is always allowed: with less, a thread that ends a job often finds no other. `Duration::MAX` turns it off. Default: see
    /// [`WAIT_MAX_DEFAULT`].
    pub wait_max: Duration,
    /// The limit that replaces `wait_max` once the queue has been backed up for that long. Then the queue is not a burst that passes; it
    /// is an overload, and its length is nothing but latency. The run of the job counts too, so the queue is empty this long after the overload.
    /// At most `wait_max`. Default: see [`STANDING_WAIT_MAX_DEFAULT`].
    pub standing_wait_max: Duration,
}

/// The default of [`Limits::wait_max`].
///
/// Measured with `cargo run --release -p worker-pool --example goodput` (virtual time: 2 threads, jobs of 20 ms, 1.5 times the capacity,
/// clients that disconnect after 500 ms, which the pool does not know beforehand), together with the default order, FIFO:
///
/// | order, limit | goodput / capacity | median wait + run | burst of 30 served | rejected at once |
/// |---|---|---|---|---|
/// | FIFO, 1024 jobs only | 0.24 | 491 ms | all | no |
/// | FIFO, wait 400 ms | 1.00 | 372 ms | all | yes |
/// | **FIFO, wait 200 ms** | **1.00** | **178 ms** | **0.61** | **yes** |
/// | FIFO, wait 100 ms | 1.00 | 82 ms | 0.28 | yes |
/// | newest-first, 1024 jobs only | 1.00 | 28 ms | 0.43 | no: clients wait until they give up |
/// | CoDel 5/100 ms, 1024 jobs only | 0.95 | 37 ms | 0.33 | no: clients wait until their job is shed |
///
/// At 0.95 of the capacity FIFO with 200 ms serves 0.94, with 100 ms 0.91, newest-first 0.93, CoDel 0.83.
/// Newest-first answers the clients that it serves sooner, but the other clients get no response. CoDel sheds at loads that the pool could
/// carry. A limit on the wait serves as many clients and rejects the others at once.
pub const WAIT_MAX_DEFAULT: Duration = Duration::from_millis(200);

/// The default of [`Limits::standing_wait_max`].
///
/// A burst may wait for 200 ms, since it passes. A queue that has been backed up for 200 ms is an overload. There half of the limit carries as
/// much load at half the latency, and the queue is empty 100 ms after the load ends. From the same example:
///
/// | limit of FIFO | goodput at 1.5 | its median | burst of 30 served | goodput at 0.95 | 1 ms jobs, clients wait 100 ms |
/// |---|---|---|---|---|---|
/// | 200 ms | 1.00 | 178 ms | 0.61 | 0.94 | 0.23 |
/// | 100 ms | 1.00 | 82 ms | 0.28 | 0.91 | 0.95 |
/// | **200 ms, standing 100 ms** | **1.00** | **82 ms** | **0.61** | **0.91** | **0.95** |
/// | 200 ms, standing 50 ms | 0.98 | 53 ms | 0.61 | 0.87 | 1.00 |
///
/// The last column shows clients whose timeout is shorter than the limit. Give their jobs a deadline, or lower the limit.
pub const STANDING_WAIT_MAX_DEFAULT: Duration = Duration::from_millis(100);

impl Default for Config {
    fn default() -> Self {
        Self {
            threads: default_threads(thread::available_parallelism().map_or(1, NonZero::get)),
            nice_increment: 10,
            limits: Limits::default(),
            policy: Policy::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { queue_jobs_max: 1024, wait_max: WAIT_MAX_DEFAULT, standing_wait_max: STANDING_WAIT_MAX_DEFAULT }
    }
}

/// max(2, cores − loops), with loops = max(1, cores / 2).
fn default_threads(cores: usize) -> u32 {
    let loops = (cores / 2).max(1);
    u32::try_from(cores.saturating_sub(loops).max(2)).unwrap_or(THREADS_MAX).min(THREADS_MAX)
}

/// The most worker threads. A larger number is an error in a configuration file.
pub const THREADS_MAX: u32 = 4096;

/// The longest queue. A larger number is an error in a configuration file: the channel is allocated at start.
pub const QUEUE_JOBS_MAX: u32 = 10_000_000;

impl Config {
    /// The default with some values changed.
    ///
    /// ```
    /// let config = worker_pool::Config::with(|config| {
    ///     config.threads = 4;
    ///     config.limits.queue_jobs_max = 100;
    /// });
    /// assert!(config.check().is_ok());
    /// ```
    pub fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut config = Self::default();
        change(&mut config);
        config
    }

    /// Whether a pool can be started with this configuration.
    ///
    /// # Errors
    /// The first value that cannot work.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Self { threads, nice_increment, .. } = *self;
        if threads == 0 || threads > THREADS_MAX {
            return Err(ConfigError::Threads { threads, threads_max: THREADS_MAX });
        }
        let queue_jobs_max = self.limits.queue_jobs_max;
        if queue_jobs_max == 0 || queue_jobs_max > QUEUE_JOBS_MAX {
            return Err(ConfigError::QueueJobsMax { queue_jobs_max, allowed_max: QUEUE_JOBS_MAX });
        }
        if !(0..=19).contains(&nice_increment) {
            return Err(ConfigError::NiceIncrement { nice_increment });
        }
        self.policy.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Concurrency, Discipline, Gradient, WhenFull};

    #[test]
    fn the_default_number_of_threads_leaves_cores_for_the_loops() {
        let table = [(1, 2), (2, 2), (3, 2), (4, 2), (6, 3), (8, 4), (64, 32)];
        for (cores, threads) in table {
            assert_eq!(default_threads(cores), threads, "{cores} cores");
        }
    }

    #[test]
    fn the_default_config_passes_its_own_check_and_values_that_cannot_work_do_not() {
        assert_eq!(Config::default().check(), Ok(()));
        assert_eq!(Config::with(|config| config.threads = 1).check(), Ok(()));
        let gradient = |change: fn(&mut Gradient)| {
            Config::with(|config| config.policy.concurrency = Concurrency::Gradient(Gradient::with(change))).check()
        };
        assert!(matches!(Config::with(|config| config.threads = 0).check(), Err(ConfigError::Threads { threads: 0, .. })));
        assert!(matches!(Config::with(|config| config.nice_increment = -1).check(), Err(ConfigError::NiceIncrement { .. })));
        assert!(matches!(Config::with(|config| config.limits.queue_jobs_max = 0).check(), Err(ConfigError::QueueJobsMax { .. })));
        let sample = WhenFull::Sample { keep_percent: 100 };
        assert!(matches!(Config::with(|config| config.policy.when_full = sample).check(), Err(ConfigError::SampleKeepPercent { .. })));
        let codel = Discipline::CoDel { target: Duration::from_millis(5), interval: Duration::from_millis(5) };
        assert!(matches!(Config::with(|config| config.policy.discipline = codel).check(), Err(ConfigError::CoDel { .. })));
        assert!(matches!(gradient(|gradient| gradient.smoothing = f64::NAN), Err(ConfigError::GradientSmoothing { .. })));
        assert!(matches!(gradient(|gradient| gradient.rtt_tolerance = 0.9), Err(ConfigError::GradientRttTolerance { .. })));
        assert!(matches!(gradient(|gradient| gradient.long_windows = 0), Err(ConfigError::GradientWindows { .. })));
        assert_eq!(gradient(|_| {}), Ok(()));
    }
}
