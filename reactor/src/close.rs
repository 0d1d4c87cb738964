//! How a connection closes: in order, with a reset when output was cut short, or after its socket has failed. At the end, the stage that
//! calls close(2).
//!
//! *In order.* Write the output, send FIN, discard input until the peer's FIN or a limit (lingering), then close(2). A close(2) with unread
//! input makes the kernel send a reset instead of FIN (`tcp_close`, RFC 2525 section 2.17), and the peer may lose the last response
//! (`early-close`, docs/failures/early-close.md; RFC 9112 section 9.6; nginx `lingering_close`). Test: `lingering_has_its_limits`.
//!
//! *With a reset.* If a response has no length, FIN is the only sign that it is complete (HTTP/1.0, RFC 9112 section 6.3), so a connection
//! that closes in the middle of a response must not send FIN. And close(2) alone leaves unsent output in the kernel, which retries for
//! minutes when the peer has stopped reading. No connection accounts for that memory, and resident memory does not show it (nginx
//! `reset_timedout_connection`). `SO_LINGER` of zero makes close(2) a reset and frees the memory at once.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::context::LoopContext;
use crate::errors::CloseReason;
use crate::event_loop::EventLoop;
use crate::handler::Handler;
use crate::io::{ReadStop, drain_read};
use crate::loop_state::LoopState;
use crate::os::{Os, Ready};
use crate::policy::{ClosePolicy, DrainPolicy, HalfClose, WhenNearlyFull};
use crate::slot::{Bits, Phase, Slot};
use crate::stats::Callback;
use crate::timers;
use crate::visit::Visit;

