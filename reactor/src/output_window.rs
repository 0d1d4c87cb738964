//! The window over which the rate of a connection's pending output is measured, and how it is judged. `stall.rs` says why.

use std::time::{Duration, Instant};

use crate::limits::Limits;
use crate::timers;

/// The present window of a connection's pending output.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OutputWindow {
    /// Bytes that the kernel held and the peer had not acknowledged when the window began. `None` before the first look.
    pub(crate) unacknowledged_bytes: Option<u64>,
    /// Bytes that the kernel has taken since then.
    written_bytes: u64,
}

impl OutputWindow {
    /// Counts bytes that the kernel has taken.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.written_bytes = self.written_bytes.saturating_add(bytes as u64);
    }

    /// Ends the window and begins the next one. Whether the peer has stalled: it has acknowledged less than `needed_bytes`, and not all that the kernel
    /// held when the window began. If it has acknowledged all of that, the loop was late to write more.
    pub(crate) fn ends_stalled(&mut self, unacknowledged_bytes: u64, needed_bytes: u64) -> bool {
        let before = *self;
        *self = OutputWindow { unacknowledged_bytes: Some(unacknowledged_bytes), written_bytes: 0 };
        let Some(at_begin) = before.unacknowledged_bytes else { return false };
        let acknowledged_bytes = at_begin.saturating_add(before.written_bytes).saturating_sub(unacknowledged_bytes);
        acknowledged_bytes < needed_bytes.min(at_begin)
    }
}

impl Limits {
    /// The length of a window for a connection with this least rate: that in which it asks for as many bytes as the default rate does.
    pub(crate) fn window_for(&self, rate_min: u32) -> Duration {
        if rate_min == self.output_rate_min || self.output_rate_min == 0 || rate_min == 0 {
            return self.output_rate_window;
        }
        let millis = self.output_rate_window.as_millis().saturating_mul(u128::from(self.output_rate_min)) / u128::from(rate_min);
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// When output that is pending since `now` is looked at first. An eighth of a window: soon enough that a peer which never reads is closed
    /// after one window and an eighth, and so late that a fast peer's output is never looked at.
    pub(crate) fn first_look(&self, rate_min: u32, now: Instant) -> Option<Instant> {
        timers::after(now, self.window_for(rate_min) / 8)
    }
}

/// The bytes that a peer must acknowledge in a window: half of what the rate asks for, and at least 1.
pub(crate) fn needed_bytes(rate_min: u32, window: Duration) -> u64 {
    let bytes = window.as_millis().saturating_mul(u128::from(rate_min)) / 2000;
    u64::try_from(bytes).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_window_counts_what_was_acknowledged_in_it_and_no_other_bytes() {
        let mut window = OutputWindow::default();
        window.wrote(500);
        assert!(!window.ends_stalled(1000, 1), "the first look only begins the window");
        window.wrote(500);
        assert!(!window.ends_stalled(1400, 100), "1,500 less 1,400");
        window.wrote(300);
        assert!(window.ends_stalled(1650, 100), "1,700 less 1,650");
        assert!(window.ends_stalled(1650, 1), "nothing at all");
        assert!(!window.ends_stalled(0, 2000), "a peer that has acknowledged everything has not stalled");
    }

    #[test]
    fn a_connection_with_a_rate_of_its_own_has_a_window_that_asks_for_as_many_bytes() {
        let limits = Limits { output_rate_min: 500, output_rate_window: Duration::from_secs(270), ..Limits::default() };
        for (rate_min, seconds) in [(500, 270), (0, 270), (1000, 135), (5, 27_000)] {
            assert_eq!(limits.window_for(rate_min), Duration::from_secs(seconds));
            assert_eq!(needed_bytes(rate_min, limits.window_for(rate_min)), if rate_min == 0 { 1 } else { 67_500 });
        }
        let endless = Limits { output_rate_window: Duration::MAX, ..limits };
        let century = Duration::from_secs(100 * 365 * 24 * 60 * 60);
        assert!(endless.first_look(1, Instant::now()).is_none_or(|at| at > Instant::now() + century));
        assert_eq!(needed_bytes(u32::MAX, Duration::MAX), u64::MAX);
    }

    proptest! {
        /// Reads at `rate_min` or faster, and acknowledges in steps of `step_bytes`, which is at most what the least rate brings in a window.
        #[test]
        fn a_steady_reader_at_the_least_rate_never_stalls(
            step_bytes in 1..=135_000_u64,
            faster_percent in 100..1000_u64,
            phase_millis in 0..270_000_u64,
        ) {
            let limits = Limits { output_rate_min: 500, output_rate_window: Duration::from_secs(270), ..Limits::default() };
            let rate = 500 * faster_percent / 100;
            let mut window = OutputWindow::default();
            // The kernel always holds 200,000 bytes more than was acknowledged.
            let mut acknowledged_before = 0;
            for nth in 0..10_u64 {
                let read_bytes = rate * (phase_millis + nth * 270_000) / 1000;
                let acknowledged_bytes = read_bytes / step_bytes * step_bytes;
                window.wrote((acknowledged_bytes - acknowledged_before) as usize);
                acknowledged_before = acknowledged_bytes;
                prop_assert!(!window.ends_stalled(200_000, needed_bytes(500, limits.window_for(500))));
            }
        }
    }
}
