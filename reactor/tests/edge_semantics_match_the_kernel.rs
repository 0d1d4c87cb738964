//! The same script played to the real kernel and to the simulated one: what poll, read and write say must be the same.
//!
//! Where the simulated kernel says that an event comes, the real one is waited for; where it says that none comes, the real one is asked
//! once. So a slow machine cannot fail the test.
#![allow(clippy::unwrap_used)] // In the helpers of a test, as in the test.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use reactor::os::{Event, Ready};
use reactor::sim::{Hostility, Kernel, Rng, SimOs, SimStream, SocketId};
use reactor::{Connect, Linux, LinuxListener, ListenerWakes, Os, Token};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The peer sends the next so many letters.
    PeerSends(usize),
    /// The peer sends one byte out of band.
    PeerSendsUrgent,
    /// FIN.
    PeerEnds,
    PeerResets,
    /// The peer reads all that was written.
    PeerReads,
    Register,
    Poll,
    /// One read of at most so many bytes.
    Read(usize),
    /// One write of a byte.
    Write,
    /// Writes until it would block.
    Fill,
    End,
    TakeError,
}
use Step::*;

/// What a step showed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Done,
    Events(Ready),
    Bytes(Vec<u8>),
    Error(io::ErrorKind),
}

const STREAM: Token = Token::from_bits(7);

fn letters(from: &mut u8, count: usize) -> Vec<u8> {
    (0..count)
        .map(|_| {
            *from = if *from >= b'z' { b'a' } else { *from + 1 };
            *from
        })
        .collect()
}

/// What both sides do in the same way: everything that goes through the door.
fn step_of_the_loop<O: Os>(os: &mut O, stream: &mut O::Stream, step: Step) -> Seen {
    let seen = |result: io::Result<Seen>| result.unwrap_or_else(|e| Seen::Error(e.kind()));
    match step {
        Register => seen(os.register(stream, STREAM).map(|()| Seen::Done)),
        Read(bytes_max) => {
            let mut bytes = vec![0; bytes_max];
            seen(stream.read(&mut bytes).map(|n| Seen::Bytes(bytes[..n].to_vec())))
        }
        Write => seen(stream.write(b"!").map(|_| Seen::Done)),
        End => seen(os.shutdown_write(stream).map(|()| Seen::Done)),
        TakeError => match os.take_error(stream) {
            Ok(None) => Seen::Done,
            Ok(Some(e)) | Err(e) => Seen::Error(e.kind()),
        },
        _ => unreachable!("{step:?} is not the loop's"),
    }
}

fn bits_of(events: &[Event]) -> Ready {
    events.iter().filter(|event| event.token == STREAM).fold(Ready::default(), |all, event| all.union(event.ready))
}

struct Simulated {
    os: SimOs,
    stream: SimStream,
    id: SocketId,
    letter: u8,
    bytes_written: usize,
}

impl Simulated {
    fn new() -> Simulated {
        let mut os = SimOs::new(Kernel::new(Rng::new(1), Hostility::default(), 1 << 16, 1 << 16));
        let index = os.kernel().listen();
        let id = os.kernel().peer_connects(index).unwrap();
        let mut listener = os.listener(index);
        let (stream, _) = os.accept(&mut listener).unwrap();
        Simulated { os, stream, id, letter: b'z', bytes_written: 0 }
    }

    fn step(&mut self, step: Step) -> Seen {
        let id = self.id;
        match step {
            PeerSends(count) => {
                let bytes = letters(&mut self.letter, count);
                assert_eq!(self.os.kernel().peer_sends(id, &bytes), count);
            }
            PeerSendsUrgent => self.os.kernel().peer_sends_urgent(id),
            PeerEnds => self.os.kernel().peer_ends(id),
            PeerResets => self.os.kernel().peer_resets(id),
            PeerReads => self.os.kernel().peer_reads(id, usize::MAX, &mut Vec::new()),
            Poll => {
                let mut events = Vec::new();
                self.os.poll(Some(Duration::ZERO), &mut events).unwrap();
                return Seen::Events(bits_of(&events));
            }
            Fill => loop {
                match self.stream.write(&[b'!'; 4096]) {
                    Ok(n) => self.bytes_written += n,
                    Err(e) => return Seen::Error(e.kind()),
                }
            },
            step => return step_of_the_loop(&mut self.os, &mut self.stream, step),
        }
        Seen::Done
    }
}

