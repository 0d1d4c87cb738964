//! Loop or pool? Where a job runs, and how its result finds the way back.
//!
//! Room in the mailbox is reserved before the job is offered, so that its completion can neither block nor be lost. The result names
//! the job of the connection that it comes from: a connection's second request must never get the first one's answer. Read next:
//! `exchange.rs`.

use std::time::{Duration, Instant};

use reactor::{Mailer, Reserved, Token};
use worker_pool::{CancelFlag, Checkpoint, Class, Job, Outcome, Submitter, Terms};

use crate::answer::{Answer, Run, Work};
use crate::clock::later;

/// Where jobs run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// On the threads of the worker pool.
    #[default]
    Pool,
    /// Where the request was read.
    Loop,
    /// On the pool what computes, and where the request was read what only waits: it needs no processor, so why a thread?
    PoolForCpuOnly,
}

/// What comes back to a connection.
pub struct Mail {
    /// Which of the connection's jobs this is from, counted from 1.
    pub serial: u32,
    /// What became of the job.
    pub outcome: Outcome<JobOutput>,
}

/// What a job produces.
pub enum JobOutput {
    /// The answer to the request.
    Answer(Answer),
    /// The next bytes of a stream.
    Bytes(Vec<u8>),
}

/// A job with its way back.
pub struct RequestJob {
    work: Option<Run<JobOutput>>,
    reply: Reserved<Mail>,
    serial: u32,
}

impl Job for RequestJob {
    type Output = JobOutput;

    fn run(&mut self, checkpoint: &Checkpoint<'_>) -> JobOutput {
        let Some(work) = self.work.take() else { unreachable!("the pool runs a job once") };
        work(checkpoint)
    }

    fn complete(self, outcome: Outcome<JobOutput>) {
        // Given back only if the loop has ended, and then nobody is left to answer.
        drop(self.reply.send(Mail { serial: self.serial, outcome }));
    }
}

/// What became of an offer.
pub(crate) enum Dispatched<T> {
    /// A worker will run it.
    Admitted(Admitted),
    /// It has run here.
    Ran(T),
    /// The server is full. Asking again makes sense after this time.
    Refused(Duration),
}

/// A job that somebody waits for.
pub(crate) struct Admitted {
    /// Calls it off.
    pub(crate) cancel: CancelFlag,
    /// When its result is of no use any more.
    pub(crate) deadline: Instant,
}

/// The way from one loop to the pool.
pub(crate) struct Dispatcher {
    pub(crate) placement: Placement,
    pub(crate) pool: Submitter<RequestJob>,
    pub(crate) mailer: Option<Mailer<Mail>>,
    pub(crate) job_deadline: Duration,
}

impl Dispatcher {
    /// Finds a place for a job. Never waits.
    pub(crate) fn dispatch<T>(&self, work: Work<T>, into: fn(T) -> JobOutput, to: Token, serial: u32, now: Instant) -> Dispatched<T>
    where
        T: 'static,
    {
        let Work { class, deadline, run } = work;
        let deadline = later(now, deadline.unwrap_or(self.job_deadline));
        let terms = Terms { class, deadline: Some(deadline), cancel: CancelFlag::new() };
        match self.placement {
            Placement::Pool => {}
            Placement::Loop => return Dispatched::Ran(run(&Checkpoint::detached(&terms))), // MISTAKE(loop-stall): while the job runs here, no other connection of this loop is read, answered or timed out.
            Placement::PoolForCpuOnly => match class {
                Class::Fast => {}
                Class::Slow => return Dispatched::Ran(run(&Checkpoint::detached(&terms))), // MISTAKE(file-stall): a disk that takes its time takes the loop's, and no poller can tell when it would not.
            },
        }
        let Some(reply) = self.mailer.as_ref().and_then(|mailer| mailer.reserve(to)) else {
            return Dispatched::Refused(Duration::ZERO);
        };
        let cancel = terms.cancel.clone();
        let work: Run<JobOutput> = Box::new(move |checkpoint| into(run(checkpoint)));
        match self.pool.try_submit(RequestJob { work: Some(work), reply, serial }, terms, now) {
            Ok(()) => Dispatched::Admitted(Admitted { cancel, deadline }),
            // The job is dropped here, and with it the room for its completion is given back.
            Err(rejected) => Dispatched::Refused(rejected.retry_after),
        }
    }
}
