//! Orders to a loop from any thread ([`Handle`]): stop, or drain. And the progress of a drain (`Drain`), which `shutdown.rs` runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::os::Wake;

/// The progress of a drain.
#[derive(Debug)]
pub(crate) struct Drain {
    /// The end of the grace. Connections that are open then are closed without further notice. None: no end.
    pub(crate) until: Option<Instant>,
    /// Slots below this were notified.
    pub(crate) told: u32,
    /// Number of slots when the drain began. A connection that opens later is notified when it opens and not again, whatever its slot
    /// (`Bits::DRAIN_NOTIFIED`). Test: `a_connection_in_a_reused_slot_is_notified_of_a_drain_once`.
    pub(crate) to_tell: u32,
}

/// The orders that a loop has not taken yet.
#[derive(Debug)]
pub(crate) struct Orders {
    stop: AtomicBool,
    /// The shortest grace of the drains that were ordered, in nanoseconds, or [`NO_DRAIN`].
    grace_nanos: AtomicU64,
}

/// No drain was ordered. `Handle::drain` stores less, so the longest grace is 584 years.
const NO_DRAIN: u64 = u64::MAX;

impl Default for Orders {
    fn default() -> Orders {
        Orders { stop: AtomicBool::new(false), grace_nanos: AtomicU64::new(NO_DRAIN) }
    }
}

/// An order to the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    None,
    Drain(Duration),
    Stop,
}

impl Orders {
    /// Takes the order that was not taken before. A stop is not cleared.
    pub(crate) fn take(&self) -> Order {
        if self.stop.load(Ordering::Acquire) {
            return Order::Stop;
        }
        // This runs in every turn, so the swap (a write) is made only if there is an order.
        if self.grace_nanos.load(Ordering::Acquire) == NO_DRAIN {
            return Order::None;
        }
        Order::Drain(Duration::from_nanos(self.grace_nanos.swap(NO_DRAIN, Ordering::AcqRel)))
    }
}

/// Stops or drains one loop, from any thread. No method blocks.
#[derive(Clone)]
pub struct Handle {
    pub(crate) orders: Arc<Orders>,
    pub(crate) wake: Arc<dyn Wake>,
}

impl Handle {
    /// Ends the loop after its current turn. Connections are closed without further notice.
    pub fn stop(&self) {
        self.orders.stop.store(true, Ordering::Release);
        self.wake_loop();
    }

    /// Drains the loop: it accepts the queued clients, stops listening, notifies its connections ([`crate::Pressure::Draining`]), and ends
    /// when the last one has closed or `grace` is over. The grace counts from the turn in which the loop takes the order. Test:
    /// `a_drain_loses_nobody`.
    ///
    /// A second call can bring the end nearer but not delay it: of several drains the one that ends first holds. Test:
    /// `of_several_drains_the_one_that_ends_first_holds`. A stop ends the loop after its current turn, whatever grace is left.
    pub fn drain(&self, grace: Duration) {
        let nanos = u64::try_from(grace.as_nanos()).unwrap_or(NO_DRAIN).min(NO_DRAIN - 1);
        self.orders.grace_nanos.fetch_min(nanos, Ordering::AcqRel);
        self.wake_loop();
    }

    fn wake_loop(&self) {
        if let Err(e) = self.wake.wake() {
            log::error!("cannot wake a loop: {e}");
        }
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("orders", &self.orders).finish_non_exhaustive()
    }
}
