//! The stage of a turn that runs deadlines: of connections, of pending output that has stalled, of connects, and of the handler itself.
//!
//! Input comes before deadlines: the loop looks at the socket before a connection times out. Bytes may have arrived while the thread waited
//! for a CPU between epoll_wait(2) and the clock reading, or poll had no place for the event. A late loop must not time out a client whose
//! bytes have arrived, such as the next request on a keep-alive connection. It costs one read(2) for each timeout. Test:
//! `input_comes_before_deadlines`.

use std::io;

use crate::callback::Callback;
use crate::context::LoopContext;
use crate::event_loop::{EventLoop, TRIM_EVERY};
use crate::handler::Handler;
use crate::os::{Os, Ready};
use crate::slot::{Bits, Phase};
use crate::stats::Stats;

impl<H: Handler, O: Os> EventLoop<H, O> {
    /// Expires deadlines, calls `woke` when it is due, and trims the buffer pool.
    pub(crate) fn run_deadlines(&mut self) {
        if self.shared.wheel.next().is_some_and(|at| at <= self.shared.now) {
            self.expire_deadlines();
        }
        if let Some(at) = self.handler.next_wake().filter(|at| *at <= self.shared.now) {
            self.shared.stats.loop_lag.record(self.shared.now - at);
            self.shared.stats.enter(Callback::Woke, Stats::NO_SLOT);
            self.handler.woke(&mut LoopContext { shared: &mut self.shared });
            self.shared.stats.leave();
        }
        if self.trim_at <= self.shared.now {
            self.shared.buffers.trim();
            self.trim_at = self.shared.now + TRIM_EVERY;
        }
    }

    /// Expires deadlines of connections, within the stage's count and time. Test:
    /// `ten_thousand_deadlines_at_one_instant_run_within_a_budget_and_delay_no_other`.
    fn expire_deadlines(&mut self) {
        let mut stage = self.stage(self.shared.limits.deadlines_time_max);
        for _ in 0..self.shared.limits.deadlines_per_turn_max {
            let Some((slot, due)) = self.shared.wheel.expire(self.shared.now) else { return };
            if self.expire(slot) {
                self.shared.stats.loop_lag.record(self.shared.now.saturating_duration_since(due));
                self.shared.progress = true;
            }
            if self.time_is_up(&mut stage, 1) {
                return;
            }
        }
    }

    /// Handles a connection whose time on the wheel has passed. False if its deadline has moved later since the wheel was set.
    fn expire(&mut self, slot: u32) -> bool {
        let now = self.shared.now;
        let state = self.shared.slots.get_mut(slot);
        if state.stall_at.is_some_and(|at| at <= now) {
            self.output_window_ends(slot);
            return true;
        }
        let is_due = state.deadline.is_some_and(|at| at <= now);
        if is_due {
            state.deadline = None;
        }
        // The wheel does not hold the connection now. Its other time is set before the visit, which compares with it (`Visit::settle`).
        let (due, phase, reason) = (state.due(), state.phase, state.reason);
        self.shared.wheel.set(slot, due, now);
        if !is_due {
            return false;
        }
        // Each branch looks at the socket first, for the reason in the module's doc.
        match phase {
            Phase::Connecting { .. } => {
                self.connect_event(slot, Ready::default());
                // Nothing happens if the look has ended the attempt.
                self.connect_ended(slot, Err(io::ErrorKind::TimedOut.into()));
            }
            // The response is complete, so the handler gets no callback.
            Phase::Lingering { .. } => {
                // Unread input would make the close a reset, which can destroy the last response. Test:
                // `bytes_that_arrive_between_poll_and_the_clock_do_not_make_the_end_of_lingering_a_reset`.
                self.shared.slots.get_mut(slot).bits.insert(Bits::READABLE);
                self.visit(slot, 0);
                self.kill(slot, reason);
            }
            // A deadline that the handler set before the close limits the sending too.
            Phase::Flushing => self.kill(slot, reason),
            Phase::Open => {
                if let Some(mut visit) = self.visit_to(slot, self.shared.limits.first_visit_messages_max) {
                    visit.run(|visit| visit.look_before_the_deadline(now));
                }
            }
            Phase::Vacant | Phase::Aborting | Phase::Dead { .. } => {}
        }
        true
    }
}
