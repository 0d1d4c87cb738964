//! The ordered queue of waiting jobs: which job runs next, and which jobs are answered without being run.
//!
//! The scheduler calls it under its lock. It knows no thread and reads no clock: `now` is an argument, so that its rules can be tested in
//! virtual time (`tests/the_job_queue_keeps_its_discipline.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::codel::CoDel;
use crate::job::{Class, Terms, Unfinished};
use crate::policy::{Abandoned, Discipline};
use crate::resolved_config::ResolvedConfig;

/// A job in the queue, or a stand-in for one in a test.
pub trait QueuedJob {
    /// Its class, deadline and cancel flag.
    fn terms(&self) -> &Terms;
    /// Since when it waits.
    fn admitted_at(&self) -> Instant;
}

/// What a free worker gets from the queue.
#[derive(Debug)]
pub enum Dequeued<T> {
    /// Run this job. When a slow job ends, call [`JobQueue::slow_ended`].
    Run(T),
    /// Answer this job without running it. Then ask again.
    Answer(T, Unfinished),
    /// No waiting job may run now.
    Nothing,
}

/// The waiting jobs, by class, in order of admission.
#[derive(Debug)]
pub struct JobQueue<T> {
    fast: ClassQueue<T>,
    slow: ClassQueue<T>,
    discipline: Discipline,
    abandoned: Abandoned,
    /// Slow jobs that hold a thread now.
    slow_running: u32,
    slow_threads_max: u32,
    /// When both classes could run, they take turns, so that neither starves the other (test: `fast_and_slow_jobs_take_turns`).
    slow_is_next: bool,
    /// The number of the next job that is pushed.
    next_number: u64,
}

#[derive(Debug)]
struct ClassQueue<T> {
    /// By number. The first is the oldest.
    jobs: BTreeMap<u64, T>,
    /// Deadline and number of the jobs that have a deadline. A job can expire before the jobs in front of it.
    deadlines: BTreeSet<(Instant, u64)>,
    /// One for each class: slow jobs and fast jobs wait for different reasons.
    codel: Option<CoDel>,
}

impl<T: QueuedJob> JobQueue<T> {
    /// An empty queue.
    pub fn new(resolved: &ResolvedConfig) -> Self {
        Self {
            fast: ClassQueue::new(resolved.discipline),
            slow: ClassQueue::new(resolved.discipline),
            discipline: resolved.discipline,
            abandoned: resolved.abandoned,
            slow_running: 0,
            slow_threads_max: resolved.slow_threads_max,
            slow_is_next: false,
            next_number: 0,
        }
    }

    /// Adds a job behind the others of its class.
    pub fn push(&mut self, job: T) {
        let number = self.next_number;
        self.next_number += 1; // At 10⁹ a second it lasts for 584 years.
        let queue = match job.terms().class {
            Class::Fast => &mut self.fast,
            Class::Slow => &mut self.slow,
        };
        if self.abandoned == Abandoned::Skip
            && let Some(deadline) = job.terms().deadline
        {
            queue.deadlines.insert((deadline, number));
        }
        queue.jobs.insert(number, job);
    }

    /// The number of waiting jobs of both classes.
    pub fn len(&self) -> usize {
        self.fast.jobs.len() + self.slow.jobs.len()
    }

    /// Whether no job waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Since when the oldest job waits.
    pub fn oldest(&self) -> Option<Instant> {
        let heads = [&self.fast, &self.slow].into_iter().filter_map(ClassQueue::front);
        heads.map(QueuedJob::admitted_at).min()
    }

    /// Whether another free thread would find a job to run.
    pub fn has_runnable(&self) -> bool {
        !self.fast.jobs.is_empty() || self.slow_may_run()
    }

    /// A slow job that [`take`](Self::take) returned has ended.
    pub fn slow_ended(&mut self) {
        debug_assert!(self.slow_running > 0, "more slow jobs ended than began");
        self.slow_running = self.slow_running.saturating_sub(1);
    }

    /// The next job for a free thread, or one to answer first.
    ///
    /// `jobs_max` is for the policy that sheds the oldest job: it is shed while more jobs wait.
    pub fn take(&mut self, now: Instant, jobs_max: usize) -> Dequeued<T> {
        // Expired and cancelled jobs first: they cost no work, and their permits become free. Slow ones too, even while no slow job may
        // run.
        if let Some((job, why)) = self.pop_expired(now) {
            return Dequeued::Answer(job, why);
        }
        if self.abandoned == Abandoned::Skip {
            for class in Class::ALL {
                let queue = self.class_queue(class);
                if let Some(why) = queue.front().and_then(|job| job.terms().abandoned(now))
                    && let Some(job) = queue.pop_front()
                {
                    return Dequeued::Answer(job, why);
                }
            }
        }
        if self.len() > jobs_max
            && let Some(job) = self.pop_oldest()
        {
            return Dequeued::Answer(job, Unfinished::Shed);
        }
        let Some((class, job)) = self.pop_next(now) else {
            return Dequeued::Nothing;
        };
        if let Some(why) = self.reason_not_to_run(class, &job, now) {
            return Dequeued::Answer(job, why);
        }
        if class == Class::Slow {
            self.slow_running += 1;
        }
        Dequeued::Run(job)
    }

