//! The scenarios of what can be done wrong with the threads of a worker pool, and with work that needs one, as a user runs them.

mod common;

use common::is_shown;

#[test]
fn fast_jobs_wait_for_slow_ones_that_may_take_every_thread() {
    is_shown("pool-starvation", "worker-pool/src/rules.rs");
}