struct Real {
    os: Linux,
    stream: <Linux as Os>::Stream,
    peer: Option<TcpStream>,
    letter: u8,
    bytes_unread: usize,
}

impl Real {
    fn new() -> Real {
        let mut os = Linux::new(64).unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        peer.set_nodelay(true).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut listener = LinuxListener::new(socket).unwrap();
        let (stream, _) = os.accept(&mut listener).unwrap();
        Real { os, stream, peer: Some(peer), letter: b'z', bytes_unread: 0 }
    }

    fn step(&mut self, step: Step, expected: &Seen) -> Seen {
        match (step, &mut self.peer) {
            (PeerSends(count), Some(peer)) => peer.write_all(&letters(&mut self.letter, count)).unwrap(),
            (PeerSendsUrgent, Some(peer)) => {
                socket2::SockRef::from(&*peer).send_out_of_band(b"?").unwrap();
            }
            (PeerEnds, Some(peer)) => peer.shutdown(std::net::Shutdown::Write).unwrap(),
            (PeerResets, peer) => {
                let peer = peer.take().unwrap();
                socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
            }
            (PeerReads, Some(peer)) => {
                let mut bytes = vec![0; std::mem::take(&mut self.bytes_unread)];
                peer.read_exact(&mut bytes).unwrap();
            }
            (Poll, _) => return self.poll(expected),
            (Fill, _) => loop {
                match self.stream.write(&[b'!'; 4096]) {
                    Ok(n) => self.bytes_unread += n,
                    Err(e) => return Seen::Error(e.kind()),
                }
            },
            (Write, _) => {
                let seen = step_of_the_loop(&mut self.os, &mut self.stream, step);
                self.bytes_unread += usize::from(seen == Seen::Done);
                return seen;
            }
            (step, _) => return step_of_the_loop(&mut self.os, &mut self.stream, step),
        }
        Seen::Done
    }

    fn poll(&mut self, expected: &Seen) -> Seen {
        let give_up = Instant::now() + Duration::from_secs(10);
        let mut all = Ready::default();
        let mut events = Vec::new();
        loop {
            let wait = if *expected == Seen::Events(Ready::default()) { Duration::ZERO } else { Duration::from_millis(50) };
            self.os.poll(Some(wait), &mut events).unwrap();
            all = all.union(bits_of(&events));
            if wait.is_zero() || Seen::Events(all) == *expected || Instant::now() > give_up {
                return Seen::Events(all);
            }
        }
    }
}

/// Plays a script to both; gives back what was seen.
fn play(script: &[Step]) -> Vec<Seen> {
    let (mut simulated, mut real) = (Simulated::new(), Real::new());
    let mut seen = Vec::new();
    for (i, step) in script.iter().enumerate() {
        let by_the_simulated = simulated.step(*step);
        let by_the_real = real.step(*step, &by_the_simulated);
        assert_eq!(by_the_simulated, by_the_real, "step {i}, {step:?}, of {script:?}: simulated on the left, Linux on the right");
        seen.push(by_the_simulated);
    }
    seen
}

const IN: Ready = Ready::READABLE;
const OUT: Ready = Ready::WRITABLE;

#[test]
fn registration_reports_what_is_true_at_once_and_once() {
    let seen = play(&[PeerSends(5), Register, Poll, Poll]);
    assert_eq!(seen[2..], [Seen::Events(IN.union(OUT)), Seen::Events(Ready::default())]);
}

#[test]
fn each_arrival_is_an_edge_and_reports_all_that_is_true() {
    let seen = play(&[Register, Poll, PeerSends(5), Poll, Poll, PeerSends(1), Poll, Read(3), Poll]);
    assert_eq!(seen[6], Seen::Events(IN.union(OUT)));
    assert_eq!(seen[8], Seen::Events(Ready::default()), "what is left unread makes no event");
}

