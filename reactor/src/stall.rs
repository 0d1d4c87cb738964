//! Whether a peer that does not take its output is slow or has stalled.
//!
//! Output that the kernel does not take is pending. What counts as progress then is bytes that the peer has acknowledged, and not writes: an edge
//! comes only when half of `kernel_unsent_bytes_max` has been sent, which takes a slow peer longer than it should have to prove that it reads.
//! The number of unacknowledged bytes is one ioctl(2), `SIOCOUTQ`. The loop makes it only at the end of a window, so output that is pending for
//! less than an eighth of a window costs none.
//!
//! *The window.* A receiver opens its TCP window in steps that are as large as its receive buffer, and acknowledges nothing in between (measured:
//! docs/numbers.md, "Steps of acknowledgement"). So [`crate::Limits::output_rate_window`] should be at least as long as one receive buffer takes at
//! [`crate::Limits::output_rate_min`]. A peer stalls if it has acknowledged less in a window than *half* of what the least rate asks for: a window
//! holds all of its steps but one, so a peer that reads steadily at the least rate is never reset (test: `a_steady_reader_at_the_least_rate_never_stalls`),
//! and one that reads at less than half of it is.
//!
//! *Under pressure* a peer need not stall for so long. When the buffer memory is full, output is evicted by the length of its stall, and when few
//! slots are free, so is a connection whose output has stalled for `evictable_stall_min` (`eviction.rs`).

use crate::errors::CloseReason;
use crate::event_loop::EventLoop;
use crate::handler::Handler;
use crate::os::Os;
use crate::output_window::needed_bytes;
use crate::timers;

impl<H: Handler, O: Os> EventLoop<H, O> {
    /// Handles the end of a window of pending output. The look at the socket is the ioctl, so bytes that the peer has acknowledged without an event
    /// so far count. Test: `output_that_the_peer_takes_between_poll_and_the_clock_has_not_stalled`.
    pub(crate) fn output_window_ends(&mut self, slot: u32) {
        let now = self.shared.now;
        let Some(entry) = self.entries.get_mut(slot as usize) else { return };
        let state = self.shared.slots.get_mut(slot);
        state.stall_at = None;
        let rate_min = state.output_rate_min;
        let window = self.shared.limits.window_for(rate_min);
        let mut has_stalled = false;
        if let Some(lease) = state.output.as_mut() {
            // Without a least rate the window is only renewed: the handler may set a rate later.
            if rate_min > 0 {
                let output_window = &mut lease.held_mut().window;
                let unacknowledged_bytes = self.os.unacknowledged_bytes(&mut entry.stream).unwrap_or_else(|e| {
                    // As many as before: then what the kernel takes counts instead of what the peer acknowledges.
                    log::debug!("cannot ask for the unacknowledged bytes: {e}");
                    output_window.unacknowledged_bytes.unwrap_or(1)
                });
                has_stalled = output_window.ends_stalled(unacknowledged_bytes, needed_bytes(rate_min, window));
            }
            state.stall_at = timers::after(now, window);
        }
        let due = state.due();
        self.shared.wheel.set(slot, due, now);
        if has_stalled {
            self.kill(slot, CloseReason::WriteStalled);
        }
    }
}
