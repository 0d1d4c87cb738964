//! Listening sockets: how loops share a port, how a TCP socket is made ([`listen`]), and how a socket of another process is taken over
//! ([`adopt`]). Unix sockets are made in [`unix`](crate::listen::unix).

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::str::FromStr;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use crate::os::ListenerWakes;
use crate::policy::{ListenerSharing, WritePolicy};

impl ListenerSharing {
    /// Which of the loops that wait on the socket the kernel wakes for a new connection.
    #[must_use]
    pub fn wakes(self) -> ListenerWakes {
        match self {
            // One loop waits on the socket.
            ListenerSharing::ReusePort | ListenerSharing::HandOff => ListenerWakes::All,
            ListenerSharing::Exclusive => ListenerWakes::One,
            ListenerSharing::WakeAll => ListenerWakes::All, // MISTAKE(herd): every loop that waits on the shared socket wakes for each connection, and all but one find nothing.
        }
    }
}

/// Where a server listens: an IP address and a port, or `unix:` and a path. [`FromStr`] and [`Display`](fmt::Display) are inverse.
///
/// ```
/// use reactor::listen::socket::ListenAddress;
///
/// let address: ListenAddress = "unix:/run/greeter/http.sock".parse()?;
/// assert_eq!(address.to_string(), "unix:/run/greeter/http.sock");
/// assert!("localhost:http".parse::<ListenAddress>().is_err(), "names are not looked up");
/// # Ok::<(), reactor::listen::socket::ListenAddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// TCP.
    Ip(SocketAddr),
    /// A path, or `@` and an abstract name ([`listen_unix`](crate::listen::unix::listen_unix)).
    Unix(PathBuf),
}

/// A text that is no [`ListenAddress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddressError;

impl fmt::Display for ListenAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected an IP address and a port, for example 127.0.0.1:8080 or [::]:8080, or unix:/path/to/socket")
    }
}

impl std::error::Error for ListenAddressError {}

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<ListenAddress, ListenAddressError> {
        match text.strip_prefix("unix:") {
            Some("" | "@") => Err(ListenAddressError),
            Some(path) => Ok(ListenAddress::Unix(path.into())),
            None => text.parse().map(ListenAddress::Ip).map_err(|_| ListenAddressError),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Ip(address) => address.fmt(f),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> ListenAddress {
        ListenAddress::Ip(address)
    }
}

/// A listening socket, TCP or Unix.
#[derive(Debug)]
pub enum ListenSocket {
    /// TCP, made by [`listen`].
    Tcp(TcpListener),
    /// A Unix socket, made by [`listen_unix`](crate::listen::unix::listen_unix).
    Unix(UnixListener),
}

impl ListenSocket {
    /// Where it listens: with port 0 in [`listen`], the port that the kernel chose.
    ///
    /// # Errors
    /// getsockname(2).
    pub fn address(&self) -> io::Result<ListenAddress> {
        match self {
            ListenSocket::Tcp(listener) => listener.local_addr().map(ListenAddress::Ip),
            ListenSocket::Unix(listener) => {
                let address = listener.local_addr()?;
                let path = match (address.as_pathname(), address.as_abstract_name()) {
                    (Some(path), _) => path.to_owned(),
                    (None, name) => OsStr::from_bytes(&[b"@", name.unwrap_or_default()].concat()).into(),
                };
                Ok(ListenAddress::Unix(path))
            }
        }
    }

    /// Another descriptor of the same socket, for another loop.
    ///
    /// # Errors
    /// fcntl(2): EMFILE.
    pub fn try_clone(&self) -> io::Result<ListenSocket> {
        match self {
            ListenSocket::Tcp(listener) => listener.try_clone().map(ListenSocket::Tcp),
            ListenSocket::Unix(listener) => listener.try_clone().map(ListenSocket::Unix),
        }
    }
}

impl From<TcpListener> for ListenSocket {
    fn from(listener: TcpListener) -> ListenSocket {
        ListenSocket::Tcp(listener)
    }
}

impl From<UnixListener> for ListenSocket {
    fn from(listener: UnixListener) -> ListenSocket {
        ListenSocket::Unix(listener)
    }
}

/// Length of the kernel's queue of connections before accept(2). The kernel limits it to `net.core.somaxconn`, 4096 since Linux 5.4. std
/// and mio ask for 128, which a burst overflows; a client whose SYN is dropped retries after a second.
pub const LISTEN_BACKLOG: i32 = 4096;

/// Options of a listening socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenOptions {
    /// `SO_REUSEPORT`: each loop has a socket of its own on the same port (socket(7)).
    pub reuse_port: bool,
    /// `SO_SNDBUF` of accepted connections, in bytes; the kernel doubles it for its bookkeeping (socket(7)). It bounds unsent and
    /// unacknowledged output together, also for a peer that acknowledges falsely. It turns the kernel's autotuning off, so a connection
    /// sends at most this much in a round trip. [`crate::Limits::kernel_unsent_bytes_max`], which is set by default, bounds unsent output
    /// only and leaves autotuning on.
    pub send_buffer_bytes: Option<usize>,
    /// Whether `TCP_NODELAY` is set. Must be the same as in the loop's policy.
    pub write: WritePolicy,
    /// `IPV6_V6ONLY`: whether `[::]` accepts IPv6 only. If not, it accepts IPv4 too, and those clients have IPv4-mapped addresses
    /// (`::ffff:192.0.2.1`). Always set, so that the meaning of `[::]` does not depend on `net.ipv6.bindv6only` (ipv6(7)).
    pub ipv6_only: bool,
}

