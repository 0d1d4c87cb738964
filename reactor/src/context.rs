//! What a callback may do: write, pause, set a deadline, wake other connections. Nothing here calls another callback. Only the two methods
//! that return an address make a system call, which does not block.
//!
//! A [`Context`] borrows the output buffer of the visit, the connection's socket, and the loop's slots and lists. It does not borrow the slab
//! of entries, so it needs no type parameter. What changes the socket (connect, close) is recorded, and the loop does it after the callback.

use std::io;
use std::time::{Duration, Instant};

use crate::address::{Address, Connect};
use crate::loop_state::LoopState;
use crate::os::Stream;
use crate::output::{Output, OutputScratch};
use crate::slot::{Bits, Slot};
use crate::timers;
use crate::token::Token;

/// The loop and one connection, as a callback of that connection sees them.
#[derive(Debug)]
pub struct Context<'a> {
    pub(crate) shared: &'a mut LoopState,
    pub(crate) output: &'a mut OutputScratch,
    /// Where this connection's output must end in the scratch: the high water mark minus the output pending from earlier visits.
    pub(crate) output_end_max: usize,
    pub(crate) stream: &'a dyn Stream,
    pub(crate) token: Token,
}

impl<'a> Context<'a> {
    #[inline]
    pub(crate) fn new(
        shared: &'a mut LoopState,
        output: &'a mut OutputScratch,
        output_end_max: usize,
        stream: &'a dyn Stream,
        token: Token,
    ) -> Context<'a> {
        Context { shared, output, output_end_max, stream, token }
    }
}

