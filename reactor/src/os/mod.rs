//! The trait [`Os`]: the system calls of the loop, which the outside world can make fail, shorten or delay.
//!
//! It is dispatched statically and has two implementations: [`Linux`] (mio, socket2, libc), and `sim`, in which the same loop runs against a
//! seeded, hostile system in virtual time. A system call outside of this trait could not be tested by a seed. So the other code of the loop must
//! make no system calls.

pub mod descriptors;
mod linux;
pub(crate) mod sys;

pub use linux::{Linux, LinuxListener, LinuxStream, bind_source_address};

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitflags::bitflags;

use crate::address::{Address, Connect};
use crate::token::Token;

/// The readiness of one source, as the poller reported it. It is not mio's type, because the simulator cannot construct that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The source of the event. The loop compares its generation with that of the slot before it uses the event.
    pub token: Token,
    /// The reported readiness.
    pub ready: Ready,
}

bitflags! {
    /// A set of readiness bits, as `epoll_wait(2)` reports them. They are hints: they can be spurious or early, so a call may still return
    /// `WouldBlock`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Ready: u8 {
        /// `EPOLLIN`: data, a new connection, or the end of input.
        const READABLE = 1;
        /// `EPOLLOUT`: at least a third of the send buffer is free (`sk_stream_is_writeable`, include/net/sock.h).
        const WRITABLE = 2;
        /// `EPOLLRDHUP` or `EPOLLHUP`: the peer has sent FIN. Data before it may still be unread.
        const READ_CLOSED = 4;
        /// `EPOLLHUP`, or `EPOLLERR` together with `EPOLLOUT`: nothing more can be sent.
        const WRITE_CLOSED = 8;
        /// `EPOLLERR`: an error is pending on the socket.
        const ERROR = 16;
        /// `EPOLLPRI`: urgent data. A read stops at the urgent mark, so a short read does not mean that the socket is empty (tcp(7)).
        const PRIORITY = 32;
    }
}

/// Ends a `poll` from another thread. The mailbox makes one call for a burst of mail.
pub trait Wake: Send + Sync {
    /// Makes the loop's next or current `poll` return.
    ///
    /// # Errors
    /// Those of write(2) on the eventfd. mio's waker handles `WouldBlock` itself.
    fn wake(&self) -> io::Result<()>;
}

/// How many of the loops that share a listening socket are woken for one new connection (`herd`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerWakes {
    /// `EPOLLEXCLUSIVE`: the kernel wakes at least one of them, not all (epoll_ctl(2), since Linux 4.5).
    One,
    /// The kernel wakes all loops that wait on it.
    All,
}

/// A connected (or connecting) non-blocking socket. Dropping it closes the descriptor.
pub trait Stream: Read + Write + fmt::Debug {
    /// The address of this end.
    ///
    /// # Errors
    /// getsockname(2).
    fn local_addr(&self) -> io::Result<Address>;

    /// The address of the peer.
    ///
    /// # Errors
    /// getpeername(2): `NotConnected` once the connection has failed.
    fn peer_addr(&self) -> io::Result<Address>;
}

/// The system calls that the loop makes.
///
/// Only [`Os::poll`] blocks. Streams read and write through `std::io`. The caller must retry a call that fails with `Interrupted`.
pub trait Os {
    /// A connection.
    type Stream: Stream;
    /// A listening, non-blocking socket.
    type Listener;
    /// A connection that is being handed from one loop to another. It is registered with no poller. Dropping it closes the descriptor.
    type Handover;

    /// Reads the monotonic clock (`CLOCK_MONOTONIC`, which a step of the wall clock does not move; clock_gettime(2)).
    fn now(&mut self) -> Instant;