impl<H: Handler, O: Os> Visit<'_, H, O> {
    /// Continues a close that was requested, at the end of a visit.
    #[cold]
    pub(crate) fn settle_closing(&mut self) {
        let state = self.slot();
        match state.phase {
            Phase::Aborting => {
                let reason = match state.reason {
                    CloseReason::Finished => CloseReason::Aborted,
                    reason => reason,
                };
                self.break_off(reason);
            }
            Phase::Flushing => {
                self.shared.drop_input(self.token.slot);
                if self.slot().output.is_none() {
                    self.start_lingering();
                }
            }
            _ => {}
        }
    }

    /// Sends the FIN that the handler asked for (`Context::shutdown_write`), once all its output is in the kernel. Input still reaches the
    /// handler. A connection that is closing gets its FIN from the close.
    #[cold]
    pub(crate) fn send_fin(&mut self) {
        let state = self.slot_mut();
        let is_unsent = state.output.is_some() || state.bits.intersects(Bits::OUTPUT_EVICTED);
        if is_unsent || !state.is_open() || state.bits.intersects(Bits::FAILED) {
            return;
        }
        state.bits.remove(Bits::FIN_WANTED);
        match self.os.shutdown_write(&mut self.entry.stream) {
            Ok(()) => self.slot_mut().bits.insert(Bits::FIN_SENT),
            Err(e) if self.stays_to_deliver(&e) => {}
            Err(_) => self.die(CloseReason::Reset),
        }
    }

    /// Sends FIN and begins to discard input. Closes at once if the peer's FIN was read, and resets if output was cut short.
    fn start_lingering(&mut self) {
        let reason = self.slot().reason;
        if self.is_cut_short() {
            return self.break_off(reason);
        }
        if self.slot().bits.intersects(Bits::INPUT_ENDED) {
            let reason = if reason == CloseReason::Finished { CloseReason::PeerClosed } else { reason };
            return self.die(reason);
        }
        match self.shared.policy.close {
            ClosePolicy::Linger => {}
            ClosePolicy::AtOnce => return self.die(reason), // MISTAKE(early-close): a close with input unread is a reset, and a client that is still sending gets an error instead of the answer.
        }
        if !self.slot().bits.intersects(Bits::FIN_SENT) && self.os.shutdown_write(&mut self.entry.stream).is_err() {
            return self.die(CloseReason::Reset);
        }
        let linger_timeout = match reason {
            CloseReason::Refused => self.shared.limits.refused_linger_timeout,
            // The client has its response, and new clients need the slot: no longer than a rejected connection.
            _ if self.is_crowded() => self.shared.limits.refused_linger_timeout.min(self.shared.limits.linger_timeout),
            _ => self.shared.limits.linger_timeout,
        };
        let (now, left_bytes) = (self.shared.now, self.shared.limits.linger_bytes_max);
        let state = self.slot_mut();
        state.enter(Phase::Lingering { left_bytes });
        state.bits.remove(Bits::WANTS_WRITABLE);
        state.deadline = timers::after(now, linger_timeout);
        state.stall_at = None;
        self.shared.stats.connections_lingering.add(1);
    }

    /// Whether fewer slots are free than are reserved for new clients.
    fn is_crowded(&self) -> bool {
        match self.shared.policy.when_nearly_full {
            WhenNearlyFull::Evict => {
                self.shared.stats.connections_open.get() > u64::from(self.shared.limits.connections_before_eviction_max())
            }
            WhenNearlyFull::Keep => false,
        }
    }

    /// Reads and discards input, until the peer's FIN, a limit, or the visit's budget of reads.
    pub(crate) fn discard(&mut self) {
        let LoopState { slots, limits, stats, progress, .. } = &mut *self.shared;
        let state = slots.get_mut(self.token.slot);
        let Phase::Lingering { left_bytes } = &mut state.phase else { return };
        if !state.bits.intersects(Bits::READABLE) {
            return;
        }
        let reason = state.reason;
        let reads_max = limits.visit_reads_max.min(4);
        for _ in 0..reads_max {
            let Ok(outcome) = drain_read(&mut self.entry.stream, &mut self.scratch.bytes, 1, DrainPolicy::UntilWouldBlock, false) else {
                return self.die(reason);
            };
            *progress = true;
            *left_bytes = left_bytes.saturating_sub(u32::try_from(outcome.bytes).unwrap_or(u32::MAX));
            stats.bytes_discarded.add(outcome.bytes as u64);
            match outcome.stop {
                ReadStop::PeerClosed | ReadStop::Failed(_) => return self.die(reason),
                ReadStop::Empty => return state.bits.remove(Bits::READABLE),
                _ if *left_bytes == 0 => return self.die(reason),
                ReadStop::BudgetSpent | ReadStop::BufferFull => {}
            }
        }
    }

    /// Whether a FIN now would cut a response short: output is pending or was evicted, or the handler is in the middle of a response.
    fn is_cut_short(&self) -> bool {
        let state = self.slot();
        if state.bits.intersects(Bits::FIN_SENT) {
            return false; // The handler has ended its output itself.
        }
        let unsent = state.output.is_some() || state.bits.intersects(Bits::OUTPUT_EVICTED);
        unsent || self.entry.conn.as_ref().is_some_and(|conn| self.handler.is_unfinished(conn))
    }

    /// Closes with a reset: unsent output is dropped, here and in the kernel, and the peer sees that the response is not complete.
    pub(crate) fn break_off(&mut self, reason: CloseReason) {
        self.end(reason, true);
    }

    /// Closes the connection but for close(2), which `close_dead` calls. Its buffers are free at once. A reset if a response was cut short.
    pub(crate) fn die(&mut self, reason: CloseReason) {
        // After FIN the output is complete. A reset could destroy the part that the peer has not received.
        let reset = !self.slot().is_lingering() && self.is_cut_short();
        self.end(reason, reset);
    }

    fn end(&mut self, reason: CloseReason, reset: bool) {
        let state = self.slot_mut();
        if state.is_dead() {
            return;
        }
        let was_lingering = state.is_lingering();
        state.enter(Phase::Dead { reset });
        state.reason = reason;
        if was_lingering {
            self.shared.stats.connections_lingering.sub(1);
        }
        self.cancel_eviction();
        self.shared.bury(self.token.slot);
    }
}

// A connection whose socket has failed. The failure ends the output; input that has arrived is still there.
//
// A server that answers 413 and closes with input unread sends its response and then a reset. The client's receive queue still holds the
// response: `tcp_reset` (net/ipv4/tcp_input.c) drops the send queue only. So the loop reads an *outbound* connection that has failed until
// no more input has arrived, and closes it when its handler has taken that input. Until then it discards output.
//
// An *accepted* connection closes at once. A request that came before the reset does not reach the service, because its response could not
// be delivered. Test: `a_request_that_came_before_a_reset_does_not_reach_the_service`.
//
// The kernel reports an error once, to a write, a read or `SO_ERROR`. After that a read after the last byte returns 0, as at a FIN. Only
// the error itself shows which came first: EPIPE if it was the FIN, another error if it was the failure. Without this distinction a
// response that ends with the connection would look complete when it was cut off. Tests:
// `bytes_before_a_reset_stay_readable_and_its_error_comes_once`, `an_outbound_connection_delivers_what_its_peer_sent_before_it_failed`.

