//! The orderly end of a loop: accept what the kernel has queued, stop listening, tell everyone, wait for the last, within a grace time.
//!
//! Closing a listener resets whoever is still in its queue (failure mode H3), so it is emptied first (`listen/accept.rs`). One that another
//! process holds too is not reset; there the queue is the next server's, but for those who were in it before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::clock;
use crate::event_loop::{EventLoop, sooner};
use crate::handler::{Handler, Pressure};
use crate::listen::socket::LISTEN_BACKLOG;
use crate::os::{Os, Wake};
use crate::visit::Cause;

/// How far the end has come.
#[derive(Debug)]
pub(crate) struct Drain {
    /// The connections that are open then are closed as they are. None: never.
    pub(crate) until: Option<Instant>,
    /// Slots below this have been told.
    told: u32,
    /// Slots there were when it began. A connection that comes later is notified when it opens, and then not again, whatever slot it got
    /// (`Flags::DRAIN_NOTIFIED`).
    to_tell: u32,
}

impl<H: Handler, O: Os> EventLoop<H, O> {
    /// Begins to drain. A loop that drains already ends at the earlier of the two times.
    pub(crate) fn start_drain(&mut self, grace: Duration) {
        let until = clock::after(self.shared.now, grace);
        if let Some(drain) = &mut self.drain {
            drain.until = sooner(drain.until, until);
            return;
        }
        for listener in &mut self.listeners {
            // Whatever the last event said: the queue is looked at once more before it is closed.
            listener.ready = true;
            if listener.inherited {
                // Those who were in the queue when the order came are at its head; a queue of the usual length holds no more than this. The
                // rest of a longer one waits for the next server. Without a bound a loop that is slower than its clients come would never
                // let go.
                listener.accepts_left = Some(LISTEN_BACKLOG.unsigned_abs());
            }
        }
        // Whoever comes now is told by this loop; the others may end when they have taken what is on its way to them.
        self.receivers.clear();
        let to_tell = self.entries.iter().next_back().map_or(0, |(slot, _)| slot as u32 + 1);
        self.drain = Some(Drain { until, told: 0, to_tell });
    }

    /// Whether the next turn should come at once.
    pub(crate) fn drain_can_progress(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.told < drain.to_tell)
    }

    /// The drain's share of a turn: as many are told as may close in one.
    pub(crate) fn go_on_draining(&mut self) {
        let Some(drain) = &mut self.drain else { return };
        let from = drain.told;
        let to = drain.to_tell.min(from.saturating_add(self.shared.limits.closes_per_turn_max));
        drain.told = to;
        let until = drain.until;
        for slot in from..to {
            self.visit_because(slot, Cause::Pressed(Pressure::Draining));
        }
        let listening = self.listeners.iter().any(|listener| listener.socket.is_some());
        if (!listening && self.givers == 0 && self.entries.is_empty() && !self.mail_waits)
            || until.is_some_and(|until| until <= self.shared.now)
        {
            self.shared.stop = true;
        }
    }
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