impl Context<'_> {
    #[inline]
    pub(crate) fn slot(&mut self) -> &mut Slot {
        self.shared.slots.get_mut(self.token.slot)
    }

    /// The time of this turn, read when poll returned. It is older than the clock by the time that the turn has lasted.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Instant {
        self.shared.now
    }

    /// The identity of this connection, for mail and for [`Context::wake`].
    #[must_use]
    #[inline]
    pub fn token(&self) -> Token {
        self.token
    }

    /// The address of this end: the one that the client connected to, where the listener is bound to all addresses.
    ///
    /// # Errors
    /// getsockname(2).
    pub fn local_addr(&self) -> io::Result<Address> {
        self.stream.local_addr()
    }

    /// The address of the peer. [`Origin::Accepted`](crate::Origin::Accepted) has told it to `opened` without a system call.
    ///
    /// # Errors
    /// getpeername(2): `NotConnected` once the connection has failed.
    pub fn peer_addr(&self) -> io::Result<Address> {
        self.stream.peer_addr()
    }

    /// Appends the part of `bytes` that fits to the output, and returns how many bytes that were. The caller keeps the remaining bytes, and
    /// calls [`Context::want_writable`] to be called when there is output space.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        self.output().write(bytes)
    }

    /// The output, to encode into.
    #[inline]
    pub fn output(&mut self) -> Output<'_> {
        Output::new(self.output, self.output_end_max)
    }

    /// The output space: how many bytes [`Context::write`] would take.
    #[must_use]
    #[inline]
    pub fn output_space(&self) -> usize {
        self.output_end_max.saturating_sub(self.output.len())
    }

    /// Discards the last `bytes` of this connection's output if the kernel has taken none of them, so that another response can be written
    /// instead. Returns false, and discards nothing, if a part of them may have been sent (test: `unsent_output_can_be_discarded`).
    ///
    /// The loop does not know where a response begins. The caller counts the bytes, and with too high a count this discards the end of the
    /// response before. Output of a callback that panicked is discarded already, so a count must not include it.
    ///
    /// When the bytes are exactly all of the output that is pending from earlier visits, it returns false as well, although none of them was
    /// sent: pending output is never empty. After [`Context::shutdown_write`] what is discarded is not space again.
    pub fn discard_unsent(&mut self, bytes: usize) -> bool {
        let here = bytes.min(self.output.len());
        let pending = bytes - here;
        if pending > 0 {
            let Some(lease) = self.shared.slots.get_mut(self.token.slot).output.as_mut().filter(|lease| lease.len() > pending) else {
                return false;
            };
            lease.drop_last(pending);
            let LoopState { slots, limits, buffers, .. } = &*self.shared;
            self.output_end_max = slots.get(self.token.slot).output_space(limits, buffers.output_space_bytes());
        }
        self.output.truncate(self.output.len() - here);
        true
    }

    /// Asks for one call of [`crate::Handler::writable`] when there is output space. Ask again if the space was not enough. When
    /// [`crate::Handler::input`] takes nothing and asks, it is called again after `writable`. If neither of them makes progress with all the space
    /// there is, the connection closes ([`crate::CloseReason::OutputSpaceTooSmall`]; test: `asking_for_output_space_never_spins`).
    #[inline]
    pub fn want_writable(&mut self) {
        self.slot().bits.insert(Bits::WANTS_WRITABLE);
    }

    /// Stops calls of [`crate::Handler::input`] until [`Context::resume`]. Unread input stays in the socket's receive buffer. When that is full,
    /// the TCP window closes, and the peer cannot send more: this is backpressure.
    #[inline]
    pub fn pause(&mut self) {
        self.slot().bits.insert(Bits::PAUSED);
    }

    /// Ends [`Context::pause`]. Input that arrived during the pause is delivered without waiting for an event.
    #[inline]
    pub fn resume(&mut self) {
        self.slot().bits.remove(Bits::PAUSED);
    }

    /// The partial input that is buffered: what earlier visits read and [`crate::Handler::input`] did not take. In `deadline`, `mail` and `pressed`
    /// it is all of that. It is not brought up to date before a visit has offered its input. So in `input`, and in an `ended`, `writable` or
    /// `panicked` of the same visit, it can be empty, or hold bytes that `input` has taken since.
    #[must_use]
    pub fn partial_input(&self) -> &[u8] {
        self.shared.slots.get(self.token.slot).input.as_ref().map_or(&[], |lease| lease.filled())
    }

    /// Marks the connection as waiting for its peer, with no request in progress. When few slots are free, the loop may evict it, the longest
    /// wait first ([`crate::policy::WhenNearlyFull`]). Calling it again restarts the wait. So call it when a wait begins, and not for each
    /// byte. A connection with pending output is not evicted. If the read before an eviction cannot empty the socket, the wait ends too,
    /// until this is called again.
    #[inline]
    pub fn expendable(&mut self) {
        self.slot().bits.insert(Bits::EXPENDABLE.union(Bits::RENEWED));
    }

    /// Sets the group that buffers leased from now on count for, for example a number for the source address. When the buffer memory is full,
    /// a connection of the group that holds the most bytes is evicted. So a thousand slow connections from one address do not evict the one
    /// connection of another address. By default all connections are in group 0.
    pub fn set_group(&mut self, group: u32) {
        self.slot().group = group;
    }

    /// Ends [`Context::expendable`]: a request of the peer is in progress. A new connection begins in this state, so the connections of a handler
    /// that does not call `expendable` are not evicted when few slots are free.
    #[inline]
    pub fn essential(&mut self) {
        self.slot().bits.remove(Bits::EXPENDABLE.union(Bits::RENEWED));
    }

    /// Whether the loop delivers no input to this connection because of [`Context::pause`], or because its pending output has reached the high
    /// water mark. A peer must not be timed out for input that is held here.
    #[must_use]
    #[inline]
    pub fn input_is_held(&self) -> bool {
        self.shared.slots.get(self.token.slot).input_is_held()
    }

    /// Closes gracefully after the output was sent: the loop sends FIN, discards input within `linger_timeout` and `linger_bytes_max`, then
    /// calls close(2). [`crate::Handler::input`] is not called again.
    #[inline]
    pub fn close(&mut self) {
        self.slot().close();
    }

    /// Closes as [`Context::close`] does, for a rejected peer: counted as [`crate::CloseReason::Refused`], and lingering for
    /// `refused_linger_timeout` only.
    #[inline]
    pub fn refuse(&mut self) {
        self.slot().refuse();
    }

    /// Sends FIN after the output that was written before it, and still reads: the peer sees the end of the output, and its input still reaches
    /// [`Handler::input`](crate::Handler::input) (shutdown(2), `SHUT_WR`; test: `input_that_arrives_after_our_fin_still_reaches_the_handler`). For
    /// a peer that responds only to the end of what it was sent, and for tunnels that pass the end of one direction on.
    ///
    /// From now on there is no output space: [`Context::write`] takes nothing. [`Handler::ended`](crate::Handler::ended) is called when the peer
    /// has sent its FIN too, and by default closes the connection. [`Context::close`] discards input as ever, and sends no second FIN. The
    /// handler's deadline stays set, and it is what ends a connection whose peer never ends its side: nothing is pending that could stall.
    #[inline]
    pub fn shutdown_write(&mut self) {
        let state = self.slot();
        if !state.bits.intersects(Bits::FIN_SENT) {
            state.bits.insert(Bits::FIN_WANTED);
        }
        self.output_end_max = 0;
    }

    /// Closes by a reset and discards pending output (RFC 9293 section 3.10.5, ABORT). FIN would tell the peer that the response is complete.
    #[inline]
    pub fn abort(&mut self) {
        self.slot().abort();
    }

    /// Sets or, with `None`, cancels the deadline of this connection. A connection has at most one. It is not called early (test:
    /// `deadlines_are_never_early`). It is rounded up to the next millisecond, and a long turn or a burst of deadlines can delay it further
    /// ([`crate::Stats::loop_lag`]). Moving it to a later time costs one store.
    #[inline]
    pub fn deadline(&mut self, at: Option<Instant>) {
        self.slot().deadline = at;
    }

    /// The deadline set last.
    #[must_use]
    #[inline]
    pub fn current_deadline(&self) -> Option<Instant> {
        self.shared.slots.get(self.token.slot).deadline
    }

    /// `after`, lengthened by up to a tenth depending on the slot, so that 10,000 connections that became idle together do not expire together
    /// (HAProxy `spread-checks` and `close-spread-time`).
    #[must_use]
    #[inline]
    pub fn spread(&self, after: Duration) -> Duration {
        // Fibonacci hashing (Knuth, The Art of Computer Programming 3, section 6.4): neighbouring slots land far apart.
        let part = self.token.slot.wrapping_mul(2_654_435_769) >> 22;
        timers::lengthened(after, part)
    }

    /// Sets the least rate, in bytes a second, at which the peer must acknowledge output while some is pending, instead of
    /// [`crate::Limits::output_rate_min`]. `None`: no limit, so that only eviction closes a connection that does not read. It holds until the next call
    /// of this method. The window is as long as it takes to bring as many bytes as with the default rate.
    #[inline]
    pub fn set_output_rate_min(&mut self, bytes_per_second: Option<u32>) {
        self.slot().output_rate_min = bytes_per_second.unwrap_or(0);
    }

    /// Sets [`crate::Limits::output_rate_min`] again.
    #[inline]
    pub fn reset_output_rate_min(&mut self) {
        self.slot().output_rate_min = self.shared.limits.output_rate_min;
    }

    /// Schedules a call of [`crate::Handler::writable`] for another connection, in this turn or a later one. Several calls before that are merged into
    /// one.
    #[inline]
    pub fn wake(&mut self, other: Token) {
        self.shared.wake(other);
    }

    /// Begins an outbound connection, see [`LoopContext::connect`].
    ///
    /// # Errors
    /// The same.
    pub fn connect(&mut self, connect: Connect) -> Result<(), Connect> {
        self.shared.connect(connect)
    }

    /// Ends the loop after this turn.
    pub fn stop_loop(&mut self) {
        self.shared.stop = true;
    }
}

