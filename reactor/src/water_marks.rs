//! The water marks: how much pending output a connection may have, and what stops while it has more.
//!
//! When a peer does not read, its TCP window closes and the kernel takes no more output. The output that it did not take is pending: it is buffered
//! in a lease. Backpressure then stops the handler: `writable` is not called while any output is pending, and `input` is not called from the high water
//! mark until the pending output has fallen to the low one. Without this, a peer that does not read costs as much memory as the handler writes
//! (`slow-consumer`; Envoy `per_connection_buffer_limit_bytes`, Redis `client-output-buffer-limit`). The kernel's own buffer is bounded by
//! [`crate::Limits::kernel_unsent_bytes_max`].

use crate::buffers::Lease;
use crate::limits::Limits;
use crate::policy::OutputBound;
use crate::slot::{Flags, Slot};

/// The bytes of pending output that count for the water marks.
#[inline]
fn counted_bytes(state: &Slot, bound: OutputBound) -> usize {
    let kept_bytes = state.output.as_ref().map_or(0, Lease::len);
    match bound {
        OutputBound::WaterMarks => kept_bytes,
        OutputBound::None => 0, // MISTAKE(slow-consumer): what a peer does not take counts for nothing, so more is asked for, and kept, for as long as there is more to say.
    }
}

/// The high water mark in bytes. It is lower while much of the buffer memory is leased (`BufferPool::output_space_bytes`).
#[inline]
fn high_water_bytes(limits: &Limits, space_bytes: usize) -> usize {
    (limits.output_high_water_bytes as usize).min(space_bytes)
}

/// How many bytes of output a visit may add.
#[inline]
pub(crate) fn output_space(state: &Slot, limits: &Limits, bound: OutputBound, space_bytes: usize) -> usize {
    high_water_bytes(limits, space_bytes).saturating_sub(counted_bytes(state, bound))
}

/// Whether the handler's `writable` may be called: no output is pending. The socket is then writable, because output becomes pending at the first
/// `WouldBlock` and stays so until the kernel has taken the last byte.
#[inline]
pub(crate) fn has_nothing_pending(state: &Slot, bound: OutputBound) -> bool {
    counted_bytes(state, bound) == 0
}

/// Stops input at the high water mark, and resumes it at the low one.
#[inline]
pub(crate) fn apply_water_marks(flags: &mut Flags, state: &Slot, limits: &Limits, bound: OutputBound, space_bytes: usize) {
    let bytes = counted_bytes(state, bound);
    if bytes >= high_water_bytes(limits, space_bytes) {
        flags.insert(Flags::OUTPUT_FULL);
    } else if bytes <= limits.output_low_water_bytes as usize {
        flags.remove(Flags::OUTPUT_FULL);
    }
}
