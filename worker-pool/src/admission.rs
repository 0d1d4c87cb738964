//! Whether a job is admitted: its expected wait is the queue depth times the measured run time, divided by the threads that serve it.
//!
//! Pure arithmetic on numbers that any thread can read without a lock. The wait is an estimate: the mean forgets slowly (one eighth per
//! job) and does not know how much of the running jobs is done. A wrong estimate corrects itself: the pool rejects jobs only while other
//! jobs are in flight, and each of those corrects the mean and shortens the queue when it ends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::job::{Class, Terms};
use crate::permits::InFlight;
use crate::policy::{Discipline, WhenFull};
use crate::rejection::Reason;
use crate::resolved_config::ResolvedConfig;

/// The measured run time of one class: an exponentially weighted mean.
#[derive(Debug, Default)]
pub struct RunMean(AtomicU64);

impl RunMean {
    /// Each new run has the weight of one eighth, as in TCP's smoothed round-trip time (RFC 6298, section 2).
    const WEIGHT: u64 = 8;

    /// Adds one run to the mean. The first run is the mean.
    pub fn record(&self, run: Duration) {
        // At least 1 ns: zero means that no run was measured yet.
        let sample = u64::try_from(run.as_nanos()).unwrap_or(u64::MAX / 2).clamp(1, u64::MAX / 2);
        let blend = |mean: u64| {
            Some(match mean {
                0 => sample,
                _ => (mean - mean / Self::WEIGHT + sample / Self::WEIGHT).max(1),
            })
        };
        // Cannot fail: `blend` always returns a value.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, blend);
    }

    /// The mean; zero before the first run has ended.
    pub fn load(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// When a thread was last free for the jobs of one class. Distinguishes a burst from a standing queue.
///
/// A burst fills the queue and passes. A standing queue is an overload, and its length is nothing but latency (Nichols and Jacobson,
/// "Controlling Queue Delay", ACM Queue 2012; for requests Maurer, "Fail at Scale", ACM Queue 2015, `queue.lastEmptyTime()`).
#[derive(Debug)]
pub struct LastFree {
    epoch: Instant,
    after_ns: AtomicU64,
}

impl LastFree {
    /// A thread is free now.
    pub fn new(now: Instant) -> Self {
        Self { epoch: now, after_ns: AtomicU64::new(0) }
    }

    /// A job that is offered now would not wait.
    fn note(&self, now: Instant) {
        let after_ns = u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX);
        // Relaxed: it publishes nothing but itself. A loop with an older clock reading moves it back by the difference.
        self.after_ns.store(after_ns, Ordering::Relaxed);
    }

    /// For how long no job that was offered has found a thread free.
    fn ago(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch + Duration::from_nanos(self.after_ns.load(Ordering::Relaxed)))
    }
}

/// What the pool has measured of the jobs of one class.
#[derive(Debug)]
pub struct ClassEstimate {
    /// How long they run.
    pub run_mean: RunMean,
    /// When a thread was last free for them.
    pub last_free: LastFree,
}

impl ClassEstimate {
    /// No job was measured yet.
    pub fn new(now: Instant) -> Self {
        Self { run_mean: RunMean::default(), last_free: LastFree::new(now) }
    }
}

/// How long a job of this class would wait if it were admitted now, behind those in flight.
pub fn expected_wait(resolved: &ResolvedConfig, class: Class, in_flight: InFlight, mean_run: Duration) -> Duration {
    let (ahead, servers) = match class {
        Class::Slow => (in_flight.slow, resolved.slow_threads_max),
        // Slow jobs hold their threads for long: those threads do not serve fast jobs.
        Class::Fast => {
            let held = in_flight.slow.min(resolved.slow_threads_max);
            (in_flight.fast, resolved.threads.saturating_sub(held).max(1))
        }
    };
    if ahead < servers {
        return Duration::ZERO; // A thread is free for it.
    }
    // It starts when all jobs that wait before it have started, and one more job has ended. `servers` jobs end in each mean run time.
    let in_line = mean_run.saturating_mul(ahead - servers + 1) / servers;
    match resolved.discipline {
        Discipline::Fifo | Discipline::CoDel { .. } => in_line,
        // When the oldest has waited that long, the newest is next.
        Discipline::NewestFirst { pressure } => in_line.min(pressure.saturating_add(mean_run / servers)),
    }
}

