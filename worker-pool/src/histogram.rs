//! A histogram that any thread may write and read without a lock.
//!
//! Fixed bounds in the series 1, 2, 5 from 10 µs to 50 s: what a job waits and runs lies between, a
//! reader knows the bounds by heart, and every histogram can be added to every other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Finite buckets; one more counts what is above the last bound.
pub const BUCKETS: usize = 21;

const BOUNDS: [Duration; BUCKETS] = {
    let mut bounds = [Duration::ZERO; BUCKETS];
    let mut decade_us = 10;
    let mut i = 0;
    while i < BUCKETS {
        bounds[i] = Duration::from_micros(decade_us);
        bounds[i + 1] = Duration::from_micros(2 * decade_us);
        bounds[i + 2] = Duration::from_micros(5 * decade_us);
        decade_us *= 10;
        i += 3;
    }
    bounds
};

/// Counts of durations by bucket, and their sum.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    /// The inclusive upper bound of each finite bucket, rising (`le` in Prometheus' words).
    pub const fn bounds() -> &'static [Duration; BUCKETS] {
        &BOUNDS
    }

    pub(crate) fn record(&self, value: Duration) {
        let bucket = BOUNDS.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let ns = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// A copy to print. Taken while others write, so its sum may be a few values ahead of its counts.
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            counts: std::array::from_fn(|i| self.counts[i].load(Ordering::Relaxed)),
            sum: Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)),
        }
    }
}

/// A histogram at one moment.
#[derive(Clone, Debug)]
pub struct HistogramSnapshot {
    /// Values in each bucket (not cumulative); the last one is what was above every bound.
    pub counts: [u64; BUCKETS + 1],
    /// All values added up.
    pub sum: Duration,
}

impl HistogramSnapshot {
    /// Values recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The upper bound of the bucket that holds the given quantile (0 to 1); `None` when nothing was
    /// recorded, `Duration::MAX` when it lies above every bound.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = ((quantile * count as f64).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        for (i, in_bucket) in self.counts.iter().enumerate() {
            seen += in_bucket;
            if seen >= rank {
                return Some(BOUNDS.get(i).copied().unwrap_or(Duration::MAX));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_rise_from_ten_microseconds_to_fifty_seconds() {
        let bounds = Histogram::bounds();
        assert_eq!(bounds[0], Duration::from_micros(10));
        assert_eq!(bounds[BUCKETS - 1], Duration::from_secs(50));
        assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn a_value_on_a_bound_is_within_it_and_one_above_all_is_still_counted() {
        let histogram = Histogram::default();
        for value in Histogram::bounds() {
            histogram.record(*value);
        }
        histogram.record(Duration::from_secs(51));
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.counts, [1; BUCKETS + 1]);
        assert_eq!(snapshot.count(), BUCKETS as u64 + 1);
        assert_eq!(snapshot.quantile(1.0), Some(Duration::MAX));
        assert_eq!(snapshot.quantile(0.0), Some(Duration::from_micros(10)));
    }
}
