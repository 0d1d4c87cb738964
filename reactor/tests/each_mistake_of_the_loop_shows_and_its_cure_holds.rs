//! The deliberate mistakes of the loop by name, each on real sockets: with it clients hang or wait, with the default they do not.
//!
//! Nothing here is a matter of time: what a loop has not done after it has gone through two more turns with nothing left to do, it will
//! not do. `herd` is in `a_new_connection_wakes_one_loop.rs`, the rest in the simulator's tests.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use reactor::listen::socket::ListenOptions;
use reactor::{Config, Context, Handler, ListenerWakes, MISTAKES, Origin};
use support::child::{Server, is_server, start_server};
use support::lines::Lines;
use support::{PATIENCE, Running, ask, connect, listener_with, prepare, prepare_on, read_all, start, sys, until};

/// The default, or one mistake in it.
fn config(mistake: Option<&str>) -> Config {
    let mut config = Config::default();
    if let Some(slug) = mistake {
        let (_, change) = MISTAKES.iter().find(|(known, _)| *known == slug).expect("the table has it");
        change(&mut config);
    }
    config
}

/// Buffers of 4 KiB, so that a burst of one window takes several reads.
fn small_buffers(mut config: Config) -> Config {
    let limits = &mut config.limits;
    limits.buffer_bytes_max = 4096;
    (limits.output_low_water_bytes, limits.output_high_water_bytes) = (1024, 4096);
    config
}

/// What can be read now, without waiting.
fn come_so_far(client: &mut TcpStream) -> usize {
    client.set_nonblocking(true).unwrap();
    let (mut piece, mut bytes) = (vec![0; 65_536], 0);
    loop {
        match client.read(&mut piece) {
            Ok(0) => panic!("the server closed the connection"),
            Ok(n) => bytes += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) => panic!("{e}"),
        }
    }
    client.set_nonblocking(false).unwrap();
    bytes
}

/// Turns of the loop that have begun after this call and ended before its return.
fn two_turns(other: &mut TcpStream) {
    for _ in 0..3 {
        ask(other, "a turn");
    }
}

/// 200 lines of 100 bytes in one write, before anyone accepts: less than half of the smallest window, so one piece and one edge.
fn burst_before_accept(config: Config) -> (Running<Lines>, TcpStream) {
    let server = prepare(small_buffers(config), Lines::silent());
    let mut client = connect(server.address);
    client.write_all(format!("{:099}\n", 7).repeat(200).as_bytes()).unwrap();
    (server.run(), client)
}

#[test]
fn a_client_that_sends_a_burst_and_pauses_hangs_with_edge_starvation() {
    let (server, mut client) = burst_before_accept(config(Some("edge-starvation")));
    let mut first = [0; 100];
    client.read_exact(&mut first).unwrap();
    two_turns(&mut server.connect());
    // One read of 4,096 bytes: forty lines, and a rest.
    assert_eq!(100 + come_so_far(&mut client), 4000);
    // On Linux a new arrival is a new edge, whatever was left before: it is worth one more read.
    client.write_all(b"one more\n").unwrap();
    client.read_exact(&mut first).unwrap();
    two_turns(&mut server.connect());
    assert_eq!(100 + come_so_far(&mut client), 4000);
}

#[test]
fn a_client_that_sends_a_burst_and_pauses_is_answered_without() {
    let (_server, mut client) = burst_before_accept(config(None));
    client.read_exact(&mut vec![0; 20_000]).unwrap();
}

/// Takes what begins with `F` in pieces, and stops in the first piece until the test says so. Everybody else is told at once; how much had
/// been swallowed by then is reported.
struct Hose {
    begun: Sender<()>,
    go_on: Receiver<()>,
    swallowed: usize,
    asked_after: Sender<usize>,
}

impl Handler for Hose {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, _origin: Origin, _cx: &mut Context<'_>) {}

    fn input(&mut self, (): &mut (), input: &[u8], cx: &mut Context<'_>) -> usize {
        if input[0] != b'F' {
            let _ = self.asked_after.send(self.swallowed);
            return cx.write(input);
        }
        if self.swallowed == 0 {
            let _ = self.begun.send(());
            let _ = self.go_on.recv_timeout(PATIENCE);
        }
        let bytes = input.len().min(1000);
        self.swallowed += bytes;
        bytes
    }

