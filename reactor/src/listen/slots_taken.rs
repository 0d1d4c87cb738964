//! The number of slots of a loop that are taken: by open connections, and by reservations for connections on their way to it from other loops.
//!
//! A loop that accepts hands a connection over only if the other loop has a free slot for it, and the other loop fills its slots at the same time.
//! Both change one number. With one number for open connections and one for those on their way, a connection that arrives counts in neither or in
//! both for a moment. The loop that accepts would then see a free slot that does not exist, or reject a client although another loop has a slot.
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

/// The taken slots of one loop. Clones share one number.
///
/// All operations are `Relaxed`: no other memory depends on the number. The mailbox orders what is handed over.
#[derive(Clone, Debug)]
pub(crate) struct SlotsTaken(Arc<AtomicU64>);

/// A slot that is reserved for a connection on its way. Dropping it gives the slot back.
#[derive(Debug)]
#[must_use = "dropping it gives the slot back"]
pub(crate) struct Reservation(Option<Arc<AtomicU64>>);

impl SlotsTaken {
    pub(crate) fn new() -> SlotsTaken {
        SlotsTaken(Arc::new(AtomicU64::new(0)))
    }

    /// The number of taken slots.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Reserves one of the `slots_max` slots. `None` if all are taken.
    pub(crate) fn reserve(&self, slots_max: u64) -> Option<Reservation> {
        let reserved = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| (taken < slots_max).then_some(taken + 1));
        reserved.is_ok().then(|| Reservation(Some(self.0.clone())))
    }

    /// A connection of the loop is open. The slot of one that arrives with a reservation is taken already.
    pub(crate) fn opened(&self, reservation: Option<Reservation>) {
        match reservation {
            Some(mut reservation) => reservation.0 = None,
            None => _ = self.0.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// A connection of the loop has closed.
    pub(crate) fn closed(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(taken) = &self.0 {
            taken.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::thread;

    use super::*;

    /// Two loops hand connections to a third one that has two slots and one open connection, while it adopts what has been sent to it.
    #[test]
    fn loom_a_connection_that_arrives_counts_once_and_its_slot_is_not_reserved_again() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(|| {
            let slots = SlotsTaken::new();
            slots.opened(None);
            let arriving = slots.reserve(2).expect("one slot is free");
            let givers = [(); 2].map(|()| {
                let slots = slots.clone();
                thread::spawn(move || {
                    assert_eq!(slots.count(), 2, "the connection that arrives does not count, or counts twice");
                    slots.reserve(2).is_some()
                })
            });
            slots.opened(Some(arriving));
            for giver in givers {
                assert!(!giver.join().expect("it does not panic"), "a slot is reserved that is taken");
            }
            slots.closed();
            assert!(slots.reserve(2).is_some(), "the slot of a closed connection is free");
            assert_eq!(slots.count(), 1, "a reservation has leaked");
        });
    }

    #[test]
    fn loom_of_two_loops_one_gets_the_last_slot() {
        loom::model(|| {
            let slots = SlotsTaken::new();
            let other = slots.clone();
            let one = thread::spawn(move || other.reserve(1));
            let two = slots.reserve(1);
            let one = one.join().expect("it does not panic");
            assert!(one.is_some() != two.is_some(), "{one:?} {two:?}");
        });
    }
}
