//! Input that has arrived is handed out before a deadline of the same turn, whatever other connections did in between, and also where poll had
//! no place to report it.
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

use std::time::{Duration, Instant};

use reactor::sim::{Hostility, Kernel, Rng, SimOs};
use reactor::{Config, Context, EventLoop, Handler, ListenerWakes, Origin, Token};

/// The first connection wakes the second whenever it is spoken to; the second has a deadline.
#[derive(Default)]
struct Chat {
    members: Vec<Token>,
    seen: Vec<&'static str>,
}

impl Handler for Chat {
    type Conn = usize;
    type Mail = ();

    fn opened(&mut self, _origin: Origin, cx: &mut Context<'_>) -> usize {
        self.members.push(cx.token());
        if self.members.len() == 2 {
            cx.deadline(Some(cx.now() + Duration::from_millis(1)));
        }
        self.members.len() - 1
    }

    fn input(&mut self, member: &mut usize, input: &[u8], cx: &mut Context<'_>) -> usize {
        if *member == 0 {
            cx.wake(self.members[1]);
        } else {
            self.seen.push("input");
        }
        input.len()
    }

    fn mail(&mut self, _member: &mut usize, (): (), _cx: &mut Context<'_>) {}

    fn deadline(&mut self, _member: &mut usize, _cx: &mut Context<'_>) {
        self.seen.push("deadline");
    }
}

#[test]
fn a_connection_that_another_one_has_woken_keeps_its_place_before_the_deadlines() {
    // Each system call costs more than the deadline: when poll reports the input, the deadline has passed too.
    let hostility = Hostility { call_nanos: 2_000_000, ..Hostility::default() };
    let mut kernel = Kernel::new(Rng::new(1), hostility, 1 << 16, 1 << 16);
    let index = kernel.listen();
    for _ in 0..2 {
        let peer = kernel.peer_connects(index).unwrap();
        kernel.peer_sends(peer, b"here I am");
    }
    let os = SimOs::new(kernel);
    let listener = os.listener(index);
    let mut event_loop = EventLoop::with_os(Config::default(), os, Chat::default()).unwrap();
    event_loop.listen_on(listener, ListenerWakes::All).unwrap();
    for _ in 0..4 {
        event_loop.turn().unwrap();
    }
    assert_eq!(event_loop.handler().seen, ["input", "deadline"]);
}

/// Each connection has to speak within a millisecond of its arrival.
#[derive(Default)]
struct Roll {
    called: usize,
    spoke: Vec<usize>,
    cut_off: Vec<usize>,
}

impl Handler for Roll {
    type Conn = usize;
    type Mail = ();

    fn opened(&mut self, _origin: Origin, cx: &mut Context<'_>) -> usize {
        cx.deadline(Some(cx.now() + Duration::from_millis(1)));
        self.called += 1;
        self.called - 1
    }

    fn input(&mut self, member: &mut usize, input: &[u8], cx: &mut Context<'_>) -> usize {
        self.spoke.push(*member);
        cx.deadline(None);
        input.len()
    }

    fn mail(&mut self, _member: &mut usize, (): (), _cx: &mut Context<'_>) {}

    fn deadline(&mut self, member: &mut usize, cx: &mut Context<'_>) {
        self.cut_off.push(*member);
        cx.close();
    }
}

#[test]
fn a_late_loop_cuts_nobody_off_whose_input_poll_had_no_place_for() {
    // Every system call takes 0.1 ms, so the turn that accepts nine takes longer than each may be silent.
    let hostility = Hostility { call_nanos: 100_000, events_max: 2, ..Hostility::default() };
    let mut kernel = Kernel::new(Rng::new(1), hostility, 1 << 16, 1 << 16);
    let index = kernel.listen();
    let peers: Vec<_> = (0..9).map(|_| kernel.peer_connects(index).unwrap()).collect();
    let os = SimOs::new(kernel);
    let listener = os.listener(index);
    let mut config = Config::default();
    config.limits.events_per_poll_max = 2;
    let mut event_loop = EventLoop::with_os(config, os, Roll::default()).unwrap();
    event_loop.listen_on(listener, ListenerWakes::All).unwrap();
    event_loop.turn().unwrap();
    // The last says nothing.
    for peer in &peers[..8] {
        event_loop.os_mut().kernel().peer_sends(*peer, b"here I am");
    }
    for _ in 0..12 {
        event_loop.turn().unwrap();
    }
    let roll = event_loop.handler_mut();
    roll.spoke.sort_unstable();
    assert_eq!((roll.spoke.as_slice(), roll.cut_off.as_slice()), ([0, 1, 2, 3, 4, 5, 6, 7].as_slice(), [8].as_slice()));
}

/// Each connection has a millisecond, whatever it says: the handler sets the same time again with all that comes.
#[derive(Default)]
struct Absolute {
    seen: Vec<&'static str>,
}

impl Handler for Absolute {
    type Conn = Instant;
    type Mail = ();

    fn opened(&mut self, _origin: Origin, cx: &mut Context<'_>) -> Instant {
        let due = cx.now() + Duration::from_millis(1);
        cx.deadline(Some(due));
        due
    }

    fn input(&mut self, due: &mut Instant, input: &[u8], cx: &mut Context<'_>) -> usize {
        if input.len() > 100 {
            self.seen.push("input");
        }
        cx.deadline(Some(*due));
        input.len()
    }

    fn mail(&mut self, _due: &mut Instant, (): (), _cx: &mut Context<'_>) {}

    fn deadline(&mut self, _due: &mut Instant, cx: &mut Context<'_>) {
        self.seen.push("deadline");
        cx.close();
    }
}

#[test]
fn one_look_is_all_that_a_deadline_waits_for() {
    let hostility = Hostility { call_nanos: 500_000, events_max: 2, ..Hostility::default() };
    let mut kernel = Kernel::new(Rng::new(1), hostility, 1 << 20, 1 << 16);
    let index = kernel.listen();
    let peers: Vec<_> = (0..3).map(|_| kernel.peer_connects(index).unwrap()).collect();
    let os = SimOs::new(kernel);
    let listener = os.listener(index);
    let mut config = Config::default();
    config.limits.events_per_poll_max = 2;
    let mut event_loop = EventLoop::with_os(config, os, Absolute::default()).unwrap();
    event_loop.listen_on(listener, ListenerWakes::All).unwrap();
    event_loop.turn().unwrap();
    for peer in &peers {
        let bytes: &[u8] = if *peer == peers[2] { &[0; 1 << 20] } else { &[0] };
        event_loop.os_mut().kernel().peer_sends(*peer, bytes);
    }
    event_loop.turn().unwrap();
    // Of the sixteen buffers that the last has sent, one; and its time is over, as is that of the other two.
    assert_eq!(event_loop.handler().seen.iter().filter(|seen| **seen == "input").count(), 1);
    assert_eq!(event_loop.handler().seen.iter().filter(|seen| **seen == "deadline").count(), 3);
}
