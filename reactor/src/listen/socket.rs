//! Makes listening sockets, and says how several loops share one port.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use crate::os::ListenerWakes;
use crate::policy::{ListenerSharing, WritePolicy};

impl ListenerSharing {
    /// Who is told of a new connection.
    #[must_use]
    pub fn wakes(self) -> ListenerWakes {
        match self {
            // Alone with its socket, or the only loop that accepts.
            ListenerSharing::ReusePort | ListenerSharing::HandOff => ListenerWakes::All,
            ListenerSharing::Exclusive => ListenerWakes::One,
            ListenerSharing::WakeAll => ListenerWakes::All, // MISTAKE(herd): every loop that waits on the shared socket wakes for each connection, and all but one find nothing.
        }
    }
}

/// Connections that may wait in the kernel for accept(2). The kernel cuts it to `net.core.somaxconn`, 4096 since Linux 5.4; std and
/// mio ask for 128 and overflow in any burst (failure mode L3).
pub const LISTEN_BACKLOG: i32 = 4096;

/// How a listening socket is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenOptions {
    /// `SO_REUSEPORT`: each loop has a socket of its own on the same port (socket(7)).
    pub reuse_port: bool,
    /// `SO_SNDBUF` of accepted connections, in bytes, doubled by the kernel for its bookkeeping (socket(7)). It bounds what is unsent and
    /// what is not acknowledged together, also for a peer that lies about what it has received; and it turns the kernel's autotuning off, so
    /// that a connection sends no more than this in a round trip. [`crate::Limits::kernel_unsent_bytes_max`] bounds the first part alone, at no
    /// such price, and is the default.
    pub send_buffer_bytes: Option<usize>,
    /// Decides about `TCP_NODELAY`. The loop's policy has the same value.
    pub write: WritePolicy,
}

impl ListenOptions {
    /// Sets on a listening socket what the sockets accepted from it inherit.
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

/// Binds and listens. `TCP_NODELAY` is set here, since accepted sockets inherit it: no call per connection.
///
/// # Errors
/// socket(2), bind(2) with the address in the message, listen(2).
pub fn listen(address: SocketAddr, options: ListenOptions) -> io::Result<TcpListener> {
    let in_context = |what: &str, e: io::Error| io::Error::new(e.kind(), format!("{what} {address}: {e}"));
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))
        .map_err(|e| in_context("no socket for", e))?;
    // A restarted server must not wait for the TIME_WAIT of its predecessor's connections (socket(7)).
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    options.set_what_is_accepted(&socket)?;
    if address.is_ipv6() {
        // One socket, one family: `[::]` must not depend on net.ipv6.bindv6only (ipv6(7)).
        socket.set_only_v6(true)?;
    }
    socket.bind(&SockAddr::from(address)).map_err(|e| in_context("cannot bind", e))?;
    socket.listen(LISTEN_BACKLOG).map_err(|e| in_context("cannot listen on", e))?;
    Ok(socket.into())
}

// A listening socket that another process has opened: taken over, once it is known to be one.
//
// Whoever holds the socket while servers come and go keeps its queue, so a restart refuses nobody (failure mode H3).

/// Takes a listening TCP socket over. It becomes non-blocking, for whoever else holds it too (`O_NONBLOCK` belongs to the open socket, not
/// to the descriptor: fcntl(2)). What accepted sockets inherit is still to be set (`ListenOptions::set_what_is_accepted`), and
/// is not for those who are in the queue already: whoever makes the socket sets `TCP_NODELAY` on it (systemd: `NoDelay=yes`).
///
/// # Errors
/// `InvalidInput` with what it is instead: no socket, not TCP over IPv4 or IPv6, not listening; getsockopt(2), fcntl(2).
pub fn adopt(descriptor: OwnedFd) -> io::Result<TcpListener> {
    let socket = SockRef::from(&descriptor);
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
    // SO_DOMAIN, SO_TYPE, SO_PROTOCOL and SO_ACCEPTCONN: socket(7).
    let domain = socket.domain().map_err(|e| match e.raw_os_error() {
        Some(libc::ENOTSOCK) => wrong("it is no socket"),
        _ => e,
    })?;
    if domain != Domain::IPV4 && domain != Domain::IPV6 {
        return Err(wrong("it is a socket of another family than IPv4 and IPv6"));
    }
    if socket.r#type()? != Type::STREAM || socket.protocol()? != Some(Protocol::TCP) {
        return Err(wrong("it is a socket, and not TCP's"));
    }
    if !socket.is_listener()? {
        return Err(wrong("it is a TCP socket that does not listen"));
    }
    socket.set_nonblocking(true)?;
    Ok(descriptor.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::socket::ListenOptions;
    use std::net::{TcpStream, UdpSocket};
    use std::os::unix::net::UnixListener;

    use socket2::{SockAddr, Socket};

    #[test]
    fn a_listening_tcp_socket_is_taken_over() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // A machine without IPv6 has nothing to show for it.
            let Ok(original) = TcpListener::bind(address) else { continue };
            let adopted = adopt(original.try_clone().unwrap().into()).unwrap();
            assert_eq!(adopted.local_addr().unwrap(), original.local_addr().unwrap());
            assert_eq!(adopted.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
            ListenOptions::default().set_what_is_accepted(&adopted).unwrap();
            let _client = TcpStream::connect(original.local_addr().unwrap()).unwrap();
            let (accepted, _) = adopted.accept().unwrap();
            assert!(accepted.nodelay().unwrap());
        }
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        let directory = std::env::temp_dir().join(format!("inherited-{}", std::process::id()));
        let unix = UnixListener::bind(&directory).unwrap();
        std::fs::remove_file(&directory).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        bound.bind(&SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        let table: [(OwnedFd, &str); 5] = [
            (std::fs::File::open("/dev/null").unwrap().into(), "no socket"),
            (unix.into(), "another family"),
            (UdpSocket::bind("127.0.0.1:0").unwrap().into(), "not TCP's"),
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
