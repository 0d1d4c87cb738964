//! Where connections live: a slab of entries, and beside it what must be reachable while an entry is borrowed.
//!
//! Generations, the bits "queued" and "woken" and the leases lie beside the entries: a callback that runs with one entry borrowed can
//! then wake any connection, and memory can be taken back from any. A slot's generation changes when its connection closes, so that
//! everything still under way for it is recognised as late. Read next: `visit.rs`.

use slab::Slab;

use crate::connection::Entry;
use crate::connection::buffers::{BufferOwner, Lease};
use crate::policy::TokenCheck;
use crate::ready_list::Queued;
use crate::token::Token;

/// What lies beside one slot.
#[derive(Debug, Default)]
pub(crate) struct Beside {
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

impl Beside {
    #[inline]
    pub(crate) fn is_queued(&self) -> bool {
        self.queued != Queued::No
    }
}

/// The part beside the slab: no type parameter, so a [`crate::Context`] can hold it.
#[derive(Debug)]
pub(crate) struct Slots {
    beside: Vec<Beside>,
    /// The connections that wait for their peer, by the time since when: the oldest is evicted when the connection limit nears.
    expendable: Ends,
    check: TokenCheck,
}

impl Slots {
    /// Reserves address space for `slots_max`; a page becomes resident when its slots are first used, and nothing is ever moved.
    pub(crate) fn new(slots_max: usize, check: TokenCheck) -> Slots {
        Slots { beside: Vec::with_capacity(slots_max), expendable: Ends::default(), check }
    }

    /// Puts an entry into a free slot.
    pub(crate) fn insert<C, S>(&mut self, entries: &mut Slab<Entry<C, S>>, entry: Entry<C, S>) -> Token {
        let slot = entries.insert(entry);
        if slot == self.beside.len() {
            self.beside.push(Beside::default());
        }
        let beside = &mut self.beside[slot];
        debug_assert!(!beside.open && !beside.is_queued() && beside.input.is_none() && beside.output.is_none());
        beside.open = true;
        Token { slot: slot as u32, generation: beside.generation }
    }

    /// Ends the slot's tenancy. The leases must have been given back.
    pub(crate) fn vacate(&mut self, slot: u32) {
        self.unlink_expendable(slot);
        let beside = &mut self.beside[slot as usize];
        debug_assert!(beside.input.is_none() && beside.output.is_none(), "a lease would be lost");
        *beside = Beside { generation: beside.generation.wrapping_add(1), ..Beside::default() };
    }

    /// Whether the token's connection is the one that lives in its slot now.
    #[inline]
    pub(crate) fn is_live(&self, token: Token) -> bool {
        match self.beside.get(token.slot as usize) {
            Some(beside) if beside.open => match self.check {
                TokenCheck::SlotAndGeneration => beside.generation == token.generation,
                TokenCheck::SlotOnly => true, // MISTAKE(stale-completion): what was meant for the last tenant reaches the next one.
            },
            _ => false,
        }
    }

    #[inline]
    pub(crate) fn get(&self, slot: u32) -> &Beside {
        &self.beside[slot as usize]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> &mut Beside {
        &mut self.beside[slot as usize]
    }

    /// The token of the slot's present tenant.
    #[inline]
    pub(crate) fn token(&self, slot: u32) -> Token {
        Token { slot, generation: self.beside[slot as usize].generation }
    }

    /// A slot's lease of either kind.
    #[inline]
    pub(crate) fn lease_mut(&mut self, owner: BufferOwner, slot: u32) -> &mut Option<Lease> {
        let beside = &mut self.beside[slot as usize];
        match owner {
            BufferOwner::Input => &mut beside.input,
            BufferOwner::Output => &mut beside.output,
        }
    }

    fn link_expendable(&mut self, slot: u32) {
        let ends = &mut self.expendable;
        ends.length += 1;
        let newest = std::mem::replace(&mut ends.newest, slot + 1);
        match newest {
            0 => ends.oldest = slot + 1,
            _ => self.beside[newest as usize - 1].neighbours.newer = slot + 1,
        }
        self.beside[slot as usize].neighbours = Neighbours { older: newest, newer: 0 };
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
        let Neighbours { older, newer } = std::mem::take(&mut self.beside[slot as usize].neighbours);
        let ends = &mut self.expendable;
        ends.length -= 1;
        match older {
            0 => ends.oldest = newer,
            _ => self.beside[older as usize - 1].neighbours.newer = newer,
        }
        match newer {
            0 => ends.newest = older,
            _ => self.beside[newer as usize - 1].neighbours.older = older,
        }
    }

    /// Whether the slot is on the list of expendable connections.
    #[inline]
    pub(crate) fn is_expendable(&self, slot: u32) -> bool {
        let Neighbours { older, newer } = self.beside[slot as usize].neighbours;
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
