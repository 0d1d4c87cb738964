//! The numbers that bound the pool. Nothing in it grows past one of these.
//!
//! Next: `policy.rs`, the choices that are not numbers; `rules.rs`, where both become what the code asks.

use std::io;
use std::num::NonZero;
use std::thread;
use std::time::Duration;

use crate::policy::Policy;

/// Everything that can be chosen about a pool. The default is the correct one.
#[derive(Clone, Debug)]
pub struct Config {
    /// Worker threads, at least 1; with 1 slow work delays fast work, since no thread is left to keep free of it. Default: max(2, cores −
    /// loops), with loops = max(1, cores / 2): more threads than cores only add context switches to CPU
    /// work, and the loops need theirs.
    pub threads: u32,
    /// Added to the nice value that the starting thread has; the sum is cut at 19. Default 10: a woken
    /// loop's weight is then 1024 against a worker's 110 (`sched_prio_to_weight` in Linux `kernel/sched/core.c`). Up to Linux 6.5
    /// that lets it preempt a computing worker at once; since 6.6 (EEVDF) it waits for the end of the worker's slice, unless
    /// it asks for a shorter one itself (`sched_runtime`, sched_setattr(2), 6.12). 0 leaves the priority alone.
    pub nice_increment: i32,
    /// The numbers.
    pub limits: Limits,
    /// The choices.
    pub policy: Policy,
}

/// What bounds the waiting jobs.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Jobs that may wait while every thread works. A bound on memory: each costs the size of the job
    /// plus about 70 bytes in the channel, allocated at start, and at most as much again in the workers' queue.
    /// The bound on time is `wait_max`. Default 1024.
    /// Slow jobs may take half of it.
    pub queue_jobs_max: u32,
    /// A job is refused when it would have to wait longer than this, whatever its deadline: we do not
    /// know how patient the client is, and a longer queue raises latency and never throughput. Keep it
    /// under half of what clients allow. One mean run time of waiting is always granted: with less, a
    /// thread that ends a job too often finds none. `Duration::MAX` turns it off. Default: see
    /// [`WAIT_MAX_DEFAULT`].
    pub wait_max: Duration,
    /// The same, once no thread was free for as long as `wait_max`: then it is no burst that will pass, and a long queue
    /// is latency for everyone and of use to nobody. At most `wait_max`. Default: see [`STANDING_WAIT_MAX_DEFAULT`].
    pub standing_wait_max: Duration,
}

/// The default of [`Limits::wait_max`].
///
/// Measured with `cargo run --release -p worker-pool --example goodput` (virtual time: 2 threads, jobs of
/// 20 ms, 1.5 times the capacity, clients that give up after 500 ms and whose patience the server is not
/// told), together with the default order, FIFO:
///
/// | order, bound | goodput / capacity | median wait + run | burst of 30 served | refused at once |
/// |---|---|---|---|---|
/// | FIFO, 1024 jobs only | 0.24 | 491 ms | all | no |
/// | FIFO, wait 400 ms | 1.00 | 393 ms | all | yes |
/// | **FIFO, wait 200 ms** | **1.00** | **198 ms** | **0.61** | **yes** |
/// | FIFO, wait 100 ms | 1.00 | 103 ms | 0.29 | yes |
/// | newest-first, 1024 jobs only | 1.00 | 28 ms | 0.43 | no: losers wait until they give up |
/// | CoDel 5/100 ms, 1024 jobs only | 0.95 | 37 ms | 0.33 | no: losers wait until they are shed |
///
/// At 0.95 of the capacity FIFO with 200 ms serves 0.95, with 100 ms 0.92, newest-first 0.93, CoDel 0.83.
/// Newest-first answers its winners sooner, but tells the losers nothing; CoDel sheds at loads that could
/// be carried. A bound on the wait serves as many and says no at the door.
pub const WAIT_MAX_DEFAULT: Duration = Duration::from_millis(200);

/// The default of [`Limits::standing_wait_max`].
///
/// A burst may wait for 200 ms, since it passes; a queue that has stood for 200 ms is an overload, and there half of it carries as much, at half the
/// latency, and is gone 100 ms after the load. From the same example:
///
/// | bound of FIFO | goodput at 1.5 | its median | burst of 30 served | goodput at 0.95 | 1 ms jobs, clients wait 100 ms |
/// |---|---|---|---|---|---|
/// | 200 ms | 1.00 | 198 ms | 0.61 | 0.95 | 0.23 |
/// | 100 ms | 1.00 | 103 ms | 0.29 | 0.92 | 0.93 |
/// | **200 ms, standing 100 ms** | **1.00** | **102 ms** | **0.61** | **0.92** | **0.94** |
/// | 200 ms, standing 50 ms | 0.99 | 56 ms | 0.61 | 0.89 | 1.00 |
///
/// The last column is what happens when clients are less patient than the bound: tell the pool, by deadlines or by a lower bound.
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

/// More worker threads than this is a mistake in a configuration file, not a plan.
pub const THREADS_MAX: u32 = 4096;

/// Longer queues than this are a mistake in a configuration file: room for all of it is allocated at start.
pub const QUEUE_JOBS_MAX: u32 = 10_000_000;

impl Config {
    /// Refuses what cannot work, in words.
    ///
    /// # Errors
    /// `InvalidInput`, naming the value and the reason.
    pub fn check(&self) -> io::Result<()> {
        let complaint = if self.threads == 0 {
            format!("worker threads: {} is too few: at least 1", self.threads)
        } else if self.threads > THREADS_MAX {
            format!("worker threads: {} is more than {THREADS_MAX}", self.threads)
        } else if self.limits.queue_jobs_max == 0 || self.limits.queue_jobs_max > QUEUE_JOBS_MAX {
            format!("queue_jobs_max: {} is not in 1..={QUEUE_JOBS_MAX}", self.limits.queue_jobs_max)
        } else if !(0..=19).contains(&self.nice_increment) {
            format!("nice_increment: {} is not in 0..=19", self.nice_increment)
        } else {
            return self.policy.check();
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, complaint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_leaves_the_loops_their_cores() {
        let table = [(1, 2), (2, 2), (3, 2), (4, 2), (6, 3), (8, 4), (64, 32)];
        for (cores, threads) in table {
            assert_eq!(default_threads(cores), threads, "{cores} cores");
        }
    }

    #[test]
    fn the_default_passes_its_own_check_and_nonsense_does_not() {
        Config::default().check().unwrap();
        assert!(Config { threads: 0, ..Config::default() }.check().is_err());
        assert!(Config { threads: 1, ..Config::default() }.check().is_ok());
        assert!(Config { nice_increment: -1, ..Config::default() }.check().is_err());
        let limits = Limits { queue_jobs_max: 0, ..Limits::default() };
        assert!(Config { limits, ..Config::default() }.check().is_err());
    }
}
