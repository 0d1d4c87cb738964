//! The counters of one loop, and the callback that it runs now. The loop's thread writes them, any thread reads them, without a lock.
//!
//! Each number has one writer, the loop's thread. So adding is a load and a store without a locked instruction, and costs about as much as
//! adding to a local number. Readers do not see half-written numbers, but the numbers that they read may be from different instants.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use self::running::RunningCall;
use crate::buffers::BufferOwner;
use crate::counter::{Counter, Gauge, Histogram};
use crate::errors::{AcceptError, CloseReason};

mod running;

/// A callback that was running when [`Stats::running`] was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// Which callback.
    pub callback: Callback,
    /// The slot of its connection, or [`Stats::NO_SLOT`] for callbacks that belong to no connection.
    pub slot: u32,
    /// How many callbacks this loop has begun. The same number seen twice is the same call, and it has lasted at least for the time between the
    /// two readings.
    pub sequence: u64,
    /// How long the turn in which it runs has lasted. The callback has lasted at most as long.
    pub turn_age: Duration,
}

/// The counters and gauges of one loop.
///
/// A watchdog finds the callback that stalls a loop by calling [`Stats::running`] periodically, for example each 100 ms. The loop does not
/// read a clock for each callback, it only counts them. When the watchdog reads the same [`Running::sequence`] twice, that call has run at
/// least since the first reading, and [`Running::callback`] names it. [`Stats::turn_age`] tells only that a turn is long.
#[derive(Debug)]
#[repr(align(128))] // Two cache lines, because the CPU prefetches the neighbour: two loops must not write to the same lines.
pub struct Stats {
    base: Instant,
    /// Nanoseconds from `base` to the start of the current turn, plus 1. 0 while the loop sleeps in poll.
    turn_started: AtomicU64,
    /// The callback in the high 32 bits, the slot in the low 32 bits.
    running: RunningCall,

    /// Turns of the loop. One begins with each return from poll.
    pub turns: Counter,
    /// Turns without progress: no byte, no accept, no mail, no deadline, no close. Many of them mean that the loop spins (`hot-loop`).
    pub turns_without_progress: Counter,
    /// Events that poll returned. Divided by `turns`, the mean number per turn.
    pub events: Counter,
    /// The most events of one turn.
    pub events_per_turn_max: Gauge,
    /// Time from poll's return to the next call of poll. New events wait for up to this long.
    pub turn_duration: Histogram,
    /// How late deadlines ran, counted from the tick of 1 ms to which they are rounded up.
    pub loop_lag: Histogram,

    /// Connections taken from a listener.
    pub accepts: Counter,
    /// Connections taken over from another loop that accepted them.
    pub adoptions: Counter,
    /// Connections that another loop accepted and handed over, and that were lost because a system call failed.
    pub adoption_failures: Counter,
    accept_errors: [Counter; AcceptError::COUNT],
    /// How often accepting paused for lack of descriptors or memory.
    pub accept_pauses: Counter,
    /// Outbound connections begun.
    pub connects: Counter,
    /// Outbound connections that failed.
    pub connect_failures: Counter,
    closes: [Counter; CloseReason::COUNT],
    /// Closes in which this loop sent a reset. Where a response is incomplete, FIN would tell the peer that it is complete.
    pub resets: Counter,

    /// Calls of read(2), including those that returned no bytes.
    pub reads: Counter,
    /// Bytes that those calls returned.
    pub bytes_read: Counter,
    /// Bytes read and discarded while lingering before a close.
    pub bytes_discarded: Counter,
    /// Calls of write(2).
    pub writes: Counter,
    /// Bytes that the kernel took.
    pub bytes_written: Counter,
    /// Calls of write(2) of which the kernel took only a part, or no bytes.
    pub short_writes: Counter,
    /// Visits that ended because a budget was spent.
    pub budget_exits: Counter,

    /// How often partial input or pending output found the buffer memory full at first.
    pub buffer_waits: Counter,
    evictions: [Counter; BufferOwner::COUNT],
    /// Sizes in bytes of all leases, not of their content: a lease of 4 KiB may hold one byte.
    pub leased_bytes: Gauge,
    /// Bytes of all buffers of the pool, leased or free.
    pub buffer_bytes: Gauge,

    /// Events, mail and wakes for a connection that was closed.
    pub stale_tokens: Counter,
    /// Polls that a wake-up by another thread ended. Fewer than the pieces of mail when mail comes in bursts.
    pub wakes: Counter,
    /// Mail delivered to its connection.
    pub mail_delivered: Counter,
    /// Mail whose connection was closed.
    pub mail_undelivered: Counter,
    /// Panics of callbacks. Each closed one connection.
    pub panics: Counter,

    /// Connections that hold a slot and a descriptor: open, lingering and connecting ones together.
    pub connections_open: Gauge,
    /// Connections that have sent FIN and discard further input.
    pub connections_lingering: Gauge,
    /// Outbound connections whose handshake has not finished.
    pub connections_connecting: Gauge,
    /// The number of `connections_open` from which on a new connection is only accepted to be rejected, or waits. Fitted below the descriptor
    /// limit. `connections_open` exceeds it by at most `refusals_max`.
    pub connections_max: Gauge,
}

impl Stats {
    /// [`Running::slot`] of a callback that belongs to no connection.
    pub const NO_SLOT: u32 = u32::MAX;

