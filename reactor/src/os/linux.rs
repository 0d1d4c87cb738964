//! The implementation of [`Os`] for Linux: mio over epoll(7), sockets by socket2, other system calls by libc in `sys.rs`.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Waker};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::{Event, ListenerWakes, Os, Ready, Stream, Wake, sys};
use crate::address::{Address, Connect};
use crate::listen::socket::ListenSocket;
use crate::os::descriptors::{TableShare, grow_table};
use crate::token::Token;

/// epoll and the sockets of one loop.
#[derive(Debug)]
pub struct Linux {
    poll: mio::Poll,
    events: mio::Events,
    timer: OwnedFd,
    spare: Option<OwnedFd>,
    /// The part of the descriptor table that its connections use.
    table: Option<TableShare>,
}

/// A connected stream socket, TCP or Unix. Both take the same calls.
#[derive(Debug)]
pub struct LinuxStream(Socket);

/// A listening socket, TCP or Unix.
#[derive(Debug)]
pub struct LinuxListener(Listening);

#[derive(Debug)]
enum Listening {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener),
}

impl Linux {
    /// Creates the epoll and the timer. One poll returns at most `events_per_poll_max` events.
    ///
    /// # Errors
    /// epoll_create1(2), timerfd_create(2), epoll_ctl(2): EMFILE, ENFILE, ENOMEM.
    pub fn new(events_per_poll_max: usize) -> io::Result<Linux> {
        warn_of_an_old_one();
        let poll = mio::Poll::new()?;
        let timer = sys::timer_create()?;
        // mio registers edge-triggered, so each expiry is one event, and the timer need not be read.
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), mio_token(Token::TIMER), Interest::READABLE)?;
        Ok(Linux { poll, events: mio::Events::with_capacity(events_per_poll_max), timer, spare: None, table: None })
    }

    /// Grows the descriptor table for `connections_max` connections now. The kernel would otherwise grow it while connections are accepted.
    pub(crate) fn reserve_descriptors(&mut self, connections_max: u32) {
        self.table = Some(grow_table(self.timer.as_fd(), u64::from(connections_max)));
    }
}

/// The longest timeout of one poll: a day, which is shorter than the 24 days of milliseconds that fit an int.
const POLL_TIMEOUT_MAX: Duration = Duration::from_secs(86_400);

impl LinuxListener {
    /// Takes over a listening socket, TCP or Unix, and makes it non-blocking.
    ///
    /// # Errors
    /// fcntl(2).
    pub fn new(listener: impl Into<ListenSocket>) -> io::Result<LinuxListener> {
        let listening = match listener.into() {
            ListenSocket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Listening::Tcp(mio::net::TcpListener::from_std(listener))
            }
            ListenSocket::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Listening::Unix(mio::net::UnixListener::from_std(listener))
            }
        };
        Ok(LinuxListener(listening))
    }
}

impl AsRawFd for LinuxListener {
    fn as_raw_fd(&self) -> RawFd {
        match &self.0 {
            Listening::Tcp(listener) => listener.as_raw_fd(),
            Listening::Unix(listener) => listener.as_raw_fd(),
        }
    }
}

// With a smaller usize the generation would be cut off, and later connections in a slot would not get their events.
const _: () = assert!(usize::BITS >= 64, "a token needs 64 bits, and mio stores it in a usize");

fn mio_token(token: Token) -> mio::Token {
    mio::Token(token.to_bits() as usize)
}

impl Os for Linux {
    type Stream = LinuxStream;
    type Listener = LinuxListener;
    type Handover = OwnedFd;

    #[inline]
    fn now(&mut self) -> Instant {
        Instant::now()
    }

