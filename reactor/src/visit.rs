//! One visit to one connection ([`Visit::run`]): write pending output, read, hand out messages, write the responses, settle.
//!
//! A visit has budgets of read calls, messages, `writable` calls and written bytes, so that one connection does not hold the loop (`firehose`).
//! At its end [`Visit::settle`] puts a connection that can still make progress on the ready list (`ready_list.rs`). Any other connection
//! waits for an event, mail, another connection, a deadline or its close. Tests: `what_has_arrived_is_answered_without_another_event`,
//! `a_loop_with_nothing_to_do_sleeps`.
//!
//! The file holds, in this order: the visit and its budgets, input, output, settle. Callbacks for other reasons than the socket are in
//! `notify.rs`. Closing is in `close.rs`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::buffers::{BufferOwner, Lease};
use crate::context::Context;
use crate::errors::CloseReason;
use crate::handler::{Handler, Origin, Pressure};
use crate::io::{Flushed, InputScratch, ReadStop, drain_read, drain_write};
use crate::loop_state::LoopState;
use crate::os::Os;
use crate::output::OutputScratch;
use crate::policy::{Framing, HalfClose, ReadyRule, ResumePolicy, VisitPolicy, WritePolicy};
use crate::progress::can_progress;
use crate::slot::{Bits, Entry, Slot};
use crate::stats::Callback;
use crate::token::Token;

/// The reason for a visit, if it is not the socket.
pub(crate) enum Cause<M> {
    /// It has just been accepted or connected.
    Opened(Origin),
    /// Mail from another thread.
    Mail(M),
    /// Its deadline has passed.
    Deadline,
    /// The loop wants the connection to close.
    Pressed(Pressure),
}

/// The state of one visit: borrowed parts of the loop, one entry of its slab, and the budgets.
pub(crate) struct Visit<'a, H: Handler, O: Os> {
    pub(crate) os: &'a mut O,
    pub(crate) handler: &'a mut H,
    pub(crate) shared: &'a mut LoopState,
    pub(crate) scratch: &'a mut InputScratch,
    pub(crate) output: &'a mut OutputScratch,
    pub(crate) entry: &'a mut Entry<H::Conn, O::Stream>,
    pub(crate) token: Token,
    /// Budgets left: reads into a buffer, messages, calls of `writable`.
    buffers_left: u32,
    pub(crate) messages_left: u32,
    writable_calls_left: u32,
    /// `input` has asked for output space, and `writable` wrote nothing although all the space was free.
    pub(crate) writable_was_in_vain: bool,
    pub(crate) write_left_bytes: usize,
    /// The budgets at the start, in messages and bytes. The visit's cost is the part that is spent.
    messages_max: u32,
    write_bytes_max: usize,
    /// When the connection was due before the visit, to see whether the wheel must change.
    pub(crate) due_before: Option<Instant>,
}

