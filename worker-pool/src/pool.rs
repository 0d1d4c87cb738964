//! The pool as a whole: its parts put together, its threads started.
//!
//! Next: `submit.rs`, `worker.rs`, `shutdown.rs`.

use std::fmt;
use std::sync::Arc;

use crate::completion::Admitted;
use crate::front::{self, Message, Sender};
use crate::job::Job;
use crate::ledger::Ledger;
use crate::limits::Config;
use crate::rules::Rules;
use crate::submit::Submitter;
use crate::worker::Workshop;

/// Both ends of a pool that has no threads yet.
pub(crate) struct Parts<J: Job> {
    pub(crate) front: Sender<Message<Admitted<J>>>,
    pub(crate) workshop: Arc<Workshop<J>>,
    pub(crate) ledger: Arc<Ledger>,
}

impl<J: Job> Parts<J> {
    pub(crate) fn new(config: &Config) -> Self {
        let rules = Rules::resolve(config);
        let (front, receiver) = match rules.unbounded() {
            true => front::unbounded(),
            // A place for each permit, for one `More`, and for a `Stop` to each thread.
            false => front::bounded(rules.in_flight_max as usize + 1 + rules.threads as usize),
        };
        let ledger = Arc::new(Ledger::new(rules));
        let workshop = Arc::new(Workshop::new(receiver, front.clone(), Arc::clone(&ledger)));
        Self { front, workshop, ledger }
    }

    pub(crate) fn submitter(&self) -> Submitter<J> {
        Submitter::new(self.front.clone(), Arc::clone(&self.ledger))
    }
}

impl<J: Job> fmt::Debug for Parts<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("stats", &self.ledger.stats).finish_non_exhaustive()
    }
}

#[cfg(not(loom))]
pub use threads::Pool;

#[cfg(not(loom))]
mod threads {
    use std::io;
    use std::sync::Arc;
    use std::thread::{Builder, JoinHandle};

    use crossbeam_channel::{Receiver, Sender, bounded};

    use super::Parts;
    use crate::contain::contain;
    use crate::job::Job;
    use crate::ledger::Ledger;
    use crate::limits::Config;
    use crate::rules::Rules;
    use crate::stats::Stats;
    use crate::submit::Submitter;
    use crate::sys;
    use crate::worker::Workshop;

    /// A running pool. Dropping it stops it as `Shutdown::Drop` does, without waiting.
    #[derive(Debug)]
    pub struct Pool<J: Job> {
        pub(crate) parts: Parts<J>,
        pub(crate) threads: Vec<JoinHandle<()>>,
        /// Disconnected when the last worker has ended.
        pub(crate) all_ended: Receiver<()>,
        /// Disconnected when the thread that watches the deadlines has ended.
        pub(crate) watcher_ended: Receiver<()>,
    }

    impl<J: Job> Pool<J> {
        /// Starts the threads.
        ///
        /// # Errors
        /// `InvalidInput` when the configuration makes no sense; what the system says when a thread
        /// cannot be started (those that were are ended again).
        pub fn start(config: Config) -> io::Result<Self> {
            config.check()?;
            let parts = Parts::new(&config);
            let (alive, all_ended) = bounded(0);
            let (watching, watcher_ended) = bounded(0);
            let mut pool = Self { parts, threads: Vec::new(), all_ended, watcher_ended };
            // When a thread cannot be started, dropping `pool` ends those that were.
            for i in 0..config.threads {
                let workshop = Arc::clone(&pool.parts.workshop);
                let life = Life::begin(Arc::clone(&pool.parts.ledger), alive.clone());
                let nice = config.nice_increment;
                pool.start_thread(format!("worker-{i}"), move || {
                    let _life = life;
                    // What a panic carries ends here: std aborts the process when the `Drop` of a thread's result panics.
                    let _ = contain(|| work(&workshop, nice));
                })?;
            }
            let workshop = Arc::clone(&pool.parts.workshop);
            pool.start_thread("pool-deadlines".to_owned(), move || {
                let _watching = watching;
                // With the priority of the loops: a response that is due must not wait for jobs that compute.
                workshop.watch_deadlines();
            })?;
            Ok(pool)
        }

        fn start_thread(&mut self, name: String, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
            let thread = Builder::new().name(name.clone()).spawn(body);
            self.threads.push(thread.map_err(|error| io::Error::new(error.kind(), format!("starting thread {name}: {error}")))?);
            Ok(())
        }

        /// A submitting end: one for each thread that submits.
        pub fn submitter(&self) -> Submitter<J> {
            self.parts.submitter()
        }

        /// The counters, for any thread to read.
        pub fn stats(&self) -> Arc<Stats> {
            Arc::clone(&self.parts.ledger.stats)
        }

        /// What the configuration came to: threads, bounds, shares.
        pub fn rules(&self) -> &Rules {
            &self.parts.ledger.rules
        }
    }

    fn work<J: Job>(workshop: &Arc<Workshop<J>>, nice: i32) {
        if nice > 0
            && let Err(error) = sys::add_nice_to_this_thread(nice)
        {
            // Slower for the loops, but no reason to refuse service.
            let _ = contain(|| log::warn!("a worker thread keeps the priority of the loops: {error}"));
        }
        workshop.work();
    }

    /// Counts a worker while it lives, however it ends.
    struct Life {
        ledger: Arc<Ledger>,
        _alive: Sender<()>,
    }

    impl Life {
        fn begin(ledger: Arc<Ledger>, alive: Sender<()>) -> Self {
            ledger.stats.thread_started();
            Self { ledger, _alive: alive }
        }
    }

    impl Drop for Life {
        fn drop(&mut self) {
            self.ledger.stats.thread_ended();
            // At shutdown the watcher ends after the last worker.
            self.ledger.alarm.look_now();
        }
    }
}
