//! Listening sockets: [`socket`] and [`unix`] make them, [`accept`] accepts from them, and [`hand_off`] gives connections to other loops and
//! counts them while they are on their way (`in_flight`).
//!
//! This file holds the state of one listener, and a loop's view of another loop to which it hands connections.

pub mod accept;
pub mod hand_off;
pub(crate) mod in_flight;
pub mod socket;
pub mod unix;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use crate::address::Address;
use crate::listen::in_flight::{Flight, InFlight};
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
/// ([`InFlight::reserve`]). This loop itself keeps one only if another loop looked as if it could take it and could not.
#[derive(Debug)]
pub(crate) struct Adoption<D> {
    pub(crate) descriptor: D,
    pub(crate) peer: Address,
    pub(crate) listener: usize,
    /// Counts it as in flight until it has a slot. None: this loop has accepted it itself.
    pub(crate) flight: Option<Flight>,
}

/// Another loop, to which this one hands connections.
#[derive(Debug)]
pub struct HandOffTarget<M, D = OwnedFd> {
    mailer: Mailer<M, D>,
    stats: Arc<Stats>,
    /// The connections on their way to it, from this loop and from others. They count as its load, else a burst would go to one loop.
    in_flight: InFlight,
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
    /// The loop's open connections and those in flight to it.
    pub(crate) fn load(&self) -> u64 {
        self.in_flight.load(|| self.stats.connections_open.get())
    }

    /// Reserves a slot of the loop and a place in its mailbox.
    fn reserve(&self) -> Option<(Flight, Permit<Envelope<M, D>>)> {
        let flight = self.in_flight.reserve(self.stats.connections_max.get(), || self.stats.connections_open.get())?;
        Some((flight, self.mailer.reserve_permit()?))
    }

    /// Whether the loop can take a connection. Another loop may take the slot at any time: only [`HandOffTarget::reserve`] reserves it.
    fn has_capacity(&self) -> bool {
        // Its mailbox must have space too: an accepting loop that is full itself would have to keep a connection that it cannot hand over.
        // Test: `no_client_is_rejected_for_a_loop_with_a_full_mailbox_while_clients_wait_at_the_limit`.
        !self.gone && self.load() < self.stats.connections_max.get() && self.mailer.has_permit()
    }
}
