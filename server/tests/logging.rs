//! The log: it stops nobody, and says what matters in one line each.

mod process;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use process::{Server, command, get, sample, wait_for};

fn with_log(flags: &[&str], filter: &str) -> Server {
    Server::spawn(command().args(flags).env("RUST_LOG", filter).stderr(Stdio::piped()))
}

/// One refused request: a line at `debug`.
fn refused(server: &Server) {
    rejected(server, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400);
}

fn rejected(server: &Server, request: &[u8], status: u16) {
    let mut stream = TcpStream::connect(server.http).expect("it accepts");
    stream.set_read_timeout(Some(process::PATIENCE)).expect("it is a socket");
    stream.write_all(request).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers and closes");
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
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
    let line = lines.find(|line| line.contains("rejected status=")).expect("the log goes on until the end");
    let words: Vec<&str> = line.split_whitespace().collect();
    let [time, level, thread, target, ..] = words[..] else { panic!("{line}") };
    // Year to milliseconds, in UTC.
    let shape: String = time.chars().map(|char| if char.is_ascii_digit() { '0' } else { char }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{line}");
    assert_eq!((level, thread, target), ("DEBUG", "loop-0", "server::rejection_log"), "{line}");
    assert!(line.contains(r#"status=400 reason="host_repeated" peer=127.0.0.1:"#) && line.ends_with(r#" target="/""#), "{line}");
}

#[test]
fn each_reason_of_a_rejection_is_a_line_a_second_and_the_others_are_counted() {
    let mut server = with_log(&["--loops", "1", "--header-timeout", "300ms"], "info");
    let mut stderr = server.stderr();
    let path = format!("/\"{}", "a".repeat(100));
    let repeated = format!("GET {path}?token=secret HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    const FLOOD: usize = 50;
    (0..FLOOD).for_each(|_| rejected(&server, repeated.as_bytes(), 400));
    // Good requests, and those that the service itself answers with an error, are no lines.
    for _ in 0..50 {
        assert_eq!((get(server.http, "/").status, get(server.http, "/nothing").status), (200, 404));
    }
    // The next second: the line that is written then has the number of those that were not.
    std::thread::sleep(Duration::from_millis(1100));
    rejected(&server, repeated.as_bytes(), 400);
    // Other reasons are other lines, in the same second too.
    rejected(&server, b"GET /\xc3\xa4\x1b[2J HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    rejected(&server, b"GET /slow HTTP/1.1\r\nHost: a\r\n", 408);
    rejected(&server, b"POST /long HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n", 413);
    rejected(&server, format!("GET /fat HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(20_000)).as_bytes(), 431);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    let mut log = String::new();
    stderr.read_to_string(&mut log).expect("it is text");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(" WARN ") && line.contains(" rejected ")).collect();

    let shown = r#"rejected status=400 reason="host_repeated" peer=127.0.0.1:"#;
    let flood: Vec<&str> = lines.iter().filter(|line| line.contains(shown)).copied().collect();
    let suppressed = |line: &&str| line.split_once(" suppressed=").map_or(0, |(_, count)| count.parse::<usize>().expect("a number"));
    assert_eq!(flood.len() + flood.iter().map(suppressed).sum::<usize>(), FLOOD + 1, "{log}");
    assert!(flood.len() < FLOOD / 2, "{log}");
    let target = format!(r#" target="/\"{}…""#, "a".repeat(62));
    assert!(flood.iter().all(|line| line.contains(&target)) && !log.contains("secret"), "{log}");
    for (status, reason, target) in [
        (400, "control_byte", r#""/\xc3\xa4\x1b[2J""#),
        (408, "request head too slow", r#""/slow""#),
        (413, "body_too_long", r#""/long""#),
        (431, "head_too_long", r#""/fat""#),
    ] {
        let (begin, end) = (format!("rejected status={status} reason={reason:?} peer=127.0.0.1:"), format!(" target={target}"));
        let found = lines.iter().filter(|line| line.contains(&begin) && line.ends_with(&end)).count();
        assert_eq!(found, 1, "{reason} in {log}");
    }
    assert_eq!(lines.len(), flood.len() + 4, "{log}");
    assert!(log.contains("limits connections_max=") && log.contains("ending signal=SIGTERM"), "{log}");
    assert!(log.contains("ended jobs_dropped=0 worker_threads_left=0"), "{log}");
}

#[cfg(feature = "demo")]
#[test]
fn a_rejected_job_is_logged_with_the_path_that_asked_for_it() {
    let mut server = with_log(&["--loops", "1", "--workers", "1", "--queue-wait-max", "1ms", "--job-deadline", "1m"], "info");
    let mut stderr = server.stderr();
    let busy = || get(server.http, "/spin?ms=20&token=secret").status == 503;
    let clients: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| (0..20).filter(|_| busy()).count())).collect();
        clients.into_iter().map(|client| client.join().expect("no panic")).sum()
    });
    assert!(clients > 0, "one worker has no time for eight clients");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    let mut log = String::new();
    stderr.read_to_string(&mut log).expect("it is text");
    assert!(log.contains(r#"rejected status=503 reason="busy" peer=127.0.0.1:"#) && log.contains(r#" target="/spin""#), "{log}");
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