    fn mail(&mut self, (): &mut (), (): (), _cx: &mut Context<'_>) {}
}

const HOSE_BYTES: usize = 32_000;

/// Somebody asks while the handler is within a firehose: how much of it comes first?
fn swallowed_before_others(config: Config) -> usize {
    let ((begun, has_begun), (go_on, wait), (asked_after, heard)) = (channel(), channel(), channel());
    let server = prepare(small_buffers(config), Hose { begun, go_on: wait, swallowed: 0, asked_after });
    let mut victim = connect(server.address);
    let mut hose = connect(server.address);
    hose.write_all(&[b'F'; HOSE_BYTES]).unwrap();
    let _server = server.run();
    has_begun.recv_timeout(PATIENCE).unwrap();
    victim.write_all(b"hello").unwrap();
    go_on.send(()).unwrap();
    victim.read_exact(&mut [0; 5]).unwrap();
    heard.recv_timeout(PATIENCE).unwrap()
}

#[test]
fn others_wait_until_a_firehose_is_empty_with_firehose() {
    assert_eq!(swallowed_before_others(config(Some("firehose"))), HOSE_BYTES);
}

#[test]
fn others_wait_for_one_visit_to_a_firehose_without() {
    let swallowed = swallowed_before_others(config(None));
    assert!(swallowed <= 2 * 4096, "{swallowed} bytes came first");
}

/// What comes back of a line that comes in two reads, and of two lines that come in one.
fn echoed(config: Config) -> (String, String) {
    let server = start(config, Lines::silent());
    let mut other = server.connect();
    let mut come_back = |pieces: &[&str]| {
        let mut client = server.connect();
        for piece in pieces {
            client.write_all(piece.as_bytes()).unwrap();
            // It has been read before the next one is sent.
            two_turns(&mut other);
        }
        client.shutdown(Shutdown::Write).unwrap();
        String::from_utf8(read_all(&mut client)).unwrap()
    };
    (come_back(&["hel", "lo\n"]), come_back(&["hello\nworld\n"]))
}

#[test]
fn a_line_in_two_reads_and_the_second_of_two_in_one_are_lost_with_partial_read() {
    assert_eq!(echoed(config(Some("partial-read"))), ("lo\n".to_owned(), "hello\n".to_owned()));
}

#[test]
fn a_line_in_two_reads_and_two_lines_in_one_come_back_whole_without() {
    assert_eq!(echoed(config(None)), ("hello\n".to_owned(), "hello\nworld\n".to_owned()));
}

/// What a client sees that has sent more than was wanted of it when it is told goodbye.
fn last_words(config: Config) -> (String, Option<ErrorKind>) {
    let server = prepare(small_buffers(config), Lines::silent());
    let mut client = connect(server.address);
    // Less than half of the smallest window, and much more than the loop's one buffer.
    client.write_all(&[b"close\n".as_slice(), &[b'x'; 20_000]].concat()).unwrap();
    let _server = server.run();
    let (mut words, mut piece) = (Vec::new(), [0; 64]);
    let error = loop {
        match client.read(&mut piece) {
            Ok(0) => break None,
            Ok(n) => words.extend_from_slice(&piece[..n]),
            Err(e) => break Some(e.kind()),
        }
    };
    (String::from_utf8(words).unwrap(), error)
}

#[test]
fn a_goodbye_to_a_client_that_has_sent_more_ends_in_a_reset_with_early_close() {
    // On Linux what came before a reset stays readable; other systems throw it away. The reset is what both have in common.
    assert_eq!(last_words(config(Some("early-close"))).1, Some(ErrorKind::ConnectionReset));
}

#[test]
fn a_goodbye_to_a_client_that_has_sent_more_arrives_and_so_does_the_end_without() {
    assert_eq!(last_words(config(None)), ("bye\n".to_owned(), None));
}

/// Answers each byte with a head and a body, as two pieces.
struct TwoPieces;

impl Handler for TwoPieces {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, _origin: Origin, _cx: &mut Context<'_>) {}

    fn input(&mut self, (): &mut (), _input: &[u8], cx: &mut Context<'_>) -> usize {
        cx.write(b"head ");
        cx.write(b"body\n");
        1
    }

    fn mail(&mut self, (): &mut (), (): (), _cx: &mut Context<'_>) {}
}

/// Calls of write(2) for ten answers, the next one asked for when the last is there; and whether the sockets have `TCP_NODELAY`.
fn writes_for_ten_answers(config: Config) -> (u64, bool) {
    let listener = listener_with(ListenOptions { write: config.policy.write, ..ListenOptions::default() });
    let nodelay = socket2::SockRef::from(&listener).tcp_nodelay().unwrap();
    let server = prepare_on(listener, ListenerWakes::All, config, TwoPieces).run();
    let mut client = server.connect();
    for _ in 0..10 {
        client.write_all(b"?").unwrap();
        let mut answer = [0; 10];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"head body\n");
    }
    let stats = Arc::clone(&server.stats);
    server.stop();
    (stats.writes.get(), nodelay)
}

#[test]
fn an_answer_is_two_writes_and_nagle_is_on_with_split_write() {
    assert_eq!(writes_for_ten_answers(config(Some("split-write"))), (20, false));
}

#[test]
fn an_answer_is_one_write_and_nagle_is_off_without() {
    assert_eq!(writes_for_ten_answers(config(None)), (10, true));
}

const MANY_BYTES: usize = 2_000_000;

/// A client with room for little, who is sent much.
fn has_a_small_receive_buffer(server: &Running<Lines>) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.address.into()).unwrap();
    let mut client: TcpStream = socket.into();
    support::patient(&client);
    client.write_all(format!("many {MANY_BYTES}\n").as_bytes()).unwrap();
    client
}

