//! What is known about one connection, a bit each. Readiness is state here, not a message.
//!
//! Each sticky bit is written in few, named places: `READABLE` is set by events (and for a last look, `pressure.rs`) and cleared by
//! `drain_read`'s exit, `WRITABLE` by events and `drain_write`'s. Read next: `visit.rs`.

/// The bits of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u32);

impl Flags {
    /// The kernel may have input for us. Cleared only by a read that shows there is none.
    pub(crate) const READABLE: Flags = Flags(1);
    /// The kernel may take output. Cleared only by `WouldBlock`.
    pub(crate) const WRITABLE: Flags = Flags(1 << 1);
    /// A close bit or urgent data was reported: a short read proves nothing any more (netty PR 6199, tcp(7) on urgent data).
    pub(crate) const READ_TO_THE_END: Flags = Flags(1 << 2);
    /// `read` returned 0: the peer has sent its last byte, and we have read it.
    pub(crate) const INPUT_ENDED: Flags = Flags(1 << 3);
    /// The handler was told so.
    pub(crate) const END_TOLD: Flags = Flags(1 << 4);
    /// The handler wants no input for now.
    pub(crate) const PAUSED: Flags = Flags(1 << 5);
    /// The handler wants `room` when there is some.
    pub(crate) const WANTS_ROOM: Flags = Flags(1 << 6);
    /// Unsent output reached the high water and has not fallen to the low one.
    pub(crate) const OUTPUT_FULL: Flags = Flags(1 << 7);
    /// The kept input has not been offered to the handler to its end: it may hold a complete message.
    pub(crate) const UNPARSED: Flags = Flags(1 << 8);
    /// To be closed in order when the output is sent.
    pub(crate) const CLOSE: Flags = Flags(1 << 9);
    /// To be closed now.
    pub(crate) const ABORT: Flags = Flags(1 << 10);
    /// FIN is sent; input is discarded until the peer's FIN or a limit.
    pub(crate) const LINGERING: Flags = Flags(1 << 11);
    /// On the list of closes; nothing else happens to it.
    pub(crate) const DEAD: Flags = Flags(1 << 12);
    /// connect(2) is under way; no handler state yet.
    pub(crate) const CONNECTING: Flags = Flags(1 << 13);
    /// The handler took nothing of its input and asked for room: nothing is read or offered before there is some.
    pub(crate) const INPUT_WAITS: Flags = Flags(1 << 14);
    /// Its close(2) is to send a reset: something was cut short, and FIN would say that it was whole.
    pub(crate) const RESET: Flags = Flags(1 << 15);
    /// It waits for its peer, and may be closed to make room for others.
    pub(crate) const EXPENDABLE: Flags = Flags(1 << 16);
    /// It was refused: it lingers for no longer than those over `connections_max`.
    pub(crate) const REFUSED: Flags = Flags(1 << 17);
    /// It has begun to wait since its place among the expendable was last seen to.
    pub(crate) const RENEWED: Flags = Flags(1 << 18);
    /// It is to make room for newcomers, unless a last look at its socket finds that it has spoken.
    pub(crate) const LEAVING: Flags = Flags(1 << 19);
    /// We connected to the peer: what it sent before the connection failed is delivered (`failed.rs`).
    pub(crate) const OUTBOUND: Flags = Flags(1 << 20);
    /// An outbound connection's socket has failed: output is discarded, and input is read until nothing more has arrived.
    pub(crate) const FAILED: Flags = Flags(1 << 21);
    /// The peer's FIN came before the failure: a read of 0 bytes is the end of the input and not the reset.
    pub(crate) const FIN_BEFORE_FAILURE: Flags = Flags(1 << 22);
    /// The handler was notified that the loop drains.
    pub(crate) const DRAIN_NOTIFIED: Flags = Flags(1 << 23);

    /// No more input is wanted, for good: closing or gone.
    pub(crate) const NO_MORE_MESSAGES: Flags = Flags(Self::CLOSE.0 | Self::ABORT.0 | Self::LINGERING.0 | Self::DEAD.0 | Self::CONNECTING.0);
    /// No more messages for now.
    pub(crate) const HELD: Flags = Flags(Self::NO_MORE_MESSAGES.0 | Self::PAUSED.0 | Self::OUTPUT_FULL.0);

    pub(crate) const fn or(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether any bit of `other` is set.
    #[inline]
    pub(crate) const fn has(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether of the bits of `mask` exactly those of `wanted` are set.
    #[inline]
    pub(crate) const fn only(self, mask: Flags, wanted: Flags) -> bool {
        self.0 & mask.0 == wanted.0
    }

    #[inline]
    pub(crate) fn set(&mut self, other: Flags) {
        self.0 |= other.0;
    }

    #[inline]
    pub(crate) fn clear(&mut self, other: Flags) {
        self.0 &= !other.0;
    }
}
