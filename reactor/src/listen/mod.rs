//! Where connections come from: how the socket is made, shared between loops, and emptied.

pub mod accept;
pub mod hand_off;
pub mod socket;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use crate::mail::{Envelope, Mailer};
use crate::mailbox::Room;
use crate::stats::Stats;

/// Why accept(2) is not called for now, and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pause {
    /// None: for ever.
    pub(crate) until: Option<Instant>,
    /// There were no descriptors or no memory: a close ends the pause. It does not help a listener that is shut down, or that a security module
    /// does not let accept.
    pub(crate) ends_at_close: bool,
}

impl Pause {
    pub(crate) fn is_over(self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// One listener of one loop.
#[derive(Debug)]
pub(crate) struct Listener<L> {
    /// None once it is closed.
    pub(crate) socket: Option<L>,
    /// Sticky: connections may be waiting. Cleared only by `WouldBlock`.
    pub(crate) ready: bool,
    /// accept(2) has failed and is not called for now.
    pub(crate) pause: Option<Pause>,
    /// Another process holds the socket too, and with it the queue, when this loop has closed its own descriptor.
    pub(crate) inherited: bool,
    /// While the loop drains: how many it still accepts, however many come.
    pub(crate) accepts_left: Option<u32>,
}

/// A loop to hand connections to.
#[derive(Debug)]
pub struct HandOffTarget<M, D = OwnedFd> {
    mailer: Mailer<M, D>,
    stats: Arc<Stats>,
    /// Sent and perhaps not yet arrived: without it a burst would all go to the same loop.
    handed: u64,
    /// It has given a connection back, because it has ended.
    gone: bool,
    /// Room for the last word, sent when this is dropped: mail of one sender arrives in order, so every connection comes before it.
    last_word: Option<Room<Envelope<M, D>>>,
}

impl<M, D> Drop for HandOffTarget<M, D> {
    fn drop(&mut self) {
        if let Some(room) = self.last_word.take() {
            // One that has ended waits for nobody.
            let _ = room.send(Envelope::NoMoreSockets);
        }
    }
}

impl<M, D> HandOffTarget<M, D> {
    pub(crate) fn load(&self) -> u64 {
        let arrived = self.stats.adoptions.get() + self.stats.adoption_failures.get();
        let under_way = self.handed.saturating_sub(arrived);
        self.stats.connections_open.get() + under_way
    }

    fn has_room(&self) -> bool {
        // And a place in its mailbox: a full loop that accepts for it would have to keep whom it cannot hand over.
        !self.gone && self.load() < self.stats.connections_max.get() && self.mailer.has_room()
    }
}
