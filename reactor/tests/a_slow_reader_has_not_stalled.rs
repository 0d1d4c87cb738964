//! Slow is not stalled: what counts is what the peer acknowledges over a window, without an event for it, and each connection can have a rate of its
//! own. A client that never reads may stay for a window, and is evicted for a new client before that.
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use std::time::Duration;

use reactor::sim::SocketId;
use reactor::{CloseReason, Config, Context, EventLoop, Handler, LoopContext, Origin};
use support::scripted::{Scripted, scripted};

const WINDOW: Duration = Duration::from_secs(60);

/// Writes all it may, for ever.
#[derive(Default)]
struct Hose {
    /// The rate that it sets, if it does.
    rate_min: Option<Option<u32>>,
    opened: usize,
    closed: Vec<CloseReason>,
}

impl Handler for Hose {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, _origin: Origin, cx: &mut Context<'_>) {
        self.opened += 1;
        if let Some(rate_min) = self.rate_min {
            cx.set_output_rate_min(rate_min);
        }
        self.writable(&mut (), cx);
    }

    fn input(&mut self, (): &mut (), input: &[u8], _cx: &mut Context<'_>) -> usize {
        input.len()
    }

    fn writable(&mut self, (): &mut (), cx: &mut Context<'_>) {
        cx.write(&[b'x'; 64 << 10]);
        cx.want_writable();
    }

    fn mail(&mut self, (): &mut (), (): (), _cx: &mut Context<'_>) {}

    fn closed(&mut self, (): (), reason: CloseReason, _cx: &mut LoopContext<'_>) {
        self.closed.push(reason);
    }
}

fn config() -> Config {
    Config::with(|config| {
        (config.limits.output_rate_min, config.limits.output_rate_window) = (10, WINDOW);
        (config.limits.connections_max, config.limits.free_slots_min) = (16, 8);
    })
}

type Loop = EventLoop<Hose, Scripted>;

fn open(config: Config, handler: Hose) -> (Loop, usize, SocketId) {
    let (mut event_loop, index) = scripted(config, handler);
    let peer = event_loop.os_mut().kernel().peer_connects(index).unwrap();
    turns(&mut event_loop);
    (event_loop, index, peer)
}

fn turns(event_loop: &mut Loop) {
    for _ in 0..4 {
        event_loop.os_mut().events.push(Scripted::timer_event()); // No turn waits, and no time passes.
        event_loop.turn().unwrap();
    }
}

fn pass(event_loop: &mut Loop, time: Duration) {
    event_loop.os_mut().ahead += time;
    turns(event_loop);
}

/// Lets the first look and ten windows pass, in each of which the peer reads this much. Returns in how many of them the connection was open.
fn windows_survived(event_loop: &mut Loop, peer: SocketId, bytes: usize, window: Duration) -> usize {
    pass(event_loop, window / 8 + Duration::from_millis(2));
    (0..10)
        .take_while(|_| {
            event_loop.os_mut().kernel().peer_reads(peer, bytes, &mut Vec::new());
            pass(event_loop, window + Duration::from_millis(2));
            event_loop.handler().closed.is_empty()
        })
        .count()
}

#[test]
fn a_peer_that_acknowledges_half_of_the_least_rate_stays_without_a_single_write() {
    // 300 bytes are half of 10 bytes a second for a minute. No edge comes for so few.
    for (bytes, survived) in [(300, 10), (299, 0), (0, 0)] {
        let (mut event_loop, _, peer) = open(config(), Hose::default());
        let written = event_loop.stats().bytes_written.get();
        assert_eq!(windows_survived(&mut event_loop, peer, bytes, WINDOW), survived, "{bytes} bytes");
        assert_eq!(event_loop.stats().bytes_written.get(), written);
        let closed = if survived == 0 { vec![CloseReason::WriteStalled] } else { Vec::new() };
        assert_eq!(event_loop.handler().closed, closed);
    }
}

#[test]
fn a_peer_that_never_reads_has_a_window_and_an_eighth() {
    let (mut event_loop, ..) = open(config(), Hose::default());
    pass(&mut event_loop, WINDOW);
    assert!(event_loop.handler().closed.is_empty());
    pass(&mut event_loop, WINDOW / 8 + Duration::from_millis(2));
    pass(&mut event_loop, WINDOW + Duration::from_millis(2));
    assert_eq!(event_loop.handler().closed, [CloseReason::WriteStalled]);
}

#[test]
fn a_connection_can_have_a_rate_of_its_own_and_none_at_all() {
    // Ten times the rate: a tenth of the window, for the same 300 bytes.
    for (rate_min, window, bytes, survived) in [
        (Some(100), WINDOW / 10, 300, 10),
        (Some(100), WINDOW / 10, 299, 0),
        (Some(1), WINDOW * 10, 300, 10),
        (Some(1), WINDOW * 10, 299, 0),
        (None, WINDOW, 0, 10),
    ] {
        let (mut event_loop, _, peer) = open(config(), Hose { rate_min: Some(rate_min), ..Hose::default() });
        assert_eq!(windows_survived(&mut event_loop, peer, bytes, window), survived, "{rate_min:?}, {bytes} bytes");
    }
}

#[test]
fn clients_that_never_read_do_not_keep_new_clients_out() {
    let config = config();
    let (places, spared) = (config.limits.connections_max, config.limits.evictable_stall_min);
    let (mut event_loop, index, _) = open(config, Hose::default());
    for _ in 1..places {
        event_loop.os_mut().kernel().peer_connects(index).unwrap();
    }
    turns(&mut event_loop);
    assert_eq!((event_loop.handler().opened, event_loop.handler().closed.len()), (places as usize, 0));
    // No slot is free, and none of them has stalled for long.
    pass(&mut event_loop, spared - Duration::from_millis(1));
    assert_eq!(event_loop.handler().closed.len(), 0);
    // One a turn, until as many slots are free as are reserved for new clients.
    event_loop.os_mut().ahead += Duration::from_millis(1);
    (0..5).for_each(|_| turns(&mut event_loop));
    assert_eq!(event_loop.handler().closed, [CloseReason::Evicted; 8]);
    assert_eq!(event_loop.stats().resets.get(), 8, "a part of their response is missing");
    event_loop.os_mut().kernel().peer_connects(index).unwrap();
    turns(&mut event_loop);
    assert_eq!(event_loop.handler().opened, places as usize + 1);
}