    #[inline]
    fn poll(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        events.clear();
        // epoll_wait(2) takes an int of milliseconds. `Os::poll` may return early without events.
        match self.poll.poll(&mut self.events, timeout.map(|timeout| timeout.min(POLL_TIMEOUT_MAX))) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(e) => return Err(e),
        }
        for event in &self.events {
            let mut ready = Ready::default();
            let mut put = |on: bool, bit: Ready| {
                if on {
                    ready = ready.union(bit);
                }
            };
            put(event.is_readable(), Ready::READABLE);
            put(event.is_writable(), Ready::WRITABLE);
            put(event.is_read_closed(), Ready::READ_CLOSED);
            put(event.is_write_closed(), Ready::WRITE_CLOSED);
            put(event.is_error(), Ready::ERROR);
            put(event.is_priority(), Ready::PRIORITY);
            events.push(Event { token: Token::from_bits(event.token().0 as u64), ready });
        }
        Ok(())
    }

    fn waker(&mut self) -> io::Result<Arc<dyn Wake>> {
        Ok(Arc::new(LinuxWaker(Waker::new(self.poll.registry(), mio_token(Token::WAKER))?)))
    }

    fn set_timer(&mut self, after: Duration) -> io::Result<()> {
        sys::timer_set(self.timer.as_fd(), after)
    }

    fn register(&mut self, stream: &mut LinuxStream, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        self.poll.registry().register(&mut SourceFd(&stream.0.as_raw_fd()), mio_token(token), interest)
    }

    fn deregister(&mut self, stream: &mut LinuxStream) -> io::Result<()> {
        self.poll.registry().deregister(&mut SourceFd(&stream.0.as_raw_fd()))
    }

    fn register_listener(&mut self, listener: &mut LinuxListener, token: Token, wakes: ListenerWakes) -> io::Result<()> {
        match wakes {
            ListenerWakes::All => self.poll.registry().register(&mut SourceFd(&listener.as_raw_fd()), mio_token(token), Interest::READABLE),
            // mio does not support EPOLLEXCLUSIVE (mio issue 676), so the listener is added to mio's epoll descriptor directly.
            ListenerWakes::One => sys::epoll_add_exclusive(self.poll.as_raw_fd(), listener.as_raw_fd(), token.to_bits()),
        }
    }

    fn deregister_listener(&mut self, listener: &mut LinuxListener) -> io::Result<()> {
        self.poll.registry().deregister(&mut SourceFd(&listener.as_raw_fd()))
    }

    fn bound_unsent(&mut self, listener: &mut LinuxListener, bytes_max: u32) -> io::Result<()> {
        match &listener.0 {
            Listening::Tcp(listener) => SockRef::from(listener).set_tcp_notsent_lowat(bytes_max),
            // An option of TCP. `SO_SNDBUF` bounds what the kernel holds for a Unix socket.
            Listening::Unix(_) => Ok(()),
        }
    }

    fn accept(&mut self, listener: &mut LinuxListener) -> io::Result<(LinuxStream, Address)> {
        match &listener.0 {
            Listening::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                Ok((LinuxStream(OwnedFd::from(stream).into()), peer.into()))
            }
            Listening::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                Ok((LinuxStream(OwnedFd::from(stream).into()), Address::Unix))
            }
        }
    }

    fn connect(&mut self, connect: &Connect, unsent_bytes_max: Option<u32>) -> io::Result<LinuxStream> {
        let socket = Socket::new(Domain::for_address(connect.to), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if let Some(bytes_max) = unsent_bytes_max {
            socket.set_tcp_notsent_lowat(bytes_max)?;
        }
        if let Some(bytes) = connect.receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes as usize)?;
        }
        if let Some(from) = connect.from {
            bind_source_address(&socket, from)?;
        }
        match socket.connect(&SockAddr::from(connect.to)) {
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(e) => return Err(e),
        }
        Ok(LinuxStream(socket))
    }

    fn take_error(&mut self, stream: &mut LinuxStream) -> io::Result<Option<io::Error>> {
        stream.0.take_error()
    }

    fn unacknowledged_bytes(&mut self, stream: &mut LinuxStream) -> io::Result<u64> {
        sys::unacknowledged_bytes(&stream.0)
    }

    fn is_connected(&mut self, stream: &mut LinuxStream) -> bool {
        stream.0.peer_addr().is_ok()
    }

    fn shutdown_write(&mut self, stream: &mut LinuxStream) -> io::Result<()> {
        stream.0.shutdown(std::net::Shutdown::Write)
    }

    fn reset_at_close(&mut self, stream: &mut LinuxStream) -> io::Result<()> {
        stream.0.set_linger(Some(Duration::ZERO))
    }

    fn adopt(&mut self, descriptor: OwnedFd) -> io::Result<LinuxStream> {
        let socket = Socket::from(descriptor);
        socket.set_nonblocking(true)?;
        Ok(LinuxStream(socket))
    }

    fn release(&mut self, stream: LinuxStream) -> io::Result<OwnedFd> {
        Ok(OwnedFd::from(stream.0))
    }

    fn hold_spare(&mut self) -> bool {
        if self.spare.is_none() {
            self.spare = self.timer.try_clone().ok();
        }
        self.spare.is_some()
    }

    fn release_spare(&mut self) -> bool {
        self.spare.take().is_some()
    }
}

