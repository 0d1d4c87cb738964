//! The part of the loop that knows neither the protocol nor the system: lists, leases, time, counters.
//!
//! It has no type parameter, so that a [`crate::Context`] can borrow it whole.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::buffers::{BufferOwner, BufferPool, Lease};
use crate::holders::Holders;
use crate::limits::{Config, Limits};
use crate::log_limit::LogLimits;
use crate::policy::Policy;
use crate::ready_list::{Queued, ReadyLists};
use crate::slot::{Evicted, Slots};
use crate::stats::Stats;
use crate::timers::Wheel;
use crate::token::Token;

/// An outbound connection to make; see [`LoopContext::connect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect {
    /// The peer.
    pub to: SocketAddr,
    /// The source address; the kernel chooses the port at connect(2), not before (`IP_BIND_ADDRESS_NO_PORT`, ip(7)).
    pub from: Option<IpAddr>,
    /// Comes back in [`crate::Origin::Connected`] or in [`crate::Handler::connect_failed`].
    pub tag: u64,
    /// After this the attempt fails with `TimedOut`; `Duration::MAX` leaves it to the kernel. The kernel alone would try for about two minutes (`tcp_syn_retries`, tcp(7)).
    pub timeout: Duration,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) policy: Policy,
    /// The time of this turn: the clock, read when poll had returned. Callbacks and deadlines go by it.
    pub(crate) now: Instant,
    /// The clock's last reading in this turn: where the time of the next stage begins to count.
    pub(crate) clock: Instant,
    pub(crate) slots: Slots,
    pub(crate) ready: ReadyLists,
    pub(crate) buffers: BufferPool,
    /// The order of eviction, by [`BufferOwner`].
    pub(crate) holders: [Holders; BufferOwner::COUNT],
    pub(crate) wheel: Wheel,
    /// Outbound connections asked for and not begun, at most `connects_waiting_max`.
    pub(crate) connects: VecDeque<Connect>,
    /// The loop closes everything and begins nothing more.
    pub(crate) finishing: bool,
    /// Connections that have ended and wait for their close(2).
    pub(crate) closes: VecDeque<u32>,
    /// Connections that are to make room and have not been looked at for the last time.
    pub(crate) leaving: u32,
    /// Something was read, written, accepted or delivered in this turn.
    pub(crate) progress: bool,
    /// End after this turn.
    pub(crate) stop: bool,
    pub(crate) stats: Arc<Stats>,
    pub(crate) logs: LogLimits,
}

impl Shared {
    pub(crate) fn new(config: &Config, slots_max: u32, now: Instant, stats: Arc<Stats>) -> Shared {
        let limits = config.limits.clone();
        Shared {
            policy: config.policy,
            now,
            clock: now,
            slots: Slots::new(slots_max as usize, config.policy.token_check),
            ready: ReadyLists::default(),
            buffers: BufferPool::new(limits.buffer_memory_bytes_max, limits.buffer_bytes_max),
            holders: Default::default(),
            wheel: Wheel::new(now, slots_max),
            connects: VecDeque::new(),
            finishing: false,
            closes: VecDeque::new(),
            leaving: 0,
            progress: false,
            stop: false,
            stats,
            logs: LogLimits::default(),
            limits,
        }
    }

    /// Puts a connection that has become runnable on the list of new ones, unless it is on a list.
    #[inline]
    pub(crate) fn queue_new(&mut self, slot: u32) {
        let token = self.slots.token(slot);
        let state = self.slots.get_mut(slot);
        if !state.is_queued() {
            state.queued = Queued::New;
            self.ready.push_new(token);
        }
    }

    /// Puts a connection that has work left after its visit on the list of old ones, unless it is on a list.
    #[inline]
    pub(crate) fn queue_old(&mut self, slot: u32) {
        let token = self.slots.token(slot);
        let state = self.slots.get_mut(slot);
        if !state.is_queued() {
            state.queued = Queued::Old;
            self.ready.push_old(token);
        }
    }

    /// Takes an order for an outbound connection, or gives it back: every one that is taken ends in exactly one callback.
    pub(crate) fn connect(&mut self, connect: Connect) -> Result<(), Connect> {
        if self.finishing || self.connects.len() >= self.limits.connects_waiting_max as usize {
            return Err(connect);
        }
        self.connects.push_back(connect);
        Ok(())
    }

    /// Owes the connection a call of `room`.
    pub(crate) fn wake(&mut self, token: Token) {
        if self.slots.is_live(token) {
            self.slots.get_mut(token.slot).woken = true;
            self.queue_new(token.slot);
        } else {
            self.stats.stale_tokens.add(1);
        }
    }

    /// Appends input that no message has taken to what is kept of the same message, which stays as old as its first byte: a client that sends a
    /// byte now and then must not outlive others. Evicts where the memory is full; this connection itself, where it is the one to give way.
    pub(crate) fn keep_input(&mut self, slot: u32, bytes: &[u8]) {
        if !self.append(BufferOwner::Input, slot, bytes) && self.slots.get(slot).evicted == Evicted::Nothing {
            self.evicted(BufferOwner::Input, slot);
        }
    }

    /// Keeps output that the kernel did not take. False if there is no memory for it, or the connection's own output was evicted.
    #[must_use]
    pub(crate) fn keep_output(&mut self, slot: u32, bytes: &[u8]) -> bool {
        self.append(BufferOwner::Output, slot, bytes)
    }

    /// Appends to a slot's lease, and evicts until there is a buffer for it. False if there is none, or if this connection was evicted itself.
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
            if !self.evict_one(owner, held_bytes + bytes.len()) || self.slots.get(slot).evicted >= Evicted::of(owner) {
                return false;
            }
        }
    }

    /// Puts partial input back that was taken out for a visit. Its age counts from now: complete messages were taken of it, or could be at last.
    pub(crate) fn put_input_back(&mut self, slot: u32, lease: Lease) {
        let mut lease = Some(lease);
        self.buffers.shrink(BufferOwner::Input, &mut lease);
        self.slots.get_mut(slot).input = lease;
        self.holds(BufferOwner::Input, slot, 0);
    }

    /// Puts a connection on the list of closes and takes everything from it that others can use.
    pub(crate) fn bury(&mut self, slot: u32) {
        self.drop_input(slot);
        self.drop_output(slot);
        self.wheel.remove(slot);
        self.slots.unlink_expendable(slot);
        self.closes.push_back(slot);
    }

    /// Gives the partial input back.
    pub(crate) fn drop_input(&mut self, slot: u32) {
        self.drop_lease(BufferOwner::Input, slot);
    }

    /// Gives the pending output back.
    pub(crate) fn drop_output(&mut self, slot: u32) {
        self.drop_lease(BufferOwner::Output, slot);
    }
}
