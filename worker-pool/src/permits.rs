//! How many jobs of each class are in flight, and whether the pool is open: one atomic word.
//!
//! One word, because the three are decided together. A job that is admitted after the pool was closed would never be answered, and two
//! words would leave a moment between the check and the count (loom test:
//! `loom_a_submit_that_races_with_shutdown_is_either_answered_or_rejected`).

use crate::job::Class;
use crate::sync::{AtomicU64, Ordering};

/// A permit stands for one admitted job, waiting or running, until it is answered.
#[derive(Debug)]
pub(crate) struct Permits {
    /// Fast jobs in bits 0..32, slow ones in bits 32..63, closed in bit 63.
    word: AtomicU64,
}

const CLOSED: u64 = 1 << 63;
const SLOW_SHIFT: u32 = 32;
/// No limit. The largest count that 31 bits hold, so that the counts do not overlap.
pub(crate) const UNLIMITED: u32 = (1 << 31) - 1;

/// Jobs in flight, by class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// Fast jobs, waiting or running.
    pub fast: u32,
    /// Slow jobs, waiting or running.
    pub slow: u32,
}

impl InFlight {
    /// Both classes.
    pub fn total(self) -> u32 {
        self.fast.saturating_add(self.slow)
    }
}

/// Why no permit was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPermit {
    /// All are taken.
    AllTaken,
    /// The permits that slow jobs may have are taken.
    SlowTaken,
    /// The pool is closed.
    Closed,
}

impl Permits {
    pub(crate) fn new() -> Self {
        Self { word: AtomicU64::new(0) }
    }

    pub(crate) fn in_flight(&self) -> InFlight {
        unpack(self.word.load(Ordering::Acquire))
    }

    /// Takes a permit. Never blocks; retries only when another thread took or gave back a permit meanwhile.
    pub(crate) fn try_acquire(&self, class: Class, total_max: u32, slow_max: u32) -> Result<(), NoPermit> {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            if word & CLOSED != 0 {
                return Err(NoPermit::Closed);
            }
            let held = unpack(word);
            if held.total() >= total_max.min(UNLIMITED) {
                return Err(NoPermit::AllTaken);
            }
            if class == Class::Slow && held.slow >= slow_max {
                return Err(NoPermit::SlowTaken);
            }
            match self.word.compare_exchange_weak(word, word + one(class), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(()),
                Err(seen) => word = seen,
            }
        }
    }

    /// Gives a permit back.
    pub(crate) fn release(&self, class: Class) {
        let before = unpack(self.word.fetch_sub(one(class), Ordering::AcqRel));
        let held = match class {
            Class::Fast => before.fast,
            Class::Slow => before.slow,
        };
        debug_assert!(held > 0, "a permit was given back twice");
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.word.load(Ordering::Acquire) & CLOSED != 0
    }

    /// From now on no permit is given. Jobs that have a permit are still answered.
    pub(crate) fn close(&self) {
        self.word.fetch_or(CLOSED, Ordering::AcqRel);
    }
}

fn one(class: Class) -> u64 {
    match class {
        Class::Fast => 1,
        Class::Slow => 1 << SLOW_SHIFT,
    }
}

fn unpack(word: u64) -> InFlight {
    let word = word & !CLOSED;
    InFlight { fast: (word & u64::from(u32::MAX)) as u32, slow: (word >> SLOW_SHIFT) as u32 }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn slow_jobs_cannot_take_the_permits_of_fast_ones() {
        let permits = Permits::new();
        for _ in 0..2 {
            permits.try_acquire(Class::Slow, 4, 2).unwrap();
        }
        assert_eq!(permits.try_acquire(Class::Slow, 4, 2), Err(NoPermit::SlowTaken));
        for _ in 0..2 {
            permits.try_acquire(Class::Fast, 4, 2).unwrap();
        }
        assert_eq!(permits.try_acquire(Class::Fast, 4, 2), Err(NoPermit::AllTaken));
        assert_eq!(permits.in_flight(), InFlight { fast: 2, slow: 2 });
    }

    #[test]
    fn closing_keeps_the_counts_and_admits_nothing() {
        let permits = Permits::new();
        permits.try_acquire(Class::Slow, 4, 2).unwrap();
        permits.close();
        assert_eq!(permits.try_acquire(Class::Fast, 4, 2), Err(NoPermit::Closed));
        assert_eq!(permits.in_flight(), InFlight { fast: 0, slow: 1 });
        permits.release(Class::Slow);
        assert_eq!(permits.in_flight().total(), 0);
    }
}
