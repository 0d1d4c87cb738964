//! Which job a free worker runs next, and when it sleeps: the channel, the ordered queue behind it, and the lock around that queue.
//!
//! Leader and followers (Schmidt et al., "Pattern-Oriented Software Architecture", volume 2): a free worker that gets the lock moves the
//! jobs that have arrived from the channel into the ordered queue, takes one of them, and leaves the rest to the next worker. No job runs
//! and no job is answered under the lock. A submitter never takes it.

use std::sync::Arc;
use std::time::Instant;

use crate::completion::AdmittedJob;
use crate::job::{Class, Job, PHASE_DROPPING, PHASE_RUNNING, Unfinished};
use crate::job_channel::{Message, Receiver, Sender};
use crate::policy::WhenFull;
use crate::queue::{Dequeued, JobQueue, QueuedJob};
use crate::state::PoolState;
use crate::sync::{Mutex, MutexGuard};

/// What the workers share.
pub(crate) struct Scheduler<J: Job> {
    receiver: Receiver<Message<AdmittedJob<J>>>,
    /// Wakes a sleeping worker for a job that is no longer in the channel.
    sender: Sender<Message<AdmittedJob<J>>>,
    queue: Mutex<QueueState<J>>,
    pub(crate) state: Arc<PoolState>,
}

struct QueueState<J: Job> {
    waiting: JobQueue<AdmittedJob<J>>,
    /// Workers that sleep in the channel, or are about to.
    sleepers: u32,
    /// A `Wake` is in the channel. One is enough: the worker that gets it sends the next one if there is more to run.
    wake_sent: bool,
}

/// What a worker does next.
pub(crate) enum Next<J: Job> {
    Run(AdmittedJob<J>),
    Answer(AdmittedJob<J>, Unfinished),
    /// Sleep in [`Scheduler::wait`].
    Sleep,
    Exit,
}

impl<J: Job> Scheduler<J> {
    pub(crate) fn new(receiver: Receiver<Message<AdmittedJob<J>>>, sender: Sender<Message<AdmittedJob<J>>>, state: Arc<PoolState>) -> Self {
        let waiting = JobQueue::new(&state.resolved);
        let queue = Mutex::new(QueueState { waiting, sleepers: 0, wake_sent: false });
        Self { receiver, sender, queue, state }
    }

    /// Blocks until a message arrives. `None` when there is no sender any more.
    pub(crate) fn wait(&self) -> Option<Message<AdmittedJob<J>>> {
        self.receiver.recv().ok()
    }

    /// What the calling worker does next. `woken_by` is the message that [`wait`](Self::wait) returned, if the worker slept.
    pub(crate) fn next(&self, woken_by: Option<Message<AdmittedJob<J>>>, now: Instant) -> Next<J> {
        let mut queue = self.lock();
        // Before the channel is emptied: a job that is submitted after that publishes itself.
        self.state.stats.forget_oldest();
        if let Some(message) = woken_by {
            queue.sleepers -= 1;
            queue.receive(message);
        }
        // The phase is read before the channel is emptied. In the other order a worker could exit although a job arrived between the two
        // (loom test: `loom_no_worker_sleeps_next_to_a_job_and_finishing_runs_every_job`).
        let phase = self.state.phase();
        self.empty_channel_into(&mut queue);
        let taken = if phase == PHASE_DROPPING {
            match queue.waiting.pop_any() {
                Some(admitted) => Dequeued::Answer(admitted, Unfinished::Dropped),
                None => Dequeued::Nothing,
            }
        } else {
            queue.waiting.take(now, self.waiting_jobs_max())
        };
        self.publish_oldest(&queue);
        match taken {
            Dequeued::Run(admitted) => {
                self.wake_sleeper_if_runnable(&mut queue);
                Next::Run(admitted)
            }
            Dequeued::Answer(admitted, why) => {
                self.wake_sleeper_if_runnable(&mut queue);
                Next::Answer(admitted, why)
            }
            Dequeued::Nothing if phase != PHASE_RUNNING => Next::Exit,
            Dequeued::Nothing => {
                queue.sleepers += 1;
                Next::Sleep
            }
        }
    }

    /// A slow job that [`next`](Self::next) gave out has ended.
    pub(crate) fn slow_job_ended(&self) {
        self.lock().waiting.slow_ended();
    }

    /// The whole life of the thread that answers jobs when they expire: see `deadlines.rs`.
    pub(crate) fn watch_deadlines(&self) {
        let alarm = &self.state.alarm;
        alarm.attach_this_thread();
        while self.answer_expired(Instant::now()) {
            alarm.sleep();
        }
    }

