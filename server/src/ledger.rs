//! The ledger: how much memory the process holds for its clients, by purpose, and how much it may.
//!
//! The loops' buffers have a limit of their own (reactor `buffers.rs`). Everything else that grows with what clients send, or with what they do not
//! read, is charged to a [`MemoryBudget`] before it is allocated: bodies that are collected, bodies inside waiting jobs, job outputs, whole
//! responses that wait for output space. A [`Charge`] gives its bytes back when it is dropped, whatever ends its owner: a response, a reset, a
//! timeout, a panic. When a budget is spent, the client gets 503 with Retry-After. `budget.rs` adds the limits to the sum that `--check` prints.
//!
//! Loops and workers share the counters without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Limits of the two budgets that every server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Bytes of request bodies that are held in memory, from the first byte until the job or the callback that takes the body has finished. The default of
    /// 64 MiB holds 64 bodies of the largest size, `body_bytes_max`.
    pub bodies_bytes_max: u64,
    /// Bytes of job outputs that were not sent yet, and of whole responses that wait for output space. The default is 64 MiB.
    pub responses_bytes_max: u64,
}

impl Default for MemoryLimits {
    fn default() -> MemoryLimits {
        MemoryLimits { bodies_bytes_max: 64 << 20, responses_bytes_max: 64 << 20 }
    }
}

/// All budgets of a process.
#[derive(Debug)]
pub struct Ledger {
    /// Request bodies.
    pub bodies: Arc<MemoryBudget>,
    /// Job outputs and waiting responses.
    pub responses: Arc<MemoryBudget>,
    /// Budgets of the service's own.
    pub services: Vec<Arc<MemoryBudget>>,
}

impl Ledger {
    /// A ledger with these limits, and the budgets of a service.
    #[must_use]
    pub fn new(limits: MemoryLimits, services: Vec<Arc<MemoryBudget>>) -> Ledger {
        Ledger {
            bodies: MemoryBudget::new("bodies", limits.bodies_bytes_max, "request bodies in memory and in jobs; --body-memory-max"),
            responses: MemoryBudget::new(
                "responses",
                limits.responses_bytes_max,
                "job outputs and responses not sent yet; --response-memory-max",
            ),
            services,
        }
    }

    /// Every budget, the service's last.
    pub fn budgets(&self) -> impl Iterator<Item = &Arc<MemoryBudget>> {
        [&self.bodies, &self.responses].into_iter().chain(&self.services)
    }
}

/// How many bytes one purpose may hold, and how many it holds. Shared by all threads.
#[derive(Debug)]
pub struct MemoryBudget {
    name: &'static str,
    reason: &'static str,
    bytes_max: u64,
    held_bytes: AtomicU64,
    held_bytes_peak: AtomicU64,
    refusals: AtomicU64,
}

/// The budget has fewer bytes left than were asked for. Nothing was charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent;

impl MemoryBudget {
    /// A budget of at most `bytes_max`. `name` is the label in the metrics, `reason` the line in `--check`.
    #[must_use]
    pub fn new(name: &'static str, bytes_max: u64, reason: &'static str) -> Arc<MemoryBudget> {
        let [held_bytes, held_bytes_peak, refusals] = [0, 0, 0].map(AtomicU64::new);
        Arc::new(MemoryBudget { name, reason, bytes_max, held_bytes, held_bytes_peak, refusals })
    }

    /// Charges `bytes`.
    ///
    /// # Errors
    /// [`Spent`] if that would exceed the limit. The refusal is counted.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Result<Charge, Spent> {
        let mut charge = Charge { budget: Arc::clone(self), bytes: 0 };
        charge.grow_to(bytes)?;
        Ok(charge)
    }

    /// Whether `bytes` more would fit now. For a refusal before the client sends what would not fit; counted if it would not.
    pub fn has_left(&self, bytes: usize) -> bool {
        let fits = bytes as u64 <= self.bytes_max.saturating_sub(self.held_bytes());
        if !fits {
            self.refusals.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    /// The label in the metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it is for, and the flag that sets it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// The limit in bytes.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Bytes that are charged now.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// The most bytes that were ever charged at a time.
    #[must_use]
    pub fn held_bytes_peak(&self) -> u64 {
        self.held_bytes_peak.load(Ordering::Relaxed)
    }

    /// How often the budget was too small.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> Result<(), Spent> {
        // Relaxed: no other memory depends on these numbers.
        let more = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        match self.held_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(before) => {
                self.held_bytes_peak.fetch_max(before + bytes, Ordering::Relaxed);
                Ok(())
            }
            Err(_) => {
                self.refusals.fetch_add(1, Ordering::Relaxed);
                Err(Spent)
            }
        }
    }
}

