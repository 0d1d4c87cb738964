//! Several loops, one port: each way to share it serves every client, and the hand-off gives each connection to the loop with the fewest.
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use reactor::listen::HandOffTarget;
use reactor::listen::socket::ListenOptions;
use reactor::policy::AtConnectionsMax;
use reactor::{CloseReason, Config, EventLoop, ListenerWakes};
use support::lines::Lines;
use support::scripted::scripted;
use support::{Prepared, Running, ask, connect, listener, listener_with, prepare, prepare_on, read_all, until};

/// A loop without a listener.
fn receiving(config: Config) -> (Running<Lines>, HandOffTarget<support::lines::Mail>) {
    receiving_with(config, Lines::silent())
}

fn receiving_with(config: Config, lines: Lines) -> (Running<Lines>, HandOffTarget<support::lines::Mail>) {
    let mut event_loop = EventLoop::new(config, lines).unwrap();
    let receiver = event_loop.receiver().unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    (Prepared { event_loop, address }.run(), receiver)
}

#[test]
fn the_hand_off_goes_to_the_loop_with_the_fewest() {
    let (second, to_second) = receiving(Config::default());
    let (third, to_third) = receiving(Config::default());
    let mut first = prepare(Config::default(), Lines::silent());
    first.event_loop.hand_off_to(vec![to_second, to_third]);
    let first = first.run();
    let open = |server: &Running<Lines>| server.stats.connections_open.get();
    let mut clients: Vec<TcpStream> = (0..30).map(|_| first.connect()).collect();
    for client in &mut clients {
        ask(client, "hello");
    }
    assert_eq!([open(&first), open(&second), open(&third)], [10, 10, 10]);
    // Those of one loop leave; the next ones fill the gap and nothing else.
    let gone: Vec<TcpStream> = clients.drain(..15).collect();
    drop(gone);
    until("they are closed", || open(&first) + open(&second) + open(&third) == 15);
    let mut more: Vec<TcpStream> = Vec::new();
    for _ in 0..15 {
        more.push(first.connect());
        ask(more.last_mut().unwrap(), "hello");
    }
    assert_eq!([open(&first), open(&second), open(&third)], [10, 10, 10]);
    assert_eq!(first.stats.accepts.get() + second.stats.adoptions.get() + third.stats.adoptions.get(), 45);
}

#[test]
fn a_connection_that_cannot_be_taken_over_does_not_count_as_load_for_ever() {
    let (mut second, _) = scripted(Config::default(), Lines::silent());
    let (mut first, index) = scripted(Config::default(), Lines::silent());
    first.hand_off_to(vec![second.receiver().unwrap()]);
    // The first stays, and each later one goes to the loop that has fewer: the other one, which never gets to hold any.
    for _ in 0..10 {
        first.os_mut().kernel().peer_connects(index).unwrap();
        first.turn().unwrap();
        second.turn().unwrap();
    }
    assert_eq!(second.stats().adoption_failures.get(), 9);
    assert_eq!(first.stats().connections_open.get(), 1);
}

#[test]
fn a_loop_whose_mailbox_has_no_permit_for_another_acceptor_returns_an_error() {
    let mut config = Config::default();
    config.limits.mail_max = 2;
    let mut event_loop = EventLoop::new(config, Lines::silent()).unwrap();
    let _receivers = [event_loop.receiver().unwrap(), event_loop.receiver().unwrap()];
    let error = event_loop.receiver().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("mail_max (2)"), "{error}");
}