impl<H: Handler, O: Os> Visit<'_, H, O> {
    /// Notes that the socket has failed. True if the connection stays open to deliver input that has arrived. If false, the caller closes
    /// it.
    #[cold]
    pub(crate) fn stays_to_deliver(&mut self, error: &io::Error) -> bool {
        let state = self.slot_mut();
        if !state.bits.intersects(Bits::OUTBOUND) || !state.is_open() {
            return false;
        }
        // The first error counts: the kernel answers EPIPE to every later write.
        if !state.bits.intersects(Bits::FAILED) && error.raw_os_error() == Some(libc::EPIPE) {
            state.bits.insert(Bits::FIN_BEFORE_FAILURE);
        }
        state.bits.insert(Bits::FAILED.union(Bits::WRITABLE).union(Bits::READ_TO_THE_END));
        if !state.bits.intersects(Bits::INPUT_ENDED) {
            state.bits.insert(Bits::READABLE);
        }
        // Pending output is dropped below, so input does not wait for it any more.
        state.bits.remove(Bits::OUTPUT_FULL.union(Bits::INPUT_BLOCKED));
        state.stall_at = None;
        self.shared.drop_output(self.token.slot);
        self.output.truncate(0);
        true
    }

    /// Handles an error of a read, which may have returned bytes before the error.
    #[cold]
    pub(crate) fn read_failed(&mut self, error: &io::Error) {
        if self.stays_to_deliver(error) {
            self.input_is_cut_off();
        } else {
            self.die(CloseReason::Reset);
        }
    }

    /// Handles the end of a read after a failure. No further event will come, so input that has not arrived by now is lost.
    #[cold]
    pub(crate) fn read_after_failure(&mut self, stop: ReadStop) {
        match stop {
            ReadStop::PeerClosed if self.slot().bits.intersects(Bits::FIN_BEFORE_FAILURE) => {
                let bits = &mut self.slot_mut().bits;
                bits.remove(Bits::READABLE);
                bits.insert(Bits::INPUT_ENDED);
            }
            ReadStop::PeerClosed | ReadStop::Empty | ReadStop::Failed(_) => self.input_is_cut_off(),
            ReadStop::BudgetSpent | ReadStop::BufferFull => {}
        }
    }

    /// Notes that no more can be read. The handler must not take that for the peer's FIN, so it gets no `ended`.
    fn input_is_cut_off(&mut self) {
        let bits = &mut self.slot_mut().bits;
        bits.remove(Bits::READABLE);
        bits.insert(Bits::INPUT_ENDED.union(Bits::END_DELIVERED));
    }

    /// Closes a failed connection when its handler has taken the input that had arrived, or cannot take it.
    #[cold]
    pub(crate) fn settle_failed(&mut self) {
        let Slot { bits, phase, reason, .. } = *self.slot();
        let delivered = bits.intersects(Bits::END_DELIVERED) && !bits.intersects(Bits::UNPARSED);
        // The handler waits for output space before it resumes input. A failed socket gets no space.
        let blocked = bits.contains(Bits::PAUSED.union(Bits::WANTS_WRITABLE));
        if delivered || blocked || phase == Phase::Flushing {
            let reason = match reason {
                CloseReason::Finished => CloseReason::Reset,
                reason => reason,
            };
            self.die(reason);
        }
    }
}

impl<H: Handler, O: Os> EventLoop<H, O> {
    /// Notes an event that reports a close, an error or urgent data. Returns whether it has closed the connection.
    #[cold]
    pub(crate) fn is_closed_for(&mut self, slot: u32, ready: Ready) -> bool {
        let state = self.shared.slots.get_mut(slot);
        if ready.intersects(Ready::READ_CLOSED.union(Ready::ERROR)) {
            state.bits.insert(Bits::READABLE);
        }
        if ready.intersects(Ready::WRITE_CLOSED.union(Ready::ERROR)) {
            state.bits.insert(Bits::WRITABLE);
        }
        if ready.intersects(Ready::READ_CLOSED.union(Ready::ERROR).union(Ready::PRIORITY)) {
            state.bits.insert(Bits::READ_TO_THE_END);
        }
        // A client that has sent its last byte may have disconnected. A server that has sent its last byte has sent its response.
        let paused = state.bits.only(Bits::PAUSED.union(Bits::OUTBOUND), Bits::PAUSED) && state.is_open();
        let gone = ready.intersects(Ready::ERROR.union(Ready::WRITE_CLOSED)) && !state.is_lingering();
        if gone && self.has_failed(slot, ready) {
            self.kill(slot, CloseReason::Reset);
            return true;
        }
        if paused && ready.intersects(Ready::READ_CLOSED) && self.shared.policy.half_close == HalfClose::HasLeft {
            self.kill(slot, CloseReason::PeerClosed);
            return true;
        }
        false
    }

