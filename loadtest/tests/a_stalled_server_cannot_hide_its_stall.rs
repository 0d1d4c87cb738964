//! The open loop against real sockets: what a stall does to each clock, by counts and not by speed.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Scripted, ok, run_json};

/// The 30th request stalls its connection, the only one, for half a second.
fn stalling() -> Scripted {
    Scripted::start(|request| {
        if request == 30 {
            std::thread::sleep(Duration::from_millis(500)); // The stall itself, not a wait for something.
        }
        Some(ok())
    })
}

#[test]
fn an_open_loop_sees_the_stall_in_every_request_that_was_due_meanwhile() {
    let server = stalling();
    let args = ["-R", "100", "-n", "200", "-c", "1", "--max-connections", "1", "--warmup", "0", "--timeout", "20s", "--drain", "20s"];
    let (output, document) = run_json(&server, &args);
    assert!(output.status.success(), "{}", common::stderr(&output));
    let totals = &document["totals"];
    assert_eq!((totals["scheduled"].as_u64(), totals["ok"].as_u64()), (Some(200), Some(200)), "{totals}");
    assert_eq!(server.requests.load(Ordering::SeqCst), 200);
    // 50 of 200 fall due in the half second; those due in its first 0.3 s wait 0.2 s or more: the slowest 15 %.
    let latency = &document["latency"];
    let at = |clock: &str, point: &str| latency[clock][point].as_u64().unwrap();
    assert!(at("response", "p90") >= 200_000, "{latency:#}");
    assert!(at("response", "max") >= 500_000 && at("service", "max") >= 500_000);
    // Exactly one request was on the wire during the stall: measured from sending, one sample in 200.
    assert!(at("service", "p99") * 2 < at("response", "p99"), "service {} response {}", at("service", "p99"), at("response", "p99"));
    assert!(at("wait", "max") >= 400_000, "later requests waited for the connection");
}

#[test]
fn a_closed_loop_leaves_out_what_it_should_have_asked() {
    let server = stalling();
    let args = ["-R", "100", "-n", "200", "-c", "1", "--closed", "--warmup", "0", "--timeout", "20s", "--drain", "20s"];
    let (output, document) = run_json(&server, &args);
    let totals = &document["totals"];
    let (scheduled, skipped) = (totals["scheduled"].as_u64().unwrap(), totals["skipped"].as_u64().unwrap());
    assert_eq!(scheduled + skipped, 200);
    assert!(skipped >= 40, "half a second at 100 a second: {skipped}");
    assert!(common::stderr(&output).contains("warning: closed loop"), "{}", common::stderr(&output));
}

#[test]
fn a_closed_loop_without_a_rate_asks_as_fast_as_it_is_answered() {
    let server = Scripted::start(|_| Some(ok()));
    let (output, document) = run_json(&server, &["-n", "500", "-c", "3", "--closed"]);
    assert!(output.status.success(), "{}", common::stderr(&output));
    assert_eq!(document["totals"]["ok"].as_u64(), Some(500));
    assert_eq!(server.requests.load(Ordering::SeqCst), 500);
}

#[test]
fn a_request_that_is_never_answered_is_a_timeout_and_in_the_histogram() {
    let server = Scripted::start(|request| if request == 10 { Some(Vec::new()) } else { Some(ok()) });
    let args = ["-R", "50", "-n", "20", "-c", "1", "--max-connections", "1", "--warmup", "0", "--timeout", "300ms"];
    let (_, document) = run_json(&server, &args);
    let totals = &document["totals"];
    let of = |name: &str| totals[name].as_u64().unwrap();
    assert!(of("timeouts") >= 1 && of("ok") + of("errors") + of("not_sent") == 20 && of("unfinished") == 0, "{totals}");
    let response = &document["latency"]["response"];
    assert_eq!(response["count"].as_u64(), Some(20), "timeouts are not left out");
    assert!(response["max"].as_u64() >= Some(300_000));
    let errors = document["errors"].as_array().unwrap();
    assert!(errors.iter().any(|error| error["phase"] == "first byte" && error["kind"] == "timeout"), "{errors:?}");
}

#[test]
fn a_server_that_answers_nothing_has_failed_each_request_and_the_run_waits_for_the_last_time_out() {
    let server = Scripted::start(|_| Some(Vec::new()));
    let args = ["-R", "50", "-n", "20", "-c", "20", "--warmup", "0", "--timeout", "1s", "--drain", "10ms"];
    let (output, document) = run_json(&server, &args);
    assert_eq!(output.status.code(), Some(1), "not one succeeded");
    assert!(common::stderr(&output).contains("not one of 20 requests succeeded"), "{}", common::stderr(&output));
    let totals = &document["totals"];
    assert_eq!((totals["timeouts"].as_u64(), totals["unfinished"].as_u64()), (Some(20), Some(0)), "{totals}");
    assert_eq!(document["latency"]["response"]["at_least"].as_u64(), Some(20));
    let cause = document["errors"][0]["cause"].as_str().unwrap();
    assert!(cause.contains("stalled or overloaded, ") && cause.ends_with(" after it was sent"), "{cause}");
}

#[test]
fn a_request_without_an_answer_at_the_end_is_unfinished_and_an_error_of_the_server() {
    let server = Scripted::start(|request| if request < 5 { Some(ok()) } else { Some(Vec::new()) });
    let url = server.url();
    let args = ["run", &url, "-R", "50", "-n", "10", "-c", "10", "--warmup", "0", "--timeout", "60s", "--json", "-", "--no-progress"];
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(args)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    while server.requests.load(Ordering::SeqCst) < 10 {
        std::thread::yield_now();
    }
    assert!(std::process::Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", common::stderr(&output));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let totals = &document["totals"];
    assert_eq!((totals["ok"].as_u64(), totals["unfinished"].as_u64()), (Some(5), Some(5)), "{totals}");
    assert_eq!(document["latency"]["response"]["at_least"].as_u64(), Some(5));
    assert!(common::stderr(&output).contains("  unfinished   no answer had come when the run ended"), "{}", common::stderr(&output));
}
