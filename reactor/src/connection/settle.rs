//! The end of every visit: in exactly one place, on the ready list or waiting for an event, mail, a deadline or the close.
//!
//! Read next: `closing.rs`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::callback::Callback;
use crate::connection::buffers::BufferOwner;
use crate::connection::flags::Flags;
use crate::connection::slots::{Beside, Evicted};
use crate::connection::visit::Visit;
use crate::connection::water_marks::{hold_or_let_go, may_say_more};
use crate::handler::{CloseReason, Handler};
use crate::os::Os;
use crate::policy::{HalfClose, OutputBound, ReadyRule, ResumePolicy};

impl<H: Handler, O: Os> Visit<'_, H, O> {
    #[cold]
    pub(super) fn panicked(&mut self) {
        self.shared.stats.leave();
        self.shared.stats.panics.add(1);
        self.output.truncate(self.output_before);
        let flags = self.flags();
        flags.clear(Flags::WANTS_ROOM.or(Flags::UNPARSED));
        let told = catch_unwind(AssertUnwindSafe(|| {
            self.call(Callback::Panicked, |handler, conn, cx| handler.panicked(conn, cx));
        }));
        self.entry.reason = CloseReason::Panicked;
        self.flush();
        self.flags().set(Flags::CLOSE);
        if told.is_err() || self.entry.conn.is_none() {
            self.flags().set(Flags::ABORT);
        }
        if let Some(lease) = self.scratch.in_hand.take() {
            self.shared.buffers.give_back(BufferOwner::Input, lease);
        }
        self.shared.drop_input(self.token.slot);
    }

    /// The end of every visit: where the connection waits, and for what.
    #[inline]
    pub(super) fn settle(&mut self) {
        let slot = self.token.slot;
        if self.entry.control.flags.has(Flags::DEAD.or(Flags::ABORT).or(Flags::CLOSE).or(Flags::LINGERING).or(Flags::FAILED)) {
            if self.entry.control.flags.has(Flags::FAILED) {
                self.settle_failed();
            }
            self.settle_closing();
            if self.entry.control.flags.has(Flags::DEAD) {
                return;
            }
        }
        // The FIN came with what it has asked for.
        if self.entry.control.flags.has(Flags::INPUT_ENDED)
            && self.entry.control.flags.has(Flags::PAUSED)
            && self.shared.policy.half_close == HalfClose::HasLeft
            && !self.entry.control.flags.has(Flags::NO_MORE_MESSAGES.or(Flags::OUTBOUND))
        {
            return self.die(CloseReason::PeerClosed);
        }
        self.settle_age();
        let beside = self.shared.slots.get(slot);
        let bound = self.shared.policy.output;
        hold_or_let_go(&mut self.entry.control.flags, beside, &self.shared.limits, bound, self.shared.buffers.output_space_bytes());
        let on_the_list = match self.shared.policy.ready_rule {
            ReadyRule::CanProgress => can_progress(self.entry.control.flags, beside, bound),
            ReadyRule::HasWork => can_progress(self.entry.control.flags, beside, bound) || beside.output.is_some(), // MISTAKE(hot-loop): a connection that waits for its peer stays on the list, and no poll ever sleeps.
        };
        if on_the_list {
            match self.shared.policy.resume {
                ResumePolicy::ReadyList => self.shared.queue_old(slot),
                ResumePolicy::NextEvent => {} // MISTAKE(lost-resume): what it has left is already in the kernel or in our buffer, and no event will come for that.
            }
        }
        // The wheel holds the connection at this time or an earlier one. A deadline that has moved later, as it does with every request, is
        // looked at when the earlier time comes (`expire` in turn.rs), and costs nothing now.
        if let Some(due) = self.entry.due()
            && self.due_before.is_none_or(|before| due < before)
        {
            self.shared.wheel.set(slot, Some(due), self.shared.now);
        }
    }
}

/// The one rule of the ready list: whether a visit now would get anywhere without anything new from the peer.
#[inline]
pub(crate) fn can_progress(flags: Flags, beside: &Beside, bound: OutputBound) -> bool {
    if flags.has(Flags::DEAD.or(Flags::CONNECTING)) {
        return false;
    }
    if beside.woken || beside.evicted != Evicted::Nothing || flags.has(Flags::LEAVING) {
        return true;
    }
    if flags.has(Flags::LINGERING) {
        return flags.has(Flags::READABLE);
    }
    if beside.output.is_some() && flags.has(Flags::WRITABLE) {
        return true;
    }
    if flags.has(Flags::CLOSE) {
        return false;
    }
    if flags.has(Flags::WANTS_ROOM) && !flags.has(Flags::FAILED) && may_say_more(beside, bound) {
        return true;
    }
    if flags.has(Flags::HELD) {
        return false;
    }
    // Input that waits for room is offered again after `room`.
    let waits = flags.has(Flags::INPUT_WAITS);
    let unread = flags.has(Flags::READABLE) && !flags.has(Flags::INPUT_ENDED) && !waits;
    let end_untold = flags.has(Flags::INPUT_ENDED) && !flags.has(Flags::END_TOLD);
    let unparsed = flags.has(Flags::UNPARSED) && !waits;
    unread || unparsed || (end_untold && !flags.has(Flags::UNPARSED))
}
