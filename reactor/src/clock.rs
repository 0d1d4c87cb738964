//! Times from durations, without a panic: `Instant + Duration` panics where no `Instant` can hold the sum.
//!
//! The limits and the arguments of this crate are any `Duration`, and `Duration::MAX` is a usual way to say "no limit". So the loop adds here
//! and nowhere else. Test: `no_duration_is_too_long`.

use std::time::{Duration, Instant};

/// The time `duration` after `now`. `None` is never: no `Instant` is so far away.
#[inline]
pub(crate) fn after(now: Instant, duration: Duration) -> Option<Instant> {
    now.checked_add(duration)
}

/// `duration`, lengthened by a part of its tenth: `part` of 1024.
pub(crate) fn lengthened(duration: Duration, part: u32) -> Duration {
    let tenth = duration / 10;
    // Divided first where the product would not fit; there the rounding does not matter.
    let more = tenth.checked_mul(part).map_or_else(|| (tenth / 1024).saturating_mul(part), |product| product / 1024);
    duration.saturating_add(more)
}
