//! The queue of outbound connections has a limit: `connect` gives back what it does not take, and everything that it takes ends in exactly one
//! callback.
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use std::io;
use std::time::{Duration, Instant};

use reactor::{Config, Connect, Context, Handler, LoopContext, Origin};
use support::scripted::{scripted, sim_address};

/// Asks for more connections than may wait, and again when one fails.
struct Asks {
    started: Option<Instant>,
    wanted: u64,
    taken: Vec<u64>,
    given_back: Vec<u64>,
    failed: Vec<u64>,
}

fn connect(tag: u64) -> Connect {
    Connect::new(sim_address(), tag, Duration::from_secs(1))
}

impl Asks {
    fn ask(&mut self, tag: u64, cx: &mut LoopContext<'_>) {
        match cx.connect(connect(tag)) {
            Ok(()) => self.taken.push(tag),
            Err(refused) => {
                assert_eq!(refused, connect(tag));
                self.given_back.push(tag);
            }
        }
    }
}

impl Handler for Asks {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, _origin: Origin, _cx: &mut Context<'_>) {}

    fn input(&mut self, (): &mut (), input: &[u8], _cx: &mut Context<'_>) -> usize {
        input.len()
    }

    fn mail(&mut self, (): &mut (), (): (), _cx: &mut Context<'_>) {}

    fn connect_failed(&mut self, tag: u64, _error: io::Error, cx: &mut LoopContext<'_>) {
        self.failed.push(tag);
        self.ask(tag + 100, cx);
    }

    fn next_wake(&self) -> Option<Instant> {
        self.started
    }

    fn woke(&mut self, cx: &mut LoopContext<'_>) {
        self.started = None;
        for tag in 0..self.wanted {
            self.ask(tag, cx);
        }
    }
}

#[test]
fn the_queue_of_connects_is_bounded_and_ends_with_the_loop() {
    let mut config = Config::default();
    config.limits.connects_waiting_max = 3;
    config.limits.connects_per_turn_max = 1;
    let handler = Asks { started: Some(Instant::now()), wanted: 5, taken: Vec::new(), given_back: Vec::new(), failed: Vec::new() };
    let (mut event_loop, _) = scripted(config, handler);
    while event_loop.handler().taken.is_empty() {
        event_loop.turn().unwrap();
    }
    assert_eq!(
        (event_loop.handler().taken.as_slice(), event_loop.handler().given_back.as_slice()),
        ([0, 1, 2].as_slice(), [3, 4].as_slice())
    );
    // One has begun and two wait. What their callbacks ask for at the end of the loop is given back.
    let handler = event_loop.finish();
    assert_eq!(handler.failed, [0, 1, 2]);
    assert_eq!(handler.taken, [0, 1, 2]);
    assert_eq!(handler.given_back, [3, 4, 100, 101, 102]);
}
