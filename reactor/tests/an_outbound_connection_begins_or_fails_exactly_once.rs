//! `connect` ends in exactly one of `opened` and `connect_failed`, whatever the other side does, and misses nothing the peer said first.
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use reactor::{CloseReason, Config, Connect, Context, EventLoop, Handler, LoopContext, Origin};
use support::{PATIENCE, listener, patient};

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Opened(u64),
    Failed(u64, ErrorKind),
    Ended,
    Closed(CloseReason),
}

/// Connects where it is told at the first `woke`, and reads to the peer's end.
struct Client {
    connects: Vec<Connect>,
    /// Attempts and connections that have ended.
    over: Arc<AtomicUsize>,
    started: Option<Instant>,
    told: Sender<Told>,
    input: Vec<u8>,
    /// Held in `connect_failed` until the test allows it.
    gate: Option<Receiver<()>>,
}

fn client(connects: Vec<Connect>) -> (Client, Receiver<Told>) {
    let (told, heard) = channel();
    (Client { connects, over: Arc::default(), started: Some(Instant::now()), told, input: Vec::new(), gate: None }, heard)
}

fn to(address: SocketAddr, tag: u64) -> Connect {
    Connect::new(address, tag, PATIENCE)
}

impl Handler for Client {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, origin: Origin, cx: &mut Context<'_>) {
        let Origin::Connected { tag } = origin else { panic!("nothing listens here") };
        self.told.send(Told::Opened(tag)).unwrap();
        cx.write(b"hello\n");
    }

    fn input(&mut self, (): &mut (), input: &[u8], _cx: &mut Context<'_>) -> usize {
        self.input.extend_from_slice(input);
        input.len()
    }

    fn ended(&mut self, (): &mut (), _rest_bytes: usize, cx: &mut Context<'_>) {
        self.told.send(Told::Ended).unwrap();
        cx.close();
    }

    fn mail(&mut self, (): &mut (), (): (), _cx: &mut Context<'_>) {}

    fn closed(&mut self, (): (), reason: CloseReason, _cx: &mut LoopContext<'_>) {
        self.told.send(Told::Closed(reason)).unwrap();
        self.over.fetch_add(1, Ordering::Relaxed);
    }

    fn connect_failed(&mut self, tag: u64, error: io::Error, _cx: &mut LoopContext<'_>) {
        if let Some(gate) = self.gate.take() {
            gate.recv_timeout(PATIENCE).expect("the peer speaks and ends");
        }
        self.told.send(Told::Failed(tag, error.kind())).unwrap();
        self.over.fetch_add(1, Ordering::Relaxed);
    }

    fn next_wake(&self) -> Option<Instant> {
        self.started
    }

    fn woke(&mut self, cx: &mut LoopContext<'_>) {
        self.started = None;
        for connect in self.connects.drain(..) {
            cx.connect(connect).unwrap();
        }
    }
}

/// Runs until all attempts have ended.
fn run(client: Client) -> Client {
    let (over, wanted) = (Arc::clone(&client.over), client.connects.len());
    let event_loop = EventLoop::new(Config::default(), client).unwrap();
    let handle = event_loop.handle();
    let thread = std::thread::spawn(move || event_loop.run().unwrap());
    let started = Instant::now();
    while over.load(Ordering::Relaxed) < wanted && started.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_micros(200));
    }
    handle.stop();
    let client = thread.join().unwrap();
    assert!(over.load(Ordering::Relaxed) == wanted && started.elapsed() < PATIENCE, "some attempt never ended");
    client
}

/// An address where nothing listens.
fn refusing() -> SocketAddr {
    let listener = listener();
    listener.local_addr().unwrap()
}

