//! Where connections live: a slab of entries, and beside it what must be reachable while an entry is borrowed.
//!
//! Generations, the bits "queued" and "woken" and the leases lie beside the entries: a callback that runs with one entry borrowed can
//! then wake any connection, and memory can be taken back from any. A slot's generation changes when its connection closes, so that
//! everything still under way for it is recognised as late.

use std::time::Instant;

use bitflags::bitflags;
use slab::Slab;

use crate::buffers::{BufferOwner, Lease};
use crate::close_reason::CloseReason;
use crate::policy::TokenCheck;
use crate::ready_list::Queued;
use crate::token::Token;

/// What lies beside one slot.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Counts the slot's tenants. 32 bits: a slot reused 10,000 times a second repeats after five days, and nothing carries a token so long.
    pub(crate) generation: u32,
    /// A connection lives here.
    pub(crate) open: bool,
    /// The ready list that it is on.
    pub(crate) queued: Queued,
    /// Another connection woke it; `room` is owed.
    pub(crate) woken: bool,
    /// A buffer of its was taken back because the memory was full; its next visit deals with that.
    pub(crate) evicted: Evicted,
    /// The group that its buffers count for from now on (`eviction.rs`). 0: none was named.
    pub(crate) group: u32,
    /// Partial input: what has arrived and no message has taken.
    pub(crate) input: Option<Lease>,
    /// Pending output: what the kernel has not taken.
    pub(crate) output: Option<Lease>,
    /// Its neighbours on the list of expendable connections.
    neighbours: Neighbours,
}

/// What was taken from a connection because the buffer memory was full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Evicted {
    #[default]
    Nothing,
    /// Its partial input: it is told, and closed.
    Input,
    /// Its pending output: it is reset, since its response has a hole.
    Output,
}

impl Evicted {
    /// What is taken from a connection when a buffer of `owner` is.
    pub(crate) fn of(owner: BufferOwner) -> Evicted {
        match owner {
            BufferOwner::Input => Evicted::Input,
            BufferOwner::Output => Evicted::Output,
        }
    }

    /// The loss of output outweighs that of input.
    pub(crate) fn add(&mut self, other: Evicted) {
        *self = (*self).max(other);
    }
}

/// Slot + 1; 0 is none.
#[derive(Clone, Copy, Debug, Default)]
struct Neighbours {
    older: u32,
    newer: u32,
}

/// Both ends of a list, slot + 1 or 0 for none, and how many are on it.
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

/// The part beside the slab: no type parameter, so a [`crate::Context`] can hold it.
#[derive(Debug)]
pub(crate) struct Slots {
    state: Vec<Slot>,
    /// The connections that wait for their peer, by the time since when: the oldest is evicted when the connection limit nears.
    expendable: Ends,
    check: TokenCheck,
}

impl Slots {
    /// Reserves address space for `slots_max`; a page becomes resident when its slots are first used, and nothing is ever moved.
    pub(crate) fn new(slots_max: usize, check: TokenCheck) -> Slots {
        Slots { state: Vec::with_capacity(slots_max), expendable: Ends::default(), check }
    }

    /// Puts an entry into a free slot.
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

    /// Ends the slot's tenancy. The leases must have been given back.
    pub(crate) fn vacate(&mut self, slot: u32) {
        self.unlink_expendable(slot);
        let state = &mut self.state[slot as usize];
        debug_assert!(state.input.is_none() && state.output.is_none(), "a lease would be lost");
        *state = Slot { generation: state.generation.wrapping_add(1), ..Slot::default() };
    }

