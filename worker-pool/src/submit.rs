//! Where a job enters: never blocks, never takes a lock that a worker can hold, gives a refused job back.
//!
//! Next: `waiting.rs`, the queue behind the channel; `admission.rs`, the expected wait.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::admission;
use crate::completion::Admitted;
use crate::front::{Message, Sender, TrySendError};
use crate::job::{Job, Terms};
use crate::ledger::Ledger;
use crate::permits::NoPermit;
use crate::policy::WhenFull;

/// The submitting end of a pool. Cheap to clone; one for each loop.
pub struct Submitter<J: Job> {
    front: Sender<Message<Admitted<J>>>,
    ledger: Arc<Ledger>,
}

impl<J: Job> Clone for Submitter<J> {
    fn clone(&self) -> Self {
        Self { front: self.front.clone(), ledger: Arc::clone(&self.ledger) }
    }
}

impl<J: Job> fmt::Debug for Submitter<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitter").field("stats", &self.ledger.stats).finish_non_exhaustive()
    }
}

/// A job that was not admitted, given back whole. The caller still owes an answer.
pub struct Rejected<J> {
    /// The job; neither `run` nor `complete` was called.
    pub job: J,
    /// Why.
    pub reason: Reason,
    /// How long a job admitted now would have waited: when it may be worth asking again. The caller adds
    /// jitter, or all who were refused together come back together. Zero when nothing is known.
    pub retry_after: Duration,
}

impl<J> fmt::Debug for Rejected<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Rejected");
        out.field("reason", &self.reason).field("retry_after", &self.retry_after).finish_non_exhaustive()
    }
}

/// Why a job was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// As many jobs are in flight as `queue_jobs_max` and the threads allow.
    QueueFull,
    /// Slow jobs have their share of the queue; fast ones would still get in.
    SlowShareFull,
    /// The adaptive limit is reached.
    LimitReached,
    /// It would wait longer than `wait_max`.
    WaitTooLong,
    /// It would still be waiting, or running, when its deadline passes.
    WouldExpire,
    /// Under pressure only a share is kept, and this one is not in it.
    Sampled,
    /// The pool is shutting down.
    Stopping,
}

impl Reason {
    /// Every reason, in the order of its discriminant: for exporters.
    pub const ALL: [Self; 7] =
        [Self::QueueFull, Self::SlowShareFull, Self::LimitReached, Self::WaitTooLong, Self::WouldExpire, Self::Sampled, Self::Stopping];

    /// The name to use as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::SlowShareFull => "slow_share_full",
            Self::LimitReached => "limit_reached",
            Self::WaitTooLong => "wait_too_long",
            Self::WouldExpire => "would_expire",
            Self::Sampled => "sampled",
            Self::Stopping => "stopping",
        }
    }
}

impl<J: Job> Submitter<J> {
    pub(crate) fn new(front: Sender<Message<Admitted<J>>>, ledger: Arc<Ledger>) -> Self {
        Self { front, ledger }
    }

    /// Offers a job to the pool.
    ///
    /// # Errors
    /// Gives the job back, with the reason, when there is no room, when it would wait too long or for
    /// nothing, or when the pool stops.
    pub fn try_submit(&self, job: J, terms: Terms, now: Instant) -> Result<(), Rejected<J>> {
        match self.admit(&terms, now) {
            Ok(()) => {}
            Err(reason) => return Err(self.reject(job, reason, &terms)),
        }
        let class_terms = Terms { class: terms.class, ..Terms::default() };
        let deadline = terms.deadline;
        let admitted = Admitted::new(job, terms, now, Arc::clone(&self.ledger));
        let (refused, reason) = match self.front.try_send(Message::Job(admitted)) {
            Ok(()) => {
                self.ledger.stats.note_oldest_if_nobody(now);
                if let Some(deadline) = deadline
                    && self.ledger.rules.heeds_terms()
                {
                    // Only now, when a look would find the job.
                    self.ledger.alarm.arm(deadline);
                }
                return Ok(());
            }
            // Every worker is gone: the pool was shut down between our permit and our send.
            Err(TrySendError::Disconnected(refused)) => (refused, Reason::Stopping),
            // The channel has a place for every permit, so this cannot be; if it is, the job is not lost.
            Err(TrySendError::Full(refused)) => (refused, Reason::QueueFull),
        };
        match refused {
            Message::Job(admitted) => match admitted.take_back() {
                Some(job) => Err(self.reject(job, reason, &class_terms)),
                None => unreachable!("a job that nobody saw was answered"),
            },
            Message::More | Message::Stop => {
                unreachable!("another message came back than was sent")
            }
        }
    }

    /// How long a job on these terms would wait if it came now: for a caller that wants to know before.
    pub fn expected_wait(&self, terms: &Terms) -> Duration {
        self.ledger.expected_wait(terms.class)
    }

    fn reject(&self, job: J, reason: Reason, terms: &Terms) -> Rejected<J> {
        self.ledger.stats.rejected(reason);
        let retry_after = match reason {
            Reason::Stopping => Duration::ZERO,
            _ => self.ledger.expected_wait(terms.class),
        };
        Rejected { job, reason, retry_after }
    }

    /// Takes a permit, or says why not.
    fn admit(&self, terms: &Terms, now: Instant) -> Result<(), Reason> {
        let ledger = &*self.ledger;
        // For the reason alone: whether the pool is closed is decided together with the permit, below.
        if ledger.stats.permits.is_closed() {
            return Err(Reason::Stopping);
        }
        let rules = &ledger.rules;
        let in_flight = ledger.stats.permits.in_flight();
        let known = ledger.stats.known(terms.class);
        admission::check(rules, terms, in_flight, known, now)?;
        if let WhenFull::Sample { keep_percent } = rules.when_full
            && admission::under_pressure(rules, terms.class, in_flight, known.run_mean.load())
        {
            let n = ledger.offered.fetch_add(1, Ordering::Relaxed);
            if !admission::sample_keeps(n, keep_percent) {
                return Err(Reason::Sampled);
            }
        }
        let limit = ledger.stats.limit().min(rules.in_flight_max);
        let permit = ledger.stats.permits.try_acquire(terms.class, limit, rules.slow_in_flight_max);
        permit.map_err(|why| match why {
            NoPermit::Closed => Reason::Stopping,
            NoPermit::SlowTaken => Reason::SlowShareFull,
            NoPermit::AllTaken if limit < rules.in_flight_max => Reason::LimitReached,
            NoPermit::AllTaken => Reason::QueueFull,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Checkpoint, Outcome};

    /// Sent between threads, never shared: a job need not be `Sync`.
    struct Lonely(std::cell::Cell<u32>);

    impl Job for Lonely {
        type Output = ();
        fn run(&mut self, _: &Checkpoint<'_>) {
            self.0.set(1);
        }
        fn complete(self, _: Outcome<()>) {}
    }

    #[test]
    fn loops_can_share_a_submitter_even_when_jobs_cannot_be_shared() {
        fn shareable<T: Send + Sync + Clone + 'static>() {}
        shareable::<Submitter<Lonely>>();
    }
}
