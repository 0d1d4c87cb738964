//! How the loops come to their connections: sockets of their own, or one that they share.
//!
//! Read next: `reactor::listen::socket`, the ways to share.

use std::io;
use std::net::{SocketAddr, TcpListener};

use reactor::listen::socket::{ListenOptions, listen};
use reactor::policy::ListenerSharing;
use reactor::{ListenerWakes, Policy};

/// The service's listening sockets.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// The first loop's socket.
    pub(crate) first: TcpListener,
    /// Those of the others, one for each; none when the first hands over.
    pub(crate) others: Vec<TcpListener>,
    pub(crate) wakes: ListenerWakes,
    pub(crate) hand_off: bool,
    /// Another process holds the socket too.
    pub(crate) inherited: bool,
}

impl Listeners {
    /// Binds and listens.
    ///
    /// # Errors
    /// As [`listen`].
    pub(crate) fn bind(address: SocketAddr, loops: u32, Policy { sharing, write, .. }: Policy) -> io::Result<Listeners> {
        let reuse_port = sharing == ListenerSharing::ReusePort && loops > 1;
        if reuse_port && address.port() != 0 {
            // SO_REUSEPORT would let a second server of the same user in, and each would get a part of the clients. So the port is first
            // taken for ourselves alone: who uses it is found out now.
            drop(listen(address, ListenOptions::default())?);
        }
        let options = ListenOptions { reuse_port, write, ..ListenOptions::default() };
        let first = listen(address, options)?;
        // Port 0 was asked for once; the others take the port that it became.
        let address = first.local_addr()?;
        let others = others(loops, sharing, || if reuse_port { listen(address, options) } else { first.try_clone() })?;
        Ok(Listeners { first, others, wakes: sharing.wakes(), hand_off: sharing == ListenerSharing::HandOff, inherited: false })
    }

    /// Shares a socket that is there already.
    ///
    /// # Errors
    /// setsockopt(2); fcntl(2): no descriptor is left.
    pub(crate) fn inherit(first: TcpListener, loops: u32, Policy { sharing, write, .. }: Policy) -> io::Result<Listeners> {
        ListenOptions { write, ..ListenOptions::default() }.set_what_is_accepted(&first)?;
        let sharing = sharing_of_inherited(sharing);
        let others = others(loops, sharing, || first.try_clone())?;
        Ok(Listeners { first, others, wakes: sharing.wakes(), hand_off: sharing == ListenerSharing::HandOff, inherited: true })
    }
}

fn others(loops: u32, sharing: ListenerSharing, mut another: impl FnMut() -> io::Result<TcpListener>) -> io::Result<Vec<TcpListener>> {
    (1..loops).filter(|_| sharing != ListenerSharing::HandOff).map(|_| another()).collect()
}

/// `ReusePort` needs a socket for each loop, and there is one. `Exclusive` also wakes only one of two servers that listen at once, while
/// one takes over from the other.
pub(crate) fn sharing_of_inherited(sharing: ListenerSharing) -> ListenerSharing {
    match sharing {
        ListenerSharing::ReusePort => ListenerSharing::Exclusive,
        ListenerSharing::Exclusive | ListenerSharing::HandOff | ListenerSharing::WakeAll => sharing,
    }
}
