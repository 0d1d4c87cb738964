//! A histogram that any thread may write and read without a lock.
//!
//! The bounds are powers of two of a microsecond: the bucket is found by counting leading zeros, and a reader gets at most twice what was.
//! They are those of the `reactor` crate, so that a job's time in the queue and a turn of its loop are read with the same table. The two
//! crates do not know each other; `histograms_of_loops_and_pool_have_the_same_buckets` in `server/tests` fails when the bounds differ.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets: 1 µs, 2 µs, 4 µs … 67 s (2^26 µs), and one for all that is longer.
pub const BUCKETS: usize = 28;

/// Counts of durations by bucket, and their sum.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Histogram {
    /// The longest duration that is counted in a bucket (`le` in Prometheus' words). `None` for the last one, which has no bound.
    #[must_use]
    pub const fn bound(bucket: usize) -> Option<Duration> {
        if bucket + 1 < BUCKETS { Some(Duration::from_micros(1 << bucket)) } else { None }
    }

    pub(crate) fn record(&self, value: Duration) {
        let ns = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(ns)].fetch_add(1, Ordering::Relaxed);
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

/// The first bucket whose bound is not below `ns`.
fn bucket(ns: u64) -> usize {
    // Rounded up, so that 1.001 µs is not among those of at most 1 µs.
    let micros = ns.div_ceil(1000);
    let bucket = u64::BITS - micros.saturating_sub(1).leading_zeros();
    (bucket as usize).min(BUCKETS - 1)
}

/// A histogram at one moment.
#[derive(Clone, Debug)]
pub struct HistogramSnapshot {
    /// Values in each bucket (not cumulative); the last one is what was above every bound.
    pub counts: [u64; BUCKETS],
    /// All values added up.
    pub sum: Duration,
}

impl HistogramSnapshot {
    /// Values recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_is_within_it_and_a_nanosecond_more_is_in_the_next_bucket() {
        let histogram = Histogram::default();
        for bound in (0..BUCKETS).filter_map(Histogram::bound) {
            histogram.record(bound);
            histogram.record(bound + Duration::from_nanos(1));
        }
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.counts[0], 1);
        assert_eq!(snapshot.counts[1..BUCKETS - 1], [2; BUCKETS - 2]);
        assert_eq!(snapshot.counts[BUCKETS - 1], 1);
        assert_eq!(snapshot.count(), 2 * (BUCKETS as u64 - 1));
    }

    #[test]
    fn no_duration_panics_and_the_longest_is_still_counted() {
        let histogram = Histogram::default();
        histogram.record(Duration::ZERO);
        histogram.record(Duration::MAX);
        histogram.record(Duration::MAX);
        let snapshot = histogram.snapshot();
        assert_eq!((snapshot.counts[0], snapshot.counts[BUCKETS - 1]), (1, 2));
    }
}