impl ListenOptions {
    /// Sets the options of a listening socket that accepted sockets inherit.
    ///
    /// # Errors
    /// setsockopt(2).
    pub fn set_what_is_accepted(&self, socket: &impl AsFd) -> io::Result<()> {
        let socket = SockRef::from(socket);
        if let Some(bytes) = self.send_buffer_bytes {
            socket.set_send_buffer_size(bytes)?;
        }
        socket.set_tcp_nodelay(self.write.nodelay())
    }
}

/// Makes a non-blocking listening socket. `TCP_NODELAY` is set here: accepted sockets inherit it, so there is no call per connection.
///
/// # Errors
/// socket(2), bind(2) with the address in the message, listen(2).
pub fn listen(address: SocketAddr, options: ListenOptions) -> io::Result<TcpListener> {
    let socket = bind(address, options)?;
    socket.listen(LISTEN_BACKLOG).map_err(|e| in_context("cannot listen on", address, &e))?;
    Ok(socket.into())
}

/// Checks that the address can be bound, without listening: while this runs no client can connect, so none is reset at its end. Test:
/// `a_check_of_an_address_accepts_no_client`.
///
/// # Errors
/// socket(2), bind(2) with the address in the message: `AddrInUse` while another socket listens there.
pub fn check_free(address: SocketAddr, options: ListenOptions) -> io::Result<()> {
    bind(address, options).map(drop)
}

fn bind(address: SocketAddr, options: ListenOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))
        .map_err(|e| in_context("no socket for", address, &e))?;
    // A restarted server must not wait until its predecessor's connections leave TIME_WAIT (socket(7)).
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    options.set_what_is_accepted(&socket)?;
    if address.is_ipv6() {
        socket.set_only_v6(options.ipv6_only)?;
    }
    socket.bind(&SockAddr::from(address)).map_err(|e| in_context("cannot bind", address, &e))?;
    Ok(socket)
}

fn in_context(what: &str, address: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {address}: {error}"))
}

