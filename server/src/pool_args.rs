//! The flags of the worker pool: how many jobs may wait, for how long, in which order, and which are rejected.
//!
//! The choices themselves are documented where they belong, in `worker_pool::Policy` and `worker_pool::Limits`; the figures behind the
//! defaults are in docs/numbers.md, "Overload". Read next: `config.rs`.

use clap::{Args, ValueEnum};
use worker_pool::{Concurrency, Discipline, Gradient, WhenFull};

use crate::config::{Config, default_workers};
use crate::units::{Time, time_above_zero};

/// See the module.
#[derive(Clone, Debug, Args)]
pub struct PoolArgs {
    /// Number of worker threads for jobs. The default is the CPUs that the loops leave, at least 2.
    #[arg(
        long, env = "SERVER_WORKERS", value_name = "N",
        default_value_t = default_workers(),
        value_parser = clap::value_parser!(u32).range(1..=4096)
    )]
    pub workers: u32,

    /// Jobs that may wait for a worker. One more gets a 503 with Retry-After.
    #[arg(
        long, env = "SERVER_QUEUE_JOBS_MAX", value_name = "N",
        default_value_t = Config::default().pool.limits.queue_jobs_max,
        value_parser = clap::value_parser!(u32).range(1..=10_000_000)
    )]
    pub queue_jobs_max: u32,

    /// Expected wait for a worker above which a job gets a 503 at once. At most half of --job-deadline.
    #[arg(
        long, env = "SERVER_QUEUE_WAIT_MAX", value_name = "TIME",
        default_value_t = Time(Config::default().pool.limits.wait_max),
        value_parser = time_above_zero
    )]
    pub queue_wait_max: Time,

    /// The same limit once the queue has been backed up for --queue-wait-max, which is longer than a burst.
    #[arg(
        long, env = "SERVER_QUEUE_STANDING_WAIT_MAX", value_name = "TIME",
        default_value_t = Time(Config::default().pool.limits.standing_wait_max),
        value_parser = time_above_zero
    )]
    pub queue_standing_wait_max: Time,

    /// Which waiting job runs next.
    #[arg(long, env = "SERVER_QUEUE_DISCIPLINE", value_name = "HOW", value_enum, default_value_t = QueueDiscipline::Fifo)]
    pub queue_discipline: QueueDiscipline,

    /// Which job is rejected when the queue is full.
    #[arg(long, env = "SERVER_QUEUE_WHEN_FULL", value_name = "WHAT", value_enum, default_value_t = QueueWhenFull::RefuseNewest)]
    pub queue_when_full: QueueWhenFull,

    /// With --queue-when-full sample: the percentage of jobs that is admitted while the queue is at least half full.
    #[arg(
        long, env = "SERVER_QUEUE_SAMPLE_PERCENT", value_name = "N", default_value_t = 50,
        value_parser = clap::value_parser!(u8).range(1..=99)
    )]
    pub queue_sample_percent: u8,

    /// Whether the limit of jobs in flight (waiting and running) changes with their latency.
    #[arg(long, env = "SERVER_QUEUE_BOUND", value_name = "HOW", value_enum, default_value_t = QueueBound::Static)]
    pub queue_bound: QueueBound,
}

/// The names of [`Discipline`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum QueueDiscipline {
    /// The oldest
    Fifo,
    /// The oldest; the newest while the oldest has waited for 100 ms
    NewestFirst,
    /// The oldest; while every wait within 100 ms was above 5 ms, jobs that waited longer than 10 ms are shed
    Codel,
}

/// The names of [`WhenFull`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum QueueWhenFull {
    /// The new job
    RefuseNewest,
    /// The job that has waited longest
    DropOldest,
    /// All but an even sample, from half full on
    Sample,
}

/// The names of [`Concurrency`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum QueueBound {
    /// It is --workers + --queue-jobs-max
    Static,
    /// It is lower while latency rises (Gradient2)
    Gradient,
}

impl PoolArgs {
    /// Sets what the flags say.
    pub(crate) fn apply(&self, pool: &mut worker_pool::Config) {
        pool.threads = self.workers;
        pool.limits.queue_jobs_max = self.queue_jobs_max;
        pool.limits.wait_max = self.queue_wait_max.0;
        pool.limits.standing_wait_max = self.queue_standing_wait_max.0;
        pool.policy.discipline = match self.queue_discipline {
            QueueDiscipline::Fifo => Discipline::Fifo,
            QueueDiscipline::NewestFirst => Discipline::NEWEST_FIRST,
            QueueDiscipline::Codel => Discipline::CODEL,
        };
        pool.policy.when_full = match self.queue_when_full {
            QueueWhenFull::RefuseNewest => WhenFull::RefuseNewest,
            QueueWhenFull::DropOldest => WhenFull::DropOldest,
            QueueWhenFull::Sample => WhenFull::Sample { keep_percent: self.queue_sample_percent },
        };
        pool.policy.concurrency = match self.queue_bound {
            QueueBound::Static => Concurrency::Static,
            QueueBound::Gradient => Concurrency::Gradient(Gradient::default()),
        };
    }
}
