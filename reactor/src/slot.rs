//! The state of a connection: its [`Slot`], which holds the [`Phase`] and all that is not generic, and its [`Entry`] (socket, handler state).
//!
//! Entries are in a slab; slots are in a vector next to it, with the same index. A callback borrows the handler's state in the entry. While it
//! runs, the slots are still reachable, so the callback can wake any connection, and the loop can evict a buffer of any connection.
//!
//! A slot's generation changes when its connection closes. Mail, events and list entries with the old generation are recognised as stale
//! (`stale-completion`). Test for mail: `late_mail_never_reaches_the_next_tenant`.

use std::time::Instant;

use bitflags::bitflags;
use slab::Slab;

use crate::buffers::{BufferOwner, Lease};
use crate::errors::CloseReason;
use crate::policy::TokenCheck;
use crate::ready_list::Queued;
use crate::token::Token;

/// The state of one connection, except its socket and the handler's state. It is reachable while the entry is borrowed.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Number of connections that the slot has held. At 10,000 reuses a second it repeats after five days; no mail is in flight for so long.
    pub(crate) generation: u32,
    pub(crate) bits: Bits,
    /// Exactly one phase at a time. Changed by [`Slot::enter`] and by the methods that call it.
    pub(crate) phase: Phase,
    /// The handler's deadline, or the loop's own while the connection connects or lingers.
    pub(crate) deadline: Option<Instant>,
    /// When the present window of pending output ends (`stall.rs`). None if none is pending.
    pub(crate) stall_at: Option<Instant>,
    /// Partial input: bytes that were read and that no message has taken.
    pub(crate) input: Option<Lease>,
    /// Pending output: bytes that the kernel has not taken.
    pub(crate) output: Option<Lease>,
    /// The group to which its buffers count from now on (`eviction.rs`). 0: the service named none.
    pub(crate) group: u32,
    /// Least rate of output in bytes a second (`stall.rs`); 0 is no limit.
    pub(crate) output_rate_min: u32,
    /// The ready list that it is on.
    pub(crate) queued: Queued,
    /// The reason for the close. `Finished` until there is another one.
    pub(crate) reason: CloseReason,
    /// Its neighbours in the list of expendable connections.
    neighbours: Neighbours,
}

/// What a connection is doing: one value and not bits, because the phases exclude each other. docs/architecture.md has the table of the moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The slot is free.
    #[default]
    Vacant,
    /// connect(2) is in progress. There is no handler state yet. `tag` is the caller's.
    Connecting { tag: u64 },
    /// The handler gets input, mail and deadlines.
    Open,
    /// To be closed with FIN when the output is written. The handler gets no more input.
    Flushing,
    /// To be closed with a reset at the end of the running visit.
    Aborting,
    /// FIN is sent. At most `left_bytes` of input are still discarded, until the peer's FIN.
    Lingering { left_bytes: u32 },
    /// Closed but for close(2): it is on the list of closes and is not visited. `reset`: close(2) must send a reset, because output was cut
    /// short and a FIN would mark it as complete.
    Dead { reset: bool },
}

