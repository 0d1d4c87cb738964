//! One client connection that never blocks.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use loadtest::response::{Expect, ResponseReader, Step};
use reactor::os::bind_source_address;
use socket2::{Domain, SockAddr, Socket, Type};

pub(crate) const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
pub(crate) const LAST_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// What a look at a connection found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing, or not enough.
    Nothing,
    /// A whole response with this status.
    Answer(u16),
    /// The end, before an answer.
    End,
}

/// A socket, what of its request is still to be sent, and what has arrived.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    reader: ResponseReader,
    input: Vec<u8>,
    unsent: &'static [u8],
}

impl Client {
    /// Begins to connect, from 127.0.0.`source`: a source address has 28,232 ports by default.
    ///
    /// # Errors
    /// socket(2), bind(2), connect(2).
    pub(crate) fn connect(to: SocketAddr, source: u8) -> io::Result<Client> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking().cloexec(), None)?;
        socket.set_tcp_nodelay(true)?;
        bind_source_address(&socket, Ipv4Addr::new(127, 0, 0, source).into())?;
        match socket.connect(&SockAddr::from(to)) {
            Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => return Err(e),
            _ => {}
        }
        Ok(Client { stream: socket.into(), reader: ResponseReader::default(), input: Vec::new(), unsent: &[] })
    }

    /// Closes by a reset: no FIN, and no TIME_WAIT that would keep the port for a minute.
    ///
    /// # Errors
    /// setsockopt(2).
    pub(crate) fn reset_at_close(&self) -> io::Result<()> {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))
    }

    /// The socket alone, when no answer is outstanding.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Sends a request; the rest goes with the next look.
    ///
    /// # Errors
    /// write(2), but not that the kernel takes nothing yet.
    pub(crate) fn send(&mut self, request: &'static [u8]) -> io::Result<()> {
        self.unsent = request;
        self.send_rest()
    }

    fn send_rest(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(self.unsent) {
                Ok(n) => self.unsent = &self.unsent[n..],
                // Not connected yet.
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Sends what is left and reads what has arrived.
    pub(crate) fn look(&mut self) -> Found {
        // An answer may lie before the error of the write: a refusal that is sent before the request is read.
        let sent = self.send_rest();
        let mut piece = [0; 4096];
        match self.stream.read(&mut piece) {
            Ok(0) => return Found::End,
            Ok(n) => self.input.extend_from_slice(&piece[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) && sent.is_ok() => return Found::Nothing,
            Err(_) => return Found::End,
        }
        let (used, step) = self.reader.read(&self.input, &Expect::default());
        self.input.drain(..used);
        match step {
            Step::NeedBytes => Found::Nothing,
            Step::Done(response) => Found::Answer(response.status),
            Step::Broken(_) => Found::End,
        }
    }

    /// Looks until something is found, for at most `patience`.
    pub(crate) fn wait(&mut self, patience: Duration) -> Found {
        let until = Instant::now() + patience;
        loop {
            match self.look() {
                Found::Nothing if Instant::now() < until => {}
                found => return found,
            }
        }
    }
}

/// Opens `n` connections and has each served one request, a hundred at a time.
///
/// # Errors
/// A connection cannot be made, or one is not answered 200 within ten seconds.
pub(crate) fn open_served(to: SocketAddr, n: usize) -> io::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(n);
    while clients.len() < n {
        let from = clients.len();
        for _ in 0..(n - from).min(100) {
            let mut client = Client::connect(to, 2)?;
            client.send(REQUEST)?;
            clients.push(client);
        }
        for client in &mut clients[from..] {
            match client.wait(Duration::from_secs(10)) {
                Found::Answer(200) => {}
                other => return Err(io::Error::other(format!("connection {from} or one after it got {other:?}"))),
            }
        }
    }
    Ok(clients)
}
