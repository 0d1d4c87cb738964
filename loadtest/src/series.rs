//! The run second by second: what the progress line shows and the time series of the JSON file.
//!
//! A thread sends its [`Interval`] once a second; the main thread adds them up and keeps a few numbers of each, so that a run of hours
//! stays small. Read next: `progress.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::histogram::histogram;
use crate::truth::bounds::{Bound, Times};
use crate::units::as_us;

/// One second of one class on one thread.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Index of the class in the plan.
    pub class: usize,
    /// Seconds since the start, warm-up included.
    pub second: u32,
    /// Arrivals that were due in it.
    pub scheduled: u64,
    /// Requests that ended in it, good or bad.
    pub completed: u64,
    /// Of these, failures.
    pub errors: u64,
    /// The most requests that were under way or waiting at one time in it.
    pub in_flight_max: u64,
    /// The longest that a request had been waiting in it, for its connection or its answer.
    pub oldest: Duration,
    /// Send delays of the requests that were sent in it.
    pub send_delay: Histogram<u64>,
    /// Response times of the requests that ended in it, by the second in which they were due.
    pub due: BTreeMap<u32, Times>,
}

impl Interval {
    /// An empty second.
    #[must_use]
    pub fn new(class: usize, second: u32) -> Interval {
        Interval {
            class,
            second,
            scheduled: 0,
            completed: 0,
            errors: 0,
            in_flight_max: 0,
            oldest: Duration::ZERO,
            send_delay: histogram(),
            due: BTreeMap::new(),
        }
    }
}

/// One second of one class, all threads together. Times in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Second {
    /// Seconds since the start, warm-up included.
    pub t: u32,
    /// Whether it lies in the warm-up, and so outside the totals.
    pub warmup: bool,
    /// Arrivals due.
    pub scheduled: u64,
    /// Requests that ended in it, whenever they were due.
    pub completed: u64,
    /// Of these, failures.
    pub errors: u64,
    /// The most requests that were under way or waiting at one time in it.
    pub in_flight: u64,
    /// The longest that a request had been waiting in it.
    pub oldest_us: u64,
    /// Median response time of the requests that were due in it; `None` if none of them has ended.
    pub p50: Option<Bound>,
    /// 99th percentile.
    pub p99: Option<Bound>,
    /// Longest.
    pub max: Option<Bound>,
    /// 99th percentile of the generator's own lateness.
    pub send_delay_p99: u64,
}

/// A second whose requests have not all ended.
#[derive(Debug)]
struct Open {
    /// Threads that have reported it.
    reports: u32,
    /// What they reported; without the times.
    sum: Interval,
    /// Response times of the requests that were due in it.
    times: Times,
}

impl Open {
    fn summary(&self, warmup_seconds: u32) -> Second {
        let Open { sum, times, .. } = self;
        Second {
            t: sum.second,
            warmup: sum.second < warmup_seconds,
            scheduled: sum.scheduled,
            completed: sum.completed,
            errors: sum.errors,
            in_flight: sum.in_flight_max,
            oldest_us: as_us(sum.oldest),
            p50: times.quantile(0.5),
            p99: times.quantile(0.99),
            max: times.max(),
            send_delay_p99: sum.send_delay.value_at_quantile(0.99),
        }
    }
}

/// Adds up what the threads send. A request counts in the second in which it was due, so a second stays open until all of its requests
/// have ended.
#[derive(Debug)]
pub struct Series {
    /// How many reports make a second complete, by class.
    shares: Vec<u32>,
    warmup_seconds: u32,
    open: BTreeMap<(u32, usize), Open>,
    closed: BTreeMap<(usize, u32), Second>,
}

impl Series {
    /// For classes that run on so many threads each.
    #[must_use]
    pub fn new(shares: Vec<u32>, warmup_seconds: u32) -> Series {
        Series { shares, warmup_seconds, open: BTreeMap::new(), closed: BTreeMap::new() }
    }

    fn open(&mut self, class: usize, second: u32) -> &mut Open {
        let new = || Open { reports: 0, sum: Interval::new(class, second), times: Times::default() };
        self.open.entry((second, class)).or_insert_with(new)
    }

