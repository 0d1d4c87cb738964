//! The number of connections on their way from loops that accept to a loop that adopts ([`InFlight`]).
//!
//! A loop that accepts hands a connection over only if the other loop has a free slot for it, and the other loop fills its slots at the same
//! time. Until it counts an adopted connection as open, the connection must count as in flight. Between the two, the loop that accepts would
//! see a free slot that does not exist, and the next client would be rejected although another loop can serve it.
//!
//! Checked under every interleaving and by the memory model: `RUSTFLAGS="--cfg loom" cargo test -p reactor --release loom`.

#[cfg(loom)]
use loom::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
#[cfg(not(loom))]
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The connections in flight to one loop. Clones share one count.
#[derive(Clone, Debug)]
pub(crate) struct InFlight(Arc<AtomicU64>);

/// A connection in flight. Dropping it says that the connection has arrived and counts as open, or that it will not arrive.
#[derive(Debug)]
#[must_use = "dropping it ends the flight"]
pub(crate) struct Flight(Arc<AtomicU64>);

impl InFlight {
    pub(crate) fn new() -> InFlight {
        InFlight(Arc::new(AtomicU64::new(0)))
    }

    /// The connections that are open, as `open` reads them, and those in flight.
    pub(crate) fn load(&self, open: impl Fn() -> u64) -> u64 {
        loop {
            // Acquire: pairs with the drop of a `Flight`. In this order a connection that arrives meanwhile counts twice, and never not at all.
            let in_flight = self.0.load(Ordering::Acquire);
            let sum = in_flight + open();
            if self.0.load(Ordering::Relaxed) >= in_flight {
                return sum; // None has arrived, so none counts twice.
            }
        }
    }

    /// Reserves one of the `slots_max` slots for a connection. `None` if open connections and those in flight need all of them. Several loops
    /// may reserve at the same time: each counts itself before it looks, so two of them do not get the last slot.
    pub(crate) fn reserve(&self, slots_max: u64, open: impl Fn() -> u64) -> Option<Flight> {
        loop {
            let before = self.0.fetch_add(1, Ordering::Acquire);
            if before + open() < slots_max {
                return Some(Flight(self.0.clone()));
            }
            if self.0.fetch_sub(1, Ordering::Relaxed) > before {
                return None;
            }
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // Release: a loop that sees the lower count sees the connection among the open ones.
        self.0.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::thread;

    use super::*;

    /// Two loops hand connections to a third one that has two slots and one open connection, and that adopts what has been sent to it.
    #[test]
    fn loom_the_last_slot_is_reserved_once_and_not_again_before_it_counts_as_open() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(|| {
            let in_flight = InFlight::new();
            let open = Arc::new(AtomicU64::new(1));
            let arriving = in_flight.reserve(2, || open.load(Ordering::Relaxed)).expect("one slot is free");
            let givers = [(); 2].map(|()| {
                let (in_flight, open) = (in_flight.clone(), open.clone());
                thread::spawn(move || {
                    assert!(in_flight.load(|| open.load(Ordering::Relaxed)) >= 2, "a connection counts neither as open nor as in flight");
                    in_flight.reserve(2, || open.load(Ordering::Relaxed)).is_some()
                })
            });
            // As `EventLoop::adopt` does.
            open.store(2, Ordering::Relaxed);
            drop(arriving);
            for giver in givers {
                assert!(!giver.join().expect("it does not panic"), "a slot is reserved that is taken");
            }
            assert_eq!(in_flight.load(|| 0), 0, "a reservation has leaked");
        });
    }

    #[test]
    fn loom_of_two_loops_one_gets_the_last_slot() {
        loom::model(|| {
            let in_flight = InFlight::new();
            let other = in_flight.clone();
            let one = thread::spawn(move || other.reserve(1, || 0));
            let two = in_flight.reserve(1, || 0);
            let one = one.join().expect("it does not panic");
            assert!(one.is_some() != two.is_some(), "{one:?} {two:?}");
        });
    }
}