    /// Blocks until there are events or `timeout` has passed, and replaces the content of `events`. `None` waits without a timeout. May return early
    /// without events.
    ///
    /// # Errors
    /// epoll_wait(2). `Interrupted` is returned as `Ok` with no events.
    fn poll(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()>;

    /// Creates the waker. Its wake-ups arrive as events with a token of their own. The loop calls it once.
    ///
    /// # Errors
    /// eventfd(2), epoll_ctl(2).
    fn waker(&mut self) -> io::Result<Arc<dyn Wake>>;

    /// Sets the timer that makes `poll` return `after` from now, at a finer resolution than the milliseconds of its timeout. There is one timer, so a
    /// second call replaces the first. It stays set until it fires.
    ///
    /// # Errors
    /// timerfd_settime(2).
    fn set_timer(&mut self, after: Duration) -> io::Result<()>;

    /// Registers a stream for reading and writing, edge-triggered. Called once per stream. There is no call that changes the interest later.
    ///
    /// # Errors
    /// epoll_ctl(2), such as `ENOSPC` and `ENOMEM`.
    fn register(&mut self, stream: &mut Self::Stream, token: Token) -> io::Result<()>;

    /// Removes a stream from the poller. Called before the close, because close(2) alone does not remove it while a duplicate of the descriptor
    /// is open (epoll(7)).
    ///
    /// # Errors
    /// epoll_ctl(2).
    fn deregister(&mut self, stream: &mut Self::Stream) -> io::Result<()>;

    /// Registers a listener, edge-triggered.
    ///
    /// # Errors
    /// epoll_ctl(2).
    fn register_listener(&mut self, listener: &mut Self::Listener, token: Token, wakes: ListenerWakes) -> io::Result<()>;

    /// Removes a listener from the poller. Its accept queue stays in the kernel.
    ///
    /// # Errors
    /// epoll_ctl(2).
    fn deregister_listener(&mut self, listener: &mut Self::Listener) -> io::Result<()>;

    /// Bounds the unsent bytes that the kernel holds for each connection that this listener accepts from now on
    /// ([`crate::Limits::kernel_unsent_bytes_max`]). One call is enough, because accepted sockets inherit the option. A Unix listener has no
    /// such option, and the call does nothing.
    ///
    /// # Errors
    /// setsockopt(2).
    fn bound_unsent(&mut self, listener: &mut Self::Listener, bytes_max: u32) -> io::Result<()>;

    /// Takes one connection from the listener's accept queue.
    ///
    /// # Errors
    /// accept4(2): `WouldBlock` when the queue is empty. `listen/accept.rs` describes the other errors.
    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<(Self::Stream, Address)>;

    /// Begins to connect, with the options in `connect`, and with the kernel's unsent output bounded as in [`Os::bound_unsent`]. Write readiness reports the end of the handshake, and [`Os::take_error`] its result.
    ///
    /// # Errors
    /// socket(2), setsockopt(2), bind(2), connect(2); `EINPROGRESS` is success.
    fn connect(&mut self, connect: &Connect, unsent_bytes_max: Option<u32>) -> io::Result<Self::Stream>;

    /// Returns and clears the error that is pending on a socket (`SO_ERROR`, socket(7)).
    ///
    /// # Errors
    /// getsockopt(2).
    fn take_error(&mut self, stream: &mut Self::Stream) -> io::Result<Option<io::Error>>;

    /// The number of bytes written to the socket that the peer has not acknowledged, sent or not (`SIOCOUTQ`, tcp(7); for a Unix socket the kernel counts its memory instead). Called at the end of a window
    /// of pending output only (`stall.rs`).
    ///
    /// # Errors
    /// ioctl(2).
    fn unacknowledged_bytes(&mut self, stream: &mut Self::Stream) -> io::Result<u64>;

    /// Whether a connecting socket is connected. It is false during the handshake, where an early or spurious event can arrive.
    fn is_connected(&mut self, stream: &mut Self::Stream) -> bool;

    /// Sends FIN after the bytes written so far (`shutdown(SHUT_WR)`, shutdown(2)).
    ///
    /// # Errors
    /// `NotConnected` when the peer has reset the connection. The caller closes it then.
    fn shutdown_write(&mut self, stream: &mut Self::Stream) -> io::Result<()>;

    /// Makes the close of the stream discard unsent output and send a reset instead of FIN (`SO_LINGER` of zero, socket(7)). A Unix socket has
    /// no reset, and the peer sees the end of the stream.
    ///
    /// # Errors
    /// setsockopt(2).
    fn reset_at_close(&mut self, stream: &mut Self::Stream) -> io::Result<()>;

    /// Creates a stream from a connection that another loop accepted.
    ///
    /// # Errors
    /// fcntl(2).
    fn adopt(&mut self, descriptor: Self::Handover) -> io::Result<Self::Stream>;

    /// Converts a stream into a connection that another loop can adopt.
    ///
    /// # Errors
    /// Those of the system call, if one is needed. The stream is closed then.
    fn release(&mut self, stream: Self::Stream) -> io::Result<Self::Handover>;

    /// Opens a spare descriptor. At EMFILE the loop closes it to accept a waiting client and give it a response. True if the spare is held
    /// afterwards (libuv `uv__emfile_trick`, `src/unix/stream.c`).
    fn hold_spare(&mut self) -> bool;

    /// Closes the spare descriptor. False if none was held.
    fn release_spare(&mut self) -> bool;
}