    /// Takes one report. Returns the second, as far as it is known, if all threads have reported it and it is one of the first class.
    pub fn take(&mut self, interval: Interval) -> Option<Second> {
        let (class, second, warmup_seconds) = (interval.class, interval.second, self.warmup_seconds);
        for (due, times) in &interval.due {
            self.open(class, *due).times.add(times);
        }
        let shares = self.shares[class];
        let open = self.open(class, second);
        open.reports += 1;
        let sum = &mut open.sum;
        sum.scheduled += interval.scheduled;
        sum.completed += interval.completed;
        sum.errors += interval.errors;
        sum.in_flight_max += interval.in_flight_max;
        sum.oldest = sum.oldest.max(interval.oldest);
        #[expect(clippy::expect_used, reason = "histogram() gives all of them the same bounds")]
        sum.send_delay.add(&interval.send_delay).expect("equal bounds");
        let known = (open.reports >= shares).then(|| open.summary(warmup_seconds));
        self.close(|class, open, shares| open.reports >= shares[class] && open.times.len() >= open.sum.scheduled);
        // The rest of a second after the end is empty.
        known.filter(|known| class == 0 && known.scheduled + known.completed + known.in_flight > 0)
    }

    fn close(&mut self, is_over: impl Fn(usize, &Open, &[u32]) -> bool) {
        let Series { shares, warmup_seconds, open, closed } = self;
        open.retain(|(second, class), open| {
            let over = is_over(*class, open, shares);
            if over {
                closed.insert((*class, *second), open.summary(*warmup_seconds));
            }
            !over
        });
    }

    /// The seconds of each class, in order, after the last report.
    #[must_use]
    pub fn finish(mut self) -> Vec<Vec<Second>> {
        self.close(|_, _, _| true);
        let mut seconds = vec![Vec::new(); self.shares.len()];
        for ((class, _), second) in self.closed {
            seconds[class].push(second);
        }
        seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(class: usize, second: u32, scheduled: u64, answered_us: &[(u32, u64)]) -> Interval {
        let mut interval = Interval::new(class, second);
        interval.scheduled = scheduled;
        interval.completed = answered_us.len() as u64;
        for (due, us) in answered_us {
            interval.due.entry(*due).or_default().answered(Duration::from_micros(*us));
        }
        interval
    }

    #[test]
    fn a_second_is_complete_when_every_thread_has_reported_it() {
        let mut series = Series::new(vec![2, 1], 1);
        assert_eq!(series.take(report(0, 0, 10, &[(0, 100)])), None);
        assert_eq!(series.take(report(1, 0, 10, &[(0, 7)])), None, "of the second class");
        assert_eq!(series.take(report(0, 1, 10, &[(1, 300)])), None);
        let first = series.take(report(0, 0, 10, &[(0, 200)])).unwrap();
        assert_eq!((first.t, first.warmup, first.scheduled, first.completed), (0, true, 20, 2));
        assert_eq!((first.p50, first.max), (Some(Bound::exactly(100)), Some(Bound::exactly(200))));
        let second = series.take(report(0, 1, 10, &[(1, 400)])).unwrap();
        assert_eq!((second.t, second.warmup, second.max), (1, false, Some(Bound::exactly(400))));
        assert_eq!(series.finish().iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn a_latency_counts_in_the_second_in_which_the_request_was_due() {
        let mut series = Series::new(vec![1], 0);
        // Ten requests are due in second 1, and the server stalls: none of them ends before second 3.
        let mut stalled = report(0, 1, 10, &[]);
        stalled.oldest = Duration::from_millis(900);
        let shown = series.take(stalled).unwrap();
        assert_eq!((shown.p99, shown.completed, shown.oldest_us), (None, 0, 900_000), "nothing ended, and the oldest waits");
        let later = series.take(report(0, 3, 0, &[(1, 2_000_000); 10])).unwrap();
        assert_eq!((later.completed, later.p99), (10, None), "throughput, but no latency");
        let [seconds] = &series.finish()[..] else { unreachable!("there is one class") };
        let (due, ended) = (&seconds[0], &seconds[1]);
        assert_eq!((due.t, due.scheduled, due.completed), (1, 10, 0));
        assert!(due.p50.is_some_and(|p50| p50.low_us > Some(1_990_000)), "{due:?}");
        assert_eq!((ended.t, ended.completed, ended.p50), (3, 10, None));
    }
}
