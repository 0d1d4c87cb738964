//! A peer that says everything at once and then falls silent is answered in full: no second edge will ever come for it (`edge-starvation`, `spurious-readiness`, `half-close`).

mod support;

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};

use reactor::policy::DrainPolicy;
use reactor::{CloseReason, Config};
use support::lines::{Lines, Told, next, wait_for, wait_for_close, wait_for_open};
use support::{ask, connect, pattern, prepare, read_all, start, until};

/// Lines of 100 bytes, numbered, `bytes` in all.
fn numbered(bytes: usize) -> Vec<u8> {
    (0..bytes / 100).flat_map(|i| format!("{i:099}\n").into_bytes()).collect()
}

fn policies() -> [Config; 2] {
    [DrainPolicy::UntilShortRead, DrainPolicy::UntilWouldBlock].map(|drain| {
        let mut config = Config::default();
        config.policy.drain = drain;
        config
    })
}

#[test]
fn a_burst_written_before_accept_and_then_silence_is_answered_whole() {
    for config in policies() {
        for bytes in [100, 65_500, 65_600, 200_000, 700_000] {
            let server = prepare(config.clone(), Lines::silent());
            let mut client = connect(server.address);
            let burst = numbered(bytes);
            client.write_all(&burst).expect("the kernel takes it before anyone accepts");
            let _server = server.run();
            let mut back = vec![0; burst.len()];
            client.read_exact(&mut back).unwrap();
            assert_eq!(back, burst);
        }
    }
}

#[test]
fn a_burst_that_spends_every_budget_is_answered_whole() {
    let mut config = Config::default();
    config.limits.visit_messages_max = 1;
    config.limits.visit_reads_max = 1;
    config.limits.visit_written_bytes_max = 1;
    let server = prepare(config, Lines::silent());
    let mut client = connect(server.address);
    let burst = numbered(200_000);
    client.write_all(&burst).unwrap();
    let server = server.run();
    let mut back = vec![0; burst.len()];
    client.read_exact(&mut back).unwrap();
    assert_eq!(back, burst);
    assert!(server.stats.budget_exits.get() > 1000);
}

#[test]
fn data_and_fin_together_are_answered_and_leave_nothing_in_close_wait() {
    for config in policies() {
        for bytes in [6, 100, 65_536, 300_000] {
            let (lines, heard) = Lines::new();
            let server = prepare(config.clone(), lines);
            let mut client = connect(server.address);
            let burst = if bytes == 6 { b"hello\n".to_vec() } else { numbered(bytes) };
            client.write_all(&burst).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let server = server.run();
            assert_eq!(read_all(&mut client), burst);
            let token = wait_for_open(&heard);
            // The kernel takes only so much output at a time, so there may be calls for room before.
            let rest_bytes = wait_for(&heard, |told| if let Told::Ended { rest_bytes } = told { Some(rest_bytes) } else { None });
            assert_eq!(rest_bytes, 0);
            assert_eq!(wait_for_close(&heard, token), CloseReason::PeerClosed);
            // A socket in CLOSE_WAIT would still be open here.
            until("nothing is open", || server.stats.connections_open.get() == 0);
        }
    }
}

#[test]
fn the_end_alone_is_heard_and_an_unfinished_message_is_counted() {
    let (lines, heard) = Lines::new();
    let server = start(Config::default(), lines);
    let silent = server.connect();
    silent.shutdown(Shutdown::Write).unwrap();
    wait_for_open(&heard);
    assert_eq!(next(&heard), Told::Ended { rest_bytes: 0 });
    let mut cut_short = server.connect();
    cut_short.write_all(b"whole\nhalf").unwrap();
    cut_short.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut cut_short), b"whole\n");
    let token = wait_for_open(&heard);
    assert_eq!(next(&heard), Told::Ended { rest_bytes: 4 });
    assert_eq!(wait_for_close(&heard, token), CloseReason::PeerClosed);
}

#[test]
fn a_client_that_half_closed_gets_all_of_a_long_answer() {
    let server = start(Config::default(), Lines::silent());
    let mut client = server.connect();
    client.write_all(b"many 5000000\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(read_all(&mut client) == pattern(5_000_000), "the answer differs");
}

#[test]
fn an_echo_under_backpressure_ends_with_its_last_byte_after_a_half_close() {
    let server = start(Config::default(), Lines::silent());
    let client = server.connect();
    let all = numbered(8_000_000);
    let expected = all.clone();
    let mut writer = client.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        writer.write_all(&all).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    until("the server keeps output", || server.stats.short_writes.get() > 0);
    let mut client = client;
    assert!(read_all(&mut client) == expected, "the echo differs");
    writer.join().unwrap();
}

#[test]
fn urgent_data_hides_nothing_that_comes_after_it() {
    // A read stops short at the urgent mark: a short read then says nothing about what follows (tcp(7)).
    let server = prepare(Config::default(), Lines::silent());
    let mut client = connect(server.address);
    client.write_all(b"before\n").unwrap();
    socket2::SockRef::from(&client).send_out_of_band(b"!").unwrap();
    client.write_all(b"after\n").unwrap();
    let _server = server.run();
    let mut reader = BufReader::new(client);
    assert_eq!(support::read_line(&mut reader), "before");
    assert_eq!(support::read_line(&mut reader), "after");
}

#[test]
fn clients_that_arrive_together_are_all_accepted_from_one_edge() {
    // The listener is edge-triggered as well: one event for the whole queue, and a budget that stops early.
    let mut config = Config::default();
    config.limits.accepts_per_turn_max = 1;
    let server = prepare(config, Lines::silent());
    let mut clients: Vec<TcpStream> = (0..300).map(|_| connect(server.address)).collect();
    let server = server.run();
    for client in &mut clients {
        ask(client, "hello");
    }
    assert_eq!(server.stats.accepts.get(), 300);
}
