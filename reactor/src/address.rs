//! The address of one end of a connection ([`Address`]), and an outbound connection to begin ([`Connect`]).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The address of one end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP: an IP address and a port.
    Ip(SocketAddr),
    /// A Unix socket (unix(7)). It has no IP address. The socket of a client usually has no name either, so all clients of a Unix listener
    /// look the same: limits and logs by source address cannot tell them apart. The path is that of the listener
    /// ([`Origin::Accepted`](crate::Origin::Accepted) names it by its index).
    Unix,
}

impl Address {
    /// The IP address. `None` for a Unix socket.
    #[must_use]
    pub fn ip(self) -> Option<IpAddr> {
        self.socket_addr().map(|address| address.ip())
    }

    /// The IP address and the port. `None` for a Unix socket.
    #[must_use]
    pub fn socket_addr(self) -> Option<SocketAddr> {
        match self {
            Address::Ip(address) => Some(address),
            Address::Unix => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Ip(address)
    }
}

/// `192.0.2.1:80`, `[2001:db8::1]:80`, or `unix`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Unix => f.write_str("unix"),
        }
    }
}

// A connection that is handed to another loop carries it, and so does each accept.
const _: () = assert!(size_of::<Address>() == size_of::<SocketAddr>());

/// An outbound connection to begin, see [`LoopContext::connect`](crate::LoopContext::connect). [`Connect::new`] makes one, and the other fields
/// can be set afterwards:
///
/// ```
/// use std::net::{IpAddr, Ipv4Addr, SocketAddr};
/// use std::time::Duration;
/// use reactor::Connect;
///
/// let upstream = SocketAddr::from(([127, 0, 0, 1], 8080));
/// let mut connect = Connect::new(upstream, 7, Duration::from_secs(2));
/// connect.from = Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connect {
    /// The peer's address.
    pub to: SocketAddr,
    /// The source address, or `None` for the kernel's choice. The kernel chooses the port at connect(2)
    /// ([`bind_source_address`](crate::os::bind_source_address)).
    pub from: Option<IpAddr>,
    /// A number for the caller's use. It is passed to [`crate::Origin::Connected`] or [`crate::Handler::connect_failed`].
    pub tag: u64,
    /// Time after which the attempt fails with `TimedOut`. `Duration::MAX` leaves it to the kernel, which tries for about two minutes
    /// (`tcp_syn_retries`, tcp(7)).
    pub timeout: Duration,
    /// `SO_RCVBUF` in bytes, which the kernel doubles for its bookkeeping (socket(7)): a peer sends no more than this ahead of a handler that
    /// does not read. Set before the handshake, which announces the window. `None` leaves it to the kernel's autotuning.
    pub receive_buffer_bytes: Option<u32>,
}

impl Connect {
    /// A connection to `to`, with the kernel's choice of source address and buffers. `tag` is passed to the callback that reports the result,
    /// and `timeout` limits the attempt.
    #[must_use]
    pub fn new(to: SocketAddr, tag: u64, timeout: Duration) -> Connect {
        Connect { to, from: None, tag, timeout, receive_buffer_bytes: None }
    }
}
