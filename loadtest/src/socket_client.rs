//! Clients on plain sockets: for loads that no schedule describes, such as a burst and then silence, or a connection that stays open.
//!
//! They count responses. Latency is measured by `class_load.rs`, which knows when each request was due. Read next: `kernel_sockets.rs`, `scenarios/`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reactor::os::bind_source_address;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::response::{Expect, Response, ResponseReader, Step};

/// The smallest request.
pub const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// How long a connection may take. On loopback the kernel needs microseconds, with or without the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between two reads of clients that have received nothing: far shorter than any time that is judged, and cheap on two cores.
const LOOK_PAUSE: Duration = Duration::from_micros(500);

/// Opens a connection from that source address.
///
/// # Errors
/// socket(2), bind(2), connect(2).
pub fn connect(to: SocketAddr, from: IpAddr) -> io::Result<TcpStream> {
    connect_by(Socket::new(Domain::for_address(to), Type::STREAM.cloexec(), None)?, to, from)
}

/// The same with a receive buffer of `receive_bytes`, which the kernel doubles for its overhead (SO_RCVBUF, socket(7)): a client behind a
/// slow link, or one that reads slowly.
///
/// # Errors
/// As [`connect`], and setsockopt(2).
pub fn connect_with_small_receive_buffer(to: SocketAddr, from: IpAddr, receive_bytes: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.cloexec(), None)?;
    // Before the connect: the handshake already offers the window.
    socket.set_recv_buffer_size(receive_bytes)?;
    connect_by(socket, to, from)
}

fn connect_by(socket: Socket, to: SocketAddr, from: IpAddr) -> io::Result<TcpStream> {
    bind_source_address(&socket, from)?;
    socket.connect_timeout(&SockAddr::from(to), CONNECT_TIMEOUT)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// Reads one response on a blocking connection.
///
/// # Errors
/// read(2); `UnexpectedEof` when the peer closes before the response is complete; what is wrong when it is not HTTP.
pub fn read_answer(stream: &mut TcpStream) -> io::Result<Response> {
    let (mut reader, mut input, mut piece) = (ResponseReader::default(), Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut piece)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => input.extend_from_slice(&piece[..n]),
        }
        let (used, step) = reader.read(&input, &Expect::default());
        input.drain(..used);
        match step {
            Step::NeedBytes => {}
            Step::Done(response) => return Ok(response),
            Step::Broken(why) => return Err(io::Error::other(format!("{why:?}"))),
        }
    }
}

/// A non-blocking connection, and the responses received on it.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    reader: ResponseReader,
    /// Partial input.
    input: Vec<u8>,
    /// Responses with a status below 400.
    pub served: u64,
    /// Responses with another status.
    pub refused: u64,
    /// The status of the last response.
    pub last_status: Option<u16>,
    /// When the last response was complete.
    pub last_answer: Option<Instant>,
    /// Whether the peer has closed or reset the connection.
    pub ended: bool,
}

impl Client {
    /// Opens a connection from that source address.
    ///
    /// # Errors
    /// As [`connect`].
    pub fn connect(to: SocketAddr, from: IpAddr) -> io::Result<Client> {
        let stream = connect(to, from)?;
        stream.set_nonblocking(true)?;
        Ok(Client {
            stream,
            reader: ResponseReader::default(),
            input: Vec::new(),
            served: 0,
            refused: 0,
            last_status: None,
            last_answer: None,
            ended: false,
        })
    }

