//! When each request must leave: a plan made before the run, which no answer can delay.
//!
//! In an open loop arrival `k` is due at `k / rate`, whatever became of the arrivals before it, as real users come whether or not the
//! server is busy. A schedule knows nothing of sockets and of the clock: it yields times since the start. Read next: `class_load.rs`.

use std::time::Duration;

use fastrand::Rng;

/// How arrivals are spaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrivals {
    /// Evenly: arrival `k` at `k / rate`.
    #[default]
    Constant,
    /// At random, with exponential gaps: what many independent users amount to.
    Poisson,
    /// So many together, then a pause: the same rate on average.
    Burst(u32),
    /// Whenever a connection is free: a closed loop without a rate. There is nothing to be late for, so nothing to measure from but
    /// the sending itself.
    WhenFree,
}

/// What becomes of an arrival that is due while every connection is busy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenBusy {
    /// It waits for a connection with the time it was due, and its latency counts from there.
    #[default]
    Queue,
    /// It is left out, and the next one starts when a connection is free: the server under test decides when it is measured.
    Skip,
}

/// What one class of requests does over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Arrivals per second, over all threads together.
    pub rate: f64,
    /// Their spacing.
    pub arrivals: Arrivals,
    /// The first arrival comes this long after the start.
    pub phase: Duration,
    /// The schedule ends here: warm-up and measured time together.
    pub length: Duration,
    /// And after this many arrivals, if that is sooner.
    pub count_max: Option<u64>,
    /// What to do with an arrival when no connection is free.
    pub when_busy: WhenBusy,
}

impl Schedule {
    /// Evenly spaced arrivals at `rate` per second for `length`.
    #[must_use]
    pub fn constant(rate: f64, length: Duration) -> Schedule {
        Schedule { rate, arrivals: Arrivals::Constant, phase: Duration::ZERO, length, count_max: None, when_busy: WhenBusy::Queue }
    }

    /// The arrivals that thread `share` of `shares` has to make. All shares together are the schedule: even ones interleave, so that
    /// two threads do not fire at once; random ones add up, since the sum of Poisson processes is one.
    ///
    /// # Panics
    /// If `share` is not one of `shares`.
    #[must_use]
    pub fn share(&self, share: u64, shares: u64, seed: u64) -> Due {
        assert!(share < shares, "share {share} of {shares}");
        // A different stream for every thread; fastrand spreads neighbouring seeds.
        let rng = Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(share));
        Due { schedule: *self, next_index: share, step: shares, random_seconds: 0.0, rng }
    }
}

/// The times of one thread's arrivals, in order, since the start of the run.
#[derive(Clone, Debug)]
pub struct Due {
    schedule: Schedule,
    /// Index of the next arrival in the whole schedule, and how far apart ours are.
    next_index: u64,
    step: u64,
    /// Sum of the random gaps so far (Poisson only).
    random_seconds: f64,
    rng: Rng,
}

impl Iterator for Due {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.schedule.count_max.is_some_and(|max| self.next_index >= max) {
            return None;
        }
        let index = self.next_index;
        self.next_index += self.step;
        let seconds = match self.schedule.arrivals {
            // From the index, not from the arrival before: errors of rounding must not add up over hours.
            Arrivals::Constant => index as f64 / self.schedule.rate,
            Arrivals::Burst(size) => (index - index % u64::from(size.max(1))) as f64 / self.schedule.rate,
            Arrivals::Poisson => {
                // 1 - f64() is in (0, 1]: the logarithm is finite.
                self.random_seconds -= (1.0 - self.rng.f64()).ln() * self.step as f64 / self.schedule.rate;
                self.random_seconds
            }
            Arrivals::WhenFree => return None,
        };
        let due = Duration::try_from_secs_f64(seconds).ok()?.checked_add(self.schedule.phase)?;
        (due < self.schedule.length).then_some(due)
    }
}

