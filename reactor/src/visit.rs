//! One visit to one connection: send what is kept, read, hand out messages, send the answers, and decide what comes next.
//!
//! A visit is bounded in bytes, messages, reads and writes. Whatever stops it, `visit.rs` leaves the connection in exactly one
//! place: on the ready list if it can go on now, else waiting for an event, for mail, for a deadline or for its close.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::buffers::{BufferOwner, Lease};
use crate::callback::Callback;
use crate::clock;
use crate::close_reason::CloseReason;
use crate::context::Context;
use crate::handler::{Handler, Origin, Pressure};
use crate::io::{Drained, Flushed, InputScratch, OutputScratch, drain_read, drain_write};
use crate::os::Os;
use crate::policy::{Framing, HalfClose, OutputBound, ReadyRule, ResumePolicy, VisitPolicy, WritePolicy};
use crate::shared::Shared;
use crate::slot::{Entry, Evicted, Flags, Slot};
use crate::token::Token;
use crate::water_marks::{hold_or_let_go, may_say_more, room_bytes};

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
    pub(crate) messages_left: u32,
    rooms_left: u32,
    /// `input` has asked for output space, and `room` has written nothing to all the space there is.
    pub(crate) room_was_in_vain: bool,
    pub(crate) write_left_bytes: usize,
    /// What the visit began with, in messages and bytes: what is missing at its end is what it has done.
    messages_max: u32,
    write_bytes_max: usize,
    /// Output before the running callback: what a panic falls back to.
    pub(crate) output_before: usize,
    /// When the connection was due before the visit.
    pub(crate) due_before: Option<Instant>,
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
        if self.entry.control.flags.intersects(Flags::LEAVING) {
            self.look_for_the_last_time();
        } else {
            self.go_on();
        }
    }

    pub(crate) fn flags(&mut self) -> &mut Flags {
        &mut self.entry.control.flags
    }

    pub(crate) fn slot(&self) -> &Slot {
        self.shared.slots.get(self.token.slot)
    }

    /// One callback that takes no input.
    pub(crate) fn call<R>(&mut self, callback: Callback, f: impl FnOnce(&mut H, &mut H::Conn, &mut Context<'_>) -> R) -> Option<R> {
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

    /// Reads, hands out messages and sends the answers.
    #[inline]
    pub(crate) fn go_on(&mut self) {
        if self.entry.control.flags.intersects(Flags::LINGERING) {
            // Nothing is owed to a connection that has said its last word; a debt kept would keep it on the ready list (failure mode R4).
            let state = self.shared.slots.get_mut(self.token.slot);
            (state.evicted, state.woken) = (Evicted::Nothing, false);
            self.discard();
            return;
        }
        if self.slot().evicted != Evicted::Nothing || self.slot().woken {
            self.owed_calls();
        }
        loop {
            // Whole messages that were left come first, from where they are. Nothing is read behind them.
            let is_in_hand = self.may_parse() && self.take_in_hand();
            if !is_in_hand && !self.may_read() {
                self.end_input(self.slot().input.as_ref().map_or(0, Lease::len));
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
        taken < filled
            && self.messages_left > 0
            && flags.intersects(Flags::UNPARSED)
            && !flags.intersects(Flags::HELD.union(Flags::INPUT_WAITS))
    }

    /// Calls `room` if it is wanted and everything said so far is in the kernel's hands. False when there is nothing to do.
    #[inline]
    pub(crate) fn give_room(&mut self) -> bool {
        let flags = self.entry.control.flags;
        if !flags.intersects(Flags::WANTS_ROOM) || !self.has_room() {
            return false;
        }
        // By calls too: who has little to say each time would make the visit's bytes a write(2) each.
        if self.write_left_bytes == 0 || self.rooms_left == 0 {
            self.shared.stats.budget_exits.add(1);
            return false;
        }
        self.rooms_left -= 1;
        let input_waits = flags.intersects(Flags::INPUT_WAITS);
        self.flags().remove(Flags::WANTS_ROOM.union(Flags::INPUT_WAITS));
        self.call(Callback::Room, |handler, conn, cx| handler.room(conn, cx));
        if self.output.len() == 0 {
            // All the room there is was not enough: asking again would spin. The handler has to wait for something else.
            self.flags().remove(Flags::WANTS_ROOM);
        }
        self.room_was_in_vain = input_waits && self.output.len() == 0;
        true
    }

    fn has_room(&self) -> bool {
        !self.entry.control.flags.intersects(Flags::NO_MORE_MESSAGES.union(Flags::FAILED))
            && may_say_more(self.slot(), self.shared.policy.output)
    }

    #[inline]
    pub(crate) fn output_end_max(&self) -> usize {
        let space_bytes = self.shared.buffers.output_space_bytes();
        room_bytes(self.slot(), &self.shared.limits, self.shared.policy.output, space_bytes)
    }
}

// The input half of a visit: the rest of earlier visits, what the socket has, the messages in it, and the new rest.
//
// A read is no message: TCP keeps the order of bytes and nothing else (RFC 9293 section 2.2). A message may come in any number of reads
// and a read may hold any number of messages, so what no message took stays until more has come.

impl<H: Handler, O: Os> Visit<'_, H, O> {
    /// Whether this visit may read: the socket may have input, the handler wants it, and no whole message is left of what was read before.
    #[inline]
    pub(crate) fn may_read(&self) -> bool {
        const ALL: Flags = Flags::READABLE.union(Flags::HELD).union(Flags::INPUT_ENDED).union(Flags::INPUT_WAITS).union(Flags::UNPARSED);
        self.entry.control.flags.only(ALL, Flags::READABLE)
    }

    /// Whether the partial input may hold whole messages, and the handler wants them.
    #[inline]
    pub(crate) fn may_parse(&self) -> bool {
        self.messages_left > 0
            && self.entry.control.flags.only(Flags::UNPARSED.union(Flags::HELD).union(Flags::INPUT_WAITS), Flags::UNPARSED)
    }

    /// Takes the partial input in hand, so that it is offered to the handler where it is: nothing is copied. What a connection has left when its
    /// quantum is spent stays in the socket. False if there is none.
    #[cold]
    pub(crate) fn take_in_hand(&mut self) -> bool {
        self.scratch.in_hand = self.shared.take_lease(BufferOwner::Input, self.token.slot);
        self.scratch.in_hand.is_some()
    }

    pub(crate) fn in_hand_bytes(&self) -> usize {
        self.scratch.in_hand.as_ref().map_or(0, Lease::len)
    }

    /// Puts back what no message took of the input in hand.
    #[cold]
    pub(crate) fn put_back(&mut self, taken: usize, filled: usize) {
        let Some(mut lease) = self.scratch.in_hand.take() else { return };
        if taken > 0 {
            self.shared.progress = true; // Also where nothing was read or written.
        }
        if taken == filled || self.entry.control.flags.intersects(Flags::NO_MORE_MESSAGES) {
            return self.shared.buffers.give_back(BufferOwner::Input, lease);
        }
        lease.consume(taken);
        self.shared.put_input_back(self.token.slot, lease);
    }

    /// The unfinished rest of earlier visits goes in front, so that a message is always one slice. It costs a copy of at most one
    /// buffer per visit (a 64 KiB copy is about the price of a read(2)); a message that needs more is refused.
    #[inline]
    pub(crate) fn copy_kept_input(&mut self) -> usize {
        match &self.shared.slots.get(self.token.slot).input {
            None => 0,
            Some(lease) => {
                let bytes = lease.filled();
                self.scratch.bytes[..bytes.len()].copy_from_slice(bytes);
                bytes.len()
            }
        }
    }

    /// Reads behind the `kept_bytes`; returns how far the scratch is filled.
    #[inline]
    pub(crate) fn read(&mut self, kept_bytes: usize) -> usize {
        let flags = &mut self.entry.control.flags;
        let short_read_is_empty = !flags.intersects(Flags::READ_TO_THE_END);
        let shared = &mut *self.shared;
        // What is read and not taken needs a buffer, so less is read where they are short.
        let end = self.scratch.bytes.len().min(kept_bytes.saturating_add(shared.buffers.input_space_bytes()));
        let into = &mut self.scratch.bytes[kept_bytes..end];
        let reads_max = shared.limits.visit_reads_max;
        match drain_read(&mut self.entry.stream, into, reads_max, shared.policy.drain, short_read_is_empty) {
            Ok(outcome) => {
                match outcome.drained {
                    Drained::Empty => flags.remove(Flags::READABLE),
                    Drained::BudgetSpent | Drained::BufferFull => shared.stats.budget_exits.add(1),
                    Drained::PeerClosed => {
                        flags.remove(Flags::READABLE);
                        flags.insert(Flags::INPUT_ENDED);
                    }
                    Drained::Failed(_) => {}
                }
                shared.stats.reads.add(u64::from(outcome.calls));
                shared.stats.bytes_read.add(outcome.bytes as u64);
                if outcome.bytes > 0 {
                    shared.progress = true;
                    flags.insert(Flags::UNPARSED);
                }
                if let Drained::Failed(kind) = outcome.drained {
                    self.read_failed(&kind.into());
                } else if flags.intersects(Flags::FAILED) {
                    self.read_after_failure(outcome.drained);
                }
                kept_bytes + outcome.bytes
            }
            Err(e) => {
                self.read_failed(&e);
                kept_bytes
            }
        }
    }

    /// Hands out messages from `taken` on until the handler needs more, is held, or has had its share. Returns how far it came.
    #[inline]
    pub(crate) fn messages(&mut self, mut taken: usize, filled: usize) -> usize {
        let output_end_max = self.output_end_max();
        if let Some(conn) = self.entry.conn.as_mut() {
            while taken < filled && self.entry.control.flags.only(Flags::UNPARSED.union(Flags::HELD), Flags::UNPARSED) {
                if self.messages_left == 0 {
                    self.shared.stats.budget_exits.add(1);
                    return taken;
                }
                self.messages_left -= 1;
                let flags = &mut self.entry.control.flags;
                // Who asks for room in this very call waits with its input; who asked before waits with its output only.
                let wanted_room = flags.intersects(Flags::WANTS_ROOM);
                flags.remove(Flags::WANTS_ROOM.union(Flags::INPUT_WAITS));
                self.output_before = self.output.len();
                self.shared.stats.enter(Callback::Input, self.token.slot);
                let mut cx = Context {
                    shared: self.shared,
                    output: self.output,
                    output_end_max,
                    control: &mut self.entry.control,
                    token: self.token,
                };
                let input = match &self.scratch.in_hand {
                    None => &self.scratch.bytes[taken..filled],
                    Some(lease) => &lease.filled()[taken..],
                };
                let used = self.handler.input(conn, input, &mut cx);
                self.shared.stats.leave();
                assert!(used <= filled - taken, "a handler took {used} bytes of {}", filled - taken);
                taken = match self.shared.policy.framing {
                    Framing::ByMessage => taken + used,
                    Framing::ByRead => filled, // MISTAKE(partial-read): half a message is forgotten before its other half comes, and so is whatever came behind a whole one.
                };
                let flags = &mut self.entry.control.flags;
                let asked_for_room = flags.intersects(Flags::WANTS_ROOM);
                if wanted_room {
                    flags.insert(Flags::WANTS_ROOM);
                }
                if used == 0 {
                    if asked_for_room {
                        if flags.intersects(Flags::FAILED) {
                            // Output space never comes again.
                            self.die(CloseReason::Reset);
                            return taken;
                        }
                        if self.room_was_in_vain && self.output.len() == 0 && self.shared.slots.get(self.token.slot).output.is_none() {
                            // All the space is free. Nothing has changed since it asked before, and nothing would. Test: `asking_for_output_space_never_spins`.
                            self.die(CloseReason::OutputSpaceTooSmall);
                            return taken;
                        }
                        flags.insert(Flags::INPUT_WAITS);
                        return taken;
                    }
                    if flags.intersects(Flags::PAUSED.union(Flags::NO_MORE_MESSAGES)) {
                        return taken;
                    }
                    flags.remove(Flags::UNPARSED);
                    if filled == self.scratch.bytes.len() && taken == 0 {
                        self.die(CloseReason::MessageTooLong);
                    }
                    break;
                }
            }
        }
        if taken == filled {
            self.entry.control.flags.remove(Flags::UNPARSED);
        }
        self.end_input(filled - taken);
        taken
    }

    /// Calls `ended` once the peer's last byte was read and every whole message was taken; `rest_bytes` of an unfinished one are left.
    #[inline]
    pub(crate) fn end_input(&mut self, rest_bytes: usize) {
        let flags = self.entry.control.flags;
        if flags.intersects(Flags::INPUT_ENDED) && !flags.intersects(Flags::END_TOLD.union(Flags::UNPARSED).union(Flags::HELD)) {
            self.flags().insert(Flags::END_TOLD);
            self.call(Callback::Ended, |handler, conn, cx| handler.ended(conn, rest_bytes, cx));
        }
    }

    /// Keeps what no message took. `kept_bytes` of it are in the lease already.
    #[inline]
    pub(crate) fn keep_rest(&mut self, kept_bytes: usize, taken: usize, filled: usize) {
        let slot = self.token.slot;
        if taken > 0 {
            self.shared.progress = true; // Also where nothing was read or written.
        }
        if self.entry.control.flags.intersects(Flags::NO_MORE_MESSAGES) || taken == filled {
            if kept_bytes > 0 {
                self.shared.drop_input(slot);
            }
            return;
        }
        if taken == 0 && kept_bytes == filled {
            return;
        }
        if self.slot().evicted != Evicted::Nothing {
            return; // It was evicted in this very visit.
        }
        let kept_bytes = if taken > 0 {
            // What is left is another message.
            self.shared.drop_input(slot);
            0
        } else {
            kept_bytes
        };
        self.shared.keep_input(slot, &self.scratch.bytes[taken + kept_bytes..filled]);
    }
}

// The output half of a visit: what earlier visits left goes first, then all that this one has collected, in one call.
//
// What the kernel does not take is kept in a lease, and its edge waited for.

impl<H: Handler, O: Os> Visit<'_, H, O> {
    /// Sends what earlier visits left.
    #[inline]
    pub(crate) fn flush_kept(&mut self) {
        let state = self.slot();
        if state.output.is_some() && self.entry.control.flags.intersects(Flags::WRITABLE) {
            self.write_kept();
        } else if state.evicted == Evicted::Output {
            // Nothing may be written behind the hole.
            self.break_off(CloseReason::OutputEvicted);
        }
    }

    /// Not inlined: it is seldom called, and the question before it is asked in every visit.
    #[inline(never)]
    fn write_kept(&mut self) {
        let slot = self.token.slot;
        let Some(lease) = self.shared.slots.get_mut(slot).output.as_mut() else { return };
        let result = drain_write(&mut self.entry.stream, lease.filled(), self.write_left_bytes, self.shared.policy.rest);
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(e) if self.stays_to_deliver(&e) => return,
            Err(_) => return self.die(CloseReason::Reset),
        };
        lease.consume(outcome.bytes);
        self.wrote(outcome.bytes, outcome.calls, outcome.flushed);
        if outcome.flushed == Flushed::All {
            self.shared.drop_output(slot);
            self.entry.stall_at = None;
            self.entry.control.flags.remove(Flags::OUTPUT_FULL);
        } else if outcome.bytes > 0 {
            self.shared.output_progressed(slot, outcome.bytes);
            self.entry.stall_at = clock::after(self.shared.now, self.shared.limits.write_stall_timeout);
        }
    }

    /// Sends what this visit has collected, in one call where the kernel takes it; keeps the rest.
    #[inline]
    pub(crate) fn flush(&mut self) {
        if self.output.len() == 0 {
            return;
        }
        if self.entry.control.flags.intersects(Flags::DEAD.union(Flags::FAILED)) {
            // Nobody can read it.
            self.output.truncate(0);
            self.output_before = 0;
            return;
        }
        let mut sent = 0;
        while sent < self.output.len() && self.takes_output() {
            let end = match self.shared.policy.write {
                WritePolicy::Joined => self.output.len(),
                WritePolicy::Split => self.output.end_of_piece(sent), // MISTAKE(split-write): the second of two small writes waits until the first is acknowledged (Nagle), and the peer, who waits for the second, takes 40 ms over that.
            };
            match drain_write(&mut self.entry.stream, &self.output.filled()[sent..end], usize::MAX, self.shared.policy.rest) {
                Ok(outcome) => {
                    sent += outcome.bytes;
                    self.wrote(outcome.bytes, outcome.calls, outcome.flushed);
                    if outcome.flushed == Flushed::Full {
                        break;
                    }
                }
                Err(e) if self.stays_to_deliver(&e) => {}
                Err(_) => self.break_off(CloseReason::Reset),
            }
        }
        if sent < self.output.len() && !self.entry.control.flags.intersects(Flags::DEAD) {
            self.keep_unsent(sent);
        }
        self.output.truncate(0);
        self.output_before = 0;
    }

    /// Whether the kernel may take something, and nothing older has to go first.
    #[inline]
    fn takes_output(&self) -> bool {
        let flags = self.entry.control.flags;
        flags.intersects(Flags::WRITABLE) && !flags.intersects(Flags::DEAD) && self.slot().output.is_none()
    }

    #[inline]
    fn wrote(&mut self, bytes: usize, calls: u32, flushed: Flushed) {
        self.write_left_bytes = self.write_left_bytes.saturating_sub(bytes);
        let stats = &self.shared.stats;
        stats.writes.add(u64::from(calls));
        stats.bytes_written.add(bytes as u64);
        if bytes > 0 {
            self.shared.progress = true;
        }
        if flushed == Flushed::Full {
            self.shared.stats.short_writes.add(1);
            self.entry.control.flags.remove(Flags::WRITABLE);
        }
    }

    #[cold]
    fn keep_unsent(&mut self, sent: usize) {
        if self.entry.stall_at.is_none() {
            self.entry.stall_at = clock::after(self.shared.now, self.shared.limits.write_stall_timeout);
        }
        if !self.shared.keep_output(self.token.slot, &self.output.filled()[sent..]) {
            // A response that is cut short must not look complete.
            self.break_off(CloseReason::OutputEvicted);
        }
    }
}