/// A loop with one slot and one for a rejection, to which another loop hands a client in the moment in which its own clients take both.
/// Returns the loop, its two clients, and the one that was handed over. The accepting loop comes along to stay alive.
fn handed_to_a_full_loop(policy: AtConnectionsMax) -> (Running<Lines>, [TcpStream; 3], Prepared<Lines>) {
    let mut config = Config::default();
    (config.limits.connections_max, config.limits.refusals_max) = (1, 1);
    config.policy.at_connections_max = policy;
    let polite = || {
        let mut lines = Lines::silent();
        lines.goodbye = "full\n";
        lines
    };
    let mut full = prepare(config.clone(), polite());
    let mut accepting = prepare(config, polite());
    accepting.event_loop.hand_off_to(vec![full.event_loop.receiver().unwrap()]);
    // Each turn has an event, so none of them waits. The first client stays with the loop that accepts, the second is handed over.
    let first = connect(accepting.address);
    accepting.event_loop.turn().unwrap();
    let handed = connect(accepting.address);
    accepting.event_loop.turn().unwrap();
    assert_eq!(accepting.event_loop.stats().connections_open.get(), 1);
    drop(first);
    // A turn accepts before it takes mail.
    let own = [connect(full.address), connect(full.address)];
    full.event_loop.turn().unwrap();
    assert_eq!(full.event_loop.stats().adoptions.get(), 0, "there is no slot for it");
    let [served, next] = own;
    (full.run(), [served, next, handed], accepting)
}

#[test]
fn a_client_that_was_handed_to_a_loop_that_filled_up_meanwhile_gets_a_response() {
    let (full, [mut served, mut rejected, mut handed], _accepting) = handed_to_a_full_loop(AtConnectionsMax::Refuse);
    ask(&mut served, "hello");
    assert_eq!(read_all(&mut rejected), b"full\n");
    drop(rejected);
    assert_eq!(read_all(&mut handed), b"full\n", "the same as a client beyond the limit");
    assert_eq!((full.stats.adoptions.get(), full.stats.adoption_failures.get()), (1, 0));
}

#[test]
fn a_client_that_was_handed_to_a_full_loop_waits_where_clients_wait_at_the_limit() {
    let (full, [mut served, mut next, mut handed], _accepting) = handed_to_a_full_loop(AtConnectionsMax::Wait);
    ask(&mut served, "hello");
    drop(served);
    ask(&mut next, "hello");
    assert_eq!(full.stats.adoptions.get(), 0);
    drop(next);
    ask(&mut handed, "hello");
}

#[test]
fn a_drain_serves_a_client_that_was_handed_over_and_waits_for_a_slot() {
    let (full, [served, next, mut handed], accepting) = handed_to_a_full_loop(AtConnectionsMax::Wait);
    drop(accepting); // It drops its target, so the drain waits for no further connection.
    drop((served, next));
    full.handle.shut_down(support::PATIENCE);
    assert_eq!(read_all(&mut handed), b"full\n");
    full.ended();
}

#[test]
fn a_loop_that_has_ended_is_handed_no_connection() {
    let (second, to_second) = receiving(Config::default());
    let mut first = prepare(Config::default(), Lines::silent());
    first.event_loop.hand_off_to(vec![to_second]);
    let first = first.run();
    second.stop();
    let mut clients: Vec<TcpStream> = (0..10).map(|_| first.connect()).collect();
    for client in &mut clients {
        ask(client, "hello");
    }
}

#[test]
fn the_drain_of_all_loops_loses_no_queued_client_whichever_loop_hears_of_it_first() {
    for the_one_that_accepts_first in [true, false] {
        let polite = || {
            let mut lines = Lines::silent();
            lines.goodbye = "draining\n";
            lines
        };
        let (second, to_second) = receiving_with(Config::default(), polite());
        let mut first = prepare(Config::default(), polite());
        first.event_loop.hand_off_to(vec![to_second]);
        let mut queued: Vec<TcpStream> = (0..50).map(|_| connect(first.address)).collect();
        let first_handle = first.event_loop.handle();
        let first = if the_one_that_accepts_first {
            first_handle.shut_down(support::PATIENCE);
            let first = first.run();
            second.handle.shut_down(support::PATIENCE);
            first
        } else {
            // It has nobody, and must not end: the other one does not know yet, and hands over.
            second.handle.shut_down(support::PATIENCE);
            let first = first.run();
            until("all are accepted", || first.stats.accepts.get() + second.stats.adoptions.get() == 50);
            assert!(second.stats.adoptions.get() > 0, "it is handed its share all the same");
            first_handle.shut_down(support::PATIENCE);
            first
        };
        for client in &mut queued {
            assert_eq!(read_all(client), b"draining\n");
        }
        drop(queued);
        first.ended();
        second.ended();
    }
}

