//! A malformed request gets its status and a close. Other connections are served meanwhile.

mod support;

use support::{Server, get};

/// Malformed requests and the status of each. Each ends at the byte that is malformed: the server reads nothing after it.
fn table() -> Vec<(String, u16)> {
    let with = |line: &str| format!("GET / HTTP/1.1\r\nHost: test\r\n{line}\r\n\r\n");
    let posted = |lines: &str, body: &str| format!("POST /digest?rounds=1 HTTP/1.1\r\nHost: test\r\n{lines}\r\n\r\n{body}");
    let chunked = |body: &str| posted("Transfer-Encoding: chunked", body);
    vec![
        ("\0\0\0\0\r\n\r\n".to_owned(), 400),
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("GET /\r\n\r\n".to_owned(), 400),
        ("GET  / HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\nHost: test\n\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: test\r\rX: y\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.10\r\nHost: test\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/2.0\r\nHost: test\r\n\r\n".to_owned(), 505),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET /ä HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(), 400),
        ("GET /#a HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(), 400),
        ("CONNECT test:80 HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(), 501),
        (format!("{} / HTTP/1.1\r\nHost: test\r\n\r\n", "A".repeat(40)), 501),
        (format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", "a".repeat(9_000)), 414),
        (with(&format!("X: {}", "a".repeat(20_000))), 431),
        (with(&"X: y\r\n".repeat(120)), 431),
        (with("Host: other"), 400),
        (with("X : y"), 400),
        (with(" folded"), 400),
        (with("X: \0"), 400),
        (with("Expect: 200-ok"), 417),
        (posted("Content-Length: +1", "x"), 400),
        (posted("Content-Length: 1\r\nContent-Length: 1", "x"), 400),
        (posted("Content-Length: 1, 1", "x"), 400),
        (posted("Content-Length: 99999999999999999999", "x"), 400),
        (posted("Content-Length: 1048577", ""), 413),
        (posted("Content-Length: 1\r\nTransfer-Encoding: chunked", "x"), 400),
        (posted("Transfer-Encoding: gzip", "x"), 400),
        (posted("Transfer-Encoding: gzip, chunked", "x"), 501),
        (posted("Transfer-Encoding: chunked, chunked", "x"), 400),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), 400),
        (chunked("x"), 400),
        (chunked("5 \r\n"), 400),
        (chunked("5\nHello"), 400),
        (chunked("5\r\nHello0\r\n\r\n"), 400),
        (chunked("100001\r\n"), 413),
        (chunked("fffffffffffffffff\r\n"), 400),
        (chunked("5;a=\"\n\"\r\n"), 400),
        (chunked("0\r\nA b\r\n\r\n"), 400),
    ]
}

#[test]
fn a_malformed_request_gets_its_status_and_a_close() {
    let server = Server::routes();
    let mut neighbour = server.connect();
    for (bytes, status) in table() {
        // Behind the last ones there is little or no output space for the error response: it has to wait for some.
        for in_front in ["", &get("/"), &get("/bytes?n=70000"), &get("/bytes?n=65100"), &get("/bytes?n=65380")] {
            let mut client = server.connect();
            client.send([in_front, &bytes].concat());
            if !in_front.is_empty() {
                assert_eq!(client.response().status, 200);
            }
            let response = client.response();
            assert_eq!(response.status, status, "{:?}: {}", &bytes[..bytes.len().min(200)], response.text());
            assert_eq!(response.header("Connection"), Some("close"));
            client.is_closed();
        }
        neighbour.send(get("/"));
        assert_eq!(neighbour.response().text(), "Hello, World!");
    }
    drop(neighbour);
    server.is_at_rest();
}

