//! What a user of the pool implements: the job, its terms, and the outcomes that it can have.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::sync::{AtomicBool, AtomicU8, Ordering};

/// One piece of work: it runs on a worker thread and then receives its outcome.
///
/// A job must not wait for another job of the same pool: when every thread waits, none is left to run the other job (libuv/libuv#2618).
/// Submit the second part from `complete` instead.
pub trait Job: Send + 'static {
    /// What a run that is not stopped produces.
    type Output;

    /// Does the work. It may block, burn CPU and panic, since it is on a worker thread.
    ///
    /// A job that can take long asks [`Checkpoint::stop_requested`] about once a millisecond and returns early when that is true. Its
    /// output is then dropped, and it ends as cancelled, expired or dropped.
    fn run(&mut self, checkpoint: &Checkpoint<'_>) -> Self::Output;

    /// Passes the outcome to the client. Called exactly once for each admitted job.
    ///
    /// Called on a worker thread; on the thread that watches the deadlines for jobs that expired while they waited; on the thread that
    /// shuts the pool down for jobs dropped there. It must not block: reserve the capacity for what it sends before the job is submitted.
    /// A panic in it is contained and counted, but the client of this job then gets no response.
    fn complete(self, outcome: Outcome<Self::Output>);
}

/// How an admitted job ended. Each outcome asks for a different response, so this is not an `Option`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It ran to its end.
    Done(T),
    /// `run` panicked, or the `Drop` of the output of a job that was stopped. The thread continues. (HTTP: 500)
    Panicked,
    /// Its deadline passed while it waited, or before a checkpoint. (HTTP: 503 or 504)
    Expired,
    /// Its cancel flag was set while it waited, or before a checkpoint. (HTTP: the client has disconnected)
    Cancelled,
    /// It had waited too long under overload, or a newer job took its place. (HTTP: 503 with Retry-After)
    Shed,
    /// The pool was shut down before it could finish. (HTTP: 503)
    Dropped,
}

/// An [`Outcome`] without its value: what is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeKind {
    /// See [`Outcome::Done`].
    Done,
    /// See [`Outcome::Panicked`].
    Panicked,
    /// See [`Outcome::Expired`].
    Expired,
    /// See [`Outcome::Cancelled`].
    Cancelled,
    /// See [`Outcome::Shed`].
    Shed,
    /// See [`Outcome::Dropped`].
    Dropped,
}

impl OutcomeKind {
    /// Every kind, in the order of its discriminant: for exporters.
    pub const ALL: [Self; 6] = [Self::Done, Self::Panicked, Self::Expired, Self::Cancelled, Self::Shed, Self::Dropped];

    /// The name to use as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Panicked => "panicked",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Shed => "shed",
            Self::Dropped => "dropped",
        }
    }
}

impl<T> Outcome<T> {
    /// Which kind this is.
    pub fn kind(&self) -> OutcomeKind {
        match self {
            Self::Done(_) => OutcomeKind::Done,
            Self::Panicked => OutcomeKind::Panicked,
            Self::Expired => OutcomeKind::Expired,
            Self::Cancelled => OutcomeKind::Cancelled,
            Self::Shed => OutcomeKind::Shed,
            Self::Dropped => OutcomeKind::Dropped,
        }
    }
}

/// Why a job ended without its output, although it did not panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// See [`Outcome::Expired`].
    Expired,
    /// See [`Outcome::Cancelled`].
    Cancelled,
    /// See [`Outcome::Shed`].
    Shed,
    /// See [`Outcome::Dropped`].
    Dropped,
}

impl<T> From<Unfinished> for Outcome<T> {
    fn from(why: Unfinished) -> Self {
        match why {
            Unfinished::Expired => Self::Expired,
            Unfinished::Cancelled => Self::Cancelled,
            Unfinished::Shed => Self::Shed,
            Unfinished::Dropped => Self::Dropped,
        }
    }
}

/// How long a job of this kind holds a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// Burns CPU for a time that is roughly known. May use every thread.
    #[default]
    Fast,
    /// Waits for something outside the process (a disk, DNS): one such job can hold its thread for seconds. May use only a part of the
    /// threads, so that it cannot starve fast jobs.
    Slow,
}

impl Class {
    /// Both, in the order of their discriminant: for exporters.
    pub const ALL: [Self; 2] = [Self::Fast, Self::Slow];

    /// The name to use as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Slow => "slow",
        }
    }
}

