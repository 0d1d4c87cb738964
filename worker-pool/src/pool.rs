//! The pool: its parts put together, its threads started.

use std::fmt;
use std::sync::Arc;

use crate::completion::AdmittedJob;
use crate::job::Job;
use crate::job_channel::{self, Message, Sender};
use crate::limits::Config;
use crate::resolved_config::ResolvedConfig;
use crate::scheduler::Scheduler;
use crate::state::PoolState;
use crate::submit::Submitter;

/// A pool without its threads.
pub(crate) struct Parts<J: Job> {
    sender: Sender<Message<AdmittedJob<J>>>,
    pub(crate) scheduler: Arc<Scheduler<J>>,
    pub(crate) state: Arc<PoolState>,
}

impl<J: Job> Parts<J> {
    pub(crate) fn new(config: &Config) -> Self {
        let resolved = ResolvedConfig::of(config);
        let (sender, receiver) = match resolved.unbounded() {
            true => job_channel::unbounded(),
            // A slot for each permit, for one `Wake`, and for a `Stop` to each thread.
            false => job_channel::bounded(resolved.in_flight_max as usize + 1 + resolved.threads as usize),
        };
        let state = Arc::new(PoolState::new(resolved));
        let scheduler = Arc::new(Scheduler::new(receiver, sender.clone(), Arc::clone(&state)));
        Self { sender, scheduler, state }
    }

    pub(crate) fn submitter(&self) -> Submitter<J> {
        Submitter::new(self.sender.clone(), Arc::clone(&self.state))
    }
}

impl<J: Job> fmt::Debug for Parts<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("stats", &self.state.stats).finish_non_exhaustive()
    }
}

#[cfg(not(loom))]
pub use threads::Pool;

#[cfg(not(loom))]
mod threads {
    use std::sync::Arc;
    use std::thread::{Builder, JoinHandle};

    use crossbeam_channel::{Receiver, Sender, bounded};

    use super::Parts;
    use crate::catch_panic::catch_panic;
    use crate::errors::StartError;
    use crate::job::Job;
    use crate::limits::Config;
    use crate::resolved_config::ResolvedConfig;
    use crate::scheduler::Scheduler;
    use crate::state::PoolState;
    use crate::stats::Stats;
    use crate::submit::Submitter;
    use crate::{sys, worker};

    /// A running pool. Dropping it stops it as `Shutdown::Drop` does, without waiting.
    #[derive(Debug)]
    pub struct Pool<J: Job> {
        pub(crate) parts: Parts<J>,
        pub(crate) threads: Vec<JoinHandle<()>>,
        /// Disconnected when the last worker has ended.
        pub(crate) workers_ended: Receiver<()>,
        /// Disconnected when the thread that watches the deadlines has ended.
        pub(crate) watcher_ended: Receiver<()>,
    }

    impl<J: Job> Pool<J> {
        /// Starts the threads: `worker-0` and so on, and `pool-deadlines`.
        ///
        /// # Errors
        /// When the configuration cannot work, or the system does not start a thread. Threads that were started end again.
        pub fn start(config: Config) -> Result<Self, StartError> {
            config.check()?;
            let parts = Parts::new(&config);
            let (worker_alive, workers_ended) = bounded(0);
            let (watcher_alive, watcher_ended) = bounded(0);
            let mut pool = Self { parts, threads: Vec::new(), workers_ended, watcher_ended };
            // When a thread cannot be started, dropping `pool` ends the others.
            for i in 0..config.threads {
                let scheduler = Arc::clone(&pool.parts.scheduler);
                let guard = WorkerGuard::new(Arc::clone(&pool.parts.state), worker_alive.clone());
                let nice = config.nice_increment;
                pool.start_thread(format!("worker-{i}"), move || {
                    let _guard = guard;
                    // What a panic carries is dropped here: std aborts the process when the `Drop` of a thread's result panics.
                    let _ = catch_panic(|| work(&scheduler, nice));
                })?;
            }
            let scheduler = Arc::clone(&pool.parts.scheduler);
            pool.start_thread("pool-deadlines".to_owned(), move || {
                let _alive = watcher_alive;
                // It keeps the priority of the loops, so that a response that is due does not wait for jobs that compute.
                scheduler.watch_deadlines();
            })?;
            Ok(pool)
        }

        fn start_thread(&mut self, name: String, body: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
            let thread = Builder::new().name(name.clone()).spawn(body);
            self.threads.push(thread.map_err(|source| StartError::Thread { name, source })?);
            Ok(())
        }

        /// A submitting end: one for each thread that submits.
        pub fn submitter(&self) -> Submitter<J> {
            self.parts.submitter()
        }

        /// The counters, for any thread to read.
        pub fn stats(&self) -> Arc<Stats> {
            Arc::clone(&self.parts.state.stats)
        }

        /// The numbers and flags that follow from the configuration.
        pub fn resolved_config(&self) -> &ResolvedConfig {
            &self.parts.state.resolved
        }
    }

    fn work<J: Job>(scheduler: &Arc<Scheduler<J>>, nice: i32) {
        if nice > 0
            && let Err(error) = sys::add_nice_to_this_thread(nice)
        {
            // The loops are slower for it, but that is no reason to refuse service.
            let _ = catch_panic(|| log::warn!("a worker thread keeps the priority of the loops: {error}"));
        }
        worker::work(scheduler);
    }

    /// Counts a worker thread while it lives. Its `Drop` runs when the thread returns and when it panics.
    struct WorkerGuard {
        state: Arc<PoolState>,
        _alive: Sender<()>,
    }

    impl WorkerGuard {
        fn new(state: Arc<PoolState>, alive: Sender<()>) -> Self {
            state.stats.thread_started();
            Self { state, _alive: alive }
        }
    }

    impl Drop for WorkerGuard {
        fn drop(&mut self) {
            self.state.stats.thread_ended();
            // At shutdown the thread that watches the deadlines ends after the last worker.
            self.state.alarm.look_now();
        }
    }
}
