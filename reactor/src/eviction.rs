//! Eviction: which connection to close when buffer memory or free slots run short.
//!
//! # When the buffer memory is full
//!
//! *Which connection.* First the owner (partial input or pending output) that is farther above its share (`buffers.rs`). Then, of that owner, the
//! group of connections that holds the most bytes. A service may set groups, for example by source address: then one address with a thousand slow
//! connections does not evict the one connection of another address. Then, of that group, the connection that has stalled for the longest.
//!
//! *Since when.* A stall of partial input counts from the first byte of the unfinished message. A stall of pending output counts from its start,
//! and ends when the peer has taken `output_low_water_bytes`. Single bytes from time to time do not restart either of them.
//!
//! *What happens to the connection.* Its buffer is free at once. A connection whose input was evicted gets a call of `pressed` with
//! [`Pressure::BufferMemory`](crate::Pressure), in which the handler can write a response, and is closed. A connection whose output was evicted is
//! reset, because its response is incomplete and FIN would tell the peer that it is complete.
//!
//! # When few slots are free
//!
//! The loop closes connections that wait for their peer, the longest wait first: idle connections, and requests that arrive slowly. Thousands of an
//! attacker's connections have waited for longer than a client that connects now, so new clients are served. Without this, slow clients hold
//! all slots until their timeouts, and new clients are rejected (`slowloris`).
//!
//! A connection whose request is being answered is not evicted, unless its peer does not take the response: output that has stalled for
//! `evictable_stall_min` is evicted before anything else, one connection a turn. A connection that sends starts a new wait. The youngest few waiting
//! connections are not evicted, because some time passes between a client's connect and its request. A connection that only lingers after its
//! response gets a shorter linger timeout (`close.rs`).
//!
//! Eviction takes two steps, because the client's latest bytes may be in its socket's receive buffer. `pick_evictions`, after the input and the
//! deadlines of a turn, puts the connection that has waited for the longest on the ready list. In the next turn a last visit reads its socket, and
//! closes the connection if it has sent nothing. The order is a list of links in the slots. It costs a few stores for each visit that ends a wait,
//! and needs no search.

use crate::buffers::{BufferOwner, Lease};
use crate::errors::CloseReason;
use crate::event_loop::EventLoop;
use crate::handler::{Handler, Pressure};
use crate::holders::held_of;
use crate::loop_state::LoopState;
use crate::os::Os;
use crate::policy::WhenNearlyFull;
use crate::slot::{Bits, Slot};
use crate::visit::Visit;

impl LoopState {
    /// Counts the growth of a slot's lease of `owner` from `capacity_before` bytes, and adds a new lease to the order of eviction.
    pub(crate) fn holds(&mut self, owner: BufferOwner, slot: u32, capacity_before: usize) {
        let Self { slots, holders, now, .. } = self;
        let Some(lease) = slots.lease_mut(owner, slot) else { return };
        let (capacity, is_new) = (lease.capacity(), lease.held().since.is_none());
        if !is_new && capacity == capacity_before {
            return;
        }
        let holders = &mut holders[owner as usize];
        if is_new {
            holders.link(slots, owner, slot, *now);
        }
        let number = held_of(slots, owner, slot).group;
        holders.rank(slots, owner, number, capacity, capacity_before);
    }

    /// Takes a slot's lease out of the order of eviction and out of the slot. The caller must put it back or give it back to the pool.
    pub(crate) fn take_lease(&mut self, owner: BufferOwner, slot: u32) -> Option<Lease> {
        let Self { slots, holders, .. } = self;
        let lease = slots.lease_mut(owner, slot).as_ref()?;
        let (number, capacity) = (lease.held().group, lease.capacity());
        let holders = &mut holders[owner as usize];
        holders.unlink(slots, owner, slot);
        holders.rank(slots, owner, number, 0, capacity);
        slots.lease_mut(owner, slot).take()
    }

    /// Gives a slot's lease back to the pool and discards its content.
    pub(crate) fn drop_lease(&mut self, owner: BufferOwner, slot: u32) {
        if let Some(lease) = self.take_lease(owner, slot) {
            self.buffers.give_back(owner, lease);
        }
    }

    /// Counts bytes of pending output that the peer has taken. After `output_low_water_bytes` its stall starts again from now.
    pub(crate) fn output_progressed(&mut self, slot: u32, bytes: usize) {
        let enough_bytes = self.limits.output_low_water_bytes.max(1);
        let Self { slots, holders, now, .. } = self;
        let owner = BufferOwner::Output;
        let held = held_of(slots, owner, slot);
        held.progress_bytes = held.progress_bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if held.progress_bytes >= enough_bytes {
            let (number, window) = (held.group, held.window);
            let holders = &mut holders[owner as usize];
            holders.unlink(slots, owner, slot);
            held_of(slots, owner, slot).window = window;
            // Linked to the group that the lease had before, because its bytes are counted there.
            let named = std::mem::replace(&mut slots.get_mut(slot).group, number);
            holders.link(slots, owner, slot, *now);
            slots.get_mut(slot).group = named;
            holders.rank(slots, owner, number, 0, 0);
        }
    }