    /// Removes a job whose deadline has passed. None when the policy is to run such jobs anyway.
    pub fn pop_expired(&mut self, now: Instant) -> Option<(T, Unfinished)> {
        let job = self.fast.pop_expired(now).or_else(|| self.slow.pop_expired(now))?;
        // A client that has also cancelled needs no response.
        let why = job.terms().abandoned(now).unwrap_or(Unfinished::Expired);
        Some((job, why))
    }

    /// When the next waiting job expires.
    pub fn next_deadline(&self) -> Option<Instant> {
        let firsts = [&self.fast, &self.slow].into_iter().filter_map(|queue| queue.deadlines.first());
        firsts.map(|(deadline, _)| *deadline).min()
    }

    /// Removes any job, the oldest of a class first: for shutdown.
    pub fn pop_any(&mut self) -> Option<T> {
        self.fast.pop_front().or_else(|| self.slow.pop_front())
    }

    /// Why a job that was just removed from its queue should not run.
    fn reason_not_to_run(&mut self, class: Class, job: &T, now: Instant) -> Option<Unfinished> {
        let abandoned = match self.abandoned {
            Abandoned::Skip => job.terms().abandoned(now),
            Abandoned::RunAnyway => None, // MISTAKE(departed-clients): the work is done for clients that have disconnected.
        };
        if abandoned.is_some() {
            return abandoned;
        }
        let waited = now.saturating_duration_since(job.admitted_at());
        let codel = self.class_queue(class).codel.as_mut()?;
        codel.sheds(waited, now).then_some(Unfinished::Shed)
    }

    fn pop_next(&mut self, now: Instant) -> Option<(Class, T)> {
        let class = match (!self.fast.jobs.is_empty(), self.slow_may_run()) {
            (false, false) => return None,
            (true, false) => Class::Fast,
            (false, true) => Class::Slow,
            (true, true) => {
                self.slow_is_next = !self.slow_is_next;
                if self.slow_is_next { Class::Slow } else { Class::Fast }
            }
        };
        let newest = match self.discipline {
            Discipline::Fifo | Discipline::CoDel { .. } => false,
            Discipline::NewestFirst { pressure } => self.class_queue(class).waited(now) > pressure,
        };
        let queue = self.class_queue(class);
        let job = if newest { queue.pop_back() } else { queue.pop_front() };
        job.map(|job| (class, job))
    }

    fn pop_oldest(&mut self) -> Option<T> {
        let heads = (self.fast.front(), self.slow.front());
        match heads {
            (Some(fast), Some(slow)) if slow.admitted_at() < fast.admitted_at() => self.slow.pop_front(),
            (Some(_), _) => self.fast.pop_front(),
            (None, _) => self.slow.pop_front(),
        }
    }

    fn slow_may_run(&self) -> bool {
        !self.slow.jobs.is_empty() && self.slow_running < self.slow_threads_max
    }

    fn class_queue(&mut self, class: Class) -> &mut ClassQueue<T> {
        match class {
            Class::Fast => &mut self.fast,
            Class::Slow => &mut self.slow,
        }
    }
}

impl<T: QueuedJob> ClassQueue<T> {
    fn new(discipline: Discipline) -> Self {
        let codel = match discipline {
            Discipline::CoDel { target, interval } => Some(CoDel::new(target, interval)),
            Discipline::Fifo | Discipline::NewestFirst { .. } => None,
        };
        // Grows on demand, and not past the number of permits.
        Self { jobs: BTreeMap::new(), deadlines: BTreeSet::new(), codel }
    }

    fn front(&self) -> Option<&T> {
        self.jobs.first_key_value().map(|(_, job)| job)
    }

    fn pop_front(&mut self) -> Option<T> {
        let (number, job) = self.jobs.pop_first()?;
        self.forget_deadline(&job, number);
        Some(job)
    }

    fn pop_back(&mut self) -> Option<T> {
        let (number, job) = self.jobs.pop_last()?;
        self.forget_deadline(&job, number);
        Some(job)
    }

    fn pop_expired(&mut self, now: Instant) -> Option<T> {
        let (deadline, number) = *self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.deadlines.pop_first();
        self.jobs.remove(&number)
    }

    fn forget_deadline(&mut self, job: &T, number: u64) {
        if let Some(deadline) = job.terms().deadline {
            self.deadlines.remove(&(deadline, number));
        }
    }

    /// How long the oldest job has waited.
    fn waited(&self, now: Instant) -> Duration {
        self.front().map_or(Duration::ZERO, |job| now.saturating_duration_since(job.admitted_at()))
    }
}
