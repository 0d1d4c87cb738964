//! The state of a connection: its [`Slot`] (list membership, leases), its [`Flags`], and its [`Entry`] (socket, deadlines, handler state).
//!
//! Entries are in a slab; slots are in a vector next to it, with the same index. A visit borrows one entry mutably. While its callback
//! runs, the slots are still reachable, so the callback can wake any connection, and the loop can evict a buffer of any connection.
//!
//! A slot's generation changes when its connection closes. Mail, events and list entries with the old generation are recognised as stale
//! (`stale-completion`). Test: `late_mail_never_reaches_the_next_tenant`.

use std::time::Instant;

use bitflags::bitflags;
use slab::Slab;

use crate::buffers::{BufferOwner, Lease};
use crate::close_reason::CloseReason;
use crate::policy::TokenCheck;
use crate::ready_list::Queued;
use crate::token::Token;

/// The part of a connection's state that is reachable while its entry is borrowed.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Number of connections that the slot has held. 32 bits: at 10,000 reuses a second it repeats after five days, and no mail or event is
    /// in flight for so long.
    pub(crate) generation: u32,
    /// The slot holds a connection.
    pub(crate) open: bool,
    /// The ready list that it is on.
    pub(crate) queued: Queued,
    /// Another connection woke this one; its next visit calls `writable`.
    pub(crate) woken: bool,
    /// A buffer of this connection was evicted because the buffer memory was full. Its next visit closes it.
    pub(crate) evicted: Evicted,
    /// The group to which its buffers count from now on (`eviction.rs`). 0: the service named none.
    pub(crate) group: u32,
    /// Partial input: bytes that were read and that no message has taken.
    pub(crate) input: Option<Lease>,
    /// Pending output: bytes that the kernel has not taken.
    pub(crate) output: Option<Lease>,
    /// Its neighbours in the list of expendable connections.
    neighbours: Neighbours,
}

/// The buffer that was evicted from a connection because the buffer memory was full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Evicted {
    #[default]
    Nothing,
    /// Its partial input: the handler gets `pressed`, and the connection closes.
    Input,
    /// Its pending output: the connection is reset, because its response has a hole.
    Output,
}

impl Evicted {
    /// The eviction of a buffer of `owner`.
    pub(crate) fn of(owner: BufferOwner) -> Evicted {
        match owner {
            BufferOwner::Input => Evicted::Input,
            BufferOwner::Output => Evicted::Output,
        }
    }

    /// Adds another eviction. Evicted output outweighs evicted input.
    pub(crate) fn add(&mut self, other: Evicted) {
        *self = (*self).max(other);
    }
}

/// The neighbours of a slot in a linked list, as slot + 1; 0 is none.
#[derive(Clone, Copy, Debug, Default)]
struct Neighbours {
    older: u32,
    newer: u32,
}

/// The ends of a linked list, as slot + 1 or 0 for none, and its length.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    oldest: u32,
    newest: u32,
    length: u32,
}

impl Slot {
    #[inline]
    pub(crate) fn is_queued(&self) -> bool {
        self.queued != Queued::No
    }
}

/// The slots of a loop. It has no type parameter, so that a [`crate::Context`] can borrow it.
#[derive(Debug)]
pub(crate) struct Slots {
    state: Vec<Slot>,
    /// The connections that wait for their peer, the longest wait first. The first is evicted when the connection limit nears.
    expendable: Ends,
    check: TokenCheck,
}

impl Slots {
    /// Reserves address space for `slots_max` slots, so that the vector does not move when it grows to them. A page becomes resident when
    /// its first slot is used.
    pub(crate) fn new(slots_max: usize, check: TokenCheck) -> Slots {
        Slots { state: Vec::with_capacity(slots_max), expendable: Ends::default(), check }
    }

    /// Puts an entry into a free slot. Returns its token.
    pub(crate) fn insert<C, S>(&mut self, entries: &mut Slab<Entry<C, S>>, entry: Entry<C, S>) -> Token {
        let slot = entries.insert(entry);
        if slot == self.state.len() {
            self.state.push(Slot::default());
        }
        let state = &mut self.state[slot];
        debug_assert!(!state.open && !state.is_queued() && state.input.is_none() && state.output.is_none());
        state.open = true;
        Token { slot: slot as u32, generation: state.generation }
    }

    /// Frees a slot and advances its generation. Its leases must be back in the pool.
    pub(crate) fn vacate(&mut self, slot: u32) {
        self.unlink_expendable(slot);
        let state = &mut self.state[slot as usize];
        debug_assert!(state.input.is_none() && state.output.is_none(), "a lease would be lost");
        *state = Slot { generation: state.generation.wrapping_add(1), ..Slot::default() };
    }

