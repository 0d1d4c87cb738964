//! How long a new job would wait: queue depth times measured run time over the threads that serve it.
//!
//! Pure arithmetic on numbers that any thread can read without a lock. An estimate: the mean forgets
//! slowly (one eighth per job) and knows nothing of how far along the running jobs are. It errs, but it
//! cannot get stuck: it only ever refuses while other jobs are in flight, and each of those, when it
//! ends, corrects the mean and shortens the queue.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::job::{Class, Terms};
use crate::permits::InFlight;
use crate::policy::{Discipline, WhenFull};
use crate::rules::Rules;
use crate::submit::Reason;

/// The measured run time of one class: an exponentially weighted mean.
#[derive(Debug, Default)]
pub struct RunMean(AtomicU64);

impl RunMean {
    /// Each new run counts one eighth, as in TCP's smoothed round-trip time (RFC 6298, section 2).
    const WEIGHT: u64 = 8;

    /// Takes one run into the mean. The first one is the mean.
    pub fn record(&self, run: Duration) {
        // At least 1 ns: zero means that nothing was measured yet.
        let sample = u64::try_from(run.as_nanos()).unwrap_or(u64::MAX / 2).clamp(1, u64::MAX / 2);
        let blend = |mean: u64| {
            Some(match mean {
                0 => sample,
                _ => (mean - mean / Self::WEIGHT + sample / Self::WEIGHT).max(1),
            })
        };
        // Cannot fail: `blend` always gives a value.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, blend);
    }

    /// The mean; zero before the first run ended.
    pub fn load(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// When a thread was last free for the jobs of one class: tells a burst from a queue that stands.
///
/// A burst fills the queue and is gone; a queue that stands is an overload, and its length is nothing but latency (Nichols and Jacobson,
/// "Controlling Queue Delay", ACM Queue 2012; for requests Maurer, "Fail at Scale", ACM Queue 2015, `queue.lastEmptyTime()`).
#[derive(Debug)]
pub struct LastFree {
    epoch: Instant,
    after_ns: AtomicU64,
}

impl LastFree {
    /// Free now.
    pub fn new(now: Instant) -> Self {
        Self { epoch: now, after_ns: AtomicU64::new(0) }
    }

    /// A job that came now would not wait.
    fn note(&self, now: Instant) {
        let after_ns = u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX);
        // Relaxed: it publishes nothing but itself. A loop whose clock is a little behind may move it back by that much.
        self.after_ns.store(after_ns, Ordering::Relaxed);
    }

    /// For how long no job that came found a thread free.
    fn ago(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch + Duration::from_nanos(self.after_ns.load(Ordering::Relaxed)))
    }
}

/// What is known about the work of one class, beside the jobs in flight.
#[derive(Debug)]
pub struct Known {
    /// How long its jobs run.
    pub run_mean: RunMean,
    /// When a thread was last free for them.
    pub last_free: LastFree,
}

impl Known {
    /// Nothing yet.
    pub fn new(now: Instant) -> Self {
        Self { run_mean: RunMean::default(), last_free: LastFree::new(now) }
    }
}

/// How long a job of this class would wait if it were admitted now, behind those in flight.
pub fn expected_wait(rules: &Rules, class: Class, in_flight: InFlight, mean_run: Duration) -> Duration {
    let (ahead, servers) = match class {
        Class::Slow => (in_flight.slow, rules.slow_threads_max),
        // Slow jobs hold their threads for long: what they hold does not serve fast ones.
        Class::Fast => {
            let held = in_flight.slow.min(rules.slow_threads_max);
            (in_flight.fast, rules.threads.saturating_sub(held).max(1))
        }
    };
    if ahead < servers {
        return Duration::ZERO; // A thread is free for it.
    }
    // It starts when as many jobs have ended as wait before it, and one more; `servers` of them end in
    // each mean run time.
    let in_line = mean_run.saturating_mul(ahead - servers + 1) / servers;
    match rules.discipline {
        Discipline::Fifo | Discipline::CoDel { .. } => in_line,
        // Past the pressure the newest is next.
        Discipline::NewestFirst { pressure } => in_line.min(pressure.saturating_add(mean_run / servers)),
    }
}

/// Whether a job would wait too long, or for nothing.
///
/// # Errors
/// `WaitTooLong` or `WouldExpire`.
pub fn check(rules: &Rules, terms: &Terms, in_flight: InFlight, known: &Known, now: Instant) -> Result<(), Reason> {
    match rules.when_full {
        WhenFull::RefuseNewest | WhenFull::Sample { .. } => {}
        // The newest is welcome; the worker that looks next makes room (`waiting.rs`).
        WhenFull::DropOldest => return Ok(()),
    }
    let mean_run = known.run_mean.load();
    let wait = expected_wait(rules, terms.class, in_flight, mean_run);
    if wait.is_zero() {
        known.last_free.note(now);
    }
    // A burst that fits `wait_max` is over after that time. What has stood for longer is no burst.
    let stands = rules.wait_max.is_some_and(|wait_max| known.last_free.ago(now) > wait_max);
    let wait_max = if stands { rules.standing_wait_max } else { rules.wait_max };
    // One mean run is always granted, or threads that end a job find none. Measured in virtual time at 1.5
    // times the capacity of 2 threads: 0.90 of it is used with one run; without this line, 0.69 where the
    // bound is a fifth of a run.
    if wait_max.is_some_and(|wait_max| wait > wait_max.max(mean_run)) {
        return Err(Reason::WaitTooLong);
    }
    if rules.deadline_at_admission
        && let Some(deadline) = terms.deadline
    {
        let left = deadline.saturating_duration_since(now);
        // The run counts as well, but only behind a queue: an idle pool must try, or one long run would
        // lock out all that follow, and no other run could ever correct the mean.
        let run = if wait.is_zero() { wait } else { mean_run };
        if left.is_zero() || wait.saturating_add(run) > left {
            return Err(Reason::WouldExpire);
        }
    }
    Ok(())
}