    /// Answers every waiting job whose deadline has passed, and arms the alarm for the next deadline. False when the pool is shutting
    /// down and no waiting job can expire any more.
    fn answer_expired(&self, now: Instant) -> bool {
        // Before the look: a job that arrives during it arms the alarm again.
        self.state.alarm.disarm();
        loop {
            let (expired, why) = {
                let mut queue = self.lock();
                let phase = self.state.phase();
                if phase == PHASE_DROPPING {
                    return false;
                }
                self.state.stats.forget_oldest();
                self.empty_channel_into(&mut queue);
                let expired = queue.waiting.pop_expired(now);
                self.publish_oldest(&queue);
                // A job that was moved out of the channel here may be for a sleeping worker (loom test:
                // `loom_a_look_for_expired_jobs_leaves_no_worker_asleep_next_to_a_job`).
                self.wake_sleeper_if_runnable(&mut queue);
                match expired {
                    Some(expired) => expired,
                    None if phase != PHASE_RUNNING && queue.waiting.is_empty() => return false,
                    None => {
                        if let Some(deadline) = queue.waiting.next_deadline() {
                            self.state.alarm.arm(deadline);
                        }
                        return true;
                    }
                }
            };
            expired.answer_unfinished(why);
        }
    }

    /// Answers every waiting job with `Dropped`, without running it. For shutdown, from any thread.
    pub(crate) fn drop_waiting(&self) {
        loop {
            let admitted = {
                let mut queue = self.lock();
                self.empty_channel_into(&mut queue);
                queue.waiting.pop_any()
            };
            match admitted {
                Some(admitted) => admitted.answer_unfinished(Unfinished::Dropped),
                None => return,
            }
        }
    }

    /// Wakes every sleeping thread of the pool, so that it looks at the phase.
    pub(crate) fn wake_all(&self) {
        for _ in 0..self.state.resolved.threads {
            // The channel has a slot for each thread. When it is full, its messages wake the workers as well.
            let _ = self.sender.try_send(Message::Stop);
        }
        self.state.alarm.look_now();
    }

    /// Wakes a sleeping worker if the ordered queue holds a job for it. The send of that job may have woken a worker that found the
    /// channel empty, because another thread had moved the job into the queue; without this call that worker sleeps next to a job (loom
    /// test: `loom_a_job_moved_out_of_the_channel_still_wakes_a_sleeping_worker`).
    fn wake_sleeper_if_runnable(&self, queue: &mut QueueState<J>) {
        if queue.sleepers > 0 && !queue.wake_sent && queue.waiting.has_runnable() {
            // The channel has a slot for it. When it is full, its messages wake the sleepers as well.
            queue.wake_sent = self.sender.try_send(Message::Wake).is_ok();
        }
    }

    fn empty_channel_into(&self, queue: &mut QueueState<J>) {
        // Bounded by the permits: there are no more jobs in the channel than permits. A submitter that sends meanwhile needs a permit
        // that another job has given back.
        let mut messages_left = self.state.resolved.in_flight_max;
        let mut stops = 0;
        while messages_left > 0
            && let Ok(message) = self.receiver.try_recv()
        {
            match message {
                Message::Stop => stops += 1,
                other => queue.receive(other),
            }
            messages_left -= 1;
        }
        // They are for workers that may still sleep, so they go back; the channel has just been emptied.
        for _ in 0..stops {
            let _ = self.sender.try_send(Message::Stop);
        }
    }

    fn publish_oldest(&self, queue: &QueueState<J>) {
        if let Some(since) = queue.waiting.oldest() {
            self.state.stats.note_oldest(since);
        }
    }

    /// How many jobs may wait before the oldest is shed. No limit unless the policy is to shed the oldest.
    fn waiting_jobs_max(&self) -> usize {
        let resolved = &self.state.resolved;
        match resolved.when_full {
            WhenFull::RefuseNewest | WhenFull::Sample { .. } => usize::MAX,
            WhenFull::DropOldest => {
                let by_number = resolved.queue_jobs_max as usize;
                let mean_run = self.state.stats.run_mean(Class::Fast);
                match resolved.wait_max {
                    Some(wait_max) if !mean_run.is_zero() => {
                        // A float cast saturates, so no duration overflows here.
                        let jobs = wait_max.as_secs_f64() * f64::from(resolved.threads) / mean_run.as_secs_f64();
                        by_number.min((jobs as usize).max(1))
                    }
                    _ => by_number,
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState<J>> {
        // No code of a job runs under the lock, so a poisoned lock means that the queue's own code has panicked. The queue holds whole
        // jobs at any moment: to continue is safe, and to stop would hang every client.
        self.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<J: Job> QueueState<J> {
    fn receive(&mut self, message: Message<AdmittedJob<J>>) {
        match message {
            Message::Job(admitted) => self.waiting.push(admitted),
            Message::Wake => self.wake_sent = false,
            Message::Stop => {}
        }
    }
}

impl<J: Job> QueuedJob for AdmittedJob<J> {
    fn terms(&self) -> &crate::job::Terms {
        AdmittedJob::terms(self)
    }

    fn admitted_at(&self) -> Instant {
        AdmittedJob::admitted_at(self)
    }
}
