//! What submitters, workers and jobs in flight share: rules, permits, phase, counters. A submitter takes no lock in it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admission::expected_wait;
use crate::deadlines::DeadlineAlarm;
use crate::gradient::GradientLimit;
use crate::job::{Class, PHASE_RUNNING};
use crate::resolved_config::ResolvedConfig;
use crate::stats::Stats;
use crate::sync::{AtomicU8, Mutex, Ordering};

/// The shared state of one pool.
pub(crate) struct PoolState {
    pub(crate) resolved: ResolvedConfig,
    pub(crate) stats: Arc<Stats>,
    /// One of the `PHASE_*` in `job.rs`; it only rises.
    pub(crate) phase: AtomicU8,
    /// When the next waiting job expires.
    pub(crate) alarm: DeadlineAlarm,
    /// Jobs offered under pressure, to space a sample evenly.
    pub(crate) offered_under_pressure: std::sync::atomic::AtomicU64,
    /// Locked by workers only. The limit that it computes is published in `stats.limit`.
    gradient: Option<Mutex<GradientLimit>>,
}

impl PoolState {
    pub(crate) fn new(resolved: ResolvedConfig) -> Self {
        let gradient = GradientLimit::from_config(&resolved);
        let limit = gradient.as_ref().map_or(resolved.in_flight_max, GradientLimit::limit);
        Self {
            stats: Arc::new(Stats::new(limit)),
            phase: AtomicU8::new(PHASE_RUNNING),
            alarm: DeadlineAlarm::new(),
            offered_under_pressure: Default::default(),
            gradient: gradient.map(Mutex::new),
            resolved,
        }
    }

    /// How long a job of this class would wait if it were admitted now.
    pub(crate) fn expected_wait(&self, class: Class) -> Duration {
        expected_wait(&self.resolved, class, self.stats.permits.in_flight(), self.stats.run_mean(class))
    }

    /// Records the latency of a job that ran: its wait and its run together.
    pub(crate) fn record_latency(&self, latency: Duration, now: Instant) {
        let Some(gradient) = &self.gradient else {
            return;
        };
        // Poisoned by a panic in `record`. The limit then stays where it was.
        let Ok(mut gradient) = gradient.lock() else {
            return;
        };
        if let Some(limit) = gradient.record(latency, self.stats.permits.in_flight().total(), now) {
            self.stats.set_limit(limit);
        }
    }

    pub(crate) fn phase(&self) -> u8 {
        self.phase.load(Ordering::Acquire)
    }

    /// Enters a later phase; an earlier one is ignored.
    pub(crate) fn raise_phase(&self, phase: u8) {
        self.phase.fetch_max(phase, Ordering::AcqRel);
    }
}
