//! A handler that panics in any callback loses that connection, says so where it can, and no other connection notices.

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;

use reactor::{CloseReason, Config};
use support::lines::{Lines, Mail, Told, wait_for, wait_for_close};
use support::{PATIENCE, ask, start, until};

#[test]
fn a_panic_in_each_callback_closes_that_connection_and_the_loop_goes_on() {
    let (lines, heard) = Lines::new();
    let server = start(Config::default(), lines);
    let mut witness = server.connect();
    ask(&mut witness, "hello");
    for (panics, place) in ["input", "ended", "room", "mail", "deadline", "closed"].into_iter().enumerate() {
        let mut client = server.connect();
        let token = wait_for(&heard, |told| if let Told::Opened(token) = told { (token != first(&told)).then_some(token) } else { None });
        client.write_all(format!("before\npanic {place}\n").as_bytes()).unwrap();
        if place != "input" {
            wait_for(&heard, |told| (told == Told::Paused(token)).then_some(()));
        }
        match place {
            "ended" => client.shutdown(Shutdown::Write).unwrap(),
            "mail" => server.mail(token, Mail::Resume).unwrap(),
            _ => {}
        }
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        let all = String::from_utf8(all).unwrap();
        // What the panicking callback itself wrote is taken back; what others wrote before is not.
        let expected = match place {
            "input" => "before\nsorry\n",
            "closed" => "before\nlost\n",
            _ => "before\nlost\nsorry\n",
        };
        assert_eq!(all, expected, "{place}");
        drop(client);
        let reason = wait_for_close(&heard, token);
        assert_eq!(reason, if place == "closed" { CloseReason::Finished } else { CloseReason::Panicked }, "{place}");
        until("it is counted", || server.stats.panics.get() == panics as u64 + 1);
        ask(&mut witness, "still here");
    }
    until("the slot is free", || server.stats.connections_open.get() == 1);
    assert_eq!(server.stats.leased_bytes.get(), 0);
}

/// The witness's token is told first, and the loop above has not read it.
fn first(told: &Told) -> reactor::Token {
    let Told::Opened(token) = told else { unreachable!("asked for openings only") };
    if token.slot() == 0 { *token } else { reactor::Token::from_bits(u64::MAX) }
}

#[test]
fn a_panic_in_the_notice_of_a_shutdown_does_not_keep_the_loop_from_ending() {
    let (lines, heard) = Lines::new();
    let server = start(Config::default(), lines);
    let mut client = server.connect();
    client.write_all(b"panic pressed\n").unwrap();
    wait_for(&heard, |told| matches!(told, Told::Paused(_)).then_some(()));
    server.handle.shut_down(PATIENCE);
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"lost\nsorry\n");
    drop(client);
    server.ended();
}

#[test]
fn a_panic_in_the_callback_for_panics_closes_without_a_word() {
    let (lines, heard) = Lines::new();
    let server = start(Config::default(), lines);
    let mut client = server.connect();
    client.write_all(b"panic input,panicked\n").unwrap();
    let token = wait_for(&heard, |told| if let Told::Opened(token) = told { Some(token) } else { None });
    assert_eq!(wait_for_close(&heard, token), CloseReason::Panicked);
    let mut all = Vec::new();
    // Whatever was to be said is lost: a reset, since FIN would say that this was all.
    let end = client.read_to_end(&mut all).expect_err("a reset");
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(all, b"");
    ask(&mut server.connect(), "hello");
}

#[test]
fn a_panic_over_mail_that_comes_back_is_counted_and_the_loop_goes_on() {
    let (mut lines, heard) = Lines::new();
    lines.panics_over_undelivered = true;
    let server = start(Config::default(), lines);
    let mut client = server.connect();
    ask(&mut client, "hello");
    let token = wait_for(&heard, |told| if let Told::Opened(token) = told { Some(token) } else { None });
    drop(client);
    wait_for_close(&heard, token);
    server.mail(token, Mail::Number(1)).unwrap();
    until("it is counted", || server.stats.panics.get() == 1);
    ask(&mut server.connect(), "hello");
}
