//! Bounded threads for work that blocks or burns CPU, so that an event loop never has to.
//!
//! A loop offers a job with [`Submitter::try_submit`], which never blocks: the job is admitted, or comes
//! back with the reason. Each admitted job ends in exactly one [`Job::complete`], whatever happens to it.
//! Under any offered load the pool works at its capacity, on jobs that somebody still waits for.
//!
//! Reading order: `job.rs` (what a job is), `submit.rs` (how it enters), `permits.rs` and `admission.rs`
//! (whether it may), `waiting.rs` (which is next), `worker.rs` (how it runs), `completion.rs` (how it
//! ends), `shutdown.rs` (how all ends). `limits.rs` and `policy.rs` hold what can be chosen, `rules.rs`
//! what it comes to, `stats.rs` what is counted, `mistakes.rs` what can be done wrong on purpose.

pub mod admission;
pub mod codel;
mod completion;
mod front;
pub mod gradient;
mod histogram;
mod job;
mod ledger;
mod limits;
#[cfg(loom)]
#[doc(hidden)]
pub mod loom_model;
pub mod mistakes;
mod permits;
mod policy;
mod pool;
mod rules;
mod shutdown;
mod stats;
mod submit;
mod sync;
#[cfg(not(loom))]
mod sys;
pub mod waiting;
mod worker;

pub use histogram::{BUCKETS, Histogram, HistogramSnapshot};
pub use job::{CancelFlag, Checkpoint, Class, Job, Outcome, OutcomeKind, Terms, Unfinished};
pub use limits::{Config, Limits, QUEUE_JOBS_MAX, THREADS_MAX, WAIT_MAX_DEFAULT};
pub use mistakes::MISTAKES;
pub use permits::InFlight;
pub use policy::{
    Abandoned, Admission, Concurrency, Discipline, Gradient, Panics, Placement, Policy, Queue, Shutdown, SlowShare, WhenFull,
};
#[cfg(not(loom))]
pub use pool::Pool;
pub use rules::Rules;
pub use shutdown::ShutdownReport;
pub use stats::Stats;
pub use submit::{Reason, Rejected, Submitter};
