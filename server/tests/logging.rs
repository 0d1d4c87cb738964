//! The log: it stops nobody, and says what matters in one line each.

mod process;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use process::{Server, command, get, sample, wait_for};

fn with_log(flags: &[&str], filter: &str) -> Server {
    Server::spawn(command().args(flags).env("RUST_LOG", filter).stderr(Stdio::piped()))
}

/// One refused request: a line at `debug`.
fn refused(server: &Server) {
    let mut stream = TcpStream::connect(server.http).expect("it accepts");
    stream.set_read_timeout(Some(process::PATIENCE)).expect("it is a socket");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers and closes");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn a_stderr_that_nobody_reads_stops_neither_service_nor_shutdown() {
    let mut server = with_log(&["--loops", "1"], "debug");
    // Nobody reads it. 64 KiB fit the pipe (pipe(7)) and 1,024 lines the queue; from then on lines are lost.
    let unread = server.stderr();
    let dropped = |server: &Server| sample(server.admin, "log_lines_total{fate=\"dropped\"}");
    wait_for("the first lost line", || {
        (0..100).for_each(|_| refused(&server));
        (dropped(&server) > 0.0).then_some(())
    });
    (0..100).for_each(|_| refused(&server));
    assert_eq!(get(server.http, "/").body, "Hello, World!");
    assert!(dropped(&server) >= 100.0, "the pipe is still full, and every line since was lost");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    drop(unread);
}

#[test]
fn a_line_has_time_level_thread_and_target() {
    let mut server = with_log(&["--loops", "1"], "debug");
    let mut lines = BufReader::new(server.stderr()).lines().map(|line| line.expect("it is text"));
    refused(&server);
    let line = lines.find(|line| line.contains("refused reason=")).expect("the log goes on until the end");
    let words: Vec<&str> = line.split_whitespace().collect();
    let [time, level, thread, target, ..] = words[..] else { panic!("{line}") };
    // Year to milliseconds, in UTC.
    let shape: String = time.chars().map(|char| if char.is_ascii_digit() { '0' } else { char }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{line}");
    assert_eq!((level, thread, target), ("DEBUG", "loop-0", "server::rejecting"), "{line}");
    assert!(line.contains("reason=host_repeated status=400"), "{line}");
}

#[test]
fn what_peers_do_wrong_is_not_logged_unless_asked_for() {
    let mut server = with_log(&[], "info");
    let mut stderr = server.stderr();
    (0..20).for_each(|_| refused(&server));
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    let mut log = String::new();
    stderr.read_to_string(&mut log).expect("it is text");
    assert!(log.contains("limits connections_max="), "{log}");
    assert!(log.contains("ending signal=SIGTERM"), "{log}");
    assert!(log.contains("ended jobs_dropped=0 worker_threads_left=0"), "{log}");
    assert!(!log.contains("refused"), "{log}");
}

#[cfg(feature = "mistakes")]
#[test]
fn a_stall_and_a_mistake_are_warned_of_by_name() {
    let mut server = with_log(&["--loops", "1", "--mistake", "loop-stall"], "info");
    let mut lines = BufReader::new(server.stderr()).lines().map(|line| line.expect("it is text"));
    lines.find(|line| line.contains(" WARN ") && line.contains("mistake=loop-stall")).expect("it warns at start");
    get(server.http, "/spin?ms=500");
    let line = lines.find(|line| line.contains("a callback holds its loop")).expect("the watchdog warns");
    for part in [" WARN ", " watchdog ", "loop=loop-0", "callback=input", "slot=0", "age=", "state="] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    lines.find(|line| line.contains("the loop runs again") && line.contains("held=")).expect("and says when it is over");
}