/// RFC 9110 section 9.3.2.
#[test]
fn the_error_response_to_a_malformed_head_request_has_no_content() {
    let server = Server::routes();
    let refused = table().into_iter().filter_map(|(bytes, status)| Some((format!("HEAD{}", bytes.strip_prefix("GET")?), status)));
    for (bytes, status) in refused {
        for in_front in ["", "\r\n", &get("/bytes?n=65380")] {
            let mut client = server.connect();
            client.send([in_front, &bytes].concat());
            if in_front.starts_with("GET") {
                assert_eq!(client.response().status, 200);
            }
            let response = client.response_to_head();
            assert_eq!(response.status, status, "{:?}", &bytes[..bytes.len().min(200)]);
            client.is_closed();
        }
    }
    let mut client = server.connect();
    client.send("HEAD / HTT");
    client.half_close();
    assert_eq!(client.response_to_head().status, 400);
    client.is_closed();
    server.is_at_rest();
}

#[test]
fn a_request_that_ends_early_is_answered_400() {
    let server = Server::routes();
    for cut_off in [
        "GET / HT",
        "POST /digest?rounds=1 HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nHell",
        "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n",
    ] {
        let mut client = server.connect();
        client.send(cut_off);
        client.half_close();
        assert_eq!(client.response().status, 400);
        client.is_closed();
    }
    // A part of the response was sent: it is cut short, so that it does not look complete.
    let mut client = server.connect();
    client.send(ECHO.to_owned() + "5\r\nHello\r\n");
    client.head();
    client.half_close();
    let received = client.until_gone();
    assert!(!received.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&received));
    server.is_at_rest();
}

/// A request whose response is streamed while its body arrives.
const ECHO: &str = "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn a_malformed_body_is_answered_400_if_no_byte_of_the_response_was_sent() {
    let server = Server::routes();
    // Whole and in two packets, since a response must not begin before the body does. What arrives in one packet is read in one visit, and
    // the response to its good part is still unsent at its bad part.
    for (first, second) in [("x", ""), ("", "x"), ("", "5\r\nHello\r\nx"), ("5\r\nHello\r\nx", ""), ("5\r\nHellox", "")] {
        for in_front in ["", &get("/"), &get("/bytes?n=65000"), &get("/bytes?n=65380")] {
            let mut client = server.connect();
            client.send([in_front, ECHO, first].concat());
            if !in_front.is_empty() {
                assert_eq!(client.response().status, 200);
            }
            client.send(second);
            let response = client.response();
            assert_eq!((response.status, response.header("Connection")), (400, Some("close")), "{first:?} {second:?}");
            client.is_closed();
        }
    }
    assert_eq!(server.http.broken_streams.get(), 0);
    server.is_at_rest();
}

#[test]
fn a_malformed_body_cuts_a_response_short_of_which_a_part_was_sent() {
    let server = Server::routes();
    let mut client = server.connect();
    client.send(ECHO.to_owned() + "5\r\nHello\r\n");
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("Transfer-Encoding: chunked\r\n"), "{head}");
    client.send("x");
    let received = client.rest();
    assert!(received.ends_with(b"\r\nHello\r\n"), "{:?}", String::from_utf8_lossy(&received));
    assert_eq!(server.http.broken_streams.get(), 1);
    assert_eq!(server.stats.resets.get(), 0);
    server.is_at_rest();
}

#[test]
fn a_malformed_body_does_not_affect_earlier_responses_that_are_still_unsent() {
    let server = Server::routes();
    // A client that reads late and has a small receive buffer: most of its responses are pending in the server.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small receive buffer");
    socket.connect(&server.address.into()).expect("connect");
    let mut client = support::Client { stream: socket.into(), received: Vec::new() };
    client.stream.set_read_timeout(Some(support::PATIENCE)).expect("timeout");
    client.send(get("/bytes?n=20000").repeat(2) + ECHO + "5\r\nHello\r\nx");
    support::until("the echo is rejected", || server.http.refusals(server::http::Refusal::ChunkSize).get() == 1);
    for _ in 0..2 {
        assert_eq!(client.response().body.len(), 20_000);
    }
    assert_eq!(client.response().status, 400);
    client.is_closed();
    assert_eq!(server.stats.resets.get(), 0);
    drop(client);
    server.is_at_rest();
}
