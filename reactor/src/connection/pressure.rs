//! Who goes for the sake of others: when there is no room, no memory, or soon no place for newcomers.
//!
//! *Near the connection limit* those that wait for their peer make room, oldest first: idle connections and requests that dribble in. An
//! attacker's thousands are older than whoever comes now, so newcomers are served; and whoever speaks is young again, or is being answered
//! and never goes; who only lingers, after its answer, lingers for less (`closing.rs`). The youngest few stay too: between a connection and its
//! request there is a moment. Without it, slow clients hold every place until their timeouts, and each newcomer is refused (failure mode P3).
//!
//! Two steps, since what a client has just sent may still lie in its socket: `pick_leavers`, after the input and the deadlines of a turn,
//! puts the oldest on the ready list; in the next turn a last look reads, and only who has said nothing goes. The order is kept by a list
//! of links beside the slots: a few stores for each visit that ends a wait, and nothing is searched. Read next: `settle.rs`, `closing.rs`.

use crate::callback::Callback;
use crate::connection::flags::Flags;
use crate::connection::slots::{Beside, Evicted};
use crate::connection::visit::Visit;
use crate::event_loop::EventLoop;
use crate::handler::{CloseReason, Handler, Pressure};
use crate::os::Os;
use crate::policy::WhenNearlyFull;

impl<H: Handler, O: Os> EventLoop<H, O> {
    /// The stage of a turn that keeps places free for newcomers. No more leave in a turn than can be closed in one.
    pub(crate) fn pick_leavers(&mut self) {
        match self.shared.policy.when_nearly_full {
            WhenNearlyFull::MakeRoom => {}
            WhenNearlyFull::Keep => return,
        }
        let limits = &self.shared.limits;
        let safe_max = limits.newcomers_safe_max();
        let mut stay_max = limits.connections_at_ease_max();
        if self.listeners.iter().any(|listener| listener.ready && listener.socket.is_some()) {
            // Somebody may be waiting. Where no room is kept and nobody is refused, nothing else would ever let them in.
            stay_max = stay_max.min(limits.connections_max - 1);
        }
        for _ in 0..limits.closes_per_turn_max {
            // Those that are to leave, or wait for their close(2), hold their places for a turn at most.
            let staying = self.entries.len() - self.shared.closes.len() - self.shared.leaving as usize;
            if staying <= stay_max as usize {
                return;
            }
            if self.shared.slots.expendable_len() <= safe_max {
                return; // Where all others are being answered, whoever comes would go before its request has come.
            }
            let Some(oldest) = self.shared.slots.oldest_expendable() else { return };
            let Some(entry) = self.entries.get_mut(oldest as usize) else { return };
            entry.control.flags.set(Flags::LEAVING);
            self.shared.leaving += 1;
            self.shared.slots.unlink_expendable(oldest);
            self.shared.queue_new(oldest);
        }
    }
}

/// Whether nothing is under way for a connection: its peer is to speak, and has got all that was said to it.
#[inline]
pub(crate) fn is_expendable(flags: Flags, beside: &Beside) -> bool {
    flags.has(Flags::EXPENDABLE) && !flags.has(Flags::NO_MORE_MESSAGES) && beside.output.is_none() && beside.evicted != Evicted::Output
}

impl<H: Handler, O: Os> Visit<'_, H, O> {
    pub(super) fn press(&mut self, pressure: Pressure) {
        if self.entry.control.flags.has(Flags::NO_MORE_MESSAGES) {
            return; // It goes already. A word after our FIN would be an error of ours and end in a reset.
        }
        if pressure == Pressure::Draining {
            if self.entry.control.flags.has(Flags::DRAIN_NOTIFIED) {
                return;
            }
            self.flags().set(Flags::DRAIN_NOTIFIED);
        }
        self.call(Callback::Pressed, |handler, conn, cx| handler.pressed(conn, pressure, cx));
        let reason = match pressure {
            Pressure::ConnectionsMax => CloseReason::Refused,
            Pressure::BufferMemory => CloseReason::InputEvicted,
            Pressure::NearlyFull => CloseReason::MadeRoom,
            Pressure::Draining => return,
        };
        self.entry.reason = reason;
        self.flags().set(Flags::CLOSE);
    }

    /// `pressed` for memory taken back, `room` for a wake-up.
    #[cold]
    pub(super) fn owed_calls(&mut self) {
        let beside = self.shared.slots.get_mut(self.token.slot);
        let (evicted, woken) = (beside.evicted, beside.woken);
        (beside.evicted, beside.woken) = (Evicted::Nothing, false);
        if evicted == Evicted::Input {
            self.press(Pressure::BufferMemory);
        } else if woken && !self.entry.control.flags.has(Flags::NO_MORE_MESSAGES) {
            self.call(Callback::Room, |handler, conn, cx| handler.room(conn, cx));
        }
    }

    /// The visit of a connection that is to make room.
    #[cold]
    pub(super) fn look_for_the_last_time(&mut self) {
        if !self.entry.control.flags.has(Flags::INPUT_ENDED) {
            // Poll reports only so many events at a time: what this client has just sent may not be among them yet.
            self.flags().set(Flags::READABLE);
        }
        self.go_on();
        let flags = self.entry.control.flags;
        if flags.has(Flags::RENEWED) || !is_expendable(flags, self.beside()) {
            return; // It has spoken, or goes anyway. `settle` takes its mark away.
        }
        if flags.has(Flags::READABLE.or(Flags::UNPARSED)) && !flags.has(Flags::HELD) {
            // A budget was spent, and its socket holds more: nobody who sends faster than a visit reads is waited for. It is asked again when
            // the handler says that another wait has begun. A look in each turn would promise its place to newcomers for as long as it sends,
            // and they would be neither served nor refused.
            return self.flags().clear(Flags::EXPENDABLE.or(Flags::RENEWED));
        }
        self.press(Pressure::NearlyFull);
        self.flush();
        // Its place is needed now. Its input is read to the end, so the kernel sends FIN behind what was said, and no reset.
        self.die(CloseReason::MadeRoom);
    }

    /// It has spoken, or is being answered, or has ended: it need not make room.
    #[inline]
    pub(super) fn stay(&mut self) {
        if self.entry.control.flags.has(Flags::LEAVING) {
            self.entry.control.flags.clear(Flags::LEAVING);
            self.shared.leaving -= 1;
        }
    }

    /// Keeps the connection's place among those that may make room: at the young end when a wait has begun.
    #[inline]
    pub(super) fn settle_age(&mut self) {
        let slot = self.token.slot;
        let flags = self.entry.control.flags;
        let is_expendable = is_expendable(flags, self.beside());
        if is_expendable && !flags.has(Flags::RENEWED) {
            return; // Where it was, or it has its mark.
        }
        self.stay();
        if is_expendable {
            self.entry.control.flags.clear(Flags::RENEWED);
            self.shared.slots.renew_expendable(slot);
        } else {
            self.shared.slots.unlink_expendable(slot);
            if flags.has(Flags::EXPENDABLE) {
                // Until its output is sent. It counts from then, and must not be forgotten.
                self.entry.control.flags.set(Flags::RENEWED);
            }
        }
    }
}
