//! What a connection may do next: the water marks of its output, and [`can_progress`], the rule of the ready list.
//!
//! *Water marks* bound the pending output of a connection, and stop its input while it has more.
//! When a peer does not read, its TCP window closes and the kernel takes no more output. The output that it did not take is pending: it is buffered
//! in a lease. Backpressure then stops the handler: `writable` is not called while any output is pending, and `input` is not called from the high water
//! mark until the pending output has fallen to the low one. Without this, a peer that does not read costs as much memory as the handler writes
//! (`slow-consumer`; Envoy `per_connection_buffer_limit_bytes`, Redis `client-output-buffer-limit`). The kernel's own buffer is bounded by
//! [`crate::Limits::kernel_unsent_bytes_max`].

use crate::limits::Limits;
use crate::policy::OutputBound;
use crate::slot::{Bits, Phase, Slot};

impl Slot {
    /// The bytes of pending output that count for the water marks.
    #[inline]
    fn counted_bytes(&self) -> usize {
        match &self.output {
            Some(lease) if !self.bits.intersects(Bits::UNBOUNDED) => lease.len(),
            _ => 0,
        }
    }

    /// How many bytes of output a visit may add.
    #[inline]
    pub(crate) fn output_space(&self, limits: &Limits, space_bytes: usize) -> usize {
        if self.bits.intersects(Bits::FIN_WANTED.union(Bits::FIN_SENT)) {
            return 0;
        }
        high_water_bytes(limits, space_bytes).saturating_sub(self.counted_bytes())
    }

    /// Whether the handler's `writable` may be called: no output is pending. The socket is then writable, because output becomes pending at the first
    /// `WouldBlock` and stays so until the kernel has taken the last byte.
    #[inline]
    pub(crate) fn has_nothing_pending(&self) -> bool {
        self.counted_bytes() == 0
    }

    /// Stops input at the high water mark, and resumes it at the low one.
    #[inline]
    pub(crate) fn apply_water_marks(&mut self, limits: &Limits, space_bytes: usize) {
        let bytes = self.counted_bytes();
        if bytes == 0 {
            self.bits.remove(Bits::OUTPUT_FULL); // Most visits end here.
        } else if bytes >= high_water_bytes(limits, space_bytes) {
            self.bits.insert(Bits::OUTPUT_FULL);
        } else if bytes <= limits.output_low_water_bytes as usize {
            self.bits.remove(Bits::OUTPUT_FULL);
        }
    }
}

impl OutputBound {
    /// The bits with which a connection begins.
    pub(crate) fn first_bits(self) -> Bits {
        match self {
            OutputBound::WaterMarks => Bits::empty(),
            OutputBound::None => Bits::UNBOUNDED, // MISTAKE(slow-consumer): pending output counts as no bytes, so the loop asks the handler for more, without a bound, while the peer does not read.
        }
    }
}

/// The high water mark in bytes. It is lower while much of the buffer memory is leased (`BufferPool::output_space_bytes`).
#[inline]
fn high_water_bytes(limits: &Limits, space_bytes: usize) -> usize {
    (limits.output_high_water_bytes as usize).min(space_bytes)
}

impl Slot {
    /// Whether the handler may be asked for output: it is not closing, and no output is pending.
    #[inline]
    pub(crate) fn is_writable(&self) -> bool {
        self.is_open() && !self.bits.intersects(Bits::FAILED) && self.has_nothing_pending()
    }
}

/// The rule of the ready list: whether a visit now can make progress without anything new from the peer.
#[inline]
pub(crate) fn can_progress(state: &Slot) -> bool {
    const NEEDED: Bits = Bits::READABLE
        .union(Bits::UNPARSED)
        .union(Bits::INPUT_ENDED)
        .union(Bits::WANTS_WRITABLE)
        .union(Bits::WOKEN)
        .union(Bits::EVICTION_PENDING)
        .union(Bits::EVICTED);
    let bits = state.bits;
    if !bits.intersects(NEEDED) && state.output.is_none() {
        return false; // Most visits end here.
    }
    if matches!(state.phase, Phase::Vacant | Phase::Connecting { .. } | Phase::Dead { .. }) {
        return false;
    }
    if bits.intersects(Bits::WOKEN.union(Bits::EVICTION_PENDING).union(Bits::EVICTED)) {
        return true;
    }
    if state.is_lingering() {
        return bits.intersects(Bits::READABLE);
    }
    if state.output.is_some() && bits.intersects(Bits::WRITABLE) {
        return true;
    }
    if !state.is_open() {
        return false;
    }
    if bits.intersects(Bits::WANTS_WRITABLE) && state.is_writable() {
        return true;
    }
    if bits.intersects(Bits::INPUT_HELD) {
        return false;
    }
    // Input that waits for output space is offered again after `writable`.
    let waits = bits.intersects(Bits::INPUT_BLOCKED);
    let unread = bits.intersects(Bits::READABLE) && !bits.intersects(Bits::INPUT_ENDED) && !waits;
    let end_undelivered = bits.intersects(Bits::INPUT_ENDED) && !bits.intersects(Bits::END_DELIVERED);
    let unparsed = bits.intersects(Bits::UNPARSED) && !waits;
    unread || unparsed || (end_undelivered && !bits.intersects(Bits::UNPARSED))
}
