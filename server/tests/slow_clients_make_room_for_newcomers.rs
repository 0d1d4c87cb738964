//! Near the connection limit those make room that have kept us waiting the longest, each with the word that is due to it; whoever is being
//! answered stays (`slowloris`).

mod support;

use std::io::Write;
use std::net::Shutdown;

use reactor::CloseReason;
use reactor::policy::WhenNearlyFull;
use support::{Client, Gate, Server, Setup, get, routes_with_gate, until};

const CONNECTIONS_MAX: u32 = 8;
const ROOM: u32 = 2;
/// So many can stay at ease.
const AT_EASE: usize = (CONNECTIONS_MAX - ROOM) as usize;

fn small(gate: &Gate) -> Server {
    start(gate, WhenNearlyFull::Evict)
}

fn start(gate: &Gate, when_nearly_full: WhenNearlyFull) -> Server {
    let mut setup = Setup::default();
    setup.reactor.limits.connections_max = CONNECTIONS_MAX;
    setup.reactor.limits.free_slots_min = ROOM;
    setup.reactor.policy.when_nearly_full = when_nearly_full;
    // One for each place, and one more.
    setup.pool.threads = CONNECTIONS_MAX + 1;
    Server::start(routes_with_gate(gate), setup)
}

/// A client that was served and rests.
fn idle(server: &Server) -> Client {
    let mut client = server.connect();
    client.send(get("/"));
    assert_eq!(client.response().status, 200);
    client
}

/// A client of which so much has been read, and no more comes.
fn stuck(server: &Server, bytes: &str) -> Client {
    let before = server.stats.bytes_read.get();
    let mut client = server.connect();
    client.send(bytes);
    until("it was read", || server.stats.bytes_read.get() >= before + bytes.len() as u64);
    client
}

fn still_serves(client: &mut Client) {
    client.send(get("/"));
    assert_eq!(client.response().status, 200);
}

#[test]
fn the_connection_that_was_idle_for_the_longest_goes_first_and_without_a_word() {
    let server = small(&Gate::default());
    let mut clients: Vec<Client> = (0..AT_EASE).map(|_| idle(&server)).collect();
    // The first one asks again: it is young now, and the second one the oldest.
    still_serves(&mut clients[0]);
    clients.push(idle(&server));
    clients.remove(1).is_closed();
    for client in &mut clients {
        still_serves(client);
    }
    assert_eq!((server.http.idle_evictions.get(), server.stats.closes(CloseReason::Evicted).get()), (1, 1));
}

#[test]
fn any_number_of_newcomers_is_served_while_slow_heads_hold_all_places() {
    let server = small(&Gate::default());
    let mut slow: Vec<Client> = (0..AT_EASE).map(|_| stuck(&server, "GET / HTTP/1.1\r\nHost: x\r\nX: ")).collect();
    for n in 0..200 {
        let mut newcomer = server.connect();
        newcomer.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert_eq!(newcomer.response().status, 200, "newcomer {n}");
        if n % 20 == 0 {
            // The attack goes on. Its own connections are the older ones.
            slow.push(stuck(&server, "GET / HTTP/1.1\r\nHost: x\r\nX: "));
        }
    }
    assert_eq!(server.stats.closes(CloseReason::Refused).get(), 0);
    let response = slow.remove(0).response();
    assert_eq!((response.status, response.header("Connection")), (408, Some("close")));
    assert!(server.http.header_evictions.get() > 0);
}

#[test]
fn a_body_that_nobody_answers_yet_makes_room_with_408() {
    let server = small(&Gate::default());
    let mut slow = stuck(&server, "POST /digest?rounds=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nbegun");
    let _idle: Vec<Client> = (0..AT_EASE).map(|_| idle(&server)).collect();
    assert_eq!(slow.response().status, 408);
    assert_eq!(server.http.body_evictions.get(), 1);
}

#[test]
fn whoever_is_being_answered_stays_and_newcomers_are_told_so() {
    let gate = Gate::default();
    let server = small(&gate);
    let mut working: Vec<Client> = (0..CONNECTIONS_MAX)
        .map(|n| {
            let mut client = server.connect();
            client.send(get(&format!("/hold?n={n}")));
            client
        })
        .collect();
    until("all are being answered", || gate.held() == CONNECTIONS_MAX as usize);
    let mut newcomer = server.connect();
    assert_eq!(newcomer.response().status, 503);
    gate.open();
    for client in &mut working {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(server.stats.closes(CloseReason::Refused).get() + server.stats.connections_lingering.get(), 1);
}

#[test]
fn where_everybody_is_kept_the_places_stay_taken() {
    let server = start(&Gate::default(), WhenNearlyFull::Keep);
    let mut clients: Vec<Client> = (0..CONNECTIONS_MAX).map(|_| idle(&server)).collect();
    assert_eq!(server.connect().response().status, 503);
    clients.iter_mut().for_each(still_serves);
    assert_eq!(server.stats.closes(CloseReason::Evicted).get(), 0);
}

#[test]
fn a_request_on_its_way_is_answered_though_its_connection_was_to_go() {
    // Many rounds, since what is to be met is a moment: the request arrives while room is being made. It is answered, or the connection
    // was closed before; never half of either.
    let server = small(&Gate::default());
    for _ in 0..50 {
        let mut clients: Vec<Client> = (0..AT_EASE).map(|_| idle(&server)).collect();
        let mut newcomer = server.connect();
        let oldest = &mut clients[0];
        newcomer.send(get("/"));
        let _ = oldest.stream.write_all(get("/").as_bytes());
        assert_eq!(newcomer.response().status, 200);
        // It may be closed already: then there is nothing to shut.
        let _ = oldest.stream.shutdown(Shutdown::Write);
        let came = String::from_utf8_lossy(&oldest.until_gone()).into_owned();
        assert!(came.is_empty() || (came.starts_with("HTTP/1.1 200 ") && came.ends_with("Hello, World!")), "{came}");
        drop(clients);
        drop(newcomer);
        server.is_at_rest();
    }
}
