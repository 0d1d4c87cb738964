//! While the loop drains, each response says that it is the last one of its connection, and no request that is on its way is lost.

mod support;

use std::net::TcpStream;
use std::time::Duration;

use support::{Gate, Server, Setup, get, routes_with_gate, until};

#[test]
fn every_response_is_the_last_of_its_connection() {
    let gate = Gate::default();
    let mut setup = Setup::default();
    setup.http.timeouts.drain_idle = support::PATIENCE;
    let server = Server::start(routes_with_gate(&gate), setup);
    let mut working = server.connect();
    working.send(get("/hold?n=done"));
    until("a worker has it", || gate.held() == 1);
    let mut idle = server.connect();
    idle.send(get("/"));
    assert_eq!(idle.response().header("Connection"), None);
    let silent = server.connect();
    let mut in_head = server.connect();
    in_head.send("GET / HTTP/1.1\r\nHo");
    let mut streaming = server.connect();
    streaming.send("POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
    streaming.head();
    until("all are there", || server.stats.connections_open.get() == 5 && server.stats.leased_bytes.get() > 0);

    server.handle.shut_down(support::PATIENCE);
    until("it no longer listens", || TcpStream::connect(server.address).is_err());

    idle.send([get("/"), get("/")].concat());
    in_head.send("st: test\r\n\r\n");
    gate.open();
    let mut silent = silent;
    silent.send(get("/"));
    for (client, text) in
        [(&mut idle, "Hello, World!"), (&mut in_head, "Hello, World!"), (&mut silent, "Hello, World!"), (&mut working, "done")]
    {
        let response = client.response();
        assert_eq!((&*response.text(), response.header("Connection")), (text, Some("close")));
        client.is_closed();
    }
    streaming.send("1\r\nb\r\n0\r\n\r\n");
    let received = streaming.rest();
    assert!(received.ends_with(b"\r\nb\r\n0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&received));
}

#[test]
fn idle_connections_get_a_little_longer_and_no_more() {
    let mut setup = Setup::default();
    setup.http.timeouts.drain_idle = Duration::from_millis(50);
    setup.http.timeouts.header = support::PATIENCE * 10;
    setup.http.timeouts.idle = support::PATIENCE * 10;
    let server = Server::start(server::demo::routes(None), setup);
    let mut idle = server.connect();
    idle.send(get("/"));
    assert_eq!(idle.response().status, 200);
    let mut silent = server.connect();
    until("both are there", || server.stats.connections_open.get() == 2);
    server.handle.shut_down(support::PATIENCE * 10);
    idle.is_closed();
    silent.is_closed();
}
