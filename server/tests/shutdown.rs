//! Signals, and the end of a server: in order on the first signal, at once on a second one that is no repetition of the first.

mod process;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use process::{PATIENCE, Server, command, get, receive, sample, send, wait_for};

fn wait_until_in_flight(server: &Server, requests: f64) {
    wait_for("the requests", || (sample(server.admin, "http_requests_in_flight") == requests).then_some(()));
}

/// Signals again until the process has ended: a signal within half a second of the first one is taken for the same request.
fn signal_until_it_ends(server: &mut Server, name: &str) -> Option<i32> {
    wait_for("the server's end", || {
        if let Some(status) = server.ended() {
            return Some(status.code());
        }
        server.signal(name);
        None
    })
}

#[test]
fn with_nothing_to_do_it_ends_with_0_on_either_signal() {
    for name in ["TERM", "INT"] {
        for sharing in ["reuse-port", "exclusive", "hand-off"] {
            let mut server = Server::start(&["--loops", "2", "--listener-sharing", sharing, "--shutdown-grace", "60s"]);
            server.signal(name);
            assert_eq!(server.wait().code(), Some(0), "{name} {sharing}");
            assert!(TcpStream::connect(server.http).is_err(), "nobody listens any more");
        }
    }
}

#[test]
fn readiness_fails_first_and_a_request_in_flight_is_served_to_its_end() {
    let mut server = Server::start(&["--shutdown-grace", "60s"]);
    // It lasts until its body is complete, so this test decides when.
    let mut echo = TcpStream::connect(server.http).expect("it accepts");
    echo.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    echo.write_all(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nfirst").expect("it reads");
    wait_until_in_flight(&server, 1.0);
    assert_eq!(get(server.admin, "/readyz").status, 200);
    server.signal("TERM");
    wait_for("readiness to fail", || (get(server.admin, "/readyz").status == 503).then_some(()));
    assert_eq!(get(server.admin, "/healthz").status, 200, "alive, but not to be sent new clients");
    assert_eq!(sample(server.admin, "server_draining"), 1.0);
    echo.write_all(b" last").expect("it still reads");
    let answer = receive(echo).expect("it is answered, and the connection closed");
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("first") && answer.body.contains("last"), "{}", answer.body);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_scrape_under_way_at_the_end_is_answered_within_the_grace() {
    let mut server = Server::start(&["--shutdown-grace", "60s"]);
    let mut scrape = TcpStream::connect(server.admin).expect("it accepts");
    let kept = TcpStream::connect(server.admin).expect("it accepts");
    scrape.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    scrape.write_all(b"GET /metrics HTTP/1.1\r\n").expect("it reads");
    // Asked after the other two, by the same loop: it has both of them by now.
    assert_eq!(get(server.admin, "/healthz").status, 200);
    server.signal("TERM");
    wait_for("everything else to end", || TcpStream::connect(server.admin).is_err().then_some(()));
    scrape.write_all(b"Host: test\r\nAccept: application/openmetrics-text\r\n\r\n").expect("it still reads");
    let answer = receive(scrape).expect("it is answered, and the connection closed");
    assert_eq!(answer.status, 200);
    assert!(answer.body.ends_with("# EOF\n"), "{}", answer.body);
    assert_eq!(server.wait().code(), Some(0));
    drop(kept);
}

#[test]
fn during_the_delay_only_readiness_has_changed() {
    // Far longer than this test takes: it is over when the test says so.
    let mut server = Server::start(&["--shutdown-delay", "1h", "--shutdown-grace", "60s"]);
    let mut kept = TcpStream::connect(server.http).expect("it accepts");
    kept.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    let mut ask = || {
        kept.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").expect("it reads");
        let mut response = String::new();
        while !response.ends_with("Hello, World!") {
            let mut piece = [0; 512];
            let n = kept.read(&mut piece).expect("it answers");
            assert!(n > 0, "closed after {response:?}");
            response.push_str(&String::from_utf8_lossy(&piece[..n]));
        }
        response
    };
    let before = ask();
    server.signal("TERM");
    wait_for("readiness to fail", || (get(server.admin, "/readyz").status == 503).then_some(()));
    for _ in 0..3 {
        assert!(!ask().contains("Connection:") && !before.contains("Connection:"), "kept open, as before");
        assert_eq!(get(server.http, "/").status, 200, "who comes now is served");
    }
    assert_eq!(get(server.admin, "/healthz").status, 200);
    assert_eq!(signal_until_it_ends(&mut server, "TERM"), Some(143), "the second signal does not wait for the delay");
}

#[test]
fn after_the_delay_it_drains() {
    let mut server = Server::start(&["--shutdown-delay", "100ms", "--shutdown-grace", "60s"]);
    let mut echo = TcpStream::connect(server.http).expect("it accepts");
    echo.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    echo.write_all(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nfirst").expect("it reads");
    wait_until_in_flight(&server, 1.0);
    let signalled = Instant::now();
    server.signal("TERM");
    wait_for("the listener to close", || TcpStream::connect(server.http).is_err().then_some(()));
    assert!(signalled.elapsed() >= Duration::from_millis(100), "not before the delay is over");
    echo.write_all(b" last").expect("it still reads");
    assert_eq!(receive(echo).expect("it is answered").status, 200);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn an_answer_that_is_due_later_says_that_the_connection_closes() {
    let mut server = Server::start(&["--shutdown-grace", "60s"]);
    let mut sleeping = TcpStream::connect(server.http).expect("it accepts");
    sleeping.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    sleeping.write_all(b"GET /sleep?ms=3000 HTTP/1.1\r\nHost: test\r\n\r\n").expect("it reads");
    wait_until_in_flight(&server, 1.0);
    server.signal("TERM");
    let answer = receive(sleeping).expect("it is answered, and the connection closed");
    assert_eq!((answer.status, answer.body.as_str()), (200, "slept 3000 ms\n"));
    assert_eq!(answer.header("Connection"), Some("close"));
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_job_in_flight_is_answered() {
    // CPU time at a low priority: on a busy machine it takes as long as it takes.
    let mut server = Server::start(&["--shutdown-grace", "60s", "--job-deadline", "60s"]);
    let spinning = send(server.http, "GET", "/spin?ms=200").expect("it accepts");
    wait_for("the job", || (sample(server.admin, "pool_jobs_admitted_total") == 1.0).then_some(()));
    server.signal("TERM");
    assert_eq!(receive(spinning).expect("it is answered").body, "spun 200 ms\n");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_full_queue_is_answered_to_the_last_job() {
    const WAITING: usize = 30;
    let mut server = Server::start(&["--workers", "2", "--queue-jobs-max", "30", "--shutdown-grace", "60s", "--job-deadline", "60s"]);
    // Two hold the workers for seconds of CPU time, so that all the others come while nobody is free.
    let mut clients: Vec<_> = (0..2).map(|_| send(server.http, "GET", "/spin?ms=2000").expect("it accepts")).collect();
    wait_for("both workers to be held", || (sample(server.admin, "pool_jobs_running{class=\"fast\"}") == 2.0).then_some(()));
    clients.extend((0..WAITING).map(|_| send(server.http, "GET", "/spin?ms=1").expect("it accepts")));
    let is_full = || (sample(server.admin, "pool_jobs_admitted_total") == 2.0 + WAITING as f64).then_some(());
    wait_for("the queue to be full", is_full);
    assert_eq!(get(server.http, "/spin?ms=1").status, 503, "full");
    server.signal("TERM");
    for (i, client) in clients.into_iter().enumerate() {
        let answer = receive(client).expect("it is answered, and the connection closed");
        let expected = if i < 2 { "spun 2000 ms\n" } else { "spun 1 ms\n" };
        assert_eq!((answer.status, answer.body.as_str()), (200, expected), "client {i}");
    }
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn an_idle_connection_does_not_keep_it_and_its_last_request_is_answered() {
    let mut server = Server::start(&["--shutdown-grace", "60s"]);
    let mut idle = TcpStream::connect(server.http).expect("it accepts");
    idle.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    idle.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").expect("it reads");
    let mut first = [0; 512];
    assert!(idle.read(&mut first).expect("it answers") > 0);
    server.signal("TERM");
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).expect("it is closed in order");
    assert_eq!(rest, b"");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_grace_time_ends_what_does_not_end_by_itself() {
    let mut server = Server::start(&["--shutdown-grace", "100ms"]);
    let sleeping = send(server.http, "GET", "/sleep?ms=60000").expect("it accepts");
    wait_until_in_flight(&server, 1.0);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    assert!(receive(sleeping).is_err(), "cut off, and not passed off as an answer");
}

#[cfg(feature = "mistakes")]
#[test]
fn with_the_mistake_a_request_in_flight_is_not_answered() {
    // The same as "an answer that is due later", and the contrast to it.
    let mut server = Server::start(&["--mistake", "ungraceful-shutdown", "--shutdown-grace", "60s"]);
    let sleeping = send(server.http, "GET", "/sleep?ms=3000").expect("it accepts");
    wait_until_in_flight(&server, 1.0);
    server.signal("TERM");
    assert!(receive(sleeping).is_err(), "closed without a word");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let mut server = Server::start(&["--shutdown-grace", "60s"]);
        let _sleeping = send(server.http, "GET", "/sleep?ms=60000").expect("it accepts");
        wait_until_in_flight(&server, 1.0);
        let signalled = Instant::now();
        server.signal(name);
        assert_eq!(signal_until_it_ends(&mut server, name), Some(code));
        assert!(signalled.elapsed() >= Duration::from_millis(500), "what comes earlier repeats the first signal");
    }
}

/// A shell and an orchestrator send two.
#[test]
fn two_signals_at_once_drain_and_a_request_in_flight_is_answered() {
    let mut server = Server::start(&["--shutdown-grace", "60s"]);
    let sleeping = send(server.http, "GET", "/sleep?ms=1000").expect("it accepts");
    wait_until_in_flight(&server, 1.0);
    let pid = server.pid();
    let status = Command::new("sh").args(["-c", &format!("kill -TERM {pid}; kill -INT {pid}")]).status().expect("there is a shell");
    assert!(status.success());
    assert_eq!(receive(sleeping).expect("it is answered").body, "slept 1000 ms\n");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_hangup_is_logged_and_changes_nothing() {
    let mut server = Server::spawn(command().env("RUST_LOG", "info").stderr(Stdio::piped()));
    let lines = BufReader::new(server.stderr()).lines().map(|line| line.expect("it is text"));
    server.signal("HUP");
    assert_eq!(get(server.http, "/").status, 200);
    assert_eq!(get(server.admin, "/readyz").status, 200);
    server.signal("HUP");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "the first signal that ends it");
    assert!(lines.into_iter().any(|line| line.contains("nothing changes") && line.contains("signal=SIGHUP")));
}

#[test]
fn a_dump_writes_the_state_of_the_admin_port_to_the_log() {
    let mut server = Server::spawn(command().args(["--loops", "2"]).env("RUST_LOG", "info").stderr(Stdio::piped()));
    let mut lines = BufReader::new(server.stderr()).lines().map(|line| line.expect("it is text"));
    let state: serde_json::Value = serde_json::from_str(&get(server.admin, "/debug/state").body).expect("it is JSON");
    server.signal("USR1");
    let (mut found, mut loops, mut threads) = (serde_json::Map::new(), 0, 0);
    while loops < 2 || threads < state["threads"].as_array().expect("a list").len() {
        let line = lines.next().expect("the log goes on");
        let Some((_, json)) = line.split_once(" server::admin state ") else { continue };
        let part: serde_json::Value = serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {json}"));
        loops += part["loops"].as_array().map_or(0, Vec::len);
        threads += part["threads"].as_array().map_or(0, Vec::len);
        found.extend(part.as_object().expect("an object").clone());
    }
    let names = |object: &serde_json::Map<String, serde_json::Value>| object.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&found), names(state.as_object().expect("an object")));
    assert_eq!(names(found["loops"][0].as_object().expect("a loop")), names(state["loops"][0].as_object().expect("a loop")));
    assert_eq!(get(server.http, "/").status, 200);
}

#[cfg(feature = "mistakes")]
#[test]
fn a_loop_that_does_not_end_in_time_is_a_failure_and_not_waited_for() {
    let mut server = Server::start(&["--loops", "1", "--mistake", "loop-stall", "--shutdown-grace", "10ms"]);
    let _stalling = send(server.http, "GET", "/spin?ms=10000").expect("it accepts");
    wait_for("the stall", || (sample(server.admin, "loop_stalls_total{loop=\"loop-0\"}") == 1.0).then_some(()));
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(1));
}
