//! What a handler asks for is done within the turn's budgets: `writable` again and again, and thousands of connections outward.
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use std::io::Read;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use reactor::{Config, Connect, Context, EventLoop, Handler, LoopContext, Origin};
use support::{connect, listener, prepare};

/// Says one byte at a time, for as long as the visit lets it.
struct Drips {
    rooms: u32,
}

impl Handler for Drips {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, _: Origin, cx: &mut Context<'_>) {
        cx.want_writable();
    }

    fn input(&mut self, (): &mut (), input: &[u8], _: &mut Context<'_>) -> usize {
        input.len()
    }

    fn writable(&mut self, (): &mut (), cx: &mut Context<'_>) {
        self.rooms += 1;
        cx.write(b"x");
        cx.want_writable();
    }

    fn mail(&mut self, (): &mut (), (): (), _: &mut Context<'_>) {}
}

#[test]
fn a_handler_that_writes_single_bytes_gets_at_most_as_many_writable_calls_as_messages_in_a_visit() {
    let config = Config::default();
    let visit_messages_max = config.limits.first_visit_messages_max;
    let mut server = prepare(config, Drips { rooms: 0 });
    let mut client = connect(server.address);
    // The kernel takes more than a visit may write: only the number of calls can end the visit.
    server.event_loop.turn().unwrap();
    assert_eq!(server.event_loop.handler().rooms, visit_messages_max);
    assert_eq!(server.event_loop.stats().writes.get(), u64::from(visit_messages_max));
    assert_eq!(server.event_loop.stats().budget_exits.get(), 1);
    // And it goes on without an event from the peer, one visit a turn.
    server.event_loop.turn().unwrap();
    assert!(server.event_loop.handler().rooms >= 2 * visit_messages_max);
    let mut said = vec![0; 2 * visit_messages_max as usize];
    client.read_exact(&mut said).unwrap();
}

/// Connects many times over, all in one callback.
struct Crowd {
    to: SocketAddr,
    at: Option<Instant>,
}

const CONNECTS: u64 = 100;

impl Handler for Crowd {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, _: Origin, _: &mut Context<'_>) {}

    fn input(&mut self, (): &mut (), input: &[u8], _: &mut Context<'_>) -> usize {
        input.len()
    }

    fn mail(&mut self, (): &mut (), (): (), _: &mut Context<'_>) {}

    fn next_wake(&self) -> Option<Instant> {
        self.at
    }

    fn woke(&mut self, cx: &mut LoopContext<'_>) {
        self.at = None;
        for tag in 0..CONNECTS {
            cx.connect(Connect::new(self.to, tag, Duration::from_secs(20))).unwrap();
        }
    }
}

#[test]
fn connections_outward_are_begun_within_a_budget_and_all_in_the_end() {
    let socket = listener();
    let mut config = Config::default();
    config.limits.connects_per_turn_max = 7;
    let mut event_loop = EventLoop::new(config, Crowd { to: socket.local_addr().unwrap(), at: Some(Instant::now()) }).unwrap();
    let stats = event_loop.stats();
    let mut begun = 0;
    let mut turns = 0;
    while begun < CONNECTS {
        event_loop.turn().unwrap();
        let now = stats.connects.get();
        assert!(now - begun <= 7, "{} in one turn", now - begun);
        begun = now;
        turns += 1;
    }
    assert!(turns >= CONNECTS / 7);
}
