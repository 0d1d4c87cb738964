//! Where connections come from: how the socket is made, shared between loops, and emptied.

pub mod accept;
pub mod descriptors;
pub mod hand_off;
pub mod socket;

use std::time::Instant;

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