/// Rejects a job that would wait too long or expire first.
///
/// # Errors
/// `WaitTooLong` or `WouldExpire`.
pub fn check(resolved: &ResolvedConfig, terms: &Terms, in_flight: InFlight, estimate: &ClassEstimate, now: Instant) -> Result<(), Reason> {
    match resolved.when_full {
        WhenFull::RefuseNewest | WhenFull::Sample { .. } => {}
        // The newest is admitted. The worker that next looks for work sheds the oldest (`queue.rs`).
        WhenFull::DropOldest => return Ok(()),
    }
    let mean_run = estimate.run_mean.load();
    let wait = expected_wait(resolved, terms.class, in_flight, mean_run);
    if wait.is_zero() {
        estimate.last_free.note(now);
    }
    // A burst that fits `wait_max` has passed after that time. A queue that is still there is not a burst.
    let stands = resolved.wait_max.is_some_and(|wait_max| estimate.last_free.ago(now) > wait_max);
    // A standing queue is bounded until its last job has ended, and not only started: the run counts too. So a job that comes that long after an
    // overload finds a free thread (test: `a_standing_queue_is_empty_when_its_limit_has_passed`).
    let wait_max = if stands { resolved.standing_wait_max.map(|limit| limit.saturating_sub(mean_run)) } else { resolved.wait_max };
    // One mean run is always allowed, or threads that end a job find no other. Measured in virtual time at 1.5 times the capacity of 2
    // threads with a limit of a fifth of a run: 0.90 of the capacity is used with this allowance, 0.69 without it (test:
    // `jobs_longer_than_the_limit_on_the_wait_still_keep_the_threads_busy`).
    if wait_max.is_some_and(|wait_max| wait > wait_max.max(mean_run)) {
        return Err(Reason::WaitTooLong);
    }
    if resolved.deadline_at_admission
        && let Some(deadline) = terms.deadline
    {
        let left = deadline.saturating_duration_since(now);
        // The run is added only behind a queue. An idle pool admits the job whatever the mean: after one long run it would otherwise reject
        // all jobs, and no run could correct the mean.
        let run = if wait.is_zero() { wait } else { mean_run };
        if left.is_zero() || wait.saturating_add(run) > left {
            return Err(Reason::WouldExpire);
        }
    }
    Ok(())
}

/// Whether the queue is half full, by number or by expected wait. There sampling begins.
pub fn under_pressure(resolved: &ResolvedConfig, class: Class, in_flight: InFlight, mean_run: Duration) -> bool {
    let wait = expected_wait(resolved, class, in_flight, mean_run);
    let waiting = in_flight.total().saturating_sub(resolved.threads);
    resolved.wait_max.is_some_and(|wait_max| wait > wait_max / 2) || waiting >= resolved.queue_jobs_max.div_ceil(2)
}

