//! One worker: look for a job, run it, answer it; sleep in the channel when there is none.
//!
//! Leader and followers: whoever is free and gets the lock moves what has arrived into the ordered queue,
//! takes one job and leaves the rest to the next. The lock is held for that only, never while a job runs
//! or is answered, and no submitter ever takes it. Next: `waiting.rs`, which decides what is taken.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::completion::Admitted;
use crate::contain::{Panicked, contain};
use crate::front::{Message, Receiver, Sender};
use crate::job::{Checkpoint, Class, Job, Outcome, PHASE_DROPPING, PHASE_RUNNING, Unfinished};
use crate::ledger::Ledger;
use crate::policy::{Panics, Placement, WhenFull};
use crate::sync::{Mutex, MutexGuard};
use crate::waiting::{Taken, Waiting, Waits};

/// What the workers share.
pub(crate) struct Workshop<J: Job> {
    receiver: Receiver<Message<Admitted<J>>>,
    /// To wake a sleeper for a job that is no longer in the channel.
    sender: Sender<Message<Admitted<J>>>,
    queue: Mutex<Queue<J>>,
    pub(crate) ledger: Arc<Ledger>,
}

struct Queue<J: Job> {
    waiting: Waiting<Admitted<J>>,
    /// Workers that sleep in the channel, or are about to.
    sleepers: u32,
    /// A `More` is on its way: one is enough, since whoever gets it sends the next if needed.
    more_sent: bool,
}

/// What a worker does next.
enum Next<J: Job> {
    Run(Admitted<J>),
    Answer(Admitted<J>, Unfinished),
    Sleep,
    Exit,
}

impl<J: Job> Workshop<J> {
    pub(crate) fn new(receiver: Receiver<Message<Admitted<J>>>, sender: Sender<Message<Admitted<J>>>, ledger: Arc<Ledger>) -> Self {
        let waiting = Waiting::new(&ledger.rules);
        let queue = Mutex::new(Queue { waiting, sleepers: 0, more_sent: false });
        Self { receiver, sender, queue, ledger }
    }

    /// A worker's whole life.
    pub(crate) fn work(self: &Arc<Self>) {
        let mut woken_by = None;
        loop {
            let now = Instant::now();
            match self.next(woken_by.take(), now) {
                Next::Run(admitted) => self.place(admitted, now),
                Next::Answer(admitted, why) => admitted.answer_unfinished(why),
                Next::Sleep => match self.receiver.recv() {
                    Ok(message) => woken_by = Some(message),
                    Err(_) => return, // We hold a sender ourselves, so this cannot be.
                },
                Next::Exit => return,
            }
        }
    }

    /// The leader's turn: the only place where the queue changes while the pool runs.
    fn next(&self, woken_by: Option<Message<Admitted<J>>>, now: Instant) -> Next<J> {
        let mut queue = self.lock();
        self.ledger.stats.forget_oldest();
        if let Some(message) = woken_by {
            queue.sleepers -= 1;
            queue.arrived(message);
        }
        // The phase first: read after the drain, it could send us home with a job in the channel that
        // came in between (found by loom).
        let phase = self.ledger.phase();
        self.drain_into(&mut queue);
        let taken = if phase == PHASE_DROPPING {
            match queue.waiting.pop_any() {
                Some(admitted) => Taken::Answer(admitted, Unfinished::Dropped),
                None => Taken::Nothing,
            }
        } else {
            let jobs_max = self.jobs_before_oldest_gives_way();
            queue.waiting.take(now, jobs_max)
        };
        if let Some(since) = queue.waiting.oldest() {
            self.ledger.stats.note_oldest(since);
        }
        match taken {
            Taken::Run(admitted) => {
                self.pass_on(&mut queue);
                Next::Run(admitted)
            }
            Taken::Answer(admitted, why) => {
                self.pass_on(&mut queue);
                Next::Answer(admitted, why)
            }
            Taken::Nothing if phase != PHASE_RUNNING => Next::Exit,
            Taken::Nothing => {
                queue.sleepers += 1;
                Next::Sleep
            }
        }
    }