/// The terms on which a job is submitted. The default: fast, no deadline, cannot be cancelled.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Which threads it may use.
    pub class: Class,
    /// After this the result is useless. Checked at admission against the expected wait, and at the job's checkpoints. A job that waits
    /// is answered when its deadline passes, even while every worker is busy.
    pub deadline: Option<Instant>,
    /// Set by the client's connection when the client no longer wants the result.
    pub cancel: CancelFlag,
}

impl Terms {
    /// Whether the job was cancelled or has expired.
    pub fn abandoned(&self, now: Instant) -> Option<Unfinished> {
        // Cancelled first: such a job needs no response.
        if self.cancel.is_cancelled() {
            Some(Unfinished::Cancelled)
        } else if self.deadline.is_some_and(|deadline| deadline <= now) {
            Some(Unfinished::Expired)
        } else {
            None
        }
    }
}

/// A flag that any thread can set: the client does not wait for this job any more.
///
/// Clones share the flag. The default cannot be set and allocates nothing.
#[derive(Clone, Default)]
pub struct CancelFlag(Option<Arc<AtomicBool>>);

impl CancelFlag {
    /// The flag that cannot be set: the default, for constants.
    pub const NEVER: Self = Self(None);

    /// A flag that can be set. Allocates once.
    pub fn new() -> Self {
        Self(Some(Arc::new(AtomicBool::new(false))))
    }

    /// Cancels the job. Idempotent; no effect on a default flag.
    pub fn cancel(&self) {
        if let Some(flag) = &self.0 {
            // Relaxed: the flag publishes nothing but itself. A worker that sees it late does useless work, and nothing else.
            flag.store(true, Ordering::Relaxed);
        }
    }

    /// Whether [`cancel`](Self::cancel) was called on this flag or a clone.
    pub fn is_cancelled(&self) -> bool {
        self.0.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for CancelFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.0 {
            None => "never",
            Some(_) if self.is_cancelled() => "cancelled",
            Some(_) => "live",
        };
        f.debug_tuple("CancelFlag").field(&state).finish()
    }
}

/// The pool runs: jobs are admitted and run.
pub(crate) const PHASE_RUNNING: u8 = 0;
/// No job is admitted; jobs that were admitted still run.
pub(crate) const PHASE_FINISHING: u8 = 1;
/// No job is admitted; waiting jobs are answered without running, running jobs are asked to stop.
pub(crate) const PHASE_DROPPING: u8 = 2;

/// Where a long job asks whether to stop.
pub struct Checkpoint<'a> {
    terms: &'a Terms,
    /// The pool's phase; `None` outside a pool.
    phase: Option<&'a AtomicU8>,
    /// False when the policy is to ignore deadlines and cancel flags.
    checks_terms: bool,
    /// Why the job was asked to stop. The outcome follows from this, not from what holds when the job returns.
    stop_reason: Cell<Option<Unfinished>>,
}

impl<'a> Checkpoint<'a> {
    /// A checkpoint outside any pool: to test a job by itself.
    pub fn detached(terms: &'a Terms) -> Self {
        Self { terms, phase: None, checks_terms: true, stop_reason: Cell::new(None) }
    }

    pub(crate) fn new(terms: &'a Terms, phase: &'a AtomicU8, checks_terms: bool) -> Self {
        Self { terms, phase: Some(phase), checks_terms, stop_reason: Cell::new(None) }
    }

    /// True when the job should return now: it was cancelled, it has expired, or the pool drops its jobs. Stays true. Reads the clock when
    /// there is a deadline (tens of nanoseconds).
    pub fn stop_requested(&self) -> bool {
        if self.stop_reason.get().is_none() {
            self.stop_reason.set(self.reason_to_stop());
        }
        self.stop_reason.get().is_some()
    }

    fn reason_to_stop(&self) -> Option<Unfinished> {
        if self.phase.is_some_and(|phase| phase.load(Ordering::Relaxed) == PHASE_DROPPING) {
            return Some(Unfinished::Dropped);
        }
        if !self.checks_terms {
            return None;
        }
        if self.terms.deadline.is_none() {
            return self.terms.cancel.is_cancelled().then_some(Unfinished::Cancelled);
        }
        self.terms.abandoned(Instant::now())
    }

    /// Why the job was asked to stop, if it was.
    pub(crate) fn stop_reason(&self) -> Option<Unfinished> {
        self.stop_reason.get()
    }
}
