//! The connections that hold buffers, in the order in which they are evicted when the buffer memory is full (`eviction.rs`).
//!
//! The order consists of links in the leases, one list for each group, and a set of the groups by rank. An eviction needs no search, and an idle
//! connection has no lease and so no cost.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use crate::buffers::{BufferOwner, Held, Lease};
use crate::slot::Slots;

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
