//! Shutdown: no more jobs are admitted, and every admitted job is answered.
//!
//! The permits are closed first. From then on the number of jobs in flight only falls, so the pool reaches the state in which every job is
//! answered.

use crate::job::{Job, PHASE_DROPPING, PHASE_FINISHING};
use crate::policy::Shutdown;
use crate::pool::Parts;

impl<J: Job> Parts<J> {
    /// Admits no more jobs, and wakes every worker to look at the phase.
    pub(crate) fn close(&self, phase: u8) {
        self.state.stats.permits.close();
        self.state.raise_phase(phase);
        self.scheduler.wake_all();
    }

    /// Lets what was admitted run, or answers it with `Dropped`.
    pub(crate) fn begin_shutdown(&self) {
        match self.state.resolved.shutdown {
            Shutdown::Finish => self.close(PHASE_FINISHING),
            Shutdown::Drop => self.drop_waiting(),
        }
    }

    /// Answers waiting jobs with `Dropped`, and asks running jobs to stop.
    pub(crate) fn drop_waiting(&self) {
        self.close(PHASE_DROPPING);
        // The workers do it as well, but all of them may be busy.
        self.scheduler.drop_waiting();
    }
}

/// How a shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Jobs answered with `Dropped`, now or earlier.
    pub jobs_dropped: u64,
    /// Worker threads that still run a job. A job that does not ask its checkpoint cannot be ended from outside; it is completed when it
    /// ends, unless the process ends first.
    pub threads_left: u32,
}

impl ShutdownReport {
    /// Whether every admitted job ran and every worker thread has ended.
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
        /// Stops the pool. Blocks until every thread has ended, for `grace` at most.
        ///
        /// With `Shutdown::Finish`, waiting and running jobs have nine tenths of `grace`. Then, and at once with `Shutdown::Drop`, waiting
        /// jobs are answered with `Dropped` and running jobs are asked to stop at their checkpoint. New jobs are rejected as `Stopping`
        /// from the first moment.
        pub fn shutdown(mut self, grace: Duration) -> ShutdownReport {
            let now = Instant::now();
            self.parts.begin_shutdown();
            // A grace time that the clock cannot express has no end.
            let end = now.checked_add(grace);
            if self.parts.state.resolved.shutdown == Shutdown::Finish {
                wait_until(&self.workers_ended, end.and_then(|end| end.checked_sub(grace / GRACE_PARTS)));
            }
            self.parts.drop_waiting();
            wait_until(&self.workers_ended, end);
            wait_until(&self.watcher_ended, end);
            for thread in self.threads.drain(..).filter(|thread| thread.is_finished()) {
                // A panic was reported by the panic hook, and contained by the thread itself.
                let _ = thread.join();
            }
            let stats = &self.parts.state.stats;
            ShutdownReport { jobs_dropped: stats.outcomes(OutcomeKind::Dropped), threads_left: stats.threads_alive() }
        }
    }

    fn wait_until(ended: &Receiver<()>, end: Option<Instant>) {
        // No message is ever sent: it returns at that time, or when the last sender is gone.
        let _ = match end {
            Some(end) => ended.recv_deadline(end).map_err(drop),
            None => ended.recv().map_err(drop),
        };
    }

    impl<J: Job> Drop for Pool<J> {
        fn drop(&mut self) {
            // After `shutdown` no job is left. Without it, the waiting jobs are answered here.
            self.parts.drop_waiting();
        }
    }
}
