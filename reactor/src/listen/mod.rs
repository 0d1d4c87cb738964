//! Where connections come from: how the socket is made, shared between loops, and emptied.
//!
//! Read in this order: `accept.rs`, `sharing.rs`, `inherited.rs`, `descriptors.rs`.

pub(crate) mod accept;
pub mod descriptors;
pub mod hand_off;
pub mod inherited;
pub mod sharing;

use std::time::Instant;

/// One listener of one loop.
#[derive(Debug)]
pub(crate) struct Listener<L> {
    /// None once it is closed.
    pub(crate) socket: Option<L>,
    /// Sticky: connections may be waiting. Cleared only by `WouldBlock`.
    pub(crate) ready: bool,
    /// After a failure for want of descriptors or memory: not before this time, unless a close comes first.
    pub(crate) paused_until: Option<Instant>,
    /// Another process holds the socket too, and with it the queue, when this loop has closed its own descriptor.
    pub(crate) inherited: bool,
    /// While the loop drains: how many it still accepts, however many come.
    pub(crate) accepts_left: Option<u32>,
}