/// Binds a TCP socket to a source address and leaves the choice of the port to connect(2) (`IP_BIND_ADDRESS_NO_PORT`, ip(7)), which knows the
/// destination. bind(2) with port 0 would choose one of about 28,000 ports for all destinations together, and a port whose last connection
/// went to another server could not be used again at once.
///
/// # Errors
/// setsockopt(2), bind(2): EADDRNOTAVAIL when the address is not one of this machine.
pub fn bind_source_address(socket: &impl AsFd, from: IpAddr) -> io::Result<()> {
    sys::set_bind_address_no_port(socket.as_fd())?;
    SockRef::from(socket).bind(&SockAddr::from(SocketAddr::new(from, 0)))
}

impl Read for LinuxStream {
    #[inline]
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for LinuxStream {
    #[inline]
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        // Without the flag, a program that does not ignore SIGPIPE would end when a peer has disconnected (send(2)).
        self.0.send_with_flags(from, libc::MSG_NOSIGNAL)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for LinuxStream {
    fn local_addr(&self) -> io::Result<Address> {
        self.0.local_addr().and_then(|address| address_of(&address))
    }

    fn peer_addr(&self) -> io::Result<Address> {
        self.0.peer_addr().and_then(|address| address_of(&address))
    }
}

fn address_of(address: &SockAddr) -> io::Result<Address> {
    match address.as_socket() {
        Some(address) => Ok(Address::Ip(address)),
        None if address.is_unix() => Ok(Address::Unix),
        None => Err(io::Error::new(io::ErrorKind::Unsupported, "the socket is neither TCP nor Unix")),
    }
}

struct LinuxWaker(Waker);

impl Wake for LinuxWaker {
    fn wake(&self) -> io::Result<()> {
        self.0.wake()
    }
}

// The oldest kernel that is supported, and a warning when this one is older.

/// Linux 4.5, which introduced `EPOLLEXCLUSIVE` (epoll_ctl(2)). The other system calls of the loop are older.
const OLDEST: (u32, u32) = (4, 5);

/// Logs a warning, once per process, when the kernel is older than [`OLDEST`]. It is not an error, because a sandbox that emulates Linux may report
/// an old version and still support the calls. A call that is missing returns an error itself.
fn warn_of_an_old_one() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok(release) = sys::kernel_release() else { return };
        if version(&release).is_some_and(|version| version < OLDEST) {
            log::warn!("this kernel is Linux {release}; {}.{} or newer is supported", OLDEST.0, OLDEST.1);
        }
    });
}

/// The major and minor version: (6, 1) for `6.1.0-18-amd64`. `None` if the text does not begin with two numbers.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{OLDEST, version};
    use crate::os::sys;

    #[test]
    fn a_kernel_is_older_by_its_numbers_and_not_by_its_letters() {
        for (release, is_older) in
            [("4.4.0", true), ("3.10.0-1160.el7.x86_64", true), ("4.5-rc1", false), ("4.19.0", false), ("10.0", false)]
        {
            assert_eq!(version(release).map(|version| version < OLDEST), Some(is_older), "{release}");
        }
        for release in ["", "unknown", "6"] {
            assert_eq!(version(release), None, "{release}");
        }
    }

    #[test]
    fn this_kernel_says_what_it_is() {
        assert!(version(&sys::kernel_release().unwrap()).is_some());
    }
}
