//! What a protocol implements, and what the loop gives it: bytes, room, mail and time; never a socket.
//!
//! One [`Handler`] value serves all connections of one loop, on that loop's thread. No callback may block, and none is called from
//! inside another.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::close_reason::CloseReason;
use crate::context::{Context, LoopContext};

/// How a connection came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client connected to a listener of this loop (or of one that handed it over).
    Accepted {
        /// The client's address.
        peer: SocketAddr,
        /// Which listener, in the order of [`crate::EventLoop::listen_on`].
        listener: usize,
    },
    /// [`LoopContext::connect`] succeeded.
    Connected {
        /// What the caller of `connect` passed.
        tag: u64,
    },
}

/// Why the loop wants a connection to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// `connections_max` is reached: say so and close ([`crate::policy::AtConnectionsMax::Refuse`]).
    ConnectionsMax,
    /// The connection limit nears, and of those that wait for their peer ([`Context::expendable`]) this one has waited for the longest.
    NearlyFull,
    /// The buffer memory is used up and this connection holds the oldest unfinished input.
    BufferMemory,
    /// The loop drains for shutdown: finish what is in flight and close.
    Draining,
}

/// A protocol on top of the loop.
///
/// The callbacks of one connection come in this order: `opened`; then any of `input`, `room`, `mail`, `deadline`, `pressed`, and once
/// `ended`; last `closed`, exactly once. All must return soon: while one runs, every other connection of the loop waits.
pub trait Handler: Sized {
    /// What the protocol keeps for each connection. Small, and without heap while the connection is at rest.
    type Conn;
    /// What other threads send to a connection.
    type Mail: Send + 'static;

    /// A connection is there. Returns its state; may already write, pause, close or set a deadline.
    fn opened(&mut self, origin: Origin, cx: &mut Context<'_>) -> Self::Conn;

    /// Takes one message from the front of `input` and returns how many bytes it was. The loop calls again while bytes are left, so
    /// that budgets live in one place. 0 means: an unfinished message, more bytes are needed (or the handler has just paused).
    /// `input` is what has arrived in order and has not been taken; it stays until it is.
    fn input(&mut self, conn: &mut Self::Conn, input: &[u8], cx: &mut Context<'_>) -> usize;

    /// The peer has sent its last byte; `rest_bytes` of an unfinished message are left. It may still be reading: answer what is owed
    /// and close. Comes after all complete messages were taken. By default: close when everything is sent.
    fn ended(&mut self, conn: &mut Self::Conn, rest_bytes: usize, cx: &mut Context<'_>) {
        let _ = (conn, rest_bytes);
        cx.close();
    }

    /// There is room for output after [`Context::want_room`], or another connection woke this one with [`Context::wake`]. May be
    /// spurious; must check its own state.
    fn room(&mut self, conn: &mut Self::Conn, cx: &mut Context<'_>) {
        let _ = (conn, cx);
    }

    /// Mail from another thread. What it answers may have been overtaken: check that it is still wanted.
    fn mail(&mut self, conn: &mut Self::Conn, mail: Self::Mail, cx: &mut Context<'_>);

    /// Mail for a connection that has gone.
    fn undelivered(&mut self, mail: Self::Mail) {
        drop(mail);
    }

    /// The deadline set by [`Context::deadline`] has passed; none is set now. By default: abort.
    fn deadline(&mut self, conn: &mut Self::Conn, cx: &mut Context<'_>) {
        let _ = conn;
        cx.abort();
    }

    /// The loop needs this connection to go. Write what the peer should know. After [`Pressure::ConnectionsMax`],
    /// [`Pressure::BufferMemory`] and [`Pressure::NearlyFull`] the loop closes it in any case, after the last of them at once;
    /// [`Pressure::Draining`] leaves the time to the handler, and comes once.
    fn pressed(&mut self, conn: &mut Self::Conn, pressure: Pressure, cx: &mut Context<'_>) {
        let _ = (conn, pressure);
        cx.close();
    }

    /// A callback of this connection panicked; what that callback wrote has been taken back. Says so to the peer if nothing of an answer
    /// was sent yet. The loop closes the connection in any case. The state may be half changed: touch as little of it as possible.
    fn panicked(&mut self, conn: &mut Self::Conn, cx: &mut Context<'_>) {
        let _ = (conn, cx);
    }

    /// Whether the peer has been sent a part of something and waits for the rest. Where that is so the connection never ends with FIN, which
    /// says "that was all": it is reset, whatever ends it. Output that was written and not sent counts without being mentioned here. Asked
    /// when the connection ends, outside of any callback: it only looks, and must not panic.
    fn is_unfinished(&self, conn: &Self::Conn) -> bool {
        let _ = conn;
        false
    }

    /// The last callback of a connection. What it held is given back here.
    fn closed(&mut self, conn: Self::Conn, reason: CloseReason) {
        let _ = (conn, reason);
    }

    /// A [`LoopContext::connect`] failed; no connection came to be.
    fn connect_failed(&mut self, tag: u64, error: io::Error, cx: &mut LoopContext<'_>) {
        let _ = (tag, error, cx);
    }

    /// When [`Handler::woke`] wants to be called next, to a fraction of a millisecond. Asked once a turn.
    fn next_wake(&self) -> Option<Instant> {
        None
    }

    /// The time that [`Handler::next_wake`] named has come. The place for schedules that belong to no connection. A panic here ends the
    /// process: no connection is to blame, and a schedule that stands still would keep the loop awake for ever.
    fn woke(&mut self, cx: &mut LoopContext<'_>) {
        let _ = cx;
    }

    /// A turn is over. `ended` is the clock read after the last of its callbacks, once a turn, and `took` the time since the one that they
    /// saw ([`Context::now`]): what they took, a stall in one of them included, lies within it. A panic here ends the process.
    #[inline]
    fn turn_ended(&mut self, took: Duration, ended: Instant) {
        let _ = (took, ended);
    }
}