    /// Evicts the buffer of one connection so that `for_owner` can lease `bytes_min`. False if there is no buffer to evict.
    pub(crate) fn evict_one(&mut self, for_owner: BufferOwner, bytes_min: usize) -> bool {
        let owner = self.buffers.owner_to_evict(for_owner, bytes_min);
        let Some(slot) = self.holders[owner as usize].first() else { return false };
        self.drop_lease(owner, slot);
        self.evicted(owner, slot);
        true
    }

    /// Marks a connection as evicted. Its next visit calls `pressed` and closes it, or resets it.
    pub(crate) fn evicted(&mut self, owner: BufferOwner, slot: u32) {
        let bit = match owner {
            BufferOwner::Input => Bits::INPUT_EVICTED,
            BufferOwner::Output => Bits::OUTPUT_EVICTED,
        };
        self.slots.get_mut(slot).bits.insert(bit);
        self.stats.evictions(owner).add(1);
        self.queue_new(slot);
    }
}

impl<H: Handler, O: Os> EventLoop<H, O> {
    /// The stage of a turn that keeps slots free for new connections.
    #[inline]
    pub(crate) fn pick_evictions(&mut self) {
        match self.shared.policy.when_nearly_full {
            WhenNearlyFull::Evict => {}
            WhenNearlyFull::Keep => return,
        }
        // A listener that is ready after the accept stage may have a client in its queue.
        let is_client_waiting = self.listeners.iter().any(|listener| listener.ready && listener.socket.is_some());
        let before_eviction_max = self.shared.limits.connections_before_eviction_max() as usize;
        if is_client_waiting || self.staying() > before_eviction_max {
            self.pick(is_client_waiting, before_eviction_max);
        }
    }

    /// Number of connections whose slots are not about to be free: those picked for eviction and those that wait for their close(2) do not count.
    fn staying(&self) -> usize {
        self.entries.len() - self.shared.closes.len() - self.shared.evictions_pending as usize
    }

    /// Picks at most as many connections as one turn can close.
    #[cold]
    fn pick(&mut self, is_client_waiting: bool, before_eviction_max: usize) {
        if self.staying() > before_eviction_max {
            self.evict_stalled_output();
        }
        let limits = &self.shared.limits;
        let expendable_min = limits.expendable_min();
        // With `free_slots_min` 0 and no rejections, nothing else would free a slot for the client in the queue.
        let staying_max =
            if is_client_waiting { before_eviction_max.min(limits.connections_max as usize - 1) } else { before_eviction_max };
        for _ in 0..limits.closes_per_turn_max {
            if self.staying() <= staying_max {
                return;
            }
            if self.shared.slots.expendable_len() <= expendable_min {
                return; // The others are being answered. A new client would be evicted before its request has arrived.
            }
            let Some(oldest) = self.shared.slots.oldest_expendable() else { return };
            self.shared.slots.get_mut(oldest).bits.insert(Bits::EVICTION_PENDING);
            self.shared.evictions_pending += 1;
            self.shared.slots.unlink_expendable(oldest);
            self.shared.queue_new(oldest);
        }
    }

    /// While few slots are free, closes the connection whose output has stalled for the longest, if that is `evictable_stall_min` or more. At
    /// most one a turn, because the search looks at each group. Test: `clients_that_never_read_do_not_keep_new_clients_out`.
    fn evict_stalled_output(&mut self) {
        let Some(before) = self.shared.now.checked_sub(self.shared.limits.evictable_stall_min) else { return };
        if let Some(slot) = self.shared.holders[BufferOwner::Output as usize].oldest_since(before) {
            self.kill(slot, CloseReason::Evicted);
        }
    }
}

impl Slot {
    /// Whether a buffer was evicted, so that the connection may not lease another one for `owner`. Evicted output ends the connection, whatever
    /// the lease is for.
    pub(crate) fn has_lost(&self, owner: BufferOwner) -> bool {
        self.bits.intersects(match owner {
            BufferOwner::Input => Bits::EVICTED,
            BufferOwner::Output => Bits::OUTPUT_EVICTED,
        })
    }
}

/// Whether a connection waits for its peer: no request is in progress, and no output is pending.
#[inline]
pub(crate) fn is_expendable(state: &Slot) -> bool {
    state.bits.intersects(Bits::EXPENDABLE) && state.is_open() && state.output.is_none() && !state.bits.intersects(Bits::OUTPUT_EVICTED)
}

