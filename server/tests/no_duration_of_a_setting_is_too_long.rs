//! Any duration can be set, and `Duration::MAX` for "no limit" too: requests of every kind are answered, and a shutdown ends.

mod support;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use server::answer::{Answer, Work};
use server::http::{Request, Response};
use server::routes::Routes;
use server::service::Service;
use support::{PATIENCE, Server, Setup, get, post, until};

/// The demonstration, and a job with a deadline of its own.
struct WithJob {
    routes: Routes,
    deadline: Duration,
}

impl Service for WithJob {
    fn call(&mut self, request: &Request<'_>, now: Instant) -> Answer {
        match request.path {
            "/job" => Answer::Job(Work::fast(|_| Answer::Now(Response::text("done\n"))).within(self.deadline)),
            "/large" => Answer::Now(Response::bytes(vec![b'x'; 1 << 20])),
            _ => self.routes.call(request, now),
        }
    }
}

/// Longer than any test waits, up to the longest that there are.
fn long() -> impl Strategy<Value = Duration> {
    prop_oneof![
        4 => Just(Duration::MAX),
        1 => Just(Duration::from_secs(u64::MAX)),
        1 => Just(Duration::from_secs(i64::MAX as u64)), // What a timespec holds; an Instant is one.
        2 => (PATIENCE.as_secs() * 2..=u64::MAX, 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_duration_of_a_setting_is_too_long(
        [header, idle, request, drain_idle, window, job_deadline, own_deadline] in [long(), long(), long(), long(), long(), long(), long()],
        bytes_per_second in prop_oneof![Just(0), 1..=u64::MAX, Just(u64::MAX)],
    ) {
        let mut setup = Setup::default();
        let timeouts = &mut setup.http.timeouts;
        // The loop lengthens it by a part of its tenth.
        timeouts.header = header.min(Duration::MAX / 128);
        (timeouts.idle, timeouts.request, timeouts.drain_idle) = (idle, Some(request), drain_idle);
        setup.http.body_rate_min.window = window;
        setup.http.body_rate_min.bytes_per_second = bytes_per_second;
        setup.http.job_deadline = job_deadline;
        let server = Server::start(WithJob { routes: server::demo::routes(None), deadline: own_deadline }, setup);
        let mut client = server.connect();
        // Twice: the first head's time begins with the connection, the second one's with its first byte.
        for requests_before in [0, 1] {
            let (begins, ends) = ("GET / HTTP/1.1\r\nHo", "st: test\r\n\r\n");
            client.send(begins);
            let bytes_read = (requests_before * (begins.len() + ends.len()) + begins.len()) as u64;
            until("the first part is read", || server.stats.bytes_read.get() == bytes_read);
            client.send(ends);
            prop_assert_eq!(client.response().status, 200);
        }
        for request in [get("/sleep?ms=1"), get("/large"), get("/spin?us=1"), get("/job"), post("/echo", "body"), post("/digest?rounds=1", "body")] {
            client.send(&request);
            prop_assert_eq!(client.response().status, 200, "{}", request);
        }
        prop_assert_eq!(server.http.in_flight.get(), 0);
        server.handle.shut_down(PATIENCE);
        until("new clients are refused", || TcpStream::connect(server.address).is_err());
        // Idle when the shutdown began, and served for as long as `drain_idle` says.
        client.send(get("/"));
        prop_assert_eq!(client.response().status, 200);
        client.is_closed();
        drop(client);
        server.is_at_rest();
    }
}