    /// Wakes a sleeper if the queue still has something for it. Its own wake-up may have been for a job
    /// that we have moved out of the channel under its nose; without this it would sleep beside work.
    fn pass_on(&self, queue: &mut Queue<J>) {
        if queue.sleepers > 0 && !queue.more_sent && queue.waiting.has_runnable() {
            // The channel keeps a place for it, and a full channel wakes sleepers by itself.
            queue.more_sent = self.sender.try_send(Message::More).is_ok();
        }
    }

    /// The whole life of the thread that answers jobs when they expire: see `deadlines.rs`.
    pub(crate) fn watch_deadlines(&self) {
        let alarm = &self.ledger.alarm;
        alarm.attach_this_thread();
        while self.answer_expired(Instant::now()) {
            alarm.sleep();
        }
    }

    /// Answers every waiting job whose deadline has passed, and arms the alarm for the next one. False when the pool shuts down and no
    /// job waits that could expire.
    fn answer_expired(&self, now: Instant) -> bool {
        // Before the look: a job that arrives during it arms the alarm again.
        self.ledger.alarm.disarm();
        loop {
            let (expired, why) = {
                let mut queue = self.lock();
                let phase = self.ledger.phase();
                if phase == PHASE_DROPPING {
                    return false;
                }
                self.drain_into(&mut queue);
                let expired = queue.waiting.pop_expired(now);
                self.note_oldest(&queue);
                // A job that was moved out of the channel here may be for a sleeping worker (loom test:
                // `loom_a_look_for_expired_jobs_leaves_no_worker_asleep_next_to_a_job`).
                self.pass_on(&mut queue);
                match expired {
                    Some(expired) => expired,
                    None if phase != PHASE_RUNNING && queue.waiting.is_empty() => return false,
                    None => {
                        if let Some(deadline) = queue.waiting.next_deadline() {
                            self.ledger.alarm.arm(deadline);
                        }
                        return true;
                    }
                }
            };
            expired.answer_unfinished(why);
        }
    }

    fn note_oldest(&self, queue: &Queue<J>) {
        self.ledger.stats.forget_oldest();
        if let Some(since) = queue.waiting.oldest() {
            self.ledger.stats.note_oldest(since);
        }
    }

    fn drain_into(&self, queue: &mut Queue<J>) {
        // Bounded by the permits: no more jobs can be in the channel than there are, and a submitter that
        // sends while we drain needs a permit that some other job gave back.
        let mut left = self.ledger.rules.in_flight_max;
        let mut stops = 0;
        while left > 0
            && let Ok(message) = self.receiver.try_recv()
        {
            match message {
                Message::Stop => stops += 1,
                other => queue.arrived(other),
            }
            left -= 1;
        }
        // They were sent to sleepers, and those may still sleep: back they go, there is room for them.
        for _ in 0..stops {
            let _ = self.sender.try_send(Message::Stop);
        }
    }

    /// How many may wait before the oldest gives way, if the policy is that it does.
    fn jobs_before_oldest_gives_way(&self) -> usize {
        let rules = &self.ledger.rules;
        match rules.when_full {
            WhenFull::RefuseNewest | WhenFull::Sample { .. } => usize::MAX,
            WhenFull::DropOldest => {
                let by_number = rules.queue_jobs_max as usize;
                let mean_run = self.ledger.stats.run_mean(Class::Fast);
                match rules.wait_max {
                    Some(wait_max) if !mean_run.is_zero() => {
                        let jobs = wait_max.as_secs_f64() * f64::from(rules.threads) / mean_run.as_secs_f64();
                        by_number.min((jobs as usize).max(1))
                    }
                    _ => by_number,
                }
            }
        }
    }

    /// Runs a job where the policy says.
    fn place(self: &Arc<Self>, admitted: Admitted<J>, now: Instant) {
        match self.ledger.rules.placement {
            Placement::PoolThread => self.run(admitted, now),
            Placement::ThreadPerJob => spawn_for(Arc::clone(self), admitted), // MISTAKE(thread-per-job): memory and switches for every job in flight.
        }
    }

    fn run(&self, mut admitted: Admitted<J>, now: Instant) {
        let class = admitted.terms().class;
        let admitted_at = admitted.admitted_at();
        admitted.start(now);
        // On every way out, also by a panic that is not contained.
        let _slow = SlowGuard { workshop: self, class };
        let Some((admitted, ran)) = run_job(admitted, &self.ledger) else {
            return;
        };
        let ended = now + ran.took;
        let abandoned = admitted.terms().abandoned(ended).is_some();
        self.ledger.stats.run_ended(class, ran.took, abandoned);
        self.ledger.latency(ended.saturating_duration_since(admitted_at), ended);
        admitted.answer(ran.outcome);
    }

