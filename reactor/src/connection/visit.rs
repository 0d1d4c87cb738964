//! One visit to one connection: send what is kept, read, hand out messages, send the answers, and decide what comes next.
//!
//! A visit is bounded in bytes, messages, reads and writes. Whatever stops it, `settle.rs` leaves the connection in exactly one
//! place: on the ready list if it can go on now, else waiting for an event, for mail, for a deadline or for its close. Read next:
//! `input.rs`, `sending.rs`, `pressure.rs`, `water_marks.rs`, `settle.rs`, `closing.rs`; then `turn.rs`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::callback::Callback;
use crate::connection::Entry;
use crate::connection::buffers::Lease;
use crate::connection::flags::Flags;
use crate::connection::input::InputScratch;
use crate::connection::output::OutputScratch;
use crate::connection::slots::{Beside, Evicted};
use crate::connection::water_marks::{may_say_more, room_bytes};
use crate::context::Context;
use crate::handler::{Handler, Origin, Pressure};
use crate::os::Os;
use crate::policy::VisitPolicy;
use crate::shared::Shared;
use crate::token::Token;

/// Why a connection is visited, if not for its socket.
pub(crate) enum Cause<M> {
    /// It has just been accepted or connected.
    Opened(Origin),
    /// Another thread sent it something.
    Mail(M),
    /// Its deadline has passed.
    Deadline,
    /// The loop wants it to go.
    Pressed(Pressure),
}

/// All that a visit works with: the loop, taken apart once, and one entry of its slab.
pub(crate) struct Visit<'a, H: Handler, O: Os> {
    pub(crate) os: &'a mut O,
    pub(crate) handler: &'a mut H,
    pub(crate) shared: &'a mut Shared,
    pub(crate) scratch: &'a mut InputScratch,
    pub(crate) output: &'a mut OutputScratch,
    pub(crate) entry: &'a mut Entry<H::Conn, O::Stream>,
    pub(crate) token: Token,
    /// What is left of the visit's budgets.
    buffers_left: u32,
    pub(super) messages_left: u32,
    rooms_left: u32,
    /// `input` has asked for output space, and `room` has written nothing to all the space there is.
    pub(super) room_was_in_vain: bool,
    pub(super) write_left_bytes: usize,
    /// What the visit began with, in messages and bytes: what is missing at its end is what it has done.
    messages_max: u32,
    write_bytes_max: usize,
    /// Output before the running callback: what a panic falls back to.
    pub(super) output_before: usize,
    /// When the connection was due before the visit.
    pub(super) due_before: Option<Instant>,
}

