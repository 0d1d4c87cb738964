//! Input that has arrived is handed out before a deadline of the same turn, whatever other connections did in between, and also where poll did
//! not report it: it had no place for the event, or the bytes came between its return and the reading of the clock. So it is with every
//! other time limit: of a connect, of output that stalls, of lingering.
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use std::time::{Duration, Instant};

use reactor::sim::{Hostility, Kernel, Rng, SimOs};
use reactor::{CloseReason, Config, Connect, Context, EventLoop, Handler, ListenerWakes, LoopContext, Origin, Token};
use support::scripted::scripted;

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
fn a_late_loop_closes_no_client_whose_event_did_not_fit_into_the_batch() {
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

/// How long the thread does not run. Longer than every limit here.
const PREEMPTED: Duration = Duration::from_secs(60);

#[test]
fn bytes_that_arrive_between_poll_and_the_clock_come_before_the_deadline() {
    let (mut event_loop, index) = scripted(Config::default(), Roll::default());
    let peers = [0, 1].map(|_| event_loop.os_mut().kernel().peer_connects(index).unwrap());
    event_loop.turn().unwrap();
    let speaks = peers[0];
    event_loop.os_mut().preemption = Some(Box::new(move |kernel| {
        kernel.peer_sends(speaks, b"here I am");
        PREEMPTED
    }));
    event_loop.turn().unwrap();
    assert_eq!((event_loop.handler().spoke.as_slice(), event_loop.handler().cut_off.as_slice()), ([0].as_slice(), [1].as_slice()));
}

/// Writes more than the kernel takes, or connects, and reports how that went.
#[derive(Default)]
struct Outcomes {
    connect: Option<Connect>,
    output_bytes: usize,
    closes_at_once: bool,
    connected: bool,
    failed: bool,
    closed: Option<CloseReason>,
}

impl Handler for Outcomes {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, origin: Origin, cx: &mut Context<'_>) {
        self.connected = matches!(origin, Origin::Connected { .. });
        cx.write(&vec![0; self.output_bytes]);
        if self.closes_at_once {
            cx.close();
        }
    }

    fn input(&mut self, (): &mut (), input: &[u8], _cx: &mut Context<'_>) -> usize {
        input.len()
    }

    fn mail(&mut self, (): &mut (), (): (), _cx: &mut Context<'_>) {}

    fn closed(&mut self, (): (), reason: CloseReason, _cx: &mut LoopContext<'_>) {
        self.closed = Some(reason);
    }

    fn connect_failed(&mut self, _tag: u64, _error: std::io::Error, _cx: &mut LoopContext<'_>) {
        self.failed = true;
    }

    fn next_wake(&self) -> Option<Instant> {
        self.connect.as_ref().map(|_| Instant::now() - PREEMPTED)
    }

    fn woke(&mut self, cx: &mut LoopContext<'_>) {
        if let Some(connect) = self.connect.take() {
            cx.connect(connect).unwrap();
        }
    }
}

#[test]
fn a_connect_that_succeeds_between_poll_and_the_clock_has_not_timed_out() {
    for succeeds in [true, false] {
        let to = "127.0.0.1:10000".parse().unwrap();
        let connect = Connect::new(to, 0, Duration::from_secs(1));
        let (mut event_loop, _) = scripted(Config::default(), Outcomes { connect: Some(connect), ..Outcomes::default() });
        while event_loop.os_mut().connecting.is_empty() {
            event_loop.turn().unwrap();
        }
        let socket = event_loop.os_mut().connecting[0];
        event_loop.os_mut().preemption = Some(Box::new(move |kernel| {
            if succeeds {
                kernel.peer_accepts(socket);
            }
            PREEMPTED
        }));
        event_loop.turn().unwrap();
        assert_eq!((event_loop.handler().connected, event_loop.handler().failed), (succeeds, !succeeds));
    }
}

#[test]
fn output_that_the_peer_takes_between_poll_and_the_clock_has_not_stalled() {
    for reads in [true, false] {
        let mut config = Config::default();
        config.limits.kernel_unsent_bytes_max = Some(1024);
        config.limits.output_rate_window = PREEMPTED;
        let (mut event_loop, index) = scripted(config, Outcomes { output_bytes: 4096, ..Outcomes::default() });
        let peer = event_loop.os_mut().kernel().peer_connects(index).unwrap();
        event_loop.turn().unwrap();
        // The first look, from which the window counts.
        event_loop.os_mut().preemption = Some(Box::new(|_| PREEMPTED / 8 + Duration::from_millis(1)));
        event_loop.turn().unwrap();
        assert_eq!(event_loop.handler().closed, None);
        event_loop.os_mut().preemption = Some(Box::new(move |kernel| {
            if reads {
                kernel.peer_reads(peer, usize::MAX, &mut Vec::new());
            }
            PREEMPTED + Duration::from_millis(1)
        }));
        event_loop.turn().unwrap();
        assert_eq!(event_loop.handler().closed, if reads { None } else { Some(CloseReason::WriteStalled) });
        if reads {
            // It had read all that there was, so the loop was late. It has not read since then: the next window counts.
            for _ in 0..2 {
                assert_eq!(event_loop.handler().closed, None);
                event_loop.os_mut().preemption = Some(Box::new(|_| PREEMPTED + Duration::from_millis(1)));
                event_loop.turn().unwrap();
            }
            assert_eq!(event_loop.handler().closed, Some(CloseReason::WriteStalled));
        }
    }
}

#[test]
fn bytes_that_arrive_between_poll_and_the_clock_do_not_make_the_end_of_lingering_a_reset() {
    let (mut event_loop, index) = scripted(Config::default(), Outcomes { output_bytes: 100, closes_at_once: true, ..Outcomes::default() });
    let peer = event_loop.os_mut().kernel().peer_connects(index).unwrap();
    event_loop.turn().unwrap();
    event_loop.os_mut().preemption = Some(Box::new(move |kernel| {
        kernel.peer_sends(peer, b"more");
        PREEMPTED
    }));
    event_loop.turn().unwrap();
    assert_eq!(event_loop.handler().closed, Some(CloseReason::Finished));
    assert_eq!(event_loop.stats().bytes_discarded.get(), 4);
}
