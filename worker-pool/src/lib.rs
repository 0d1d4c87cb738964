//! Bounded threads for work that blocks or burns CPU, so that an event loop never has to.
//!
//! A loop offers a job with [`Submitter::try_submit`], which never blocks: the job is admitted, or comes
//! back with the reason. Each admitted job ends in exactly one [`Job::complete`], whatever happens to it.
//! Under any offered load the pool works at its capacity, on jobs that somebody still waits for.
//!
//! The smallest use:
//!
//! ```
//! use std::sync::mpsc::{Sender, channel};
//! use std::time::{Duration, Instant};
//! use worker_pool::{Checkpoint, Config, Job, Outcome, Pool, Terms};
//!
//! struct Sum { up_to: u64, tell: Sender<Option<u64>> }
//!
//! impl Job for Sum {
//!     type Output = u64;
//!     fn run(&mut self, checkpoint: &Checkpoint<'_>) -> u64 {
//!         (0..self.up_to).take_while(|i| i % 4096 != 0 || !checkpoint.stop_requested()).sum()
//!     }
//!     fn complete(self, outcome: Outcome<u64>) {
//!         let sum = match outcome { Outcome::Done(sum) => Some(sum), _ => None };
//!         let _ = self.tell.send(sum); // Nobody may be left to hear it.
//!     }
//! }
//!
//! let pool = Pool::start(Config::default())?;
//! let (tell, told) = channel();
//! let now = Instant::now();
//! let terms = Terms { deadline: Some(now + Duration::from_secs(10)), ..Terms::default() };
//! if let Err(refused) = pool.submitter().try_submit(Sum { up_to: 1_000, tell }, terms, now) {
//!     println!("try again in {:?}: {:?}", refused.retry_after, refused.reason);
//! }
//! assert_eq!(told.recv(), Ok(Some(499_500)));
//! assert!(pool.shutdown(Duration::from_secs(10)).is_clean());
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Reading order: `job.rs` (what a job is), `submit.rs` (how it enters), `permits.rs` and `admission.rs`
//! (whether it may), `waiting.rs` (which is next), `worker.rs` (how it runs), `deadlines.rs` (how it
//! expires), `completion.rs` (how it ends), `shutdown.rs` (how all ends). `limits.rs` and `policy.rs` hold what can be chosen, `rules.rs`
//! what it comes to, `stats.rs` what is counted, `mistakes.rs` what can be done wrong on purpose.

pub mod admission;
pub mod codel;
mod completion;
mod contain;
mod deadlines;
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
pub use limits::{Config, Limits, QUEUE_JOBS_MAX, STANDING_WAIT_MAX_DEFAULT, THREADS_MAX, WAIT_MAX_DEFAULT};
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