/// Takes over a listening socket, TCP or Unix, that another process has opened. While that process (systemd, say) holds the socket, its queue
/// survives a restart of the server, so no queued client is reset. Test: `an_inherited_queue_is_left_to_the_next_loop`.
///
/// The socket becomes non-blocking for other processes that hold it too, because `O_NONBLOCK` belongs to the open file description and not
/// to the descriptor (fcntl(2)). The caller then sets the inherited options of a TCP socket ([`ListenOptions::set_what_is_accepted`]). They do not reach
/// connections that are in the queue already, so the process that makes the socket should set `TCP_NODELAY` (systemd: `NoDelay=yes`).
///
/// # Errors
/// `InvalidInput` with a description of the descriptor: no socket, neither TCP over IPv4 or IPv6 nor a Unix stream socket, not listening;
/// getsockopt(2), fcntl(2).
pub fn adopt(descriptor: OwnedFd) -> io::Result<ListenSocket> {
    let socket = SockRef::from(&descriptor);
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
    // SO_DOMAIN, SO_TYPE, SO_PROTOCOL and SO_ACCEPTCONN: socket(7).
    let domain = socket.domain().map_err(|e| match e.raw_os_error() {
        Some(libc::ENOTSOCK) => wrong("it is no socket"),
        _ => e,
    })?;
    let is_unix = domain == Domain::UNIX;
    if !is_unix && domain != Domain::IPV4 && domain != Domain::IPV6 {
        return Err(wrong("it is a socket of another family than IPv4, IPv6 and Unix"));
    }
    if socket.r#type()? != Type::STREAM || (!is_unix && socket.protocol()? != Some(Protocol::TCP)) {
        return Err(wrong("it is a socket, but not a TCP socket or a Unix stream socket"));
    }
    if !socket.is_listener()? {
        return Err(wrong("it is a socket that does not listen"));
    }
    socket.set_nonblocking(true)?;
    Ok(if is_unix { ListenSocket::Unix(descriptor.into()) } else { ListenSocket::Tcp(descriptor.into()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::socket::ListenOptions;
    use std::net::{TcpStream, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use socket2::{SockAddr, Socket};

    #[test]
    fn a_listening_tcp_socket_is_taken_over() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // A machine without IPv6 skips the second address.
            let Ok(original) = TcpListener::bind(address) else { continue };
            let ListenSocket::Tcp(adopted) = adopt(original.try_clone().unwrap().into()).unwrap() else { panic!("it is TCP") };
            assert_eq!(adopted.local_addr().unwrap(), original.local_addr().unwrap());
            assert_eq!(adopted.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
            ListenOptions::default().set_what_is_accepted(&adopted).unwrap();
            let _client = TcpStream::connect(original.local_addr().unwrap()).unwrap();
            let (accepted, _) = adopted.accept().unwrap();
            assert!(accepted.nodelay().unwrap());
        }
    }

    #[test]
    fn a_listening_unix_socket_is_taken_over() {
        let path = std::env::temp_dir().join(format!("inherited-{}", std::process::id()));
        let original = UnixListener::bind(&path).unwrap();
        let ListenSocket::Unix(adopted) = adopt(original.try_clone().unwrap().into()).unwrap() else { panic!("it is a Unix socket") };
        assert_eq!(adopted.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let _client = UnixStream::connect(&path).unwrap();
        adopted.accept().unwrap();
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_check_of_an_address_accepts_no_client() {
        let address = listen("127.0.0.1:0".parse().unwrap(), ListenOptions::default()).unwrap().local_addr().unwrap();
        // What `check_free` does, held open: a client that comes in between is refused, not accepted and then reset.
        let bound = bind(address, ListenOptions::default()).unwrap();
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        drop(bound);
        let _held = listen(address, ListenOptions::default()).unwrap();
        assert_eq!(check_free(address, ListenOptions::default()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        // Also when the other socket shares its port: it would get a part of the clients.
        let shared = ListenOptions { reuse_port: true, ..ListenOptions::default() };
        let other = listen("127.0.0.2:0".parse().unwrap(), shared).unwrap();
        assert!(check_free(other.local_addr().unwrap(), ListenOptions::default()).is_err());
    }

    #[test]
    fn the_unspecified_ipv6_address_accepts_ipv4_unless_it_is_for_ipv6_only() {
        for ipv6_only in [false, true] {
            // A machine without IPv6 skips this.
            let Ok(socket) = listen("[::]:0".parse().unwrap(), ListenOptions { ipv6_only, ..ListenOptions::default() }) else { continue };
            let port = socket.local_addr().unwrap().port();
            assert_eq!(TcpStream::connect(("127.0.0.1", port)).is_ok(), !ipv6_only);
            assert!(TcpStream::connect(("::1", port)).is_ok());
        }
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        bound.bind(&SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        let table: [(OwnedFd, &str); 6] = [
            (std::fs::File::open("/dev/null").unwrap().into(), "no socket"),
            (Socket::new(Domain::from(libc::AF_NETLINK), Type::DGRAM, None).unwrap().into(), "another family"),
            (UdpSocket::bind("127.0.0.1:0").unwrap().into(), "not a TCP socket"),
            (UnixDatagram::unbound().unwrap().into(), "not a TCP socket"),
            (connected.into(), "does not listen"),
            (bound.into(), "does not listen"),
        ];
        for (descriptor, needle) in table {
            let error = adopt(descriptor).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(needle), "{error} does not say {needle}");
        }
    }
}
