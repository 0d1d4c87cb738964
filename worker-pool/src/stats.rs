//! What the pool counts: readable from any thread, at any time, without a lock.
//!
//! Each number is exact; two of them read one after the other may be a job apart.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::admission::ClassEstimate;
use crate::histogram::Histogram;
use crate::job::{Class, OutcomeKind};
use crate::permits::{InFlight, Permits};
use crate::rejection::Reason;

/// Counters, gauges and histograms of one pool.
#[derive(Debug)]
pub struct Stats {
    /// Where `oldest_ns` counts from.
    epoch: Instant,
    pub(crate) permits: Permits,
    waiting: [AtomicU32; 2],
    running: [AtomicU32; 2],
    threads_alive: AtomicU32,
    limit: AtomicU32,
    /// Since when the oldest job waits, in nanoseconds after `epoch`; `NONE_WAITING` when no waiting job is known.
    oldest_ns: AtomicU64,
    admitted: AtomicU64,
    outcomes: [AtomicU64; OutcomeKind::ALL.len()],
    rejections: [AtomicU64; Reason::ALL.len()],
    complete_panics: AtomicU64,
    abandoned_run_ns: AtomicU64,
    time_in_queue: [Histogram; 2],
    run_time: [Histogram; 2],
    estimates: [ClassEstimate; 2],
}

const NONE_WAITING: u64 = u64::MAX;

impl Stats {
    pub(crate) fn new(limit: u32) -> Self {
        let epoch = Instant::now();
        Self {
            epoch,
            permits: Permits::new(),
            waiting: Default::default(),
            running: Default::default(),
            threads_alive: AtomicU32::new(0),
            limit: AtomicU32::new(limit),
            oldest_ns: AtomicU64::new(NONE_WAITING),
            admitted: AtomicU64::new(0),
            outcomes: Default::default(),
            rejections: Default::default(),
            complete_panics: AtomicU64::new(0),
            abandoned_run_ns: AtomicU64::new(0),
            time_in_queue: Default::default(),
            run_time: Default::default(),
            estimates: [ClassEstimate::new(epoch), ClassEstimate::new(epoch)],
        }
    }

    /// Jobs waiting, in the channel and in the ordered queue together.
    pub fn depth(&self) -> u32 {
        Class::ALL.map(|class| self.waiting(class)).iter().sum()
    }

    /// Jobs of one class waiting.
    pub fn waiting(&self, class: Class) -> u32 {
        self.waiting[class as usize].load(Ordering::Relaxed)
    }

    /// How long the oldest job has waited; zero when no job waits. Workers update it when they look for a job, so while every thread is
    /// busy it can be the age of a job that was taken at the last look.
    pub fn oldest_age(&self, now: Instant) -> Duration {
        let oldest_ns = self.oldest_ns.load(Ordering::Relaxed);
        if oldest_ns == NONE_WAITING || self.depth() == 0 {
            return Duration::ZERO;
        }
        now.saturating_duration_since(self.epoch + Duration::from_nanos(oldest_ns))
    }

    /// Permits that are taken: jobs waiting or running. Zero when every admitted job has been answered.
    pub fn in_flight(&self) -> InFlight {
        self.permits.in_flight()
    }

    /// Threads that run a job now.
    pub fn threads_busy(&self) -> u32 {
        Class::ALL.map(|class| self.running(class)).iter().sum()
    }

    /// Jobs of one class that run now.
    pub fn running(&self, class: Class) -> u32 {
        self.running[class as usize].load(Ordering::Relaxed)
    }

    /// Worker threads that live. Fewer than configured only with a mistake on, or while shutting down.
    pub fn threads_alive(&self) -> u32 {
        self.threads_alive.load(Ordering::Relaxed)
    }

    /// Jobs that may be in flight now: constant, or moved by the adaptive limit.
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Jobs admitted since the start.
    pub fn admitted(&self) -> u64 {
        self.admitted.load(Ordering::Relaxed)
    }

    /// Admitted jobs that ended this way.
    pub fn outcomes(&self, kind: OutcomeKind) -> u64 {
        self.outcomes[kind as usize].load(Ordering::Relaxed)
    }

    /// Jobs rejected for this reason.
    pub fn rejections(&self, reason: Reason) -> u64 {
        self.rejections[reason as usize].load(Ordering::Relaxed)
    }

    /// Panics in `Job::complete`: each is a client without a response, and a bug in the service.
    pub fn complete_panics(&self) -> u64 {
        self.complete_panics.load(Ordering::Relaxed)
    }