impl Phase {
    /// Whether the loop makes this move. Debug builds check each move, and the simulator the phases from turn to turn (`sim/check.rs`).
    pub(crate) fn may_become(self, next: Phase) -> bool {
        use Phase::{Aborting, Connecting, Dead, Flushing, Lingering, Open, Vacant};
        matches!(
            (self, next),
            (Vacant, Connecting { .. } | Open)
                | (Connecting { .. }, Open | Dead { .. })
                | (Open, Flushing | Aborting | Dead { .. })
                | (Flushing, Aborting | Lingering { .. } | Dead { .. })
                | (Aborting | Lingering { .. }, Dead { .. })
        )
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

    /// Whether the handler may still get input. False while the connection connects, and from its close or failure on.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    #[inline]
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.phase, Phase::Dead { .. })
    }

    #[inline]
    pub(crate) fn is_lingering(&self) -> bool {
        matches!(self.phase, Phase::Lingering { .. })
    }

    #[inline]
    pub(crate) fn is_connecting(&self) -> bool {
        matches!(self.phase, Phase::Connecting { .. })
    }

    /// Whether the handler gets no input for now.
    #[inline]
    pub(crate) fn input_is_held(&self) -> bool {
        !self.is_open() || self.bits.intersects(Bits::INPUT_HELD)
    }

    /// Moves to another phase.
    #[inline]
    pub(crate) fn enter(&mut self, next: Phase) {
        debug_assert!(self.phase.may_become(next), "no move leads from {:?} to {next:?}", self.phase);
        self.phase = next;
    }

    /// Asks for a close with FIN. Nothing changes if the connection closes already.
    #[inline]
    pub(crate) fn close(&mut self) {
        if self.is_open() {
            self.enter(Phase::Flushing);
        }
    }

    /// Asks for a close with FIN, as [`CloseReason::Refused`].
    #[inline]
    pub(crate) fn refuse(&mut self) {
        if matches!(self.phase, Phase::Open | Phase::Flushing) {
            self.reason = CloseReason::Refused;
        }
        self.close();
    }

    /// Asks for a close with a reset. Nothing changes if FIN is sent or the connection is dead.
    #[inline]
    pub(crate) fn abort(&mut self) {
        if matches!(self.phase, Phase::Open | Phase::Flushing) {
            self.enter(Phase::Aborting);
        }
    }

    /// The earlier of the deadline and the end of the output window: when the loop must act without an event.
    #[inline]
    pub(crate) fn due(&self) -> Option<Instant> {
        match (self.deadline, self.stall_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// The slots of a loop. It has no type parameter, so that a [`crate::Context`] can borrow it.
#[derive(Debug)]
pub(crate) struct Slots {
    state: Vec<Slot>,
    /// The connections that wait for their peer, the longest wait first. The first is evicted when the connection limit nears.
    expendable: Ends,
    check: TokenCheck,
    /// The bits that each connection begins with.
    first_bits: Bits,
    /// The least rate of output of a new connection.
    output_rate_min: u32,
}

impl Slots {
    /// Reserves address space for `slots_max` slots, so that the vector does not move when it grows to them. A page becomes resident when
    /// its first slot is used.
    pub(crate) fn new(slots_max: usize, check: TokenCheck, first_bits: Bits, output_rate_min: u32) -> Slots {
        // Writable until a write fails: the edge of an empty send buffer is consumed by the registration.
        let first_bits = first_bits.union(Bits::WRITABLE);
        Slots { state: Vec::with_capacity(slots_max), expendable: Ends::default(), check, first_bits, output_rate_min }
    }

    /// Puts a socket into a free slot, in its first phase. Returns its token.
    pub(crate) fn insert<C, S>(&mut self, entries: &mut Slab<Entry<C, S>>, stream: S, phase: Phase) -> Token {
        let slot = entries.insert(Entry { stream, conn: None });
        if slot == self.state.len() {
            self.state.push(Slot::default());
        }
        let state = &mut self.state[slot];
        debug_assert!(!state.is_queued() && state.input.is_none() && state.output.is_none());
        state.enter(phase);
        state.bits = self.first_bits;
        state.output_rate_min = self.output_rate_min;
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
            Some(state) if state.phase != Phase::Vacant => match self.check {
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

// Readiness is a bit that stays set until a system call shows that it is false. `READABLE` is set by events, and where input may have arrived
// without one: after a connect, after a failure, and before a timeout or an eviction. `WRITABLE` is set at first, and by events.

bitflags! {
    /// The facts about one connection that do not exclude each other.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Bits: u32 {
        /// The socket may have input. Cleared by a read that shows that it has none.
        const READABLE = 1;
        /// The socket may take output. Cleared by `WouldBlock`.
        const WRITABLE = 1 << 1;
        /// An event has reported a close or urgent data: from now on a short read does not show that the socket is empty (netty PR 6199;
        /// tcp(7) on urgent data). Always set for a Unix socket. Test: `urgent_data_hides_nothing_that_comes_after_it`.
        const READ_TO_THE_END = 1 << 2;
        /// `read` returned 0: the peer has sent FIN, and the loop has read the last byte.
        const INPUT_ENDED = 1 << 3;
        /// The handler got `ended` for it, or must not get it.
        const END_DELIVERED = 1 << 4;
        /// The handler has paused input.
        const PAUSED = 1 << 5;
        /// The handler wants a call of `writable` when there is output space.
        const WANTS_WRITABLE = 1 << 6;
        /// Pending output has reached the high water mark and has not fallen to the low one.
        const OUTPUT_FULL = 1 << 7;
        /// The input that was read may hold a complete message that the handler has not been offered.
        const UNPARSED = 1 << 8;
        /// The handler took nothing of its input and asked for output space. The loop does not read or offer input before there is space.
        const INPUT_BLOCKED = 1 << 9;
        /// Another connection woke this one; its next visit calls `writable`.
        const WOKEN = 1 << 10;
        /// It waits for its peer and may be evicted when the connection limit nears.
        const EXPENDABLE = 1 << 11;
        /// Its wait began anew since its place in the list of expendable connections was last updated.
        const RENEWED = 1 << 12;
        /// It will be evicted for new clients, unless a last read of its socket finds input.
        const EVICTION_PENDING = 1 << 13;
        /// An outbound connection: input that arrived before the connection failed is delivered (`close.rs`).
        const OUTBOUND = 1 << 14;
        /// An outbound connection's socket has failed: output is discarded, and input is read until nothing more has arrived.
        const FAILED = 1 << 15;
        /// The peer's FIN came before the failure: a read of 0 bytes is the end of the input and not the reset.
        const FIN_BEFORE_FAILURE = 1 << 16;
        /// The handler got `pressed` with `Pressure::ShuttingDown`.
        const SHUTDOWN_NOTIFIED = 1 << 17;
        /// Its pending output does not count for the water marks (`OutputBound::None`).
        const UNBOUNDED = 1 << 18;
        /// The handler wants FIN sent after its output (`Context::shutdown_write`). Removed when it is sent.
        const FIN_WANTED = 1 << 19;
        /// FIN is sent by `Context::shutdown_write`, and input still reaches the handler. There is no output space any more.
        const FIN_SENT = 1 << 20;
        /// Its partial input was evicted because the buffer memory was full. Its next visit calls `pressed` and closes it.
        const INPUT_EVICTED = 1 << 21;
        /// Its pending output was evicted. Its next visit resets it, because its response has a hole.
        const OUTPUT_EVICTED = 1 << 22;
        const EVICTED = Self::INPUT_EVICTED.bits() | Self::OUTPUT_EVICTED.bits();
        /// An open connection whose handler gets no input for now.
        const INPUT_HELD = Self::PAUSED.bits() | Self::OUTPUT_FULL.bits();
    }
}

impl Bits {
    /// Whether of the bits of `mask` exactly those of `wanted` are set.
    #[inline]
    pub(crate) const fn only(self, mask: Bits, wanted: Bits) -> bool {
        self.bits() & mask.bits() == wanted.bits()
    }
}

/// The slab's entry of one connection: what is generic. `C` is the handler's state, `S` the socket. All else is in the [`Slot`].
#[derive(Debug)]
pub(crate) struct Entry<C, S> {
    pub(crate) stream: S,
    /// The handler's state. None until the connection is open.
    pub(crate) conn: Option<C>,
}