    /// Whether the token's connection is the one that is in its slot now.
    #[inline]
    pub(crate) fn is_live(&self, token: Token) -> bool {
        match self.state.get(token.slot as usize) {
            Some(state) if state.open => match self.check {
                TokenCheck::SlotAndGeneration => state.generation == token.generation,
                TokenCheck::SlotOnly => true, // MISTAKE(stale-completion): mail and events of a closed connection reach the next one in its slot.
            },
            _ => false,
        }
    }

    #[inline]
    pub(crate) fn get(&self, slot: u32) -> &Slot {
        &self.state[slot as usize]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> &mut Slot {
        &mut self.state[slot as usize]
    }

    /// The token of the connection that is in the slot now.
    #[inline]
    pub(crate) fn token(&self, slot: u32) -> Token {
        Token { slot, generation: self.state[slot as usize].generation }
    }

    /// A slot's input or output lease.
    #[inline]
    pub(crate) fn lease_mut(&mut self, owner: BufferOwner, slot: u32) -> &mut Option<Lease> {
        let state = &mut self.state[slot as usize];
        match owner {
            BufferOwner::Input => &mut state.input,
            BufferOwner::Output => &mut state.output,
        }
    }

    /// Appends the slot to the list of expendable connections, as the newest.
    fn link_expendable(&mut self, slot: u32) {
        let ends = &mut self.expendable;
        ends.length += 1;
        let newest = std::mem::replace(&mut ends.newest, slot + 1);
        match newest {
            0 => ends.oldest = slot + 1,
            _ => self.state[newest as usize - 1].neighbours.newer = slot + 1,
        }
        self.state[slot as usize].neighbours = Neighbours { older: newest, newer: 0 };
    }

    /// Moves the slot to the newest end of the list of expendable connections, or adds it there.
    #[inline]
    pub(crate) fn renew_expendable(&mut self, slot: u32) {
        if self.expendable.newest != slot + 1 {
            self.unlink_expendable(slot);
            self.link_expendable(slot);
        }
    }

    /// Removes the slot from the list of expendable connections, if it is there.
    pub(crate) fn unlink_expendable(&mut self, slot: u32) {
        if !self.is_expendable(slot) {
            return;
        }
        let Neighbours { older, newer } = std::mem::take(&mut self.state[slot as usize].neighbours);
        let ends = &mut self.expendable;
        ends.length -= 1;
        match older {
            0 => ends.oldest = newer,
            _ => self.state[older as usize - 1].neighbours.newer = newer,
        }
        match newer {
            0 => ends.newest = older,
            _ => self.state[newer as usize - 1].neighbours.older = older,
        }
    }

    /// Whether the slot is on the list of expendable connections.
    #[inline]
    pub(crate) fn is_expendable(&self, slot: u32) -> bool {
        let Neighbours { older, newer } = self.state[slot as usize].neighbours;
        older != 0 || newer != 0 || self.expendable.oldest == slot + 1
    }

    /// Number of expendable connections.
    pub(crate) fn expendable_len(&self) -> u32 {
        self.expendable.length
    }

    /// The expendable connection that has waited for the longest.
    pub(crate) fn oldest_expendable(&self) -> Option<u32> {
        self.expendable.oldest.checked_sub(1)
    }
}

// The flags of a connection. Readiness is a flag here that stays set until a system call shows that it is false; it is not a message.
//
// `READABLE` is set by events, and where input may have arrived without one: after a connect, after a failure, and before a connection is
// timed out or evicted. It is cleared by the result of a read. `WRITABLE` is set at first, by events, and before a stall times out. It is
// cleared by the result of a write.

bitflags! {
    /// The flags of one connection.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Flags: u32 {
        /// The socket may have input. Cleared by a read that shows that it has none.
        const READABLE = 1;
        /// The socket may take output. Cleared by `WouldBlock`.
        const WRITABLE = 1 << 1;
        /// An event has reported a close or urgent data: from now on a short read does not show that the socket is empty (netty PR 6199;
        /// tcp(7) on urgent data). Test: `urgent_data_hides_nothing_that_comes_after_it`.
        const READ_TO_THE_END = 1 << 2;
        /// `read` returned 0: the peer has sent FIN, and the loop has read the last byte.
        const INPUT_ENDED = 1 << 3;
        /// The handler got `ended` for it, or must not get it.
        const END_TOLD = 1 << 4;
        /// The handler has paused input.
        const PAUSED = 1 << 5;
        /// The handler wants a call of `writable` when there is output space.
        const WANTS_WRITABLE = 1 << 6;
        /// Pending output has reached the high water mark and has not fallen to the low one.
        const OUTPUT_FULL = 1 << 7;
        /// The input that was read may hold a complete message that the handler has not been offered.
        const UNPARSED = 1 << 8;
        /// To be closed with FIN when the output is written.
        const CLOSE = 1 << 9;
        /// To be closed at once, with a reset.
        const ABORT = 1 << 10;
        /// FIN is sent. Input is discarded until the peer's FIN or a limit.
        const LINGERING = 1 << 11;
        /// Closed but for close(2): it is on the list of closes and is not visited.
        const DEAD = 1 << 12;
        /// connect(2) is in progress. There is no handler state yet.
        const CONNECTING = 1 << 13;
        /// The handler took nothing of its input and asked for output space. The loop does not read or offer input before there is space.
        const INPUT_BLOCKED = 1 << 14;
        /// Its close(2) must send a reset: output was cut short, and a FIN would mark it as complete.
        const RESET = 1 << 15;
        /// It waits for its peer and may be evicted when the connection limit nears.
        const EXPENDABLE = 1 << 16;
        /// The handler rejected it (`Context::refuse`): it closes as `Refused` and lingers for `refused_linger_timeout`.
        const REFUSED = 1 << 17;
        /// Its wait began anew since its place in the list of expendable connections was last updated.
        const RENEWED = 1 << 18;
        /// It will be evicted for new clients, unless a last read of its socket finds input.
        const LEAVING = 1 << 19;
        /// An outbound connection: input that arrived before the connection failed is delivered (`close.rs`).
        const OUTBOUND = 1 << 20;
        /// An outbound connection's socket has failed: output is discarded, and input is read until nothing more has arrived.
        const FAILED = 1 << 21;
        /// The peer's FIN came before the failure: a read of 0 bytes is the end of the input and not the reset.
        const FIN_BEFORE_FAILURE = 1 << 22;
        /// The handler got `pressed` with `Pressure::Draining`.
        const DRAIN_NOTIFIED = 1 << 23;
        /// The handler gets no more input: the connection is connecting, closing or closed.
        const NO_MORE_MESSAGES = Self::CLOSE.bits() | Self::ABORT.bits() | Self::LINGERING.bits() | Self::DEAD.bits() | Self::CONNECTING.bits();
        /// The handler gets no input for now.
        const HELD = Self::NO_MORE_MESSAGES.bits() | Self::PAUSED.bits() | Self::OUTPUT_FULL.bits();
    }
}

