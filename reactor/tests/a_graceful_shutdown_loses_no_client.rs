//! A drain serves whoever the kernel has queued, tells everyone, lets them finish, and then ends the loop by itself.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use reactor::{CloseReason, Config, Pressure};
use support::lines::{Lines, Mail, Told, wait_for, wait_for_close, wait_for_open};
use support::{PATIENCE, ask, connect, prepare, read_all, start, until};

fn polite() -> (Lines, std::sync::mpsc::Receiver<Told>) {
    let (mut lines, heard) = Lines::new();
    lines.goodbye = "draining\n";
    (lines, heard)
}

#[test]
fn clients_in_the_backlog_are_accepted_and_notified_before_the_listener_closes() {
    let server = prepare(Config::default(), polite().0);
    let mut queued: Vec<TcpStream> = (0..100).map(|_| connect(server.address)).collect();
    // More than the accept budget of a turn; the loop sees order and backlog at the same time.
    server.event_loop.handle().shut_down(PATIENCE);
    let server = server.run();
    for client in &mut queued {
        assert_eq!(read_all(client), b"draining\n");
    }
    drop(queued);
    let address = server.address;
    server.ended();
    assert!(TcpStream::connect(address).is_err(), "the listener is closed");
}

#[test]
fn idle_connections_are_notified_and_the_loop_ends_when_the_last_has_closed() {
    let server = start(Config::default(), polite().0);
    let mut clients: Vec<TcpStream> = (0..200).map(|_| server.connect()).collect();
    for client in &mut clients {
        ask(client, "hello");
    }
    server.handle.shut_down(PATIENCE);
    server.handle.shut_down(PATIENCE); // A second order changes nothing.
    for client in &mut clients {
        assert_eq!(read_all(client), b"draining\n");
    }
    assert!(!server.is_finished(), "they have not closed, and the grace is not over");
    drop(clients);
    server.ended();
}

#[test]
fn an_answer_under_way_is_finished_first() {
    let (lines, heard) = polite();
    let server = start(Config::default(), lines);
    let mut reader = server.connect();
    let bytes = 20 << 20;
    reader.write_all(format!("many {bytes}\n").as_bytes()).unwrap();
    let token = wait_for_open(&heard);
    until("the kernel is full", || server.stats.short_writes.get() > 0);
    // This handler closes when it is pressed, so what it had not written yet is its own decision; what it had written must arrive.
    server.handle.shut_down(PATIENCE);
    wait_for(&heard, |told| (told == Told::Pressed(token, Pressure::ShuttingDown)).then_some(()));
    let all = read_all(&mut reader);
    let kept = all.len() - usize::from(all.ends_with(b"draining\n")) * 9;
    assert_eq!(all[..kept], support::pattern(kept));
    assert_eq!(server.stats.bytes_written.get(), all.len() as u64, "what was counted as sent has arrived");
    drop(reader);
    server.ended();
}

#[test]
fn the_grace_ends_what_does_not_end_itself() {
    let (lines, heard) = polite();
    let mut config = Config::default();
    config.limits.linger_timeout = PATIENCE;
    let server = start(config, lines);
    let mut stays = server.connect();
    ask(&mut stays, "hello");
    let token = wait_for_open(&heard);
    let grace = Duration::from_millis(50);
    let started = Instant::now();
    server.handle.shut_down(grace);
    server.ended();
    assert!(started.elapsed() >= grace);
    assert_eq!(wait_for_close(&heard, token), CloseReason::LoopEnded);
}

#[test]
fn a_connection_that_lingers_already_hears_no_second_goodbye_and_keeps_its_answer() {
    // Its FIN is sent. A word written now would be an error of ours, end in a reset, and might cost the peer the answer it has not read.
    let (lines, heard) = polite();
    let server = start(Config::default(), lines);
    let mut client = server.connect();
    client.write_all(b"close\n").unwrap();
    let token = wait_for_open(&heard);
    until("it lingers", || server.stats.connections_lingering.get() == 1);
    let mut other = server.connect();
    ask(&mut other, "hello");
    server.handle.shut_down(PATIENCE);
    assert_eq!(read_all(&mut other), b"draining\n"); // Told after the one that lingers: its slot is higher.
    assert_eq!(server.stats.closes(CloseReason::Reset).get(), 0);
    until("both linger", || server.stats.connections_lingering.get() == 2);
    client.write_all(b"still talking\n").unwrap();
    assert_eq!(read_all(&mut client), b"bye\n");
    drop((client, other));
    server.ended();
    assert_eq!(wait_for_close(&heard, token), CloseReason::Finished);
}

#[test]
fn mail_in_flight_when_the_loop_ends_comes_back_or_is_given_up_to_the_handler() {
    let (lines, heard) = Lines::new();
    let server = start(Config::default(), lines);
    let mut client = server.connect();
    ask(&mut client, "hello");
    let token = wait_for_open(&heard);
    let (mailer, early) = (server.mailer.clone(), server.mailer.reserve(token).expect("there is room"));
    server.stop();
    assert_eq!(early.send(Mail::Number(1)), Err(Mail::Number(1)));
    let late = mailer.reserve(token).expect("room is counted without the loop");
    assert_eq!(late.send(Mail::Number(2)), Err(Mail::Number(2)));
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest);
    assert!(rest.is_empty());
}