/// A blocking listener, for a server that is only a thread.
fn plain() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn success_is_one_callback_and_data_flows_both_ways() {
    let (server, address) = plain();
    let (client, heard) = client(vec![to(address, 7)]);
    let server = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        patient(&stream);
        let mut line = [0; 6];
        stream.read_exact(&mut line).unwrap();
        stream.write_all(b"welcome").unwrap();
        line
    });
    let client = run(client);
    assert_eq!(&server.join().unwrap(), b"hello\n");
    assert_eq!(client.input, b"welcome");
    drop(client);
    assert_eq!(heard.iter().collect::<Vec<_>>(), [Told::Opened(7), Told::Ended, Told::Closed(CloseReason::PeerClosed)]);
}

#[test]
fn a_refused_connect_is_one_callback() {
    let (client, heard) = client(vec![to(refusing(), 3)]);
    drop(run(client));
    assert_eq!(heard.iter().collect::<Vec<_>>(), [Told::Failed(3, ErrorKind::ConnectionRefused)]);
}

#[test]
fn a_connect_that_cannot_begin_is_one_callback() {
    let mut connect = to("127.0.0.1:9".parse().unwrap(), 4);
    connect.from = Some(IpAddr::V6(Ipv6Addr::LOCALHOST));
    let (client, heard) = client(vec![connect]);
    drop(run(client));
    let told: Vec<_> = heard.iter().collect();
    assert!(matches!(told[..], [Told::Failed(4, _)]), "{told:?}");
}

#[test]
fn a_peer_that_never_answers_fails_by_the_deadline_and_not_before() {
    // A full backlog: the kernel drops further SYNs, and connect(2) alone would try for minutes.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let mut fillers = Vec::new();
    while let Ok(filler) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50)) {
        fillers.push(filler);
        assert!(fillers.len() < 100, "a backlog of 0 never fills");
    }
    let timeout = Duration::from_millis(120);
    let (client, heard) = client(vec![Connect::new(address, 5, timeout)]);
    let started = Instant::now();
    drop(run(client));
    assert!(started.elapsed() >= timeout);
    assert_eq!(heard.iter().collect::<Vec<_>>(), [Told::Failed(5, ErrorKind::TimedOut)]);
}

#[test]
fn a_peer_sends_no_more_than_the_receive_buffer_that_was_asked_for() {
    let (server, address) = plain();
    let mut connect = to(address, 1);
    connect.receive_buffer_bytes = Some(16 << 10);
    let event_loop = EventLoop::new(Config::default(), Deaf(Some((Instant::now(), connect)))).unwrap();
    let handle = event_loop.handle();
    let thread = std::thread::spawn(move || event_loop.run());
    let (mut peer, _) = server.accept().unwrap();
    // The peer's own buffer is bounded too, so that what it gets rid of is in the receive buffer.
    socket2::SockRef::from(&peer).set_send_buffer_size(16 << 10).unwrap();
    peer.set_nonblocking(true).unwrap();
    let (mut sent, began) = (0, Instant::now());
    let mut last_at = began;
    while last_at.elapsed() < Duration::from_millis(200) {
        match peer.write(&[0; 4096]) {
            Ok(n) => (sent, last_at) = (sent + n, Instant::now()),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
        assert!(sent < 1 << 20, "the kernel's own choice holds megabytes");
    }
    assert!(sent < 200 << 10, "{sent} bytes were sent to a client that does not read");
    handle.stop();
    thread.join().unwrap().unwrap();
}

/// Connects and never reads.
struct Deaf(Option<(Instant, Connect)>);

impl Handler for Deaf {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, _: Origin, cx: &mut Context<'_>) {
        cx.pause();
    }

    fn input(&mut self, (): &mut (), _: &[u8], _: &mut Context<'_>) -> usize {
        unreachable!("it is paused")
    }

    fn mail(&mut self, (): &mut (), (): (), _: &mut Context<'_>) {}

    fn next_wake(&self) -> Option<Instant> {
        self.0.map(|(at, _)| at)
    }

    fn woke(&mut self, cx: &mut LoopContext<'_>) {
        if let Some((_, connect)) = self.0.take() {
            cx.connect(connect).unwrap();
        }
    }
}

#[test]
fn the_source_address_is_the_one_that_was_asked_for() {
    let (server, address) = plain();
    let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));
    let mut connect = to(address, 1);
    connect.from = Some(from);
    let (client, _heard) = client(vec![connect]);
    let server = std::thread::spawn(move || server.accept().unwrap().1);
    run(client);
    assert_eq!(server.join().unwrap().ip(), from);
}

