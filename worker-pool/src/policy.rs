//! The choices that are not numbers: each is an enum whose default is the correct value.
//!
//! The wrong values exist to be measured (`mistakes.rs`).

use std::time::Duration;

use crate::errors::ConfigError;

/// Every choice of a pool.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Policy {
    /// Which waiting job runs next.
    pub discipline: Discipline,
    /// Whether jobs are rejected by expected wait as well as by number.
    pub admission: Admission,
    /// Which job is rejected or shed when the pool is full.
    pub when_full: WhenFull,
    /// Whether the limit on jobs in flight moves with the measured latency.
    pub concurrency: Concurrency,
    /// What happens to waiting jobs at shutdown.
    pub shutdown: Shutdown,
    /// Whether the queue has a limit.
    pub capacity: Capacity,
    /// How many threads slow jobs may hold.
    pub slow_share: SlowShare,
    /// Which thread runs a job.
    pub thread_model: ThreadModel,
    /// What to do with a job that was cancelled or has expired.
    pub abandoned: Abandoned,
    /// How far a panic in a job unwinds.
    pub panics: Panics,
}

/// Which of the waiting jobs a free worker takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discipline {
    /// The oldest. Fair, and right while admission keeps the wait short: see the figures at
    /// [`WAIT_MAX_DEFAULT`](crate::WAIT_MAX_DEFAULT).
    #[default]
    Fifo,
    /// The oldest, until the oldest has waited longer than `pressure`; then the newest. Under overload the client of the oldest job is the
    /// one that is about to give up (Maurer, "Fail at Scale", ACM Queue 2015, adaptive LIFO).
    NewestFirst {
        /// How long the oldest may wait before the order turns.
        pressure: Duration,
    },
    /// The oldest. While even the shortest wait of the last whole `interval` was above `target`, jobs that waited more than twice `target`
    /// are shed (folly `folly/executors/Codel.h`).
    CoDel {
        /// The wait that is acceptable in a standing queue.
        target: Duration,
        /// For how long every wait must be above the target before a job is shed.
        interval: Duration,
    },
}

impl Discipline {
    /// Newest-first after 100 ms.
    pub const NEWEST_FIRST: Self = Self::NewestFirst { pressure: Duration::from_millis(100) };

    /// Target and interval of folly's `Codel`: 5 ms and 100 ms.
    pub const CODEL: Self = Self::CoDel { target: Duration::from_millis(5), interval: Duration::from_millis(100) };
}

/// What a new job is checked against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// The number of jobs in flight and the expected wait. A job that cannot make its deadline is rejected now, at no cost, instead of
    /// later, after it has delayed other jobs.
    #[default]
    NumberAndWait,
    /// The number of jobs in flight alone.
    Number,
}

/// Which job is rejected or shed when the pool is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// The new job is rejected. Costs no worker, and the client gets its response at once.
    #[default]
    RefuseNewest,
    /// The job that has waited longest is shed: right where the newest data are worth more (telemetry, prices). A submitter cannot reach
    /// into the workers' queue, so the next worker that looks for work sheds the oldest; until then up to twice `queue_jobs_max` jobs wait.
    DropOldest,
    /// From a half-full queue on, admits an evenly spaced sample of the new jobs and rejects the rest.
    Sample {
        /// The share that is admitted, in percent: 1 to 99.
        keep_percent: u8,
    },
}

/// The limit on jobs in flight, waiting and running together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Concurrency {
    /// Threads plus `queue_jobs_max`.
    #[default]
    Static,
    /// Below that, moves with the gradient of latency: see [`Gradient`].
    Gradient(Gradient),
}

