//! A handler that asks for output space and gets nowhere is not asked for ever: input that needs more space than there is closes its connection,
//! and every other way of asking in vain leaves the loop asleep.
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use reactor::{CloseReason, Config, Context, EventLoop, Handler, LoopContext, Origin, Pressure};
use support::scripted::{Scripted, scripted};

/// What a callback does about output space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Nothing,
    /// Asks, and writes nothing.
    Ask,
    /// Writes a byte and asks.
    WriteAndAsk,
    /// Asks in a way that it takes no more input for now.
    PauseAndAsk,
}

const WISHES: [Wish; 4] = [Wish::Nothing, Wish::Ask, Wish::WriteAndAsk, Wish::PauseAndAsk];

/// Does the same in every call of the same callback.
struct Asks {
    opened: Wish,
    input: Wish,
    input_takes: bool,
    room: Wish,
    ended: Wish,
    calls: u32,
    closed: Option<CloseReason>,
}

impl Asks {
    fn new(input: Wish, room: Wish) -> Asks {
        Asks { opened: Wish::Nothing, input, input_takes: false, room, ended: Wish::Nothing, calls: 0, closed: None }
    }

    fn wish(&mut self, wish: Wish, cx: &mut Context<'_>) {
        self.calls += 1;
        match wish {
            Wish::Nothing => {}
            Wish::Ask => cx.want_writable(),
            Wish::WriteAndAsk => {
                cx.write(b"x");
                cx.want_writable();
            }
            Wish::PauseAndAsk => {
                cx.pause();
                cx.want_writable();
            }
        }
    }
}

impl Handler for Asks {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, _origin: Origin, cx: &mut Context<'_>) {
        self.wish(self.opened, cx);
    }

    fn input(&mut self, (): &mut (), input: &[u8], cx: &mut Context<'_>) -> usize {
        self.wish(self.input, cx);
        if self.input_takes { input.len() } else { 0 }
    }

    fn writable(&mut self, (): &mut (), cx: &mut Context<'_>) {
        self.wish(self.room, cx);
    }

    fn ended(&mut self, (): &mut (), _rest_bytes: usize, cx: &mut Context<'_>) {
        self.wish(self.ended, cx);
    }

    fn mail(&mut self, (): &mut (), (): (), _cx: &mut Context<'_>) {}

    fn pressed(&mut self, (): &mut (), _pressure: Pressure, _cx: &mut Context<'_>) {}

    fn closed(&mut self, (): (), reason: CloseReason, _cx: &mut LoopContext<'_>) {
        self.closed = Some(reason);
    }
}

/// Runs until the loop sleeps. The peer sends a message, and its FIN if it `ends`; it reads nothing.
fn run(handler: Asks, ends: bool) -> EventLoop<Asks, Scripted> {
    let mut config = Config::default();
    config.limits.kernel_unsent_bytes_max = Some(2048);
    let (mut event_loop, index) = scripted(config, handler);
    let peer = event_loop.os_mut().kernel().peer_connects(index).unwrap();
    event_loop.os_mut().kernel().peer_sends(peer, b"a message");
    if ends {
        event_loop.os_mut().kernel().peer_ends(peer);
    }
    for _ in 0..1000 {
        event_loop.turn().unwrap();
        if event_loop.os_mut().sleeps {
            return event_loop;
        }
    }
    panic!("the loop never sleeps: {} callbacks in 1000 turns", event_loop.handler().calls);
}

#[test]
fn input_that_asks_for_more_output_space_than_there_is_closes_its_connection() {
    for room in [Wish::Nothing, Wish::Ask] {
        let event_loop = run(Asks::new(Wish::Ask, room), false);
        assert_eq!(event_loop.handler().closed, Some(CloseReason::OutputSpaceTooSmall));
        assert_eq!(event_loop.stats().closes(CloseReason::OutputSpaceTooSmall).get(), 1);
        // `opened`; `input`, `writable` and `input` again.
        assert_eq!(event_loop.handler().calls, 4);
    }
}

#[test]
fn input_whose_output_waits_for_space_keeps_the_connection_open() {
    // It takes the message when `writable` has written something: so far it only asks.
    let event_loop = run(Asks::new(Wish::Ask, Wish::WriteAndAsk), false);
    // The peer reads nothing, and that is what closes it.
    assert_eq!(event_loop.handler().closed, Some(CloseReason::WriteStalled));
    assert!(event_loop.stats().bytes_written.get() >= 2048, "the kernel's buffer is full");
}

#[test]
fn no_combination_of_callbacks_that_ask_keeps_the_loop_awake() {
    for opened in WISHES {
        for input in WISHES {
            for room in WISHES {
                for (input_takes, ends) in [(false, false), (true, false), (false, true), (true, true)] {
                    let handler = Asks { opened, input, input_takes, room, ended: input, calls: 0, closed: None };
                    drop(run(handler, ends));
                }
            }
        }
    }
}
