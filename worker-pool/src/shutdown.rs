//! The end of a pool: nothing more gets in, and whatever got in is answered.
//!
//! Closing the permits comes first. From then on the jobs in flight can only become fewer, so "everything
//! is answered" is a state that is reached, and not a moment that is hoped for.

use crate::job::{Job, PHASE_DROPPING, PHASE_FINISHING};
use crate::policy::Shutdown;
use crate::pool::Parts;

impl<J: Job> Parts<J> {
    /// Admits nothing more, and tells every worker.
    pub(crate) fn close(&self, phase: u8) {
        self.ledger.stats.permits.close();
        self.ledger.raise_phase(phase);
        self.workshop.wake_all();
    }

    /// Lets what was admitted run, or answers it with `Dropped`.
    pub(crate) fn begin_shutdown(&self) {
        match self.ledger.rules.shutdown {
            Shutdown::Finish => self.close(PHASE_FINISHING),
            Shutdown::Drop => self.drop_waiting(),
        }
    }

    /// Answers what waits with `Dropped`, and asks what runs to stop.
    pub(crate) fn drop_waiting(&self) {
        self.close(PHASE_DROPPING);
        // The workers would do it as well, but all of them may be busy.
        self.workshop.drop_waiting();
    }
}

/// How a shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Jobs answered with `Dropped`, now or earlier.
    pub jobs_dropped: u64,
    /// Threads that still run a job which does not ask its checkpoint. They cannot be ended from outside;
    /// each completes its job when it ends, unless the process ends first.
    pub threads_left: u32,
}

impl ShutdownReport {
    /// Every admitted job ran and every thread has ended.
    pub fn is_clean(&self) -> bool {
        self.jobs_dropped == 0 && self.threads_left == 0
    }
}

#[cfg(not(loom))]
mod threads {
    use std::time::{Duration, Instant};

    use crossbeam_channel::Receiver;

    use super::*;
    use crate::job::OutcomeKind;
    use crate::pool::Pool;

    /// The last part of the grace time is for running jobs to reach a checkpoint after they were asked.
    const GRACE_PARTS: u32 = 10;

    impl<J: Job> Pool<J> {
        /// Stops the pool and returns within `grace`, or sooner, when every thread has ended.
        ///
        /// With `Shutdown::Finish`, waiting and running jobs have nine tenths of `grace`; then, and at
        /// once with `Shutdown::Drop`, what still waits is answered with `Dropped` and what runs is asked
        /// to stop at its checkpoint. New jobs are refused as `Stopping` from the first moment.
        pub fn shutdown(mut self, grace: Duration) -> ShutdownReport {
            let now = Instant::now();
            self.parts.begin_shutdown();
            // A grace beyond what the clock can count means: wait for as long as it takes.
            let end = now.checked_add(grace);
            if self.parts.ledger.rules.shutdown == Shutdown::Finish {
                wait_until(&self.all_ended, end.and_then(|end| end.checked_sub(grace / GRACE_PARTS)));
            }
            self.parts.drop_waiting();
            wait_until(&self.all_ended, end);
            wait_until(&self.watcher_ended, end);
            for thread in self.threads.drain(..).filter(|thread| thread.is_finished()) {
                // A thread that panicked was reported by the panic hook; here it has ended, which is all.
                let _ = thread.join();
            }
            let stats = &self.parts.ledger.stats;
            ShutdownReport { jobs_dropped: stats.outcomes(OutcomeKind::Dropped), threads_left: stats.threads_alive() }
        }
    }

    fn wait_until(ended: &Receiver<()>, end: Option<Instant>) {
        // Nothing is ever sent: it returns at the time, or when the last sender is gone.
        let _ = match end {
            Some(end) => ended.recv_deadline(end).map_err(drop),
            None => ended.recv().map_err(drop),
        };
    }

    impl<J: Job> Drop for Pool<J> {
        fn drop(&mut self) {
            // After `shutdown` this finds everything done. Without it, the jobs are answered all the same.
            self.parts.drop_waiting();
        }
    }
}
