//! Exactly one completion for each admitted job, whatever happens: a guard carries it from admission on.
//!
//! Whoever holds an [`Admitted`] may answer it. Whoever drops it, on any path that was thought of or not,
//! answers it as well, with `Dropped`. Next: `worker.rs`, where jobs run.

use std::sync::Arc;
use std::time::Instant;

use crate::contain::{Panicked, contain};
use crate::job::{Job, Outcome, Terms, Unfinished};
use crate::ledger::Ledger;
use crate::waiting::Waits;

/// An admitted job, its permit, and the promise to answer it.
pub(crate) struct Admitted<J: Job> {
    /// `None` once it was answered or taken back.
    job: Option<J>,
    terms: Terms,
    admitted_at: Instant,
    running: bool,
    ledger: Arc<Ledger>,
}

impl<J: Job> Waits for Admitted<J> {
    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn admitted_at(&self) -> Instant {
        self.admitted_at
    }
}

impl<J: Job> Admitted<J> {
    /// The permit was taken from this ledger just before.
    pub(crate) fn new(job: J, terms: Terms, now: Instant, ledger: Arc<Ledger>) -> Self {
        ledger.stats.job_waits(terms.class);
        Self { job: Some(job), terms, admitted_at: now, running: false, ledger }
    }

    /// Leaves the queue to run.
    pub(crate) fn start(&mut self, now: Instant) {
        self.running = true;
        let waited = now.saturating_duration_since(self.admitted_at);
        self.ledger.stats.job_starts(self.terms.class, waited);
    }

    /// The job, to run it, beside its terms. `None` only after it was answered.
    pub(crate) fn job_and_terms(&mut self) -> (Option<&mut J>, &Terms) {
        (self.job.as_mut(), &self.terms)
    }

    /// Tells the job how it ended.
    pub(crate) fn answer(mut self, outcome: Outcome<J::Output>) {
        self.answer_once(outcome);
    }

    /// Ends it without having run.
    pub(crate) fn answer_unfinished(mut self, why: Unfinished) {
        self.answer_once(why.into());
    }

    /// It was never admitted after all: gives the job back, unanswered, and the permit too.
    pub(crate) fn take_back(mut self) -> Option<J> {
        let job = self.job.take()?;
        self.ledger.stats.job_taken_back(self.terms.class);
        self.ledger.stats.permits.release(self.terms.class);
        Some(job)
    }

    /// Gives up the promise: no completion, and the permit is lost. For the mistake that shows why.
    pub(crate) fn into_unguarded(mut self) -> Option<(J, Terms, Instant)> {
        let job = self.job.take()?;
        Some((job, self.terms.clone(), self.admitted_at))
    }

    /// Takes the promise up again, for a job that was unguarded and has run.
    pub(crate) fn guard_again(job: J, terms: Terms, admitted_at: Instant, ledger: Arc<Ledger>) -> Self {
        Self { job: Some(job), terms, admitted_at, running: true, ledger }
    }

    fn answer_once(&mut self, outcome: Outcome<J::Output>) {
        let Some(job) = self.job.take() else { return };
        let class = self.terms.class;
        self.ledger.stats.job_ends(class, self.running, outcome.kind());
        // Before the answer: whoever has it and asks again at once must find the room it left.
        self.ledger.stats.permits.release(class);
        if let Err(Panicked) = contain(|| job.complete(outcome)) {
            self.ledger.stats.complete_panicked();
            // The logger is not ours either.
            let _ = contain(|| log::error!("a job's `complete` panicked: the client of this job gets no response"));
        }
    }
}

impl<J: Job> Drop for Admitted<J> {
    fn drop(&mut self) {
        self.answer_once(Outcome::Dropped);
    }
}