#[test]
fn a_receiver_with_a_smaller_limit_is_not_handed_more_than_it_can_hold() {
    let mut small = Config::default();
    small.limits.connections_max = 4;
    small.limits.refusals_max = 1;
    let (second, to_second) = receiving(small);
    let mut first = prepare(Config::default(), Lines::silent());
    first.event_loop.hand_off_to(vec![to_second]);
    let first = first.run();
    let mut clients: Vec<TcpStream> = (0..100).map(|_| first.connect()).collect();
    for client in &mut clients {
        ask(client, "hello");
    }
    assert_eq!(second.stats.connections_open.get(), 4);
    assert_eq!(first.stats.connections_open.get(), 96);
}

#[test]
fn an_acceptor_that_is_full_still_hands_to_loops_with_free_slots() {
    let mut small = Config::default();
    small.limits.connections_max = 4;
    small.policy.at_connections_max = AtConnectionsMax::Wait;
    let (second, to_second) = receiving(Config::default());
    let mut first = prepare(small, Lines::silent());
    first.event_loop.hand_off_to(vec![to_second]);
    let first = first.run();
    let mut clients: Vec<TcpStream> = (0..20).map(|_| first.connect()).collect();
    for client in &mut clients {
        ask(client, "hello");
    }
    assert_eq!(first.stats.connections_open.get(), 4);
    assert_eq!(second.stats.connections_open.get(), 16);
}

#[test]
fn loops_that_share_one_socket_exclusively_serve_all_clients() {
    let socket = listener();
    let servers: Vec<Running<Lines>> =
        (0..3).map(|_| prepare_on(socket.try_clone().unwrap(), ListenerWakes::One, Config::default(), Lines::silent()).run()).collect();
    let mut clients: Vec<TcpStream> = (0..200).map(|_| connect(servers[0].address)).collect();
    for client in &mut clients {
        ask(client, "hello");
    }
    assert_eq!(servers.iter().map(|server| server.stats.accepts.get()).sum::<u64>(), 200);
}

#[test]
fn loops_with_a_socket_each_on_one_port_serve_all_clients() {
    let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
    let first = listener_with(options);
    let address = first.local_addr().unwrap();
    let second = reactor::listen::socket::listen(address, options).unwrap();
    let servers = [first, second].map(|socket| prepare_on(socket, ListenerWakes::All, Config::default(), Lines::silent()).run());
    let mut clients: Vec<TcpStream> = (0..200).map(|_| connect(address)).collect();
    for client in &mut clients {
        ask(client, "hello");
    }
    let accepts = servers.each_ref().map(|server| server.stats.accepts.get());
    assert_eq!(accepts.iter().sum::<u64>(), 200);
    // By a hash of the ports: that one socket gets all 200 has a chance of 2^-199.
    assert!(accepts.iter().all(|&accepts| accepts > 0), "{accepts:?}");
}

#[test]
fn a_loop_that_stops_leaves_the_shared_port_to_the_others() {
    let socket = listener();
    let [first, second] =
        [(); 2].map(|()| prepare_on(socket.try_clone().unwrap(), ListenerWakes::One, Config::default(), Lines::silent()).run());
    drop(socket);
    first.stop();
    let mut clients: Vec<TcpStream> = (0..20).map(|_| second.connect()).collect();
    for client in &mut clients {
        ask(client, "hello");
    }
    assert_eq!(second.stats.accepts.get(), 20);
}