// The end of every visit: in exactly one place, on the ready list or waiting for an event, mail, a deadline or the close.
//
//

impl<H: Handler, O: Os> Visit<'_, H, O> {
    /// The end of every visit: where the connection waits, and for what.
    #[inline]
    pub(crate) fn settle(&mut self) {
        let slot = self.token.slot;
        if self
            .entry
            .control
            .flags
            .intersects(Flags::DEAD.union(Flags::ABORT).union(Flags::CLOSE).union(Flags::LINGERING).union(Flags::FAILED))
        {
            if self.entry.control.flags.intersects(Flags::FAILED) {
                self.settle_failed();
            }
            self.settle_closing();
            if self.entry.control.flags.intersects(Flags::DEAD) {
                return;
            }
        }
        // The FIN came with what it has asked for.
        if self.entry.control.flags.intersects(Flags::INPUT_ENDED)
            && self.entry.control.flags.intersects(Flags::PAUSED)
            && self.shared.policy.half_close == HalfClose::HasLeft
            && !self.entry.control.flags.intersects(Flags::NO_MORE_MESSAGES.union(Flags::OUTBOUND))
        {
            return self.die(CloseReason::PeerClosed);
        }
        self.settle_age();
        let state = self.shared.slots.get(slot);
        let bound = self.shared.policy.output;
        hold_or_let_go(&mut self.entry.control.flags, state, &self.shared.limits, bound, self.shared.buffers.output_space_bytes());
        let on_the_list = match self.shared.policy.ready_rule {
            ReadyRule::CanProgress => can_progress(self.entry.control.flags, state, bound),
            ReadyRule::HasWork => can_progress(self.entry.control.flags, state, bound) || state.output.is_some(), // MISTAKE(hot-loop): a connection that waits for its peer stays on the list, and no poll ever sleeps.
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
pub(crate) fn can_progress(flags: Flags, state: &Slot, bound: OutputBound) -> bool {
    if flags.intersects(Flags::DEAD.union(Flags::CONNECTING)) {
        return false;
    }
    if state.woken || state.evicted != Evicted::Nothing || flags.intersects(Flags::LEAVING) {
        return true;
    }
    if flags.intersects(Flags::LINGERING) {
        return flags.intersects(Flags::READABLE);
    }
    if state.output.is_some() && flags.intersects(Flags::WRITABLE) {
        return true;
    }
    if flags.intersects(Flags::CLOSE) {
        return false;
    }
    if flags.intersects(Flags::WANTS_ROOM) && !flags.intersects(Flags::FAILED) && may_say_more(state, bound) {
        return true;
    }
    if flags.intersects(Flags::HELD) {
        return false;
    }
    // Input that waits for room is offered again after `room`.
    let waits = flags.intersects(Flags::INPUT_WAITS);
    let unread = flags.intersects(Flags::READABLE) && !flags.intersects(Flags::INPUT_ENDED) && !waits;
    let end_untold = flags.intersects(Flags::INPUT_ENDED) && !flags.intersects(Flags::END_TOLD);
    let unparsed = flags.intersects(Flags::UNPARSED) && !waits;
    unread || unparsed || (end_untold && !flags.intersects(Flags::UNPARSED))
}
