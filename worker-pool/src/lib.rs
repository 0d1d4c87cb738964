//! Bounded threads for work that blocks or burns CPU, so that an event loop does not have to.
//!
//! A loop offers a job with [`Submitter::try_submit`], which never blocks: the job is admitted, or it is given back with the reason. Each
//! admitted job ends in exactly one call of [`Job::complete`]. Under overload the pool works at its capacity, on jobs whose clients still
//! wait.
//!
//! The smallest use:
//!
//! ```
//! use std::sync::mpsc::{Sender, channel};
//! use std::time::{Duration, Instant};
//! use worker_pool::{Checkpoint, Config, Job, Outcome, Pool, Terms};
//!
//! struct Sum { up_to: u64, reply: Sender<Option<u64>> }
//!
//! impl Job for Sum {
//!     type Output = u64;
//!     fn run(&mut self, checkpoint: &Checkpoint<'_>) -> u64 {
//!         (0..self.up_to).take_while(|i| i % 4096 != 0 || !checkpoint.stop_requested()).sum()
//!     }
//!     fn complete(self, outcome: Outcome<u64>) {
//!         let sum = match outcome { Outcome::Done(sum) => Some(sum), _ => None };
//!         let _ = self.reply.send(sum); // Fails when the client has disconnected.
//!     }
//! }
//!
//! let pool = Pool::start(Config::default())?;
//! let (reply, replies) = channel();
//! let now = Instant::now();
//! let terms = Terms { deadline: Some(now + Duration::from_secs(10)), ..Terms::default() };
//! if let Err(rejected) = pool.submitter().try_submit(Sum { up_to: 1_000, reply }, terms, now) {
//!     println!("try again in {:?}: {:?}", rejected.retry_after, rejected.reason);
//! }
//! assert_eq!(replies.recv(), Ok(Some(499_500)));
//! assert!(pool.shutdown(Duration::from_secs(10)).is_clean());
//! # Ok::<(), worker_pool::StartError>(())
//! ```
//!
//! Reading order: `job.rs` (what a job is), `submit.rs` (how it enters the pool), `admission.rs` and `permits.rs` (whether it is admitted),
//! `queue.rs` (which job is next), `scheduler.rs` (what a free worker does), `worker.rs` (how a job runs), `deadlines.rs` (how it expires),
//! `completion.rs` (how it ends), `shutdown.rs` (how the pool ends). `limits.rs` and `policy.rs` hold what can be configured, `resolved_config.rs` what
//! follows from it, `stats.rs` what is counted, `mistakes.rs` the deliberate mistakes.

pub mod admission;
mod catch_panic;
pub mod codel;
mod completion;
mod deadlines;
mod errors;
pub mod gradient;
mod histogram;
mod job;
mod job_channel;
mod limits;
#[cfg(loom)]
#[doc(hidden)]
pub mod loom_model;
#[cfg(feature = "mistakes")]
pub mod mistakes;
mod permits;
mod policy;
mod pool;
pub mod queue;
mod rejection;
mod resolved_config;
mod scheduler;
mod shutdown;
mod state;
mod stats;
mod submit;
mod sync;
#[cfg(not(loom))]
mod sys;
mod worker;

pub use errors::{ConfigError, StartError};
pub use histogram::{BUCKETS, Histogram, HistogramSnapshot};
pub use job::{CancelFlag, Checkpoint, Class, Job, Outcome, OutcomeKind, Terms, Unfinished};
pub use limits::{Config, Limits, QUEUE_JOBS_MAX, STANDING_WAIT_MAX_DEFAULT, THREADS_MAX, WAIT_MAX_DEFAULT};
#[cfg(feature = "mistakes")]
pub use mistakes::MISTAKES;
pub use permits::InFlight;
pub use policy::{
    Abandoned, Admission, Capacity, Concurrency, Discipline, Gradient, Panics, Policy, Shutdown, SlowShare, ThreadModel, WhenFull,
};
#[cfg(not(loom))]
pub use pool::Pool;
pub use rejection::{Reason, Rejected};
pub use resolved_config::ResolvedConfig;
pub use shutdown::ShutdownReport;
pub use stats::Stats;
pub use submit::Submitter;
