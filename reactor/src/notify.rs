//! Callbacks for another reason than the socket: `opened`, `mail`, `deadline`, `pressed`, `panicked`, and `writable` for a wake-up; and the stage of
//! a turn that runs deadlines.
//!
//! They run in a visit (`visit.rs`), so their output is flushed and the connection is settled as after an event. Only the visit for a
//! deadline reads the socket, before the callback.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::buffers::BufferOwner;
use crate::context::{Context, LoopContext};
use crate::errors::CloseReason;
use crate::event_loop::{EventLoop, TRIM_EVERY};
use crate::handler::{Handler, Origin, Pressure};
use crate::os::{Os, Ready};
use crate::slot::{Bits, Phase};
use crate::stats::{Callback, Stats};
use crate::visit::{Cause, Visit};

impl<H: Handler, O: Os> Visit<'_, H, O> {
    /// Calls the callback for `cause`, then flushes its output.
    pub(crate) fn call_back(&mut self, cause: Cause<H::Mail>) {
        match cause {
            Cause::Opened(origin) => self.open(origin),
            // A connection that is closing writes no more. The mail goes to `undelivered`. Test:
            // `mail_for_a_connection_that_is_closing_is_undelivered_and_counted_so`.
            Cause::Mail(mail) if !self.slot().is_open() => {
                self.shared.stats.mail_undelivered.add(1);
                self.shared.stats.enter(Callback::Mail, self.token.slot);
                self.handler.undelivered(mail, &mut LoopContext { shared: self.shared });
                self.shared.stats.leave();
            }
            Cause::Mail(mail) => {
                self.shared.stats.mail_delivered.add(1);
                self.call(Callback::Mail, |handler, conn, cx| handler.mail(conn, mail, cx));
            }
            Cause::Deadline => {
                self.call(Callback::Deadline, |handler, conn, cx| handler.deadline(conn, cx));
            }
            Cause::Pressed(pressure) => self.press(pressure),
        }
        // `writable` follows when it is wanted. Input waits for the ready list: this visit may be the connection's second in the turn.
        self.flush();
        while self.call_writable() {
            self.flush();
        }
    }

    /// Reads the socket and, if the deadline still stands, calls `deadline`. A client whose bytes have arrived must not be timed out
    /// because the loop is late. There may be bytes that no event has reported: poll had no place for the event, or they came between the
    /// return of poll and the reading of the clock. A connection that is paused or whose peer has sent FIN is not read. Test:
    /// `input_comes_before_deadlines`.
    #[cold]
    pub(crate) fn look_before_the_deadline(&mut self, now: Instant) {
        let state = self.slot_mut();
        if !state.is_open() {
            return; // The visit began with a write of pending output, and it failed.
        }
        if !state.bits.intersects(Bits::INPUT_ENDED.union(Bits::INPUT_HELD)) {
            // The deadline stays set while the handler gets input. If the handler moves it later, it has not passed. If the handler sets a
            // time that has passed, `deadline` runs now; else a client that sends without pause would be visited again and again in this
            // turn. Test: `one_look_is_all_that_a_deadline_waits_for`.
            state.deadline = Some(now);
            state.bits.insert(Bits::READABLE);
            self.go_on();
            let state = self.slot_mut();
            let is_due = state.deadline.is_some_and(|at| at <= now);
            if !is_due || !state.is_open() {
                return;
            }
            state.deadline = None;
        }
        self.call_back(Cause::Deadline);
    }

    /// Calls `opened` and stores the handler's state.
    fn open(&mut self, origin: Origin) {
        self.output.callback_begins();
        self.shared.stats.enter(Callback::Opened, self.token.slot);
        let output_end_max = self.output_end_max();
        let mut cx = Context::new(self.shared, self.output, output_end_max, &self.entry.stream, self.token);
        self.entry.conn = Some(self.handler.opened(origin, &mut cx));
        self.shared.stats.leave();
    }

    /// Handles a panic in a callback: drops the output of that callback, calls `panicked` and closes the connection.
    /// Test: `a_panic_closes_one_connection`.
    #[cold]
    pub(crate) fn panicked(&mut self) {
        self.shared.stats.leave();
        self.shared.stats.panics.add(1);
        self.output.callback_panicked();
        self.slot_mut().bits.remove(Bits::WANTS_WRITABLE.union(Bits::UNPARSED));
        let told = catch_unwind(AssertUnwindSafe(|| {
            self.call(Callback::Panicked, |handler, conn, cx| handler.panicked(conn, cx));
        }));
        self.slot_mut().reason = CloseReason::Panicked;
        self.flush();
        let has_failed = told.is_err() || self.entry.conn.is_none();
        let state = self.slot_mut();
        if has_failed {
            state.abort()
        } else {
            state.close()
        }
        if let Some(lease) = self.scratch.in_hand.take() {
            self.shared.buffers.give_back(BufferOwner::Input, lease);
        }
        self.shared.drop_input(self.token.slot);
    }

    /// Calls `pressed`. Closes the connection after it, except when the loop drains: then the handler decides when.
    pub(crate) fn press(&mut self, pressure: Pressure) {
        let state = self.slot_mut();
        if !state.is_open() {
            return; // It is closing already. Output after our FIN would be a bug in this crate and end in a reset.
        }
        if pressure == Pressure::ShuttingDown {
            if state.bits.intersects(Bits::SHUTDOWN_NOTIFIED) {
                return;
            }
            state.bits.insert(Bits::SHUTDOWN_NOTIFIED);
        }
        self.call(Callback::Pressed, |handler, conn, cx| handler.pressed(conn, pressure, cx));
        let reason = match pressure {
            Pressure::ConnectionsMax => CloseReason::Refused,
            Pressure::BufferMemory => CloseReason::InputEvicted,
            Pressure::NearlyFull => CloseReason::Evicted,
            Pressure::ShuttingDown => return,
        };
        let state = self.slot_mut();
        if state.reason == CloseReason::Finished {
            state.reason = reason; // `Refused` if the handler has rejected it in the callback.
        }
        state.close();
    }

    /// Calls `pressed` if the connection's input was evicted, or `writable` if another connection woke this one.
    #[cold]
    pub(crate) fn owed_calls(&mut self) {
        let state = self.slot_mut();
        let bits = state.bits;
        state.bits.remove(Bits::EVICTED.union(Bits::WOKEN));
        if bits.only(Bits::EVICTED, Bits::INPUT_EVICTED) {
            self.press(Pressure::BufferMemory);
        } else if bits.intersects(Bits::WOKEN) && self.slot().is_open() {
            self.call(Callback::Writable, |handler, conn, cx| handler.writable(conn, cx));
        }
    }
}

// The stage of a turn that runs deadlines: of connections, of pending output that has stalled, of connects, and of the handler itself.
//
// Input comes before deadlines: the loop looks at the socket before a connection times out. Bytes may have arrived while the thread waited
// for a CPU between epoll_wait(2) and the clock reading, or poll had no place for the event. A late loop must not time out a client whose
// bytes have arrived, such as the next request on a keep-alive connection. It costs one read(2) for each timeout. Test:
// `input_comes_before_deadlines`.

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
