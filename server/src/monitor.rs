//! All that can be seen of a running server from outside its loops: counters, gauges, and whether it drains.
//!
//! Read next: `metrics.rs` and `admin.rs`, which show it; `watchdog.rs`, which looks at it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use reactor::os::descriptors::descriptor_limit;

use crate::http_stats::HttpStats;
use crate::ledger::Ledger;
use crate::logging::LogStats;
use crate::watchdog::LoopWatch;

/// One loop from outside.
#[derive(Debug)]
pub struct LoopView {
    /// The name of its thread: `loop-0`.
    pub name: String,
    /// The id of its thread, if the kernel told.
    pub tid: Option<u32>,
    /// What the loop counts.
    pub stats: Arc<reactor::Stats>,
    /// What its HTTP connections count.
    pub http: Arc<HttpStats>,
    /// What the watchdog has seen.
    pub watch: LoopWatch,
}

impl LoopView {
    /// Its connections by state: each is counted once. Not all of one instant.
    #[must_use]
    pub fn connections(&self) -> [(&'static str, u64); 3] {
        let (lingering, connecting) = (self.stats.connections_lingering.get(), self.stats.connections_connecting.get());
        let open = self.stats.connections_open.get().saturating_sub(lingering + connecting);
        [("open", open), ("lingering", lingering), ("connecting", connecting)]
    }
}

/// A server from outside.
#[derive(Debug)]
pub struct Monitor {
    /// When it started, by the wall clock.
    pub started_at: SystemTime,
    /// When it started, by the clock that never jumps.
    pub started: Instant,
    /// The loops that serve, not the admin port's.
    pub loops: Vec<LoopView>,
    /// What the worker pool counts.
    pub pool: Arc<worker_pool::Stats>,
    /// What the log counts.
    pub log: Arc<LogStats>,
    /// Deliberate mistakes that are on.
    pub mistakes: Vec<&'static str>,
    /// Connections of all loops together.
    pub connections_max: u32,
    /// The memory that is charged.
    pub ledger: Arc<Ledger>,
    /// Shutdown has begun.
    pub draining: AtomicBool,
}

impl Monitor {
    /// Whether shutdown has begun: `/readyz` then says so, and no new client should be sent here.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The descriptor limit now, which prlimit(2) may have changed since the start.
    #[must_use]
    pub fn descriptors_max(&self) -> u64 {
        descriptor_limit().unwrap_or_default() // Asked of one's own process, getrlimit(2) does not fail.
    }
}
