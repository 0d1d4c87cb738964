//! A job that is refused, panics or is too late costs its own request the answer, and nothing else.

mod support;

use std::sync::Arc;
use std::time::Duration;

use server::answer::{Answer, BodySink, Output, Pulled, StreamSource, Work};
use server::http::{Request, Response};
use support::{Gate, Serve, Server, Setup, get, post, routes_with_gate, until};
use worker_pool::OutcomeKind;

#[test]
fn a_refused_job_is_answered_at_once_and_the_connection_goes_on() {
    let gate = Gate::default();
    let mut setup = Setup::default();
    setup.pool.limits.queue_jobs_max = 1;
    let server = Server::start(routes_with_gate(&gate), setup);
    let mut admitted: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for (i, client) in admitted.iter_mut().enumerate() {
        client.send(get(&format!("/hold?n={i}")));
    }
    // Two threads hold one each, the third waits in the queue: the pool is full.
    until("the pool is full", || server.pool.stats().in_flight().total() == 3 && gate.held() == 2);
    let mut client = server.connect();
    let mut retry_after_seconds = Vec::new();
    for _ in 0..50 {
        client.send(get("/hold?n=no"));
        let response = client.response();
        assert_eq!(response.status, 503);
        retry_after_seconds.push(response.header("Retry-After").and_then(|value| value.parse::<u64>().ok()).expect("a number of seconds"));
        client.send(get("/"));
        assert_eq!(client.response().text(), "Hello, World!");
    }
    retry_after_seconds.sort_unstable();
    retry_after_seconds.dedup();
    assert!(retry_after_seconds.len() > 1, "those refused together must not return together: {retry_after_seconds:?}");
    assert_eq!(server.pool.stats().admitted(), 3, "no worker was involved");
    assert_eq!(server.http.jobs_refused.get(), 50);
    gate.open();
    for (i, client) in admitted.iter_mut().enumerate() {
        assert_eq!(client.response().text(), i.to_string());
    }
    drop((admitted, client));
    server.is_at_rest();
}

/// Panics wherever it is asked to.
fn panics(request: &Request<'_>) -> Answer {
    match request.path {
        "/service" => panic!("the service"),
        "/job" => Answer::Job(Work::fast(|_| panic!("the job"))),
        "/take" => Answer::Read(Box::new(Sink { in_take: true })),
        "/end" => Answer::Read(Box::new(Sink { in_take: false })),
        "/source" => Answer::Stream { head: Response::bytes("").into_stream(Some(1_000)), source: Box::new(Source(false)) },
        "/stream-job" => Answer::Stream { head: Response::bytes("").into_stream(Some(1_000)), source: Box::new(Source(true)) },
        _ => Answer::Now(Response::text("fine")),
    }
}

struct Sink {
    in_take: bool,
}

impl BodySink for Sink {
    fn take(&mut self, piece: &[u8]) -> usize {
        assert!(!self.in_take, "the sink");
        piece.len()
    }

    fn end(self: Box<Self>) -> Answer {
        panic!("the end of the sink")
    }
}

struct Source(bool);

impl StreamSource for Source {
    fn pull(&mut self, _output: &mut Output<'_>, _now: std::time::Instant) -> Pulled {
        assert!(self.0, "the source");
        Pulled::Job(Work::fast(|_| panic!("the job of a stream")))
    }
}

#[test]
fn a_panicking_job_is_500_and_its_worker_lives_on() {
    let server = Server::start(Serve(|request: &Request<'_>, _| panics(request)), Setup::default());
    let mut client = server.connect();
    for _ in 0..10 {
        client.send(get("/job"));
        assert_eq!(client.response().status, 500);
        client.send(get("/"));
        assert_eq!(client.response().text(), "fine");
    }
    assert_eq!(server.pool.stats().threads_alive(), 2);
    assert_eq!(server.pool.stats().outcomes(OutcomeKind::Panicked), 10);
    drop(client);
    server.is_at_rest();
}

#[test]
fn the_poison_request_of_the_demonstration_kills_nobody_however_often_it_comes() {
    let server = Server::routes();
    let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send([get("/panic"), get("/spin?ms=0")].concat());
    }
    for client in &mut clients {
        assert_eq!(client.response().status, 500);
        assert_eq!(client.response().text(), "spun 0 ms\n");
    }
    assert_eq!(server.pool.stats().threads_alive(), 2);
    assert_eq!(server.pool.stats().outcomes(OutcomeKind::Panicked), 8);
    drop(clients);
    server.is_at_rest();
}

#[test]
fn a_panicking_callback_is_500_and_a_close_and_others_are_unharmed() {
    let server = Server::start(Serve(|request: &Request<'_>, _| panics(request)), Setup::default());
    let mut neighbour = server.connect();
    for request in [get("/service"), post("/take", "x"), post("/end", "x"), post("/end", "")] {
        let mut client = server.connect();
        // Those before it in the same segment have their answers, those behind it have none.
        client.send([get("/"), request, get("/")].concat());
        assert_eq!(client.response().text(), "fine");
        let response = client.response();
        assert_eq!((response.status, response.header("Connection")), (500, Some("close")));
        client.is_closed();
        neighbour.send(get("/"));
        assert_eq!(neighbour.response().text(), "fine");
    }
    for path in ["/source", "/stream-job"] {
        let mut client = server.connect();
        client.send(get(path));
        let received = client.until_gone();
        assert!(received.len() < 1_000, "{path}: a response that broke must be short");
        neighbour.send(get("/"));
        assert_eq!(neighbour.response().text(), "fine");
    }
    drop(neighbour);
    server.is_at_rest();
}

#[test]
fn a_job_whose_deadline_passes_is_504_and_its_result_reaches_nobody() {
    let gate = Gate::default();
    let mut setup = Setup::default();
    setup.http.job_deadline = Duration::from_millis(50);
    let server = Server::start(routes_with_gate(&gate), setup);
    let mut client = server.connect();
    for round in 0..10 {
        gate.close();
        client.send(get("/hold?n=late"));
        assert_eq!(client.response().status, 504);
        // The worker is still at it, and its result comes while the connection is answering other requests.
        gate.open();
        client.send([get("/bytes?n=200000"), get("/sleep?ms=1"), get("/echo"), get("/")].concat());
        assert_eq!(client.response().body.len(), 200_000, "round {round}");
        assert_eq!(client.response().text(), "slept 1 ms\n");
        assert_eq!(client.response().status, 405);
        assert_eq!(client.response().text(), "Hello, World!");
        until("the late result has come", || server.http.late_results.get() == round + 1);
    }
    drop(client);
    server.is_at_rest();
}

#[test]
fn a_client_that_leaves_takes_its_waiting_job_along() {
    let gate = Gate::default();
    let server = Server::start(routes_with_gate(&gate), Setup::default());
    let pool = Arc::clone(&server.pool.stats());
    let mut clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(get("/hold?n=1"));
    }
    until("two run and two wait", || gate.held() == 2 && pool.in_flight().total() == 4);
    for client in clients {
        client.reset();
    }
    until("all connections are closed", || server.stats.connections_open.get() == 0);
    gate.open();
    until("the pool is idle", || pool.in_flight().total() == 0);
    assert_eq!(pool.outcomes(OutcomeKind::Cancelled), 2, "those that waited never ran");
    server.is_at_rest();
}
