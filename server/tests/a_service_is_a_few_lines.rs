//! The short forms that a builder uses, over real sockets: `Answer::job`, `Answer::body`, `Answer::stream`, `Answer::not_allowed`; and the
//! smallest service, `examples/hello.rs`, as a process.

#[path = "process/example.rs"]
mod example;
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use example::Example;
use server::answer::{Answer, Output, Pulled, StreamSource};
use server::http::{Method, Request, Response};
use support::{Serve, Server, Setup, get, post};

struct Countdown(u8);

impl StreamSource for Countdown {
    fn pull(&mut self, output: &mut Output<'_>, _now: Instant) -> Pulled {
        output.write(&[b'0' + self.0]);
        self.0 -= 1;
        if self.0 == 0 { Pulled::End } else { Pulled::More }
    }
}

fn call(request: &Request<'_>, _now: Instant) -> Answer {
    match (request.method, request.path) {
        (Method::Get, "/job") => Answer::job(|_| Response::text("worked")),
        (Method::Get, "/job-of-job") => Answer::job(|_| Answer::job(|_| Response::text("worked twice"))),
        (Method::Post, "/body") => Answer::body(10, |body| Response::bytes(body.to_ascii_uppercase()).into()),
        (Method::Get, "/known") => Answer::stream(Response::text(""), Some(3), Countdown(3)),
        (Method::Get, "/chunked") => Answer::stream(Response::text(""), None, Countdown(3)),
        (_, "/body") => Answer::not_allowed(request.method, "POST, OPTIONS"),
        _ => Response::not_found().into(),
    }
}

#[test]
fn each_short_form_answers_as_it_is_documented() {
    let server = Server::start(Serve(call), Setup::default());
    let mut client = server.connect();
    for (request, status, body) in [
        (get("/job"), 200, "worked"),
        (get("/job-of-job"), 200, "worked twice"),
        (post("/body", "ten bytes."), 200, "TEN BYTES."),
        (post("/body", ""), 200, ""),
        (get("/known"), 200, "321"),
        (get("/chunked"), 200, "321"),
        (get("/nowhere"), 404, "not found\n"),
        (get("/body"), 405, "method not allowed\n"),
        (get("/body").replacen("GET", "BREW", 1), 501, "unknown method\n"),
        (get("/body").replacen("GET", "OPTIONS", 1), 204, ""),
    ] {
        client.send(&request);
        let response = client.response();
        assert_eq!((response.status, &*response.text()), (status, body), "{request}");
        if [204, 405].contains(&status) {
            assert_eq!(response.header("Allow"), Some("POST, OPTIONS"));
        }
    }
    drop(client);
    server.is_at_rest();
}

#[test]
fn a_body_beyond_the_limit_is_refused_whether_its_length_was_announced_or_not() {
    let server = Server::start(Serve(call), Setup::default());
    let chunked = "POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\neight by\r\n3\r\ntes\r\n0\r\n\r\n";
    // An announced body of this size is read and discarded, so the connection persists. A chunked one could go on for ever.
    let mut client = server.connect();
    for _ in 0..2 {
        client.send(post("/body", "eleven byte"));
        let response = client.response();
        assert_eq!((response.status, response.header("Connection")), (413, None));
    }
    client.send(chunked);
    let response = client.response();
    assert_eq!((response.status, response.header("Connection")), (413, Some("close")));
    client.is_closed();
}

#[test]
fn the_smallest_service_has_all_that_a_server_needs() {
    let mut hello = Example::start("hello", &["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--loops", "2"]);
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(hello.address).expect("connect");
        stream.set_read_timeout(Some(example::PATIENCE)).expect("timeout");
        write!(stream, "{request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("send");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an orderly end");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head.get(9..12).expect("a status").to_owned(), body.to_owned())
    };
    for (request, status, body) in [
        ("GET /hello", "200", "Hello, World!"),
        ("HEAD /hello", "200", ""),
        ("GET /primes?below=1000", "200", "168\n"),
        ("GET /primes?below=100001", "400", "?below=N with N up to 100000 is needed\n"),
        ("GET /primes", "400", "?below=N with N up to 100000 is needed\n"),
        ("POST /hello", "405", "method not allowed\n"),
        ("GET /", "404", "not found\n"),
    ] {
        assert_eq!(ask(request), (status.to_owned(), body.to_owned()), "{request}");
    }
    hello.signal("TERM");
    assert!(hello.wait().success());
}

#[test]
fn the_smallest_service_is_under_forty_lines() {
    let hello = include_str!("../examples/hello.rs");
    assert!(hello.lines().count() < 40);
}

#[test]
fn a_fork_complains_and_gives_its_version_under_its_own_name() {
    for (args, wrong) in [(&["--loops", "0"][..], "--loops"), (&["--loops", "4", "--connections-max", "3"], "--connections-max")] {
        let output = Example::command("hello").args(args).output().expect("it starts");
        let complaint = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{complaint}");
        assert!(complaint.starts_with("hello: ") && complaint.contains(wrong), "{complaint}");
    }
    let output = Example::command("hello").arg("--version").output().expect("it starts");
    assert_eq!(String::from_utf8(output.stdout).expect("text"), concat!("hello ", env!("CARGO_PKG_VERSION"), "\n"));
}
