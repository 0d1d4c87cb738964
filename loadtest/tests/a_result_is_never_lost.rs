//! A result that was measured is written to every output that can be written, also when another output or the user's terminal fails.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{Scripted, loadtest, ok, stderr, stdout};

/// A device on which every write fails with ENOSPC (full(4)).
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// The writing end of a pipe whose reader has gone: every write fails with EPIPE.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn run_args(url: &str) -> Vec<&str> {
    vec!["run", url, "-R", "50", "-n", "10", "-c", "1", "--warmup", "0", "--allow-saturated"]
}

/// The program with these arguments and streams; what is piped is returned.
fn with(args: &[&str], out: Stdio, err: Stdio) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest")).args(args).stdout(out).stderr(err).spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn a_full_or_closed_standard_error_changes_no_result_and_no_exit_code() {
    let server = Scripted::start(|_| Some(ok()));
    let url = server.url();
    // Each writes to standard error: progress, a warning, a complaint.
    let closed_loop = ["run", &url, "--closed", "-n", "10", "-c", "1", "--allow-saturated"];
    let second = ["run", &url, "-R", "50", "-d", "1s", "-c", "1", "--warmup", "0", "--allow-saturated"];
    for (args, code, needle) in [
        (run_args(&url), 0, "verdict"),
        (closed_loop.to_vec(), 0, "verdict"),
        (second.to_vec(), 0, "verdict"),
        (vec!["run", "http://127.0.0.1:1/", "-d", "1s"], 1, ""),
        (vec!["run", "nonsense"], 2, ""),
        (vec!["scenario", "run", "nonsense"], 2, ""),
        (vec!["--no-such-flag"], 2, ""),
    ] {
        for err in [full, closed] {
            let output = with(&args, Stdio::piped(), err());
            assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stdout(&output));
            assert!(stdout(&output).contains(needle), "{args:?}: {}", stdout(&output));
        }
    }
}

#[test]
fn scenarios_survive_a_full_standard_error_too() {
    let output = with(&["scenario", "run", "partial-read"], Stdio::piped(), full());
    assert!(stdout(&output).contains("partial-read: ") && output.status.code() == Some(0), "{output:?}");
}

#[test]
fn a_full_standard_output_is_exit_code_1_and_a_closed_one_is_not() {
    let server = Scripted::start(|_| Some(ok()));
    let url = server.url();
    for args in [run_args(&url), vec!["scenario", "list"], vec!["scenario", "show", "herd"], vec!["--help"], vec!["run", "--help"]] {
        let output = with(&args, full(), Stdio::piped());
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("standard output: No space left"), "{args:?}: {}", stderr(&output));
        // The reader has what it wanted (`| head`).
        assert_eq!(with(&args, closed(), Stdio::piped()).status.code(), Some(0), "{args:?}");
    }
}

#[test]
fn the_json_file_is_written_although_standard_output_is_full_and_the_summary_although_the_file_is() {
    let server = Scripted::start(|_| Some(ok()));
    let url = server.url();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run.json");
    let json =
        |path: &Path| [run_args(&url), vec!["--json", path.to_str().unwrap()]].concat().iter().map(|arg| (*arg).to_owned()).collect();
    let run = |args: Vec<String>, out| with(&args.iter().map(String::as_str).collect::<Vec<_>>(), out, Stdio::piped());
    let output = run(json(&path), full());
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let document: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(document["totals"]["ok"].as_u64(), Some(10));

    let output = run(json(Path::new("/dev/full")), Stdio::piped());
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("verdict") && stderr(&output).contains("--json '/dev/full'"), "{}", stderr(&output));
}

#[test]
fn a_directory_that_disappears_during_the_run_costs_the_file_and_not_the_summary() {
    let server = Scripted::start(|_| Some(ok()));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run.json");
    let mut child = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["run", &server.url(), "-R", "50", "-d", "2s", "-c", "1", "--warmup", "0", "--allow-saturated", "--json"])
        .arg(&path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (line, rest) = first_line(child.stderr.take().unwrap());
    assert!(line.contains("sched"), "{line}");
    directory.close().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("verdict"), "{}", stdout(&output));
    assert!(rest.join().unwrap().contains(path.to_str().unwrap()));
}

#[test]
fn a_run_that_fails_leaves_the_old_json_file_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run.json");
    std::fs::write(&path, "old").unwrap();
    let output = loadtest(&["run", "http://127.0.0.1:1/", "-d", "1s", "--json", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

/// The first line of a pipe, and a thread that reads the rest.
fn first_line(pipe: impl Read + Send + 'static) -> (String, std::thread::JoinHandle<String>) {
    let mut reader = BufReader::new(pipe);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let rest = std::thread::spawn(move || {
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        rest
    });
    (line, rest)
}

fn interrupted_by(program: &mut Command, url: &str, signal: &str) -> Output {
    let args = ["run", url, "-R", "50", "-d", "60s", "-c", "1", "--warmup", "0"];
    let mut child = program.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The first progress line says that the run is under way.
    let (line, rest) = first_line(child.stderr.take().unwrap());
    assert!(line.contains("sched"), "{line}");
    let kill =
        |signal: &str| assert!(Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status().unwrap().success());
    kill(signal);
    if signal == "HUP" && program.get_program() != env!("CARGO_BIN_EXE_loadtest") {
        kill("INT"); // Under nohup the first one does nothing.
    }
    let output = child.wait_with_output().unwrap();
    rest.join().unwrap();
    output
}

#[test]
fn sigterm_and_sighup_print_partial_results_as_sigint_does() {
    let server = Scripted::start(|_| Some(ok()));
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let output = interrupted_by(&mut Command::new(env!("CARGO_BIN_EXE_loadtest")), &server.url(), signal);
        assert_eq!(output.status.code(), Some(code), "{}", stdout(&output));
        assert!(stdout(&output).contains("interrupted after") && stdout(&output).contains("verdict"), "{}", stdout(&output));
    }
}

#[test]
fn an_ignored_sighup_stays_ignored_as_nohup_asks() {
    let server = Scripted::start(|_| Some(ok()));
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_loadtest")]);
    let output = interrupted_by(&mut shell, &server.url(), "HUP");
    assert_eq!(output.status.code(), Some(130), "SIGINT ended it, not SIGHUP: {}", stdout(&output));
}

/// A build may replace the program's file while scenarios run. The server of each side is this program again, so the second side must still start.
#[test]
fn scenarios_continue_when_a_build_replaces_the_program() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let program = directory.path().join("loadtest");
    std::fs::hard_link(env!("CARGO_BIN_EXE_loadtest"), &program).unwrap();
    let args = ["scenario", "run", "split-write", "--no-progress"];
    let running = Command::new(&program).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::fs::remove_file(&program).unwrap();
    let output = running.wait_with_output().unwrap();
    // 4: both sides ran, on a machine too busy to judge them.
    assert!(matches!(output.status.code(), Some(0 | 4)), "{}{}", stdout(&output), stderr(&output));
}