/// Whether the queue is half full, by number or by wait: where sampling begins.
pub fn under_pressure(rules: &Rules, class: Class, in_flight: InFlight, mean_run: Duration) -> bool {
    let wait = expected_wait(rules, class, in_flight, mean_run);
    let waiting = in_flight.total().saturating_sub(rules.threads);
    rules.wait_max.is_some_and(|wait_max| wait > wait_max / 2) || waiting >= rules.queue_jobs_max.div_ceil(2)
}

/// Whether the `n`-th job offered under pressure is in the sample: evenly spaced, no luck involved.
pub fn sample_keeps(n: u64, keep_percent: u8) -> bool {
    // The kept ones are those at which the whole part of n × percent / 100 moves on.
    let share = u64::from(keep_percent);
    (n % 100 + 1) * share / 100 != (n % 100) * share / 100
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Config;

    const MEAN: Duration = Duration::from_millis(20);

    fn wait(class: Class, fast: u32, slow: u32) -> Duration {
        let rules = Rules::resolve(&Config { threads: 4, ..Config::default() });
        expected_wait(&rules, class, InFlight { fast, slow }, MEAN)
    }

    #[test]
    fn a_free_thread_means_no_wait() {
        assert_eq!(wait(Class::Fast, 3, 0), Duration::ZERO);
        assert_eq!(wait(Class::Slow, 0, 1), Duration::ZERO);
    }

    #[test]
    fn the_wait_is_depth_times_run_time_over_threads() {
        assert_eq!(wait(Class::Fast, 4, 0), MEAN / 4);
        assert_eq!(wait(Class::Fast, 4 + 100, 0), MEAN * 101 / 4);
        // Two threads are held by slow work, so two serve the fast.
        assert_eq!(wait(Class::Fast, 2 + 9, 50), MEAN * 10 / 2);
        assert_eq!(wait(Class::Slow, 1000, 2 + 9), MEAN * 10 / 2);
    }

    #[test]
    fn nothing_measured_means_nothing_refused() {
        assert_eq!(RunMean::default().load(), Duration::ZERO);
    }

    #[test]
    fn the_mean_follows_a_change_of_the_work() {
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
    fn a_job_that_cannot_make_its_deadline_is_refused_and_an_idle_pool_always_tries() {
        let rules = Rules::resolve(&Config { threads: 2, ..Config::default() });
        let now = Instant::now();
        let terms = Terms { deadline: Some(now + Duration::from_millis(50)), ..Terms::default() };
        let known = |mean| {
            let known = Known::new(now);
            known.run_mean.record(mean);
            known
        };
        let check = |fast, mean| check(&rules, &terms, InFlight { fast, slow: 0 }, &known(mean), now);
        assert_eq!(check(2, MEAN), Ok(())); // 10 ms of waiting, 20 ms of running
        assert_eq!(check(5, MEAN), Err(Reason::WouldExpire)); // 40 ms and 20 ms
        assert_eq!(check(1, Duration::from_secs(10)), Ok(()));
        let past = now + Duration::from_millis(50);
        let none = InFlight { fast: 0, slow: 0 };
        assert_eq!(super::check(&rules, &terms, none, &known(MEAN), past), Err(Reason::WouldExpire));
    }

    #[test]
    fn a_burst_may_wait_longer_than_a_queue_that_stands() {
        let rules = Rules::resolve(&Config { threads: 1, ..Config::default() });
        let (burst, standing) = (rules.wait_max.expect("by default"), rules.standing_wait_max.expect("by default"));
        let begin = Instant::now();
        let known = Known::new(begin);
        known.run_mean.record(MEAN);
        let waits = |in_flight: u32| expected_wait(&rules, Class::Fast, InFlight { fast: in_flight, slow: 0 }, MEAN);
        let check = |fast, now| check(&rules, &Terms::default(), InFlight { fast, slow: 0 }, &known, now);
        let most = |bound| (1..).take_while(|jobs| waits(*jobs) <= bound).last().expect("one at least");
        let (in_burst, in_standing) = (most(burst), most(standing));
        assert!(in_standing < in_burst);
        // The burst begins long after the start, with a thread that is free.
        let begin = begin + Duration::from_secs(60);
        assert_eq!(check(0, begin), Ok(()));
        assert_eq!(check(in_burst, begin + burst), Ok(()));
        assert_eq!(check(in_burst + 1, begin + burst), Err(Reason::WaitTooLong));
        // It should be over, and it is not.
        let later = begin + burst + Duration::from_millis(1);
        assert_eq!(check(in_standing + 1, later), Err(Reason::WaitTooLong));
        assert_eq!(check(in_standing, later), Ok(()));
        // A thread was free: whatever comes next is a burst again.
        assert_eq!(check(0, later), Ok(()));
        assert_eq!(check(in_burst, later), Ok(()));
    }
}
