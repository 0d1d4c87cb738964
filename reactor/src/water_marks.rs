//! The water marks: how much a connection may have said that its peer has not taken, and what stops and goes on with it.
//!
//! A peer that does not read closes its window, the kernel takes no more, and what is said is kept here, in a lease. Whoever makes the
//! output must feel that: no `room` while anything is kept, no input at the high water, both again at the low one. Without that a slow peer
//! costs as much memory as there is to say to it (failure mode B5; Envoy `per_connection_buffer_limit_bytes`, Redis
//! `client-output-buffer-limit`). The kernel's part has a bound of its own, [`crate::Limits::kernel_unsent_bytes_max`].

use crate::buffers::Lease;
use crate::limits::Limits;
use crate::policy::OutputBound;
use crate::slot::{Flags, Slot};

/// The kept output as far as it counts against the marks.
#[inline]
fn counted_bytes(state: &Slot, bound: OutputBound) -> usize {
    let kept_bytes = state.output.as_ref().map_or(0, Lease::len);
    match bound {
        OutputBound::WaterMarks => kept_bytes,
        OutputBound::None => 0, // MISTAKE(slow-consumer): what a peer does not take counts for nothing, so more is asked for, and kept, for as long as there is more to say.
    }
}

/// The high water mark: lower while much of the buffer memory is leased (`BufferPool::output_space_bytes`).
#[inline]
fn high_water_bytes(limits: &Limits, space_bytes: usize) -> usize {
    (limits.output_high_water_bytes as usize).min(space_bytes)
}

/// How many bytes a visit may add.
#[inline]
pub(crate) fn room_bytes(state: &Slot, limits: &Limits, bound: OutputBound, space_bytes: usize) -> usize {
    high_water_bytes(limits, space_bytes).saturating_sub(counted_bytes(state, bound))
}

/// Whether whoever wants to say more can be asked for it: everything said so far is in the kernel's hands. (The kernel takes more then:
/// output is kept from the first `WouldBlock` on, and until the last byte is taken.)
#[inline]
pub(crate) fn may_say_more(state: &Slot, bound: OutputBound) -> bool {
    counted_bytes(state, bound) == 0
}

/// Input stops at the high water, and goes on at the low one.
#[inline]
pub(crate) fn hold_or_let_go(flags: &mut Flags, state: &Slot, limits: &Limits, bound: OutputBound, space_bytes: usize) {
    let bytes = counted_bytes(state, bound);
    if bytes >= high_water_bytes(limits, space_bytes) {
        flags.insert(Flags::OUTPUT_FULL);
    } else if bytes <= limits.output_low_water_bytes as usize {
        flags.remove(Flags::OUTPUT_FULL);
    }
}
