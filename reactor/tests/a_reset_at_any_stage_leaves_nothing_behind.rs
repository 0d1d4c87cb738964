//! A peer may reset at any moment: `closed` comes exactly once, the slot is used again, and no descriptor stays open.
//!
//! One test alone in its process, since it counts the process's descriptors.
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::mpsc::Receiver;

use reactor::{CloseReason, Config, Token};
use support::lines::{Lines, Mail, Told, wait_for_close, wait_for_open};
use support::{Running, ask, connect, prepare, reset, start, until};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn paused(heard: &Receiver<Told>) -> Token {
    support::lines::wait_for(heard, |told| if let Told::Paused(token) = told { Some(token) } else { None })
}

/// Each stage: brings a client there, lets it reset, and says what the loop called that.
fn stages(server: &Running<Lines>, heard: &Receiver<Told>) -> Vec<(&'static str, CloseReason)> {
    let mut seen = Vec::new();

    let idle = server.connect();
    let token = wait_for_open(heard);
    reset(idle);
    seen.push(("idle", wait_for_close(heard, token)));

    let mut reading = server.connect();
    let token = wait_for_open(heard);
    let before = server.stats.bytes_read.get();
    reading.write_all(b"half a li").unwrap();
    until("it is read", || server.stats.bytes_read.get() == before + 9);
    reset(reading);
    seen.push(("in the middle of a request", wait_for_close(heard, token)));

    let mut held = server.connect();
    held.write_all(b"pause\nmore\n").unwrap();
    let token = paused(heard);
    reset(held);
    seen.push(("while paused", wait_for_close(heard, token)));

    let mut full = server.connect();
    held_full(&mut full);
    let token = paused(heard);
    reset(full);
    seen.push(("while paused, with bytes in the kernel", wait_for_close(heard, token)));

    let mut unread = server.connect();
    let token = wait_for_open(heard);
    let before = server.stats.short_writes.get();
    unread.write_all(b"many 100000000\n").unwrap();
    until("output is kept", || server.stats.short_writes.get() > before);
    reset(unread);
    seen.push(("while output is kept", wait_for_close(heard, token)));

    let mut half_closed = server.connect();
    let token = wait_for_open(heard);
    let before = server.stats.short_writes.get();
    half_closed.write_all(b"many 100000000\n").unwrap();
    half_closed.shutdown(std::net::Shutdown::Write).unwrap();
    until("output is kept", || server.stats.short_writes.get() > before);
    reset(half_closed);
    seen.push(("after a half-close", wait_for_close(heard, token)));

    let mut lingering = server.connect();
    let token = wait_for_open(heard);
    lingering.write_all(b"close\n").unwrap();
    let mut bye = [0; 4];
    lingering.read_exact(&mut bye).unwrap();
    until("it lingers", || server.stats.connections_lingering.get() == 1);
    reset(lingering);
    seen.push(("while lingering", wait_for_close(heard, token)));

    let mut at_the_end = server.connect();
    at_the_end.write_all(b"abort\n").unwrap();
    let token = wait_for_open(heard);
    reset(at_the_end);
    seen.push(("together with our abort", wait_for_close(heard, token)));
    seen
}

fn held_full(client: &mut std::net::TcpStream) {
    client.write_all(b"pause\n").unwrap();
    client.write_all(&[b'x'; 200_000]).unwrap();
}

#[test]
fn a_reset_at_any_stage_is_one_close_a_free_slot_and_no_leak() {
    let (lines, heard) = Lines::new();
    let mut config = Config::default();
    config.limits.connections_max = 4;
    config.limits.linger_timeout = support::PATIENCE;

    // Before accept: the connection may be gone when it is taken, or be accepted dead. Either way nothing stays.
    let early = prepare(Config::default(), Lines::silent());
    for _ in 0..20 {
        let mut client = connect(early.address);
        client.write_all(b"hello\n").unwrap();
        reset(client);
    }
    let early = early.run();
    ask(&mut early.connect(), "hello");
    until("those that were reset are closed", || early.stats.connections_open.get() == 0);
    early.stop();

    let server = start(config, lines);
    let mut witness = server.connect();
    ask(&mut witness, "hello");
    wait_for_open(&heard);
    let before = descriptors();
    for _ in 0..10 {
        for (stage, reason) in stages(&server, &heard) {
            let expected: &[CloseReason] = match stage {
                "while lingering" => &[CloseReason::Finished],
                "together with our abort" => &[CloseReason::Aborted, CloseReason::Reset],
                _ => &[CloseReason::Reset],
            };
            assert!(expected.contains(&reason), "{stage}: {reason:?}");
        }
        ask(&mut witness, "still here");
    }
    until("nobody is left but one", || server.stats.connections_open.get() == 1);
    assert_eq!(server.stats.connections_lingering.get(), 0);
    assert_eq!(server.stats.leased_bytes.get(), 0);
    until("no descriptor stays", || descriptors() == before);

    // A late word to each of them goes nowhere, and nobody was closed twice.
    let mut closes: HashMap<Token, u32> = HashMap::new();
    for told in heard.try_iter() {
        if let Told::Closed(token, _) = told {
            *closes.entry(token).or_default() += 1;
        }
    }
    assert!(closes.is_empty(), "closed again: {closes:?}");
    drop(witness);
    let token = support::lines::wait_for(&heard, |told| if let Told::Closed(token, _) = told { Some(token) } else { None });
    server.mail(token, Mail::Number(1)).unwrap();
    assert_eq!(support::lines::next(&heard), Told::Undelivered(1));
    // Four slots served more than 80 connections.
    assert!(server.stats.accepts.get() > 80);
    server.stop();
    assert!(heard.iter().next().is_none());
}
