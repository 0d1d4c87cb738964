//! The deliberate mistakes of this crate: each is a wrong value of a policy, and a marked line that acts on it.
//!
//! None is on unless a configuration names it. To fork without them, delete this file and the arms whose comment begins with the marker.

use crate::limits::Config;
use crate::policy::{Abandoned, Capacity, Panics, SlowShare, ThreadModel};

/// Turns one mistake on.
pub type Switch = fn(&mut Config);

/// Each slug with what it changes.
pub static MISTAKES: &[(&str, Switch)] = &[
    ("pool-starvation", |config| config.policy.slow_share = SlowShare::Everything),
    ("unbounded-queue", |config| config.policy.capacity = Capacity::Unbounded),
    ("thread-per-job", |config| config.policy.thread_model = ThreadModel::ThreadPerJob),
    ("departed-clients", |config| config.policy.abandoned = Abandoned::RunAnyway),
    ("worker-panic", |config| config.policy.panics = Panics::EndThread),
];
