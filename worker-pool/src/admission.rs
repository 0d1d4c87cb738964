//! How long a new job would wait: queue depth times measured run time over the threads that serve it.
//!
//! Pure arithmetic on numbers that any thread can read without a lock. An estimate: the mean forgets
//! slowly (one eighth per job) and knows nothing of how far along the running jobs are. It errs, but it
//! cannot get stuck: it only ever refuses while other jobs are in flight, and each of those, when it
//! ends, corrects the mean and shortens the queue.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::job::Class;
use crate::permits::InFlight;
use crate::policy::Discipline;
use crate::rules::Rules;

/// The measured run time of one class: an exponentially weighted mean.
#[derive(Debug, Default)]
pub struct RunMean(AtomicU64);

impl RunMean {
    /// Each new run counts one eighth, as in TCP's smoothed round-trip time (RFC 6298, section 2).
    const WEIGHT: u64 = 8;

    /// Takes one run into the mean. The first one is the mean.
    pub fn record(&self, run: Duration) {
        // At least 1 ns: zero means that nothing was measured yet.
        let sample = u64::try_from(run.as_nanos())
            .unwrap_or(u64::MAX / 2)
            .clamp(1, u64::MAX / 2);
        let blend = |mean: u64| {
            Some(match mean {
                0 => sample,
                _ => (mean - mean / Self::WEIGHT + sample / Self::WEIGHT).max(1),
            })
        };
        // Cannot fail: `blend` always gives a value.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, blend);
    }

    /// The mean; zero before the first run ended.
    pub fn load(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// How long a job of this class would wait if it were admitted now, behind those in flight.
pub fn expected_wait(
    rules: &Rules,
    class: Class,
    in_flight: InFlight,
    mean_run: Duration,
) -> Duration {
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
        Discipline::NewestFirst { pressure } => {
            in_line.min(pressure.saturating_add(mean_run / servers))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Config;

    const MEAN: Duration = Duration::from_millis(20);

    fn wait(class: Class, fast: u32, slow: u32) -> Duration {
        let rules = Rules::resolve(&Config {
            threads: 4,
            ..Config::default()
        });
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
}
