//! Where a job enters: never blocks, never takes a lock that a worker can hold, gives a refused job back.
//!
//! Next: `waiting.rs`, the queue behind the channel; `admission.rs`, the expected wait.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::completion::Admitted;
use crate::front::{Message, Sender, TrySendError};
use crate::job::{Job, PHASE_RUNNING, Terms};
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
        Self {
            front: self.front.clone(),
            ledger: Arc::clone(&self.ledger),
        }
    }
}

impl<J: Job> fmt::Debug for Submitter<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitter")
            .field("stats", &self.ledger.stats)
            .finish_non_exhaustive()
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
        out.field("reason", &self.reason)
            .field("retry_after", &self.retry_after)
            .finish_non_exhaustive()
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
    pub const ALL: [Self; 7] = [
        Self::QueueFull,
        Self::SlowShareFull,
        Self::LimitReached,
        Self::WaitTooLong,
        Self::WouldExpire,
        Self::Sampled,
        Self::Stopping,
    ];

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
        let class_terms = Terms {
            class: terms.class,
            ..Terms::default()
        };
        let admitted = Admitted::new(job, terms, now, Arc::clone(&self.ledger));
        let (refused, reason) = match self.front.try_send(Message::Job(admitted)) {
            Ok(()) => {
                self.ledger.stats.note_oldest_if_nobody(now);
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
        Rejected {
            job,
            reason,
            retry_after,
        }
    }

    /// Takes a permit, or says why not.
    fn admit(&self, terms: &Terms, now: Instant) -> Result<(), Reason> {
        let ledger = &*self.ledger;
        if ledger.phase() != PHASE_RUNNING {
            return Err(Reason::Stopping);
        }
        let rules = &ledger.rules;
        let wait = ledger.expected_wait(terms.class);
        match rules.when_full {
            WhenFull::RefuseNewest => self.check_wait(terms, wait, now)?,
            WhenFull::Sample { keep_percent } => {
                self.check_wait(terms, wait, now)?;
                self.check_sample(wait, u64::from(keep_percent))?;
            }
            // The newest is welcome; the worker that looks next makes room (`waiting.rs`).
            WhenFull::DropOldest => {}
        }
        let limit = ledger.stats.limit();
        let taken = ledger.permits.try_acquire(
            terms.class,
            limit.min(rules.in_flight_max),
            rules.slow_in_flight_max,
        );
        taken.map_err(|why| match why {
            NoPermit::Closed => Reason::Stopping,
            NoPermit::SlowTaken => Reason::SlowShareFull,
            NoPermit::AllTaken if limit < rules.in_flight_max => Reason::LimitReached,
            NoPermit::AllTaken => Reason::QueueFull,
        })
    }

    fn check_wait(&self, terms: &Terms, wait: Duration, now: Instant) -> Result<(), Reason> {
        let rules = &self.ledger.rules;
        if rules.wait_max.is_some_and(|wait_max| wait > wait_max) {
            return Err(Reason::WaitTooLong);
        }
        if rules.deadline_at_admission
            && let Some(deadline) = terms.deadline
        {
            let left = deadline.saturating_duration_since(now);
            // The run counts as well, but only behind a queue: an idle pool must try, or one long run
            // would lock out all that follow, and no other run could ever correct the mean.
            let run = if wait.is_zero() {
                wait
            } else {
                self.ledger.stats.run_mean(terms.class)
            };
            if left.is_zero() || wait.saturating_add(run) > left {
                return Err(Reason::WouldExpire);
            }
        }
        Ok(())
    }

    /// From half full on, by number or by wait, every `100 / keep_percent`-th gets in.
    fn check_sample(&self, wait: Duration, keep_percent: u64) -> Result<(), Reason> {
        let ledger = &*self.ledger;
        let half_wait = ledger
            .rules
            .wait_max
            .is_some_and(|wait_max| wait > wait_max / 2);
        let waiting = ledger
            .permits
            .in_flight()
            .total()
            .saturating_sub(ledger.rules.threads);
        if !half_wait && waiting < ledger.rules.queue_jobs_max / 2 {
            return Ok(());
        }
        let n = ledger.offered.fetch_add(1, Ordering::Relaxed);
        // The kept ones are those at which the whole part of n × percent / 100 moves on.
        let moved = (n + 1).wrapping_mul(keep_percent) / 100 != n.wrapping_mul(keep_percent) / 100;
        if moved { Ok(()) } else { Err(Reason::Sampled) }
    }
}
