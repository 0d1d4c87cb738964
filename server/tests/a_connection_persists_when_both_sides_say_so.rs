//! Versions, methods, statuses, keep-alive and 100 Continue, as RFC 9110 and RFC 9112 have them.

mod support;

use std::time::{Duration, Instant};

use server::answer::{Answer, Output, Pulled, StreamSource};
use server::http::{Request, Response};
use support::{Serve, Server, Setup, get, post};
use worker_pool::Class;

#[test]
fn keep_alive_is_the_default_of_1_1_and_a_wish_of_1_0() {
    let server = Server::routes();
    // (version, Connection of the request, what the response says, whether the connection goes on)
    for (version, wish, said, persists) in [
        ("1.1", "", None, true),
        ("1.1", "Connection: keep-alive\r\n", None, true),
        ("1.1", "Connection: close\r\n", Some("close"), false),
        ("1.1", "Connection: x, Close\r\n", Some("close"), false),
        ("1.0", "", Some("close"), false),
        ("1.0", "Connection: keep-alive\r\n", Some("keep-alive"), true),
        ("1.0", "Connection: close\r\n", Some("close"), false),
    ] {
        for path in ["/", "/sleep?ms=0", "/spin?ms=0", "/block?ms=0", "/bytes?n=3"] {
            let mut client = server.connect();
            client.send(format!("GET {path} HTTP/{version}\r\nHost: test\r\n{wish}\r\n"));
            let response = client.response();
            assert_eq!((response.status, response.header("Connection")), (200, said), "{path} {version} {wish}");
            if persists {
                client.send(get("/healthz"));
                assert_eq!(client.response().text(), "ok\n");
            } else {
                client.is_closed();
            }
        }
    }
    server.is_at_rest();
}

#[test]
fn head_is_get_without_the_body() {
    let server = Server::routes();
    let mut client = server.connect();
    for path in
        ["/", "/healthz", "/bytes?n=5000", "/spin?ms=0", "/sleep?ms=0", "/block?ms=0", "/panic", "/nothing", "/resolve?host=127.0.0.1"]
    {
        client.send(get(path));
        let with_body = client.response().without_date();
        client.send(get(path).replace("GET", "HEAD"));
        let without = client.response_to_head().without_date();
        assert_eq!((without.status, &without.head), (with_body.status, &with_body.head), "{path}");
    }
    // If a body had come, this would not be the next thing.
    client.send(get("/"));
    assert_eq!(client.response().text(), "Hello, World!");
}

