//! With the mistake on both sides, or on neither, a scenario must not find its contrast: a lost fix, or a switch that does nothing, would stay
//! unseen otherwise. A busy machine is no excuse: these differ by all against none.

mod common;

use common::{loadtest, stderr, stdout};

#[track_caller]
fn vanishes(slug: &str) {
    for (control, sides) in [("mistake", "both sides had the mistake"), ("correct", "neither side had the mistake")] {
        let output = loadtest(&["scenario", "run", slug, "--no-progress", "--control", control]);
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(5), "--control {control}: {text}{}", stderr(&output));
        for needle in [sides, "result   NOT SHOWN"] {
            assert!(text.contains(needle), "no '{needle}' in {text}");
        }
        // What fails may be the first expectation or a later one.
        let fails = |line: &str| line.strip_prefix("expected").unwrap_or(line).trim_start().starts_with("NO ");
        assert!(text.lines().any(fails), "nothing that was expected fails in {text}");
    }
}

#[test]
fn clients_read_their_413_on_both_sides_or_on_neither() {
    vanishes("early-close");
}

#[test]
fn clients_hang_on_both_sides_or_on_neither() {
    vanishes("edge-starvation");
}

#[test]
fn every_loop_wakes_on_both_sides_or_one_on_each() {
    vanishes("herd");
}

/// The threads of the mistake wait for each other: the machine looks busy, and is not.
#[test]
fn both_sides_have_a_thread_for_each_job_or_neither_has() {
    vanishes("thread-per-job");
}
