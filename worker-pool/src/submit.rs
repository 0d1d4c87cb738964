//! How a job enters the pool: without blocking, and without a lock that a worker can hold. A rejected job is given back.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::admission;
use crate::completion::AdmittedJob;
use crate::job::{Class, Job, Terms};
use crate::job_channel::{Message, Sender, TrySendError};
use crate::permits::NoPermit;
use crate::policy::WhenFull;
use crate::rejection::{Reason, Rejected};
use crate::state::PoolState;

/// The submitting end of a pool. Cheap to clone; one for each loop.
pub struct Submitter<J: Job> {
    sender: Sender<Message<AdmittedJob<J>>>,
    state: Arc<PoolState>,
}

impl<J: Job> Clone for Submitter<J> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), state: Arc::clone(&self.state) }
    }
}

impl<J: Job> fmt::Debug for Submitter<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitter").field("stats", &self.state.stats).finish_non_exhaustive()
    }
}

impl<J: Job> Submitter<J> {
    pub(crate) fn new(sender: Sender<Message<AdmittedJob<J>>>, state: Arc<PoolState>) -> Self {
        Self { sender, state }
    }

    /// Offers a job to the pool.
    ///
    /// Never blocks. `now` is the caller's clock, read once per turn of its loop.
    ///
    /// # Errors
    /// Gives the job back, with the reason, when no permit is free, when the job would wait too long or expire first, or when the pool is
    /// shutting down.
    pub fn try_submit(&self, job: J, terms: Terms, now: Instant) -> Result<(), Rejected<J>> {
        let (class, deadline) = (terms.class, terms.deadline);
        if let Err(reason) = self.admit(&terms, now) {
            return Err(self.reject(job, reason, class));
        }
        let admitted = AdmittedJob::new(job, terms, now, Arc::clone(&self.state));
        let (refused, reason) = match self.sender.try_send(Message::Job(admitted)) {
            Ok(()) => {
                self.state.stats.note_oldest_if_none(now);
                if let Some(deadline) = deadline
                    && self.state.resolved.checks_terms()
                {
                    // After the send, so that the look for expired jobs finds this one.
                    self.state.alarm.arm(deadline);
                }
                return Ok(());
            }
            // Every worker is gone: the pool was shut down after this submitter took its permit.
            Err(TrySendError::Disconnected(refused)) => (refused, Reason::Stopping),
            // Cannot happen: the channel has a slot for every permit. If it does, the job is not lost.
            Err(TrySendError::Full(refused)) => (refused, Reason::QueueFull),
        };
        match refused {
            Message::Job(admitted) => match admitted.take_back() {
                Some(job) => Err(self.reject(job, reason, class)),
                None => unreachable!("a job that no worker saw was answered"),
            },
            Message::Wake | Message::Stop => {
                unreachable!("the channel gave back another message than was sent")
            }
        }
    }

    /// How long a job on these terms would wait if it were admitted now.
    pub fn expected_wait(&self, terms: &Terms) -> Duration {
        self.state.expected_wait(terms.class)
    }

    fn reject(&self, job: J, reason: Reason, class: Class) -> Rejected<J> {
        self.state.stats.rejected(reason);
        let retry_after = match reason {
            Reason::Stopping => Duration::ZERO,
            _ => self.state.expected_wait(class),
        };
        Rejected { job, reason, retry_after }
    }

    /// Takes a permit, or returns the reason for not taking one.
    fn admit(&self, terms: &Terms, now: Instant) -> Result<(), Reason> {
        let state = &*self.state;
        // Only for the reason. Whether the pool is closed is decided together with the permit, below.
        if state.stats.permits.is_closed() {
            return Err(Reason::Stopping);
        }
        let resolved = &state.resolved;
        let in_flight = state.stats.permits.in_flight();
        let estimate = state.stats.estimate(terms.class);
        admission::check(resolved, terms, in_flight, estimate, now)?;
        if let WhenFull::Sample { keep_percent } = resolved.when_full
            && admission::under_pressure(resolved, terms.class, in_flight, estimate.run_mean.load())
        {
            let n = state.offered_under_pressure.fetch_add(1, Ordering::Relaxed);
            if !admission::sample_keeps(n, keep_percent) {
                return Err(Reason::Sampled);
            }
        }
        let limit = state.stats.limit().min(resolved.in_flight_max);
        let permit = state.stats.permits.try_acquire(terms.class, limit, resolved.slow_in_flight_max);
        permit.map_err(|why| match why {
            NoPermit::Closed => Reason::Stopping,
            NoPermit::SlowTaken => Reason::SlowShareFull,
            NoPermit::AllTaken if limit < resolved.in_flight_max => Reason::LimitReached,
            NoPermit::AllTaken => Reason::QueueFull,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Checkpoint, Outcome};

    /// `Send` but not `Sync`: a job moves between threads and is never shared.
    struct NotSync(std::cell::Cell<u32>);

    impl Job for NotSync {
        type Output = ();
        fn run(&mut self, _: &Checkpoint<'_>) {
            self.0.set(1);
        }
        fn complete(self, _: Outcome<()>) {}
    }

    #[test]
    fn a_submitter_can_be_shared_by_loops_even_when_its_jobs_are_not_sync() {
        fn shareable<T: Send + Sync + Clone + 'static>() {}
        shareable::<Submitter<NotSync>>();
    }
}
