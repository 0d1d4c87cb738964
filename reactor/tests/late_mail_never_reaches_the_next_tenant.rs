//! What was meant for a connection that has gone goes back to the handler, never to whoever has its slot now (`stale-completion`, `ghost-events`).
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use reactor::{Callback, CloseReason, Config, Context, Handler, LoopContext, Origin, Stats, Token};
use support::lines::{Lines, Mail, Told, next, wait_for, wait_for_close, wait_for_open};
use support::{PATIENCE, ask, prepare, start, until};

#[test]
fn mail_for_a_closed_connection_is_undelivered_whatever_connection_has_its_slot() {
    let (lines, heard) = Lines::new();
    let server = start(Config::default(), lines);
    let mut former: Option<Token> = None;
    for number in 0..100 {
        let mut client = server.connect();
        let token = wait_for_open(&heard);
        if let Some(former) = former {
            assert_eq!(former.slot(), token.slot(), "the slot is used again: else this test shows nothing");
            assert_ne!(former, token);
            server.mail(former, Mail::Number(number)).unwrap();
            assert_eq!(next(&heard), Told::Undelivered(number));
        }
        server.mail(token, Mail::Number(number)).unwrap();
        assert_eq!(next(&heard), Told::Delivered { to: token, number });
        let mut said = vec![0; format!("number {number}\n").len()];
        client.read_exact(&mut said).unwrap();
        assert_eq!(String::from_utf8(said).unwrap(), format!("number {number}\n"));
        drop(client);
        wait_for_close(&heard, token);
        former = Some(token);
    }
    until("all is counted", || server.stats.mail_undelivered.get() == 99 && server.stats.mail_delivered.get() == 100);
}

#[test]
fn mail_for_a_connection_that_is_closing_is_undelivered_and_counted_so() {
    let (lines, heard) = Lines::new();
    let server = start(Config::default(), lines);
    let mut client = server.connect();
    let token = wait_for_open(&heard);
    client.write_all(b"close\n").unwrap();
    until("it lingers", || server.stats.connections_lingering.get() == 1);
    server.mail(token, Mail::Number(7)).unwrap();
    assert_eq!(next(&heard), Told::Undelivered(7));
    until("it is counted", || server.stats.mail_undelivered.get() == 1);
    assert_eq!(server.stats.mail_delivered.get(), 0);
    assert_eq!(support::read_all(&mut client), b"bye\n");
}

#[test]
fn mail_from_many_threads_comes_in_each_senders_order_and_all_of_it() {
    let (lines, heard) = Lines::new();
    let mut config = Config::default();
    config.limits.mail_max = 64;
    config.limits.mail_per_turn_max = 5;
    let server = start(config, lines);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let client = server.connect();
            (client, wait_for_open(&heard))
        })
        .collect();
    let count = 5_000;
    std::thread::scope(|scope| {
        for (_, token) in &clients {
            let mailer = server.mailer.clone();
            scope.spawn(move || {
                for number in 0..count {
                    let room = loop {
                        match mailer.reserve(*token) {
                            Some(room) => break room,
                            None => std::thread::yield_now(), // Full: the bound holds, and the loop makes room.
                        }
                    };
                    room.send(Mail::Number(number)).unwrap();
                }
            });
        }
        for (client, _) in &clients {
            let mut client = client;
            scope.spawn(move || {
                let bytes: usize = (0..count).map(|number| format!("number {number}\n").len()).sum();
                client.read_exact(&mut vec![0; bytes]).unwrap();
            });
        }
    });
    let mut expected: HashMap<Token, u32> = HashMap::new();
    for _ in 0..4 * count {
        let (to, number) = wait_for(&heard, |told| if let Told::Delivered { to, number } = told { Some((to, number)) } else { None });
        let next = expected.entry(to).or_default();
        assert_eq!(number, *next);
        *next += 1;
    }
    assert!(server.stats.wakes.get() <= u64::from(4 * count), "a burst costs one wake");
}

