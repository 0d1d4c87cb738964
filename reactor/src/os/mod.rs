//! The one door to the system: every call that the outside can make fail, shorten or delay.
//!
//! Static dispatch, two implementations: [`Linux`] (mio, socket2, libc) and [`crate::sim`], where the same loop runs against a
//! seeded, hostile system in virtual time. What is not behind this door cannot be tested by a seed, so nothing else in the loop
//! may ask the kernel for anything.

pub mod descriptors;
mod linux;
pub(crate) mod sys;

pub use linux::{Linux, LinuxListener, LinuxStream};

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitflags::bitflags;

use crate::token::Token;

/// What the poller said of one source. Our own small type, since mio's cannot be built by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whose event: compared with the slot's generation before anything is done.
    pub token: Token,
    /// What is said to be true now.
    pub ready: Ready,
}

bitflags! {
    /// A set of readiness bits, as `epoll_wait(2)` reports them: a hint, never a promise (failure mode R5).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Ready: u8 {
        /// `EPOLLIN`: data, a new connection, or the end of input.
        const READABLE = 1;
        /// `EPOLLOUT`: at least a third of the send buffer is free (`sk_stream_is_writeable`, include/net/sock.h).
        const WRITABLE = 2;
        /// `EPOLLRDHUP` or `EPOLLHUP`: the peer has sent its last byte. Data may still be waiting before it.
        const READ_CLOSED = 4;
        /// `EPOLLHUP`, or `EPOLLERR` together with `EPOLLOUT`: nothing more can be sent.
        const WRITE_CLOSED = 8;
        /// `EPOLLERR`: an error is pending on the socket.
        const ERROR = 16;
        /// `EPOLLPRI`: urgent data. A read stops at the urgent mark, so a short read then says nothing (tcp(7)).
        const PRIORITY = 32;
    }
}

/// Ends a `poll` from another thread. One call for a burst of mail: the mailbox coalesces.
pub trait Wake: Send + Sync {
    /// Makes the loop's next or current `poll` return.
    ///
    /// # Errors
    /// What write(2) on the eventfd says; `WouldBlock` cannot happen with mio's waker.
    fn wake(&self) -> io::Result<()>;
}

/// How the loops that share a listening socket are woken for one new connection (failure mode H1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerWakes {
    /// `EPOLLEXCLUSIVE`: the kernel wakes at least one of them, not all (epoll_ctl(2), since Linux 4.5).
    One,
    /// Every loop that waits on it.
    All,
}

/// The system as the loop sees it.
///
/// Nothing here blocks except [`Os::poll`]. Streams read and write through `std::io`; `Interrupted` is the caller's to retry.
pub trait Os {
    /// A connected (or connecting) non-blocking socket. Dropping it closes the descriptor.
    type Stream: Read + Write;
    /// A listening, non-blocking socket.
    type Listener;
    /// A connection on its way from one loop to another: it belongs to no poller. Dropping it closes the descriptor.
    type Handover;

    /// The monotonic clock (`CLOCK_MONOTONIC`: no NTP step moves it, failure mode L8). Only the loop asks.
    fn now(&mut self) -> Instant;

