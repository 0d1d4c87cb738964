//! The choices that are not numbers: each an enum whose default is the correct one.
//!
//! The wrong ones exist to be measured (`mistakes.rs`). Next: `rules.rs`, where limits and choices become
//! what the code asks.

use std::io;
use std::time::Duration;

/// Every choice of a pool.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Which waiting job is next.
    pub discipline: Discipline,
    /// Whether to refuse by expected wait, and not by number alone.
    pub admission: Admission,
    /// What gives way when there is no room.
    pub when_full: WhenFull,
    /// Whether the bound on jobs in flight moves with the measured latency.
    pub concurrency: Concurrency,
    /// What becomes of the waiting jobs at shutdown.
    pub shutdown: Shutdown,
    /// Whether the queue has a bound.
    pub queue: Queue,
    /// How many threads slow jobs may hold.
    pub slow_share: SlowShare,
    /// Which thread runs a job.
    pub placement: Placement,
    /// What to do with a job that nobody waits for any more.
    pub abandoned: Abandoned,
    /// How far a panic in a job reaches.
    pub panics: Panics,
}

/// Which of the waiting jobs a free worker takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discipline {
    /// The oldest. Fair, and right while admission keeps the wait short: see the figures at
    /// [`WAIT_MAX_DEFAULT`](crate::WAIT_MAX_DEFAULT).
    #[default]
    Fifo,
    /// The oldest, until the oldest has waited longer than `pressure`; then the newest. Under overload
    /// the oldest is the one whose client is about to give up (Maurer, "Fail at Scale", ACM Queue 2015,
    /// adaptive LIFO).
    NewestFirst {
        /// How long the oldest may wait before the order turns.
        pressure: Duration,
    },
    /// The oldest, but while even the shortest wait of the last `interval` was above `target`, jobs that
    /// waited more than twice `target` are shed (folly `executors/Codel.h`; 5 ms and 100 ms there).
    CoDel {
        /// The wait that is acceptable as a standing one.
        target: Duration,
        /// For how long every wait must be above the target before anything is shed.
        interval: Duration,
    },
}

impl Discipline {
    /// Newest-first after 100 ms.
    pub const NEWEST_FIRST: Self = Self::NewestFirst { pressure: Duration::from_millis(100) };

    /// Target and interval of folly's `Codel`: 5 ms and 100 ms.
    pub const CODEL: Self = Self::CoDel { target: Duration::from_millis(5), interval: Duration::from_millis(100) };
}

/// What a new job is measured against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// The room, and the time it would have to wait: a job that cannot make its deadline is refused now,
    /// for nothing, rather than later, after it has cost the others their place.
    #[default]
    NumberAndWait,
    /// The room alone.
    Number,
}

/// What gives way when there is no room, by number or by expected wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// The job that wants in: whoever waits has been promised an answer. Costs no worker.
    #[default]
    RefuseNewest,
    /// The job that has waited longest: the newest is worth more (telemetry, prices). The submitter
    /// cannot reach into the workers' queue, so the next worker that looks sheds the oldest; until then
    /// up to twice `queue_jobs_max` wait.
    DropOldest,
    /// From half full on, keep this share of what comes, evenly spaced, and refuse the rest: an even
    /// sample instead of the first ones and then none.
    Sample {
        /// 1 to 99.
        keep_percent: u8,
    },
}

/// The bound on jobs in flight: waiting and running together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Concurrency {
    /// Threads plus `queue_jobs_max`.
    #[default]
    Static,
    /// Moves below that with the gradient of latency, see [`Gradient`].
    Gradient(Gradient),
}

