//! One socket: its state, how it is read, written, visited and closed.
//!
//! Read in this order: [`flags`], `slots`, `buffers`, [`drain_read`](mod@drain_read), [`drain_write`](mod@drain_write), `visit`, `sending`, `settle`, `closing`.

pub(crate) mod buffers;
pub(crate) mod closing;
pub(crate) mod drain_read;
pub(crate) mod drain_write;
pub(crate) mod flags;
pub(crate) mod output;
pub(crate) mod sending;
pub(crate) mod settle;
pub(crate) mod slots;
pub(crate) mod visit;

use std::time::Instant;

use flags::Flags;

use crate::handler::CloseReason;

/// What the loop keeps for one connection in the slab. `C` is the handler's part.
#[derive(Debug)]
pub(crate) struct Entry<C, S> {
    pub(crate) stream: S,
    pub(crate) control: Control,
    /// When the unsent output has stalled for too long. Moves with every byte the kernel takes.
    pub(crate) stall_at: Option<Instant>,
    /// None until the connection is open.
    pub(crate) conn: Option<C>,
    /// Outbound: the caller's tag while connecting.
    pub(crate) tag: u64,
    /// Bytes that may still be discarded before the close.
    pub(crate) linger_left_bytes: u32,
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
            tag: 0,
            linger_left_bytes: 0,
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
