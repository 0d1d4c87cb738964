//! The part of the loop that knows neither the protocol nor the system: lists, leases, time, counters.
//!
//! It has no type parameter, so that a [`crate::Context`] can borrow it whole. Read next: `event_loop.rs`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::connection::buffers::BufferPool;
use crate::connection::slots::{ByAge, Slots};
use crate::context::Connect;
use crate::limits::{Config, Limits};
use crate::policy::Policy;
use crate::ready_list::{Queued, ReadyLists};
use crate::stats::Stats;
use crate::timers::Wheel;
use crate::token::Token;

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
    pub(crate) wheel: Wheel,
    /// Outbound connections asked for and not begun.
    pub(crate) connects: VecDeque<Connect>,
    /// Connections that have ended and wait for their close(2).
    pub(crate) closes: VecDeque<u32>,
    /// Connections that are to make room and have not been looked at for the last time.
    pub(crate) leaving: u32,
    /// Something was read, written, accepted or delivered in this turn.
    pub(crate) progress: bool,
    /// End after this turn.
    pub(crate) stop: bool,
    pub(crate) stats: Arc<Stats>,
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
            wheel: Wheel::new(now, slots_max),
            connects: VecDeque::new(),
            closes: VecDeque::new(),
            leaving: 0,
            progress: false,
            stop: false,
            stats,
            limits,
        }
    }

    /// Puts a connection that has become runnable on the list of new ones, unless it is on a list.
    #[inline]
    pub(crate) fn queue_new(&mut self, slot: u32) {
        let token = self.slots.token(slot);
        let beside = self.slots.get_mut(slot);
        if !beside.is_queued() {
            beside.queued = Queued::New;
            self.ready.push_new(token);
        }
    }

    /// Puts a connection that has work left after its visit on the list of old ones, unless it is on a list.
    #[inline]
    pub(crate) fn queue_old(&mut self, slot: u32) {
        let token = self.slots.token(slot);
        let beside = self.slots.get_mut(slot);
        if !beside.is_queued() {
            beside.queued = Queued::Old;
            self.ready.push_old(token);
        }
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

    /// Takes the memory of the oldest unfinished input back. False if nobody holds any.
    pub(crate) fn evict_oldest_unfinished(&mut self) -> bool {
        let Some(slot) = self.slots.oldest(ByAge::UnfinishedInput) else { return false };
        self.slots.unlink(ByAge::UnfinishedInput, slot);
        let beside = self.slots.get_mut(slot);
        beside.evicted = true;
        if let Some(lease) = beside.input.take() {
            self.buffers.give_back(lease);
        }
        self.stats.evictions.add(1);
        self.queue_new(slot);
        true
    }

    /// Keeps input that no message has taken yet. Gives memory of older unfinished input up where there is no room; its own, where it is the
    /// oldest.
    pub(crate) fn keep_input(&mut self, slot: u32, bytes: &[u8]) {
        debug_assert!(self.slots.get(slot).input.is_none());
        let mut lease = None;
        let mut waited = false;
        while self.buffers.append(&mut lease, bytes).is_err() {
            if !std::mem::replace(&mut waited, true) {
                self.stats.buffer_waits.add(1);
            }
            if !self.evict_oldest_unfinished() {
                // Nobody older: unsent output holds the memory, and this one gives way.
                self.slots.get_mut(slot).evicted = true;
                self.stats.evictions.add(1);
                return;
            }
            if self.slots.get(slot).evicted {
                return;
            }
        }
        self.slots.get_mut(slot).input = lease;
        self.slots.link(ByAge::UnfinishedInput, slot);
    }

    /// Keeps what has come behind the kept input, the same unfinished message as before: it stays as old as its first byte, or who sends a byte
    /// now and then would outlive everybody else. False if the kept input's lease is too small or there is none: then that is given back, and
    /// [`Shared::keep_input`] is to keep it all.
    #[must_use]
    pub(crate) fn grow_input(&mut self, slot: u32, message: &[u8]) -> bool {
        let input = &mut self.slots.get_mut(slot).input;
        match input.take() {
            Some(mut lease) if lease.capacity() >= message.len() => {
                lease.append(&message[lease.len()..]);
                *input = Some(lease);
                true
            }
            Some(lease) => {
                self.buffers.give_back(lease);
                false
            }
            None => false,
        }
    }

    /// Takes the first `n` bytes of the kept input away, in place. False, and nothing has changed, if a smaller lease would do for the rest.
    #[must_use]
    pub(crate) fn consume_input(&mut self, slot: u32, n: usize) -> bool {
        let Some(lease) = self.slots.get_mut(slot).input.as_mut() else { return false };
        if lease.len() - n <= lease.capacity() / 4 {
            return false;
        }
        lease.consume(n);
        // What is left is as old as what was read last, not as what has been answered.
        self.slots.unlink(ByAge::UnfinishedInput, slot);
        self.slots.link(ByAge::UnfinishedInput, slot);
        true
    }

    /// Puts a connection on the list of closes and takes everything from it that others can use.
    pub(crate) fn bury(&mut self, slot: u32) {
        self.drop_input(slot);
        self.drop_output(slot);
        self.wheel.remove(slot);
        self.slots.unlink(ByAge::Expendable, slot);
        self.closes.push_back(slot);
    }

    /// Gives the kept input back.
    pub(crate) fn drop_input(&mut self, slot: u32) {
        if let Some(lease) = self.slots.get_mut(slot).input.take() {
            self.buffers.give_back(lease);
            self.slots.unlink(ByAge::UnfinishedInput, slot);
        }
    }

    /// Gives the unsent output back.
    pub(crate) fn drop_output(&mut self, slot: u32) {
        if let Some(lease) = self.slots.get_mut(slot).output.take() {
            self.buffers.give_back(lease);
        }
    }

    /// Keeps output that the kernel did not take. False if there is no memory even after every eviction.
    #[must_use]
    pub(crate) fn keep_output(&mut self, slot: u32, bytes: &[u8]) -> bool {
        let mut waited = false;
        loop {
            let output = &mut self.slots.get_mut(slot).output;
            if self.buffers.append(output, bytes).is_ok() {
                return true;
            }
            if !std::mem::replace(&mut waited, true) {
                self.stats.buffer_waits.add(1);
            }
            if !self.evict_oldest_unfinished() {
                return false;
            }
        }
    }
}
