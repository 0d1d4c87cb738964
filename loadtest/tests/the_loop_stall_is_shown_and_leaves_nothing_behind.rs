//! The scenario as a user runs it: real servers, real load, a judged contrast; and no process that outlives its generator.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::io::BufRead;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{loadtest, stderr, stdout};

/// One scenario at a time: two generators and two servers on two cores would measure each other.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn the_contrast_of_loop_stall_holds() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sides.json");
    let args = ["scenario", "run", "loop-stall", "--no-progress", "--json", path.to_str().unwrap()];
    // A hiccup of a shared machine can spoil one measurement; a contrast that is gone spoils them all.
    let shown = |output: &std::process::Output| output.status.code() != Some(5);
    let output = (0..3).map(|_| loadtest(&args)).find(shown).unwrap_or_else(|| loadtest(&args));
    let text = stdout(&output);
    match output.status.code() {
        Some(0) => assert!(text.contains("expected yes  ") && text.contains("\nresult   shown\n") && !text.contains(" NO "), "{text}"),
        // This machine is too busy to measure on, and the program has said so: then the contrast is not judged, only what surrounds it.
        Some(4) => eprintln!("not judged, since the generator was late: {text}"),
        code => panic!("exit {code:?}: {text}{}", stderr(&output)),
    }
    for needle in [
        "loop-stall: ",
        "GET /, p99 latency from when it was due",
        "(10 × ",
        "server/src/dispatch.rs:",
        "docs/failures/loop-stall.md",
        "\nverdict  with the mistake: ",
    ] {
        assert!(text.contains(needle), "no '{needle}' in {text}");
    }
    let sides: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let side = |index: usize| (&sides[index]["scenario"]["side"], &sides[index]["totals"], &sides[index]["config"]["seed"]);
    assert_eq!((side(0).0.as_str(), side(1).0.as_str()), (Some("broken"), Some("correct")));
    assert_eq!(side(0).2, side(1).2, "both sides have the same seed");
    for index in [0, 1] {
        assert_eq!(side(index).1["scheduled"].as_u64(), Some(12_000), "the schedule does not depend on the server");
    }
    assert_ne!(sides[0]["classes"]["victims"]["config"]["from"], sides[1]["classes"]["victims"]["config"]["from"]);
}

/// A running `scenario run loop-stall`, once its first progress line has come; and the process id of its server.
fn running() -> (Child, u32) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["scenario", "run", "loop-stall"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut progress = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    progress.read_line(&mut line).unwrap();
    assert!(line.starts_with("[1/1] loop-stall ") && line.ends_with(" left\n"), "{line}");
    std::thread::spawn(move || std::io::copy(&mut progress, &mut std::io::sink()));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let server = loop {
        // The line comes before the server is started.
        match children_of(child.id())[..] {
            [server] => break server,
            [] => assert!(std::time::Instant::now() < until, "no server was started"),
            ref servers => panic!("one server at a time: {servers:?}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(5)); // Between two looks; the test does not depend on its length.
    };
    (child, server)
}

fn children_of(parent: u32) -> Vec<u32> {
    let children = |pid: &u32| stat(*pid).is_some_and(|(_, of)| of == parent);
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(children).collect()
}

/// State and parent of a process (proc_pid_stat(5)).
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap().success());
}

/// Waits until the process is gone, or is a zombie that this test cannot reap.
fn wait_until_gone(pid: u32) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while stat(pid).is_some_and(|(state, _)| state != 'Z') {
        assert!(std::time::Instant::now() < until, "process {pid} still runs");
        std::thread::sleep(std::time::Duration::from_millis(5)); // Between two looks; the test does not depend on its length.
    }
}

#[test]
fn a_generator_that_is_killed_leaves_no_server_behind() {
    let _alone = alone();
    let (mut child, server) = running();
    signal("KILL", child.id());
    child.wait().unwrap();
    wait_until_gone(server);
}

#[test]
fn an_interrupted_scenario_says_so_ends_its_server_and_exits_with_130() {
    let (child, server) = running();
    signal("INT", child.id());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stdout(&output));
    assert!(stdout(&output).contains("interrupted"), "{}", stdout(&output));
    wait_until_gone(server);
}