    /// Waits for events and replaces the content of `events` with them. `None` waits until something happens.
    ///
    /// # Errors
    /// epoll_wait(2). `Interrupted` is reported as no events.
    fn poll(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()>;

    /// The waker whose wake-ups arrive as events of a token of their own. Asked for once.
    ///
    /// # Errors
    /// eventfd(2), epoll_ctl(2).
    fn waker(&mut self) -> io::Result<Arc<dyn Wake>>;

    /// Asks that `poll` return `after` from now at the latest, finer than its own timeout of whole milliseconds. One timer: a
    /// second call replaces the first. It stays until it fires.
    ///
    /// # Errors
    /// timerfd_settime(2).
    fn set_timer(&mut self, after: Duration) -> io::Result<()>;

    /// Registers a stream for reading and writing, edge triggered. Once in its life; there is no other call for interest.
    ///
    /// # Errors
    /// epoll_ctl(2), `ENOSPC` and `ENOMEM` among them.
    fn register(&mut self, stream: &mut Self::Stream, token: Token) -> io::Result<()>;

    /// Takes a stream out of the poller, before it is closed: a duplicate of the descriptor would keep it in (failure mode R7).
    ///
    /// # Errors
    /// epoll_ctl(2).
    fn deregister(&mut self, stream: &mut Self::Stream) -> io::Result<()>;

    /// Registers a listener, edge triggered.
    ///
    /// # Errors
    /// epoll_ctl(2).
    fn register_listener(&mut self, listener: &mut Self::Listener, token: Token, wakes: ListenerWakes) -> io::Result<()>;

    /// Takes a listener out of the poller. Its queue stays in the kernel.
    ///
    /// # Errors
    /// epoll_ctl(2).
    fn deregister_listener(&mut self, listener: &mut Self::Listener) -> io::Result<()>;

    /// Bounds what the kernel may hold unsent for each connection that comes to this listener from now on
    /// ([`crate::Limits::kernel_unsent_bytes_max`]). One call for all of them: accepted sockets inherit it.
    ///
    /// # Errors
    /// setsockopt(2).
    fn bound_unsent(&mut self, listener: &mut Self::Listener, bytes_max: u32) -> io::Result<()>;

    /// Takes one connection from the listener's queue.
    ///
    /// # Errors
    /// accept4(2): `WouldBlock` when the queue is empty; see `listen/accept.rs` for each of the others.
    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<(Self::Stream, SocketAddr)>;

    /// Begins to connect, from the source address `from` if one is given, with the kernel's unsent output bounded as in
    /// [`Os::bound_unsent`]. Write readiness says that it ended, [`Os::take_error`] how.
    ///
    /// # Errors
    /// socket(2), setsockopt(2), bind(2), connect(2); `EINPROGRESS` is success.
    fn connect(&mut self, to: SocketAddr, from: Option<IpAddr>, unsent_bytes_max: Option<u32>) -> io::Result<Self::Stream>;

    /// The error pending on a socket (`SO_ERROR`, socket(7)), taken off it.
    ///
    /// # Errors
    /// getsockopt(2).
    fn take_error(&mut self, stream: &mut Self::Stream) -> io::Result<Option<io::Error>>;

    /// Whether a connecting socket has a peer now: false while the handshake goes on (an early or spurious event).
    fn is_connected(&mut self, stream: &mut Self::Stream) -> bool;

    /// Sends FIN after what is written (`shutdown(SHUT_WR)`, shutdown(2)).
    ///
    /// # Errors
    /// `NotConnected` when the peer has reset the connection; the caller closes either way.
    fn shutdown_write(&mut self, stream: &mut Self::Stream) -> io::Result<()>;

    /// Has the stream's close send a reset, and forget what is unsent, instead of FIN behind it (`SO_LINGER` of zero, socket(7)).
    ///
    /// # Errors
    /// setsockopt(2).
    fn reset_at_close(&mut self, stream: &mut Self::Stream) -> io::Result<()>;

    /// Makes a stream of a connection that another loop accepted.
    ///
    /// # Errors
    /// fcntl(2).
    fn adopt(&mut self, descriptor: Self::Handover) -> io::Result<Self::Stream>;

    /// Gives a stream up, to be adopted by another loop.
    ///
    /// # Errors
    /// Those of the system, if it has to be asked; the stream is closed then.
    fn release(&mut self, stream: Self::Stream) -> io::Result<Self::Handover>;

    /// Holds one descriptor in reserve, so that at EMFILE a waiting client can be accepted and told, not left in silence.
    /// True if the reserve is held afterwards (libuv `uv__emfile_trick`, `src/unix/stream.c`).
    fn hold_spare(&mut self) -> bool;

    /// Gives the spare descriptor up. False if none was held.
    fn release_spare(&mut self) -> bool;
}
