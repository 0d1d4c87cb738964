//! Addition of times and durations without a panic: `Instant + Duration` panics where no `Instant` can hold the sum.
//!
//! The limits and the arguments of this crate may be any `Duration`, and `Duration::MAX` is a common way to write "no limit". So the loop uses these
//! functions for durations that a caller chose. Test: `no_duration_is_too_long`.

use std::time::{Duration, Instant};

/// The time `duration` after `now`. `None` if no `Instant` can hold it, which means never.
#[inline]
pub(crate) fn after(now: Instant, duration: Duration) -> Option<Instant> {
    now.checked_add(duration)
}

/// `duration`, lengthened by `part` / 1024 of its tenth.
pub(crate) fn lengthened(duration: Duration, part: u32) -> Duration {
    let tenth = duration / 10;
    // Where the product would overflow, divide first. The rounding does not matter for such durations.
    let more = tenth.checked_mul(part).map_or_else(|| (tenth / 1024).saturating_mul(part), |product| product / 1024);
    duration.saturating_add(more)
}
