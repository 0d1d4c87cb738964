//! The part of the loop that depends on neither the protocol nor the operating system: lists, leases, time, counters, the limit on log lines, and the
//! order of eviction.
//!
//! It has no type parameter, so that a [`crate::Context`] can borrow it whole.

use crate::address::Connect;
use crate::buffers::{BufferOwner, BufferPool, Held, Lease};
use crate::slot::{Bits, Slots};
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::limits::{Config, Limits};
use crate::policy::Policy;
use crate::ready_list::{Queued, ReadyLists};
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

// A rate limit for log lines of one kind, so that a client or a lasting condition does not fill the disk or keep the loop busy with logging.
//
// Each kind of line has its own limit, so that many lines of one kind do not suppress another kind. The counters in `stats.rs` are exact.

/// Time between two lines of one kind. Short enough to see that a condition lasts, and at most 8,640 lines a day.
const INTERVAL: Duration = Duration::from_secs(10);

/// The limit of one kind of line.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    written: Option<Instant>,
    suppressed: u64,
}

/// The kinds of lines that a client or a lasting condition can cause repeatedly.
#[derive(Debug, Default)]
pub(crate) struct LogLimits {
    /// accept(2) fails because of the listener.
    pub(crate) accept: LogLimit,
    /// epoll_ctl(2) fails to register a connection.
    pub(crate) register: LogLimit,
    /// A connection is lost between two loops.
    pub(crate) hand_off: LogLimit,
}

impl LogLimit {
    /// Logs a warning. Within [`INTERVAL`] of the last one it only counts it, and the next line reports the count. Test:
    /// `a_listeners_own_error_is_retried_after_a_pause`.
    #[cold]
    pub(crate) fn warn(&mut self, now: Instant, line: fmt::Arguments<'_>) {
        if self.written.is_some_and(|written| now.saturating_duration_since(written) < INTERVAL) {
            self.suppressed += 1;
            return;
        }
        self.written = Some(now);
        match std::mem::take(&mut self.suppressed) {
            0 => log::warn!("{line}"),
            suppressed => log::warn!("{line} ({suppressed} more since the last line)"),
        }
    }
}

// The connections that hold buffers, in the order in which they are evicted when the buffer memory is full (`eviction.rs`).
//
// The order consists of links in the leases, one list for each group, and a set of the groups by rank. An eviction needs no search, and an idle
// connection has no lease and so no cost.

/// The groups of one owner that hold buffers.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    groups: HashMap<u32, Group>,
    /// The groups by rank. The last one is the first to lose a buffer.
    ranking: BTreeSet<Rank>,
}

/// The bytes of a group, then its longest stall, then its number, which keeps the ranks of two groups different.
type Rank = (usize, Reverse<Instant>, u32);

/// The buffers of one group, in a list by age.
#[derive(Debug)]
struct Group {
    bytes: usize,
    /// The ends of the list: slot + 1.
    oldest: u32,
    newest: u32,
    rank: Rank,
}

pub(crate) fn held_of(slots: &mut Slots, owner: BufferOwner, slot: u32) -> &mut Held {
    let lease: &mut Option<Lease> = slots.lease_mut(owner, slot);
    lease.as_mut().map(Lease::held_mut).expect("a slot on a list of holders has a lease")
}

impl Holders {
    /// Appends a slot that has a lease to its group's list. Its stall counts from `now`.
    pub(crate) fn link(&mut self, slots: &mut Slots, owner: BufferOwner, slot: u32, now: Instant) {
        let number = slots.get(slot).group;
        let rank = (0, Reverse(now), number);
        let group = self.groups.entry(number).or_insert(Group { bytes: 0, oldest: 0, newest: 0, rank });
        let older = std::mem::replace(&mut group.newest, slot + 1);
        if older == 0 {
            group.oldest = slot + 1;
        } else {
            held_of(slots, owner, older - 1).newer = slot + 1;
        }
        let window = held_of(slots, owner, slot).window;
        *held_of(slots, owner, slot) = Held { since: Some(now), progress_bytes: 0, window, group: number, older, newer: 0 };
    }

    /// Takes a slot off its group's list.
    pub(crate) fn unlink(&mut self, slots: &mut Slots, owner: BufferOwner, slot: u32) {
        let Held { older, newer, group: number, .. } = std::mem::take(held_of(slots, owner, slot));
        let Some(group) = self.groups.get_mut(&number) else { return };
        if older == 0 {
            group.oldest = newer;
        } else {
            held_of(slots, owner, older - 1).newer = newer;
        }
        if newer == 0 {
            group.newest = older;
        } else {
            held_of(slots, owner, newer - 1).older = older;
        }
    }

    /// Counts bytes that a group has leased or given back, and updates its rank.
    pub(crate) fn rank(&mut self, slots: &mut Slots, owner: BufferOwner, number: u32, leased: usize, given_back: usize) {
        let Some(group) = self.groups.get_mut(&number) else { return };
        group.bytes = group.bytes + leased - given_back;
        self.ranking.remove(&group.rank);
        if group.oldest == 0 {
            debug_assert_eq!(group.bytes, 0);
            self.groups.remove(&number);
            return;
        }
        let since = held_of(slots, owner, group.oldest - 1).since.unwrap_or(group.rank.1.0);
        group.rank = (group.bytes, Reverse(since), number);
        self.ranking.insert(group.rank);
    }

    /// The bytes that all groups hold together.
    pub(crate) fn bytes(&self) -> usize {
        self.groups.values().map(|group| group.bytes).sum()
    }

    /// The slot of the connection that has stalled for longer than all others, if it has since `before`. Looks at each group.
    pub(crate) fn oldest_since(&self, before: Instant) -> Option<u32> {
        let oldest = self.groups.values().min_by_key(|group| group.rank.1.0)?;
        oldest.oldest.checked_sub(1).filter(|_| oldest.rank.1.0 <= before)
    }

    /// The slot of the connection that is evicted next.
    pub(crate) fn first(&self) -> Option<u32> {
        let (.., number) = self.ranking.last()?;
        self.groups.get(number)?.oldest.checked_sub(1)
    }
}