impl Flags {
    /// Whether of the bits of `mask` exactly those of `wanted` are set.
    #[inline]
    pub(crate) const fn only(self, mask: Flags, wanted: Flags) -> bool {
        self.bits() & mask.bits() == wanted.bits()
    }
}

/// The slab's entry of one connection. `C` is the handler's state, `S` the socket.
#[derive(Debug)]
pub(crate) struct Entry<C, S> {
    pub(crate) stream: S,
    pub(crate) control: Control,
    /// When pending output has stalled for too long. Moves later when the kernel takes a part of it. None if none is pending.
    pub(crate) stall_at: Option<Instant>,
    /// The handler's state. None until the connection is open.
    pub(crate) conn: Option<C>,
    /// While connecting: the caller's tag. While lingering: the number of bytes that may still be discarded. One field, to save 8 bytes for
    /// each connection.
    pub(crate) tag_or_linger_bytes: u64,
    /// The reason for the close. `Finished` until there is another one.
    pub(crate) reason: CloseReason,
}

/// The part of an entry that a callback may change. The context borrows it while the callback borrows the handler's state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Control {
    pub(crate) flags: Flags,
    /// The handler's deadline, or the loop's own while the connection connects or lingers.
    pub(crate) deadline: Option<Instant>,
}

impl<C, S> Entry<C, S> {
    pub(crate) fn new(stream: S, flags: Flags) -> Entry<C, S> {
        Entry {
            stream,
            control: Control { flags, deadline: None },
            stall_at: None,
            conn: None,
            tag_or_linger_bytes: 0,
            reason: CloseReason::Finished,
        }
    }

    /// The earlier of the deadline and the write stall: when the loop must act without an event.
    #[inline]
    pub(crate) fn due(&self) -> Option<Instant> {
        match (self.control.deadline, self.stall_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// Bytes of state that the loop holds for one connection whose handler's state is a `C`: the slab's entry, the slot, and the link of the
/// timer wheel. An idle connection has no buffer besides. For a compile-time assertion next to `C`.
#[must_use]
pub const fn state_bytes<C>() -> usize {
    // slab::Slab keeps `enum { Vacant(usize), Occupied(T) }`; the same shape here has the same size.
    enum SlabEntry<T> {
        #[expect(dead_code, reason = "only its size matters")]
        Vacant(usize),
        #[expect(dead_code, reason = "only its size matters")]
        Occupied(T),
    }
    size_of::<SlabEntry<Entry<C, crate::os::LinuxStream>>>() + size_of::<Slot>() + crate::timers::LINK_BYTES
}
