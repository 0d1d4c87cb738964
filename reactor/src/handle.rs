//! The loop's remote control: orders from any thread, and how far a graceful shutdown has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::os::Wake;

/// How far the end has come.
#[derive(Debug)]
pub(crate) struct Drain {
    /// The connections that are open then are closed as they are. None: never.
    pub(crate) until: Option<Instant>,
    /// Slots below this have been told.
    pub(crate) told: u32,
    /// Slots there were when it began. A connection that comes later is notified when it opens, and then not again, whatever slot it got
    /// (`Flags::DRAIN_NOTIFIED`).
    pub(crate) to_tell: u32,
}

/// Orders for a loop that it has not taken yet.
#[derive(Debug)]
pub(crate) struct Orders {
    stop: AtomicBool,
    /// The shortest grace of the drains that were asked for, or [`NO_DRAIN`].
    grace_nanos: AtomicU64,
}

/// Longer than any grace: 584 years is the longest.
const NO_DRAIN: u64 = u64::MAX;

impl Default for Orders {
    fn default() -> Orders {
        Orders { stop: AtomicBool::new(false), grace_nanos: AtomicU64::new(NO_DRAIN) }
    }
}

/// What the loop is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    None,
    Drain(Duration),
    Stop,
}

impl Orders {
    /// What to do that was not taken before. A stop stays.
    pub(crate) fn take(&self) -> Order {
        if self.stop.load(Ordering::Acquire) {
            return Order::Stop;
        }
        // Asked in every turn: the swap only when there is something to take.
        if self.grace_nanos.load(Ordering::Acquire) == NO_DRAIN {
            return Order::None;
        }
        Order::Drain(Duration::from_nanos(self.grace_nanos.swap(NO_DRAIN, Ordering::AcqRel)))
    }
}

/// Remote control of one loop, from any thread.
#[derive(Clone)]
pub struct Handle {
    pub(crate) orders: Arc<Orders>,
    pub(crate) wake: Arc<dyn Wake>,
}

impl Handle {
    /// Ends the loop after its current turn. Connections are closed as they are.
    pub fn stop(&self) {
        self.orders.stop.store(true, Ordering::Release);
        self.wake_loop();
    }

    /// Accepts what the kernel has queued, stops listening, tells every connection [`crate::Pressure::Draining`], and ends the loop
    /// when the last has closed or `grace` is over. The grace counts from the end of the turn in which the loop takes the order.
    ///
    /// Called again, it can bring the end nearer and not put it off: of all drains that were asked for, the one that ends first holds. A stop
    /// ends the loop at once, whatever grace is left.
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
