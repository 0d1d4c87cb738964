//! A rate limit for log lines of one kind, so that a client or a lasting condition does not fill the disk or keep the loop busy with logging.
//!
//! Each kind of line has its own limit, so that many lines of one kind do not suppress another kind. The counters in `stats.rs` are exact.

use std::fmt;
use std::time::{Duration, Instant};

/// Time between two lines of one kind. Short enough to see that a condition lasts, and at most 8,640 lines a day.
const INTERVAL: Duration = Duration::from_secs(10);

/// The limit of one kind of line.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    written: Option<Instant>,
    suppressed: u64,
}

/// The kinds of lines that a client or a lasting condition can cause repeatedly.
#[derive(Debug, Default)]
pub(crate) struct LogLimits {
    /// accept(2) fails because of the listener.
    pub(crate) accept: LogLimit,
    /// epoll_ctl(2) fails to register a connection.
    pub(crate) register: LogLimit,
    /// A connection is lost between two loops.
    pub(crate) hand_off: LogLimit,
}

impl LogLimit {
    /// Logs a warning. Within [`INTERVAL`] of the last one it only counts it, and the next line reports the count. Test:
    /// `a_listeners_own_error_is_retried_after_a_pause`.
    #[cold]
    pub(crate) fn warn(&mut self, now: Instant, line: fmt::Arguments<'_>) {
        if self.written.is_some_and(|written| now.saturating_duration_since(written) < INTERVAL) {
            self.suppressed += 1;
            return;
        }
        self.written = Some(now);
        match std::mem::take(&mut self.suppressed) {
            0 => log::warn!("{line}"),
            suppressed => log::warn!("{line} ({suppressed} more since the last line)"),
        }
    }
}
