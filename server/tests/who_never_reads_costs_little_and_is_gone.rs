//! Clients that ask for much and read nothing: what each holds is bounded, here and in the kernel, and after the write stall timeout it is gone
//! from both.

mod support;

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use support::{Server, Setup, get, until};

const CLIENTS: u64 = 20;

/// Sockets of the server's port but for its listener: also those that nobody has open any more.
fn sockets_of(address: SocketAddr) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").expect("proc(5)");
    let local = format!(":{:04X}", address.port());
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    // 0A is a listener, 06 TIME_WAIT, which holds no memory to speak of (include/net/tcp_states.h).
    lines.filter(|fields| fields[1].ends_with(&local) && !["0A", "06"].contains(&fields[3])).count()
}

#[test]
fn who_never_reads_is_reset_and_the_kernel_keeps_nothing_for_it() {
    let mut setup = Setup::default();
    setup.reactor.limits.output_rate_window = Duration::from_millis(300);
    let high_water = u64::from(setup.reactor.limits.output_high_water_bytes);
    let server = Server::start(server::demo::routes(None), setup);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = server.connect();
            client.send(get("/bytes?n=4194304"));
            client
        })
        .collect();
    until("all of them have stalled", || {
        assert!(server.stats.leased_bytes.get() <= CLIENTS * high_water);
        server.stats.closes(reactor::CloseReason::WriteStalled).get() == CLIENTS
    });
    // With FIN instead of a reset they would stay for minutes, each with what it has not been sent.
    until("the kernel has forgotten them", || sockets_of(server.address) == 0);
    assert_eq!(server.stats.resets.get(), CLIENTS);
    server.is_at_rest();
    server.serves();
    drop(clients);
}
