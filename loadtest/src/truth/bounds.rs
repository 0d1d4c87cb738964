//! Quantiles of all requests, the failed and the waiting ones included.
//!
//! A request that failed ranks as *never*: no time would have been long enough. A request that was still waiting when it was given up
//! ranks at its lower bound: it would have taken at least that long. A quantile is therefore an interval. Tests:
//! `a_quantile_in_the_region_of_failures_is_never`, `a_quantile_in_the_region_of_time_outs_is_a_lower_bound`.
//! Read next: `stamps.rs`.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

use crate::histogram::{histogram, record};
use crate::units::microseconds;

/// A quantile is shown only if at least this many samples are above it. With fewer, another run prints another number.
pub const SAMPLES_ABOVE_MIN: f64 = 10.0;

/// Whether a quantile of `samples` samples means something: at least [`SAMPLES_ABOVE_MIN`] of them are above it.
#[must_use]
pub fn is_supported(quantile: f64, samples: u64) -> bool {
    // A little less: 10,000 × (1 - 0.999) is 10 on paper and 9.99… in floating point.
    samples as f64 * (1.0 - quantile) >= SAMPLES_ABOVE_MIN - 1e-6
}

/// The fewest samples of which the quantile means something.
#[must_use]
pub fn samples_needed(quantile: f64) -> u64 {
    (SAMPLES_ABOVE_MIN / (1.0 - quantile)).round() as u64
}

/// The interval in which a quantile lies, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// At least this; `None` is never.
    pub low_us: Option<u64>,
    /// At most this; `None` is without a limit.
    pub high_us: Option<u64>,
}

impl Bound {
    /// A time that is known.
    #[must_use]
    pub const fn exactly(us: u64) -> Bound {
        Bound { low_us: Some(us), high_us: Some(us) }
    }

    /// Whether the time is known.
    #[must_use]
    pub fn is_exact(self) -> bool {
        self.low_us.is_some() && self.low_us == self.high_us
    }
}

impl fmt::Display for Bound {
    /// `212ms`, `≥ 5.0s`, or `never`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.low_us {
            None => f.pad("never"),
            Some(us) if self.is_exact() => f.pad(&microseconds(us)),
            Some(us) => f.pad(&format!("≥ {}", microseconds(us))),
        }
    }
}

impl Serialize for Bound {
    /// The lower bound in microseconds; null for never.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.low_us.serialize(serializer)
    }
}

/// The response times of all requests of a class, or of one second.
#[derive(Clone, Debug)]
pub struct Times {
    /// Requests that were answered as they should be.
    pub known: Histogram<u64>,
    /// Requests that were given up while they waited, each at the time that had passed: timed out, unfinished, or not sent.
    pub at_least: Histogram<u64>,
    /// Requests that failed: a broken connection, an error status, a wrong body.
    pub never: u64,
}

impl Default for Times {
    fn default() -> Times {
        Times { known: histogram(), at_least: histogram(), never: 0 }
    }
}

impl Times {
    /// An answered request.
    pub fn answered(&mut self, took: Duration) {
        record(&mut self.known, took);
    }

    /// A request that was given up.
    pub fn gave_up(&mut self, after: Duration) {
        record(&mut self.at_least, after);
    }

    /// All requests.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.known.len() + self.at_least.len() + self.never
    }

    /// Whether there was no request.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds the requests of another thread.
    pub fn add(&mut self, other: &Times) {
        #[expect(clippy::expect_used, reason = "histogram() gives all of them the same bounds")]
        for (mine, theirs) in [(&mut self.known, &other.known), (&mut self.at_least, &other.at_least)] {
            mine.add(theirs).expect("equal bounds");
        }
        self.never += other.never;
    }

    /// Known times and lower bounds together; failures, which have no time, are not in it.
    #[must_use]
    pub fn lower_bounds(&self) -> Histogram<u64> {
        let mut all = self.known.clone();
        #[expect(clippy::expect_used, reason = "histogram() gives all of them the same bounds")]
        all.add(&self.at_least).expect("equal bounds");
        all
    }

    /// The time that this part of all requests did not exceed; `None` if there was no request.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Bound> {
        let len = self.len();
        if len == 0 {
            return None;
        }
        // As `Histogram::value_at_quantile` counts: the smallest time that at least this many requests did not exceed.
        let rank = ((quantile * len as f64).ceil() as u64).clamp(1, len);
        let low_us = if self.at_least.is_empty() { at_rank(&self.known, rank) } else { at_rank(&self.lower_bounds(), rank) };
        Some(Bound { low_us, high_us: at_rank(&self.known, rank) })
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> Option<Bound> {
        match (self.len(), self.never, self.at_least.is_empty()) {
            (0, ..) => None,
            (_, 0, true) => Some(Bound::exactly(self.known.max())),
            (_, 0, false) => Some(Bound { low_us: Some(self.known.max().max(self.at_least.max())), high_us: None }),
            _ => Some(Bound { low_us: None, high_us: None }),
        }
    }
}