#[test]
fn a_peer_that_spoke_and_ended_before_we_looked_is_heard_to_the_end() {
    // The one event of such a connection says connected, readable and ended at once. Whoever forgets the last part takes the first short
    // read for the whole, and holds a connection that is over until a timeout.
    let (server, address) = plain();
    let mut cannot_begin = to("127.0.0.1:9".parse().unwrap(), 2);
    cannot_begin.from = Some(IpAddr::V6(Ipv6Addr::LOCALHOST));
    let (mut client, heard) = client(vec![to(address, 1), cannot_begin]);
    let (open, gate) = channel();
    client.gate = Some(gate); // The second attempt fails in the same turn, and its callback waits for the first one's peer.
    let server = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        patient(&stream);
        stream.write_all(b"welcome").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        open.send(()).unwrap();
        // The client's bytes and its end; with its input unread our close would be a reset.
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).map(|_| rest)
    });
    let client = run(client);
    assert_eq!(client.input, b"welcome");
    drop(client);
    assert_eq!(server.join().unwrap().unwrap(), b"hello\n");
    assert!(heard.iter().any(|told| told == Told::Ended));
}

#[test]
fn a_hundred_attempts_of_both_kinds_end_once_each() {
    let (server, good) = plain();
    let bad = refusing();
    let connects: Vec<_> = (0..100).map(|tag| to(if tag % 2 == 0 { good } else { bad }, tag)).collect();
    let (client, heard) = client(connects);
    let server = std::thread::spawn(move || {
        for _ in 0..50 {
            drop(server.accept().unwrap());
        }
    });
    drop(run(client));
    server.join().unwrap();
    let told: Vec<_> = heard.iter().collect();
    for tag in 0..100 {
        let expected = if tag % 2 == 0 { Told::Opened(tag) } else { Told::Failed(tag, ErrorKind::ConnectionRefused) };
        assert_eq!(told.iter().filter(|told| **told == expected).count(), 1, "{expected:?}");
    }
    assert_eq!(told.iter().filter(|told| matches!(told, Told::Opened(_) | Told::Failed(..))).count(), 100);
}

#[test]
fn a_connect_in_progress_when_the_loop_ends_gets_its_callback() {
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let mut fillers = Vec::new();
    while let Ok(filler) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50)) {
        fillers.push(filler);
        assert!(fillers.len() < 100, "a backlog of 0 never fills");
    }
    let (client, heard) = client(vec![to(address, 6)]);
    let mut event_loop = EventLoop::new(Config::default(), client).unwrap();
    while event_loop.stats().connects.get() == 0 {
        assert!(event_loop.turn().unwrap());
    }
    drop(event_loop.finish());
    let told: Vec<_> = heard.iter().collect();
    assert!(matches!(told[..], [Told::Failed(6, _)]), "{told:?}");
}

#[test]
fn a_connection_that_opens_during_a_shutdown_is_notified() {
    let (server, address) = plain();
    let (client, _heard) = client(vec![to(address, 1)]);
    let mut event_loop = EventLoop::new(Config::default(), client).unwrap();
    // The order is there before the first turn, in which the attempt begins; it opens in a later one.
    event_loop.handle().shut_down(2 * PATIENCE);
    let server = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        patient(&stream);
        let mut all = Vec::new();
        stream.read_to_end(&mut all).map(|_| all)
    });
    let started = Instant::now();
    while event_loop.turn().unwrap() {}
    assert!(started.elapsed() < PATIENCE, "only the grace ended it");
    assert_eq!(server.join().unwrap().unwrap(), b"hello\n");
}