/// Settings of the adaptive limit (Netflix/concurrency-limits `Gradient2Limit`).
///
/// After each window: `gradient = clamp(rtt_tolerance × long mean / window mean, 0.5, 1)`, and the limit moves by `smoothing` towards
/// `limit × gradient + queue_jobs`. Its weakness is known: under an overload that lasts, the long mean follows the
/// latency, and the limit follows the long mean. Measured in virtual time (2 threads, jobs of 5 ms, 1.5 times the capacity, no bound on the
/// wait), p99 of wait and run in runs: 12 after 20 s, 25 after 60 s, 522 after 300 s, which is the whole queue; with an `rtt_tolerance` of 1:
/// 8, 10, 24. So keep [`Admission::NumberAndWait`], whose bound does not move.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gradient {
    /// How far one window moves the limit, 0 to 1. Default 0.2, as there.
    pub smoothing: f64,
    /// How many times its long mean the latency of a window may be before the limit shrinks, at least 1. Default 1.5, as there.
    pub rtt_tolerance: f64,
    /// Jobs that may wait while the latency is flat. Default 4, as there.
    pub queue_jobs: u32,
    /// Windows in the long mean. Default 600, as there.
    pub long_windows: u32,
    /// A window ends when it is this old and has `window_samples_min` samples. Default 100 ms.
    pub window: Duration,
    /// Fewer samples than this say nothing. Default 10, as its `WindowedLimit`.
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

/// What becomes of the waiting jobs when the pool shuts down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shutdown {
    /// They run, as far as the grace time allows; the rest are answered with `Dropped`.
    #[default]
    Finish,
    /// They are answered with `Dropped` at once, and running jobs are asked to stop at their checkpoint.
    Drop,
}

/// Whether the queue has a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Queue {
    /// `queue_jobs_max` and `wait_max` hold, deadlines and cancel flags are looked at.
    #[default]
    Bounded,
    /// None of this: every job gets in and every job runs. Each of the other cures alone would hide
    /// that there is no bound.
    Unbounded,
}

/// How many threads slow jobs may hold at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowShare {
    /// Half, at least one, never all (libuv `src/threadpool.c`, `slow_work_thread_threshold`). The same
    /// share holds for the queue: slow jobs that fill it would starve fast ones as well.
    #[default]
    Half,
    /// All of them.
    Everything,
}

/// Which thread runs a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// One of the pool's.
    #[default]
    PoolThread,
    /// A new one, started for it, without any bound on their number.
    ThreadPerJob,
}

/// What to do with a job that nobody waits for any more (cancelled, or past its deadline).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Abandoned {
    /// Answer it without running it, and stop it at its next checkpoint.
    #[default]
    Skip,
    /// Run it all the same.
    RunAnyway,
}

/// How far a panic in a job reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Panics {
    /// To the end of the job: it ends as `Panicked`, and the thread takes the next.
    #[default]
    Contain,
    /// To the end of the thread. The job gets no completion and its permit is never given back.
    EndThread,
}

impl Policy {
    pub(crate) fn check(&self) -> io::Result<()> {
        let complaint = match (self.when_full, self.discipline, self.concurrency) {
            (WhenFull::Sample { keep_percent }, _, _) if !(1..=99).contains(&keep_percent) => {
                format!("keep_percent: {keep_percent} is not in 1..=99")
            }
            (_, Discipline::CoDel { target, interval }, _) if target.is_zero() || interval <= target => {
                format!("CoDel: target {target:?} must be above zero and below interval {interval:?}")
            }
            (_, _, Concurrency::Gradient(g)) if !(g.smoothing > 0.0 && g.smoothing <= 1.0) => {
                format!("gradient smoothing: {} is not above 0 and at most 1", g.smoothing)
            }
            (_, _, Concurrency::Gradient(g)) if !(g.rtt_tolerance >= 1.0 && g.rtt_tolerance.is_finite()) => {
                format!("gradient rtt_tolerance: {} is not a number of at least 1", g.rtt_tolerance)
            }
            (_, _, Concurrency::Gradient(g)) if g.long_windows == 0 || g.window_samples_min == 0 => {
                "gradient: long_windows and window_samples_min must be at least 1".to_owned()
            }
            _ => return Ok(()),
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, complaint))
    }
}
