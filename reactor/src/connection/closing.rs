//! How a connection ends: flush, FIN, discard what still comes, close; in that order. Or by a reset, where something was cut short.
//!
//! Closing a socket with unread input makes the kernel send a reset instead of FIN (`tcp_close`, RFC 2525 section 2.17), and the peer
//! may lose the last response. So we say FIN first and read what still comes, within limits (RFC 9112 section 9.6; nginx
//! `lingering_close`).
//!
//! FIN says "that was all". To a peer that knows no length it is the only sign that an answer is complete (HTTP/1.0, RFC 9112 section 6.3), so
//! a connection that ends in the middle of one must not send it. And close(2) alone leaves what is unsent in the kernel, which goes on offering
//! it to a peer that has stopped reading, for minutes, with nobody's connection to count it on (failure mode L6; nginx
//! `reset_timedout_connection`). `SO_LINGER` of zero makes close(2) a reset and frees the memory at once. Read next: `event_loop.rs`.

use crate::clock;
use crate::connection::drain_read::{Drained, drain_read};
use crate::connection::flags::Flags;
use crate::connection::slots::Evicted;
use crate::connection::visit::Visit;
use crate::handler::{CloseReason, Handler};
use crate::os::Os;
use crate::policy::{ClosePolicy, DrainPolicy, WhenNearlyFull};

impl<H: Handler, O: Os> Visit<'_, H, O> {
    /// Goes on with an end that was asked for.
    #[cold]
    pub(crate) fn settle_closing(&mut self) {
        let slot = self.token.slot;
        let flags = self.entry.control.flags;
        if !flags.has(Flags::ABORT.or(Flags::CLOSE).or(Flags::LINGERING)) || flags.has(Flags::DEAD) {
            return;
        }
        if flags.has(Flags::REFUSED) {
            self.entry.reason = CloseReason::Refused;
        }
        if flags.has(Flags::ABORT) {
            let reason = match self.entry.reason {
                CloseReason::Finished => CloseReason::Aborted,
                reason => reason,
            };
            return self.break_off(reason);
        }
        self.shared.drop_input(slot);
        if !flags.has(Flags::LINGERING) && self.shared.slots.get(slot).output.is_none() {
            self.start_lingering();
        }
    }

    fn start_lingering(&mut self) {
        let reason = self.entry.reason;
        if self.is_cut_short() {
            return self.break_off(reason);
        }
        if self.entry.control.flags.has(Flags::INPUT_ENDED) {
            let reason = if reason == CloseReason::Finished { CloseReason::PeerClosed } else { reason };
            return self.die(reason);
        }
        match self.shared.policy.close {
            ClosePolicy::Linger => {}
            ClosePolicy::AtOnce => return self.die(reason), // MISTAKE(early-close): a close with input unread is a reset, and a client that is still sending gets an error instead of the answer.
        }
        if self.os.shutdown_write(&mut self.entry.stream).is_err() {
            return self.die(CloseReason::Reset);
        }
        self.entry.control.flags.set(Flags::LINGERING);
        self.entry.control.flags.clear(Flags::WANTS_ROOM);
        self.entry.tag_or_linger_bytes = u64::from(self.shared.limits.linger_bytes_max);
        let linger_timeout = match reason {
            CloseReason::Refused => self.shared.limits.refused_linger_timeout,
            // It has its answer, and others need its place: no longer than a refused one.
            _ if self.is_crowded() => self.shared.limits.refused_linger_timeout.min(self.shared.limits.linger_timeout),
            _ => self.shared.limits.linger_timeout,
        };
        self.entry.control.deadline = clock::after(self.shared.now, linger_timeout);
        self.entry.stall_at = None;
        self.shared.stats.connections_lingering.add(1);
    }

    /// Whether fewer places are free than are kept for newcomers.
    fn is_crowded(&self) -> bool {
        match self.shared.policy.when_nearly_full {
            WhenNearlyFull::MakeRoom => self.shared.stats.connections_open.get() > u64::from(self.shared.limits.connections_at_ease_max()),
            WhenNearlyFull::Keep => false,
        }
    }

    /// Reads and forgets, until the peer's FIN or a limit.
    pub(crate) fn discard(&mut self) {
        if !self.entry.control.flags.has(Flags::READABLE) {
            return;
        }
        let reads_max = self.shared.limits.visit_reads_max.min(4);
        for _ in 0..reads_max {
            let Ok(outcome) = drain_read(&mut self.entry.stream, &mut self.scratch.bytes, 1, DrainPolicy::UntilWouldBlock, false) else {
                return self.die(self.entry.reason);
            };
            self.shared.progress = true;
            self.entry.tag_or_linger_bytes = self.entry.tag_or_linger_bytes.saturating_sub(outcome.bytes as u64);
            self.shared.stats.bytes_discarded.add(outcome.bytes as u64);
            match outcome.drained {
                Drained::PeerClosed | Drained::Failed(_) => return self.die(self.entry.reason),
                Drained::Empty => return self.entry.control.flags.clear(Flags::READABLE),
                _ if self.entry.tag_or_linger_bytes == 0 => return self.die(self.entry.reason),
                Drained::BudgetSpent | Drained::BufferFull => {}
            }
        }
    }

    /// Whether the peer has a part of something, or is owed what was written for it.
    fn is_cut_short(&self) -> bool {
        let beside = self.shared.slots.get(self.token.slot);
        let unsent = beside.output.is_some() || beside.evicted == Evicted::Output;
        unsent || self.entry.conn.as_ref().is_some_and(|conn| self.handler.is_unfinished(conn))
    }

    /// Ends with a reset: what is unsent is forgotten, here and in the kernel, and the peer learns that it has not got everything.
    pub(crate) fn break_off(&mut self, reason: CloseReason) {
        self.entry.control.flags.set(Flags::RESET);
        self.die(reason);
    }

    /// Nothing more happens to this connection but its close, in the end-of-turn stage. Its memory is free at once.
    pub(crate) fn die(&mut self, reason: CloseReason) {
        if self.entry.control.flags.has(Flags::DEAD) {
            return;
        }
        // After FIN all is said: a reset would take from the peer what is still on its way.
        if !self.entry.control.flags.has(Flags::LINGERING) && self.is_cut_short() {
            self.entry.control.flags.set(Flags::RESET);
        }
        let flags = &mut self.entry.control.flags;
        if flags.has(Flags::LINGERING) {
            self.shared.stats.connections_lingering.sub(1);
        }
        flags.set(Flags::DEAD);
        self.stay();
        self.entry.reason = reason;
        self.shared.bury(self.token.slot);
    }
}
