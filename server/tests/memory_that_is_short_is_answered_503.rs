//! When buffer memory is short, the server's own limit is the reason: a request that is evicted for it gets 503 with Retry-After. Clients that
//! never read do not cause this for clients that send and read, and not for the probes of the admin port.

mod process;
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use process::{PATIENCE, sample};
use reactor::BufferOwner;
use socket2::{Domain, Socket, Type};
use support::{Server, Setup, until};

const HEAD_BEGUN: &str = "GET /healthz HTTP/1.1\r\nHost: x\r\n";

fn small_memory() -> Setup {
    let mut setup = Setup::default();
    let limits = &mut setup.reactor.limits;
    limits.buffer_bytes_max = 4096;
    limits.output_high_water_bytes = 4096;
    limits.output_low_water_bytes = 1024;
    limits.buffer_memory_bytes_max = 4 * 4096;
    setup.http.limits.head_bytes_max = 4096;
    setup.http.limits.target_bytes_max = 4096;
    setup
}

#[test]
fn a_request_whose_input_was_evicted_gets_503_and_a_time_to_come_back() {
    let setup = small_memory();
    let leases = (setup.reactor.limits.buffer_memory_bytes_max / setup.reactor.limits.buffer_bytes_min as usize) as u64;
    let server = Server::start(server::demo::routes(None), setup);
    let mut slow = Vec::new();
    for n in 1..=leases + 1 {
        let mut client = server.connect();
        client.send(HEAD_BEGUN);
        until("the head's beginning is read", || server.stats.bytes_read.get() == n * HEAD_BEGUN.len() as u64);
        slow.push(client);
    }
    let response = slow.remove(0).response();
    assert_eq!((response.status, response.header("Connection")), (503, Some("close")));
    assert!(response.header("Retry-After").is_some_and(|seconds| seconds.parse::<u32>().is_ok_and(|seconds| seconds >= 1)));
    assert_eq!(server.stats.evictions(BufferOwner::Input).get(), 1);
    // The others keep what they had.
    for mut client in slow {
        client.send("\r\n");
        assert_eq!(client.response().status, 200);
    }
    server.is_at_rest();
}

#[test]
fn a_head_that_has_just_begun_leases_the_smallest_buffer() {
    let server = Server::routes();
    let mut slow: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for client in &mut slow {
        client.send("GET ");
    }
    until("all are read", || server.stats.bytes_read.get() == 50 * 4);
    until("all are kept", || server.stats.leased_bytes.get() == 50 * (1 << 10));
}

/// A client with a small receive buffer that asks and does not read.
fn never_reads(to: SocketAddr, request: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("it works on loopback");
    socket.connect(&to.into()).expect("it accepts");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.write_all(request.as_bytes()).expect("the request fits the socket");
    stream
}

/// A request in two pieces, the second of them when the first has been read and kept; the status.
fn split(to: SocketAddr, target: &str, is_kept: impl FnOnce()) -> (u16, usize) {
    let mut stream = TcpStream::connect(to).expect("it accepts");
    stream.set_nodelay(true).expect("nodelay");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let (first, second) = request.split_at(20);
    stream.write_all(first.as_bytes()).expect("sent");
    is_kept();
    stream.write_all(second.as_bytes()).expect("sent");
    let mut response = Vec::new();
    stream.read_to_end(&mut response).expect("a whole response");
    let status = String::from_utf8_lossy(&response[9..12]).parse().expect("a status");
    let head = response.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    (status, response.len() - head)
}

#[test]
fn newcomers_are_served_next_to_clients_that_never_read() {
    let mut setup = Setup::default();
    setup.reactor.limits.buffer_memory_bytes_max = 16 * (64 << 10);
    let server = Server::start(server::demo::routes(None), setup);
    // Ten times as much pending output as there is memory for.
    let request = "GET /bytes?n=1000000000 HTTP/1.1\r\nHost: x\r\n\r\n";
    let stuck: Vec<TcpStream> = (0..160).map(|_| never_reads(server.address, request)).collect();
    // All of them, so that from now on what is read is a newcomer's.
    until("their requests are read", || server.stats.bytes_read.get() == 160 * request.len() as u64);
    until("the memory is full", || server.stats.evictions(BufferOwner::Output).get() >= 80);
    for n in 0..100 {
        let before = server.stats.bytes_read.get();
        let is_kept = || until("the first piece is read", || server.stats.bytes_read.get() == before + 20);
        assert_eq!(split(server.address, "/bytes?n=1000000", is_kept), (200, 1_000_000), "newcomer {n}");
    }
    assert_eq!(server.stats.evictions(BufferOwner::Input).get(), 0);
    drop(stuck);
    server.is_at_rest();
}

#[test]
fn probes_are_answered_while_slow_readers_hold_the_admin_ports_memory() {
    let server = process::Server::start(&["--loops", "1"]);
    // Each of them asks for more than both sockets hold.
    let pages = "GET /debug/state HTTP/1.1\r\nHost: x\r\n\r\n".repeat(300);
    let stuck: Vec<TcpStream> = (0..40).map(|_| never_reads(server.admin, &pages)).collect();
    for n in 0..50 {
        let is_kept = || std::thread::yield_now();
        assert_eq!(split(server.admin, "/readyz", is_kept).0, 200, "probe {n}");
        assert_eq!(process::get(server.admin, "/healthz").status, 200, "probe {n}");
    }
    assert!(sample(server.admin, "server_draining") == 0.0, "the page of metrics is whole");
    drop(stuck);
}