/// Bytes that are charged to a budget. Dropping it gives them back, so it must live as long as the memory that it stands for.
#[derive(Debug)]
#[must_use = "a charge that is dropped gives its bytes back"]
pub struct Charge {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl Charge {
    /// The bytes of this charge.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes the charge at least `bytes`.
    ///
    /// # Errors
    /// [`Spent`] if the budget has not enough left. The charge is unchanged then.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), Spent> {
        let more = bytes.saturating_sub(self.bytes);
        if more > 0 {
            self.budget.take(more as u64)?;
            self.bytes = bytes;
        }
        Ok(())
    }

    /// Makes the charge at most `bytes`, and gives the rest back.
    pub fn shrink_to(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        if less > 0 {
            self.budget.held_bytes.fetch_sub(less as u64, Ordering::Relaxed);
            self.bytes = bytes;
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BYTES_MAX: u64 = 1000;

    #[derive(Clone, Debug)]
    enum Op {
        Charge(usize),
        Grow { which: usize, bytes: usize },
        Shrink { which: usize, bytes: usize },
        Drop(usize),
        Panic(usize),
    }

    fn ops() -> impl Strategy<Value = Op> {
        let (which, bytes) = (0..8usize, prop_oneof![0..400usize, Just(usize::MAX)]);
        prop_oneof![
            bytes.clone().prop_map(Op::Charge),
            (which.clone(), bytes.clone()).prop_map(|(which, bytes)| Op::Grow { which, bytes }),
            (which.clone(), bytes).prop_map(|(which, bytes)| Op::Shrink { which, bytes }),
            which.clone().prop_map(Op::Drop),
            which.prop_map(Op::Panic),
        ]
    }

    proptest! {
        #[test]
        fn a_budget_holds_what_its_charges_say_and_never_more_than_its_limit(ops in prop::collection::vec(ops(), 1..100)) {
            let budget = MemoryBudget::new("a test", BYTES_MAX, "");
            let mut charges: Vec<Charge> = Vec::new();
            for op in ops {
                let (held, refusals) = (budget.held_bytes(), budget.refusals());
                let left = (BYTES_MAX - held) as usize;
                match op {
                    Op::Charge(bytes) => match budget.charge(bytes) {
                        Ok(charge) => {
                            prop_assert!(bytes <= left && charge.bytes() == bytes);
                            charges.push(charge);
                        }
                        Err(Spent) => prop_assert!(bytes > left && budget.refusals() == refusals + 1),
                    },
                    Op::Grow { which, bytes } => {
                        if let Some(charge) = charges.get_mut(which) {
                            let before = charge.bytes();
                            match charge.grow_to(bytes) {
                                Ok(()) => prop_assert_eq!(charge.bytes(), bytes.max(before)),
                                Err(Spent) => prop_assert!(charge.bytes() == before && bytes - before > left),
                            }
                        }
                    }
                    Op::Shrink { which, bytes } => {
                        if let Some(charge) = charges.get_mut(which) {
                            let before = charge.bytes();
                            charge.shrink_to(bytes);
                            prop_assert_eq!(charge.bytes(), bytes.min(before));
                        }
                    }
                    Op::Drop(which) => drop((which < charges.len()).then(|| charges.swap_remove(which))),
                    Op::Panic(which) if which < charges.len() => {
                        let charge = charges.swap_remove(which);
                        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                            let _held = charge;
                            std::panic::resume_unwind(Box::new(()));
                        }));
                        prop_assert!(unwound.is_err());
                    }
                    Op::Panic(_) => {}
                }
                let sum: usize = charges.iter().map(Charge::bytes).sum();
                prop_assert_eq!(budget.held_bytes(), sum as u64);
                prop_assert!(budget.held_bytes() <= BYTES_MAX && budget.held_bytes_peak() <= BYTES_MAX);
                prop_assert!(budget.held_bytes() <= budget.held_bytes_peak());
            }
            drop(charges);
            prop_assert_eq!(budget.held_bytes(), 0);
        }
    }

    #[test]
    fn threads_that_charge_at_once_never_exceed_the_limit_and_give_everything_back() {
        let budget = MemoryBudget::new("a test", BYTES_MAX, "");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let budget = &budget;
                scope.spawn(move || {
                    for round in 0..5_000usize {
                        let Ok(mut charge) = budget.charge(100 + thread) else { continue };
                        let _ = charge.grow_to(300 + round % 200);
                        assert!(budget.held_bytes() <= BYTES_MAX);
                        charge.shrink_to(50);
                    }
                });
            }
        });
        assert_eq!(budget.held_bytes(), 0);
        assert!(budget.held_bytes_peak() <= BYTES_MAX && budget.held_bytes_peak() > BYTES_MAX / 4);
    }
}
