//! Where connections live: a slab of entries, and beside it what must be reachable while an entry is borrowed.
//!
//! Generations, the bits "queued" and "woken" and the leases lie beside the entries: a callback that runs with one entry borrowed can
//! then wake any connection, and memory can be taken back from any. A slot's generation changes when its connection closes, so that
//! everything still under way for it is recognised as late. Read next: `visit.rs`.

use slab::Slab;

use crate::connection::Entry;
use crate::connection::buffers::Lease;
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
    /// Its kept input was taken back for want of memory; `pressed` is owed.
    pub(crate) evicted: bool,
    /// The unfinished rest of its input.
    pub(crate) input: Option<Lease>,
    /// Output that the kernel has not taken.
    pub(crate) output: Option<Lease>,
    /// Its neighbours on each list of [`ByAge`].
    neighbours: [Neighbours; 2],
}

/// The lists, oldest first, on which a slot can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByAge {
    /// Those that hold unfinished input, by its first byte kept: who gives way when memory is short.
    UnfinishedInput,
    /// Those that wait for their peer, by the time since when: who gives way when the connection limit nears.
    Expendable,
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
    ends: [Ends; 2],
    check: TokenCheck,
}

impl Slots {
    /// Reserves address space for `slots_max`; a page becomes resident when its slots are first used, and nothing is ever moved.
    pub(crate) fn new(slots_max: usize, check: TokenCheck) -> Slots {
        Slots { beside: Vec::with_capacity(slots_max), ends: [Ends::default(); 2], check }
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
        self.unlink(ByAge::UnfinishedInput, slot);
        self.unlink(ByAge::Expendable, slot);
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

    /// Puts the slot at the young end of a list, unless it is on it: its age counts from then.
    pub(crate) fn link(&mut self, list: ByAge, slot: u32) {
        if self.is_linked(list, slot) {
            return;
        }
        let ends = &mut self.ends[list as usize];
        ends.length += 1;
        let newest = std::mem::replace(&mut ends.newest, slot + 1);
        match newest {
            0 => ends.oldest = slot + 1,
            _ => self.beside[newest as usize - 1].neighbours[list as usize].newer = slot + 1,
        }
        self.beside[slot as usize].neighbours[list as usize] = Neighbours { older: newest, newer: 0 };
    }

    /// Puts the slot at the young end of a list, wherever it is now.
    #[inline]
    pub(crate) fn renew(&mut self, list: ByAge, slot: u32) {
        if self.ends[list as usize].newest != slot + 1 {
            self.unlink(list, slot);
            self.link(list, slot);
        }
    }

    /// Takes the slot off a list, if it is on it.
    pub(crate) fn unlink(&mut self, list: ByAge, slot: u32) {
        if !self.is_linked(list, slot) {
            return;
        }
        let Neighbours { older, newer } = std::mem::take(&mut self.beside[slot as usize].neighbours[list as usize]);
        let ends = &mut self.ends[list as usize];
        ends.length -= 1;
        match older {
            0 => ends.oldest = newer,
            _ => self.beside[older as usize - 1].neighbours[list as usize].newer = newer,
        }
        match newer {
            0 => ends.newest = older,
            _ => self.beside[newer as usize - 1].neighbours[list as usize].older = older,
        }
    }

    #[inline]
    pub(crate) fn is_linked(&self, list: ByAge, slot: u32) -> bool {
        let Neighbours { older, newer } = self.beside[slot as usize].neighbours[list as usize];
        older != 0 || newer != 0 || self.ends[list as usize].oldest == slot + 1
    }

    /// How many slots are on a list.
    pub(crate) fn length(&self, list: ByAge) -> u32 {
        self.ends[list as usize].length
    }

    /// The slot at the old end of a list.
    pub(crate) fn oldest(&self, list: ByAge) -> Option<u32> {
        self.ends[list as usize].oldest.checked_sub(1)
    }
}
