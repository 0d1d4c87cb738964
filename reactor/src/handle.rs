//! Orders to a loop from any thread ([`Handle`]): stop, or shut down gracefully. And the progress of a graceful shutdown (`Shutdown`), which `shutdown.rs` runs.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use crate::os::Wake;

/// The progress of a graceful shutdown.
#[derive(Debug)]
pub(crate) struct Shutdown {
    /// The end of the grace. Connections that are open then are closed without further notice. None: no end.
    pub(crate) until: Option<Instant>,
    /// Slots below this were notified.
    pub(crate) notified: u32,
    /// Number of slots when the shutdown began. A connection that opens later is notified when it opens and not again, whatever its slot
    /// (`Bits::SHUTDOWN_NOTIFIED`). Test: `a_connection_in_a_reused_slot_is_notified_of_a_shutdown_once`.
    pub(crate) to_notify: u32,
}

/// The orders that a loop has not taken yet.
#[derive(Debug)]
pub(crate) struct Orders {
    stop: AtomicBool,
    /// The shortest grace of the shutdowns that were ordered, in nanoseconds, or [`NO_SHUTDOWN`].
    grace_nanos: AtomicU64,
}

/// No shutdown was ordered. `Handle::shut_down` stores less, so the longest grace is 584 years.
const NO_SHUTDOWN: u64 = u64::MAX;

impl Default for Orders {
    fn default() -> Orders {
        Orders { stop: AtomicBool::new(false), grace_nanos: AtomicU64::new(NO_SHUTDOWN) }
    }
}

/// An order to the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    None,
    ShutDown(Duration),
    Stop,
}

impl Orders {
    /// Takes the order that was not taken before. A stop is not cleared.
    pub(crate) fn take(&self) -> Order {
        if self.stop.load(Ordering::Acquire) {
            return Order::Stop;
        }
        // This runs in every turn, so the swap (a write) is made only if there is an order.
        if self.grace_nanos.load(Ordering::Acquire) == NO_SHUTDOWN {
            return Order::None;
        }
        Order::ShutDown(Duration::from_nanos(self.grace_nanos.swap(NO_SHUTDOWN, Ordering::AcqRel)))
    }
}

/// Stops one loop or shuts it down gracefully, and says when it has finished, from any thread. Only [`Handle::wait`] blocks.
///
/// ```
/// use std::time::Duration;
/// use reactor::{Config, Context, EventLoop, Handler, Origin};
///
/// struct Discard;
///
/// impl Handler for Discard {
///     type Conn = ();
///     type Mail = ();
///     fn opened(&mut self, _: Origin, _: &mut Context<'_>) {}
///     fn input(&mut self, (): &mut (), input: &[u8], _: &mut Context<'_>) -> usize { input.len() }
///     fn mail(&mut self, (): &mut (), (): (), _: &mut Context<'_>) {}
/// }
///
/// let event_loop = EventLoop::new(Config::default(), Discard)?;
/// let handle = event_loop.handle();
/// let thread = std::thread::spawn(move || event_loop.run());
/// assert!(!handle.wait(Duration::ZERO), "the loop runs");
///
/// handle.shut_down(Duration::from_secs(5));
/// if !handle.wait(Duration::from_secs(10)) {
///     handle.stop();
/// }
/// thread.join().expect("the loop does not panic")?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct Handle {
    pub(crate) orders: Arc<Orders>,
    pub(crate) wake: Arc<dyn Wake>,
    /// Disconnected when the loop has finished.
    pub(crate) finished: Receiver<Infallible>,
}

impl Handle {
    /// Ends the loop after its current turn. Connections are closed without further notice.
    pub fn stop(&self) {
        self.orders.stop.store(true, Ordering::Release);
        self.wake_loop();
    }

    /// Shuts the loop down gracefully: it accepts the queued clients, stops listening, notifies its connections ([`crate::Pressure::ShuttingDown`]), and ends
    /// when the last one has closed or `grace` is over. The grace counts from the turn in which the loop takes the order. Test:
    /// `a_graceful_shutdown_loses_no_client`.
    ///
    /// A second call can bring the end nearer but not delay it: of several shutdowns the one that ends first holds. Test:
    /// `of_several_shutdowns_the_one_that_ends_first_counts`. A stop ends the loop after its current turn, whatever grace is left.
    pub fn shut_down(&self, grace: Duration) {
        let nanos = u64::try_from(grace.as_nanos()).unwrap_or(NO_SHUTDOWN).min(NO_SHUTDOWN - 1);
        self.orders.grace_nanos.fetch_min(nanos, Ordering::AcqRel);
        self.wake_loop();
    }

    /// Whether the loop has finished, see [`Handle::wait`]. Does not block.
    #[must_use]
    pub fn has_finished(&self) -> bool {
        self.finished.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Waits until the loop has finished, or `timeout` has passed (`Duration::MAX`: without a limit). Returns whether it has finished: its
    /// listeners and connections are closed, every callback has returned, and its epoll is closed. Its thread may still be returning from
    /// [`EventLoop::run`](crate::EventLoop::run). A loop that is dropped without running has finished as well. Tests:
    /// `a_handle_says_when_the_loop_has_finished`.
    ///
    /// Blocks the calling thread, so do not call it in a callback: a loop that waits for itself waits for the whole `timeout`, and one that
    /// waits for another loop serves nobody meanwhile. [`Handle::has_finished`] does not block.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        self.finished.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected)
    }

    fn wake_loop(&self) {
        // Tried twice, as for mail: nothing else wakes a loop without events for an order.
        if let Err(e) = self.wake.wake().or_else(|_| self.wake.wake()) {
            log::error!("cannot wake a loop: {e}");
        }
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("orders", &self.orders).finish_non_exhaustive()
    }
}
