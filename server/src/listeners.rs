//! The listening sockets of the loops: for each address a socket of each loop, or one that they share.
//!
//! Read next: `reactor::listen::socket`, the ways to share.

use std::io;
use std::net::{IpAddr, SocketAddr};

use reactor::listen::socket::{ListenAddress, ListenOptions, ListenSocket, check_free, listen};
use reactor::listen::unix::{UnixListenOptions, listen_unix};
use reactor::policy::ListenerSharing;
use reactor::{ListenerWakes, Policy};

/// The service's listening sockets.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// Where the service listens, with the ports that the kernel chose.
    pub(crate) addresses: Vec<ListenAddress>,
    /// The sockets of each loop, the first loop's first, and which loops the kernel wakes for them. A loop without any gets its connections
    /// from the first one.
    pub(crate) of_loops: Vec<Vec<(ListenSocket, ListenerWakes)>>,
    pub(crate) hand_off: bool,
    /// Another process holds the socket too.
    pub(crate) inherited: bool,
}

impl Listeners {
    /// Binds the addresses and listens.
    ///
    /// # Errors
    /// As [`listen`] and [`listen_unix`].
    pub(crate) fn bind(addresses: &[ListenAddress], ipv6_only: bool, loops: u32, policy: Policy) -> io::Result<Listeners> {
        let mut listeners = Listeners::none(loops, policy.sharing, false);
        for address in addresses {
            match address {
                ListenAddress::Ip(ip) => {
                    let ipv6_only = ipv6_only || has_ipv4_of_its_own(*ip, addresses);
                    listeners.bind_tcp(
                        *ip,
                        ListenOptions { write: policy.write, ipv6_only, ..ListenOptions::default() },
                        policy.sharing,
                    )?;
                }
                ListenAddress::Unix(path) => {
                    let socket = listen_unix(path, UnixListenOptions::default())?;
                    listeners.share(socket.into(), policy.sharing)?;
                }
            }
        }
        Ok(listeners)
    }

    fn bind_tcp(&mut self, address: SocketAddr, options: ListenOptions, sharing: ListenerSharing) -> io::Result<()> {
        if sharing != ListenerSharing::ReusePort || self.of_loops.len() < 2 {
            return self.share(listen(address, options)?.into(), sharing);
        }
        if address.port() != 0 {
            // With SO_REUSEPORT a second server of the same user would bind too, and each would get a part of the clients. Without it bind(2)
            // fails while another server listens.
            check_free(address, options)?;
        }
        let options = ListenOptions { reuse_port: true, ..options };
        let first = listen(address, options)?;
        // The other loops take the port that port 0 became.
        let address = first.local_addr()?;
        self.add(first.into(), sharing.wakes(), |_| listen(address, options).map(ListenSocket::Tcp))
    }

    /// Shares a socket that another process has opened.
    ///
    /// # Errors
    /// setsockopt(2); fcntl(2): no descriptor is left.
    pub(crate) fn inherit(first: ListenSocket, loops: u32, Policy { sharing, write, .. }: Policy) -> io::Result<Listeners> {
        if let ListenSocket::Tcp(socket) = &first {
            ListenOptions { write, ..ListenOptions::default() }.set_what_is_accepted(socket)?;
        }
        let mut listeners = Listeners::none(loops, sharing, true);
        listeners.share(first, sharing)?;
        Ok(listeners)
    }

    fn none(loops: u32, sharing: ListenerSharing, inherited: bool) -> Listeners {
        let of_loops = (0..loops).map(|_| Vec::new()).collect();
        Listeners { addresses: Vec::new(), of_loops, hand_off: sharing == ListenerSharing::HandOff, inherited }
    }

    /// Adds one socket for all loops.
    fn share(&mut self, socket: ListenSocket, sharing: ListenerSharing) -> io::Result<()> {
        self.add(socket, sharing_of_one_socket(sharing).wakes(), ListenSocket::try_clone)
    }

    /// Gives a socket to the first loop, and another one to each loop that accepts by itself.
    fn add(
        &mut self,
        first: ListenSocket,
        wakes: ListenerWakes,
        mut another: impl FnMut(&ListenSocket) -> io::Result<ListenSocket>,
    ) -> io::Result<()> {
        self.addresses.push(first.address()?);
        if !self.hand_off {
            for sockets in self.of_loops.iter_mut().skip(1) {
                sockets.push((another(&first)?, wakes));
            }
        }
        if let Some(sockets) = self.of_loops.first_mut() {
            sockets.push((first, wakes));
        }
        Ok(())
    }
}

/// Whether a socket of its own serves IPv4 at the port of this `[::]`. Then `[::]` must not, or bind(2) fails for the second of them.
fn has_ipv4_of_its_own(address: SocketAddr, addresses: &[ListenAddress]) -> bool {
    let is_ipv4 = |other: &ListenAddress| match other {
        ListenAddress::Ip(other) => other.is_ipv4() && other.port() == address.port() && other.port() != 0,
        ListenAddress::Unix(_) => false,
    };
    matches!(address.ip(), IpAddr::V6(ip) if ip.is_unspecified()) && addresses.iter().any(is_ipv4)
}

/// How loops share one socket. `ReusePort` needs a socket for each loop, and an inherited socket and a Unix socket are only one. `Exclusive`
/// also wakes only one of two servers that listen at once, while one takes over from the other.
pub(crate) fn sharing_of_one_socket(sharing: ListenerSharing) -> ListenerSharing {
    match sharing {
        ListenerSharing::ReusePort => ListenerSharing::Exclusive,
        ListenerSharing::Exclusive | ListenerSharing::HandOff | ListenerSharing::WakeAll => sharing,
    }
}
