//! The water marks: how much pending output a connection may have, and what stops while it has more.
//!
//! When a peer does not read, its TCP window closes and the kernel takes no more output. The output that it did not take is pending: it is buffered
//! in a lease. Backpressure then stops the handler: `writable` is not called while any output is pending, and `input` is not called from the high water
//! mark until the pending output has fallen to the low one. Without this, a peer that does not read costs as much memory as the handler writes
//! (`slow-consumer`; Envoy `per_connection_buffer_limit_bytes`, Redis `client-output-buffer-limit`). The kernel's own buffer is bounded by
//! [`crate::Limits::kernel_unsent_bytes_max`].

use crate::limits::Limits;
use crate::slot::{Bits, Slot};

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

/// The high water mark in bytes. It is lower while much of the buffer memory is leased (`BufferPool::output_space_bytes`).
#[inline]
fn high_water_bytes(limits: &Limits, space_bytes: usize) -> usize {
    (limits.output_high_water_bytes as usize).min(space_bytes)
}