/// Settings of the adaptive limit (Netflix/concurrency-limits `Gradient2Limit.java`).
///
/// After each window: `gradient = clamp(rtt_tolerance × long mean / window mean, 0.5, 1)`, and the limit moves by `smoothing` towards
/// `limit × gradient + queue_jobs`. Its weakness is known: under an overload that lasts, the long mean follows the latency, and the limit
/// follows the long mean. Measured in virtual time (2 threads, jobs of 5 ms, 1.5 times the capacity, no bound on the wait), p99 of wait and
/// run together, in mean runs: 12 after 20 s, 25 after 60 s, 522 after 300 s, which is the whole queue. With an `rtt_tolerance` of 1: 8, 10
/// and 24. So keep [`Admission::NumberAndWait`], whose bound does not move (test:
/// `in_an_overload_that_lasts_the_adaptive_limit_creeps_up_and_the_limit_on_the_wait_holds`).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Gradient {
    /// How far one window moves the limit: above 0, at most 1. Default 0.2, as in the source.
    pub smoothing: f64,
    /// How many times the long mean the latency of a window may be before the limit shrinks, at least 1. Default 1.5, as in the source.
    pub rtt_tolerance: f64,
    /// Jobs that may wait while the latency is flat. Default 4, as in the source.
    pub queue_jobs: u32,
    /// Windows in the long mean. Default 600, as in the source.
    pub long_windows: u32,
    /// A window ends when it is this old and has `window_samples_min` samples. Default 100 ms.
    pub window: Duration,
    /// The least number of samples in a window. Default 10, as in the source's `WindowedLimit`.
    pub window_samples_min: u32,
}

impl Default for Gradient {
    fn default() -> Self {
        Self {
            smoothing: 0.2,
            rtt_tolerance: 1.5,
            queue_jobs: 4,
            long_windows: 600,
            window: Duration::from_millis(100),
            window_samples_min: 10,
        }
    }
}

/// What happens to waiting jobs when the pool shuts down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shutdown {
    /// They run while the grace time lasts. Jobs that still wait then are answered with `Dropped`.
    #[default]
    Finish,
    /// They are answered with `Dropped` at once, and running jobs are asked to stop at their checkpoint.
    Drop,
}

/// Whether the queue has a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Capacity {
    /// `queue_jobs_max`, `wait_max`, deadlines and cancel flags are all observed.
    #[default]
    Bounded,
    /// None of them is: every job is admitted and every job runs. Any of the other protections would hide that the queue has no limit.
    Unbounded,
}

/// How many threads slow jobs may hold at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowShare {
    /// Half of the threads, at least one (libuv `src/threadpool.c`, `slow_work_thread_threshold`), and half of the queue: slow jobs that
    /// fill the queue would starve fast ones as well.
    #[default]
    Half,
    /// All of them.
    Everything,
}

/// Which thread runs a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThreadModel {
    /// The worker that took it: at most `threads` jobs run at once.
    #[default]
    PoolThread,
    /// A new thread for each job, with no limit on their number.
    ThreadPerJob,
}

/// What to do with a job that was cancelled or has expired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Abandoned {
    /// Answer it without running it; if it runs, stop it at its next checkpoint.
    #[default]
    Skip,
    /// Run it all the same.
    RunAnyway,
}

/// How far a panic in a job unwinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Panics {
    /// To the end of the job: it ends as `Panicked`, and the thread takes the next job.
    #[default]
    Catch,
    /// To the end of the thread. The job is never completed and its permit is never given back.
    EndThread,
}

impl Policy {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        match self.when_full {
            WhenFull::Sample { keep_percent } if !(1..=99).contains(&keep_percent) => {
                return Err(ConfigError::SampleKeepPercent { keep_percent });
            }
            WhenFull::Sample { .. } | WhenFull::RefuseNewest | WhenFull::DropOldest => {}
        }
        match self.discipline {
            Discipline::CoDel { target, interval } if target.is_zero() || interval <= target => {
                return Err(ConfigError::CoDel { target, interval });
            }
            Discipline::CoDel { .. } | Discipline::Fifo | Discipline::NewestFirst { .. } => {}
        }
        match self.concurrency {
            Concurrency::Static => Ok(()),
            Concurrency::Gradient(gradient) => gradient.check(),
        }
    }
}

impl Gradient {
    /// The default with some values changed.
    pub fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut gradient = Self::default();
        change(&mut gradient);
        gradient
    }

    fn check(&self) -> Result<(), ConfigError> {
        let Self { smoothing, rtt_tolerance, long_windows, window_samples_min, .. } = *self;
        // Written so that a NaN is refused.
        if !(smoothing > 0.0 && smoothing <= 1.0) {
            return Err(ConfigError::GradientSmoothing { smoothing });
        }
        if !(rtt_tolerance >= 1.0 && rtt_tolerance.is_finite()) {
            return Err(ConfigError::GradientRttTolerance { rtt_tolerance });
        }
        if long_windows == 0 || window_samples_min == 0 {
            return Err(ConfigError::GradientWindows { long_windows, window_samples_min });
        }
        Ok(())
    }
}