impl WhenBusy {
    /// Whether an arrival that finds no idle connection is kept, to be sent when one is free.
    #[must_use]
    pub fn keeps(self) -> bool {
        match self {
            WhenBusy::Queue => true,
            WhenBusy::Skip => false, // MISTAKE(closed-loop): while the server stalls no request is sent, so the stall is not measured.
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn all(schedule: &Schedule, shares: u64, seed: u64) -> Vec<Duration> {
        let mut due: Vec<_> = (0..shares).flat_map(|share| schedule.share(share, shares, seed)).collect();
        due.sort();
        due
    }

    #[test]
    fn constant_arrivals_are_at_k_over_rate_without_drift() {
        let due: Vec<_> = Schedule::constant(3000.0, 3600 * SECOND).share(0, 1, 7).collect();
        assert_eq!(due.len(), 3000 * 3600);
        for (k, at) in due.iter().enumerate() {
            let exact = Duration::from_nanos((k as u128 * 1_000_000_000 / 3000) as u64);
            assert!(at.abs_diff(exact) <= Duration::from_nanos(2), "arrival {k}: {at:?}, not {exact:?}");
        }
    }

    #[test]
    fn the_shares_of_threads_interleave_into_the_one_schedule() {
        let schedule = Schedule::constant(1000.0, SECOND);
        for shares in 1..=5 {
            assert_eq!(all(&schedule, shares, 1), schedule.share(0, 1, 1).collect::<Vec<_>>(), "{shares} threads");
        }
    }

    #[test]
    fn bursts_come_together_at_the_same_average_rate() {
        let schedule = Schedule { arrivals: Arrivals::Burst(50), ..Schedule::constant(1000.0, SECOND) };
        let due = all(&schedule, 2, 1);
        assert_eq!(due.len(), 1000);
        for (k, at) in due.iter().enumerate() {
            assert_eq!(*at, Duration::from_millis(50 * (k as u64 / 50)));
        }
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread_of_exponential_gaps() {
        let schedule = Schedule { arrivals: Arrivals::Poisson, ..Schedule::constant(1000.0, 100 * SECOND) };
        for shares in [1, 3] {
            let due = all(&schedule, shares, 42);
            // 100,000 expected with a standard deviation of 316; the seed is fixed, so this cannot fail by luck.
            assert!((98_500..101_500).contains(&due.len()), "{} arrivals", due.len());
            let gaps: Vec<f64> = due.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
            assert!((deviation / mean - 1.0).abs() < 0.05, "an exponential's deviation equals its mean: {deviation} and {mean}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_arrivals_and_another_seed_others() {
        let schedule = Schedule { arrivals: Arrivals::Poisson, ..Schedule::constant(500.0, SECOND) };
        assert_eq!(all(&schedule, 2, 5), all(&schedule, 2, 5));
        assert_ne!(all(&schedule, 2, 5), all(&schedule, 2, 6));
    }

    proptest! {
        #[test]
        fn a_share_is_in_order_inside_the_length_and_counts_no_more_than_asked(
            rate in 0.5f64..50_000.0, shares in 1u64..5, kind in 0u8..3, count_max in proptest::option::of(0u64..2000), seed: u64, phase_ms in 0u64..50,
        ) {
            let arrivals = [Arrivals::Constant, Arrivals::Poisson, Arrivals::Burst(7)][kind as usize];
            let schedule = Schedule { arrivals, count_max, phase: Duration::from_millis(phase_ms), ..Schedule::constant(rate, Duration::from_millis(100)) };
            let mut total = 0;
            for share in 0..shares {
                let due: Vec<_> = schedule.share(share, shares, seed).collect();
                prop_assert!(due.windows(2).all(|pair| pair[0] <= pair[1]));
                prop_assert!(due.iter().all(|at| *at >= schedule.phase && *at < schedule.length));
                total += due.len() as u64;
            }
            prop_assert!(count_max.is_none_or(|max| total <= max));
        }
    }
}