#[test]
fn no_client_is_rejected_for_a_loop_with_a_full_mailbox_while_clients_wait_at_the_limit() {
    // The other loop has places and does not run: room for one connection in its mailbox, and for its last word.
    let mut stalled = Config::default();
    stalled.limits.mail_max = 2;
    let mut stalled = EventLoop::new(stalled, Lines::silent()).unwrap();
    let mut small = Config::default();
    small.limits.connections_max = 1;
    small.policy.at_connections_max = AtConnectionsMax::Wait;
    let mut lines = Lines::silent();
    lines.goodbye = "full\n";
    let mut first = prepare(small, lines);
    first.event_loop.hand_off_to(vec![stalled.receiver().unwrap()]);
    let first = first.run();
    let mut clients: Vec<TcpStream> = (0..6).map(|_| first.connect()).collect();
    ask(&mut clients[0], "hello");
    // Its deadline runs after all that was in the queue has been looked at.
    clients[0].write_all(b"deadline 20\n").unwrap();
    clients[0].read_exact(&mut [0; 13]).unwrap();
    assert_eq!(first.stats.connections_open.get(), 1);
    assert_eq!(first.stats.closes(CloseReason::Refused).get() + first.stats.connections_lingering.get(), 0);
    // And nobody is forgotten: each is served when the one before has left.
    let own: Vec<TcpStream> = [0, 2, 3, 4, 5].into_iter().rev().map(|index| clients.swap_remove(index)).collect();
    for mut client in own.into_iter().rev() {
        ask(&mut client, "still here");
    }
}

#[test]
fn a_place_that_another_loop_has_again_is_used_though_nothing_happens_in_the_one_that_accepts() {
    let mut small = Config::default();
    small.limits.connections_max = 1;
    small.policy.at_connections_max = AtConnectionsMax::Wait;
    let (second, to_second) = receiving(small.clone());
    let mut first = prepare(small, Lines::silent());
    first.event_loop.hand_off_to(vec![to_second]);
    let first = first.run();
    let [mut own, mut others, mut waiting] = [(); 3].map(|()| first.connect());
    ask(&mut own, "hello");
    ask(&mut others, "hello");
    assert_eq!((first.stats.connections_open.get(), second.stats.connections_open.get()), (1, 1));
    drop(others);
    ask(&mut waiting, "at last");
    assert_eq!(second.stats.adoptions.get(), 2);
}

#[test]
fn two_loops_that_accept_do_not_hand_connections_over_for_the_same_slot() {
    let mut small = Config::default();
    small.limits.connections_max = 1;
    let mut receiving = EventLoop::new(small, Lines::silent()).unwrap();
    let mut accepting = [(); 2].map(|()| prepare(Config::default(), Lines::silent()));
    for first in &mut accepting {
        first.event_loop.hand_off_to(vec![receiving.receiver().unwrap()]);
    }
    let mut clients = Vec::new();
    for first in &mut accepting {
        // The first client stays: the other loop does not have fewer connections.
        for _ in 0..2 {
            clients.push(connect(first.address));
            first.event_loop.turn().unwrap();
        }
    }
    assert_eq!(accepting.each_ref().map(|first| first.event_loop.stats().connections_open.get()), [1, 2]);
    receiving.turn().unwrap();
    assert_eq!((receiving.stats().adoptions.get(), receiving.stats().connections_open.get()), (1, 1));
}

#[test]
fn a_client_that_no_other_loop_could_take_waits_where_clients_wait_at_the_limit() {
    let mut small = Config::default();
    small.limits.connections_max = 1;
    small.policy.at_connections_max = AtConnectionsMax::Wait;
    let mut ended = EventLoop::new(Config::default(), Lines::silent()).unwrap();
    let mut first = prepare(small, Lines::silent());
    first.event_loop.hand_off_to(vec![ended.receiver().unwrap()]);
    // The loop that accepts finds out only when it hands a client over.
    drop(ended);
    let first = first.run();
    let [mut own, mut waiting] = [(); 2].map(|()| first.connect());
    ask(&mut own, "hello");
    drop(own);
    ask(&mut waiting, "at last");
    assert_eq!(first.stats.closes(CloseReason::Refused).get(), 0);
}