    /// Run time of jobs that were cancelled or expired when they ended. Divide by the sum of `run_time` for the share that was wasted.
    pub fn abandoned_run_time(&self) -> Duration {
        Duration::from_nanos(self.abandoned_run_ns.load(Ordering::Relaxed))
    }

    /// From admission until a worker took the job to run it.
    pub fn time_in_queue(&self, class: Class) -> &Histogram {
        &self.time_in_queue[class as usize]
    }

    /// From the start of `run` to its end, by the wall clock, panicked and stopped runs included.
    pub fn run_time(&self, class: Class) -> &Histogram {
        &self.run_time[class as usize]
    }

    /// The recent mean of the run time, as admission uses it; zero before the first run.
    pub fn run_mean(&self, class: Class) -> Duration {
        self.estimate(class).run_mean.load()
    }

    /// What admission decides by.
    pub(crate) fn estimate(&self, class: Class) -> &ClassEstimate {
        &self.estimates[class as usize]
    }

    pub(crate) fn job_waits(&self, class: Class) {
        self.admitted.fetch_add(1, Ordering::Relaxed);
        self.waiting[class as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The channel refused an admitted job.
    pub(crate) fn job_taken_back(&self, class: Class) {
        self.admitted.fetch_sub(1, Ordering::Relaxed);
        self.waiting[class as usize].fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn job_starts(&self, class: Class, waited: Duration) {
        self.waiting[class as usize].fetch_sub(1, Ordering::Relaxed);
        self.running[class as usize].fetch_add(1, Ordering::Relaxed);
        self.time_in_queue[class as usize].record(waited);
    }

    pub(crate) fn run_ended(&self, class: Class, ran: Duration, abandoned: bool) {
        self.run_time[class as usize].record(ran);
        self.estimate(class).run_mean.record(ran);
        if abandoned {
            let ns = u64::try_from(ran.as_nanos()).unwrap_or(u64::MAX);
            self.abandoned_run_ns.fetch_add(ns, Ordering::Relaxed);
        }
    }

    pub(crate) fn job_ends(&self, class: Class, was_running: bool, kind: OutcomeKind) {
        let gauge = if was_running { &self.running } else { &self.waiting };
        gauge[class as usize].fetch_sub(1, Ordering::Relaxed);
        self.outcomes[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn rejected(&self, reason: Reason) {
        self.rejections[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn complete_panicked(&self) {
        self.complete_panics.fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(not(loom))] // The model's threads are loom's.
    pub(crate) fn thread_started(&self) {
        self.threads_alive.fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(not(loom))] // The model's threads are loom's.
    pub(crate) fn thread_ended(&self) {
        self.threads_alive.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// A worker begins to look for a job. It publishes the oldest job at the end.
    pub(crate) fn forget_oldest(&self) {
        self.oldest_ns.store(NONE_WAITING, Ordering::Relaxed);
    }

    /// A worker has looked and jobs still wait.
    pub(crate) fn note_oldest(&self, since: Instant) {
        self.oldest_ns.store(self.since_epoch_ns(since), Ordering::Relaxed);
    }

    /// A submitter has sent a job. It is the oldest if no other is known.
    pub(crate) fn note_oldest_if_none(&self, since: Instant) {
        // Read first: under load a job waits already, and then a read is the whole cost.
        if self.oldest_ns.load(Ordering::Relaxed) == NONE_WAITING {
            let since = self.since_epoch_ns(since);
            // When it fails, another thread has written the time of an older job.
            let _ = self.oldest_ns.compare_exchange(NONE_WAITING, since, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn since_epoch_ns(&self, at: Instant) -> u64 {
        let ns = at.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(ns).unwrap_or(NONE_WAITING - 1)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_age_is_of_the_first_job_noted_and_zero_when_no_job_waits() {
        let stats = Stats::new(1);
        let (first, second) = (stats.epoch + Duration::from_secs(1), stats.epoch + Duration::from_secs(2));
        let later = stats.epoch + Duration::from_secs(5);
        // Noted by a submitter after a worker had taken the job: its age must not grow while it runs.
        stats.note_oldest_if_none(first);
        assert_eq!(stats.oldest_age(later), Duration::ZERO);
        stats.job_waits(Class::Slow);
        stats.note_oldest_if_none(second);
        assert_eq!(stats.oldest_age(later), Duration::from_secs(4));
        stats.forget_oldest();
        assert_eq!(stats.oldest_age(later), Duration::ZERO);
        stats.note_oldest(second);
        assert_eq!(stats.oldest_age(later), Duration::from_secs(3));
    }
}
