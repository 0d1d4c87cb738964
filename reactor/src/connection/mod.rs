//! One socket: its state, how it is read, written, visited and closed.
//!
//! Read in this order: [`flags`], `slots`, `buffers`, [`drain_read`](mod@drain_read), [`drain_write`](mod@drain_write), `visit`, `input`, `sending`,
//! `pressure`, `water_marks`, `settle`, `failed`, `closing`.

pub(crate) mod buffers;
pub(crate) mod closing;
pub(crate) mod drain_read;
pub(crate) mod drain_write;
pub(crate) mod eviction;
pub(crate) mod failed;
pub(crate) mod flags;
pub(crate) mod input;
pub(crate) mod output;
pub(crate) mod pressure;
pub(crate) mod sending;
pub(crate) mod settle;
pub(crate) mod slots;
pub(crate) mod visit;
pub(crate) mod water_marks;

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
    /// The caller's tag while connecting; while lingering, the bytes that may still be discarded. Never both, and 8 bytes for each
    /// connection matter.
    pub(crate) tag_or_linger_bytes: u64,
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
            tag_or_linger_bytes: 0,
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

/// Bytes of state that the loop keeps for one connection whose handler keeps a `C`: the slab's entry, what lies beside it, and the link
/// of the wheel. A connection at rest has nothing else. For a compile-time assertion beside `C`.
#[must_use]
pub const fn state_bytes<C>() -> usize {
    // slab::Slab keeps `enum { Vacant(usize), Occupied(T) }`; the same shape here has the same size.
    enum SlabEntry<T> {
        #[expect(dead_code, reason = "only its size matters")]
        Vacant(usize),
        #[expect(dead_code, reason = "only its size matters")]
        Occupied(T),
    }
    size_of::<SlabEntry<Entry<C, crate::os::LinuxStream>>>() + size_of::<slots::Beside>() + crate::timers::LINK_BYTES
}
