//! The address of one end of a connection: an IP address and a port, or a Unix socket.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

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