#[test]
fn arrivals_before_a_poll_are_one_event_and_those_consumed_are_asked_anew() {
    let seen = play(&[Register, Poll, PeerSends(5), PeerSends(5), Poll, Poll, PeerSends(1), Read(64), Poll]);
    assert_eq!(seen[5], Seen::Events(Ready::default()));
    assert_eq!(seen[8], Seen::Events(OUT), "the bytes are gone, the rest is still true");
}

#[test]
fn a_fin_stays_reported_and_comes_after_the_bytes() {
    let seen = play(&[Register, Poll, PeerSends(5), PeerEnds, Poll, Read(64), Poll, Read(64), Read(64), Write, Poll]);
    assert_eq!(seen[4], Seen::Events(IN.union(OUT).union(Ready::READ_CLOSED)));
    assert_eq!(seen[6], Seen::Events(Ready::default()), "a short read before the end: no further event comes for the end");
    assert_eq!(seen[7], Seen::Bytes(Vec::new()));
}

#[test]
fn both_ends_make_a_hangup() {
    let seen = play(&[Register, Poll, PeerEnds, Poll, End, Poll, Read(1)]);
    assert_eq!(seen[5], Seen::Events(IN.union(OUT).union(Ready::READ_CLOSED).union(Ready::WRITE_CLOSED)));
    play(&[Register, Poll, End, Poll, PeerEnds, Poll, Read(1), Write]);
}

#[test]
fn bytes_before_a_reset_stay_readable_and_its_error_comes_once() {
    let seen = play(&[Register, Poll, PeerSends(4), PeerResets, Poll, Read(64), Read(64), Read(64), Write, Poll]);
    assert_eq!(seen[5], Seen::Bytes(b"abcd".to_vec()));
    assert_eq!(seen[6], Seen::Error(io::ErrorKind::ConnectionReset));
    play(&[Register, Poll, PeerResets, Poll, TakeError, Read(64), Write]);
    play(&[Register, Poll, PeerEnds, PeerResets, Poll, Read(64), TakeError, Write]);
    play(&[PeerSends(2), PeerEnds, PeerResets, Register, Poll, Write, Read(1), Read(1), Read(1)]);
}

#[test]
fn freed_send_buffer_is_an_edge_only_after_a_write_that_found_it_full() {
    let seen = play(&[Register, Poll, Write, PeerReads, Poll, Fill, Poll, PeerReads, Poll]);
    assert_eq!(seen[4], Seen::Events(Ready::default()));
    assert_eq!(seen[8], Seen::Events(OUT));
}

#[test]
fn a_read_stops_at_the_urgent_mark() {
    let seen = play(&[Register, Poll, PeerSends(2), PeerSendsUrgent, PeerSends(3), Poll, Read(64), Read(64), Read(64), Poll]);
    assert_eq!(seen[5], Seen::Events(IN.union(OUT).union(Ready::PRIORITY)));
    assert_eq!(seen[6], Seen::Bytes(b"ab".to_vec()));
    assert_eq!(seen[7], Seen::Bytes(b"cde".to_vec()));
}

#[test]
fn random_scripts_look_the_same() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let (mut peer_ended, mut reset, mut ended, mut registered) = (false, false, false, false);
        let mut script = Vec::new();
        for _ in 0..rng.between(4, 16) {
            let step = match rng.below(14) {
                0..=2 if !peer_ended && !reset => PeerSends(rng.between(1, 20) as usize),
                3 if !peer_ended && !reset => PeerEnds,
                // After both ends the peer has nothing left to reset.
                4 if !(reset || peer_ended && ended) => PeerResets,
                5 if !ended && !reset => End,
                6 if !registered => Register,
                7 | 8 => Read(rng.between(1, 30) as usize),
                // A byte that was sent would make the peer's reset race with its arrival.
                _ => Poll,
            };
            peer_ended |= step == PeerEnds;
            reset |= step == PeerResets;
            ended |= step == End;
            registered |= step == Register;
            script.push(step);
        }
        play(&script);
    }
}

