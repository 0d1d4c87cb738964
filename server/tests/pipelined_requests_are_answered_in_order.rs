//! Pipelined requests are answered in the order in which they were sent, however differently they are made (`pipelining-order`).

mod support;

use support::{Server, get, post};

#[test]
fn a_hundred_in_one_segment_are_answered_in_order() {
    let server = Server::routes();
    let mut client = server.connect();
    // Each has a length of its own, so an answer out of place is seen.
    client.send((0..100).map(|i| get(&format!("/bytes?n={i}"))).collect::<String>());
    for i in 0..100 {
        assert_eq!(client.response().body.len(), i);
    }
}

#[test]
fn more_than_a_visit_takes_and_more_than_the_output_holds() {
    let server = Server::routes();
    let mut client = server.connect();
    let requests: String = (0..1_000).map(|i| get(&format!("/bytes?n={}", i * 7))).collect();
    client.send(requests);
    for i in 0..1_000 {
        assert_eq!(client.response().body.len(), i * 7);
    }
}

#[test]
fn jobs_timers_bodies_and_plain_answers_keep_their_order() {
    let server = Server::routes();
    let mut client = server.connect();
    let mut requests = String::new();
    for i in 0..25 {
        requests += &get(&format!("/spin?ms={}", i % 3));
        requests += &get("/");
        requests += &post("/echo", &format!("echo {i}"));
        requests += &get(&format!("/sleep?ms={}", i % 2));
    }
    client.send(requests);
    for i in 0..25 {
        assert_eq!(client.response().text(), format!("spun {} ms\n", i % 3));
        assert_eq!(client.response().text(), "Hello, World!");
        assert_eq!(client.response().text(), format!("echo {i}"));
        assert_eq!(client.response().text(), format!("slept {} ms\n", i % 2));
    }
    drop(client);
    server.is_at_rest();
}

#[test]
fn a_half_closed_client_gets_all_its_answers() {
    let server = Server::routes();
    let mut client = server.connect();
    client.send([get("/spin?ms=1"), get("/sleep?ms=20"), post("/echo", "x"), get("/")].concat());
    client.half_close();
    for expected in ["spun 1 ms\n", "slept 20 ms\n", "x", "Hello, World!"] {
        assert_eq!(client.response().text(), expected);
    }
    client.is_closed();
    server.is_at_rest();
}

#[test]
fn nothing_behind_connection_close_is_answered() {
    let server = Server::routes();
    let first = "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    let text = server.ask([first, &get("/healthz")].concat());
    assert_eq!(text.matches("HTTP/1.1").count(), 1, "{text}");
    assert!(text.contains("Connection: close\r\n"), "{text}");
    server.is_at_rest();
}
