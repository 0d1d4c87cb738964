//! The part of the loop that depends on neither the protocol nor the operating system: lists, leases, time, counters, the limit on log lines, and the
//! order of eviction.
//!
//! It has no type parameter, so that a [`crate::Context`] can borrow it whole.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::address::Connect;
use crate::buffers::{BufferOwner, BufferPool, Lease};
use crate::holders::Holders;
use crate::limits::{Config, Limits};
use crate::log_limit::LogLimits;
use crate::policy::Policy;
use crate::ready_list::{Queued, ReadyLists};
use crate::slot::{Bits, Slots};
use crate::stats::Stats;
use crate::timers::Wheel;
use crate::token::Token;

/// The loop's state that has no type parameter, see the module.
#[derive(Debug)]
pub(crate) struct LoopState {
    pub(crate) limits: Limits,
    pub(crate) policy: Policy,
    /// The time of this turn: the clock, read after poll returned. Callbacks and deadlines use it.
    pub(crate) now: Instant,
    /// The last reading of the clock in this turn. The time of the next stage counts from it.
    pub(crate) clock: Instant,
    pub(crate) slots: Slots,
    pub(crate) ready: ReadyLists,
    pub(crate) buffers: BufferPool,
    /// The order of eviction, by [`BufferOwner`].
    pub(crate) holders: [Holders; BufferOwner::COUNT],
    pub(crate) wheel: Wheel,
    /// Outbound connections requested and not begun yet, at most `connects_waiting_max`.
    pub(crate) connects: VecDeque<Connect>,
    /// Whether the loop is closing everything and begins no more connections.
    pub(crate) finishing: bool,
    /// Slots of connections that wait for their close(2).
    pub(crate) closes: VecDeque<u32>,
    /// The number of connections picked for eviction whose last visit has not run yet.
    pub(crate) evictions_pending: u32,
    /// Whether something was read, written, accepted or delivered in this turn.
    pub(crate) progress: bool,
    /// Whether the loop ends after this turn.
    pub(crate) stop: bool,
    pub(crate) stats: Arc<Stats>,
    pub(crate) logs: LogLimits,
}

impl LoopState {
    pub(crate) fn new(config: &Config, slots_max: u32, now: Instant, stats: Arc<Stats>) -> LoopState {
        let limits = config.limits.clone();
        LoopState {
            policy: config.policy,
            now,
            clock: now,
            slots: Slots::new(slots_max as usize, config.policy.token_check, config.policy.output.first_bits(), limits.output_rate_min),
            ready: ReadyLists::default(),
            buffers: BufferPool::new(limits.buffer_memory_bytes_max, limits.buffer_bytes_min, limits.buffer_bytes_max),
            holders: Default::default(),
            wheel: Wheel::new(now, slots_max),
            connects: VecDeque::new(),
            finishing: false,
            closes: VecDeque::new(),
            evictions_pending: 0,
            progress: false,
            stop: false,
            stats,
            logs: LogLimits::default(),
            limits,
        }
    }

    /// Puts a connection that has become runnable on the list of new ones, unless it is on a list already.
    #[inline]
    pub(crate) fn queue_new(&mut self, slot: u32) {
        let token = self.slots.token(slot);
        let state = self.slots.get_mut(slot);
        if !state.is_queued() {
            state.queued = Queued::New;
            self.ready.push_new(token);
        }
    }

    /// Puts a connection that has work left after its visit on the list of old ones, unless it is on a list already.
    #[inline]
    pub(crate) fn queue_old(&mut self, slot: u32) {
        let token = self.slots.token(slot);
        let state = self.slots.get_mut(slot);
        if !state.is_queued() {
            state.queued = Queued::Old;
            self.ready.push_old(token);
        }
    }

    /// Queues an outbound connection, or returns it if the queue is full. A queued one ends in exactly one callback (test:
    /// `an_outbound_connection_begins_or_fails_exactly_once`).
    pub(crate) fn connect(&mut self, connect: Connect) -> Result<(), Connect> {
        if self.finishing || self.connects.len() >= self.limits.connects_waiting_max as usize {
            return Err(connect);
        }
        self.connects.push_back(connect);
        Ok(())
    }

    /// Schedules a call of `writable` for the connection.
    pub(crate) fn wake(&mut self, token: Token) {
        if self.slots.is_live(token) {
            self.slots.get_mut(token.slot).bits.insert(Bits::WOKEN);
            self.queue_new(token.slot);
        } else {
            self.stats.stale_tokens.add(1);
        }
    }

    /// Appends input to the partial input of the same message. Its age stays that of its first byte, so that a client that sends single bytes does
    /// not protect itself from eviction. When the memory is full, it evicts a connection, which may be this one.
    pub(crate) fn keep_input(&mut self, slot: u32, bytes: &[u8]) {
        if !self.append(BufferOwner::Input, slot, bytes) && !self.slots.get(slot).has_lost(BufferOwner::Input) {
            self.evicted(BufferOwner::Input, slot);
        }
    }

    /// Buffers output that the kernel did not take. False if there is no memory for it, or if this connection's output was evicted.
    #[must_use]
    pub(crate) fn keep_output(&mut self, slot: u32, bytes: &[u8]) -> bool {
        self.append(BufferOwner::Output, slot, bytes)
    }

    /// Appends to a slot's lease, and evicts until there is a buffer for it. False if nothing is left to evict, or if this connection was evicted.
    fn append(&mut self, owner: BufferOwner, slot: u32, bytes: &[u8]) -> bool {
        let mut is_first_try = true;
        loop {
            let lease = self.slots.lease_mut(owner, slot);
            let (held_bytes, capacity_before) = lease.as_ref().map_or((0, 0), |lease| (lease.len(), lease.capacity()));
            if self.buffers.append(owner, lease, bytes).is_ok() {
                self.holds(owner, slot, capacity_before);
                return true;
            }
            if std::mem::take(&mut is_first_try) {
                self.stats.buffer_waits.add(1);
            }
            if !self.evict_one(owner, held_bytes + bytes.len()) || self.slots.get(slot).has_lost(owner) {
                return false;
            }
        }
    }

    /// Puts partial input back that was taken out for a visit. Its age counts from now, because complete messages were taken from it, or can be
    /// taken now.
    pub(crate) fn put_input_back(&mut self, slot: u32, lease: Lease) {
        let mut lease = Some(lease);
        self.buffers.shrink(BufferOwner::Input, &mut lease);
        self.slots.get_mut(slot).input = lease;
        self.holds(BufferOwner::Input, slot, 0);
    }

    /// Puts a connection on the list of closes and releases its leases and its deadline.
    pub(crate) fn bury(&mut self, slot: u32) {
        self.drop_input(slot);
        self.drop_output(slot);
        self.wheel.remove(slot);
        self.slots.unlink_expendable(slot);
        self.closes.push_back(slot);
    }

    /// Discards the partial input and gives its lease back.
    pub(crate) fn drop_input(&mut self, slot: u32) {
        self.drop_lease(BufferOwner::Input, slot);
    }

    /// Discards the pending output and gives its lease back.
    pub(crate) fn drop_output(&mut self, slot: u32) {
        self.drop_lease(BufferOwner::Output, slot);
    }
}
