//! A body that is streamed back: whatever its pieces, whoever reads first; and backpressure in both directions.

mod support;

use std::cell::RefCell;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use proptest::prelude::*;
use reactor::listen::socket::ListenOptions;
use support::{Client, Server, Setup, get, until};

/// Numbered, so that a lost, doubled or moved byte shows.
fn body(bytes: usize) -> Vec<u8> {
    (0..bytes.div_ceil(4) as u32).flat_map(u32::to_le_bytes).take(bytes).collect()
}

/// The chunked form, in chunks of these sizes again and again.
fn chunked(body: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut rest = body;
    for &size in sizes.iter().cycle() {
        let (piece, after) = rest.split_at(size.clamp(1, rest.len().max(1)).min(rest.len()));
        if piece.is_empty() {
            break;
        }
        write!(wire, "{:x}\r\n", piece.len()).expect("a vector takes it");
        wire.extend_from_slice(piece);
        wire.extend_from_slice(b"\r\n");
        rest = after;
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

fn send_in_pieces(mut stream: TcpStream, wire: &[u8], sizes: &[usize]) {
    let mut rest = wire;
    for &size in sizes.iter().cycle() {
        if rest.is_empty() {
            return;
        }
        let (piece, after) = rest.split_at(size.clamp(1, rest.len()));
        stream.write_all(piece).expect("send");
        rest = after;
    }
}

/// Sends on one thread and reads on this one.
fn echo(client: &mut Client, head: &str, wire: &[u8], send_sizes: &[usize]) -> Vec<u8> {
    let stream = client.stream.try_clone().expect("a second handle");
    client.send(head);
    std::thread::scope(|scope| {
        scope.spawn(|| send_in_pieces(stream, wire, send_sizes));
        client.response().body
    })
}

const CHUNKED: &str = "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn whatever_the_pieces() {
    let server = Server::routes();
    let client = RefCell::new(server.connect());
    let sizes = || prop::collection::vec(prop_oneof![1_usize..20, 1_usize..5_000, 1_usize..100_000], 1..6);
    let cases = (0_usize..200_000, sizes(), sizes());
    // Hundreds of requests on one connection: what one leaves behind, the next one finds.
    let config = ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |((bytes, chunk_sizes, send_sizes) in cases)| {
        // A byte a packet is for small bodies.
        let bytes = if chunk_sizes.iter().chain(&send_sizes).all(|&size| size < 20) { bytes % 2_000 } else { bytes };
        let sent = body(bytes);
        let client = &mut *client.borrow_mut();
        let back = echo(client, CHUNKED, &chunked(&sent, &chunk_sizes), &send_sizes);
        prop_assert!(back == sent, "chunked");
        let head = format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {bytes}\r\n\r\n");
        let back = echo(client, &head, &sent, &send_sizes);
        prop_assert!(back == sent, "of known length");
    });
    drop(client);
    server.is_at_rest();
}

#[test]
fn a_client_that_writes_all_before_it_reads_gets_all() {
    let server = Server::routes();
    let mut client = server.connect();
    // As much as the kernel holds for both directions of one connection on loopback, with room to spare.
    let sent = body(512 << 10);
    for _ in 0..5 {
        client.send(CHUNKED);
        client.send(chunked(&sent, &[10_000]));
        assert!(client.response().body == sent);
    }
}

#[test]
fn a_client_that_never_reads_is_not_read_from_and_goes_after_the_stall_timeout() {
    let mut setup = Setup::default();
    setup.http.limits.body_bytes_max = 1 << 40;
    setup.reactor.limits.output_rate_window = Duration::from_millis(300);
    setup.listen = ListenOptions { send_buffer_bytes: Some(64 << 10), ..ListenOptions::default() };
    let server = Server::start(server::demo::routes(None), setup);
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 1099511627776\r\n\r\n");
    let piece = body(64 << 10);
    let mut sent_bytes = 0;
    // Until the server closes: it has stopped reading long before.
    while let Ok(n) = client.stream.write(&piece) {
        sent_bytes += n;
        assert!(sent_bytes < 1 << 30, "a client that does not read is read from without end");
    }
    until("it is closed as stalled", || server.stats.closes(reactor::CloseReason::WriteStalled).get() == 1);
    // Each byte is either on its way back in the kernel, or in the one lease, or held by the route.
    let (read, written) = (server.stats.bytes_read.get(), server.stats.bytes_written.get());
    assert!(read < written + (64 << 10) + (16 << 10) + (64 << 10), "{read} read, {written} written");
    server.is_at_rest();
    server.serves();
}

#[test]
fn a_reader_that_takes_one_byte_at_a_time_gets_every_byte() {
    use std::io::Read;
    let server = Server::routes();
    let mut client = server.connect();
    client.send([get("/"), get("/bytes?n=30000"), get("/")].concat());
    let mut received = Vec::new();
    let mut byte = [0];
    while !received.ends_with(b"Hello, World!") || received.len() < 30_000 {
        client.stream.read_exact(&mut byte).expect("a byte");
        received.push(byte[0]);
    }
    client.received = received;
    assert_eq!(client.response().text(), "Hello, World!");
    let pattern = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-\n";
    let expected: Vec<u8> = pattern.iter().copied().cycle().take(30_000).collect();
    assert!(client.response().body == expected);
    assert_eq!(client.response().text(), "Hello, World!");
}

#[test]
fn a_slow_reader_of_100_mb_costs_one_buffer() {
    use std::io::Read;
    let listen = ListenOptions { send_buffer_bytes: Some(128 << 10), ..ListenOptions::default() };
    let setup = Setup { listen, ..Setup::default() };
    let server = Server::start(server::demo::routes(None), setup.clone());
    let mut client = server.connect();
    client.send(get("/bytes?n=100000000"));
    let mut piece = vec![0; 16 << 10];
    client.head();
    let mut received = client.received.len();
    // Nothing more is read until the kernel's buffers are full and the server has to keep what they do not take.
    until("100 MB are more than the kernel keeps", || server.stats.leased_bytes.get() > 0);
    let mut leased_max = server.stats.leased_bytes.get();
    while received < 100_000_000 {
        received += client.stream.read(&mut piece).expect("more");
        leased_max = leased_max.max(server.stats.leased_bytes.get());
    }
    assert_eq!(received, 100_000_000);
    assert!(leased_max <= u64::from(setup.reactor.limits.buffer_bytes_max), "{leased_max}");
    drop(client);
    server.is_at_rest();
}
