//! Callbacks for another reason than the socket: `opened`, `mail`, `deadline`, `pressed`, `panicked`, and `writable` for a wake-up.
//!
//! They run in a visit (`visit.rs`), so their output is flushed and the connection is settled as after an event. Only the visit for a
//! deadline reads the socket, before the callback.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::buffers::BufferOwner;
use crate::callback::Callback;
use crate::close_reason::CloseReason;
use crate::context::{Context, LoopContext};
use crate::handler::{Handler, Origin, Pressure};
use crate::os::Os;
use crate::slot::Bits;
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
        self.output_before = 0;
        self.shared.stats.enter(Callback::Opened, self.token.slot);
        let output_end_max = self.shared.limits.output_high_water_bytes as usize;
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
        self.output.truncate(self.output_before);
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