#[test]
fn methods_and_paths_get_their_statuses() {
    let server = Server::routes();
    let mut client = server.connect();
    for (request, status, allow) in [
        ("DELETE /", 405, Some("GET, HEAD, OPTIONS")),
        ("POST /spin?ms=1", 405, Some("GET, HEAD, OPTIONS")),
        ("POST /files/x", 405, Some("GET, HEAD, OPTIONS")),
        ("GET /echo", 405, Some("POST, OPTIONS")),
        ("HEAD /digest", 405, Some("POST, OPTIONS")),
        ("OPTIONS /echo", 204, Some("POST, OPTIONS")),
        ("OPTIONS /files/x", 204, Some("GET, HEAD, OPTIONS")),
        ("OPTIONS *", 204, Some("GET, HEAD, POST, OPTIONS")),
        ("BREW /", 501, None),
        ("BREW /nothing", 501, None),
        ("get /", 501, None),
        ("GET /nothing", 404, None),
        ("GET //", 404, None),
        ("GET /files/x", 404, None),
        ("GET http://test/", 200, None),
        ("GET /spin", 400, None),
        ("GET /spin?ms=-1", 400, None),
        ("GET /spin?ms=%2B1", 400, None),
        ("GET /spin?ms=10001", 400, None),
        ("GET /block", 400, None),
        ("GET /block?ms=10001", 400, None),
        ("GET /panic", 500, None),
        ("GET /bytes?n=", 400, None),
        ("POST /digest?rounds=0", 400, None),
        ("GET /resolve", 400, None),
        ("GET /resolve?host=a%20b", 400, None),
    ] {
        client.send(format!("{request} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let is_head = request.starts_with("HEAD");
        let response = if is_head { client.response_to_head() } else { client.response() };
        assert_eq!((response.status, response.header("Allow")), (status, allow), "{request}");
        if status == 204 {
            assert_eq!(response.header("Content-Length"), None, "RFC 9110 section 8.6");
        }
    }
    // All on one connection: a refusal by the service is no reason to close it.
    client.send(get("/"));
    assert_eq!(client.response().text(), "Hello, World!");
}

#[test]
fn a_call_that_blocks_is_slow_work_and_takes_as_long_as_was_asked() {
    let server = Server::routes();
    let mut client = server.connect();
    client.send(get("/block?ms=20"));
    assert_eq!(client.response().text(), "blocked 20 ms\n");
    let run_time = server.pool.stats().run_time(Class::Slow).snapshot();
    assert_eq!(run_time.counts.iter().sum::<u64>(), 1);
    assert!(run_time.sum >= Duration::from_millis(20), "{:?}", run_time.sum);
}

fn expecting(path: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n")
}

#[test]
fn a_body_that_is_wanted_is_asked_for_once() {
    let server = Server::routes();
    let mut client = server.connect();
    for _ in 0..3 {
        for (path, answer) in [("/echo", "abc"), ("/digest?rounds=1", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n")]
        {
            client.send(expecting(path, 3));
            assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
            client.send("a");
            client.send("bc");
            assert_eq!(client.response().text(), answer);
        }
        client.send(expecting("/echo", 3).replace("Content-Length: 3", "Transfer-Encoding: chunked"));
        assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("3\r\nabc\r\n0\r\n\r\n");
        assert_eq!(client.response().text(), "abc");
    }
}

#[test]
fn a_body_that_has_begun_to_come_is_not_asked_for() {
    let server = Server::routes();
    let mut client = server.connect();
    for path in ["/echo", "/digest?rounds=1"] {
        client.send(expecting(path, 3) + "a");
        client.send("bc");
        assert_eq!(client.response().status, 200, "{path}");
    }
}

#[test]
fn a_body_that_is_not_wanted_is_not_asked_for() {
    let server = Server::routes();
    for (path, length, status) in [("/nothing", 3, 404), ("/", 3, 405), ("/digest?rounds=0", 3, 400), ("/echo", 1 << 30, 413)] {
        let mut client = server.connect();
        client.send(expecting(path, length));
        let response = client.response();
        // Whether the client sends the body after this, nobody can tell: the next request could be a part of it.
        assert_eq!((response.status, response.header("Connection")), (status, Some("close")), "{path}");
        client.is_closed();
    }
    // RFC 9110 section 10.1.1: the expectation of a 1.0 client is ignored.
    let mut client = server.connect();
    client.send(expecting("/echo", 3).replace("HTTP/1.1", "HTTP/1.0"));
    client.send("abc");
    assert_eq!(client.response().text(), "abc");
}

#[test]
fn a_continue_that_finds_no_room_waits_for_it() {
    let server = Server::routes();
    for n in (65_000..65_500).step_by(10) {
        let mut client = server.connect();
        client.send(get(&format!("/bytes?n={n}")) + &expecting("/digest?rounds=1", 3));
        assert_eq!(client.response().body.len(), n);
        assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("abc");
        assert_eq!(client.response().status, 200);
    }
}

/// Sends the length of the body. It has room for the body only after its first pull.
#[derive(Default)]
struct RoomLater {
    has_room: bool,
    bytes: usize,
    complete: bool,
}

impl StreamSource for RoomLater {
    fn pull(&mut self, output: &mut Output<'_>, _now: Instant) -> Pulled {
        self.has_room = true;
        if !self.complete {
            return Pulled::Wait;
        }
        output.write(self.bytes.to_string().as_bytes());
        Pulled::End
    }

    fn wants_body(&self) -> bool {
        true
    }

    fn body(&mut self, piece: &[u8], last: bool) -> usize {
        assert!(self.has_room, "it has said that it has none");
        self.bytes += piece.len();
        self.complete = last;
        piece.len()
    }

    fn body_room_bytes(&self) -> usize {
        if self.has_room { usize::MAX } else { 0 }
    }
}

#[test]
fn a_stream_that_has_no_room_for_the_body_at_first_is_pulled_after_100_continue() {
    let service = Serve(|_: &Request<'_>, _| Answer::stream(Response::text(""), None, RoomLater::default()));
    let server = Server::start(service, Setup::default());
    let mut client = server.connect();
    for _ in 0..2 {
        client.send(expecting("/", 3));
        assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("abc");
        assert_eq!(client.response().text(), "3");
    }
}

#[test]
fn a_small_unwanted_body_is_dropped_and_the_connection_goes_on() {
    let server = Server::routes();
    let mut client = server.connect();
    for path in ["/", "/nothing", "/spin?ms=0", "/sleep?ms=0", "/bytes?n=3"] {
        let request = post(path, &"x".repeat(60_000)).replace("POST", "GET");
        client.send(request + &get("/healthz"));
        client.response();
        assert_eq!(client.response().text(), "ok\n", "{path}");
    }
    // Of unknown length, it is not waited for.
    client.send("POST /nothing HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.header("Connection")), (404, Some("close")));
    client.is_closed();
}

#[test]
fn an_empty_body_is_complete_at_once() {
    let server = Server::routes();
    let mut client = server.connect();
    let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n";
    let path = "/digest?rounds=1";
    let without = format!("POST {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    let chunked = format!("POST {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    for request in [post(path, ""), without, chunked, expecting(path, 0)] {
        client.send(&request);
        assert_eq!(client.response().text(), nothing, "{request}");
    }
    for request in [post("/echo", ""), "POST /echo HTTP/1.1\r\nHost: test\r\n\r\n".to_owned()] {
        client.send(&request);
        assert_eq!(client.response().text(), "", "{request}");
    }
}

#[test]
fn names_and_addresses_are_resolved() {
    let server = Server::routes();
    let mut client = server.connect();
    for (host, line) in [("127.0.0.1", "127.0.0.1"), ("%3A%3a1", "::1"), ("localhost", "127.0.0.1")] {
        client.send(get(&format!("/resolve?host={host}")));
        let response = client.response();
        assert_eq!(response.status, 200, "{host}");
        assert!(response.text().lines().any(|found| found == line), "{host}: {}", response.text());
    }
}

#[test]
fn how_long_it_persists_is_advertised_where_a_service_says_so_and_nowhere_else() {
    let service = |request: &Request<'_>, _| {
        let response = Response::text("fine");
        Answer::Now(if request.path == "/told" { response.with_header("Keep-Alive", "timeout=50") } else { response })
    };
    let server = Server::start(Serve(service), Setup::default());
    let mut client = server.connect();
    for (path, said) in [("/told", Some("timeout=50")), ("/", None), ("/told", Some("timeout=50"))] {
        client.send(get(path));
        assert_eq!(client.response().header("Keep-Alive"), said);
    }
}
