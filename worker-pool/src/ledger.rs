//! What submitters, workers and jobs in flight share: rules, permits, phase, counters. No lock in it.

use std::time::{Duration, Instant};

use crate::admission::expected_wait;
use crate::deadlines::DeadlineAlarm;
use crate::gradient::GradientLimit;
use crate::job::{Class, PHASE_RUNNING};
use crate::rules::Rules;
use crate::stats::Stats;
use crate::sync::{AtomicU8, Mutex, Ordering};
use std::sync::Arc;

/// The shared books of one pool.
pub(crate) struct Ledger {
    pub(crate) rules: Rules,
    pub(crate) stats: Arc<Stats>,
    /// One of the `PHASE_*` in `job.rs`; only ever rises.
    pub(crate) phase: AtomicU8,
    /// When the next waiting job expires.
    pub(crate) alarm: DeadlineAlarm,
    /// Jobs offered under pressure, to space a sample evenly.
    pub(crate) offered: std::sync::atomic::AtomicU64,
    /// Only workers lock it; what it decides is published in `stats.limit`.
    gradient: Option<Mutex<GradientLimit>>,
}

impl Ledger {
    pub(crate) fn new(rules: Rules) -> Self {
        let gradient = GradientLimit::from_rules(&rules);
        let limit = gradient.as_ref().map_or(rules.in_flight_max, GradientLimit::limit);
        Self {
            stats: Arc::new(Stats::new(limit)),
            phase: AtomicU8::new(PHASE_RUNNING),
            alarm: DeadlineAlarm::new(),
            offered: Default::default(),
            gradient: gradient.map(Mutex::new),
            rules,
        }
    }

    /// How long a job of this class would wait if it came now.
    pub(crate) fn expected_wait(&self, class: Class) -> Duration {
        expected_wait(&self.rules, class, self.stats.permits.in_flight(), self.stats.run_mean(class))
    }

    /// A job ran: wait and run together are its latency.
    pub(crate) fn latency(&self, latency: Duration, now: Instant) {
        let Some(gradient) = &self.gradient else {
            return;
        };
        // Poisoned: a panic in the arithmetic below. The limit stays where it was.
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

    /// Moves on to a later phase; an earlier one is ignored.
    pub(crate) fn raise_phase(&self, phase: u8) {
        self.phase.fetch_max(phase, Ordering::AcqRel);
    }
}
