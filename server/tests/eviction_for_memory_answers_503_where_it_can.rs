//! When the buffer memory is full, the oldest partial input is evicted: with 503 and Retry-After where a status can still be sent, and never with
//! one in the middle of a response.

mod support;

use support::{Gate, Server, Setup, get, routes_with_gate, until};

#[test]
fn a_waiting_request_and_a_slow_head_get_503_and_a_begun_response_ends_short() {
    let gate = Gate::default();
    let mut setup = Setup::default();
    setup.reactor.limits.buffer_memory_bytes_max = 256 << 10;
    let server = Server::start(routes_with_gate(&gate), setup);
    // 12 KiB of a head that does not end: behind a request that is being answered, it is kept as it came.
    let unfinished = format!("GET / HTTP/1.1\r\nHost: test\r\nX: {}", "x".repeat(12 << 10));
    let mut working = server.connect();
    working.send(get("/hold?n=1") + &unfinished);
    until("a worker has it and its rest is kept", || gate.held() == 1 && server.stats.leased_bytes.get() > 0);
    let mut streaming = server.connect();
    let leased = server.stats.leased_bytes.get();
    streaming.send(get("/bytes?n=1000000000") + &unfinished);
    streaming.head();
    until("its rest and its unsent output are kept", || server.stats.leased_bytes.get() > leased + (64 << 10));
    let mut slow = server.connect();
    let leased = server.stats.leased_bytes.get();
    slow.send(&unfinished);
    until("its head is kept", || server.stats.leased_bytes.get() > leased);
    let mut fillers = Vec::new();
    while server.stats.evictions(reactor::BufferOwner::Input).get() < 3 {
        let mut filler = server.connect();
        let read = server.stats.bytes_read.get() + unfinished.len() as u64;
        filler.send(&unfinished);
        fillers.push(filler);
        until("it was read", || server.stats.bytes_read.get() >= read);
        assert!(fillers.len() < 100, "the memory has no end");
    }
    let response = working.response();
    assert_eq!((response.status, response.header("Connection")), (503, Some("close")));
    let response = slow.response();
    assert_eq!((response.status, response.header("Retry-After").is_some()), (503, true));
    let received = streaming.until_gone();
    assert!(!received.windows(8).any(|eight| eight == b"HTTP/1.1"), "a status in the middle of a body");
    gate.open();
    drop((working, slow, fillers));
    server.is_at_rest();
    server.serves();
}