/// How much is kept for a client that reads nothing, when the loop has nothing left to do.
fn kept_for_a_client_that_does_not_read(mut config: Config) -> u64 {
    config.limits.output_rate_window = PATIENCE;
    let server = prepare(config, Lines::silent()).run();
    let _never_reads = has_a_small_receive_buffer(&server);
    until("the kernel takes no more", || server.stats.short_writes.get() > 0 && server.stats.leased_bytes.get() > 0);
    two_turns(&mut server.connect());
    server.stats.leased_bytes.get()
}

#[test]
fn all_output_is_buffered_for_a_client_that_does_not_read_with_slow_consumer() {
    let kept = kept_for_a_client_that_does_not_read(config(Some("slow-consumer")));
    assert!(kept > MANY_BYTES as u64 * 3 / 4, "{kept} bytes");
}

#[test]
fn at_most_the_high_water_mark_is_buffered_for_a_client_that_does_not_read_without() {
    let config = config(None);
    let high_water = u64::from(config.limits.output_high_water_bytes);
    assert!(kept_for_a_client_that_does_not_read(config) <= high_water);
}

/// What comes to a client that reads all that comes, until the server closes, since the client has no more to say.
fn read_by_a_client_with_a_small_receive_buffer(config: Config) -> Vec<u8> {
    let server = prepare(config, Lines::silent()).run();
    let mut client = has_a_small_receive_buffer(&server);
    // Answered by the loop when the long answer is written, as far as the loop knows. With the mistake it may be lost like any other part.
    client.write_all(b"the end\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut read = Vec::new();
    client.read_to_end(&mut read).unwrap();
    read
}

#[test]
fn a_response_has_holes_after_short_writes_with_partial_write() {
    let read = read_by_a_client_with_a_small_receive_buffer(config(Some("partial-write")));
    assert!(read.len() < MANY_BYTES, "{} bytes came", read.len());
}

#[test]
fn a_response_is_whole_after_short_writes_without() {
    let read = read_by_a_client_with_a_small_receive_buffer(config(None));
    assert!(read == [&support::pattern(MANY_BYTES)[..], b"the end\n"].concat(), "{} bytes came", read.len());
}

/// Descriptors of the server, and clients who come and stay.
const DESCRIPTORS: u64 = 64;
const WAITERS: usize = 10;

/// The server's half, in a process of its own, whose limit is lowered after its loop was made.
fn serve(mistake: Option<&str>) {
    let mut lines = Lines::silent();
    lines.goodbye = "no room\n";
    let server = prepare(config(mistake), lines).run();
    sys::set_descriptor_limit(DESCRIPTORS).unwrap();
    println!("\nlistening {}", server.address);
    for order in std::io::stdin().lines() {
        assert_eq!(order.unwrap(), "left?");
        until("all but one have left", || server.stats.connections_open.get() == 1);
        println!("\nleft yes");
    }
}

/// One client who is inside, others who took every descriptor and have left again, and those who came meanwhile.
fn at_the_limit(test: &str) -> (Server, TcpStream, Vec<TcpStream>) {
    let server = start_server(test);
    let mut inside = connect(server.address);
    ask(&mut inside, "hello");
    let holders: Vec<TcpStream> = (0..DESCRIPTORS).map(|_| connect(server.address)).collect();
    let waiters: Vec<TcpStream> = (0..WAITERS)
        .map(|_| {
            let mut waiter = connect(server.address);
            waiter.write_all(b"hello\n").unwrap();
            waiter
        })
        .collect();
    // The loop has tried to accept them, and failed, before the first descriptor is free.
    two_turns(&mut inside);
    drop(holders);
    (server, inside, waiters)
}

#[test]
fn clients_in_the_queue_hang_when_descriptors_are_free_again_with_fd_exhaustion() {
    if is_server() {
        return serve(Some("fd-exhaustion"));
    }
    let test = "clients_in_the_queue_hang_when_descriptors_are_free_again_with_fd_exhaustion";
    let (mut server, mut inside, mut waiters) = at_the_limit(test);
    server.say("left?");
    server.hear("left");
    two_turns(&mut inside);
    assert_eq!(waiters.iter_mut().map(come_so_far).sum::<usize>(), 0, "nobody is accepted, though the house is empty");
    // The next client is the next edge, and everyone comes in with it.
    ask(&mut connect(server.address), "hello");
    waiters.iter_mut().for_each(|waiter| waiter.read_exact(&mut [0; 6]).unwrap());
    drop((inside, waiters));
    assert!(server.end());
}

#[test]
fn clients_in_the_queue_are_served_or_get_503_without() {
    if is_server() {
        return serve(None);
    }
    let (server, inside, mut waiters) = at_the_limit("clients_in_the_queue_are_served_or_get_503_without");
    for waiter in &mut waiters {
        let mut answer = [0; 6];
        waiter.read_exact(&mut answer).unwrap();
        assert!(answer == *b"hello\n" || answer == *b"no roo", "{}", String::from_utf8_lossy(&answer));
    }
    drop((inside, waiters));
    assert!(server.end());
}
