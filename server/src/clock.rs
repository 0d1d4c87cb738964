//! Times from durations, without a panic: `Instant + Duration` panics where no `Instant` can hold the sum.
//!
//! A setting may be any [`Duration`], and `Duration::MAX` is a usual way to say "no limit". So wherever a time of somebody else's choice is
//! added, it is added here. Test: `no_duration_of_a_setting_is_too_long`. Read next: `exchange.rs`, which adds the most.

use std::time::{Duration, Instant};

/// Far enough to be never: 100 years.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The time `duration` after `start`; at least 100 years after it if no [`Instant`] can hold that.
#[inline]
#[must_use]
pub fn later(start: Instant, duration: Duration) -> Instant {
    start.checked_add(duration).unwrap_or_else(|| farthest(start))
}

/// `start` itself can only be as far away as this function has put it, or as a service has chosen.
#[cold]
fn farthest(start: Instant) -> Instant {
    start.checked_add(NEVER).unwrap_or(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_duration_can_be_added_to_any_time_and_none_leads_back(
            first in any::<Duration>(),
            second in any::<Duration>(),
        ) {
            let now = Instant::now();
            for duration in [first, second, Duration::MAX, Duration::ZERO] {
                let once = later(now, duration);
                prop_assert!(once >= now && once.duration_since(now) >= duration.min(NEVER));
                prop_assert!(later(once, second) >= once);
                prop_assert!(later(once, Duration::MAX) >= once);
            }
        }
    }
}
