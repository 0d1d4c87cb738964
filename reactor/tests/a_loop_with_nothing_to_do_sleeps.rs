//! Nothing that only waits keeps the loop awake: not a paused peer that has left, not a lingering one that is woken, not a full house.
//!
//! A spin (`hot-loop`) shows as turns: tens of thousands in the 50 ms until a deadline, where a sleeping loop makes a handful.
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use reactor::policy::AtConnectionsMax;
use reactor::{AcceptError, Config, ListenerWakes, Stats};
use support::lines::{Lines, Mail, Told, wait_for, wait_for_open};
use support::{Running, ask, connect, listener, prepare, prepare_on, start, until};

/// Turns that are made while one connection waits 50 ms for its deadline.
fn turns_in_50_ms(server: &Running<Lines>, clock: &mut TcpStream) -> u64 {
    let turns = |stats: &Stats| stats.turns.get();
    let before = turns(&server.stats);
    ask_for_deadline(clock);
    turns(&server.stats) - before
}

fn ask_for_deadline(clock: &mut TcpStream) {
    clock.write_all(b"deadline 50\n").unwrap();
    let mut answer = [0; 13];
    std::io::Read::read_exact(clock, &mut answer).unwrap();
    assert_eq!(&answer, b"set\ndeadline\n");
}

/// Three turns for the request, the deadline and the answer; the rest is for spurious events. A spin makes thousands.
const TURNS_MAX: u64 = 30;

#[test]
fn a_paused_connection_whose_peer_has_half_closed_keeps_no_loop_awake() {
    let (lines, heard) = Lines::new();
    let server = start(Config::default(), lines);
    let mut clock = server.connect();
    ask(&mut clock, "hello");
    let mut paused = server.connect();
    paused.write_all(b"pause\nmore\n").unwrap();
    wait_for(&heard, |told| matches!(told, Told::Paused(_)).then_some(()));
    paused.write_all(&[b'x'; 1000]).unwrap();
    paused.shutdown(Shutdown::Write).unwrap();
    let turns = turns_in_50_ms(&server, &mut clock);
    assert!(turns <= TURNS_MAX, "{turns} turns in 50 ms");
}

#[test]
fn an_unread_answer_keeps_no_loop_awake() {
    // Without this the stall timeout would close the connection that keeps the loop awake, and the wait below would end for that.
    let mut config = Config::default();
    config.limits.output_rate_window = Duration::MAX;
    let server = start(config, Lines::silent());
    let mut clock = server.connect();
    ask(&mut clock, "hello");
    let mut stuck = server.connect();
    stuck.write_all(b"many 50000000\n").unwrap();
    until("the kernel takes no more", || server.stats.short_writes.get() > 0);
    let before = server.stats.bytes_written.get();
    // The kernel may take a little more when it grows the buffer; then it is full for good.
    until("the last byte is taken", || {
        let turns = turns_in_50_ms(&server, &mut clock);
        turns <= TURNS_MAX
    });
    assert!(server.stats.bytes_written.get() >= before);
}

#[test]
fn a_lingering_connection_that_is_woken_keeps_no_loop_awake() {
    let (lines, heard) = Lines::new();
    let server = start(Config::default(), lines);
    let mut lingers = server.connect();
    wait_for_open(&heard);
    let mut clock = server.connect();
    ask(&mut clock, "hello");
    // It has said its last word, and waits for the peer's FIN, which does not come.
    lingers.write_all(b"close\n").unwrap();
    until("it lingers", || server.stats.connections_lingering.get() == 1);
    ask(&mut clock, "wake");
    let turns = turns_in_50_ms(&server, &mut clock);
    assert_eq!(server.stats.connections_lingering.get(), 1, "the test came too late");
    assert!(turns <= TURNS_MAX, "{turns} turns in 50 ms");
}

#[test]
fn a_full_house_with_clients_at_the_door_keeps_no_loop_awake() {
    let mut config = Config::default();
    config.limits.connections_max = 2;
    config.policy.at_connections_max = AtConnectionsMax::Wait;
    let server = prepare(config, Lines::silent());
    let mut clock = connect(server.address);
    let guest = connect(server.address);
    let waiting = connect(server.address);
    let server = server.run();
    ask(&mut clock, "hello");
    let turns = turns_in_50_ms(&server, &mut clock);
    assert!(turns <= TURNS_MAX, "{turns} turns in 50 ms");
    drop(guest);
    let mut waiting = waiting;
    ask(&mut waiting, "at last");
}

#[test]
fn a_connection_with_output_space_it_cannot_use_keeps_no_loop_awake() {
    let (lines, heard) = Lines::new();
    let server = start(Config::default(), lines);
    let mut clock = server.connect();
    ask(&mut clock, "hello");
    let mut unfinished = server.connect();
    unfinished.write_all(b"no line end").unwrap();
    let first = wait_for_open(&heard);
    let other = wait_for_open(&heard);
    // `writable` that says nothing, on one with kept input: spurious by design, and no reason to stay awake.
    ask(&mut clock, "wake");
    server.mail(other, Mail::Resume).unwrap();
    server.mail(first, Mail::Resume).unwrap();
    let turns = turns_in_50_ms(&server, &mut clock);
    assert!(turns <= TURNS_MAX, "{turns} turns in 50 ms");
}

#[test]
fn a_listener_that_fails_for_good_keeps_no_loop_awake() {
    let socket = listener();
    let whoever_shares_it = socket.try_clone().unwrap();
    let mut config = Config::default();
    config.limits.accept_pause = Duration::from_millis(10);
    let mut server = prepare_on(socket, ListenerWakes::All, config, Lines::silent());
    // accept(2) is EINVAL from now on, and takes nobody from the queue.
    socket2::SockRef::from(&whoever_shares_it).shutdown(Shutdown::Both).unwrap();
    let started = Instant::now();
    for _ in 0..10 {
        server.event_loop.turn().unwrap();
    }
    assert!(started.elapsed() >= Duration::from_millis(9 * 10), "each turn but the first waits for the end of the pause");
    assert_eq!(server.event_loop.stats().accept_errors(AcceptError::Other).get(), 10);
}
