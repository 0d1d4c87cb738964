//! The pool without its threads, for model checks: the check starts loom's threads.

use std::sync::Arc;

use crate::job::Job;
use crate::limits::Config;
use crate::pool::Parts;
use crate::stats::Stats;
use crate::submit::Submitter;
use crate::worker;

/// What `Pool` is made of. Clones of the workers' part share one pool.
pub struct LoomPool<J: Job>(Parts<J>);

impl<J: Job> LoomPool<J> {
    /// The parts of a pool that this configuration makes.
    pub fn new(config: &Config) -> Self {
        Self(Parts::new(config))
    }

    /// As `Pool::submitter`.
    pub fn submitter(&self) -> Submitter<J> {
        self.0.submitter()
    }

    /// A worker thread's whole life.
    pub fn worker(&self) -> impl FnOnce() + Send + 'static {
        let scheduler = Arc::clone(&self.0.scheduler);
        move || worker::work(&scheduler)
    }

    /// The whole life of the thread that answers jobs when they expire.
    pub fn deadline_watcher(&self) -> impl FnOnce() + Send + 'static {
        let scheduler = Arc::clone(&self.0.scheduler);
        move || scheduler.watch_deadlines()
    }

    /// The first step of `Pool::shutdown`.
    pub fn begin_shutdown(&self) {
        self.0.begin_shutdown();
    }

    /// The step of `Pool::shutdown` after the grace time.
    pub fn drop_waiting(&self) {
        self.0.drop_waiting();
    }

    /// As `Pool::stats`.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.0.state.stats)
    }
}
