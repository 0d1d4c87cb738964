//! A listening socket that others hold too is not emptied for ever at the end: who was in its queue is served, who comes later waits for
//! the next loop that listens, and nobody is reset.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::net::{SocketAddr, TcpListener, TcpStream};

use reactor::listen::socket::LISTEN_BACKLOG;
use reactor::listen::socket::adopt;
use reactor::{Config, Context, EventLoop, Handler, LinuxListener, ListenerWakes, Origin, Pressure};
use support::lines::Lines;
use support::{PATIENCE, Prepared, ask, connect, listener, prepare, read_all};

/// A loop on a duplicate of that socket.
fn heir<H: Handler>(held: &TcpListener, handler: H) -> Prepared<H> {
    let socket = adopt(held.try_clone().unwrap().into()).unwrap();
    let mut event_loop = EventLoop::new(Config::default(), handler).unwrap();
    event_loop.listen_on_inherited(LinuxListener::new(socket).unwrap(), ListenerWakes::One).unwrap();
    Prepared { event_loop, address: held.local_addr().unwrap() }
}

fn polite() -> Lines {
    let (mut lines, _) = Lines::new();
    lines.goodbye = "draining\n";
    lines
}

#[test]
fn clients_in_the_queue_are_served_and_later_ones_wait_for_the_next_loop() {
    let held = listener();
    let first = heir(&held, polite());
    let mut before: Vec<TcpStream> = (0..100).map(|_| connect(first.address)).collect();
    first.event_loop.handle().shut_down(PATIENCE);
    let first = first.run();
    for client in &mut before {
        assert_eq!(read_all(client), b"draining\n", "it was in the queue when the order came");
    }
    drop(before);
    let address = first.address;
    first.ended();

    let mut between: Vec<TcpStream> = (0..100).map(|_| connect(address)).collect();
    let second = heir(&held, polite()).run();
    for client in &mut between {
        ask(client, "hello");
    }
    drop(between);
    second.stop();
}

/// For each client that is accepted, one more has come: the queue is never empty.
struct Besieged(SocketAddr);

impl Handler for Besieged {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, _origin: Origin, cx: &mut Context<'_>) {
        // It is there when this returns: the kernel completes the handshake without us.
        drop(TcpStream::connect(self.0).expect("the queue has room"));
        cx.close();
    }

    fn input(&mut self, (): &mut (), input: &[u8], _cx: &mut Context<'_>) -> usize {
        input.len()
    }

    fn mail(&mut self, (): &mut (), (): (), _cx: &mut Context<'_>) {}

    fn pressed(&mut self, (): &mut (), _pressure: Pressure, cx: &mut Context<'_>) {
        cx.close();
    }
}

#[test]
fn a_queue_that_never_empties_does_not_keep_it() {
    let held = listener();
    let loop_of_it = heir(&held, Besieged(held.local_addr().unwrap()));
    drop(connect(loop_of_it.address));
    loop_of_it.event_loop.handle().shut_down(PATIENCE * 3);
    let running = loop_of_it.run();
    let stats = std::sync::Arc::clone(&running.stats);
    running.ended();
    // One turn runs before the order is looked at.
    let (accepted, most) = (stats.accepts.get(), u64::from(LISTEN_BACKLOG.unsigned_abs()));
    let one_turn = u64::from(Config::default().limits.accepts_per_turn_max);
    assert!((most..=most + one_turn).contains(&accepted), "{accepted}");
}

#[test]
fn a_queue_of_its_own_is_emptied_whatever_comes() {
    // The contrast: closing resets whoever is in it, so as long as the grace lasts it goes on.
    let loop_of_it = prepare(Config::default(), polite());
    let mut clients: Vec<TcpStream> = (0..200).map(|_| connect(loop_of_it.address)).collect();
    loop_of_it.event_loop.handle().shut_down(PATIENCE);
    let running = loop_of_it.run();
    for client in &mut clients {
        assert_eq!(read_all(client), b"draining\n");
    }
    drop(clients);
    running.ended();
}
