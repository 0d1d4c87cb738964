//! The deliberate mistakes of this crate: each a value beside the correct one, and the line it lives on.
//!
//! Nothing here is on unless someone asks for it by name. To fork without them, delete this file and the
//! arms whose comment begins with the marker.

use crate::limits::Config;
use crate::policy::{Abandoned, Panics, Placement, Queue, SlowShare};

/// Turns one mistake on.
pub type Switch = fn(&mut Config);

/// Each slug with what it changes.
pub static MISTAKES: &[(&str, Switch)] = &[
    ("pool-starvation", |config| config.policy.slow_share = SlowShare::Everything),
    ("unbounded-queue", |config| config.policy.queue = Queue::Unbounded),
    ("thread-per-job", |config| config.policy.placement = Placement::ThreadPerJob),
    ("departed-clients", |config| config.policy.abandoned = Abandoned::RunAnyway),
    ("worker-panic", |config| config.policy.panics = Panics::EndThread),
];
