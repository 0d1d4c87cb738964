//! A peer that resets, at whatever stage, costs its own connection and nothing else: no descriptor, no count, no other client.

mod support;

use support::{Client, Gate, Server, Setup, get, post, routes_with_gate, until};

/// What a client sends, and when it is far enough.
type Stage = (&'static str, String, fn(&mut Client, &Server, &Gate));

fn stages() -> Vec<Stage> {
    let kept: fn(&mut Client, &Server, &Gate) = |_, server, _| until("its rest is kept", || server.stats.leased_bytes.get() > 0);
    let in_flight: fn(&mut Client, &Server, &Gate) = |_, server, _| until("it is under way", || server.http.in_flight.get() == 1);
    let answered: fn(&mut Client, &Server, &Gate) = |client, _, _| {
        client.take(10);
    };
    let endless = "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n";
    vec![
        ("before the first byte", String::new(), |_, server, _| until("it is accepted", || server.stats.connections_open.get() == 1)),
        ("within a head", "GET / HTT".to_owned(), kept),
        ("between two requests", get("/"), answered),
        ("within a body", post("/digest?rounds=1", "x").replace("Length: 1", "Length: 1000"), in_flight),
        ("within an unwanted body", post("/", "x").replace("Length: 1", "Length: 1000"), in_flight),
        ("while a job runs", get("/hold?n=1"), |_, _, gate| until("a worker has it", || gate.held() == 1)),
        ("while it sleeps", get("/sleep?ms=60000"), in_flight),
        ("within a long response", get("/bytes?n=1000000000"), answered),
        ("within an echo", endless.to_owned(), answered),
        ("within a long response, with requests behind it", [get("/bytes?n=1000000000"), get("/"), get("/hold?n=2")].concat(), answered),
        ("after a refusal", "GET / HTTP/1.1\r\n\r\n".to_owned(), answered),
        ("after the last response", "GET / HTTP/1.0\r\n\r\n".to_owned(), answered),
    ]
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("procfs").count()
}

#[test]
fn a_reset_at_each_stage_leaves_nothing_behind() {
    let gate = Gate::default();
    let server = Server::start(routes_with_gate(&gate), Setup::default());
    server.serves();
    server.is_at_rest();
    let descriptors_before = descriptors();
    for (name, request, far_enough) in stages() {
        println!("{name}");
        for _ in 0..20 {
            gate.close();
            let mut client = server.connect();
            client.send(&request);
            far_enough(&mut client, &server, &gate);
            client.reset();
            until("the connection is gone", || server.stats.connections_open.get() == 0);
            gate.open();
            until("no worker is busy for it", || server.pool.stats().in_flight().total() == 0);
        }
        server.serves();
        server.is_at_rest();
    }
    assert_eq!(descriptors(), descriptors_before);
    assert_eq!(server.pool.stats().threads_alive(), 2);
    assert_eq!(server.stats.panics.get(), 0);
}
