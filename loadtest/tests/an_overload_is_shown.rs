//! The scenarios of what a pool can do wrong under an overload, as a user runs them. Each judges itself; here it is enough that it finds
//! its contrast.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::sync::{Mutex, PoisonError};

use common::{loadtest, stderr, stdout};

/// One at a time: each is about what a server does with the machine.
static ONE: Mutex<()> = Mutex::new(());

#[track_caller]
fn is_shown(slug: &str, file: &str) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let output = loadtest(&["scenario", "run", slug, "--allow-saturated", "--no-progress"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    for needle in [format!("{slug}: "), format!("{file}:"), format!("docs/failures/{slug}.md")] {
        assert!(text.contains(&needle), "no '{needle}' in {text}");
    }
}

#[test]
fn a_queue_without_a_bound_grows_and_no_client_is_served_in_time() {
    is_shown("unbounded-queue", "worker-pool/src/resolved_config.rs");
}

#[test]
fn work_for_those_who_have_left_is_taken_from_those_who_stay() {
    is_shown("departed-clients", "worker-pool/src/queue.rs");
}
