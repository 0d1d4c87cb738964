//! Who leaves calls its job off, wherever that is: in the queue, or on a worker until its next checkpoint. Who half-closes has not left, unless the
//! policy says so.

mod support;

use reactor::CloseReason;
use reactor::policy::HalfClose;
use support::{Gate, Server, Setup, get, routes_with_gate, until};
use worker_pool::OutcomeKind;

/// Longer than a test may take: only a checkpoint ends it in time.
const LONG: &str = "/spin?ms=10000";

fn setup(half_close: HalfClose) -> Setup {
    let mut setup = Setup::default();
    setup.reactor.policy.half_close = half_close;
    setup.http.half_close = half_close;
    setup
}

#[test]
fn a_reset_ends_a_running_job_at_its_checkpoint() {
    for half_close in [HalfClose::StillListens, HalfClose::HasLeft] {
        let server = Server::start(server::demo::routes(None), setup(half_close));
        let pool = server.pool.stats();
        let mut client = server.connect();
        client.send(get(LONG));
        until("it runs", || pool.threads_busy() == 1);
        client.reset();
        until("it has ended", || pool.in_flight().total() == 0);
        assert_eq!((pool.outcomes(OutcomeKind::Cancelled), pool.outcomes(OutcomeKind::Done)), (1, 0));
        server.is_at_rest();
    }
}

#[test]
fn a_half_close_is_no_departure_and_the_answer_comes() {
    let gate = Gate::default();
    let server = Server::start(routes_with_gate(&gate), setup(HalfClose::StillListens));
    let pool = server.pool.stats();
    // Two on the workers, two in the queue; two say so at once, two only when their request has been read.
    let mut clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(get(&format!("/hold?n={n}")));
        if n % 2 == 0 {
            client.half_close();
        }
    }
    until("two run and two wait", || gate.held() == 2 && pool.in_flight().total() == 4);
    clients.iter().skip(1).step_by(2).for_each(support::Client::half_close);
    gate.open();
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.response().text(), n.to_string());
        client.is_closed();
    }
    assert_eq!(pool.outcomes(OutcomeKind::Done), 4);
    drop(clients);
    server.is_at_rest();
}

#[test]
fn where_a_half_close_is_a_departure_it_cancels_what_waits_and_what_runs() {
    let gate = Gate::default();
    let server = Server::start(routes_with_gate(&gate), setup(HalfClose::HasLeft));
    let pool = server.pool.stats();
    let mut running: Vec<_> = (0..2).map(|_| server.connect()).collect();
    for client in &mut running {
        client.send(get("/hold?n=1"));
    }
    until("two run", || gate.held() == 2);
    let mut waiting: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for (n, client) in waiting.iter_mut().enumerate() {
        client.send(get("/hold?n=2"));
        if n % 2 == 0 {
            client.half_close(); // With the request, or a moment after it: both must be seen.
        }
    }
    until("all of them were read", || pool.admitted() == 6);
    waiting.iter().skip(1).step_by(2).for_each(support::Client::half_close);
    until("they are closed", || server.stats.closes(CloseReason::PeerClosed).get() == 4);
    gate.open();
    for client in &mut running {
        assert_eq!(client.response().text(), "1");
    }
    until("the pool is idle", || pool.in_flight().total() == 0);
    assert_eq!((pool.outcomes(OutcomeKind::Cancelled), pool.outcomes(OutcomeKind::Done)), (4, 2));
    drop((running, waiting));
    // A plain close is the same FIN.
    let mut client = server.connect();
    client.send(get(LONG));
    until("it runs", || pool.threads_busy() == 1);
    drop(client);
    until("it has ended", || pool.in_flight().total() == 0);
    assert_eq!((pool.outcomes(OutcomeKind::Cancelled), pool.outcomes(OutcomeKind::Done)), (5, 2));
    server.is_at_rest();
}

#[test]
fn where_a_half_close_is_a_departure_answers_that_need_no_job_still_come() {
    let server = Server::start(server::demo::routes(None), setup(HalfClose::HasLeft));
    for _ in 0..20 {
        let mut client = server.connect();
        client.send([get("/"), get("/healthz")].concat());
        client.half_close();
        assert_eq!(client.response().text(), "Hello, World!");
        assert_eq!(client.response().text(), "ok\n");
        client.is_closed();
    }
    server.is_at_rest();
}
