//! What the short forms of an answer do with a request's body, its `Expect` and each other.

mod support;

use server::answer::{Answer, AnswerLimits, BodySink};
use server::dispatch::Placement;
use server::http::{Request, Response};
use support::{Serve, Server, Setup, get};

fn upper(body: Vec<u8>) -> Answer {
    Response::bytes(body.to_ascii_uppercase()).into()
}

/// Takes the body at once, after so many answers that ask for it again.
fn nested(levels: u32) -> Answer {
    match levels {
        0 => Response::text("the last one").into(),
        _ => Answer::body(10, move |_| nested(levels - 1)),
    }
}

/// The same by jobs, which run where they are asked for.
fn nested_jobs(levels: u32) -> Answer {
    match levels {
        0 => Response::text("the last one").into(),
        _ => Answer::job(move |_| nested_jobs(levels - 1)),
    }
}

/// Takes whatever it is given, and relies on the limit that it names.
struct Short(usize);

impl BodySink for Short {
    fn take(&mut self, piece: &[u8]) -> usize {
        self.0 += piece.len();
        piece.len()
    }

    fn end(self: Box<Self>) -> Answer {
        Response::text(self.0.to_string()).into()
    }

    fn bytes_max(&self) -> u64 {
        10
    }
}

fn call(request: &Request<'_>) -> Answer {
    match request.path {
        "/short" => Answer::Read(Box::new(Short(0))),
        "/upper" => Answer::body(1024, upper),
        "/limited" => Answer::body(1024, upper).with_limits(AnswerLimits::new().body_bytes_max(Some(10))),
        "/nested" => nested(100_000),
        "/jobs" => nested_jobs(100_000),
        _ => Response::text("fine").into(),
    }
}

fn server() -> Server {
    let mut setup = Setup::default();
    setup.http.placement = Placement::Loop;
    Server::start(Serve(|request: &Request<'_>, _| call(request)), setup)
}

fn head(path: &str, more: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: test\r\n{more}\r\n\r\n")
}

#[test]
fn a_body_that_announces_too_much_is_not_asked_for() {
    let server = server();
    for path in ["/upper", "/limited"] {
        // Nothing of the body is sent: the client waits for 100 Continue, and the server closes.
        let text = server.ask(head(path, "Content-Length: 2000\r\nExpect: 100-continue"));
        assert!(text.starts_with("HTTP/1.1 413 ") && text.contains("\r\nConnection: close\r\n"), "{path}: {text}");
        assert_eq!(text.matches("HTTP/1.1").count(), 1, "{path}: {text}");
    }
    let text = server.ask(head("/upper", "Content-Length: 4\r\nExpect: 100-continue\r\nConnection: close") + "body");
    assert!(text.ends_with("\r\n\r\nBODY"), "{text}");
}

#[test]
fn a_small_body_that_is_too_long_is_read_and_the_connection_persists() {
    let server = server();
    let mut client = server.connect();
    for (path, bytes) in [("/upper", 2000), ("/limited", 11)] {
        client.send(head(path, &format!("Content-Length: {bytes}")) + &"x".repeat(bytes));
        let response = client.response();
        assert_eq!((response.status, response.header("Connection")), (413, None), "{path}");
    }
    client.send(head("/limited", "Content-Length: 10") + "ten  bytes");
    assert_eq!(client.response().text(), "TEN  BYTES");
    client.send(get("/"));
    assert_eq!(client.response().text(), "fine");
}

#[test]
fn a_large_body_that_is_too_long_closes_after_the_answer() {
    let server = server();
    let text = server.ask(head("/upper", "Content-Length: 100000") + &"x".repeat(100_000));
    assert!(text.starts_with("HTTP/1.1 413 ") && text.contains("\r\nConnection: close\r\n"), "{text}");
    // A body in chunks announces no length: it is too long when it has come.
    let eleven = || "b\r\neleven byte\r\n0\r\n\r\n".to_owned();
    for (path, chunk) in [("/limited", eleven()), ("/short", eleven()), ("/upper", format!("7d0\r\n{}\r\n0\r\n\r\n", "x".repeat(2000)))] {
        let text = server.ask(head(path, "Transfer-Encoding: chunked") + &chunk);
        assert!(text.starts_with("HTTP/1.1 413 ") && text.contains("\r\nConnection: close\r\n"), "{path}: {text}");
    }
}

#[test]
fn an_answer_may_lead_to_the_next_one_a_hundred_thousand_times() {
    let server = server();
    let mut client = server.connect();
    for path in ["/nested", "/jobs"] {
        client.send(get(path));
        assert_eq!(client.response().text(), "the last one", "{path}");
    }
}
