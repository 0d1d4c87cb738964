//! The flags of the worker pool: how much may wait, for how long, in which order, and what gives way.
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
    /// Worker threads for jobs. Default: the cores that the loops leave, at least two.
    #[arg(
        long, env = "SERVER_WORKERS", value_name = "N",
        default_value_t = default_workers(),
        value_parser = clap::value_parser!(u32).range(1..=4096)
    )]
    pub workers: u32,

    /// Jobs that may wait for a worker. One more is answered 503 with Retry-After.
    #[arg(
        long, env = "SERVER_QUEUE_JOBS_MAX", value_name = "N",
        default_value_t = Config::default().pool.limits.queue_jobs_max,
        value_parser = clap::value_parser!(u32).range(1..=10_000_000)
    )]
    pub queue_jobs_max: u32,

    /// A job that would wait longer than this for a worker is answered 503 at once. Never more than half of --job-deadline.
    #[arg(
        long, env = "SERVER_QUEUE_WAIT_MAX", value_name = "TIME",
        default_value_t = Time(Config::default().pool.limits.wait_max),
        value_parser = time_above_zero
    )]
    pub queue_wait_max: Time,

    /// The same once every worker has been busy for as long as --queue-wait-max: that is no burst that passes.
    #[arg(
        long, env = "SERVER_QUEUE_STANDING_WAIT_MAX", value_name = "TIME",
        default_value_t = Time(Config::default().pool.limits.standing_wait_max),
        value_parser = time_above_zero
    )]
    pub queue_standing_wait_max: Time,

    /// Which waiting job is next.
    #[arg(long, env = "SERVER_QUEUE_DISCIPLINE", value_name = "HOW", value_enum, default_value_t = QueueDiscipline::Fifo)]
    pub queue_discipline: QueueDiscipline,

    /// What gives way when no more may wait.
    #[arg(long, env = "SERVER_QUEUE_WHEN_FULL", value_name = "WHAT", value_enum, default_value_t = QueueWhenFull::RefuseNewest)]
    pub queue_when_full: QueueWhenFull,

    /// With --queue-when-full sample: the part of the jobs, in percent, that is kept from a half-full queue on.
    #[arg(
        long, env = "SERVER_QUEUE_SAMPLE_PERCENT", value_name = "N", default_value_t = 50,
        value_parser = clap::value_parser!(u8).range(1..=99)
    )]
    pub queue_sample_percent: u8,

    /// Whether the bound on jobs in flight, waiting and running, moves with their latency.
    #[arg(long, env = "SERVER_QUEUE_BOUND", value_name = "HOW", value_enum, default_value_t = QueueBound::Static)]
    pub queue_bound: QueueBound,
}

/// The names of [`Discipline`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum QueueDiscipline {
    /// The oldest
    Fifo,
    /// The oldest; the newest as long as the oldest has waited for 100 ms
    NewestFirst,
    /// The oldest; while every wait of 100 ms was over 5 ms, those that waited over 10 ms are shed
    Codel,
}

/// The names of [`WhenFull`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum QueueWhenFull {
    /// The job that wants in
    RefuseNewest,
    /// The job that has waited longest
    DropOldest,
    /// All but an even sample, from half full on
    Sample,
}

/// The names of [`Concurrency`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum QueueBound {
    /// --workers and --queue-jobs-max
    Static,
    /// Below that it follows the gradient of latency
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
