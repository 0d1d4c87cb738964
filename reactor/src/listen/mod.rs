//! Listening sockets: [`socket`] and [`unix`] make them, [`accept`] accepts from them, and [`hand_off`] gives connections to other loops, and
//! `slots_taken` reserves slots for them there.
//!
//! This file holds the state of one listener, and a loop's view of another loop to which it hands connections.

pub mod accept;
pub mod hand_off;
pub(crate) mod slots_taken;
pub mod socket;
pub mod unix;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use crate::address::Address;
use crate::listen::slots_taken::{Reservation, SlotsTaken};
use crate::mailbox::{Envelope, Mailer, Permit};
use crate::stats::Stats;

/// A pause of accept(2) after an error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pause {
    /// The end of the pause. None: no end.
    pub(crate) until: Option<Instant>,
    /// The error was a lack of descriptors or memory, so a close of a connection ends the pause early. A close does not help a listener
    /// that was shut down or that a security module denies. Test: `a_close_ends_a_pause_for_descriptors_and_no_other`.
    pub(crate) ends_at_close: bool,
}

impl Pause {
    pub(crate) fn is_over(self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// A listener of a loop.
#[derive(Debug)]
pub(crate) struct Listener<L> {
    /// None after it was closed.
    pub(crate) socket: Option<L>,
    /// Connections may be in the queue. Set by an event. Cleared by `WouldBlock`, and at the end of its accepts in a drain.
    pub(crate) ready: bool,
    /// accept(2) has failed and is not called before the pause ends.
    pub(crate) pause: Option<Pause>,
    /// Another process holds the socket too, so its queue lives on when this loop closes its descriptor.
    pub(crate) inherited: bool,
    /// While the loop drains an inherited listener: the number of connections that it still accepts.
    pub(crate) accepts_left: Option<u32>,
}

/// An accepted connection that has no slot yet. Other loops hand over at most as many as had a free slot when they were accepted
/// ([`SlotsTaken::reserve`]). This loop itself keeps one only if another loop looked as if it could take it and could not.
#[derive(Debug)]
pub(crate) struct Adoption<D> {
    pub(crate) descriptor: D,
    pub(crate) peer: Address,
    pub(crate) listener: usize,
    /// The slot that the other loop has reserved. None: this loop has accepted the connection itself.
    pub(crate) reservation: Option<Reservation>,
}

/// Another loop, to which this one hands connections.
#[derive(Debug)]
pub struct HandOffTarget<M, D = OwnedFd> {
    mailer: Mailer<M, D>,
    stats: Arc<Stats>,
    /// Its open connections and those on their way to it. Those count as its load, else a burst would go to one loop.
    slots_taken: SlotsTaken,
    /// The loop has ended: a connection could not be sent to it.
    gone: bool,
    /// Permit for the final message, sent on drop. Mail of one sender arrives in order, so connections handed over before arrive first.
    last_word: Option<Permit<Envelope<M, D>>>,
}

impl<M, D> Drop for HandOffTarget<M, D> {
    fn drop(&mut self) {
        if let Some(permit) = self.last_word.take() {
            // A loop that has ended does not wait for the message.
            let _ = permit.send(Envelope::NoMoreSockets);
        }
    }
}

impl<M, D> HandOffTarget<M, D> {
    /// The number of the loop's open connections and of those on their way to it.
    pub(crate) fn load(&self) -> u64 {
        self.slots_taken.count()
    }

    /// Reserves a slot of the loop and a place in its mailbox.
    fn reserve(&self) -> Option<(Reservation, Permit<Envelope<M, D>>)> {
        let reservation = self.slots_taken.reserve(self.stats.connections_max.get())?;
        Some((reservation, self.mailer.reserve_permit()?))
    }

    /// Whether the loop can take a connection. Another loop may take the slot at any time: only [`HandOffTarget::reserve`] reserves it.
    fn has_capacity(&self) -> bool {
        // Its mailbox must have space too: an accepting loop that is full itself would have to keep a connection that it cannot hand over.
        // Test: `no_client_is_rejected_for_a_loop_with_a_full_mailbox_while_clients_wait_at_the_limit`.
        !self.gone && self.load() < self.stats.connections_max.get() && self.mailer.has_permit()
    }
}
