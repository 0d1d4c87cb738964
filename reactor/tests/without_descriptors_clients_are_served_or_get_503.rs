//! When descriptors run out nobody hangs: some are told, and as soon as there are descriptors again the rest are served.
//!
//! The server runs in a process of its own, whose limit is lowered after its loop was made: `connections_max` was fitted to more.
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;

use reactor::{AcceptError, Config};
use support::child::{Server, is_server, start_server, wait_for_the_end};
use support::lines::Lines;
use support::{PATIENCE, ask, connect, prepare, sys, until};

/// `prlimit --nofile=256` for a running server.
const DESCRIPTORS: u64 = 256;

fn serve() {
    let mut lines = Lines::silent();
    lines.goodbye = "no room\n";
    let server = prepare(Config::default(), lines).run();
    sys::set_descriptor_limit(DESCRIPTORS).unwrap();
    println!("\nlistening {}", server.address);
    wait_for_the_end();
    println!("\npauses {}", server.stats.accept_pauses.get());
    println!("\nturns {}", server.stats.turns.get());
}

/// What became of a client: `Some(true)` served, `Some(false)` told, `None` nothing yet.
fn fate(client: &mut TcpStream) -> Option<bool> {
    let mut answer = [0; 8];
    client.set_nonblocking(true).unwrap();
    let result = client.read(&mut answer);
    client.set_nonblocking(false).unwrap();
    match result {
        Ok(n) if answer[..n] == *b"hello\n" => Some(true),
        Ok(n) if answer[..n] == *b"no room\n" => Some(false),
        Ok(n) => panic!("half an answer, or an end without a word: {:?}", &answer[..n]),
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => None,
        Err(e) => panic!("neither served nor told: {e}"),
    }
}

fn end(mut server: Server) -> (u64, u64) {
    server.close_stdin();
    let pauses = server.hear("pauses").parse().unwrap();
    let turns = server.hear("turns").parse().unwrap();
    assert!(server.end());
    (pauses, turns)
}

#[test]
fn four_hundred_clients_against_256_descriptors_are_all_served_or_get_503() {
    if is_server() {
        return serve();
    }
    let server = start_server("four_hundred_clients_against_256_descriptors_are_all_served_or_get_503");
    let mut waiting: Vec<TcpStream> = (0..400).map(|_| connect(server.address)).collect();
    for client in &mut waiting {
        // Told and gone already is possible: then this may fail, and the answer is there all the same.
        let _ = client.write_all(b"hello\n");
    }
    let mut served = Vec::new();
    let mut told = 0;
    let look = |waiting: &mut Vec<TcpStream>, served: &mut Vec<TcpStream>, told: &mut usize| {
        for mut client in std::mem::take(waiting) {
            match fate(&mut client) {
                Some(true) => served.push(client),
                Some(false) => *told += 1, // And leaves.
                None => waiting.push(client),
            }
        }
    };
    // Most of the limit is served. The spare descriptor tells the others, one after another, while nobody leaves.
    until("200 are served, and everyone else is told", || {
        look(&mut waiting, &mut served, &mut told);
        waiting.is_empty()
    });
    assert!(served.len() > 200 && served.len() < 256, "{} were served", served.len());
    assert_eq!(served.len() + told, 400);
    // Those inside are not harmed, and a client that comes after they left is served.
    served.iter_mut().for_each(|client| ask(client, "still here"));
    let mut again = served.split_off(50);
    drop(served);
    again.iter_mut().for_each(|client| ask(client, "and here"));
    until("a new client is served", || {
        let mut new = connect(server.address);
        let _ = new.write_all(b"hello\n");
        let mut answer = Vec::new();
        let _ = Read::by_ref(&mut new).take(6).read_to_end(&mut answer);
        answer == b"hello\n"
    });
    drop(again);
    let (pauses, _) = end(server);
    assert!(pauses > 0, "the limit was never met");
}

#[test]
fn descriptors_that_others_held_and_gave_back_are_used_without_a_close_and_without_a_spin() {
    if is_server() {
        return serve_beside_files();
    }
    let mut server = start_server("descriptors_that_others_held_and_gave_back_are_used_without_a_close_and_without_a_spin");
    // Every descriptor is taken: this one is told, and the next ones wait behind it, since it does not leave.
    let mut first = connect(server.address);
    let mut answer = [0; 8];
    first.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"no room\n");
    let mut waiting: Vec<TcpStream> = (0..4).map(|_| connect(server.address)).collect();
    server.say("free");
    server.hear("freed");
    // No connection has closed: only the pause's end lets them in.
    waiting[..2].iter_mut().for_each(|client| ask(client, "hello"));
    // Now the house is full, with clients at the door. The pause has long passed, and must not keep the loop awake.
    server.say("turns");
    let turns: u64 = server.hear("turns").parse().unwrap();
    assert!(turns < 50, "{turns} turns in 100 ms");
    drop(waiting);
    drop(first);
    assert!(server.end());
}

fn serve_beside_files() {
    let mut config = Config::default();
    config.limits.connections_max = 3;
    config.limits.linger_timeout = PATIENCE;
    config.policy.at_connections_max = reactor::policy::AtConnectionsMax::Wait;
    let mut lines = Lines::silent();
    lines.goodbye = "no room\n";
    let server = prepare(config, lines).run();
    sys::set_descriptor_limit(64).unwrap();
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    println!("\nlistening {}", server.address);
    let mut orders = std::io::stdin().lines();
    assert_eq!(orders.next().unwrap().unwrap(), "free");
    until("the limit was met", || server.stats.accept_errors(AcceptError::Emfile).get() > 0);
    drop(files);
    println!("\nfreed 1");
    assert_eq!(orders.next().unwrap().unwrap(), "turns");
    let before = server.stats.turns.get();
    std::thread::sleep(std::time::Duration::from_millis(100)); // The measuring interval; a slow machine makes fewer turns, not more.
    println!("\nturns {}", server.stats.turns.get() - before);
    assert!(orders.next().is_none(), "the test's end is the end of our stdin");
}
