//! Each part of an exchange has its deadline, and progress does not extend those that are absolute (`slowloris`).

mod support;

use std::io::Write;
use std::time::{Duration, Instant};

use reactor::CloseReason;
use server::body_rate::BodyRateMin;
use server::connection::Timeouts;
use support::{Client, Response, Server, Setup, get};

const SHORT: Duration = Duration::from_millis(200);

fn server_with(timeouts: Timeouts) -> Server {
    let mut setup = Setup::default();
    setup.http.timeouts = timeouts;
    Server::start(server::demo::routes(None), setup)
}

/// Sends a byte again and again until there is an answer.
fn dribble(client: &mut Client) -> Response {
    client.stream.set_read_timeout(Some(Duration::from_millis(5))).expect("timeout");
    let started = Instant::now();
    let mut probe = [0];
    while client.stream.peek(&mut probe).is_err() {
        assert!(started.elapsed() < support::PATIENCE, "a byte now and then keeps it open for ever");
        if client.stream.write(b"a").is_err() {
            break;
        }
    }
    client.stream.set_read_timeout(Some(support::PATIENCE)).expect("timeout");
    client.response()
}

#[test]
fn a_head_that_dribbles_in_is_408_although_bytes_keep_coming() {
    let server = server_with(Timeouts { header: SHORT, ..Timeouts::default() });
    for before in ["", &get("/")] {
        let started = Instant::now();
        let mut client = server.connect();
        client.send(before);
        if !before.is_empty() {
            assert_eq!(client.response().status, 200);
        }
        client.send("GET / HTTP/1.1\r\nHost: test\r\nX: ");
        let response = dribble(&mut client);
        assert_eq!((response.status, response.header("Connection")), (408, Some("close")));
        assert!(started.elapsed() >= SHORT, "never early");
    }
    assert_eq!(server.http.header_timeouts.get(), 2);
}

#[test]
fn a_client_that_never_speaks_is_closed_without_a_word() {
    let server = server_with(Timeouts { header: SHORT, ..Timeouts::default() });
    let mut client = server.connect();
    client.is_closed();
    server.is_at_rest();
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let server = server_with(Timeouts { idle: SHORT, ..Timeouts::default() });
    let started = Instant::now();
    let mut client = server.connect();
    client.send(get("/"));
    assert_eq!(client.response().status, 200);
    client.is_closed();
    assert!(started.elapsed() >= SHORT, "never early");
    assert_eq!(server.http.idle_timeouts.get(), 1);
    server.is_at_rest();
}

#[test]
fn a_body_that_dribbles_in_is_408() {
    let server = server_with(Timeouts { request: Some(SHORT), ..Timeouts::default() });
    for path in ["/digest?rounds=1", "/"] {
        let mut client = server.connect();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 60000\r\n\r\n"));
        assert_eq!(dribble(&mut client).status, 408);
    }
    assert_eq!(server.http.request_timeouts.get(), 2);
}

#[test]
fn an_answer_that_takes_too_long_is_503() {
    let server = server_with(Timeouts { request: Some(SHORT), ..Timeouts::default() });
    let mut client = server.connect();
    client.send(get("/spin?ms=10000"));
    let response = client.response();
    assert_eq!((response.status, response.header("Connection")), (503, Some("close")));
    client.is_closed();
    assert_eq!(server.http.request_timeouts.get(), 1);
    // A response that is there and only waits for its time is given at the deadline (`Answer::At`).
    let mut client = server.connect();
    client.send(get("/sleep?ms=60000"));
    let response = client.response();
    assert_eq!((response.status, response.header("Connection")), (200, None));
    assert_eq!(server.http.request_timeouts.get(), 1);
    drop(client);
    server.is_at_rest();
}

#[test]
fn a_response_that_takes_too_long_ends_short() {
    let server = server_with(Timeouts { request: Some(SHORT), ..Timeouts::default() });
    let mut client = server.connect();
    client.send(get("/bytes?n=1000000000000"));
    client.head();
    // Read no more than what the kernel holds by then.
    support::until("it is given up", || server.http.broken_streams.get() == 1);
    assert!(client.until_gone().len() < 1_000_000_000);
    assert_eq!((server.http.request_timeouts.get(), server.http.broken_streams.get()), (1, 1));
    server.is_at_rest();
}

#[test]
fn a_body_below_its_least_rate_is_408_long_before_the_request_timeout() {
    let mut setup = Setup::default();
    // Far more than a byte for each 5 ms, and no limit on the whole but that of 60 s.
    setup.http.body_rate_min = BodyRateMin { bytes_per_second: 50_000, window: SHORT };
    let server = Server::start(server::demo::routes(None), setup);
    for path in ["/digest?rounds=1", "/"] {
        let started = Instant::now();
        let mut client = server.connect();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 60000\r\n\r\n"));
        let response = dribble(&mut client);
        assert_eq!((response.status, response.header("Connection")), (408, Some("close")), "{path}");
        assert!(started.elapsed() >= SHORT, "the first window is a period of grace");
    }
    assert_eq!((server.http.body_timeouts.get(), server.http.request_timeouts.get()), (2, 0));
}

#[test]
fn a_body_that_is_held_up_by_our_own_output_is_not_the_clients_fault() {
    const BODY_BYTES: usize = 64 << 20;
    let window = Duration::from_millis(500);
    let mut setup = Setup::default();
    setup.http.limits.body_bytes_max = BODY_BYTES as u64;
    setup.http.body_rate_min = BodyRateMin { bytes_per_second: 20, window };
    let server = Server::start(server::demo::routes(None), setup);
    let mut client = server.connect();
    let mut sender = client.stream.try_clone().expect("a duplicate");
    let sending = std::thread::spawn(move || {
        sender.write_all(format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {BODY_BYTES}\r\n\r\n").as_bytes())?;
        sender.write_all(&vec![b'x'; BODY_BYTES])
    });
    // The echo is not read: the server's output fills, then it reads no more, for several windows.
    let (mut read, mut since) = (0, Instant::now());
    while since.elapsed() < 3 * window {
        std::thread::sleep(Duration::from_millis(1));
        let now = server.stats.bytes_read.get();
        if now != read {
            (read, since) = (now, Instant::now());
        }
    }
    assert!((read as usize) < BODY_BYTES, "it was all taken: nothing was held up");
    assert_eq!(client.response().body.len(), BODY_BYTES);
    sending.join().expect("it does not panic").expect("all was sent");
    assert_eq!(server.http.body_timeouts.get(), 0);
}

#[test]
fn a_client_that_takes_nothing_of_its_response_is_closed_and_counted() {
    let mut setup = Setup::default();
    setup.reactor.limits.output_rate_window = SHORT;
    let server = Server::start(server::demo::routes(None), setup);
    let mut client = server.connect();
    client.send(get("/bytes?n=1000000000000"));
    support::until("it is given up", || server.stats.closes(CloseReason::WriteStalled).get() == 1);
    server.is_at_rest();
}
