//! A limit on jobs in flight that follows the gradient of latency.
//!
//! After Netflix/concurrency-limits `Gradient2Limit.java`, in its newest published form: with `rttTolerance` 1.5 and a decay of 0.95 (earlier
//! ones: no tolerance, 0.9). Latency that rises above 1.5 times its own long mean says that a queue grows, and the limit shrinks until it
//! does not; while latency is flat, the limit grows.

use std::time::{Duration, Instant};

use crate::policy::{Concurrency, Gradient};
use crate::resolved_config::ResolvedConfig;

/// The moving limit. Reads no clock.
#[derive(Debug)]
pub struct GradientLimit {
    settings: Gradient,
    limit: f64,
    limit_min: f64,
    limit_max: f64,
    long_s: Option<f64>,
    /// Windows that went into the long mean, up to `WARM_UP_WINDOWS`.
    warm: u32,
    window: Window,
}

/// The long mean starts as the plain mean of this many windows (the source's `ExpAvgMeasurement(longWindow, 10)`).
const WARM_UP_WINDOWS: u32 = 10;

/// What is left of the long mean after a window whose latency was below half of it (the source's `current * 0.95`).
const LONG_MEAN_DECAY: f64 = 0.95;

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    sum: Duration,
    samples: u32,
    in_flight_max: u32,
}

impl GradientLimit {
    /// `None` when the limit does not move.
    pub fn from_config(resolved: &ResolvedConfig) -> Option<Self> {
        let Concurrency::Gradient(settings) = resolved.concurrency else {
            return None;
        };
        let limit_min = f64::from(resolved.threads);
        // Starts small and grows while latency stays flat (the source starts at 20).
        let start = limit_min + f64::from(settings.queue_jobs);
        let limit_max = f64::from(resolved.in_flight_max);
        Some(Self { settings, limit: start.min(limit_max), limit_min, limit_max, long_s: None, warm: 0, window: Window::default() })
    }

    /// Jobs that may be in flight.
    pub fn limit(&self) -> u32 {
        self.limit as u32 // Within limit_min..=limit_max, both u32.
    }

    /// Records one job's latency and the number of jobs in flight. Returns the new limit at the end of a window.
    pub fn record(&mut self, latency: Duration, in_flight: u32, now: Instant) -> Option<u32> {
        let began = *self.window.began.get_or_insert(now);
        self.window.sum = self.window.sum.saturating_add(latency);
        self.window.samples = self.window.samples.saturating_add(1);
        self.window.in_flight_max = self.window.in_flight_max.max(in_flight);
        let due = now.saturating_duration_since(began) >= self.settings.window;
        if !due || self.window.samples < self.settings.window_samples_min {
            return None;
        }
        let window = std::mem::take(&mut self.window);
        let short_s = window.sum.as_secs_f64() / f64::from(window.samples);
        let long_s = self.blend_long(short_s);
        // A limit that is not reached shows nothing about a higher one.
        if f64::from(window.in_flight_max) < self.limit / 2.0 {
            return None;
        }
        // At least one half, so that one outlier does not shed more than half of the load. 1 means that there is no queue.
        let gradient = if short_s > 0.0 { (self.settings.rtt_tolerance * long_s / short_s).clamp(0.5, 1.0) } else { 1.0 };
        let wanted = self.limit * gradient + f64::from(self.settings.queue_jobs);
        let moved = self.limit * (1.0 - self.settings.smoothing) + wanted * self.settings.smoothing;
        self.limit = moved.clamp(self.limit_min, self.limit_max);
        Some(self.limit())
    }