impl<'a, H: Handler, O: Os> Visit<'a, H, O> {
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "the loop taken apart, so that each part can be borrowed by itself")]
    pub(crate) fn new(
        os: &'a mut O,
        handler: &'a mut H,
        shared: &'a mut LoopState,
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
        let due_before = shared.slots.get(token.slot).due();
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
            writable_calls_left: messages_left,
            writable_was_in_vain: false,
            write_left_bytes,
            messages_max: messages_left,
            write_bytes_max: write_left_bytes,
        }
    }

    /// Runs the visit: pending output, `work`, settle.
    #[inline]
    pub(crate) fn run(&mut self, work: impl FnOnce(&mut Self)) {
        self.output.truncate(0);
        self.flush_kept();
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            self.panicked();
        }
        self.settle();
    }

    /// The cost of the visit, in small visits: 16 messages or 16 KiB written are about as much work as the system calls of one visit.
    #[inline]
    pub(crate) fn cost(&self) -> u32 {
        let messages = self.messages_max - self.messages_left;
        let written_bytes = self.write_bytes_max - self.write_left_bytes;
        1 + messages / 16 + (written_bytes >> 14) as u32
    }

    /// The work of a visit for an event or from the ready list.
    #[inline]
    pub(crate) fn see_to_socket(&mut self) {
        if self.slot().bits.intersects(Bits::EVICTION_PENDING) {
            self.read_before_eviction();
        } else {
            self.go_on();
        }
    }

    #[inline]
    pub(crate) fn slot(&self) -> &Slot {
        self.shared.slots.get(self.token.slot)
    }

    #[inline]
    pub(crate) fn slot_mut(&mut self) -> &mut Slot {
        self.shared.slots.get_mut(self.token.slot)
    }

    /// Calls one callback other than `input`. None if the connection has no handler state yet.
    pub(crate) fn call<R>(&mut self, callback: Callback, f: impl FnOnce(&mut H, &mut H::Conn, &mut Context<'_>) -> R) -> Option<R> {
        self.output.callback_begins();
        let output_end_max = self.output_end_max();
        let conn = self.entry.conn.as_mut()?;
        self.shared.stats.enter(callback, self.token.slot);
        let mut cx = Context::new(self.shared, self.output, output_end_max, &self.entry.stream, self.token);
        let result = f(self.handler, conn, &mut cx);
        self.shared.stats.leave();
        Some(result)
    }

    /// Reads, hands out messages and writes the responses, within the budgets.
    #[inline]
    pub(crate) fn go_on(&mut self) {
        let state = self.slot_mut();
        if state.is_lingering() {
            // No callback follows our FIN. A pending one would be a `hot-loop`: `a_lingering_connection_that_is_woken_keeps_no_loop_awake`.
            state.bits.remove(Bits::EVICTED.union(Bits::WOKEN));
            self.discard();
            return;
        }
        if state.bits.intersects(Bits::EVICTED.union(Bits::WOKEN)) {
            self.owed_calls();
        }
        loop {
            // Whole messages of an earlier visit come first, from the lease. The loop does not read before they are taken.
            let is_in_hand = self.may_parse() && self.take_in_hand();
            if !is_in_hand && !self.may_read() {
                self.end_input(self.slot().input.as_ref().map_or(0, Lease::len));
                self.flush();
                if !self.call_writable() {
                    return;
                }
                self.flush();
                continue; // The handler may have resumed.
            }
            let kept_bytes = if is_in_hand { 0 } else { self.copy_kept_input() };
            let filled = if is_in_hand { self.in_hand_bytes() } else { self.read(kept_bytes) };
            let mut taken = self.messages(0, filled);
            self.flush();
            while self.call_writable() || self.may_offer_more(taken, filled) {
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

    /// After a flush: whether input that waited for output space can be offered again in this visit.
    #[inline]
    fn may_offer_more(&self, taken: usize, filled: usize) -> bool {
        taken < filled && self.may_parse()
    }

    /// Calls `writable` if the handler wants it and no output is pending. False if there was no call.
    #[inline(always)]
    pub(crate) fn call_writable(&mut self) -> bool {
        self.slot().bits.intersects(Bits::WANTS_WRITABLE) && self.writable()
    }

    fn writable(&mut self) -> bool {
        if !self.slot().is_writable() {
            return false;
        }
        // The calls are bounded too, or one byte per call would cost a write(2) each. Test: `no_handler_makes_a_turn_long_by_asking`.
        if self.write_left_bytes == 0 || self.writable_calls_left == 0 {
            self.shared.stats.budget_exits.add(1);
            return false;
        }
        self.writable_calls_left -= 1;
        let bits = &mut self.slot_mut().bits;
        let input_waits = bits.intersects(Bits::INPUT_BLOCKED);
        bits.remove(Bits::WANTS_WRITABLE.union(Bits::INPUT_BLOCKED));
        self.call(Callback::Writable, |handler, conn, cx| handler.writable(conn, cx));
        if self.output.len() == 0 {
            // The handler wrote nothing although all the space was free, so calling again would spin. It has to wait for something else.
            // Test: `asking_for_output_space_never_spins`.
            self.slot_mut().bits.remove(Bits::WANTS_WRITABLE);
        }
        self.writable_was_in_vain = input_waits && self.output.len() == 0;
        true
    }

    #[inline]
    pub(crate) fn output_end_max(&self) -> usize {
        let space_bytes = self.shared.buffers.output_space_bytes();
        self.slot().output_space(&self.shared.limits, space_bytes)
    }
}

// Input. A read is not a message: TCP keeps the order of bytes and nothing else (RFC 9293 section 2.2). A message may arrive in several
// reads, and a read may hold several messages. Bytes that no message took are buffered until more arrive (`partial-read`).

impl<H: Handler, O: Os> Visit<'_, H, O> {
    /// Whether this visit may read: the socket may have input, the handler wants it, and earlier input holds no whole message.
    #[inline]
    pub(crate) fn may_read(&self) -> bool {
        const ALL: Bits = Bits::READABLE.union(Bits::INPUT_HELD).union(Bits::INPUT_ENDED).union(Bits::INPUT_BLOCKED).union(Bits::UNPARSED);
        let state = self.slot();
        state.bits.only(ALL, Bits::READABLE) && state.is_open()
    }

    /// Whether the partial input may hold whole messages, and the handler wants them.
    #[inline]
    pub(crate) fn may_parse(&self) -> bool {
        const ALL: Bits = Bits::UNPARSED.union(Bits::INPUT_HELD).union(Bits::INPUT_BLOCKED);
        let state = self.slot();
        state.bits.only(ALL, Bits::UNPARSED) && state.is_open() && self.messages_left > 0
    }

    /// Takes the lease of the partial input out of the slot, so that the handler gets it without a copy. False if there is none.
    #[cold]
    pub(crate) fn take_in_hand(&mut self) -> bool {
        self.scratch.in_hand = self.shared.take_lease(BufferOwner::Input, self.token.slot);
        self.scratch.in_hand.is_some()
    }

    pub(crate) fn in_hand_bytes(&self) -> usize {
        self.scratch.in_hand.as_ref().map_or(0, Lease::len)
    }

    /// Returns the bytes that no message took to the slot, or the lease to the pool if none are left.
    #[cold]
    pub(crate) fn put_back(&mut self, taken: usize, filled: usize) {
        let Some(mut lease) = self.scratch.in_hand.take() else { return };
        if taken > 0 {
            self.shared.progress = true; // Also where nothing was read or written.
        }
        if taken == filled || !self.slot().is_open() {
            return self.shared.buffers.give_back(BufferOwner::Input, lease);
        }
        lease.consume(taken);
        self.shared.put_input_back(self.token.slot, lease);
    }

    /// Copies the partial input of earlier visits to the front of the scratch buffer, so that the handler gets a message as one slice. It
    /// copies at most one buffer (64 KiB take about as long as a read(2)). A message that does not fit the buffer closes the connection.
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

    /// Reads into the scratch buffer after its first `kept_bytes`. Returns the number of bytes it then holds.
    #[inline]
    pub(crate) fn read(&mut self, kept_bytes: usize) -> usize {
        let LoopState { slots, buffers, limits, policy, stats, progress, .. } = &mut *self.shared;
        let bits = &mut slots.get_mut(self.token.slot).bits;
        let short_read_is_empty = !bits.intersects(Bits::READ_TO_THE_END);
        // Bytes that no message takes need a buffer, so the loop reads less when buffer memory is short.
        let end = self.scratch.bytes.len().min(kept_bytes.saturating_add(buffers.input_space_bytes()));
        let into = &mut self.scratch.bytes[kept_bytes..end];
        match drain_read(&mut self.entry.stream, into, limits.visit_reads_max, policy.drain, short_read_is_empty) {
            Ok(outcome) => {
                match outcome.stop {
                    ReadStop::Empty => bits.remove(Bits::READABLE),
                    ReadStop::BudgetSpent | ReadStop::BufferFull => stats.budget_exits.add(1),
                    ReadStop::PeerClosed => {
                        bits.remove(Bits::READABLE);
                        bits.insert(Bits::INPUT_ENDED);
                    }
                    ReadStop::Failed(_) => {}
                }
                stats.reads.add(u64::from(outcome.calls));
                stats.bytes_read.add(outcome.bytes as u64);
                if outcome.bytes > 0 {
                    *progress = true;
                    bits.insert(Bits::UNPARSED);
                }
                if let ReadStop::Failed(kind) = outcome.stop {
                    self.read_failed(&kind.into());
                } else if bits.intersects(Bits::FAILED) {
                    self.read_after_failure(outcome.stop);
                }
                kept_bytes + outcome.bytes
            }
            Err(e) => {
                self.read_failed(&e);
                kept_bytes
            }
        }
    }

    /// Offers the input `taken..filled` to the handler until it needs more bytes, is held or has spent the budget. Returns the new `taken`.
    #[inline]
    pub(crate) fn messages(&mut self, mut taken: usize, filled: usize) -> usize {
        let output_end_max = self.output_end_max();
        if let Some(conn) = self.entry.conn.as_mut() {
            // One context for all messages: what it borrows does not change between them.
            let mut cx = Context::new(self.shared, self.output, output_end_max, &self.entry.stream, self.token);
            while taken < filled {
                let state = cx.slot();
                if !state.bits.only(Bits::UNPARSED.union(Bits::INPUT_HELD), Bits::UNPARSED) || !state.is_open() {
                    break;
                }
                if self.messages_left == 0 {
                    cx.shared.stats.budget_exits.add(1);
                    return taken;
                }
                self.messages_left -= 1;
                // If the handler asks for output space during this call, the loop stops offering it input until there is space. An earlier
                // request delays output only.
                let wanted_before = state.bits.intersects(Bits::WANTS_WRITABLE);
                state.bits.remove(Bits::WANTS_WRITABLE.union(Bits::INPUT_BLOCKED));
                cx.output.callback_begins();
                cx.shared.stats.enter(Callback::Input, self.token.slot);
                let input = match &self.scratch.in_hand {
                    None => &self.scratch.bytes[taken..filled],
                    Some(lease) => &lease.filled()[taken..],
                };
                let used = self.handler.input(conn, input, &mut cx);
                cx.shared.stats.leave();
                assert!(used <= filled - taken, "a handler took {used} bytes of {}", filled - taken);
                taken = match cx.shared.policy.framing {
                    Framing::ByMessage => taken + used,
                    Framing::ByRead => filled, // MISTAKE(partial-read): half a message is forgotten before its other half comes, and so is whatever came behind a whole one.
                };
                let has_written_nothing = cx.output.len() == 0;
                let state = cx.slot();
                let asked_for_space = state.bits.intersects(Bits::WANTS_WRITABLE);
                if wanted_before {
                    state.bits.insert(Bits::WANTS_WRITABLE);
                }
                if used == 0 {
                    if asked_for_space {
                        if state.bits.intersects(Bits::FAILED) {
                            // A failed socket gets no output space any more.
                            self.die(CloseReason::Reset);
                            return taken;
                        }
                        if self.writable_was_in_vain && state.output.is_none() && has_written_nothing {
                            // All the space is free, and nothing will change that. Test: `asking_for_output_space_never_spins`.
                            self.die(CloseReason::OutputSpaceTooSmall);
                            return taken;
                        }
                        state.bits.insert(Bits::INPUT_BLOCKED);
                        return taken;
                    }
                    if state.bits.intersects(Bits::PAUSED) || !state.is_open() {
                        return taken;
                    }
                    state.bits.remove(Bits::UNPARSED);
                    if filled == self.scratch.bytes.len() && taken == 0 {
                        self.die(CloseReason::MessageTooLong);
                    }
                    break;
                }
            }
        }
        if taken == filled {
            self.slot_mut().bits.remove(Bits::UNPARSED);
        }
        self.end_input(filled - taken);
        taken
    }

    /// Calls `ended` when the peer's last byte was read and the whole messages are taken. `rest_bytes` are left of an unfinished message.
    #[inline(always)]
    pub(crate) fn end_input(&mut self, rest_bytes: usize) {
        if self.slot().bits.intersects(Bits::INPUT_ENDED) {
            self.input_has_ended(rest_bytes);
        }
    }

    #[cold]
    fn input_has_ended(&mut self, rest_bytes: usize) {
        let state = self.slot_mut();
        if !state.bits.intersects(Bits::END_DELIVERED.union(Bits::UNPARSED)) && !state.input_is_held() {
            state.bits.insert(Bits::END_DELIVERED);
            self.call(Callback::Ended, |handler, conn, cx| handler.ended(conn, rest_bytes, cx));
        }
    }

    /// Buffers the bytes that no message took. The first `kept_bytes` are in the lease already.
    #[inline]
    pub(crate) fn keep_rest(&mut self, kept_bytes: usize, taken: usize, filled: usize) {
        let slot = self.token.slot;
        if taken > 0 {
            self.shared.progress = true; // Also where nothing was read or written.
        }
        if taken == filled || !self.slot().is_open() {
            if kept_bytes > 0 {
                self.shared.drop_input(slot);
            }
            return;
        }
        if taken == 0 && kept_bytes == filled {
            return;
        }
        if self.slot().bits.intersects(Bits::EVICTED) {
            return; // A callback of this visit evicted it.
        }
        let kept_bytes = if taken > 0 {
            // The partial input is of another message, with an age of its own.
            self.shared.drop_input(slot);
            0
        } else {
            kept_bytes
        };
        self.shared.keep_input(slot, &self.scratch.bytes[taken + kept_bytes..filled]);
    }
}

// Output: the pending output of earlier visits first, then that of this visit. Output that the kernel does not take is buffered in a lease
// until the socket is writable (`partial-write`).

impl<H: Handler, O: Os> Visit<'_, H, O> {
    /// Writes the pending output of earlier visits.
    #[inline]
    pub(crate) fn flush_kept(&mut self) {
        let state = self.slot();
        if state.output.is_some() && state.bits.intersects(Bits::WRITABLE) {
            self.write_kept();
        } else if state.bits.intersects(Bits::OUTPUT_EVICTED) {
            // Later output must not follow the hole.
            self.break_off(CloseReason::OutputEvicted);
        }
    }

    /// Not inlined: few visits call it, and the check before the call is in the hot path.
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
        lease.held_mut().window.wrote(outcome.bytes);
        self.wrote(outcome.bytes, outcome.calls, outcome.flushed);
        if outcome.flushed == Flushed::All {
            self.shared.drop_output(slot);
            let state = self.slot_mut();
            state.stall_at = None;
            state.bits.remove(Bits::OUTPUT_FULL);
        } else if outcome.bytes > 0 {
            self.shared.output_progressed(slot, outcome.bytes);
        }
    }

    /// Writes the output that callbacks have appended, in one call if the kernel takes it whole. Buffers what it does not take.
    #[inline]
    pub(crate) fn flush(&mut self) {
        if self.output.len() == 0 {
            return;
        }
        let state = self.slot();
        if state.is_dead() || state.bits.intersects(Bits::FAILED) {
            // The peer cannot get it.
            self.output.truncate(0);
            return;
        }
        let mut sent = 0;
        while sent < self.output.len() && self.takes_output() {
            let end = match self.shared.policy.write {
                WritePolicy::Joined => self.output.len(),
                WritePolicy::Split => self.output.end_of_piece(sent), // MISTAKE(split-write): Nagle's algorithm holds the second small write back until the first is acknowledged, and the peer delays that acknowledgement by 40 ms.
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
        if sent < self.output.len() && !self.slot().is_dead() {
            self.keep_unsent(sent);
        }
        self.output.truncate(0);
    }

    /// Whether the kernel may take output, and no pending output has to go first.
    #[inline]
    fn takes_output(&self) -> bool {
        let state = self.slot();
        state.bits.intersects(Bits::WRITABLE) && !state.is_dead() && state.output.is_none()
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
            self.slot_mut().bits.remove(Bits::WRITABLE);
        }
    }

    #[cold]
    fn keep_unsent(&mut self, sent: usize) {
        let rate_min = self.slot().output_rate_min;
        let first_look = self.shared.limits.first_look(rate_min, self.shared.now);
        let state = self.slot_mut();
        if state.stall_at.is_none() {
            state.stall_at = first_look;
        }
        if !self.shared.keep_output(self.token.slot, &self.output.filled()[sent..]) {
            // There is no buffer: reset, because a response that is cut short must not look complete.
            self.break_off(CloseReason::OutputEvicted);
        }
    }
}

impl<H: Handler, O: Os> Visit<'_, H, O> {
    /// Ends the visit: continues a close, lists the connection if it can make progress, and updates its place on the timer wheel.
    #[inline]
    pub(crate) fn settle(&mut self) {
        let slot = self.token.slot;
        let state = self.slot();
        if !state.is_open() || state.bits.intersects(Bits::FAILED.union(Bits::FIN_WANTED)) {
            if self.slot().bits.intersects(Bits::FIN_WANTED) {
                self.send_fin();
            }
            if self.slot().bits.intersects(Bits::FAILED) {
                self.settle_failed();
            }
            self.settle_closing();
            if self.slot().is_dead() {
                return;
            }
        }
        // The FIN came in the same read as the request that is being answered.
        const FIN_WHILE_PAUSED: Bits = Bits::INPUT_ENDED.union(Bits::PAUSED);
        let state = self.slot();
        if state.bits.only(FIN_WHILE_PAUSED.union(Bits::OUTBOUND), FIN_WHILE_PAUSED)
            && state.is_open()
            && self.shared.policy.half_close == HalfClose::HasLeft
        {
            return self.die(CloseReason::PeerClosed);
        }
        self.settle_age();
        let LoopState { slots, limits, policy, buffers, .. } = &mut *self.shared;
        let state = slots.get_mut(slot);
        state.apply_water_marks(limits, buffers.output_space_bytes());
        let due = state.due();
        let on_the_list = match policy.ready_rule {
            ReadyRule::CanProgress => can_progress(state),
            ReadyRule::HasWork => can_progress(state) || state.output.is_some(), // MISTAKE(hot-loop): a connection that waits for its peer stays on the list, and the poll does not sleep.
        };
        if on_the_list {
            match policy.resume {
                ResumePolicy::ReadyList => self.shared.queue_old(slot),
                ResumePolicy::NextEvent => {} // MISTAKE(lost-resume): the work left is in the socket or in our buffer already, and no event will come for it.
            }
        }
        // The wheel holds the connection at its due time or earlier. If a deadline has moved later, as with a new request, `expire`
        // (notify.rs) moves it when the earlier time comes. Test: `a_deadline_that_is_moved_later_runs_once_and_later`.
        if let Some(due) = due
            && self.due_before.is_none_or(|before| due < before)
        {
            self.shared.wheel.set(slot, Some(due), self.shared.now);
        }
    }
}