    /// All numbers are 0. Times are stored as distances from `base`, which must not be after the first turn.
    pub(crate) fn new(base: Instant) -> Stats {
        Stats {
            base,
            turn_started: AtomicU64::new(0),
            running: RunningCall::new(),
            turns: Counter::new(),
            turns_without_progress: Counter::new(),
            events: Counter::new(),
            events_per_turn_max: Gauge::new(),
            turn_duration: Histogram::new(),
            loop_lag: Histogram::new(),
            accepts: Counter::new(),
            adoptions: Counter::new(),
            adoption_failures: Counter::new(),
            accept_errors: [const { Counter::new() }; AcceptError::COUNT],
            accept_pauses: Counter::new(),
            connects: Counter::new(),
            connect_failures: Counter::new(),
            closes: [const { Counter::new() }; CloseReason::COUNT],
            resets: Counter::new(),
            reads: Counter::new(),
            bytes_read: Counter::new(),
            bytes_discarded: Counter::new(),
            writes: Counter::new(),
            bytes_written: Counter::new(),
            short_writes: Counter::new(),
            budget_exits: Counter::new(),
            buffer_waits: Counter::new(),
            evictions: [const { Counter::new() }; BufferOwner::COUNT],
            leased_bytes: Gauge::new(),
            buffer_bytes: Gauge::new(),
            stale_tokens: Counter::new(),
            wakes: Counter::new(),
            mail_delivered: Counter::new(),
            mail_undelivered: Counter::new(),
            panics: Counter::new(),
            connections_open: Gauge::new(),
            connections_lingering: Gauge::new(),
            connections_connecting: Gauge::new(),
            connections_max: Gauge::new(),
        }
    }

    /// Connections that closed for this reason.
    #[must_use]
    pub fn closes(&self, reason: CloseReason) -> &Counter {
        &self.closes[reason as usize]
    }

    /// Connections that lost their partial input or their pending output because the buffer memory was full.
    #[must_use]
    pub fn evictions(&self, owner: BufferOwner) -> &Counter {
        &self.evictions[owner as usize]
    }

    /// Failures of accept(2) with this error. `WouldBlock` and `Interrupted` are not counted.
    #[must_use]
    pub fn accept_errors(&self, error: AcceptError) -> &Counter {
        &self.accept_errors[error as usize]
    }

    /// How long the current turn has lasted at `now`, by this process's monotonic clock. `None` while the loop sleeps in poll.
    #[must_use]
    pub fn turn_age(&self, now: Instant) -> Option<Duration> {
        let started_nanos = self.turn_started.load(Ordering::Relaxed).checked_sub(1)?;
        // A turn that began after the caller read its clock has age 0.
        Some(now.saturating_duration_since(self.base).saturating_sub(Duration::from_nanos(started_nanos)))
    }

    /// The callback that is running now, if any. [`Stats`] describes how a watchdog uses it.
    #[must_use]
    pub fn running(&self, now: Instant) -> Option<Running> {
        let (sequence, call) = self.running.look()?;
        Some(Running {
            callback: *Callback::ALL.get((call >> 32) as usize)?,
            slot: call as u32,
            sequence,
            turn_age: self.turn_age(now).unwrap_or_default(),
        })
    }

    /// Records that the loop has returned from poll.
    #[inline]
    pub(crate) fn turn_begins(&self, now: Instant) {
        let nanos = now.saturating_duration_since(self.base).as_nanos() as u64; // Enough for 584 years.
        self.turn_started.store(nanos + 1, Ordering::Relaxed);
    }

    /// Records that the loop is about to poll.
    #[inline]
    pub(crate) fn turn_ends(&self) {
        self.turn_started.store(0, Ordering::Relaxed);
    }

    /// Records that a callback begins. It makes two stores and reads no clock, because it runs for each message.
    #[inline]
    pub(crate) fn enter(&self, callback: Callback, slot: u32) {
        self.running.enter((callback as u64) << 32 | u64::from(slot));
    }

    /// Records that the callback has returned or panicked.
    #[inline]
    pub(crate) fn leave(&self) {
        self.running.leave();
    }
}

#[cfg(test)]
mod tests;

// The names of a handler's callbacks, for metrics and for a watchdog that reports the callback that runs too long.

/// One of the [`crate::Handler`]'s callbacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callback {
    /// [`crate::Handler::opened`]
    Opened,
    /// [`crate::Handler::input`]
    Input,
    /// [`crate::Handler::ended`]
    Ended,
    /// [`crate::Handler::writable`]
    Writable,
    /// [`crate::Handler::mail`], or [`crate::Handler::undelivered`]
    Mail,
    /// [`crate::Handler::deadline`]
    Deadline,
    /// [`crate::Handler::pressed`]
    Pressed,
    /// [`crate::Handler::panicked`]
    Panicked,
    /// [`crate::Handler::closed`]
    Closed,
    /// [`crate::Handler::woke`]
    Woke,
    /// [`crate::Handler::connect_failed`]
    ConnectFailed,
    /// [`crate::Handler::turn_ended`]
    TurnEnded,
}

impl Callback {
    /// The number of callbacks.
    pub const COUNT: usize = 12;
    /// All callbacks, in the order of their discriminants.
    pub const ALL: [Callback; Self::COUNT] = [
        Callback::Opened,
        Callback::Input,
        Callback::Ended,
        Callback::Writable,
        Callback::Mail,
        Callback::Deadline,
        Callback::Pressed,
        Callback::Panicked,
        Callback::Closed,
        Callback::Woke,
        Callback::ConnectFailed,
        Callback::TurnEnded,
    ];

    /// The name in metrics and logs: the name of the method.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Callback::Opened => "opened",
            Callback::Input => "input",
            Callback::Ended => "ended",
            Callback::Writable => "writable",
            Callback::Mail => "mail",
            Callback::Deadline => "deadline",
            Callback::Pressed => "pressed",
            Callback::Panicked => "panicked",
            Callback::Closed => "closed",
            Callback::Woke => "woke",
            Callback::ConnectFailed => "connect_failed",
            Callback::TurnEnded => "turn_ended",
        }
    }
}
