//! What one loop counts, and what it is doing now: written by the loop, read by any thread, without a lock.
//!
//! Each number has one writer, the loop's thread. So adding is a load and a store, not a locked instruction, and costs as much as
//! adding to a local number. Readers see each number whole, but not all of the same instant.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use self::running::RunningCall;
use crate::accept_error::AcceptError;
use crate::buffers::BufferOwner;
use crate::callback::Callback;
use crate::close_reason::CloseReason;
use crate::counter::{Counter, Gauge};
use crate::histogram::Histogram;

mod running;

/// A callback that was running when somebody looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// Which one.
    pub callback: Callback,
    /// Of the connection in this slot; [`Stats::NO_SLOT`] for those that belong to none.
    pub slot: u32,
    /// How many callbacks this loop has begun. The same number seen twice is the same call, and the time between both looks is the
    /// least that it has lasted.
    pub sequence: u64,
    /// How long the turn has lasted in which it runs: the most that it can have lasted.
    pub turn_age: Duration,
}

/// The numbers of one loop.
///
/// How a watchdog finds the callback that stalls a loop: it calls [`Stats::running`] again and again, say each 100 ms. The loop does not
/// read a clock for each callback, it only counts them; when the watchdog sees the same [`Running::sequence`] twice, that call has
/// run since the first look at least, and [`Running::callback`] names it. [`Stats::turn_age`] alone tells whether a turn is long.
#[derive(Debug)]
#[repr(align(128))] // Two cache lines, since the CPU fetches neighbours: the loops' numbers must not share lines with each other.
pub struct Stats {
    base: Instant,
    /// Nanoseconds from `base` at which the present turn began, plus 1; 0 while the loop sleeps in poll.
    turn_started: AtomicU64,
    /// Callback in the high 32 bits, slot in the low ones.
    running: RunningCall,

    /// Turns of the loop: returns from poll.
    pub turns: Counter,
    /// Turns in which nothing moved: no byte, no accept, no mail, no deadline, no close. Many of them are a spin (failure mode R4).
    pub turns_without_progress: Counter,
    /// Events that poll returned. Over `turns`: how many at a time.
    pub events: Counter,
    /// The most events of one turn.
    pub events_per_turn_max: Gauge,
    /// From poll's return to the next call of poll: how long everyone else waited.
    pub turn_duration: Histogram,
    /// How late deadlines ran, after the tick of 1 ms to which they are rounded up.
    pub loop_lag: Histogram,

    /// Connections taken from a listener.
    pub accepts: Counter,
    /// Connections taken over from another loop that accepted them.
    pub adoptions: Counter,
    /// Connections that another loop accepted and handed over, and that were lost because the system refused.
    pub adoption_failures: Counter,
    accept_errors: [Counter; AcceptError::COUNT],
    /// How often accepting stopped for want of descriptors or memory.
    pub accept_pauses: Counter,
    /// Outbound connections begun.
    pub connects: Counter,
    /// Outbound connections that failed.
    pub connect_failures: Counter,
    closes: [Counter; CloseReason::COUNT],
    /// Of all closes, those by a reset of ours: something was cut short, and the peer must not take that for the end.
    pub resets: Counter,

    /// Calls of read(2), those that found nothing among them.
    pub reads: Counter,
    /// Bytes they returned.
    pub bytes_read: Counter,
    /// Bytes read and forgotten while lingering before a close.
    pub bytes_discarded: Counter,
    /// Calls of write(2).
    pub writes: Counter,
    /// Bytes that the kernel took.
    pub bytes_written: Counter,
    /// Writes of which the kernel took less than was offered, or nothing.
    pub short_writes: Counter,
    /// Visits that ended because a budget was spent.
    pub budget_exits: Counter,

    /// Times that a rest found no room in the pool at first.
    pub buffer_waits: Counter,
    evictions: [Counter; BufferOwner::COUNT],
    /// Bytes of all leases. Not what is in them: a lease of 4 KiB may hold one byte.
    pub leased_bytes: Gauge,
    /// Bytes of all buffers of the pool, leased or free.
    pub buffer_bytes: Gauge,

    /// Events, mail and wakes for a connection that had gone.
    pub stale_tokens: Counter,
    /// Turns that another thread's wake ended. Less than the mail, when the mail comes in bursts.
    pub wakes: Counter,
    /// Mail handed to its connection.
    pub mail_delivered: Counter,
    /// Mail whose connection had gone.
    pub mail_undelivered: Counter,
    /// Panics of callbacks, each of which closed a connection.
    pub panics: Counter,

    /// Connections that hold a slot and a descriptor: open, lingering and connecting ones together.
    pub connections_open: Gauge,
    /// Connections that have said all and discard what still comes in.
    pub connections_lingering: Gauge,
    /// Outbound connections that wait for their peer.
    pub connections_connecting: Gauge,
    /// The limit on all of these together, as fitted under the descriptor limit.
    pub connections_max: Gauge,
}

impl Stats {
    /// [`Running::slot`] of a callback that belongs to no connection.
    pub const NO_SLOT: u32 = u32::MAX;

    /// All zero. Times are kept as distances from `base`, which must not be after the first turn.
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

    /// Connections that ended for this reason.
    #[must_use]
    pub fn closes(&self, reason: CloseReason) -> &Counter {
        &self.closes[reason as usize]
    }

    /// Connections that lost their partial input or their pending output because the buffer memory was full.
    #[must_use]
    pub fn evictions(&self, owner: BufferOwner) -> &Counter {
        &self.evictions[owner as usize]
    }

    /// Failures of accept(2) with this error. `WouldBlock` and `Interrupted` are none.
    #[must_use]
    pub fn accept_errors(&self, error: AcceptError) -> &Counter {
        &self.accept_errors[error as usize]
    }

    /// How long the present turn has lasted at `now`, by this process's monotonic clock. `None` while the loop sleeps in poll.
    #[must_use]
    pub fn turn_age(&self, now: Instant) -> Option<Duration> {
        let started_nanos = self.turn_started.load(Ordering::Relaxed).checked_sub(1)?;
        // A turn that began after the caller read its clock has age 0.
        Some(now.saturating_duration_since(self.base).saturating_sub(Duration::from_nanos(started_nanos)))
    }

    /// The callback that is running now, if one is. See [`Stats`] for what a watchdog does with it.
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

    /// The loop has returned from poll.
    #[inline]
    pub(crate) fn turn_begins(&self, now: Instant) {
        let nanos = now.saturating_duration_since(self.base).as_nanos() as u64; // Enough for 584 years.
        self.turn_started.store(nanos + 1, Ordering::Relaxed);
    }

    /// The loop goes to poll.
    #[inline]
    pub(crate) fn turn_ends(&self) {
        self.turn_started.store(0, Ordering::Relaxed);
    }

    /// A callback begins. Two stores and no clock: this is done for every message.
    #[inline]
    pub(crate) fn enter(&self, callback: Callback, slot: u32) {
        self.running.enter((callback as u64) << 32 | u64::from(slot));
    }

    /// The callback has returned, or has panicked.
    #[inline]
    pub(crate) fn leave(&self) {
        self.running.leave();
    }
}

#[cfg(test)]
mod tests;