impl<H: Handler, O: Os> Visit<'_, H, O> {
    /// The last visit before an eviction for a free slot. It reads the socket first.
    #[cold]
    pub(crate) fn read_before_eviction(&mut self) {
        let state = self.slot_mut();
        if !state.bits.intersects(Bits::INPUT_ENDED) {
            // Poll returns at most `events_per_poll_max` events, so the event for this client's latest bytes may not have come yet.
            state.bits.insert(Bits::READABLE);
        }
        self.go_on();
        let state = self.slot_mut();
        if state.bits.intersects(Bits::RENEWED) || !is_expendable(state) {
            return; // It has sent something, or closes for another reason. `settle` removes the EVICTION_PENDING bit.
        }
        if state.bits.intersects(Bits::READABLE.union(Bits::UNPARSED)) && !state.input_is_held() {
            // A budget was spent, and its socket holds more input. It stays, and can be picked again after the handler has reported a new wait.
            // If it were picked again in each turn while it sends, its slot would count as free, and new clients would be neither served nor
            // rejected (test: `eviction_counts_no_slot_of_a_client_that_never_pauses_as_free`).
            return state.bits.remove(Bits::EXPENDABLE.union(Bits::RENEWED));
        }
        self.press(Pressure::NearlyFull);
        self.flush();
        // The slot is needed now, so there is no linger. All input was read, so the kernel sends FIN after the response, and not a reset.
        self.die(CloseReason::Evicted);
    }

    /// Cancels an eviction: the connection has sent something, or is being answered, or has closed.
    #[inline]
    pub(crate) fn cancel_eviction(&mut self) {
        let LoopState { slots, evictions_pending, .. } = &mut *self.shared;
        let bits = &mut slots.get_mut(self.token.slot).bits;
        if bits.intersects(Bits::EVICTION_PENDING) {
            bits.remove(Bits::EVICTION_PENDING);
            *evictions_pending -= 1;
        }
    }

    /// Updates the connection's place in the list of connections that can be evicted for a free slot. A new wait goes to the young end.
    #[inline]
    pub(crate) fn settle_age(&mut self) {
        let slot = self.token.slot;
        let state = self.slot();
        let is_expendable = is_expendable(state);
        if is_expendable && !state.bits.intersects(Bits::RENEWED) {
            return; // It keeps its place, or is picked already.
        }
        self.cancel_eviction();
        if is_expendable {
            self.slot_mut().bits.remove(Bits::RENEWED);
            self.shared.slots.renew_expendable(slot);
        } else {
            self.shared.slots.unlink_expendable(slot);
            let bits = &mut self.slot_mut().bits;
            if bits.intersects(Bits::EXPENDABLE) {
                // Its output is pending. The wait counts from when the output is sent, and this bit records that it has to be listed then.
                bits.insert(Bits::RENEWED);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use proptest::prelude::*;
    use slab::Slab;

    use super::*;
    use crate::limits::{Config, Limits};
    use crate::slot::{Entry, Phase};
    use crate::stats::Stats;

    const SLOTS: u32 = 24;
    const LARGEST: u32 = 64 << 10;

    /// A loop's shared part with a pool of 256 KiB, and connections of three groups.
    fn shared() -> LoopState {
        let limits = Limits {
            connections_max: SLOTS,
            free_slots_min: 0,
            buffer_bytes_max: LARGEST,
            buffer_memory_bytes_max: 8 * LARGEST as usize,
            ..Limits::default()
        };
        let config = Config { limits, ..Config::default() };
        assert_eq!(config.check(), Ok(()));
        let now = Instant::now();
        let mut shared = LoopState::new(&config, SLOTS, now, Arc::new(Stats::new(now)));
        let mut entries: Slab<Entry<(), ()>> = Slab::new();
        for slot in 0..SLOTS {
            shared.slots.insert(&mut entries, (), Phase::Open);
            shared.slots.get_mut(slot).group = slot % 3;
        }
        shared
    }

    fn leases(shared: &LoopState, owner: BufferOwner) -> Vec<(u32, usize, Instant, u32)> {
        let lease = |slot| match owner {
            BufferOwner::Input => shared.slots.get(slot).input.as_ref(),
            BufferOwner::Output => shared.slots.get(slot).output.as_ref(),
        };
        let held = |slot| lease(slot).map(|lease| (slot, lease.capacity(), lease.held().since.expect("it is held"), lease.held().group));
        (0..SLOTS).filter_map(held).collect()
    }

    fn bytes_of(leases: &[(u32, usize, Instant, u32)], group: u32) -> usize {
        leases.iter().filter(|lease| lease.3 == group).map(|lease| lease.1).sum()
    }

    #[derive(Clone, Debug)]
    enum Op {
        Keep { owner: usize, slot: u32, bytes: usize },
        Drop { owner: usize, slot: u32 },
        Progress { slot: u32, bytes: usize },
        Group { slot: u32, group: u32 },
    }

    fn ops() -> impl Strategy<Value = Op> {
        let sizes = prop_oneof![1..4000usize, 1..16_000usize, 1..65_000usize];
        prop_oneof![
            6 => (0..2usize, 0..SLOTS, sizes.clone()).prop_map(|(owner, slot, bytes)| Op::Keep { owner, slot, bytes }),
            1 => (0..2usize, 0..SLOTS).prop_map(|(owner, slot)| Op::Drop { owner, slot }),
            1 => (0..SLOTS, sizes).prop_map(|(slot, bytes)| Op::Progress { slot, bytes }),
            1 => (0..SLOTS, 0..4u32).prop_map(|(slot, group)| Op::Group { slot, group }),
        ]
    }

    proptest! {
        #[test]
        fn no_eviction_takes_an_owner_below_its_share_and_the_largest_group_gives_its_oldest(ops in prop::collection::vec(ops(), 1..200)) {
            let mut shared = shared();
            for op in ops {
                shared.now += Duration::from_millis(1);
                match op {
                    Op::Keep { owner, slot, bytes } => {
                        let owner = BufferOwner::ALL[owner];
                        if shared.slots.lease_mut(owner, slot).as_ref().is_some_and(|lease| lease.len() + bytes > LARGEST as usize) {
                            continue; // Neither the scratch nor the water marks let this happen.
                        }
                        let bytes = vec![0; bytes];
                        // One eviction at a time, as `append` does them, so that each can be looked at.
                        loop {
                            let before = [BufferOwner::Input, BufferOwner::Output].map(|owner| leases(&shared, owner));
                            let lease = shared.slots.lease_mut(owner, slot);
                            let (held_bytes, capacity) = lease.as_ref().map_or((0, 0), |lease| (lease.len(), lease.capacity()));
                            if shared.buffers.append(owner, lease, &bytes).is_ok() {
                                shared.holds(owner, slot, capacity);
                                break;
                            }
                            prop_assert!(shared.evict_one(owner, held_bytes + bytes.len()), "the memory is full, so somebody holds it");
                            for from in BufferOwner::ALL {
                                let (was, is) = (&before[from as usize], leases(&shared, from));
                                let Some(gone) = was.iter().find(|lease| !is.contains(lease)) else { continue };
                                // The owner that asks gets what was freed, and counts with it.
                                let needed = held_bytes + bytes.len();
                                let needed = [1 << 10, 4 << 10, 16 << 10, 64 << 10].into_iter().find(|size| *size >= needed).expect("at most the largest");
                                let asked = if from == owner { needed } else { 0 };
                                let left = shared.buffers.leased_bytes_of(from);
                                prop_assert!(left + asked >= shared.buffers.share_bytes(), "{left} bytes are left to {from:?}");
                                prop_assert!((0..4).all(|group| bytes_of(was, group) <= bytes_of(was, gone.3)), "another group holds more");
                                prop_assert!(was.iter().all(|lease| lease.3 != gone.3 || lease.2 >= gone.2), "another has stalled for longer");
                            }
                            if shared.slots.get(slot).has_lost(owner) {
                                break;
                            }
                        }
                        shared.slots.get_mut(slot).bits.remove(Bits::EVICTED);
                    }
                    Op::Drop { owner, slot } => shared.drop_lease(BufferOwner::ALL[owner], slot),
                    Op::Progress { slot, bytes } => {
                        if shared.slots.get(slot).output.is_some() {
                            shared.output_progressed(slot, bytes);
                        }
                    }
                    Op::Group { slot, group } => shared.slots.get_mut(slot).group = group,
                }
                for owner in BufferOwner::ALL {
                    let leases = leases(&shared, owner);
                    let bytes: usize = leases.iter().map(|lease| lease.1).sum();
                    prop_assert_eq!(bytes, shared.buffers.leased_bytes_of(owner));
                    prop_assert_eq!(bytes, shared.holders[owner as usize].bytes());
                }
            }
        }
    }

    #[test]
    fn a_single_byte_does_not_make_a_stalled_reader_younger() {
        let mut shared = shared();
        let enough = shared.limits.output_low_water_bytes as usize;
        for slot in [0, 3] {
            shared.now += Duration::from_millis(1);
            assert!(shared.keep_output(slot, &[0; 60_000]));
        }
        let first = |shared: &LoopState| shared.holders[BufferOwner::Output as usize].first();
        shared.now += Duration::from_secs(1);
        shared.output_progressed(0, 1);
        assert_eq!(first(&shared), Some(0));
        shared.output_progressed(0, enough - 1);
        assert_eq!(first(&shared), Some(3), "it has taken enough to count as a reader");
    }
}
