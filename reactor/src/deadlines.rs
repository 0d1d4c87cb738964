//! What happens when a connection's time has come: input before deadlines, always.
//!
//! A connection is read once before its deadline runs. Its bytes may have arrived while the thread waited for a processor between epoll_wait(2)
//! and the clock, or while poll had no place for its event, and a late loop must not time out a client that has spoken (`keep-alive race`). It costs
//! one read(2) for each timeout.

use std::io;

use crate::callback::Callback;
use crate::close_reason::CloseReason;
use crate::context::LoopContext;
use crate::event_loop::{EventLoop, TRIM_EVERY};
use crate::handler::Handler;
use crate::os::{Os, Ready};
use crate::slot::Flags;
use crate::stats::Stats;

impl<H: Handler, O: Os> EventLoop<H, O> {
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

    /// A connection's time on the wheel has come. False if its deadline has moved later since it was hung up.
    fn expire(&mut self, slot: u32) -> bool {
        let now = self.shared.now;
        let Some(entry) = self.entries.get_mut(slot as usize) else { return false };
        if entry.stall_at.is_some_and(|at| at <= now) {
            self.stall_expires(slot);
            return true;
        }
        let is_due = entry.control.deadline.is_some_and(|at| at <= now);
        if is_due {
            entry.control.deadline = None;
        }
        // It hangs nowhere now: what it still waits for goes back, before a visit that compares with it.
        let due = entry.due();
        self.shared.wheel.set(slot, due, now);
        if !is_due {
            return false;
        }
        // Each of them looks at its socket first: poll may have had no place for its event, or the thread may not have run between the return of
        // poll and the reading of the clock.
        if entry.control.flags.intersects(Flags::CONNECTING) {
            self.connect_event(slot, Ready::default());
            if self.entries.get(slot as usize).is_some_and(|entry| entry.control.flags.intersects(Flags::CONNECTING)) {
                self.connect_ended(slot, Err(io::ErrorKind::TimedOut.into()));
            }
        } else if entry.control.flags.intersects(Flags::LINGERING.union(Flags::CLOSE)) {
            // Its last word is said: what the handler would add came behind it. A limit that it left standing holds for the sending too.
            let reason = entry.reason;
            if entry.control.flags.intersects(Flags::LINGERING) {
                // Input that is unread at the close makes it a reset, which can take the last response from the client.
                entry.control.flags.insert(Flags::READABLE);
                self.visit(slot, 0);
            }
            self.kill(slot, reason);
        } else if let Some(mut visit) = self.visit_to(slot, self.shared.limits.first_visit_messages_max) {
            visit.run(|visit| visit.look_before_the_deadline(now));
        }
        true
    }

    /// The output of a connection has made no progress for `write_stall_timeout`. The kernel may take some now, and its event may be on its
    /// way: one write tells.
    fn stall_expires(&mut self, slot: u32) {
        let Some(entry) = self.entries.get_mut(slot as usize) else { return };
        entry.stall_at = None;
        entry.control.flags.insert(Flags::WRITABLE);
        let due = entry.due();
        self.shared.wheel.set(slot, due, self.shared.now);
        if let Some(mut visit) = self.visit_to(slot, 0) {
            // Every visit begins with the pending output, and a write that gets anywhere begins a new stall.
            visit.run(|_| {});
        }
        let has_stalled = self.entries.get(slot as usize).is_some_and(|entry| entry.stall_at.is_none());
        if has_stalled && self.shared.slots.get(slot).output.is_some() {
            self.kill(slot, CloseReason::WriteStalled);
        }
    }
}
