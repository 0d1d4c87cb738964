//! A bound on log lines of one kind: a client, or a condition that lasts, must not fill the disk or keep the loop busy with its log.
//!
//! Each kind of line has a limit of its own, so that many of one do not hide another. What is counted besides is exact (`stats.rs`).

use std::fmt;
use std::time::{Duration, Instant};

/// Time between two lines of one kind. Often enough to see that a condition lasts: 8,640 lines a day.
const INTERVAL: Duration = Duration::from_secs(10);

/// The limit of one kind of line.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    written: Option<Instant>,
    suppressed: u64,
}

/// The kinds of lines that a client or a condition that lasts can cause again and again.
#[derive(Debug, Default)]
pub(crate) struct LogLimits {
    /// accept(2) fails because of the listener.
    pub(crate) accept: LogLimit,
    /// The system refuses to register a connection.
    pub(crate) register: LogLimit,
    /// A connection is lost between two loops.
    pub(crate) hand_off: LogLimit,
}

impl LogLimit {
    /// Writes a warning, or counts it for the next one. Test: `a_listeners_own_error_is_retried_after_a_pause`.
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
