//! Counters and gauges with one writer, any number of readers, and no lock.
//!
//! Each number has one writer, the loop's thread. So adding is a load and a store without a locked instruction, and costs about as much as
//! adding to a local number.

use std::sync::atomic::{AtomicU64, Ordering};

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