#[test]
fn a_listener_reports_arrivals_and_not_what_is_left_in_its_queue() {
    let mut sim = SimOs::new(Kernel::new(Rng::new(1), Hostility::default(), 1 << 16, 1 << 16));
    let index = sim.kernel().listen();
    let mut sim_listener = sim.listener(index);
    let mut real = Linux::new(64).unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut real_listener = LinuxListener::new(socket).unwrap();
    let mut peers = Vec::new();

    sim.register_listener(&mut sim_listener, STREAM, ListenerWakes::All).unwrap();
    real.register_listener(&mut real_listener, STREAM, ListenerWakes::All).unwrap();
    let mut events = Vec::new();
    for (connects, accepts, reported) in
        [(0, 0, false), (2, 0, true), (0, 1, false), (1, 0, true), (0, 2, false), (0, 1, false), (1, 0, true)]
    {
        for _ in 0..connects {
            sim.kernel().peer_connects(index).unwrap();
            peers.push(TcpStream::connect(address).unwrap());
        }
        for _ in 0..accepts {
            let kinds = |result: io::Result<()>| result.map_err(|e| e.kind());
            let by_the_simulated = kinds(sim.accept(&mut sim_listener).map(drop));
            assert_eq!(by_the_simulated, kinds(real.accept(&mut real_listener).map(drop)));
        }
        sim.poll(Some(Duration::ZERO), &mut events).unwrap();
        assert_eq!(!events.is_empty(), reported, "simulated: {connects} connects, {accepts} accepts");
        let wait = if reported { Duration::from_secs(10) } else { Duration::ZERO };
        real.poll(Some(wait), &mut events).unwrap();
        assert_eq!(!events.is_empty(), reported, "Linux: {connects} connects, {accepts} accepts");
    }
}

#[test]
fn a_connect_ends_in_the_same_way() {
    // Refused: a port that was free a moment ago, on both sides of the door.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut real = Linux::new(64).unwrap();
    let mut events = Vec::new();
    let mut sim = SimOs::new(Kernel::new(Rng::new(1), Hostility::default(), 1 << 16, 1 << 16));
    let mut simulated = sim.connect(&Connect::new(free, 0, Duration::MAX), None).unwrap();
    sim.register(&mut simulated, STREAM).unwrap();
    sim.poll(Some(Duration::ZERO), &mut events).unwrap();
    assert!(events.is_empty() && !sim.is_connected(&mut simulated));
    sim.kernel().peer_resets(simulated.id());
    sim.poll(Some(Duration::ZERO), &mut events).unwrap();
    let refused = bits_of(&events);
    match real.connect(&Connect::new(free, 0, Duration::MAX), None) {
        Ok(mut stream) => {
            real.register(&mut stream, STREAM).unwrap();
            real.poll(Some(Duration::from_secs(10)), &mut events).unwrap();
            assert_eq!(bits_of(&events), refused);
            let kind = |error: Option<io::Error>| error.map(|e| e.kind());
            assert_eq!(kind(real.take_error(&mut stream).unwrap()), kind(sim.take_error(&mut simulated).unwrap()));
            assert!(!real.is_connected(&mut stream));
        }
        // Over loopback the answer can be there before connect(2) returns.
        Err(e) => assert_eq!(e.kind(), io::ErrorKind::ConnectionRefused),
    }

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stream = real.connect(&Connect::new(listener.local_addr().unwrap(), 0, Duration::MAX), None).unwrap();
    real.register(&mut stream, STREAM).unwrap();
    real.poll(Some(Duration::from_secs(10)), &mut events).unwrap();
    let by_the_real = bits_of(&events);
    let mut simulated = sim.connect(&Connect::new(free, 0, Duration::MAX), None).unwrap();
    sim.register(&mut simulated, STREAM).unwrap();
    sim.kernel().peer_accepts(simulated.id());
    sim.poll(Some(Duration::ZERO), &mut events).unwrap();
    assert_eq!(bits_of(&events), by_the_real);
    assert!(real.is_connected(&mut stream) && sim.is_connected(&mut simulated));
}