    /// Sends the bytes with a single write(2).
    ///
    /// # Errors
    /// write(2), and a short write.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.stream.write(bytes)? {
            n if n == bytes.len() => Ok(()),
            n => Err(io::Error::other(format!("the socket took {n} of {} bytes", bytes.len()))),
        }
    }

    /// Disconnects as a crashed process does: the server receives a reset, not the FIN of a client that may still read (`SO_LINGER` of zero,
    /// socket(7)). No TIME_WAIT remains.
    ///
    /// # Errors
    /// setsockopt(2).
    pub fn reset(self) -> io::Result<()> {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))
    }

    /// Responses of any status.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.served + self.refused
    }

    /// Reads until EAGAIN; returns whether anything arrived.
    pub fn look(&mut self) -> bool {
        let mut piece = [0; 16 << 10];
        let mut moved = false;
        while !self.ended {
            match self.stream.read(&mut piece) {
                Ok(0) => {
                    self.ended = true;
                    // The client closes too, so that the server can free its descriptor.
                    let _ = self.stream.shutdown(Shutdown::Both);
                }
                Ok(n) => self.take(&piece[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) => self.ended = true,
            }
            moved = true;
        }
        moved
    }

    fn take(&mut self, piece: &[u8]) {
        self.input.extend_from_slice(piece);
        let mut taken = 0;
        loop {
            let (used, step) = self.reader.read(&self.input[taken..], &Expect::default());
            taken += used;
            match step {
                Step::NeedBytes => break,
                Step::Done(response) => {
                    let counter = if response.status < 400 { &mut self.served } else { &mut self.refused };
                    *counter += 1;
                    self.last_status = Some(response.status);
                    self.last_answer = Some(Instant::now());
                }
                Step::Broken(_) => {
                    self.ended = true;
                    break;
                }
            }
        }
        self.input.drain(..taken);
    }
}

/// `n` clients, each on a connection of its own, each having sent `request`.
///
/// # Errors
/// A sentence, when one could not.
pub fn ask_together(to: SocketAddr, from: IpAddr, n: usize, request: &[u8]) -> Result<Vec<Client>, String> {
    // All are connected before the first one sends, so that the requests arrive together, as far as one thread can send them.
    let mut clients =
        (0..n).map(|_| Client::connect(to, from)).collect::<io::Result<Vec<_>>>().map_err(|e| format!("a client failed: {e}"))?;
    clients.iter_mut().try_for_each(|client| client.send(request)).map_err(|e| format!("a client failed: {e}"))?;
    Ok(clients)
}

/// Reads all clients until `done` is true of each, or none has received anything for `quiet`, or `interrupted` is set.
pub fn look_at_all(clients: &mut [Client], quiet: Duration, interrupted: &AtomicBool, done: impl Fn(&Client) -> bool) {
    let mut moved_at = Instant::now();
    while !interrupted.load(Ordering::Relaxed) {
        let mut moved = false;
        for client in clients.iter_mut() {
            moved |= client.look();
        }
        if clients.iter().all(&done) {
            return;
        }
        if moved {
            moved_at = Instant::now();
        } else if moved_at.elapsed() >= quiet {
            return;
        } else {
            std::thread::sleep(LOOK_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 64, 0, 1));
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn answers_and_refusals_are_counted_however_they_are_cut_and_the_end_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut clients = [Client::connect(listener.local_addr().unwrap(), LOCAL).unwrap()];
        let (mut server, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), LOCAL);
        assert!(!clients[0].look());
        let never = AtomicBool::new(false);
        let all = [OK, BUSY, OK].concat();
        server.write_all(&all[..all.len() - 1]).unwrap();
        look_at_all(&mut clients, PATIENCE, &never, |client| client.answers() == 2);
        assert_eq!((clients[0].served, clients[0].refused), (1, 1));
        server.write_all(&all[all.len() - 1..]).unwrap();
        drop(server);
        look_at_all(&mut clients, PATIENCE, &never, |client| client.ended);
        assert_eq!((clients[0].served, clients[0].ended), (2, true));
    }

    #[test]
    fn the_last_status_is_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut clients = [Client::connect(listener.local_addr().unwrap(), LOCAL).unwrap()];
        let (mut server, _) = listener.accept().unwrap();
        for (answer, n, status) in [(OK, 1, 200), (BUSY, 2, 503)] {
            server.write_all(answer).unwrap();
            look_at_all(&mut clients, PATIENCE, &AtomicBool::new(false), |client| client.answers() == n);
            assert_eq!(clients[0].last_status, Some(status));
        }
    }

    #[test]
    fn looking_ends_when_nothing_comes_and_when_it_is_interrupted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut clients = [Client::connect(listener.local_addr().unwrap(), LOCAL).unwrap()];
        look_at_all(&mut clients, Duration::from_millis(5), &AtomicBool::new(false), |_| false);
        look_at_all(&mut clients, Duration::MAX, &AtomicBool::new(true), |_| false);
        assert_eq!(clients[0].answers(), 0);
    }
}
