//! Servers that misbehave on purpose, and what the generator says of them. By counts, and by times that the server itself has made.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Answer, Scripted, loadtest, ok, stderr, stdout};
use serde_json::Value;

/// One run at a time: they would delay each other.
static ONE: Mutex<()> = Mutex::new(());

/// Runs the program against the server; what it exits with, the JSON document, and the summary for people.
fn run(server: &Scripted, args: &[&str]) -> (Option<i32>, Value, String) {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let url = server.url();
    let args: Vec<&str> = ["run", &url, "--json", "-", "--no-progress", "--warmup", "0s"].into_iter().chain(args.iter().copied()).collect();
    read(&loadtest(&args))
}

fn read(output: &Output) -> (Option<i32>, Value, String) {
    let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", stdout(output), stderr(output)));
    (output.status.code(), document, stderr(output))
}

fn count(document: &Value, name: &str) -> u64 {
    document["totals"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {document:#}"))
}

/// `scheduled = ok + errors + unfinished + not_sent`, and each request is in the response times.
#[track_caller]
fn adds_up(document: &Value) {
    let sum: u64 = ["ok", "errors", "unfinished", "not_sent"].map(|name| count(document, name)).into_iter().sum();
    assert_eq!(count(document, "scheduled"), sum, "{:#}", document["totals"]);
    let response = &document["latency"]["response"];
    assert_eq!(response["count"].as_u64(), Some(sum), "{response}");
    let series = document["series"].as_array().unwrap();
    let of = |name: &str| series.iter().map(|second| second[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!((of("scheduled"), of("completed")), (sum, count(document, "completed")), "{series:#?}");
}

#[test]
fn requests_that_are_held_and_then_reset_rank_as_never() {
    // Of five requests two are held for 300 ms and reset.
    let server = Scripted::answering(|request| match request % 5 {
        0 | 1 => {
            std::thread::sleep(Duration::from_millis(300)); // The server's own delay, not a wait for something.
            Answer::Reset
        }
        _ => Answer::Bytes(ok()),
    });
    let (_, document, text) = run(&server, &["-R", "100", "-d", "2s", "-c", "64"]);
    adds_up(&document);
    let response = &document["latency"]["response"];
    let (never, known) = (response["never"].as_u64().unwrap(), response["known"].as_u64().unwrap());
    assert_eq!((never, never + known), (80, 200), "{response}");
    assert!(response["p50"].is_u64() && response["p90"].is_null() && response["max"].is_null(), "{response}");
    let failed = &document["latency"]["failed"];
    assert!(failed["count"].as_u64() == Some(80) && failed["p50"].as_u64() >= Some(299_000), "{failed}");
    let row = text.lines().find(|line| line.starts_with("response")).unwrap();
    assert!(row.contains("never"), "{text}");
    assert!(text.contains("the 120 good answers alone") && text.contains("until 80 requests failed"), "{text}");
}

#[test]
fn a_healthy_server_behind_too_few_connections_keeps_its_goodput() {
    // Each answer takes 100 ms, so ten connections carry 100 a second; 150 are due.
    let server = Scripted::start(|_| {
        std::thread::sleep(Duration::from_millis(100)); // How long an answer takes.
        Some(ok())
    });
    let (code, document, text) = run(&server, &["-R", "150", "-d", "4s", "-c", "10", "--max-connections", "10", "--timeout", "500ms"]);
    adds_up(&document);
    assert_eq!(code, Some(4), "{text}");
    let (ok, not_sent, errors) = (count(&document, "ok"), count(&document, "not_sent"), count(&document, "errors"));
    assert!(not_sent >= 100, "at least the third that the connections cannot carry: {text}");
    // A machine that is busy makes the answers longer, and then fewer fit.
    assert!(ok >= 250 && errors * 20 <= ok, "{ok} good answers, {errors} errors: {text}");
    assert!(text.contains("limited by --max-connections: all 10 busy for "), "{text}");
    assert!(text.contains("rate × latency needs about 1"), "{text}");
    assert!(!text.contains("stalled or overloaded") && !text.contains("generator OK"), "{text}");
    // The same server with connections enough.
    let (code, document, text) = run(&server, &["-R", "150", "-d", "2s", "-c", "64", "--timeout", "2s"]);
    assert_eq!((count(&document, "ok"), count(&document, "not_sent")), (300, 0), "{text}");
    assert!(code == Some(0) || text.contains("its own delay"), "{text}");
}

#[test]
fn quick_refusals_do_not_make_a_server_look_quick() {
    let busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_vec();
    let server = Scripted::start(move |request| Some(if request % 10 == 0 { ok() } else { busy.clone() }));
    let (_, document, text) = run(&server, &["-R", "500", "-d", "1s"]);
    adds_up(&document);
    assert_eq!((count(&document, "ok"), count(&document, "errors")), (50, 450));
    let row = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}")).to_owned();
    assert!(row("response").contains(" never "), "nine of ten never got what they asked for: {text}");
    assert!(row("successes").contains("the 50 good answers alone"), "{text}");
    assert!(row("status").contains("50 × 200, 450 × 503"), "{text}");
}

#[test]
fn redirects_are_counted_and_named_and_not_followed() {
    let moved = b"HTTP/1.1 301 Moved Permanently\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n".to_vec();
    let server = Scripted::start(move |_| Some(moved.clone()));
    let (_, _, text) = run(&server, &["-R", "600", "-n", "600"]);
    assert!(text.contains("3xx, not followed: 600 × 301"), "{text}");
    assert_eq!(server.requests.load(Ordering::SeqCst), 600);
}

#[test]
fn a_stall_is_told_as_a_silence_and_seen_in_the_second_in_which_its_requests_were_due() {
    // All connections are held from the 50th request on for 700 ms, and again 2 s later.
    let stalled_until = Arc::new(Mutex::new(Instant::now()));
    let server = Scripted::start(move |request| {
        let mut until = stalled_until.lock().unwrap();
        if request == 50 || request == 250 {
            *until = Instant::now() + Duration::from_millis(700);
        }
        std::thread::sleep(until.saturating_duration_since(Instant::now())); // The stall. The lock holds the other connections as well.
        Some(ok())
    });
    let (_, document, text) = run(&server, &["-R", "100", "-d", "4s", "-c", "100", "--max-connections", "200"]);
    adds_up(&document);
    assert!(text.contains("\nstalls   2 stalls of "), "{text}");
    assert!(text.contains(", on all connections at once; longest silence ") && text.contains(" requests fell due in it\n"), "{text}");
    // Due from 0.5 s to 1 s: they ended in the second after it.
    let first = &document["series"][0];
    assert!(first["max"].as_u64() >= Some(650_000) && first["p99"].as_u64() >= Some(600_000), "{first}");
    assert!(first["oldest_us"].as_u64() >= Some(400_000) && first["in_flight"].as_u64() >= Some(40), "{first}");
    assert_eq!(first["scheduled"].as_u64(), Some(100));
    assert!(first["completed"].as_u64() <= Some(60), "throughput counts where it ended: {first}");
}

#[test]
fn rates_are_over_the_time_that_was_measured() {
    let server = Scripted::start(|_| Some(ok()));
    for args in [["-n", "200", "-R", "200", "--arrivals", "poisson"].as_slice(), ["-n", "200", "--closed", "-c", "2"].as_slice()] {
        let (_, document, text) = run(&server, args);
        let elapsed = document["totals"]["elapsed_s"].as_f64().unwrap();
        assert!(elapsed > 0.0 && elapsed < 60.0, "{elapsed} s: {text}");
        assert!(document["totals"]["rate_completed"].as_f64().unwrap() >= 200.0 / 60.0, "{text}");
        assert_eq!(count(&document, "ok"), 200);
        assert_eq!(text.contains("use this"), !args.contains(&"--closed") && text.contains("generator OK"), "{text}");
    }
}

#[test]
fn each_request_of_a_burst_is_dated_when_it_is_written() {
    let server = Scripted::start(|_| Some(ok()));
    let args = ["-R", "32", "-n", "32", "--arrivals", "burst:32", "-c", "32", "--max-connections", "32"];
    let (_, document, text) = run(&server, &args);
    assert_eq!(count(&document, "ok"), 32, "{text}");
    // One turn makes 32 calls of write(2), of more than a microsecond each. If all had the stamp of the turn, the delays would be equal.
    let delay = &document["latency"]["send_delay"];
    let (first, last) = (delay["min"].as_u64().unwrap(), delay["max"].as_u64().unwrap());
    assert_eq!(delay["count"].as_u64(), Some(32));
    assert!(last >= first + 10, "32 writes within {first} to {last} µs: {delay}");
}

#[test]
fn the_send_delay_is_what_the_server_sees() {
    // The server dates each request. The generator is stopped for 300 ms in the middle, as a busy machine stops a process.
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let (seen, asked) = (Arc::clone(&arrivals), Arc::new(AtomicU64::new(0)));
    let counter = Arc::clone(&asked);
    let server = Scripted::start(move |_| {
        seen.lock().unwrap().push(Instant::now());
        counter.fetch_add(1, Ordering::SeqCst);
        Some(ok())
    });
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let url = server.url();
    let args = ["run", &url, "-R", "200", "-n", "400", "-c", "8", "--warmup", "0s", "--json", "-", "--no-progress"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    let child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let signal = |name: &str| assert!(Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap().success());
    while asked.load(Ordering::SeqCst) < 150 {
        std::thread::yield_now();
    }
    signal("STOP");
    std::thread::sleep(Duration::from_millis(300)); // How long the generator is stopped.
    signal("CONT");
    let (code, document, text) = read(&child.wait_with_output().unwrap());
    assert_eq!(count(&document, "ok"), 400);
    let mut times = arrivals.lock().unwrap().clone();
    times.sort_unstable();
    let mut gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort_unstable();
    let (median, longest) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    assert!((Duration::from_micros(3_500)..Duration::from_micros(6_500)).contains(&median), "5 ms at 200 a second, not {median:?}");
    assert!(longest >= Duration::from_millis(290), "{longest:?}");
    // The request that was due first in the gap was written at its end: the generator says so of itself, and blames no server.
    let told = Duration::from_micros(document["latency"]["send_delay"]["max"].as_u64().unwrap());
    let period = Duration::from_millis(5);
    assert!(told + 2 * period >= Duration::from_millis(300).min(longest), "the server saw {longest:?}, the generator says {told:?}");
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains("its own delay") && !text.contains("\nstalls "), "{text}");
    assert!(text.contains("a control thread woke up to "), "the cause is named: {text}");
}

#[test]
fn one_connection_shows_the_delayed_acknowledgement_that_many_connections_hide() {
    let server = Scripted::answering(|_| {
        let pieces = [b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n".as_slice(), b"Hello, World!"];
        Answer::Pieces(pieces.map(<[u8]>::to_vec).to_vec())
    });
    let (_, document, text) = run(&server, &["-R", "100", "-d", "2s", "-c", "64"]);
    let one = document["one_connection"]["service_p50_us"].as_u64().unwrap();
    let many = document["latency"]["service"]["p50"].as_u64().unwrap();
    assert!(one >= 38_000, "a delayed acknowledgement takes 40 ms: {one} µs on one connection, {many} on 64");
    if many < 10_000 {
        assert!(text.contains("\none conn p50 ") && text.contains(" where 64 connections show "), "{text}");
    }
    let (_, document, _) = run(&server, &["-R", "100", "-d", "1s", "-c", "64", "--one-connection", "0s"]);
    assert!(document["one_connection"].is_null());
}