/// Whether the `n`-th job offered under pressure is in the sample. The sample is evenly spaced, not random.
pub fn sample_keeps(n: u64, keep_percent: u8) -> bool {
    // A job is kept when the whole part of n × percent / 100 changes at it.
    let share = u64::from(keep_percent);
    (n % 100 + 1) * share / 100 != (n % 100) * share / 100
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Config;

    const MEAN: Duration = Duration::from_millis(20);

    fn wait(class: Class, fast: u32, slow: u32) -> Duration {
        let resolved = ResolvedConfig::of(&Config::with(|config| config.threads = 4));
        expected_wait(&resolved, class, InFlight { fast, slow }, MEAN)
    }

    #[test]
    fn the_expected_wait_is_zero_while_a_thread_is_free() {
        assert_eq!(wait(Class::Fast, 3, 0), Duration::ZERO);
        assert_eq!(wait(Class::Slow, 0, 1), Duration::ZERO);
    }

    #[test]
    fn the_expected_wait_is_depth_times_run_time_over_threads() {
        assert_eq!(wait(Class::Fast, 4, 0), MEAN / 4);
        assert_eq!(wait(Class::Fast, 4 + 100, 0), MEAN * 101 / 4);
        // Slow jobs hold two threads, so two serve fast jobs.
        assert_eq!(wait(Class::Fast, 2 + 9, 50), MEAN * 10 / 2);
        assert_eq!(wait(Class::Slow, 1000, 2 + 9), MEAN * 10 / 2);
    }

    #[test]
    fn the_mean_is_zero_before_the_first_run() {
        assert_eq!(RunMean::default().load(), Duration::ZERO);
    }

    #[test]
    fn the_mean_follows_a_change_of_the_run_time() {
        let mean = RunMean::default();
        mean.record(MEAN);
        assert_eq!(mean.load(), MEAN);
        for _ in 0..40 {
            mean.record(MEAN * 2);
        }
        let off = (MEAN * 2).abs_diff(mean.load());
        assert!(off < MEAN / 50, "40 runs later: {:?}", mean.load());
    }

    #[test]
    fn a_sample_keeps_its_share_and_spaces_it_evenly() {
        for percent in 1..100u8 {
            let kept: Vec<u64> = (0..1000).filter(|n| sample_keeps(*n, percent)).collect();
            assert_eq!(kept.len(), usize::from(percent) * 10);
            let gap_max = kept.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
            assert!(gap_max <= 100u64.div_ceil(u64::from(percent)), "{percent} %: gap {gap_max}");
        }
    }

    #[test]
    fn a_job_that_cannot_make_its_deadline_is_rejected_and_an_idle_pool_admits_it() {
        let resolved = ResolvedConfig::of(&Config::with(|config| config.threads = 2));
        let now = Instant::now();
        let terms = Terms { deadline: Some(now + Duration::from_millis(50)), ..Terms::default() };
        let estimate = |mean| {
            let estimate = ClassEstimate::new(now);
            estimate.run_mean.record(mean);
            estimate
        };
        let check = |fast, mean| check(&resolved, &terms, InFlight { fast, slow: 0 }, &estimate(mean), now);
        assert_eq!(check(2, MEAN), Ok(())); // 10 ms of waiting, 20 ms of running
        assert_eq!(check(5, MEAN), Err(Reason::WouldExpire)); // 40 ms and 20 ms
        assert_eq!(check(1, Duration::from_secs(10)), Ok(()));
        let past = now + Duration::from_millis(50);
        let none = InFlight { fast: 0, slow: 0 };
        assert_eq!(super::check(&resolved, &terms, none, &estimate(MEAN), past), Err(Reason::WouldExpire));
    }

    #[test]
    fn a_standing_queue_is_empty_when_its_limit_has_passed() {
        for threads in [1, 2, 4] {
            let resolved = ResolvedConfig::of(&Config::with(|config| config.threads = threads));
            let (burst, standing) = (resolved.wait_max.expect("by default"), resolved.standing_wait_max.expect("by default"));
            let begin = Instant::now();
            let estimate = ClassEstimate::new(begin);
            estimate.run_mean.record(MEAN);
            let now = begin + burst + Duration::from_millis(1);
            for jobs in threads..100 {
                let in_flight = InFlight { fast: jobs, slow: 0 };
                let wait = expected_wait(&resolved, Class::Fast, in_flight, MEAN);
                let is_admitted = check(&resolved, &Terms::default(), in_flight, &estimate, now).is_ok();
                assert_eq!(
                    is_admitted,
                    wait + MEAN <= standing,
                    "{threads} threads, {jobs} jobs in flight: the next one starts after {wait:?}"
                );
            }
        }
    }

    #[test]
    fn a_burst_may_wait_longer_than_a_standing_queue() {
        let resolved = ResolvedConfig::of(&Config::with(|config| config.threads = 1));
        let (burst, standing) = (resolved.wait_max.expect("by default"), resolved.standing_wait_max.expect("by default"));
        let begin = Instant::now();
        let estimate = ClassEstimate::new(begin);
        estimate.run_mean.record(MEAN);
        let waits = |in_flight: u32| expected_wait(&resolved, Class::Fast, InFlight { fast: in_flight, slow: 0 }, MEAN);
        let check = |fast, now| check(&resolved, &Terms::default(), InFlight { fast, slow: 0 }, &estimate, now);
        let most = |bound| (1..).take_while(|jobs| waits(*jobs) <= bound).last().expect("one at least");
        let (in_burst, in_standing) = (most(burst), most(standing - MEAN));
        assert!(in_standing < in_burst);
        // The burst begins long after the start, with a thread that is free.
        let begin = begin + Duration::from_secs(60);
        assert_eq!(check(0, begin), Ok(()));
        assert_eq!(check(in_burst, begin + burst), Ok(()));
        assert_eq!(check(in_burst + 1, begin + burst), Err(Reason::WaitTooLong));
        // After that time it is a standing queue.
        let later = begin + burst + Duration::from_millis(1);
        assert_eq!(check(in_standing + 1, later), Err(Reason::WaitTooLong));
        assert_eq!(check(in_standing, later), Ok(()));
        // A thread was free: the next jobs are a burst again.
        assert_eq!(check(0, later), Ok(()));
        assert_eq!(check(in_burst, later), Ok(()));
    }
}
