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
pub fn check(rules: &Rules, terms: &Terms, in_flight: InFlight, mean_run: Duration, now: Instant) -> Result<(), Reason> {
    match rules.when_full {
        WhenFull::RefuseNewest | WhenFull::Sample { .. } => {}
        // The newest is welcome; the worker that looks next makes room (`waiting.rs`).
        WhenFull::DropOldest => return Ok(()),
    }
    let wait = expected_wait(rules, terms.class, in_flight, mean_run);
    // One mean run is always granted, or threads that end a job find none. Measured in virtual time at 1.5
    // times the capacity of 2 threads: 0.90 of it is used with one run; without this line, 0.69 where the
    // bound is a fifth of a run.
    if rules.wait_max.is_some_and(|wait_max| wait > wait_max.max(mean_run)) {
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
        let check = |fast, mean| check(&rules, &terms, InFlight { fast, slow: 0 }, mean, now);
        assert_eq!(check(2, MEAN), Ok(())); // 10 ms of waiting, 20 ms of running
        assert_eq!(check(5, MEAN), Err(Reason::WouldExpire)); // 40 ms and 20 ms
        assert_eq!(check(1, Duration::from_secs(10)), Ok(()));
        let past = now + Duration::from_millis(50);
        let none = InFlight { fast: 0, slow: 0 };
        assert_eq!(super::check(&rules, &terms, none, MEAN, past), Err(Reason::WouldExpire));
    }
}
