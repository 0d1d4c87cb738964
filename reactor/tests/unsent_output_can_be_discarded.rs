//! A handler can discard the output that it wrote last, in place of which it writes something else, while the kernel has taken none of it.
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use std::time::Duration;

use reactor::sim::SocketId;
use reactor::{Config, Context, EventLoop, Handler, Origin, Pressure, Token};
use support::scripted::{Scripted, scripted};

/// Bytes that `L` writes.
const LONG_BYTES: usize = 10_000;

/// Each letter of the input writes output, and each digit discards ten times as many bytes. `F` half-closes, `W` asks for output space, and `P`
/// discards 10 bytes, writes others and panics. The callbacks that follow in the same visit write too.
#[derive(Default)]
struct Writes {
    results: Vec<bool>,
    /// The callbacks other than `input`.
    calls: String,
    token: Option<Token>,
}

impl Handler for Writes {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, _: Origin, cx: &mut Context<'_>) {
        self.token = Some(cx.token());
    }

    fn input(&mut self, (): &mut (), input: &[u8], cx: &mut Context<'_>) -> usize {
        match input[0] {
            b'L' => drop(cx.write(&[b'L'; LONG_BYTES])),
            b'X' => self.results.push(cx.discard_unsent(LONG_BYTES)),
            b'F' => cx.shutdown_write(),
            b'W' => cx.want_writable(),
            b'P' => {
                self.results.push(cx.discard_unsent(10));
                cx.write(b"half a response");
                panic!("as the test wants");
            }
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

    fn writable(&mut self, (): &mut (), cx: &mut Context<'_>) {
        self.calls.push('w');
        cx.write(b"wwwwwwwwww");
    }

    fn ended(&mut self, (): &mut (), _: usize, cx: &mut Context<'_>) {
        self.calls.push('e');
        cx.write(b"eeeeeeeeee");
        cx.close();
    }

    fn mail(&mut self, (): &mut (), (): (), cx: &mut Context<'_>) {
        self.calls.push('m');
        cx.write(b"mmmmmmmmmm");
    }

    fn deadline(&mut self, (): &mut (), cx: &mut Context<'_>) {
        self.calls.push('d');
        cx.write(b"dddddddddd");
    }

    fn pressed(&mut self, (): &mut (), _: Pressure, cx: &mut Context<'_>) {
        self.calls.push('p');
        cx.write(b"pppppppppp");
    }
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

    /// Sends until the kernel takes no more, so that what is written from now on is pending. Returns all that was written.
    fn jam(&mut self) -> String {
        let mut written = String::new();
        while self.event_loop.stats().short_writes.get() == 0 {
            assert_eq!(self.send("L"), []);
            written += &"L".repeat(LONG_BYTES);
        }
        written
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
    let long = run.jam();
    assert_eq!(run.send("a"), []);
    assert_eq!(run.send("b"), []);
    assert_eq!(run.send("c2d"), [true], "c of this visit, b of an earlier one");
    assert_eq!(run.send("X"), [false], "its first bytes were sent");
    assert_eq!(run.received(), long + &of("a") + &of("d"));
}

#[test]
fn a_count_that_is_too_high_discards_the_response_before_and_never_a_byte_that_was_sent() {
    let mut run = Run::new();
    let long = run.jam();
    assert_eq!(run.send("a"), []);
    // The loop cannot tell where `a` ends. It knows only what was sent.
    assert_eq!(run.send("b2c"), [true]);
    assert!(run.received() == long + &of("c"));
}

#[test]
fn no_callback_writes_after_a_half_close_in_the_same_visit() {
    let mut run = Run::new();
    assert_eq!(run.send("aFbWc"), []);
    assert_eq!(run.event_loop.handler().calls, "w");
    let token = run.event_loop.handler().token.unwrap();
    run.event_loop.mailer().reserve(token).unwrap().send(()).unwrap();
    run.event_loop.turn().unwrap();
    run.event_loop.handle().shut_down(Duration::from_secs(100));
    run.event_loop.turn().unwrap();
    assert_eq!(run.event_loop.handler().calls, "wmp");
    run.event_loop.os_mut().kernel().peer_ends(run.peer);
    assert_eq!(run.send(""), []);
    assert_eq!(run.event_loop.handler().calls, "wmpe");
    assert_eq!(run.received(), of("a"));
    assert_eq!(run.event_loop.stats().resets.get(), 0);

    // All in one visit: the requests, FIN of both sides, and `ended`, which closes before `writable` is due.
    let mut run = Run::new();
    let peer = run.peer;
    run.event_loop.os_mut().kernel().peer_sends(peer, b"aFbWc");
    run.event_loop.os_mut().kernel().peer_ends(peer);
    assert_eq!(run.send(""), []);
    assert_eq!(run.event_loop.handler().calls, "e");
    assert_eq!(run.received(), of("a"));
}

#[test]
fn what_is_discarded_after_a_half_close_is_not_space_again() {
    let mut run = Run::new();
    let long = run.jam();
    assert_eq!(run.send("a"), []);
    assert_eq!(run.send("b"), []);
    // FIN waits for the output before it.
    assert_eq!(run.send("F1c"), [true]);
    assert_eq!(run.send("dW"), []);
    assert!(run.received() == long + &of("a"));
    assert_eq!(run.event_loop.stats().resets.get(), 0);
}

#[test]
fn a_callback_that_panics_after_a_discard_leaves_nothing_of_its_own() {
    let mut run = Run::new();
    assert_eq!(run.send("abP"), [true]);
    assert_eq!(run.event_loop.stats().panics.get(), 1);
    assert_eq!(run.received(), of("a"));
}