    /// Whether a connection has failed and is to be closed now. While a request is being answered the loop does not read, and only this
    /// event reports the failure. An outbound connection stays open until what has arrived is delivered.
    #[cold]
    fn has_failed(&mut self, slot: u32, ready: Ready) -> bool {
        let Some(entry) = self.entries.get_mut(slot as usize) else { return false };
        let error = match ready.intersects(Ready::ERROR).then(|| self.os.take_error(&mut entry.stream)) {
            Some(Ok(Some(e)) | Err(e)) => e,
            // Shut down in both directions, and not by this loop: an earlier call has taken the error off the socket. After
            // `Context::shutdown_write` the peer's FIN is enough for that. Test: `the_peers_fin_after_ours_is_not_taken_for_a_reset`.
            Some(Ok(None)) | None
                if ready.intersects(Ready::WRITE_CLOSED)
                    && self.shared.slots.get(slot).input_is_held()
                    && !self.shared.slots.get(slot).bits.intersects(Bits::FIN_SENT) =>
            {
                io::ErrorKind::ConnectionReset.into()
            }
            Some(Ok(None)) | None => return false,
        };
        !self.visit_to(slot, 0).is_some_and(|mut visit| visit.stays_to_deliver(&error))
    }
}

impl<H: Handler, O: Os> EventLoop<H, O> {
    /// The last stage of a turn with a budget: close(2) for connections that have died. A close costs about 9 µs (`closes_per_turn_max`).
    pub(crate) fn close_dead(&mut self) {
        self.closed_last_turn = 0;
        if self.shared.closes.is_empty() {
            return;
        }
        if !self.adoptions_waiting.is_empty() {
            self.mail_waits = true; // The next turn may have a slot for one of them.
        }
        let mut stage = self.stage(self.shared.limits.closes_time_max);
        for _ in 0..self.shared.limits.closes_per_turn_max {
            let Some(slot) = self.shared.closes.pop_front() else { return };
            self.close(slot);
            self.closed_last_turn += 1;
            if self.time_is_up(&mut stage, 1) {
                return;
            }
        }
    }

    /// Calls close(2), frees the slot, and calls the handler's `closed`.
    pub(crate) fn close(&mut self, slot: u32) {
        let mut entry = self.entries.remove(slot as usize);
        // Before close(2): while a duplicate of the descriptor is open (a fork, another thread), epoll keeps the closed socket and reports
        // its events (epoll(7)). Test: `a_duplicate_of_a_descriptor_brings_no_ghost_events_after_the_close`.
        if let Err(e) = self.os.deregister(&mut entry.stream) {
            log::debug!("deregister: {e}");
        }
        let Slot { phase, reason, .. } = *self.shared.slots.get(slot);
        if phase == (Phase::Dead { reset: true }) {
            self.shared.stats.resets.add(1);
            if let Err(e) = self.os.reset_at_close(&mut entry.stream) {
                log::debug!("cannot reset a connection: {e}");
            }
        }
        drop(entry.stream);
        self.shared.slots.vacate(slot);
        let stats = &self.shared.stats;
        stats.closes(reason).add(1);
        stats.connections_open.set(self.entries.len() as u64);
        self.slots_taken.closed();
        self.shared.progress = true;
        if let Some(conn) = entry.conn {
            self.shared.stats.enter(Callback::Closed, slot);
            let Self { handler, shared, .. } = self;
            if catch_unwind(AssertUnwindSafe(|| handler.closed(conn, reason, &mut LoopContext { shared }))).is_err() {
                self.shared.stats.panics.add(1);
            }
            self.shared.stats.leave();
        }
        self.resume_accepting();
    }
}
