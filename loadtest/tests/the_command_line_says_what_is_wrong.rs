//! Exit codes, thresholds, outputs and refusals, as scripts and people meet them.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use common::{Scripted, loadtest, ok, stderr, stdout};

#[test]
fn wrong_arguments_are_one_line_with_the_value_and_what_is_allowed_and_exit_code_2() {
    for (args, needles) in [
        (["run", "https://localhost/", "-c", "1"], ["https://localhost/", "http://HOST[:PORT]"]),
        (["run", "localhost:8080", "-c", "1"], ["localhost:8080", "http://HOST[:PORT]"]),
        (["run", "http://localhost/", "-d", "10"], ["'10'", "10s"]),
        (["run", "http://localhost/", "-R", "-5"], ["'-5'", "above 0"]),
        (["run", "http://localhost/", "--timeout", "5 s x"], ["5 s x", "us, ms, s, m, h"]),
        (["run", "http://localhost/", "-q", "100"], ["-q", "-R RATE"]),
        (["run", "http://localhost/", "--fail-if", "p99>250"], ["p99>250", "250ms"]),
    ] {
        let output = loadtest(&args);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(needles.iter().all(|needle| text.contains(needle)), "{args:?}: {text}");
        assert!(!text.contains("panicked"), "{text}");
        assert!(output.stdout.is_empty());
    }
    let output = loadtest(&["scenario", "run", "no-such-thing"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("'no-such-thing'") && stderr(&output).contains("loop-stall"), "{}", stderr(&output));
}

#[test]
fn a_url_alone_runs_and_prints_the_summary_on_standard_output_and_progress_on_standard_error() {
    let server = Scripted::start(|_| Some(ok()));
    let output = loadtest(&[&server.url(), "-R", "50", "-d", "2s", "-c", "2", "--warmup", "0", "--allow-saturated"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text} {}", stderr(&output));
    let labels: Vec<_> = text.lines().filter_map(|line| line.split("  ").next()).filter(|label| !label.is_empty()).map(str::trim).collect();
    assert_eq!(labels.first().map(|label| label.starts_with("loadtest ")), Some(true));
    // Other lines appear only when they matter, such as `stalls` and `wait`.
    let always = ["requests", "rate", "status", "latency", "response", "service", "connect", "send delay", "errors", "verdict"];
    let shown: Vec<_> = labels[1..].iter().copied().filter(|label| always.contains(label)).collect();
    assert_eq!(shown, always, "{text}");
    assert!(stderr(&output).contains("/s sched  "), "{}", stderr(&output));
}

#[test]
fn a_threshold_that_is_met_is_exit_code_3_and_one_that_is_not_is_0() {
    let server = Scripted::start(|_| Some(ok()));
    let url = server.url();
    let run = |condition| {
        let args =
            ["run", &url, "-R", "50", "-n", "10", "-c", "1", "--warmup", "0", "--no-progress", "--allow-saturated", "--fail-if", condition];
        let output = loadtest(&args);
        (output.status.code(), stdout(&output))
    };
    let (code, text) = run("ok<11");
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("fail-if  ok<11   FAILED (ok is 10)"), "{text}");
    assert_eq!(run("errors>0").0, Some(0));
}

#[test]
fn json_goes_to_a_file_and_the_summary_stays_on_standard_output() {
    let server = Scripted::start(|_| Some(ok()));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run.json");
    let args = [
        "run",
        &server.url(),
        "-R",
        "50",
        "-n",
        "10",
        "-c",
        "1",
        "--warmup",
        "0",
        "--no-progress",
        "--allow-saturated",
        "--json",
        path.to_str().unwrap(),
    ];
    let output = loadtest(&args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("verdict"));
    let document: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!((document["schema"].as_str(), document["totals"]["ok"].as_u64()), (Some("loadtest/1"), Some(10)));
    let nowhere = loadtest(&["run", &server.url(), "-d", "1s", "--json", "/no/such/directory/run.json"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(stderr(&nowhere).contains("/no/such/directory/run.json"), "{}", stderr(&nowhere));
}

#[test]
fn an_interrupt_prints_what_there_is_and_exits_with_130() {
    use std::process::{Command, Stdio};
    let server = Scripted::start(|_| Some(ok()));
    let mut child = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["run", &server.url(), "-R", "50", "-d", "60s", "-c", "1", "--warmup", "0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The first progress line says that the run is under way.
    let mut progress = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut progress, &mut line).unwrap();
    assert!(line.contains("sched"), "{line}");
    let status = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
    assert!(status.success());
    let drained = std::thread::spawn(move || std::io::copy(&mut progress, &mut std::io::sink()));
    let output = child.wait_with_output().unwrap();
    drained.join().unwrap().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(stdout(&output).contains("interrupted after") && stdout(&output).contains("verdict"), "{}", stdout(&output));
}

#[test]
fn scenarios_are_listed_and_explained_without_being_run() {
    let list = loadtest(&["scenario", "list"]);
    assert_eq!(list.status.code(), Some(0));
    assert!(stdout(&list).starts_with("loop-stall  "), "{}", stdout(&list));
    let show = stdout(&loadtest(&["scenario", "show", "loop-stall"]));
    for needle in [
        "--mistake loop-stall",
        "strace -r",
        "ps -T",
        "server/src/dispatch.rs:",
        "docs/failures/loop-stall.md",
        "at least 10 × (GET /, p99 latency from when it was due, correct)",
    ] {
        assert!(show.contains(needle), "no '{needle}' in {show}");
    }
}

#[test]
fn a_url_without_its_scheme_gets_a_suggestion_with_and_without_the_word_run() {
    for args in [&["localhost:8080"][..], &["127.0.0.1:8080", "-R", "5"], &["run", "localhost:8080"]] {
        let output = loadtest(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains("did you mean http://"), "{args:?}: {}", stderr(&output));
    }
    let output = loadtest(&["scenarios"]);
    assert!(stderr(&output).contains("scenario") && output.status.code() == Some(2), "{}", stderr(&output));
}

#[test]
fn flags_may_come_before_the_url_as_in_wrk_and_a_body_may_be_a_file() {
    let server = Scripted::start(|_| Some(ok()));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("body");
    std::fs::write(&path, "x").unwrap();
    let body = format!("@{}", path.display());
    let url = server.url();
    let args = ["-R50", "-L", "-n5", "-c1", "--warmup", "0", "--no-progress", "--allow-saturated", "-m", "GET", "-b", &body, &url];
    let output = loadtest(&args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("verdict"), "{}", stdout(&output));
}

#[test]
fn variables_hold_without_arguments() {
    use std::process::Command;
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest")).env("LOADTEST_SEED", "many").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("'many'") && stderr(&output).contains("--seed"), "{}", stderr(&output));
}