impl<'a, H: Handler, O: Os> Visit<'a, H, O> {
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "the loop taken apart, so that each part can be borrowed by itself")]
    pub(crate) fn new(
        os: &'a mut O,
        handler: &'a mut H,
        shared: &'a mut Shared,
        scratch: &'a mut InputScratch,
        output: &'a mut OutputScratch,
        entry: &'a mut Entry<H::Conn, O::Stream>,
        token: Token,
        messages_max: u32,
    ) -> Self {
        let limits = &shared.limits;
        let (buffers_left, messages_left, write_left_bytes) = match shared.policy.visit {
            VisitPolicy::Budgeted => (1, messages_max, limits.visit_written_bytes_max as usize),
            VisitPolicy::UntilDone => (u32::MAX, u32::MAX, usize::MAX), // MISTAKE(firehose): a sender that is faster than the handler never lets the socket run empty, and the loop serves nobody else.
        };
        let due_before = entry.due();
        Visit {
            due_before,
            buffers_left,
            os,
            handler,
            shared,
            scratch,
            output,
            entry,
            token,
            messages_left,
            rooms_left: messages_left,
            room_was_in_vain: false,
            write_left_bytes,
            messages_max: messages_left,
            write_bytes_max: write_left_bytes,
            output_before: 0,
        }
    }

    /// The whole visit, whatever it is for.
    #[inline]
    pub(crate) fn run(&mut self, work: impl FnOnce(&mut Self)) {
        self.output.truncate(0);
        self.flush_kept();
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            self.panicked();
        }
        self.settle();
    }

    /// What the visit cost, in units of a small one: 16 messages or 16 KiB written are about as much work as the system calls of one visit.
    #[inline]
    pub(crate) fn cost(&self) -> u32 {
        let messages = self.messages_max - self.messages_left;
        let written_bytes = self.write_bytes_max - self.write_left_bytes;
        1 + messages / 16 + (written_bytes >> 14) as u32
    }

    /// What an event or a place on the ready list is for.
    #[inline]
    pub(crate) fn see_to_socket(&mut self) {
        if self.entry.control.flags.has(Flags::LEAVING) {
            self.look_for_the_last_time();
        } else {
            self.go_on();
        }
    }

    pub(super) fn flags(&mut self) -> &mut Flags {
        &mut self.entry.control.flags
    }

    pub(super) fn beside(&self) -> &Beside {
        self.shared.slots.get(self.token.slot)
    }

    /// One callback that takes no input.
    pub(super) fn call<R>(&mut self, callback: Callback, f: impl FnOnce(&mut H, &mut H::Conn, &mut Context<'_>) -> R) -> Option<R> {
        self.output_before = self.output.len();
        let output_end_max = self.output_end_max();
        let conn = self.entry.conn.as_mut()?;
        self.shared.stats.enter(callback, self.token.slot);
        let mut cx =
            Context { shared: self.shared, output: self.output, output_end_max, control: &mut self.entry.control, token: self.token };
        let result = f(self.handler, conn, &mut cx);
        self.shared.stats.leave();
        Some(result)
    }

    /// What it has to be told.
    pub(crate) fn call_back(&mut self, cause: Cause<H::Mail>) {
        match cause {
            Cause::Opened(origin) => self.open(origin),
            // A connection that is closing has said its last word; the handler learns that the mail came too late.
            Cause::Mail(mail) if self.entry.control.flags.has(Flags::NO_MORE_MESSAGES) => {
                self.shared.stats.mail_undelivered.add(1);
                self.shared.stats.enter(Callback::Mail, self.token.slot);
                self.handler.undelivered(mail);
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
        // Room and what the answer gave way to; new input waits for the ready list, so that nobody reads twice in a turn.
        self.flush();
        while self.give_room() {
            self.flush();
        }
    }

    /// The deadline of a connection: input first. A client whose bytes have arrived must not be timed out because the loop is late, and there may
    /// be bytes that no event has reported: poll had no place for the event, or they came between the return of poll and the reading of
    /// the clock. It costs one read(2) for each deadline that passes. Test: `input_comes_before_deadlines`.
    #[cold]
    pub(crate) fn look_before_the_deadline(&mut self, now: Instant) {
        if !self.entry.control.flags.has(Flags::INPUT_ENDED.or(Flags::HELD)) {
            // It stands while the handler is offered input: if that moves it to later it is not over. Set anew to a time that has passed it is over
            // now; else who never stops sending would be looked at again and again in this turn.
            self.entry.control.deadline = Some(now);
            self.flags().set(Flags::READABLE);
            self.go_on();
            let is_due = self.entry.control.deadline.is_some_and(|at| at <= now);
            if !is_due || self.entry.control.flags.has(Flags::NO_MORE_MESSAGES) {
                return;
            }
            self.entry.control.deadline = None;
        }
        self.call_back(Cause::Deadline);
    }

    fn open(&mut self, origin: Origin) {
        self.output_before = 0;
        self.shared.stats.enter(Callback::Opened, self.token.slot);
        let mut cx = Context {
            output_end_max: self.shared.limits.output_high_water_bytes as usize,
            shared: self.shared,
            output: self.output,
            control: &mut self.entry.control,
            token: self.token,
        };
        self.entry.conn = Some(self.handler.opened(origin, &mut cx));
        self.shared.stats.leave();
    }

    /// Reads, hands out messages and sends the answers.
    #[inline]
    pub(super) fn go_on(&mut self) {
        if self.entry.control.flags.has(Flags::LINGERING) {
            // Nothing is owed to a connection that has said its last word; a debt kept would keep it on the ready list (failure mode R4).
            let beside = self.shared.slots.get_mut(self.token.slot);
            (beside.evicted, beside.woken) = (Evicted::Nothing, false);
            self.discard();
            return;
        }
        if self.beside().evicted != Evicted::Nothing || self.beside().woken {
            self.owed_calls();
        }
        loop {
            // Whole messages that were left come first, from where they are. Nothing is read behind them.
            let is_in_hand = self.may_parse() && self.take_in_hand();
            if !is_in_hand && !self.may_read() {
                self.end_input(self.beside().input.as_ref().map_or(0, Lease::len));
                self.flush();
                if !self.give_room() {
                    return;
                }
                self.flush();
                continue; // The handler may have resumed.
            }
            let kept_bytes = if is_in_hand { 0 } else { self.copy_kept_input() };
            let filled = if is_in_hand { self.in_hand_bytes() } else { self.read(kept_bytes) };
            let mut taken = self.messages(0, filled);
            self.flush();
            while self.give_room() || self.may_offer_more(taken, filled) {
                taken = self.messages(taken, filled);
                self.flush();
            }
            if is_in_hand {
                self.put_back(taken, filled);
                continue;
            }
            self.keep_rest(kept_bytes, taken, filled);
            self.buffers_left -= 1;
            if self.buffers_left == 0 {
                return;
            }
        }
    }

    /// After a flush: whether input that waited for room can be offered again in this visit.
    #[inline]
    fn may_offer_more(&self, taken: usize, filled: usize) -> bool {
        let flags = self.entry.control.flags;
        taken < filled && self.messages_left > 0 && flags.has(Flags::UNPARSED) && !flags.has(Flags::HELD.or(Flags::INPUT_WAITS))
    }

    /// Calls `room` if it is wanted and everything said so far is in the kernel's hands. False when there is nothing to do.
    #[inline]
    fn give_room(&mut self) -> bool {
        let flags = self.entry.control.flags;
        if !flags.has(Flags::WANTS_ROOM) || !self.has_room() {
            return false;
        }
        // By calls too: who has little to say each time would make the visit's bytes a write(2) each.
        if self.write_left_bytes == 0 || self.rooms_left == 0 {
            self.shared.stats.budget_exits.add(1);
            return false;
        }
        self.rooms_left -= 1;
        let input_waits = flags.has(Flags::INPUT_WAITS);
        self.flags().clear(Flags::WANTS_ROOM.or(Flags::INPUT_WAITS));
        self.call(Callback::Room, |handler, conn, cx| handler.room(conn, cx));
        if self.output.len() == 0 {
            // All the room there is was not enough: asking again would spin. The handler has to wait for something else.
            self.flags().clear(Flags::WANTS_ROOM);
        }
        self.room_was_in_vain = input_waits && self.output.len() == 0;
        true
    }

    fn has_room(&self) -> bool {
        !self.entry.control.flags.has(Flags::NO_MORE_MESSAGES.or(Flags::FAILED)) && may_say_more(self.beside(), self.shared.policy.output)
    }

    #[inline]
    pub(super) fn output_end_max(&self) -> usize {
        let space_bytes = self.shared.buffers.output_space_bytes();
        room_bytes(self.beside(), &self.shared.limits, self.shared.policy.output, space_bytes)
    }
}
