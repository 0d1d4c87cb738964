//! How the loops come to their connections: sockets of their own, or one that they share.
//!
//! Read next: `reactor::listen::socket`, the ways to share.

use std::io;
use std::net::SocketAddr;

use reactor::listen::socket::{ListenAddress, ListenOptions, ListenSocket, listen};
use reactor::listen::unix::{UnixListenOptions, listen_unix};
use reactor::policy::ListenerSharing;
use reactor::{ListenerWakes, Policy};

/// The service's listening sockets.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// The first loop's socket.
    pub(crate) first: ListenSocket,
    /// Those of the others, one for each; none when the first hands over.
    pub(crate) others: Vec<ListenSocket>,
    pub(crate) wakes: ListenerWakes,
    pub(crate) hand_off: bool,
    /// Another process holds the socket too.
    pub(crate) inherited: bool,
}

impl Listeners {
    /// Binds and listens.
    ///
    /// # Errors
    /// As [`listen`] and [`listen_unix`].
    pub(crate) fn bind(address: &ListenAddress, loops: u32, policy: Policy) -> io::Result<Listeners> {
        match address {
            ListenAddress::Ip(address) => Listeners::bind_tcp(*address, loops, policy),
            ListenAddress::Unix(path) => {
                let socket = listen_unix(path, UnixListenOptions::default())?;
                Listeners::share(socket.into(), loops, policy.sharing, false)
            }
        }
    }

    fn bind_tcp(address: SocketAddr, loops: u32, Policy { sharing, write, .. }: Policy) -> io::Result<Listeners> {
        let reuse_port = sharing == ListenerSharing::ReusePort && loops > 1;
        if !reuse_port {
            let first = listen(address, ListenOptions { write, ..ListenOptions::default() })?;
            return Listeners::share(first.into(), loops, sharing, false);
        }
        if address.port() != 0 {
            // SO_REUSEPORT would let a second server of the same user in, and each would get a part of the clients. So the port is first
            // taken for ourselves alone: who uses it is found out now.
            drop(listen(address, ListenOptions::default())?);
        }
        let options = ListenOptions { reuse_port, write, ..ListenOptions::default() };
        let first = listen(address, options)?;
        // Port 0 was asked for once; the others take the port that it became.
        let address = first.local_addr()?;
        let others = (1..loops).map(|_| listen(address, options).map(Into::into)).collect::<io::Result<_>>()?;
        Ok(Listeners { first: first.into(), others, wakes: sharing.wakes(), hand_off: false, inherited: false })
    }

    /// Shares a socket that is there already.
    ///
    /// # Errors
    /// setsockopt(2); fcntl(2): no descriptor is left.
    pub(crate) fn inherit(first: ListenSocket, loops: u32, Policy { sharing, write, .. }: Policy) -> io::Result<Listeners> {
        if let ListenSocket::Tcp(socket) = &first {
            ListenOptions { write, ..ListenOptions::default() }.set_what_is_accepted(socket)?;
        }
        Listeners::share(first, loops, sharing, true)
    }

    /// One socket for all loops.
    fn share(first: ListenSocket, loops: u32, sharing: ListenerSharing, inherited: bool) -> io::Result<Listeners> {
        let sharing = sharing_of_one_socket(sharing);
        let hand_off = sharing == ListenerSharing::HandOff;
        let others = (1..loops).filter(|_| !hand_off).map(|_| first.try_clone()).collect::<io::Result<_>>()?;
        Ok(Listeners { first, others, wakes: sharing.wakes(), hand_off, inherited })
    }
}

/// How loops share one socket. `ReusePort` needs a socket for each loop, and an inherited socket and a Unix socket are only one. `Exclusive` also wakes only one of two servers that listen at once, while
/// one takes over from the other.
pub(crate) fn sharing_of_one_socket(sharing: ListenerSharing) -> ListenerSharing {
    match sharing {
        ListenerSharing::ReusePort => ListenerSharing::Exclusive,
        ListenerSharing::Exclusive | ListenerSharing::HandOff | ListenerSharing::WakeAll => sharing,
    }
}