#[test]
fn a_duplicate_of_a_descriptor_brings_no_ghost_events_after_the_close() {
    // epoll keeps the open file description, not the descriptor: what is not taken out before close(2) stays in while a duplicate lives.
    let (lines, heard) = Lines::new();
    let server = start(Config::default(), lines);
    let mut client = server.connect();
    ask(&mut client, "hello");
    let token = wait_for_open(&heard);
    let duplicate = duplicate_of_the_servers_end(&client);
    client.write_all(b"abort\n").unwrap();
    wait_for_close(&heard, token);
    // The duplicate keeps the connection alive: each of these arrives at the socket and would be an event.
    let mut next = server.connect();
    let next_token = wait_for_open(&heard);
    assert_eq!(next_token.slot(), token.slot());
    for _ in 0..50 {
        client.write_all(b"ghost\n").unwrap();
        ask(&mut next, "hello");
    }
    assert_eq!(server.stats.stale_tokens.get(), 0);
    drop(duplicate);
}

/// A duplicate of the descriptor in this process whose peer is `client`.
fn duplicate_of_the_servers_end(client: &std::net::TcpStream) -> OwnedFd {
    let wanted = client.local_addr().unwrap();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let Ok(fd) = entry.unwrap().file_name().into_string().unwrap().parse() else { continue };
        let fd = support::sys::borrow(fd);
        let socket = socket2::SockRef::from(&fd);
        if socket.peer_addr().is_ok_and(|peer| peer.as_socket() == Some(wanted)) && fd.as_raw_fd() != client.as_raw_fd() {
            return fd.try_clone_to_owned().unwrap();
        }
    }
    panic!("the server's end of {wanted} is not in this process");
}

/// Looks, from inside, what a watchdog would see from outside.
struct Looks {
    stats: Option<Arc<Stats>>,
    seen: Sender<Option<Callback>>,
}

impl Handler for Looks {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, _: Origin, cx: &mut Context<'_>) {
        self.look();
        cx.deadline(None);
    }

    fn input(&mut self, (): &mut (), input: &[u8], _: &mut Context<'_>) -> usize {
        input.len()
    }

    fn mail(&mut self, (): &mut (), (): (), _: &mut Context<'_>) {}

    fn undelivered(&mut self, (): (), _cx: &mut LoopContext<'_>) {
        self.look();
    }

    fn closed(&mut self, (): (), _: CloseReason, _cx: &mut LoopContext<'_>) {
        self.look();
    }
}

impl Looks {
    fn look(&self) {
        let stats = self.stats.as_ref().expect("it is set before the loop runs");
        let _ = self.seen.send(stats.running(Instant::now()).map(|running| running.callback));
    }
}

#[test]
fn mail_that_comes_back_is_a_callback_that_the_watchdog_can_name() {
    let (seen, heard) = channel();
    let mut server = prepare(Config::default(), Looks { stats: None, seen });
    let stats = server.event_loop.stats();
    server.event_loop.handler_mut().stats = Some(Arc::clone(&stats));
    let server = server.run();
    server.mail(Token::from_bits(7), ()).unwrap();
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), Some(Callback::Mail));
    drop(server.connect());
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), Some(Callback::Opened));
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), Some(Callback::Closed));
    until("no callback runs", || stats.running(Instant::now()).is_none());
}

/// The same at the end of a turn: the callback running, and whether the turn still counts as one.
struct LooksAtTheEnd {
    stats: Option<Arc<Stats>>,
    seen: Sender<(Option<Callback>, bool)>,
}

impl Handler for LooksAtTheEnd {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, _: Origin, _: &mut Context<'_>) {}

    fn input(&mut self, (): &mut (), input: &[u8], _: &mut Context<'_>) -> usize {
        input.len()
    }

    fn mail(&mut self, (): &mut (), (): (), _: &mut Context<'_>) {}

    fn undelivered(&mut self, (): (), _cx: &mut LoopContext<'_>) {}

    fn closed(&mut self, (): (), _: CloseReason, _cx: &mut LoopContext<'_>) {}

    fn turn_ended(&mut self, _: Duration, _: Instant) {
        let (stats, now) = (self.stats.as_ref().expect("it is set before the loop runs"), Instant::now());
        let _ = self.seen.send((stats.running(now).map(|running| running.callback), stats.turn_age(now).is_some()));
    }
}

#[test]
fn the_end_of_a_turn_is_a_callback_that_the_watchdog_can_name() {
    let (seen, heard) = channel();
    let mut server = prepare(Config::default(), LooksAtTheEnd { stats: None, seen });
    let stats = server.event_loop.stats();
    server.event_loop.handler_mut().stats = Some(Arc::clone(&stats));
    let server = server.run();
    let _client = server.connect();
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), (Some(Callback::TurnEnded), true));
    until("no callback runs", || stats.running(Instant::now()).is_none() && stats.turn_age(Instant::now()).is_none());
}
