//! Thousands of connects at once are all accepted, and thousands that leave at once stop nobody else. Scaled to the hard descriptor limit.
//!
//! The server is a process of its own, so that clients and server each have the whole limit.
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use reactor::os::descriptors::raise_descriptor_limit;
use reactor::{CloseReason, Config, LinuxListener, ListenerWakes};
use support::child::{Server, is_server, start_server};
use support::lines::Lines;
use support::{ask, connect, listener, patient, prepare, reset, until};

const CLOSES_PER_TURN_MAX: u32 = 16;

fn serve() {
    let descriptors_max = raise_descriptor_limit().unwrap();
    let mut config = Config::default();
    config.limits.connections_max = u32::try_from(descriptors_max).unwrap_or(u32::MAX).min(20_000) - 200;
    config.limits.closes_per_turn_max = CLOSES_PER_TURN_MAX;
    let server = prepare(config, Lines::silent()).run();
    println!("\nlistening {}", server.address);
    let mut orders = std::io::stdin().lines();
    while let Some(Ok(order)) = orders.next() {
        match order.as_str() {
            "open" => println!("\nopen {}", server.stats.connections_open.get()),
            "accepts" => println!("\naccepts {}", server.stats.accepts.get()),
            "turns" => println!("\nturns {}", server.stats.turns.get()),
            "closes" => println!("\ncloses {}", CloseReason::ALL.iter().map(|&reason| server.stats.closes(reason).get()).sum::<u64>()),
            "descriptors" => println!("\ndescriptors {}", std::fs::read_dir("/proc/self/fd").unwrap().count()),
            order => panic!("no such order: {order}"),
        }
    }
}

fn asked(server: &mut Server, what: &str) -> u64 {
    server.say(what);
    server.hear(what).parse().unwrap()
}

/// As many as this process can have, up to `wanted`.
fn clients_max(wanted: u64) -> usize {
    let count = raise_descriptor_limit().unwrap().saturating_sub(300).min(wanted);
    assert!(count >= 200, "the descriptor limit leaves nothing to test with");
    count as usize
}

/// Non-blocking connects: all are under way before the first is accepted, as far as one thread can do it.
fn connect_at_once(address: std::net::SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count)
        .map(|_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address.into()); // EINPROGRESS
            let stream = TcpStream::from(socket);
            stream.set_nonblocking(false).unwrap();
            patient(&stream);
            stream
        })
        .collect()
}

#[test]
fn five_thousand_connects_at_once_are_all_served() {
    if is_server() {
        return serve();
    }
    let mut server = start_server("five_thousand_connects_at_once_are_all_served");
    let count = clients_max(5_000);
    let mut clients = connect_at_once(server.address, count);
    for client in &mut clients {
        ask(client, "hello");
    }
    assert_eq!(asked(&mut server, "accepts"), count as u64);
    assert!(server.end());
}

#[test]
fn thousands_of_clients_that_disconnect_at_once_delay_no_other_and_are_closed_a_few_a_turn() {
    if is_server() {
        return serve();
    }
    let mut server = start_server("thousands_of_clients_that_disconnect_at_once_delay_no_other_and_are_closed_a_few_a_turn");
    let mut witness = connect(server.address);
    ask(&mut witness, "hello");
    let descriptors = asked(&mut server, "descriptors");
    let count = clients_max(8_000);
    let mut clients = connect_at_once(server.address, count);
    for client in &mut clients {
        ask(client, "hello");
    }
    let (turns_before, closes_before) = (asked(&mut server, "turns"), asked(&mut server, "closes"));
    // Half of them with FIN, half with RST.
    let mut answered = 0;
    let leaving = std::thread::spawn(move || {
        for (i, client) in clients.into_iter().enumerate() {
            if i % 2 == 0 { drop(client) } else { reset(client) }
        }
    });
    while !leaving.is_finished() {
        ask(&mut witness, "meanwhile");
        answered += 1;
    }
    leaving.join().unwrap();
    until("all are closed", || {
        ask(&mut witness, "meanwhile");
        asked(&mut server, "open") == 1
    });
    assert!(answered > 0);
    let (turns, closes) = (asked(&mut server, "turns") - turns_before, asked(&mut server, "closes") - closes_before);
    assert_eq!(closes, count as u64, "each is closed once");
    assert!(turns >= closes / u64::from(CLOSES_PER_TURN_MAX), "{closes} closes in {turns} turns");
    assert_eq!(asked(&mut server, "descriptors"), descriptors);
    assert!(server.end());
}

#[test]
fn a_queue_that_never_runs_empty_leaves_the_other_listeners_their_turn() {
    let mut config = Config::default();
    config.limits.accepts_per_turn_max = 1;
    let mut server = prepare(config, Lines::silent());
    let socket = listener();
    let mut other = connect(socket.local_addr().unwrap());
    server.event_loop.listen_on(LinuxListener::new(socket).unwrap(), ListenerWakes::All).unwrap();
    other.write_all(b"hello\n").unwrap();
    other.set_nonblocking(true).unwrap();
    let mut flood: Vec<TcpStream> = (0..10).map(|_| connect(server.address)).collect();
    let mut turns = 0;
    while other.read(&mut [0; 6]).is_err() {
        server.event_loop.turn().unwrap();
        flood.push(connect(server.address)); // As many come as are taken.
        turns += 1;
        assert!(turns < 100, "whoever connects to the second listener waits for as long as the first one has clients");
    }
}
