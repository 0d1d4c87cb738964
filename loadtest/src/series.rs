//! The run second by second: what the progress line shows and the time series of the JSON file.
//!
//! A thread sends its [`Interval`] once a second; the main thread adds them up and keeps a few numbers of each, so that a run of hours
//! stays small. Read next: `progress.rs`.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::histogram::histogram;

/// One second of one class on one thread.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Index of the class in the plan.
    pub class: usize,
    /// Seconds since the start, warm-up included.
    pub second: u32,
    /// Arrivals that were due in it.
    pub scheduled: u64,
    /// Requests that ended in it.
    pub completed: u64,
    /// Of these, failures.
    pub errors: u64,
    /// Requests under way or waiting at its end.
    pub in_flight: u64,
    /// Response times of those that ended in it.
    pub response: Histogram<u64>,
    /// Send delays of the arrivals handled in it.
    pub send_delay: Histogram<u64>,
}

impl Interval {
    /// An empty second.
    #[must_use]
    pub fn new(class: usize, second: u32) -> Interval {
        Interval { class, second, scheduled: 0, completed: 0, errors: 0, in_flight: 0, response: histogram(), send_delay: histogram() }
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
    /// Requests ended.
    pub completed: u64,
    /// Of these, failures.
    pub errors: u64,
    /// Under way or waiting at its end.
    pub in_flight: u64,
    /// Median response time.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Longest.
    pub max: u64,
    /// 99th percentile of the generator's own lateness.
    pub send_delay_p99: u64,
}

/// Adds up what the threads send, and closes a second when all of them have reported it.
#[derive(Debug)]
pub struct Series {
    /// How many reports make a second complete, by class.
    shares: Vec<u32>,
    warmup_seconds: u32,
    open: BTreeMap<(u32, usize), (u32, Interval)>,
    /// The complete seconds of each class, in order.
    pub seconds: Vec<Vec<Second>>,
}

impl Series {
    /// For classes that run on so many threads each.
    #[must_use]
    pub fn new(shares: Vec<u32>, warmup_seconds: u32) -> Series {
        let seconds = vec![Vec::new(); shares.len()];
        Series { shares, warmup_seconds, open: BTreeMap::new(), seconds }
    }

    /// Takes one report. Returns the second if that completed one of the first class.
    pub fn take(&mut self, interval: Interval) -> Option<Second> {
        let (class, second) = (interval.class, interval.second);
        let key = (second, class);
        let (reports, sum) = self.open.entry(key).or_insert_with(|| (0, Interval::new(class, second)));
        *reports += 1;
        sum.scheduled += interval.scheduled;
        sum.completed += interval.completed;
        sum.errors += interval.errors;
        sum.in_flight += interval.in_flight;
        for (sum, part) in [(&mut sum.response, &interval.response), (&mut sum.send_delay, &interval.send_delay)] {
            #[expect(clippy::expect_used, reason = "histogram() gives all of them the same bounds")]
            sum.add(part).expect("equal bounds");
        }
        if *reports < self.shares[class] {
            return None;
        }
        let (_, sum) = self.open.remove(&key)?;
        let summary = Second {
            t: second,
            warmup: second < self.warmup_seconds,
            scheduled: sum.scheduled,
            completed: sum.completed,
            errors: sum.errors,
            in_flight: sum.in_flight,
            p50: sum.response.value_at_quantile(0.5),
            p99: sum.response.value_at_quantile(0.99),
            max: sum.response.max(),
            send_delay_p99: sum.send_delay.value_at_quantile(0.99),
        };
        self.seconds[class].push(summary);
        let is_empty = summary.scheduled + summary.completed + summary.in_flight == 0; // The rest of a second after the end.
        (class == 0 && !is_empty).then_some(summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_complete_when_every_thread_has_reported_it() {
        let mut series = Series::new(vec![2, 1], 1);
        let report = |class, second, us: u64| {
            let mut interval = Interval::new(class, second);
            interval.scheduled = 10;
            interval.completed = 1;
            interval.response.saturating_record(us);
            interval
        };
        assert_eq!(series.take(report(0, 0, 100)), None);
        assert_eq!(series.take(report(1, 0, 7)), None, "of the second class");
        assert_eq!(series.take(report(0, 1, 300)), None);
        let first = series.take(report(0, 0, 200)).unwrap();
        assert_eq!((first.t, first.warmup, first.scheduled, first.completed, first.p50, first.max), (0, true, 20, 2, 100, 200));
        let second = series.take(report(0, 1, 400)).unwrap();
        assert_eq!((second.t, second.warmup, second.max), (1, false, 400));
        assert_eq!(series.seconds.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
    }
}
