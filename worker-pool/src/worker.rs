//! One worker thread: gets a job from the scheduler, runs it, answers it, and sleeps when there is none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::catch_panic::{Panicked, catch_panic};
use crate::completion::AdmittedJob;
use crate::job::{Checkpoint, Class, Job, Outcome};
use crate::policy::{Panics, ThreadModel};
use crate::scheduler::{Next, Scheduler};
use crate::state::PoolState;

/// A worker's whole life.
pub(crate) fn work<J: Job>(scheduler: &Arc<Scheduler<J>>) {
    let mut woken_by = None;
    loop {
        let now = Instant::now();
        match scheduler.next(woken_by.take(), now) {
            Next::Run(admitted) => start_job(scheduler, admitted, now),
            Next::Answer(admitted, why) => admitted.answer_unfinished(why),
            Next::Sleep => match scheduler.wait() {
                None => return, // Cannot happen: the scheduler holds a sender itself.
                message => woken_by = message,
            },
            Next::Exit => return,
        }
    }
}

/// Runs a job on the thread that the policy chooses.
fn start_job<J: Job>(scheduler: &Arc<Scheduler<J>>, admitted: AdmittedJob<J>, now: Instant) {
    match scheduler.state.resolved.thread_model {
        ThreadModel::PoolThread => run(scheduler, admitted, now),
        ThreadModel::ThreadPerJob => spawn_for(Arc::clone(scheduler), admitted), // MISTAKE(thread-per-job): memory and switches for every job in flight.
    }
}

/// Starts a thread for one job.
fn spawn_for<J: Job>(scheduler: Arc<Scheduler<J>>, admitted: AdmittedJob<J>) {
    // What a panic carries is dropped here: std aborts the process when the `Drop` of a thread's result panics.
    let body = move || drop(catch_panic(|| run(&scheduler, admitted, Instant::now())));
    // When no thread can be started, the closure is dropped and the job with it. Its `Drop` answers it.
    if let Err(error) = std::thread::Builder::new().name("worker-job".to_owned()).spawn(body) {
        let _ = catch_panic(|| log::error!("no thread for a job: {error}"));
    }
}

fn run<J: Job>(scheduler: &Scheduler<J>, mut admitted: AdmittedJob<J>, now: Instant) {
    let state = &scheduler.state;
    let class = admitted.terms().class;
    let admitted_at = admitted.admitted_at();
    admitted.start(now);
    // Gives the slow slot back on every way out, also by a panic that is not contained.
    let _slot = SlowSlot { scheduler, class };
    let Some((admitted, ran)) = run_job(admitted, state) else {
        return;
    };
    let ended = now + ran.took;
    let abandoned = admitted.terms().abandoned(ended).is_some();
    state.stats.run_ended(class, ran.took, abandoned);
    state.record_latency(ended.saturating_duration_since(admitted_at), ended);
    admitted.answer(ran.outcome);
}

struct SlowSlot<'a, J: Job> {
    scheduler: &'a Scheduler<J>,
    class: Class,
}

impl<J: Job> Drop for SlowSlot<'_, J> {
    fn drop(&mut self) {
        if self.class == Class::Slow {
            self.scheduler.slow_job_ended();
        }
    }
}

/// How a run ended and how long it took.
struct Ran<T> {
    outcome: Outcome<T>,
    took: Duration,
}

/// Runs the job and contains its panics. `None` if the job was answered already.
fn run_job<J: Job>(mut admitted: AdmittedJob<J>, state: &Arc<PoolState>) -> Option<(AdmittedJob<J>, Ran<J::Output>)> {
    let began = Instant::now();
    let outcome = match state.resolved.panics {
        Panics::Catch => {
            let (job, terms) = admitted.job_and_terms();
            let job = job?;
            let checkpoint = Checkpoint::new(terms, &state.phase, state.resolved.checks_terms());
            // Test: `a_panicking_drop_of_a_stopped_jobs_output_costs_no_worker`.
            let ran = catch_panic(|| {
                let output = job.run(&checkpoint);
                match checkpoint.stop_reason() {
                    None => Outcome::Done(output),
                    Some(why) => {
                        // Here, where a panic in its `Drop` is contained.
                        drop(output);
                        why.into()
                    }
                }
            });
            match ran {
                Ok(outcome) => outcome,
                Err(Panicked) => Outcome::Panicked,
            }
        }
        Panics::EndThread => return run_unguarded(admitted, state), // MISTAKE(worker-panic): no thread, no completion, no permit comes back.
    };
    Some((admitted, Ran { outcome, took: began.elapsed() }))
}

/// Runs a job without containing its panics: a panic ends the thread.
fn run_unguarded<J: Job>(admitted: AdmittedJob<J>, state: &Arc<PoolState>) -> Option<(AdmittedJob<J>, Ran<J::Output>)> {
    let began = Instant::now();
    let (job, terms, admitted_at) = admitted.into_unguarded()?;
    let mut job = job;
    let output = {
        let checkpoint = Checkpoint::new(&terms, &state.phase, state.resolved.checks_terms());
        job.run(&checkpoint)
    };
    let ran = Ran { outcome: Outcome::Done(output), took: began.elapsed() };
    Some((AdmittedJob::guard_again(job, terms, admitted_at, Arc::clone(state)), ran))
}