/// The value of the `rank`th smallest sample, counted from 1; `None` beyond the last one.
fn at_rank(histogram: &Histogram<u64>, rank: u64) -> Option<u64> {
    // Half a sample below: the histogram rounds up to whole samples.
    (rank <= histogram.len()).then(|| histogram.value_at_quantile((rank as f64 - 0.5) / histogram.len() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn times(known_ms: &[u64], at_least_ms: &[u64], never: u64) -> Times {
        let mut times = Times { never, ..Times::default() };
        known_ms.iter().for_each(|ms| times.answered(Duration::from_millis(*ms)));
        at_least_ms.iter().for_each(|ms| times.gave_up(Duration::from_millis(*ms)));
        times
    }

    fn text(times: &Times, quantile: f64) -> String {
        times.quantile(quantile).unwrap().to_string()
    }

    #[test]
    fn a_quantile_in_the_region_of_failures_is_never() {
        // 600 answered within 15 ms, 400 reset.
        let times = times(&[15; 600], &[], 400);
        assert_eq!((text(&times, 0.5), text(&times, 0.6), text(&times, 0.61)), ("15ms".into(), "15ms".into(), "never".into()));
        assert_eq!(times.max().unwrap().to_string(), "never");
        assert_eq!(times.len(), 1000);
    }

    #[test]
    fn a_quantile_in_the_region_of_time_outs_is_a_lower_bound() {
        let times = times(&[2; 900], &[5000; 100], 0);
        assert_eq!((text(&times, 0.9), text(&times, 0.99)), ("2.0ms".into(), "≥ 5.00s".into()));
        assert_eq!(times.max().unwrap(), Bound { low_us: Some(times.at_least.max()), high_us: None });
    }

    #[test]
    fn a_request_given_up_early_makes_the_quantiles_above_it_an_interval() {
        // Any of the two that were given up after 10 ms may have taken longer than all others.
        let times = times(&[20, 30, 40, 50], &[10, 10], 0);
        let median = times.quantile(0.5).unwrap();
        assert_eq!((median.low_us.map(|us| us / 1000), median.high_us.map(|us| us / 1000)), (Some(20), Some(40)));
        assert_eq!(median.to_string(), "≥ 20ms");
    }

    #[test]
    fn a_quantile_needs_ten_samples_above_it() {
        for (quantile, needed) in [(0.5, 20), (0.9, 100), (0.95, 200), (0.99, 1000), (0.999, 10_000)] {
            assert_eq!(samples_needed(quantile), needed);
            assert!(is_supported(quantile, needed) && !is_supported(quantile, needed - 1), "{quantile}");
        }
    }

    proptest! {
        #[test]
        fn the_bounds_of_a_quantile_hold_whatever_the_given_up_requests_would_have_taken(
            known in proptest::collection::vec(1u64..2000, 0..40), given_up in proptest::collection::vec((1u64..1000, 0u64..5000), 0..20),
            never in 0u64..5, quantile in 0.01f64..1.0,
        ) {
            let at_least: Vec<u64> = given_up.iter().map(|(after, _)| *after).collect();
            let bounds = times(&known, &at_least, never).quantile(quantile);
            let mut truth: Vec<u64> = known.iter().copied().chain(given_up.iter().map(|(after, more)| after + more)).collect();
            truth.sort_unstable();
            let len = truth.len() as u64 + never;
            prop_assert_eq!(bounds.is_some(), len > 0);
            if let Some(Bound { low_us, high_us }) = bounds {
                let rank = ((quantile * len as f64).ceil() as u64).clamp(1, len) as usize;
                match truth.get(rank - 1) {
                    // Three digits: a histogram rounds by less than one part in 1,000.
                    Some(ms) => {
                        prop_assert!(low_us.is_some_and(|low| low <= ms * 1000 + ms + 1), "{:?} above {}", low_us, ms);
                        prop_assert!(high_us.is_none_or(|high| high + ms + 1 >= ms * 1000), "{:?} below {}", high_us, ms);
                    }
                    None => prop_assert_eq!(high_us, None),
                }
            }
        }
    }
}
