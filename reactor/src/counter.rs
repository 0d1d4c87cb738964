//! Counters, gauges and histograms with one writer, any number of readers, and no lock.
//!
//! Each number has one writer, the loop's thread. So adding is a load and a store without a locked instruction, and costs about as much as
//! adding to a local number.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows, with one writer.
#[derive(Debug)]
pub struct Counter(AtomicU64);

impl Default for Counter {
    fn default() -> Counter {
        Counter::new()
    }
}

impl Counter {
    /// A counter at 0.
    #[must_use]
    pub const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    /// Adds `n`. Only the owner's thread may call it. Two writers would lose counts, but it would still be memory safe.
    #[inline]
    pub fn add(&self, n: u64) {
        // Not fetch_add: a locked instruction costs about 20 cycles on x86, and with one writer there is no race to prevent. The sum wraps at
        // 2^64, as with fetch_add.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down, with one writer.
#[derive(Debug)]
pub struct Gauge(AtomicU64);

impl Default for Gauge {
    fn default() -> Gauge {
        Gauge::new()
    }
}

impl Gauge {
    /// A gauge at 0.
    #[must_use]
    pub const fn new() -> Gauge {
        Gauge(AtomicU64::new(0))
    }

    /// Sets the value. Only the owner's thread may call it.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Raises the gauge to `value` if it is lower. Only the owner's thread may call it.
    #[inline]
    pub(crate) fn raise_to(&self, value: u64) {
        if value > self.get() {
            self.set(value);
        }
    }

    /// Adds `n`. Only the owner's thread may call it.
    #[inline]
    pub fn add(&self, n: u64) {
        self.set(self.get() + n);
    }

    /// Subtracts `n`. Only the owner's thread may call it.
    #[inline]
    pub fn sub(&self, n: u64) {
        let value = self.get();
        debug_assert!(value >= n, "a gauge at {value} was lowered by {n}: more was subtracted than was added");
        self.set(value.saturating_sub(n));
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

// A histogram of durations with one writer and any number of readers, and no lock.
//
// The bounds are powers of two of a microsecond, so the bucket is found by counting leading zeros. A record costs a few nanoseconds. A duration
// differs from the bound of its bucket by at most a factor of two, from 1 µs to 67 s.

/// Counts of durations by length. Written by one thread, read by any.
#[derive(Debug)]
pub struct Histogram {
    counts: [Counter; Histogram::BUCKETS],
    sum_nanos: Counter,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

impl Histogram {
    /// The number of buckets: 1 µs, 2 µs, 4 µs … 67 s (2^26 µs), and one for longer durations.
    pub const BUCKETS: usize = 28;

    /// An empty histogram.
    #[must_use]
    pub const fn new() -> Histogram {
        Histogram { counts: [const { Counter::new() }; Histogram::BUCKETS], sum_nanos: Counter::new() }
    }

    /// Counts one duration. Only the owner's thread may call it, because there is no locked instruction.
    #[inline]
    pub fn record(&self, duration: Duration) {
        let nanos = nanos(duration);
        self.counts[Histogram::bucket(nanos)].add(1);
        self.sum_nanos.add(nanos);
    }

    /// Counts `count` durations of the same length. Only the owner's thread may call it.
    #[inline]
    pub fn record_all(&self, duration: Duration, count: u64) {
        let nanos = nanos(duration);
        self.counts[Histogram::bucket(nanos)].add(count);
        self.sum_nanos.add(nanos.saturating_mul(count));
    }

    /// The first bucket whose bound is not below `nanos`.
    #[inline]
    fn bucket(nanos: u64) -> usize {
        // Rounded up, so that 1.001 µs is not counted in the bucket of 1 µs.
        let micros = nanos.div_ceil(1000);
        let bucket = u64::BITS - micros.saturating_sub(1).leading_zeros();
        (bucket as usize).min(Histogram::BUCKETS - 1)
    }

    /// The longest duration that a bucket counts. `None` for the last bucket, which has no bound.
    #[must_use]
    pub const fn bound(bucket: usize) -> Option<Duration> {
        if bucket + 1 < Histogram::BUCKETS { Some(Duration::from_micros(1 << bucket)) } else { None }
    }

    /// A copy of the counts so far. A concurrent record may be in it or not, or only in one of its counts and its sum.
    #[must_use]
    pub fn snapshot(&self) -> HistogramSnapshot {
        let counts = std::array::from_fn(|bucket| self.counts[bucket].get());
        HistogramSnapshot { counts, sum: Duration::from_nanos(self.sum_nanos.get()) }
    }
}

/// The duration in nanoseconds. It saturates at 584 years, because a bug in this crate that records such a duration must not cause a panic.
#[inline]
fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(duration.subsec_nanos()))
}

/// A copy of a [`Histogram`]. The snapshots of several loops can be added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// The number of durations in each bucket. Not cumulative, unlike Prometheus's `le` series.
    pub counts: [u64; Histogram::BUCKETS],
    /// The sum of all durations.
    pub sum: Duration,
}

impl HistogramSnapshot {
    /// The number of durations. Computed as the sum of the buckets, so that it agrees with them.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// For each bucket its bound, and the number of durations that are at most as long: Prometheus's `le` series. The last bound is `None`,
    /// which means +Inf.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + '_ {
        self.counts.iter().enumerate().scan(0, |total, (bucket, count)| {
            *total += count;
            Some((Histogram::bound(bucket), *total))
        })
    }

    /// Adds the snapshot of another loop.
    pub fn add(&mut self, other: &HistogramSnapshot) {
        for (mine, others) in self.counts.iter_mut().zip(other.counts) {
            *mine += others;
        }
        self.sum += other.sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_duration_is_counted_in_the_first_bucket_that_is_not_too_small(nanos in prop_oneof![any::<u64>(), 0..100_000_000_000u64, 0..5_000u64]) {
            let histogram = Histogram::new();
            let duration = Duration::from_nanos(nanos);
            histogram.record(duration);
            let snapshot = histogram.snapshot();
            let expected = (0..Histogram::BUCKETS).find(|&bucket| Histogram::bound(bucket).is_none_or(|bound| duration <= bound));
            prop_assert_eq!(snapshot.counts.iter().position(|&count| count == 1), expected);
            prop_assert_eq!(snapshot.count(), 1);
            prop_assert_eq!(snapshot.sum, duration);
        }
    }

    #[test]
    fn each_bound_belongs_to_its_bucket_and_a_nanosecond_more_to_the_next() {
        for bucket in 0..Histogram::BUCKETS - 1 {
            let bound = Histogram::bound(bucket).expect("only the last has none").as_nanos() as u64;
            assert_eq!(Histogram::bucket(bound), bucket);
            assert_eq!(Histogram::bucket(bound + 1), bucket + 1);
        }
        assert_eq!(Histogram::bound(Histogram::BUCKETS - 2), Some(Duration::from_micros(1 << 26)));
    }

    #[test]
    fn an_absurd_duration_saturates_and_does_not_panic() {
        let histogram = Histogram::new();
        histogram.record(Duration::MAX);
        assert_eq!(histogram.snapshot().counts[Histogram::BUCKETS - 1], 1);
        assert_eq!(histogram.snapshot().sum, Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn snapshots_of_several_loops_add_up_and_accumulate() {
        let (one, other) = (Histogram::new(), Histogram::new());
        one.record(Duration::from_micros(1));
        one.record(Duration::from_secs(100));
        other.record(Duration::from_micros(3));
        let mut sum = one.snapshot();
        sum.add(&other.snapshot());
        let series: Vec<_> = sum.cumulative().collect();
        assert_eq!(series.len(), Histogram::BUCKETS);
        assert_eq!(series[0], (Some(Duration::from_micros(1)), 1));
        assert_eq!(series[1], (Some(Duration::from_micros(2)), 1));
        assert_eq!(series[2], (Some(Duration::from_micros(4)), 2));
        assert_eq!(series[Histogram::BUCKETS - 1], (None, 3));
        assert_eq!(sum.sum, Duration::from_micros(4) + Duration::from_secs(100));
    }
}