/// The loop, as a callback that belongs to no connection sees it.
#[derive(Debug)]
pub struct LoopContext<'a> {
    pub(crate) shared: &'a mut LoopState,
}

impl LoopContext<'_> {
    /// The time of this turn, read when poll returned.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.shared.now
    }

    /// Schedules a call of [`crate::Handler::writable`], see [`Context::wake`].
    pub fn wake(&mut self, other: Token) {
        self.shared.wake(other);
    }

    /// Begins an outbound connection at the end of this turn, or of a later turn when `connects_per_turn_max` were begun in this one. Its timeout
    /// counts from then. The result is exactly one call of [`crate::Handler::opened`] (with [`crate::Origin::Connected`]) or
    /// [`crate::Handler::connect_failed`] (test: `an_outbound_connection_begins_or_fails_exactly_once`). It counts for `connections_max`.
    ///
    /// When the connection fails later, the input that the peer sent before is still delivered to [`crate::Handler::input`], because a server
    /// may respond with 413 and reset an upload (test: `an_outbound_connection_delivers_what_its_peer_sent_before_it_failed`). Output
    /// written then is discarded, and the connection closes as [`crate::CloseReason::Reset`] after that input. If the handler has paused the
    /// connection, it stays open until the handler resumes it, and the input is delivered then.
    ///
    /// # Errors
    /// Returns the `Connect` when [`crate::Limits::connects_waiting_max`] are waiting already, or when the loop is closing everything
    /// ([`crate::EventLoop::finish`]). Neither of the two callbacks is called then.
    pub fn connect(&mut self, connect: Connect) -> Result<(), Connect> {
        self.shared.connect(connect)
    }

    /// Ends the loop after this turn.
    pub fn stop(&mut self) {
        self.shared.stop = true;
    }
}