    /// Adds this window to the long mean, and returns it.
    fn blend_long(&mut self, short_s: f64) -> f64 {
        let long_s = match self.long_s {
            None => short_s,
            Some(long_s) if self.warm < WARM_UP_WINDOWS => long_s + (short_s - long_s) / f64::from(self.warm + 1),
            Some(long_s) => {
                let factor = 2.0 / (f64::from(self.settings.long_windows) + 1.0);
                long_s * (1.0 - factor) + short_s * factor
            }
        };
        self.warm = (self.warm + 1).min(WARM_UP_WINDOWS);
        // Latency has fallen to normal after a long overload: the long mean falls faster than by its own smoothing. As in the source, this
        // window is judged by the mean before that.
        let decay = if long_s > short_s * 2.0 { LONG_MEAN_DECAY } else { 1.0 };
        self.long_s = Some(long_s * decay);
        long_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Config;

    fn limit() -> GradientLimit {
        let concurrency = Concurrency::Gradient(Gradient::default());
        let config = Config::with(|config| {
            config.threads = 2;
            config.policy.concurrency = concurrency;
        });
        GradientLimit::from_config(&ResolvedConfig::of(&config)).unwrap()
    }

    /// Windows of ten jobs with this latency, the limit reached; returns the limit after them.
    fn windows(limit: &mut GradientLimit, now: &mut Instant, windows: u32, latency_ms: u64) -> u32 {
        for _ in 0..windows {
            for _ in 0..11 {
                *now += Duration::from_millis(10);
                limit.record(Duration::from_millis(latency_ms), limit.limit(), *now);
            }
        }
        limit.limit()
    }

    #[test]
    fn the_limit_grows_while_latency_is_flat_and_shrinks_when_it_rises_but_not_below_the_threads() {
        let (mut limit, mut now) = (limit(), Instant::now());
        let start = limit.limit();
        let grown = windows(&mut limit, &mut now, 30, 20);
        assert!(grown > start, "{start} -> {grown}");
        let shrunk = windows(&mut limit, &mut now, 5, 200);
        assert!(shrunk < grown, "{grown} -> {shrunk}");
        assert!(windows(&mut limit, &mut now, 20, 10_000) >= 2);
    }

    #[test]
    fn the_limit_grows_more_slowly_only_when_latency_is_above_the_tolerance() {
        for (times, is_queue) in [(1.4, false), (1.6, true)] {
            let (mut limit, mut now) = (limit(), Instant::now());
            windows(&mut limit, &mut now, 30, 1_000);
            let before = limit.limit;
            // One window: it moves the long mean by less than one part in 100.
            windows(&mut limit, &mut now, 1, (1_000.0 * times) as u64);
            let flat = before + 0.2 * 4.0;
            assert_eq!(limit.limit < flat - 1e-9, is_queue, "{times} times the long mean: {before} -> {}", limit.limit);
        }
    }

    /// One window, by the formula of `Gradient2Limit._update`: every constant counts.
    #[test]
    fn one_window_moves_the_limit_by_the_published_formula() {
        let (mut limit, mut now) = (limit(), Instant::now());
        windows(&mut limit, &mut now, 30, 1_000);
        let (before, long_s) = (limit.limit, limit.long_s.expect("30 windows have ended"));
        windows(&mut limit, &mut now, 1, 2_000);
        let long_now = long_s * (1.0 - 2.0 / 601.0) + 2.0 * (2.0 / 601.0);
        let expected = before * 0.8 + (before * (1.5 * long_now / 2.0) + 4.0) * 0.2;
        assert!((limit.limit - expected).abs() < 1e-9, "{} and {expected}", limit.limit);
        // Below half of the long mean: that window is judged by the mean, the next one by 0.95 of it.
        let long_s = limit.long_s.expect("as before");
        windows(&mut limit, &mut now, 1, 100);
        let long_now = (long_s * (1.0 - 2.0 / 601.0) + 0.1 * (2.0 / 601.0)) * 0.95;
        assert!((limit.long_s.expect("as before") - long_now).abs() < 1e-9);
    }

    #[test]
    fn the_limit_does_not_grow_when_it_is_not_reached() {
        let (mut limit, mut now) = (limit(), Instant::now());
        let start = limit.limit();
        for _ in 0..1_000 {
            now += Duration::from_millis(10);
            limit.record(Duration::from_millis(20), 1, now);
        }
        assert_eq!(limit.limit(), start);
    }

    #[test]
    fn latency_that_falls_makes_the_limit_grow_by_one_step_a_window() {
        let (mut limit, mut now) = (limit(), Instant::now());
        let before = windows(&mut limit, &mut now, 30, 20);
        // It may grow by smoothing × queue_jobs = 0.2 × 4 in a window.
        let after = windows(&mut limit, &mut now, 5, 2);
        assert!(after > before && after <= before + 5, "{before} -> {after}");
    }
}