    /// Answers everything that waits, without running it. For shutdown, from any thread.
    pub(crate) fn drop_waiting(&self) {
        loop {
            let admitted = {
                let mut queue = self.lock();
                self.drain_into(&mut queue);
                queue.waiting.pop_any()
            };
            match admitted {
                Some(admitted) => admitted.answer_unfinished(Unfinished::Dropped),
                None => return,
            }
        }
    }

    /// Wakes every sleeper, to look at the phase.
    pub(crate) fn wake_all(&self) {
        for _ in 0..self.ledger.rules.threads {
            // The channel keeps a place for each thread; one that is full wakes them anyway.
            let _ = self.sender.try_send(Message::Stop);
        }
        self.ledger.alarm.look_now();
    }

    fn lock(&self) -> MutexGuard<'_, Queue<J>> {
        // Nothing that a job brings runs under the lock, so a poisoned one means that the queue's own code
        // panicked. The queue holds whole jobs at any moment: going on is right, stopping would hang all.
        self.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<J: Job> Queue<J> {
    fn arrived(&mut self, message: Message<Admitted<J>>) {
        match message {
            Message::Job(admitted) => self.waiting.push(admitted),
            Message::More => self.more_sent = false,
            Message::Stop => {}
        }
    }
}

struct SlowGuard<'a, J: Job> {
    workshop: &'a Workshop<J>,
    class: Class,
}

impl<J: Job> Drop for SlowGuard<'_, J> {
    fn drop(&mut self) {
        if self.class == Class::Slow {
            self.workshop.lock().waiting.slow_ended();
        }
    }
}

/// How a run ended and how long it took.
struct Ran<T> {
    outcome: Outcome<T>,
    took: Duration,
}

/// Runs the job; a panic stays inside. `None` if there is nothing left to answer.
fn run_job<J: Job>(mut admitted: Admitted<J>, ledger: &Arc<Ledger>) -> Option<(Admitted<J>, Ran<J::Output>)> {
    let began = Instant::now();
    let heeds_terms = ledger.rules.heeds_terms();
    let outcome = match ledger.rules.panics {
        Panics::Contain => {
            let (job, terms) = admitted.job_and_terms();
            let job = job?;
            let checkpoint = Checkpoint::new(terms, &ledger.phase, heeds_terms);
            // Test: `a_panicking_drop_of_a_stopped_jobs_output_costs_no_worker`.
            let ran = contain(|| {
                let output = job.run(&checkpoint);
                match checkpoint.told() {
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
        Panics::EndThread => return run_unguarded(admitted, ledger), // MISTAKE(worker-panic): no thread, no completion, no permit comes back.
    };
    Some((admitted, Ran { outcome, took: began.elapsed() }))
}

/// Runs a job with nothing around it. When it panics, the unwinding takes the thread with it.
fn run_unguarded<J: Job>(admitted: Admitted<J>, ledger: &Arc<Ledger>) -> Option<(Admitted<J>, Ran<J::Output>)> {
    let began = Instant::now();
    let (job, terms, admitted_at) = admitted.into_unguarded()?;
    let mut job = job;
    let output = {
        let checkpoint = Checkpoint::new(&terms, &ledger.phase, ledger.rules.heeds_terms());
        job.run(&checkpoint)
    };
    let ran = Ran { outcome: Outcome::Done(output), took: began.elapsed() };
    Some((Admitted::guard_again(job, terms, admitted_at, Arc::clone(ledger)), ran))
}

/// Starts a thread for one job.
fn spawn_for<J: Job>(workshop: Arc<Workshop<J>>, admitted: Admitted<J>) {
    // What a panic carries ends here: std aborts the process when the `Drop` of a thread's result panics.
    let run = move || drop(contain(|| workshop.run(admitted, Instant::now())));
    // When no thread can be had, the closure is dropped, and with it the job: the guard answers it.
    if let Err(error) = std::thread::Builder::new().name("worker-job".to_owned()).spawn(run) {
        let _ = contain(|| log::error!("no thread for a job: {error}"));
    }
}
