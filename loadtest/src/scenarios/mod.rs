//! Every failure that can be shown, one file each. To add one: copy a file, name it in [`SCENARIOS`].

use crate::scenario::Scenario;

mod departed_clients;
mod early_close;
mod edge_starvation;
mod fd_exhaustion;
mod file_stall;
mod firehose;
mod herd;
mod loop_stall;
mod partial_read;
mod partial_write;
mod pool_starvation;
mod slow_consumer;
mod slowloris;
mod split_write;
mod thread_per_job;
mod unbounded_queue;
mod ungraceful_shutdown;
mod worker_panic;

/// All of them, in the order in which they are best read.
pub static SCENARIOS: &[Scenario] = &[
    loop_stall::SCENARIO,
    file_stall::SCENARIO,
    pool_starvation::SCENARIO,
    edge_starvation::SCENARIO,
    firehose::SCENARIO,
    herd::SCENARIO,
    unbounded_queue::SCENARIO,
    thread_per_job::SCENARIO,
    departed_clients::SCENARIO,
    slow_consumer::SCENARIO,
    worker_panic::SCENARIO,
    partial_read::SCENARIO,
    partial_write::SCENARIO,
    slowloris::SCENARIO,
    early_close::SCENARIO,
    ungraceful_shutdown::SCENARIO,
    split_write::SCENARIO,
    fd_exhaustion::SCENARIO,
];

/// The scenario of that slug.
#[must_use]
pub fn find(slug: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.slug == slug)
}

/// The slugs, for messages.
#[must_use]
pub fn slugs() -> String {
    SCENARIOS.iter().map(|scenario| scenario.slug).collect::<Vec<_>>().join(", ")
}
