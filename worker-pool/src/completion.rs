//! Completes each admitted job exactly once: a guard carries the job from admission to its answer.
//!
//! A thread that holds an [`AdmittedJob`] answers it. If the guard is dropped instead, on any path, its `Drop` answers the job with
//! `Dropped` (tests: `every_admitted_job_is_answered_exactly_once.rs`).

use std::sync::Arc;
use std::time::Instant;

use crate::catch_panic::{Panicked, catch_panic};
use crate::job::{Job, Outcome, Terms, Unfinished};
use crate::state::PoolState;

/// An admitted job, its permit, and the duty to answer it.
pub(crate) struct AdmittedJob<J: Job> {
    /// `None` once it was answered or taken back.
    job: Option<J>,
    terms: Terms,
    admitted_at: Instant,
    running: bool,
    state: Arc<PoolState>,
}

impl<J: Job> AdmittedJob<J> {
    /// The caller has taken a permit for it from this pool.
    pub(crate) fn new(job: J, terms: Terms, now: Instant, state: Arc<PoolState>) -> Self {
        state.stats.job_waits(terms.class);
        Self { job: Some(job), terms, admitted_at: now, running: false, state }
    }

    pub(crate) fn terms(&self) -> &Terms {
        &self.terms
    }

    pub(crate) fn admitted_at(&self) -> Instant {
        self.admitted_at
    }

    /// Leaves the queue to run.
    pub(crate) fn start(&mut self, now: Instant) {
        self.running = true;
        let waited = now.saturating_duration_since(self.admitted_at);
        self.state.stats.job_starts(self.terms.class, waited);
    }

    /// The job, to run it, and its terms. `None` only after it was answered.
    pub(crate) fn job_and_terms(&mut self) -> (Option<&mut J>, &Terms) {
        (self.job.as_mut(), &self.terms)
    }

    /// Completes the job with the outcome of its run.
    pub(crate) fn answer(mut self, outcome: Outcome<J::Output>) {
        self.answer_once(outcome);
    }

    /// Completes a job that has not run.
    pub(crate) fn answer_unfinished(mut self, why: Unfinished) {
        self.answer_once(why.into());
    }

    /// Undoes the admission: gives the permit back and returns the job, which is not completed.
    pub(crate) fn take_back(mut self) -> Option<J> {
        let job = self.job.take()?;
        self.state.stats.job_taken_back(self.terms.class);
        self.state.stats.permits.release(self.terms.class);
        Some(job)
    }

    /// Removes the guard: a job that is lost now is never completed, and its permit is lost too. For the mistake `worker-panic`.
    pub(crate) fn into_unguarded(mut self) -> Option<(J, Terms, Instant)> {
        let job = self.job.take()?;
        Some((job, self.terms.clone(), self.admitted_at))
    }

    /// Puts the guard back around a job that was unguarded and has run.
    pub(crate) fn guard_again(job: J, terms: Terms, admitted_at: Instant, state: Arc<PoolState>) -> Self {
        Self { job: Some(job), terms, admitted_at, running: true, state }
    }

    fn answer_once(&mut self, outcome: Outcome<J::Output>) {
        let Some(job) = self.job.take() else { return };
        let class = self.terms.class;
        self.state.stats.job_ends(class, self.running, outcome.kind());
        // Before the answer: a client that has it and asks again at once must find the permit free (test:
        // `a_full_pool_admits_its_threads_and_its_queue_and_gives_other_jobs_back_whole`).
        self.state.stats.permits.release(class);
        if let Err(Panicked) = catch_panic(|| job.complete(outcome)) {
            self.state.stats.complete_panicked();
            // The logger is not ours either.
            let _ = catch_panic(|| log::error!("a job's `complete` panicked: the client of this job gets no response"));
        }
    }
}

impl<J: Job> Drop for AdmittedJob<J> {
    fn drop(&mut self) {
        self.answer_once(Outcome::Dropped);
    }
}
