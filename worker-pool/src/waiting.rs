//! The ordered queue: which job is next, and which are answered without being run.
//!
//! Only workers touch it, one at a time. It knows no thread and reads no clock: `now` is an argument, so
//! that every rule below can be tested in virtual time. Next: `worker.rs`, which calls it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::codel::CoDel;
use crate::job::{Class, Terms, Unfinished};
use crate::policy::{Abandoned, Discipline};
use crate::rules::Rules;

/// Something that waits: a job, or a test's stand-in.
pub trait Waits {
    /// On what terms it waits.
    fn terms(&self) -> &Terms;
    /// Since when.
    fn admitted_at(&self) -> Instant;
}

/// What a free worker gets.
#[derive(Debug)]
pub enum Taken<T> {
    /// Run this one. If it is slow, say so when it ends: [`Waiting::slow_ended`].
    Run(T),
    /// Answer this one; it is not worth running. Then ask again.
    Answer(T, Unfinished),
    /// Nothing waits that a free thread may run.
    Nothing,
}

/// The waiting jobs, in order, by class.
#[derive(Debug)]
pub struct Waiting<T> {
    fast: Line<T>,
    slow: Line<T>,
    discipline: Discipline,
    abandoned: Abandoned,
    /// Slow jobs that hold a thread now, and how many may.
    slow_running: u32,
    slow_threads_max: u32,
    /// When both classes could run, they take turns: neither can starve the other.
    slow_is_next: bool,
    /// The number of the next job that is pushed.
    next_number: u64,
}

#[derive(Debug)]
struct Line<T> {
    /// By number: the first is the oldest.
    jobs: BTreeMap<u64, T>,
    /// Of those that have one: deadline and number. A job expires wherever in the line it stands.
    deadlines: BTreeSet<(Instant, u64)>,
    /// One for each class: slow jobs wait for other reasons than fast ones.
    codel: Option<CoDel>,
}

impl<T: Waits> Waiting<T> {
    /// An empty queue.
    pub fn new(rules: &Rules) -> Self {
        Self {
            fast: Line::new(rules.discipline),
            slow: Line::new(rules.discipline),
            discipline: rules.discipline,
            abandoned: rules.abandoned,
            slow_running: 0,
            slow_threads_max: rules.slow_threads_max,
            slow_is_next: false,
            next_number: 0,
        }
    }

    /// Puts a job at the end of its line.
    pub fn push(&mut self, job: T) {
        let number = self.next_number;
        self.next_number += 1; // At 10⁹ a second it lasts for 584 years.
        let line = match job.terms().class {
            Class::Fast => &mut self.fast,
            Class::Slow => &mut self.slow,
        };
        if self.abandoned == Abandoned::Skip
            && let Some(deadline) = job.terms().deadline
        {
            line.deadlines.insert((deadline, number));
        }
        line.jobs.insert(number, job);
    }

    /// Waiting jobs of both classes.
    pub fn len(&self) -> usize {
        self.fast.jobs.len() + self.slow.jobs.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Since when the oldest waits.
    pub fn oldest(&self) -> Option<Instant> {
        let heads = [&self.fast, &self.slow].into_iter().filter_map(Line::front);
        heads.map(Waits::admitted_at).min()
    }

    /// Whether another free thread would find something to run.
    pub fn has_runnable(&self) -> bool {
        !self.fast.jobs.is_empty() || self.slow_may_run()
    }

    /// A slow job that [`take`](Self::take) gave out has ended.
    pub fn slow_ended(&mut self) {
        debug_assert!(self.slow_running > 0, "more slow jobs ended than began");
        self.slow_running = self.slow_running.saturating_sub(1);
    }

    /// The next job for a free thread, or one to answer first.
    ///
    /// `jobs_max` is for the policy that drops the oldest: above it, the oldest gives way.
    pub fn take(&mut self, now: Instant, jobs_max: usize) -> Taken<T> {
        // Jobs that are not worth running first: they cost no work, and their permits become free. Slow ones too, even while no slow
        // job may run.
        if let Some((job, why)) = self.pop_expired(now) {
            return Taken::Answer(job, why);
        }
        if self.abandoned == Abandoned::Skip {
            for class in Class::ALL {
                let line = self.line(class);
                if let Some(why) = line.front().and_then(|job| job.terms().abandoned(now))
                    && let Some(job) = line.pop_front()
                {
                    return Taken::Answer(job, why);
                }
            }
        }
        if self.len() > jobs_max
            && let Some(job) = self.pop_oldest()
        {
            return Taken::Answer(job, Unfinished::Shed);
        }
        let Some((class, job)) = self.pop_next(now) else {
            return Taken::Nothing;
        };
        if let Some(why) = self.verdict(class, &job, now) {
            return Taken::Answer(job, why);
        }
        if class == Class::Slow {
            self.slow_running += 1;
        }
        Taken::Run(job)
    }

    /// A job whose deadline has passed, wherever in its line it stands. Nothing when the policy is to run such jobs anyway.
    pub fn pop_expired(&mut self, now: Instant) -> Option<(T, Unfinished)> {
        let job = self.fast.pop_expired(now).or_else(|| self.slow.pop_expired(now))?;
        // A client that has also cancelled needs no response.
        let why = job.terms().abandoned(now).unwrap_or(Unfinished::Expired);
        Some((job, why))
    }

    /// When the next waiting job expires.
    pub fn next_deadline(&self) -> Option<Instant> {
        let firsts = [&self.fast, &self.slow].into_iter().filter_map(|line| line.deadlines.first());
        firsts.map(|(deadline, _)| *deadline).min()
    }

    /// Everything that waits, oldest first within a class: for shutdown.
    pub fn pop_any(&mut self) -> Option<T> {
        self.fast.pop_front().or_else(|| self.slow.pop_front())
    }

    /// Why a job that was just taken off its line should not run.
    fn verdict(&mut self, class: Class, job: &T, now: Instant) -> Option<Unfinished> {
        let abandoned = match self.abandoned {
            Abandoned::Skip => job.terms().abandoned(now),
            Abandoned::RunAnyway => None, // MISTAKE(departed-clients): the work is done for clients that are gone.
        };
        if abandoned.is_some() {
            return abandoned;
        }
        let waited = now.saturating_duration_since(job.admitted_at());
        let codel = self.line(class).codel.as_mut()?;
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
            Discipline::NewestFirst { pressure } => self.line(class).waited(now) > pressure,
        };
        let line = self.line(class);
        let job = if newest { line.pop_back() } else { line.pop_front() };
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

    fn line(&mut self, class: Class) -> &mut Line<T> {
        match class {
            Class::Fast => &mut self.fast,
            Class::Slow => &mut self.slow,
        }
    }
}

impl<T: Waits> Line<T> {
    fn new(discipline: Discipline) -> Self {
        let codel = match discipline {
            Discipline::CoDel { target, interval } => Some(CoDel::new(target, interval)),
            Discipline::Fifo | Discipline::NewestFirst { .. } => None,
        };
        // Grows on demand and never past the permits; a pool at rest holds nothing here.
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

    /// How long its oldest has waited.
    fn waited(&self, now: Instant) -> Duration {
        self.front().map_or(Duration::ZERO, |job| now.saturating_duration_since(job.admitted_at()))
    }
}
