//! The scenarios of what a loop can do wrong with readiness, fairness, sharing and descriptors, as a user runs them. Each judges itself;
//! here it is enough that it finds its contrast.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::sync::{Mutex, PoisonError};

use common::{loadtest, stderr, stdout};

/// One at a time: each is about what a server does with the machine.
static ONE: Mutex<()> = Mutex::new(());

#[track_caller]
fn is_shown(slug: &str, file: &str) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sides.json");
    // A machine busy with other tests may make the generator late; the contrast must hold all the same.
    let output = loadtest(&["scenario", "run", slug, "--allow-saturated", "--no-progress", "--json", path.to_str().unwrap()]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    for needle in [format!("{slug}: "), format!("{file}:"), format!("docs/failures/{slug}.md")] {
        assert!(text.contains(&needle), "no '{needle}' in {text}");
    }
    let sides: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let sides: Vec<_> = sides.as_array().unwrap().iter().map(|side| side["scenario"]["side"].as_str().unwrap()).collect();
    assert_eq!(sides, ["broken", "correct"]);
}

#[test]
fn clients_that_have_gone_quiet_hang_when_a_socket_is_read_once_for_each_event() {
    is_shown("edge-starvation", "reactor/src/connection/drain_read.rs");
}

#[test]
fn everyone_waits_for_a_connection_that_is_never_empty() {
    is_shown("firehose", "reactor/src/connection/visit.rs");
}

#[test]
fn every_loop_wakes_for_each_connection_on_a_shared_listener() {
    is_shown("herd", "reactor/src/listen/sharing.rs");
}

#[test]
fn every_answer_waits_for_a_late_acknowledgement_when_it_is_written_in_two() {
    is_shown("split-write", "reactor/src/connection/sending.rs");
}

#[test]
fn clients_in_the_queue_hang_when_nobody_tries_again_after_emfile() {
    is_shown("fd-exhaustion", "reactor/src/listen/accept.rs");
}
