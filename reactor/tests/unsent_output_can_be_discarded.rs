//! A handler can discard the output that it wrote last, in place of which it writes something else, while the kernel has taken none of it.
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use std::time::Duration;

use reactor::sim::SocketId;
use reactor::{Config, Context, EventLoop, Handler, Origin};
use support::scripted::{Scripted, scripted};

/// Bytes that `L` writes.
const LONG_BYTES: usize = 10_000;

/// Each letter of the input writes output, and each digit discards ten times as many bytes.
#[derive(Default)]
struct Writes {
    results: Vec<bool>,
}

impl Handler for Writes {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, _: Origin, _: &mut Context<'_>) {}

    fn input(&mut self, (): &mut (), input: &[u8], cx: &mut Context<'_>) -> usize {
        match input[0] {
            b'L' => drop(cx.write(&[b'L'; LONG_BYTES])),
            b'X' => self.results.push(cx.discard_unsent(LONG_BYTES)),
            digit if digit.is_ascii_digit() => {
                let space = cx.output_space();
                let discarded = cx.discard_unsent(10 * usize::from(digit - b'0'));
                self.results.push(discarded);
                assert!(cx.output_space() >= space, "what is discarded is space again");
            }
            letter => drop(cx.write(&[letter; 10])),
        }
        1
    }

    fn mail(&mut self, (): &mut (), (): (), _: &mut Context<'_>) {}
}

struct Run {
    event_loop: EventLoop<Writes, Scripted>,
    peer: SocketId,
}

impl Run {
    fn new() -> Run {
        let mut config = Config::default();
        // The simulated time advances when the loop sleeps: a peer that does not read must not time out.
        config.limits.output_rate_window = Duration::MAX;
        let (mut event_loop, index) = scripted(config, Writes::default());
        let peer = event_loop.os_mut().kernel().peer_connects(index).unwrap();
        Run { event_loop, peer }
    }

    /// Sends all of it before the next turn, so that one visit reads it, and returns what the calls of `discard_unsent` returned.
    fn send(&mut self, input: &str) -> Vec<bool> {
        self.event_loop.os_mut().kernel().peer_sends(self.peer, input.as_bytes());
        for _ in 0..4 {
            self.event_loop.turn().unwrap();
        }
        std::mem::take(&mut self.event_loop.handler_mut().results)
    }

    fn received(&mut self) -> String {
        let mut output = Vec::new();
        loop {
            let before = output.len();
            self.event_loop.os_mut().kernel().peer_reads(self.peer, usize::MAX, &mut output);
            if output.len() == before {
                return String::from_utf8(output).unwrap();
            }
            for _ in 0..4 {
                self.event_loop.turn().unwrap();
            }
        }
    }
}

fn of(letter: &str) -> String {
    letter.repeat(10)
}

#[test]
fn output_of_the_same_visit_can_be_discarded() {
    let mut run = Run::new();
    assert_eq!(run.send("ab1c"), [true]);
    assert_eq!(run.received(), of("a") + &of("c"));
    assert_eq!(run.send("ab2"), [true]);
    assert_eq!(run.received(), "");
    assert_eq!(run.send("a0"), [true]);
    assert_eq!(run.received(), of("a"));
}

#[test]
fn output_of_which_a_part_was_sent_cannot_be_discarded() {
    let mut run = Run::new();
    assert_eq!(run.send("a"), []);
    assert_eq!(run.send("1"), [false]);
    assert_eq!(run.send("b2"), [false]);
    assert_eq!(run.received(), of("a") + &of("b"));
}

#[test]
fn output_that_is_pending_from_an_earlier_visit_can_be_discarded() {
    let mut run = Run::new();
    // The peer does not read: a part of the last long response, and what follows it, is pending.
    let mut long = 0;
    while run.event_loop.stats().short_writes.get() == 0 {
        assert_eq!(run.send("L"), []);
        long += 1;
    }
    assert_eq!(run.send("a"), []);
    assert_eq!(run.send("b"), []);
    assert_eq!(run.send("c2d"), [true], "c of this visit, b of an earlier one");
    assert_eq!(run.send("X"), [false], "its first bytes were sent");
    assert_eq!(run.received(), "L".repeat(long * LONG_BYTES) + &of("a") + &of("d"));
}
