//! Makes listening sockets, and says how several loops share one port.
//!
//! Read next: `accept.rs`, which empties them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;

use crate::os::ListenerWakes;
use crate::policy::WritePolicy;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

/// How several loops share one listening port. Default chosen from the table in docs/numbers.md.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListenerSharing {
    /// A socket for each loop (`SO_REUSEPORT`, socket(7)): the kernel spreads by a hash of the addresses.
    #[default]
    ReusePort,
    /// One socket in every loop's epoll, one of them woken (`EPOLLEXCLUSIVE`).
    Exclusive,
    /// One loop accepts and hands each connection to the loop that has the fewest.
    HandOff,
    /// One socket in every loop's epoll, all of them woken.
    WakeAll,
}

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
