//! What a callback may do: write, pause, set a deadline, wake others. Nothing here calls the system or another callback.
//!
//! A [`Context`] borrows the output buffer of the visit, the connection's flags and the loop's lists, never the socket and never the
//! slab: so it needs no type parameter and a service never sees one. What needs the system (connect, close) is written down and done
//! by the loop after the callback.

use std::time::{Duration, Instant};

use crate::clock;
use crate::io::{Output, OutputScratch};
use crate::shared::{Connect, Shared};
use crate::slot::{Control, Flags};
use crate::token::Token;

/// The loop and one connection, as a callback of that connection sees them.
#[derive(Debug)]
pub struct Context<'a> {
    pub(crate) shared: &'a mut Shared,
    pub(crate) output: &'a mut OutputScratch,
    /// Where this connection's output must end in the scratch: the high water less what is unsent from before.
    pub(crate) output_end_max: usize,
    pub(crate) control: &'a mut Control,
    pub(crate) token: Token,
}

impl Context<'_> {
    /// The time of this turn. Older than the clock by as long as the turn has lasted.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Instant {
        self.shared.now
    }

    /// Who this connection is, for mail and for [`Context::wake`].
    #[must_use]
    #[inline]
    pub fn token(&self) -> Token {
        self.token
    }

    /// Appends what fits of `bytes` to the output, and returns how many that were. The rest is the caller's to keep, and
    /// [`Context::want_room`] to be called again.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        self.output().write(bytes)
    }

    /// The output, to encode into.
    #[inline]
    pub fn output(&mut self) -> Output<'_> {
        Output::new(self.output, self.output_end_max)
    }

    /// How many bytes [`Context::write`] would take.
    #[must_use]
    #[inline]
    pub fn room(&self) -> usize {
        self.output_end_max.saturating_sub(self.output.len())
    }

    /// Asks for [`crate::Handler::room`] when more fits. It comes once; ask again if it was not enough. [`crate::Handler::input`] that takes
    /// nothing and asks is called again after `room`; if neither of them gets anywhere with all the space there is, the connection closes
    /// ([`crate::CloseReason::OutputSpaceTooSmall`]).
    #[inline]
    pub fn want_room(&mut self) {
        self.control.flags.insert(Flags::WANTS_ROOM);
    }

    /// No [`crate::Handler::input`] until [`Context::resume`]. Unread input stays in the kernel, whose window then closes: that is the
    /// backpressure the peer feels.
    #[inline]
    pub fn pause(&mut self) {
        self.control.flags.insert(Flags::PAUSED);
    }

    /// Ends [`Context::pause`]. What has arrived meanwhile is delivered without waiting for an event.
    #[inline]
    pub fn resume(&mut self) {
        self.control.flags.remove(Flags::PAUSED);
    }

    /// From now on this connection waits for its peer, and nothing is under way for it: when the connection limit nears, the loop may
    /// close it to make room ([`crate::policy::WhenNearlyFull`]), those first that have waited for the longest. Called again, it counts
    /// as young: so call it when a wait begins, and not for every byte. Output that the kernel has not taken protects it as well; and a last look
    /// that cannot read all there is ends the wait, until this is called again.
    #[inline]
    pub fn expendable(&mut self) {
        self.control.flags.insert(Flags::EXPENDABLE.union(Flags::RENEWED));
    }

    /// Names the group that this connection's buffers count for from now on: a number for its source address, say. When the buffer memory is full,
    /// the group that holds the most bytes gives a buffer up first, so the thousand slow connections of one address do not cost another address
    /// its one. Without it all connections are one group, 0.
    pub fn set_group(&mut self, group: u32) {
        self.shared.slots.get_mut(self.token.slot).group = group;
    }

    /// Ends [`Context::expendable`]: something is under way for the peer. So it is at the start, for handlers that never say.
    #[inline]
    pub fn essential(&mut self) {
        self.control.flags.remove(Flags::EXPENDABLE.union(Flags::RENEWED));
    }

    /// Whether input is held back on our side: by [`Context::pause`], or by unsent output at the high water. What does not come then is not
    /// the peer's fault.
    #[must_use]
    #[inline]
    pub fn input_is_held(&self) -> bool {
        self.control.flags.intersects(Flags::HELD)
    }

    /// Closes in order once the output is sent: FIN, then input is discarded within `linger_timeout` and `linger_bytes_max`, then
    /// close(2). No further [`crate::Handler::input`].
    #[inline]
    pub fn close(&mut self) {
        self.control.flags.insert(Flags::CLOSE);
    }

    /// As [`Context::close`], for a peer that was not let in: counted as refused, and it lingers for `refused_linger_timeout` only.
    #[inline]
    pub fn refuse(&mut self) {
        self.control.flags.insert(Flags::CLOSE.union(Flags::REFUSED));
    }

    /// Closes without sending what is left, by a reset (RFC 9293 section 3.10.5, ABORT): the peer must not take it for the end.
    #[inline]
    pub fn abort(&mut self) {
        self.control.flags.insert(Flags::ABORT);
    }

    /// Sets the connection's one deadline, or none. It is never early, and late by at most a millisecond and the turn. Setting a
    /// later time costs a store.
    #[inline]
    pub fn deadline(&mut self, at: Option<Instant>) {
        self.control.deadline = at;
    }

    /// The deadline set last.
    #[must_use]
    #[inline]
    pub fn current_deadline(&self) -> Option<Instant> {
        self.control.deadline
    }

    /// `after`, lengthened by up to a tenth, differently for each connection: 10,000 that went idle together must not expire together
    /// (failure mode H6; HAProxy `spread-checks` and `close-spread-time`).
    #[must_use]
    #[inline]
    pub fn spread(&self, after: Duration) -> Duration {
        // Fibonacci hashing (Knuth, The Art of Computer Programming 3, section 6.4): neighbouring slots land far apart.
        let part = self.token.slot.wrapping_mul(2_654_435_769) >> 22;
        clock::lengthened(after, part)
    }

    /// Has [`crate::Handler::room`] of another connection called, in this turn or the next. Any number of calls before that are one.
    #[inline]
    pub fn wake(&mut self, other: Token) {
        self.shared.wake(other);
    }

    /// See [`LoopContext::connect`].
    ///
    /// # Errors
    /// As there.
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
    pub(crate) shared: &'a mut Shared,
}

impl LoopContext<'_> {
    /// The time of this turn.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.shared.now
    }

    /// See [`Context::wake`].
    pub fn wake(&mut self, other: Token) {
        self.shared.wake(other);
    }

    /// Begins an outbound connection at the end of this turn, or of a later one when `connects_per_turn_max` have been begun in this; its timeout
    /// counts from then. It ends in exactly one of [`crate::Handler::opened`] (with
    /// [`crate::Origin::Connected`]) and [`crate::Handler::connect_failed`]; `connections_max` counts it.
    ///
    /// When the connection fails later, what the peer sent before is still delivered to [`crate::Handler::input`]: a server may answer 413
    /// and reset an upload. Output that is written then is discarded, and the connection closes as [`crate::CloseReason::Reset`] after that
    /// input. A handler that has paused it gets the input when it resumes; until then the connection stays open.
    ///
    /// # Errors
    /// Gives the `Connect` back when [`crate::Limits::connects_waiting_max`] wait already, or when the loop is closing everything
    /// ([`crate::EventLoop::finish`]). Nothing comes of it then: neither of the two callbacks.
    pub fn connect(&mut self, connect: Connect) -> Result<(), Connect> {
        self.shared.connect(connect)
    }

    /// Ends the loop after this turn.
    pub fn stop(&mut self) {
        self.shared.stop = true;
    }
}