    /// Whether the token's connection is the one that lives in its slot now.
    #[inline]
    pub(crate) fn is_live(&self, token: Token) -> bool {
        match self.state.get(token.slot as usize) {
            Some(state) if state.open => match self.check {
                TokenCheck::SlotAndGeneration => state.generation == token.generation,
                TokenCheck::SlotOnly => true, // MISTAKE(stale-completion): what was meant for the last tenant reaches the next one.
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

    /// The token of the slot's present tenant.
    #[inline]
    pub(crate) fn token(&self, slot: u32) -> Token {
        Token { slot, generation: self.state[slot as usize].generation }
    }

    /// A slot's lease of either kind.
    #[inline]
    pub(crate) fn lease_mut(&mut self, owner: BufferOwner, slot: u32) -> &mut Option<Lease> {
        let state = &mut self.state[slot as usize];
        match owner {
            BufferOwner::Input => &mut state.input,
            BufferOwner::Output => &mut state.output,
        }
    }

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

    /// Puts the slot at the young end of the list of expendable connections, wherever it is now.
    #[inline]
    pub(crate) fn renew_expendable(&mut self, slot: u32) {
        if self.expendable.newest != slot + 1 {
            self.unlink_expendable(slot);
            self.link_expendable(slot);
        }
    }

    /// Takes the slot off the list of expendable connections, if it is on it.
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

    /// How many connections are expendable.
    pub(crate) fn expendable_len(&self) -> u32 {
        self.expendable.length
    }

    /// The expendable connection that has waited for the longest.
    pub(crate) fn oldest_expendable(&self) -> Option<u32> {
        self.expendable.oldest.checked_sub(1)
    }
}

// What is known about one connection, a bit each. Readiness is state here, not a message.
//
// Each sticky bit is written in few, named places: `READABLE` is set by events (and for a last look, `eviction.rs`) and cleared by
// `drain_read`'s exit, `WRITABLE` by events and `drain_write`'s.

bitflags! {
    /// The bits of one connection.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Flags: u32 {
        /// The kernel may have input for us. Cleared only by a read that shows there is none.
        const READABLE = 1;
        /// The kernel may take output. Cleared only by `WouldBlock`.
        const WRITABLE = 1 << 1;
        /// A close bit or urgent data was reported: a short read proves nothing any more (netty PR 6199, tcp(7) on urgent data).
        const READ_TO_THE_END = 1 << 2;
        /// `read` returned 0: the peer has sent its last byte, and we have read it.
        const INPUT_ENDED = 1 << 3;
        /// The handler was told so.
        const END_TOLD = 1 << 4;
        /// The handler wants no input for now.
        const PAUSED = 1 << 5;
        /// The handler wants `room` when there is some.
        const WANTS_ROOM = 1 << 6;
        /// Unsent output reached the high water and has not fallen to the low one.
        const OUTPUT_FULL = 1 << 7;
        /// The kept input has not been offered to the handler to its end: it may hold a complete message.
        const UNPARSED = 1 << 8;
        /// To be closed in order when the output is sent.
        const CLOSE = 1 << 9;
        /// To be closed now.
        const ABORT = 1 << 10;
        /// FIN is sent; input is discarded until the peer's FIN or a limit.
        const LINGERING = 1 << 11;
        /// On the list of closes; nothing else happens to it.
        const DEAD = 1 << 12;
        /// connect(2) is under way; no handler state yet.
        const CONNECTING = 1 << 13;
        /// The handler took nothing of its input and asked for room: nothing is read or offered before there is some.
        const INPUT_WAITS = 1 << 14;
        /// Its close(2) is to send a reset: something was cut short, and FIN would say that it was whole.
        const RESET = 1 << 15;
        /// It waits for its peer, and may be closed to make room for others.
        const EXPENDABLE = 1 << 16;
        /// It was refused: it lingers for no longer than those over `connections_max`.
        const REFUSED = 1 << 17;
        /// It has begun to wait since its place among the expendable was last seen to.
        const RENEWED = 1 << 18;
        /// It is to make room for newcomers, unless a last look at its socket finds that it has spoken.
        const LEAVING = 1 << 19;
        /// We connected to the peer: what it sent before the connection failed is delivered (`close.rs`).
        const OUTBOUND = 1 << 20;
        /// An outbound connection's socket has failed: output is discarded, and input is read until nothing more has arrived.
        const FAILED = 1 << 21;
        /// The peer's FIN came before the failure: a read of 0 bytes is the end of the input and not the reset.
        const FIN_BEFORE_FAILURE = 1 << 22;
        /// The handler was notified that the loop drains.
        const DRAIN_NOTIFIED = 1 << 23;
        /// No more input is wanted, for good: closing or gone.
        const NO_MORE_MESSAGES = Self::CLOSE.bits() | Self::ABORT.bits() | Self::LINGERING.bits() | Self::DEAD.bits() | Self::CONNECTING.bits();
        /// No more messages for now.
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

// One socket: its state, how it is read, written, visited and closed.
//
// Read in this order: [`flags`], `slots`, `buffers`, [`drain_read`](mod@drain_read), [`drain_write`](mod@drain_write), `visit`, `input`, `sending`,
// `pressure`, `water_marks`, `settle`, `failed`, `closing`.

/// What the loop keeps for one connection in the slab. `C` is the handler's part.
#[derive(Debug)]
pub(crate) struct Entry<C, S> {
    pub(crate) stream: S,
    pub(crate) control: Control,
    /// When the unsent output has stalled for too long. Moves with every byte the kernel takes.
    pub(crate) stall_at: Option<Instant>,
    /// None until the connection is open.
    pub(crate) conn: Option<C>,
    /// The caller's tag while connecting; while lingering, the bytes that may still be discarded. Never both, and 8 bytes for each
    /// connection matter.
    pub(crate) tag_or_linger_bytes: u64,
    /// Why it closes, once it does.
    pub(crate) reason: CloseReason,
}

/// The part of an entry that a callback may change: borrowed by the context beside the handler's own state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Control {
    pub(crate) flags: Flags,
    /// The handler's deadline; the loop's own for a connection that connects or lingers.
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

    /// The earlier of both times at which something must be done without an event.
    #[inline]
    pub(crate) fn due(&self) -> Option<Instant> {
        match (self.control.deadline, self.stall_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// Bytes of state that the loop keeps for one connection whose handler keeps a `C`: the slab's entry, what lies beside it, and the link
/// of the wheel. A connection at rest has nothing else. For a compile-time assertion beside `C`.
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
