//! The trait that a protocol implements. The loop calls it with input bytes, output space, mail and expired deadlines. It does not see sockets.
//!
//! One [`Handler`] value serves all connections of one loop, on that loop's thread. No callback may block. The loop does not call a callback
//! from inside another one.

use std::io;
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::context::{Context, LoopContext};
use crate::errors::CloseReason;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client connected to a listener of this loop, or of a loop that handed the connection over.
    Accepted {
        /// The client's address, as accept(2) returned it.
        peer: Address,
        /// Which listener, in the order of [`crate::EventLoop::listen_on`].
        listener: usize,
    },
    /// [`LoopContext::connect`] succeeded.
    Connected {
        /// What the caller of `connect` passed.
        tag: u64,
    },
}

/// Why the loop wants a connection to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// `connections_max` is reached, so the new connection is rejected: write a response and close
    /// ([`crate::policy::AtConnectionsMax::Refuse`]).
    ConnectionsMax,
    /// Few slots are free, and of the connections that wait for their peer ([`Context::expendable`]) this one has waited for the longest.
    NearlyFull,
    /// The buffer memory is full, and this connection's partial input was evicted (`eviction.rs` says how it is chosen).
    BufferMemory,
    /// Graceful shutdown has begun: finish the requests in progress and close.
    ShuttingDown,
}

/// A protocol on top of the loop.
///
/// The callbacks of one connection come in this order: `opened`; then any of `input`, `writable`, `mail`, `deadline`, `pressed`, and at most once
/// `ended`; last `closed`, exactly once (test: `simulated_runs_keep_every_promise`). A callback must return soon, because the other connections
/// of the loop wait while it runs (`loop-stall`).
pub trait Handler: Sized {
    /// The protocol's state of one connection. It should be small, and hold no heap memory while the connection is idle.
    type Conn;
    /// What other threads send to a connection.
    type Mail: Send + 'static;

    /// A connection was opened. Returns its state. May already write, pause, close or set a deadline.
    fn opened(&mut self, origin: Origin, cx: &mut Context<'_>) -> Self::Conn;

    /// Takes one message from the front of `input` and returns its length in bytes. The loop calls again while bytes are left, so the budgets
    /// are the loop's to keep. 0 means that the message is unfinished and needs more bytes, or that the handler has just paused.
    /// `input` is the bytes that have arrived, in order, and that no earlier call took. Bytes that are not taken are passed again.
    fn input(&mut self, conn: &mut Self::Conn, input: &[u8], cx: &mut Context<'_>) -> usize;

    /// The peer has sent FIN, and `rest_bytes` of an unfinished message are left. Called after all complete messages were taken. The peer may
    /// still be reading, so send the responses that are due, then close. By default: close when the output is sent.
    fn ended(&mut self, conn: &mut Self::Conn, rest_bytes: usize, cx: &mut Context<'_>) {
        let _ = (conn, rest_bytes);
        cx.close();
    }

    /// There is output space after [`Context::want_writable`], or another connection woke this one with [`Context::wake`]. The call may be
    /// spurious, so the handler must check its own state.
    fn writable(&mut self, conn: &mut Self::Conn, cx: &mut Context<'_>) {
        let _ = (conn, cx);
    }

    /// Mail from another thread, such as the result of a job. The connection's state may have changed since the job was submitted, so check
    /// that the result is still needed.
    fn mail(&mut self, conn: &mut Self::Conn, mail: Self::Mail, cx: &mut Context<'_>);

    /// Mail for a connection that is closed or closing. `cx` can wake or connect for whatever the mail was about (test:
    /// `closed_and_undelivered_can_wake_and_connect`).
    fn undelivered(&mut self, mail: Self::Mail, cx: &mut LoopContext<'_>) {
        let _ = (mail, cx);
    }

    /// The deadline set by [`Context::deadline`] has passed. No deadline is set now. By default: abort.
    fn deadline(&mut self, conn: &mut Self::Conn, cx: &mut Context<'_>) {
        let _ = conn;
        cx.abort();
    }

    /// The loop needs this connection to close. Write the response that the peer should see, such as a 503. After
    /// [`Pressure::ConnectionsMax`] and [`Pressure::BufferMemory`] the loop closes the connection in any case, and after
    /// [`Pressure::NearlyFull`] at once. After [`Pressure::ShuttingDown`], which comes at most once, the handler chooses when to close.
    fn pressed(&mut self, conn: &mut Self::Conn, pressure: Pressure, cx: &mut Context<'_>) {
        let _ = (conn, pressure);
        cx.close();
    }

    /// A callback of this connection panicked. The output of that callback has been discarded. If no part of a response was sent yet, write an
    /// error response. The loop closes the connection in any case. `conn` may be half changed, so use as little of it as possible.
    fn panicked(&mut self, conn: &mut Self::Conn, cx: &mut Context<'_>) {
        let _ = (conn, cx);
    }

    /// Whether the peer has been sent a part of a response and waits for the remaining bytes. If so, the connection is reset when it closes, and
    /// does not end with FIN, because FIN says that the response is complete. Output that was written and not sent counts without this method.
    /// Called when the connection closes, outside of any callback. It must not panic.
    fn is_unfinished(&self, conn: &Self::Conn) -> bool {
        let _ = conn;
        false
    }

    /// The last callback of a connection. Release here what its state holds. The slot is free already, so `cx` belongs to the loop: it can wake
    /// other connections, or connect again. Mail for a connection of this or another loop goes through a [`crate::Mailer`] that the handler
    /// holds. When the loop ends, `connect` gives the refused [`Connect`](crate::Connect) back.
    fn closed(&mut self, conn: Self::Conn, reason: CloseReason, cx: &mut LoopContext<'_>) {
        let _ = (conn, reason, cx);
    }

    /// A [`LoopContext::connect`] failed. No connection was opened.
    fn connect_failed(&mut self, tag: u64, error: io::Error, cx: &mut LoopContext<'_>) {
        let _ = (tag, error, cx);
    }

    /// When [`Handler::woke`] is to be called next, to a fraction of a millisecond. The loop asks once a turn.
    fn next_wake(&self) -> Option<Instant> {
        None
    }

    /// The time returned by [`Handler::next_wake`] has passed. For schedules that belong to no connection. A panic here ends the process,
    /// because there is no connection to close for it, and a schedule that does not advance would keep the loop from sleeping.
    fn woke(&mut self, cx: &mut LoopContext<'_>) {
        let _ = cx;
    }

    /// A turn has ended. `ended` is the clock, read once after the last callback of the turn. `took` is the time from [`Context::now`] of that
    /// turn until `ended`. It includes the time that the callbacks took, and so a stall in one of them. A panic here ends the process.
    #[inline]
    fn turn_ended(&mut self, took: Duration, ended: Instant) {
        let _ = (took, ended);
    }
}
