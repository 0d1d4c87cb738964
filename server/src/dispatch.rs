//! Loop or pool? Where a job runs, and how its result finds the way back.
//!
//! Room in the mailbox is reserved before the job is offered, so that its completion can neither block nor be lost. The result names
//! the job of the connection that it comes from: a connection's second request must never get the first one's answer. Read next:
//! `exchange.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reactor::{Mailer, Reserved, Token};
use worker_pool::{CancelFlag, Checkpoint, Class, Job, Outcome, Submitter, Terms};

use crate::answer::{Answer, Run, Work};
use crate::clock::later;
use crate::ledger::{Charge, MemoryBudget, Spent};

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
    /// The memory of its output.
    pub charge: Option<Charge>,
}

/// What a job produces.
pub enum JobOutput {
    /// The answer to the request.
    Answer(Answer),
    /// The next bytes of a stream.
    Bytes(Vec<u8>),
    /// There was an output, and no memory to keep it until it is sent.
    Dropped,
}

impl JobOutput {
    /// Charges the output to the budget of responses, instead of what was charged for the job. An answer that may still hold the request's body keeps that charge.
    fn charge(&self, for_job: Option<Charge>, responses: &Arc<MemoryBudget>) -> Result<Option<Charge>, Spent> {
        match self {
            JobOutput::Answer(answer) => {
                let mut answer = answer;
                while let Answer::Limited(limited) = answer {
                    answer = &limited.answer;
                }
                let (Answer::Now(response) | Answer::At(_, response)) = answer else { return Ok(for_job) };
                drop(for_job);
                let bytes = response.owned_bytes();
                if bytes == 0 { Ok(None) } else { responses.charge(bytes).map(Some) }
            }
            JobOutput::Bytes(bytes) => {
                // The job was charged for a whole piece already.
                let mut charge = for_job;
                if let Some(charge) = &mut charge {
                    charge.grow_to(bytes.capacity())?;
                    charge.shrink_to(bytes.capacity());
                }
                Ok(charge)
            }
            JobOutput::Dropped => Ok(None),
        }
    }
}

/// A job with its way back.
pub struct RequestJob {
    work: Option<Run<JobOutput>>,
    reply: Reserved<Mail>,
    serial: u32,
    /// The memory of what the job holds: the request's body, or the piece that it will bring.
    charge: Option<Charge>,
    responses: Arc<MemoryBudget>,
}

impl Job for RequestJob {
    type Output = JobOutput;

    fn run(&mut self, checkpoint: &Checkpoint<'_>) -> JobOutput {
        let Some(work) = self.work.take() else { unreachable!("the pool runs a job once") };
        work(checkpoint)
    }

    fn complete(self, outcome: Outcome<JobOutput>) {
        let RequestJob { work, reply, serial, charge, responses } = self;
        // A job that did not run still holds the body.
        drop(work);
        let (outcome, charge) = match outcome {
            Outcome::Done(output) => match output.charge(charge, &responses) {
                Ok(charge) => (Outcome::Done(output), charge),
                Err(Spent) => (Outcome::Done(JobOutput::Dropped), None),
            },
            unfinished => (unfinished, None),
        };
        // Given back only if the loop has ended, and then nobody is left to answer.
        drop(reply.send(Mail { serial, outcome, charge }));
    }
}

/// What became of an offer.
pub(crate) enum Dispatched<T> {
    /// A worker will run it.
    Admitted(Admitted),
    /// It has run here. The charge is that of the job.
    Ran(T, Option<Charge>),
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

/// Where a job comes from and what it holds.
pub(crate) struct Origin {
    /// The connection.
    pub(crate) token: Token,
    /// Which of the connection's jobs it is.
    pub(crate) serial: u32,
    /// The memory that it holds, or will return.
    pub(crate) charge: Option<Charge>,
    /// The budget that its output is charged to.
    pub(crate) responses: Arc<MemoryBudget>,
}

/// The way from one loop to the pool.
pub(crate) struct Dispatcher {
    pub(crate) placement: Placement,
    pub(crate) pool: Submitter<RequestJob>,
    pub(crate) mailer: Option<Mailer<Mail>>,
    pub(crate) job_deadline: Duration,
}

impl Dispatcher {
    /// Finds a place for a job. Never waits. `charge` is the memory that the job holds, or will return.
    pub(crate) fn dispatch<T>(&self, work: Work<T>, into: fn(T) -> JobOutput, from: Origin, now: Instant) -> Dispatched<T>
    where
        T: 'static,
    {
        let Origin { token: to, serial, charge, responses } = from;
        let Work { class, deadline, run } = work;
        let deadline = later(now, deadline.unwrap_or(self.job_deadline));
        let terms = Terms { class, deadline: Some(deadline), cancel: CancelFlag::new() };
        match self.placement {
            Placement::Pool => {}
            Placement::Loop => return Dispatched::Ran(run(&Checkpoint::detached(&terms)), charge), // MISTAKE(loop-stall): while the job runs here, no other connection of this loop is read, answered or timed out.
            Placement::PoolForCpuOnly => match class {
                Class::Fast => {}
                Class::Slow => return Dispatched::Ran(run(&Checkpoint::detached(&terms)), charge), // MISTAKE(file-stall): a disk that takes its time takes the loop's, and no poller can tell when it would not.
            },
        }
        let Some(reply) = self.mailer.as_ref().and_then(|mailer| mailer.reserve(to)) else {
            return Dispatched::Refused(Duration::ZERO);
        };
        let cancel = terms.cancel.clone();
        let work: Run<JobOutput> = Box::new(move |checkpoint| into(run(checkpoint)));
        match self.pool.try_submit(RequestJob { work: Some(work), reply, serial, charge, responses }, terms, now) {
            Ok(()) => Dispatched::Admitted(Admitted { cancel, deadline }),
            // The job is dropped here, and with it the room for its completion is given back.
            Err(rejected) => Dispatched::Refused(rejected.retry_after),
        }
    }
}
