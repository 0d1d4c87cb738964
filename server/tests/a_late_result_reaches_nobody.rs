//! A result for a client that has left must not reach the next client in its slot (`stale-completion`).

mod support;

use support::{Gate, Server, Setup, get, routes_with_gate, until};

#[test]
fn the_next_client_in_the_slot_gets_its_own_answer() {
    let gate = Gate::default();
    let server = Server::start(routes_with_gate(&gate), Setup::default());
    for round in 0..100 {
        gate.close();
        let mut first = server.connect();
        first.send(get(&format!("/hold?n=old-{round}")));
        until("a worker has the first one's job", || gate.held() == 1);
        first.reset();
        until("the first one's slot is free", || server.stats.connections_open.get() == 0);
        // The only connection: it gets the slot that has just become free, and its first job, as the first one had.
        let mut second = server.connect();
        second.send(get(&format!("/hold?n=new-{round}")));
        until("workers have both jobs", || gate.held() == 2);
        gate.open();
        assert_eq!(second.response().text(), format!("new-{round}"));
        until("the late result has come", || server.http.late_results.get() == round + 1);
        drop(second);
        until("the second one's slot is free", || server.stats.connections_open.get() == 0);
    }
    server.is_at_rest();
}
