//! The scenarios of what can be done wrong with the threads of a worker pool, and with work that needs one, as a user runs them.

mod common;

use common::is_shown;

#[test]
fn everyone_waits_for_a_disk_that_is_asked_on_the_loop() {
    is_shown("file-stall", "server/src/dispatch.rs");
}

#[test]
fn fast_jobs_wait_for_slow_ones_that_may_take_every_thread() {
    is_shown("pool-starvation", "worker-pool/src/resolved_config.rs");
}

#[test]
fn clients_decide_how_many_threads_there_are_when_each_job_has_its_own() {
    is_shown("thread-per-job", "worker-pool/src/worker.rs");
}

#[test]
fn as_many_panics_as_workers_leave_no_thread_to_run_a_job() {
    is_shown("worker-panic", "worker-pool/src/worker.rs");
}
